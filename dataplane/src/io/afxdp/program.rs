//! weir's XDP program (bpf/weir.bpf.c): loaded, attached by a bpf link, its maps written.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, MapHandle, ObjectBuilder, PrintLevel, libbpf_sys};
use weir_config::PortMode;

use super::socket::retry_busy;
use super::steering::{Entry, Table};
use crate::io::PortCounters;

/// The compiled program, aligned as an ELF reader wants it.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/weir.bpf.o")));

/// linux/if_link.h: attach only as asked.
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// linux/if_link.h: how a program is attached.
const XDP_ATTACHED_NONE: u8 = 0;
const XDP_ATTACHED_SKB: u8 = 2;

/// The loaded program and its maps.
#[derive(Debug)]
pub(super) struct Program {
    program: OwnedFd,
    sockets: SocketMap,
    vteps: MapHandle,
    prefixes4: MapHandle,
    prefixes6: MapHandle,
    counters: MapHandle,
    /// What stands in the steering maps.
    steered: BTreeSet<Entry>,
}

/// The program on a device. Detached when this is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Attachment {
    link: OwnedFd,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // Closing alone would leave the program attached while a forked child still has a copy of the descriptor.
        // SAFETY: a live link descriptor.
        unsafe { libbpf_sys::bpf_link_detach(self.link.as_raw_fd()) };
    }
}

/// The map by which the program finds sockets, for a queue to take itself out of when it closes.
#[derive(Clone, Debug)]
pub(super) struct SocketMap(Arc<OwnedFd>);

impl SocketMap {
    /// The map of somebody else's program.
    pub(super) fn foreign(map: OwnedFd, queues: u32) -> Result<Self, String> {
        let mut info = libbpf_sys::bpf_map_info::default();
        let mut length = size_of_val(&info) as u32;
        // SAFETY: a live descriptor, and a live value of the length given.
        let result =
            unsafe { libbpf_sys::bpf_map_get_info_by_fd(map.as_raw_fd(), &raw mut info, &raw mut length) };
        if result < 0 {
            return Err(format!("what came is no BPF map: {}", io::Error::from_raw_os_error(-result)));
        }
        if info.type_ != libbpf_sys::BPF_MAP_TYPE_XSKMAP {
            return Err("what came is a BPF map, but none of AF_XDP sockets".to_owned());
        }
        if info.max_entries < queues {
            return Err(format!(
                "the map has room for {} queues and the device has {queues}",
                info.max_entries
            ));
        }
        Ok(Self(Arc::new(map)))
    }

    /// The map that is pinned at a path.
    pub(super) fn pinned(path: &Path, queues: u32) -> Result<Self, String> {
        let text = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        // SAFETY: a live text that ends in zero.
        let fd = unsafe { libbpf_sys::bpf_obj_get(text.as_ptr()) };
        if fd < 0 {
            return Err(format!("the pinned map {}: {}", path.display(), io::Error::from_raw_os_error(-fd)));
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        Self::foreign(unsafe { OwnedFd::from_raw_fd(fd) }, queues)
    }

    /// From now on frames of `queue` go to `socket`.
    pub(super) fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), String> {
        let value = socket.as_raw_fd();
        // SAFETY: key and value are live and have the sizes of this kind of map's: 4 bytes each.
        let result = unsafe {
            libbpf_sys::bpf_map_update_elem(
                self.0.as_raw_fd(),
                (&raw const queue).cast(),
                (&raw const value).cast(),
                0,
            )
        };
        if result < 0 {
            let error = io::Error::from_raw_os_error(-result);
            return Err(format!("the socket of queue {queue} cannot be put into the map: {error}"));
        }
        Ok(())
    }

    /// From now on frames of `queue` go to the kernel.
    pub(super) fn remove(&self, queue: u32) {
        // It may be gone: the kernel takes sockets of deleted devices out by itself.
        // SAFETY: the key is live and has the size of this kind of map's: 4 bytes.
        unsafe { libbpf_sys::bpf_map_delete_elem(self.0.as_raw_fd(), (&raw const queue).cast()) };
    }
}

/// Whether the program that is attached to a device runs in the kernel's receive path; `None` if there is none.
pub(super) fn attached_generically(ifindex: u32) -> Option<bool> {
    let mut options = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    // SAFETY: live options of the size given.
    let result = unsafe { libbpf_sys::bpf_xdp_query(ifindex as i32, 0, &raw mut options) };
    (result == 0 && options.attach_mode != XDP_ATTACHED_NONE)
        .then_some(options.attach_mode == XDP_ATTACHED_SKB)
}

/// How the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttachMode {
    /// In the driver.
    Native,
    /// In the kernel's receive path, on any device.
    Generic,
}

/// What could not be done to a steering map, with which entry, and why.
pub(super) type Refusal = (&'static str, Entry, String);

impl Program {
    /// Loads the program of `mode` with room for the sockets of `queues` queues. `stamps`: times of arrival in front of
    /// frames, if the port is dedicated.
    pub(super) fn load(mode: PortMode, stamps: bool, queues: u32) -> Result<Self, String> {
        capture_messages();
        let wanted = match mode {
            PortMode::Dedicated if stamps => "weir_stamped",
            PortMode::Dedicated => "weir_dedicated",
            PortMode::Shared => "weir_shared",
        };
        let with_log = |error: libbpf_rs::Error| match take_messages() {
            log if log.is_empty() => error.to_string(),
            log => format!("{error}: {log}"),
        };
        take_messages();
        let mut open = ObjectBuilder::default().open_memory(&OBJECT.0).map_err(with_log)?;
        for mut program in open.progs_mut() {
            let load = program.name() == OsStr::new(wanted);
            program.set_autoload(load);
        }
        for mut map in open.maps_mut() {
            if map.name() == OsStr::new("sockets") {
                map.set_max_entries(queues.max(1)).map_err(with_log)?;
            }
        }
        let object = open.load().map_err(with_log)?;
        let program = object
            .progs()
            .find(|program| program.name() == OsStr::new(wanted))
            .ok_or_else(|| format!("the object has no program {wanted}"))?
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| error.to_string())?;
        let map = |name: &str| {
            let map = object.maps().find(|map| map.name() == OsStr::new(name));
            let map = map.ok_or_else(|| format!("the object has no map {name}"))?;
            MapHandle::try_from(&map).map_err(|error| error.to_string())
        };
        Ok(Self {
            program,
            sockets: SocketMap(Arc::new(
                map("sockets")?.as_fd().try_clone_to_owned().map_err(|error| error.to_string())?,
            )),
            vteps: map("vteps")?,
            prefixes4: map("prefixes4")?,
            prefixes6: map("prefixes6")?,
            counters: map("counters")?,
            steered: BTreeSet::new(),
        })
    }

    /// Attaches the program to a device; EBUSY is retried for `patience`, because detaching is asynchronous.
    pub(super) fn attach(
        &self,
        ifindex: u32,
        mode: AttachMode,
        patience: Duration,
    ) -> io::Result<Attachment> {
        let flags = match mode {
            AttachMode::Native => XDP_FLAGS_DRV_MODE,
            AttachMode::Generic => XDP_FLAGS_SKB_MODE,
        };
        let options = libbpf_sys::bpf_link_create_opts {
            sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
            flags,
            ..Default::default()
        };
        retry_busy(patience, || {
            // SAFETY: a live program descriptor and live options of the size given.
            let link = unsafe {
                libbpf_sys::bpf_link_create(
                    self.program.as_raw_fd(),
                    ifindex as i32,
                    libbpf_sys::BPF_XDP,
                    &raw const options,
                )
            };
            if link < 0 {
                return Err(io::Error::from_raw_os_error(-link));
            }
            // SAFETY: a fresh descriptor that nobody else owns.
            Ok(Attachment { link: unsafe { OwnedFd::from_raw_fd(link) } })
        })
    }

    pub(super) fn sockets(&self) -> &SocketMap {
        &self.sockets
    }

    /// Makes the steering maps hold exactly `wanted`. What is new is added before what is old is removed; where a map is
    /// too full for that, the other way round.
    pub(super) fn steer(&mut self, wanted: &BTreeSet<Entry>) -> Result<(), Refusal> {
        let full = self.add(wanted).is_err();
        let removed: Vec<Entry> = self.steered.difference(wanted).copied().collect();
        for entry in removed {
            // What changes its value is not deleted: the new value stands there, or is about to.
            if !entry.opposite().is_some_and(|replacement| wanted.contains(&replacement)) {
                let result = self.table(entry).delete(&entry.key());
                result.map_err(|error| ("remove", entry, error.to_string()))?;
            }
            self.steered.remove(&entry);
        }
        if full { self.add(wanted) } else { Ok(()) }
    }

    fn add(&mut self, wanted: &BTreeSet<Entry>) -> Result<(), Refusal> {
        let added: Vec<Entry> = wanted.difference(&self.steered).copied().collect();
        for entry in added {
            let result = self.table(entry).update(&entry.key(), &entry.value(), MapFlags::ANY);
            result.map_err(|error| ("add", entry, error.to_string()))?;
            self.steered.insert(entry);
        }
        Ok(())
    }

    fn table(&self, entry: Entry) -> &MapHandle {
        match entry.table() {
            Table::Vteps => &self.vteps,
            Table::Prefixes4 => &self.prefixes4,
            Table::Prefixes6 => &self.prefixes6,
        }
    }

    /// What the program did with frames, summed over CPUs.
    pub(super) fn counters(&self) -> PortCounters {
        let sum = |which: u32| -> u64 {
            let values = self.counters.lookup_percpu(&which.to_ne_bytes(), MapFlags::ANY);
            let values = values.ok().flatten().unwrap_or_default();
            values.iter().filter_map(|value| value.first_chunk().copied().map(u64::from_ne_bytes)).sum()
        };
        PortCounters { redirected: sum(0), passed: sum(1), no_socket: sum(2), ..PortCounters::default() }
    }
}

/// What libbpf printed last: the verifier's reasons stand there and nowhere else.
static MESSAGES: Mutex<String> = Mutex::new(String::new());
const MESSAGES_LIMIT: usize = 4096;

fn capture_messages() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        libbpf_rs::set_print(Some((PrintLevel::Warn, |_, text| {
            let mut messages = MESSAGES.lock().unwrap_or_else(PoisonError::into_inner);
            if messages.len() + text.len() <= MESSAGES_LIMIT {
                messages.push_str(&text);
            }
        })));
    });
}

fn take_messages() -> String {
    let mut messages = MESSAGES.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *messages).trim_end().to_owned()
}

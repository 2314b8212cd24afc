//! One AF_XDP socket: memory registered, rings mapped, bound to a queue.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use weir_config::HugePages;

use super::ring::{ConsumerRing, Descriptor, ProducerRing};
use crate::frame::FrameMemory;

/// How many packets one send call may push through the kernel's copying path (Linux 6.17; 32 without it).
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
const TX_BUDGET: u32 = 256;
/// How long a driver is given to let go of a queue where it cannot be asked.
const BLIND_RELEASE: Duration = Duration::from_millis(200);

/// Sizes of the rings of a socket, in entries; powers of two.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingSizes {
    pub(super) fill: u32,
    pub(super) receive: u32,
    pub(super) transmit: u32,
}

/// How a socket is bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding<'a> {
    pub(super) ifindex: u32,
    pub(super) queue: u32,
    pub(super) zero_copy: bool,
    /// The port's first socket, whose registration of the memory the others share.
    pub(super) shares: Option<BorrowedFd<'a>>,
    /// How long EBUSY is retried: the kernel frees a queue some time after its socket was closed.
    pub(super) patience: Duration,
}

/// A socket that is not bound yet. Its rings can be filled.
#[derive(Debug)]
pub(super) struct XskSocket {
    pub(super) receive: ConsumerRing<Descriptor>,
    pub(super) transmit: ProducerRing<Descriptor>,
    pub(super) fill: ProducerRing<u64>,
    pub(super) completion: ConsumerRing<u64>,
    fd: OwnedFd,
}

/// What the kernel counted: `struct xdp_statistics`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statistics {
    /// Frames lost because a ring was full, the fill ring empty or the frame too long.
    pub(super) missed: u64,
    /// Descriptors refused.
    pub(super) invalid: u64,
}

impl XskSocket {
    /// Makes a socket and its rings. With `register`, the memory is registered on it.
    pub(super) fn new(memory: &FrameMemory, register: bool, sizes: RingSizes) -> io::Result<Self> {
        // SAFETY: plain system call.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if register {
            register_memory(fd.as_fd(), memory)?;
        }
        set_option(fd.as_fd(), libc::XDP_UMEM_FILL_RING, &sizes.fill)?;
        set_option(fd.as_fd(), libc::XDP_UMEM_COMPLETION_RING, &sizes.transmit)?;
        set_option(fd.as_fd(), libc::XDP_RX_RING, &sizes.receive)?;
        set_option(fd.as_fd(), libc::XDP_TX_RING, &sizes.transmit)?;
        // Without it (older kernels) a burst takes two calls instead of one.
        let _ = set_option(fd.as_fd(), XDP_MAX_TX_SKB_BUDGET, &TX_BUDGET.min(sizes.transmit));
        // SAFETY: all-zero is a valid xdp_mmap_offsets.
        let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
        get_option(fd.as_fd(), libc::XDP_MMAP_OFFSETS, &mut offsets)?;
        let socket = fd.as_fd();
        Ok(Self {
            receive: ConsumerRing::map(socket, libc::XDP_PGOFF_RX_RING, sizes.receive, &offsets.rx)?,
            transmit: ProducerRing::map(socket, libc::XDP_PGOFF_TX_RING, sizes.transmit, &offsets.tx)?,
            fill: ProducerRing::map(socket, libc::XDP_UMEM_PGOFF_FILL_RING as i64, sizes.fill, &offsets.fr)?,
            completion: ConsumerRing::map(
                socket,
                libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64,
                sizes.transmit,
                &offsets.cr,
            )?,
            fd,
        })
    }

    /// Binds the socket to a queue of a device.
    pub(super) fn bind(&self, binding: Binding<'_>) -> io::Result<()> {
        let mode = if binding.zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            // A socket that shares a registration takes the mode and the wake-up flag of the first.
            sxdp_flags: match binding.shares {
                Some(_) => libc::XDP_SHARED_UMEM,
                None => mode | libc::XDP_USE_NEED_WAKEUP,
            },
            sxdp_ifindex: binding.ifindex,
            sxdp_queue_id: binding.queue,
            sxdp_shared_umem_fd: binding.shares.map_or(0, |fd| fd.as_raw_fd() as u32),
        };
        retry_busy(binding.patience, || {
            // SAFETY: the address is a valid sockaddr_xdp of the length given.
            let bound = unsafe {
                libc::bind(
                    self.fd.as_raw_fd(),
                    (&raw const address).cast(),
                    size_of_val(&address) as libc::socklen_t,
                )
            };
            if bound == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        })
    }

    /// Whether the binding is zero-copy, as the kernel says after the fact.
    pub(super) fn zero_copy(&self) -> io::Result<bool> {
        let mut options = libc::xdp_options { flags: 0 };
        get_option(self.fd.as_fd(), libc::XDP_OPTIONS, &mut options)?;
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// What the kernel counted since the socket was made. One system call.
    pub(super) fn statistics(&self) -> Option<Statistics> {
        // SAFETY: all-zero is a valid xdp_statistics.
        let mut raw: libc::xdp_statistics = unsafe { std::mem::zeroed() };
        get_option(self.fd.as_fd(), libc::XDP_STATISTICS, &mut raw).ok()?;
        Some(Statistics {
            missed: raw.rx_dropped + raw.rx_ring_full,
            invalid: raw.rx_invalid_descs + raw.tx_invalid_descs,
        })
    }

    /// Makes the kernel send what stands in the transmit ring.
    #[inline]
    pub(super) fn kick_transmit(&self) -> Kick {
        // SAFETY: no buffer is passed.
        let sent = unsafe {
            libc::sendto(self.fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
        };
        Kick::from(sent)
    }

    /// Makes the kernel look at the fill ring; also tells whether the device is still there.
    #[inline]
    pub(super) fn kick_receive(&self) -> Kick {
        // SAFETY: no buffer is passed.
        let received = unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
        Kick::from(received)
    }
}

impl AsFd for XskSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What became of a kick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kick {
    /// Done, or worth another try later: EAGAIN, EBUSY, ENOBUFS, a device that is down.
    Fine,
    /// The device is gone: the kernel has unbound the socket.
    Gone,
}

impl From<isize> for Kick {
    fn from(result: isize) -> Self {
        if result >= 0 {
            return Self::Fine;
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::ENXIO | libc::ENODEV | libc::EBADF) => Self::Gone,
            _ => Self::Fine,
        }
    }
}

/// Waits until the kernel has taken a queue away from the driver, which it does in the background after the zero-copy socket
/// was closed: until then the device may write to the memory that was registered. False if it did not within `patience`.
pub(super) fn await_release(ifindex: u32, queue: u32, patience: Duration) -> bool {
    // Nothing tells of it. But a queue that still has its memory takes no other, not even one in copy mode, of which the driver
    // learns nothing.
    const SIZES: RingSizes = RingSizes { fill: 64, receive: 64, transmit: 64 };
    static MEMORY: OnceLock<Option<&'static FrameMemory>> = OnceLock::new();
    let memory = *MEMORY.get_or_init(|| FrameMemory::map(1, 4096, HugePages::Never).ok());
    let binding = Binding { ifindex, queue, zero_copy: false, shares: None, patience };
    let bound = memory
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
        .and_then(|memory| XskSocket::new(memory, true, SIZES)?.bind(binding));
    match bound {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => false,
        Err(_) => {
            std::thread::sleep(BLIND_RELEASE);
            true
        }
    }
}

/// Calls `attempt` until it says something else than EBUSY or `patience` is over; waits 5 ms, then twice as long each time.
pub(super) fn retry_busy<T>(patience: Duration, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        match attempt() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && started.elapsed() < patience => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(200));
            }
            result => return result,
        }
    }
}

fn register_memory(socket: BorrowedFd<'_>, memory: &FrameMemory) -> io::Result<()> {
    let registration = libc::xdp_umem_reg {
        addr: memory.base().as_ptr() as u64,
        len: memory.bytes() as u64,
        chunk_size: memory.frame_size().into(),
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set_option(socket, libc::XDP_UMEM_REG, &registration)
}

fn set_option<T>(socket: BorrowedFd<'_>, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of a live value; the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            option,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn get_option<T>(socket: BorrowedFd<'_>, option: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to a live value of plain integers.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, (&raw mut *value).cast(), &mut len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

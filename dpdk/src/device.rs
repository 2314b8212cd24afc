//! An Ethernet device of DPDK: made from its arguments, configured and started in one go, and removed when it is dropped.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::eal::{Eal, control};
use crate::error::{Error, reason};
use crate::mbuf::Mbuf;
use crate::mempool::Mempool;
use crate::{log, sys};

/// Which devices are gone, by port number. Set by EAL's interrupt thread.
static GONE: [AtomicBool; sys::WEIR_MAX_PORTS as usize] =
    [const { AtomicBool::new(false) }; sys::WEIR_MAX_PORTS as usize];

unsafe extern "C" fn device_gone(port: u16) {
    if let Some(gone) = GONE.get(usize::from(port)) {
        gone.store(true, Ordering::Release);
    }
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its name, such as "0000:3b:02.1" or "net_memif0".
    pub device: String,
    /// DPDK's driver, such as "net_e1000_igb_vf".
    pub driver: String,
    /// The bus that it is on, such as "pci" or "vdev".
    pub bus: String,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// NUMA node, −1 if it has none.
    pub numa: i32,
    /// Most receive queues.
    pub max_rx_queues: u16,
    /// Most transmit queues.
    pub max_tx_queues: u16,
    /// Smallest and largest MTU, as far as the driver says.
    pub mtus: (u16, u16),
    /// Longest frame that it receives, in bytes, as far as the driver says.
    pub longest: u32,
}

/// How a device is to be configured.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Queues: as many receive as transmit queues.
    pub queues: u16,
    /// Entries of each receive ring.
    pub rx_ring: u16,
    /// Entries of each transmit ring.
    pub tx_ring: u16,
    /// MTU; `None` is Ethernet's.
    pub mtu: Option<u16>,
}

/// What a device got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obtained {
    /// Entries of each receive ring.
    pub rx_ring: u16,
    /// Entries of each transmit ring.
    pub tx_ring: u16,
    /// Whether it spreads what it receives over the queues by a hash.
    pub rss: bool,
    /// Whether that hash is the same for both directions of a connection.
    pub symmetric: bool,
    /// Whether sent frames are freed the fast way.
    pub fast_free: bool,
    /// Whether the driver may spread a frame over several buffers, since one of its own size does not hold the MTU.
    pub scattered: bool,
}

/// A device's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether there is a carrier.
    pub up: bool,
    /// Megabits a second, 0 if unknown.
    pub mbit: u32,
}

/// What a device counts besides frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames that the device dropped since its receive rings were full.
    pub rx_missed: u64,
    /// Frames that came in broken.
    pub rx_errors: u64,
    /// Frames dropped since there was no free mbuf.
    pub rx_no_frame: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
}

/// A device. Dropped, it is stopped and removed, and every mbuf that it had is back in its pool or in the caches of threads.
#[derive(Debug)]
pub struct Device {
    port: u16,
    name: String,
    started: bool,
}

impl Device {
    /// Makes a device: `devargs` is a PCI address, or a virtual device's name and arguments, as EAL takes them.
    ///
    /// # Errors
    /// [`Error::Probe`], [`Error::Busy`].
    pub fn probe(_eal: &Eal, devargs: &str) -> Result<Self, Error> {
        let failed = |reason: String, log| Error::Probe { devargs: devargs.to_owned(), reason, log };
        let name = devargs.split(',').next().unwrap_or_default();
        let (Ok(c_devargs), Ok(c_name)) = (CString::new(devargs), CString::new(name)) else {
            return Err(failed("it holds a zero byte".to_owned(), Vec::new()));
        };
        let _guard = control();
        let mut port = 0;
        // SAFETY: both strings live through the calls; `port` is written to.
        let (found, log) = unsafe {
            if sys::weir_port_of(c_name.as_ptr(), &raw mut port) == 0 {
                return Err(Error::Busy { device: name.to_owned() });
            }
            let (code, log) = log::listening(|| sys::rte_dev_probe(c_devargs.as_ptr()));
            if code != 0 {
                return Err(failed(reason(code), log));
            }
            (sys::weir_port_of(c_name.as_ptr(), &raw mut port), log)
        };
        if found != 0 {
            return Err(failed("it is no network device".to_owned(), log));
        }
        if let Some(gone) = GONE.get(usize::from(port)) {
            gone.store(false, Ordering::Release);
        }
        // SAFETY: the function may be called from any thread, with any port. Not every device can tell that it is gone.
        unsafe { sys::weir_watch(port, Some(device_gone)) };
        Ok(Self { port, name: name.to_owned(), started: false })
    }

    fn failed(&self, action: impl Into<String>, code: i32, log: Vec<String>) -> Error {
        Error::Device { device: self.name.clone(), action: action.into(), reason: reason(code), log }
    }

    fn check(&self, action: &str, code: i32) -> Result<(), Error> {
        if code == 0 { Ok(()) } else { Err(self.failed(action, code, Vec::new())) }
    }

    /// What it is.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn about(&self) -> Result<About, Error> {
        let mut about = sys::weir_about::default();
        // SAFETY: `about` is written to; strings in it end with a zero.
        unsafe {
            self.check("read what it is", sys::weir_about(self.port, &raw mut about))?;
            let text =
                |from: &[std::ffi::c_char]| CStr::from_ptr(from.as_ptr()).to_string_lossy().into_owned();
            Ok(About {
                device: text(&about.device),
                driver: text(&about.driver),
                bus: text(&about.bus),
                mac: about.mac,
                numa: sys::rte_eth_dev_socket_id(self.port),
                max_rx_queues: about.max_rx_queues,
                max_tx_queues: about.max_tx_queues,
                mtus: (about.min_mtu, about.max_mtu),
                longest: about.max_rx_pktlen,
            })
        }
    }

    /// Configures it, gives its queues mbufs of `pool`, and starts it. A device on a bus with DMA is first given access to the memory
    /// of the pool.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn start(&mut self, settings: &Settings, pool: &'static Mempool) -> Result<Obtained, Error> {
        let about = self.about()?;
        let _guard = control();
        if about.bus != "vdev" {
            let (memory, bytes, page) = pool.memory();
            // SAFETY: the memory is mapped for as long as the process lives.
            let (code, log) = log::listening(|| unsafe {
                let device = sys::weir_device(self.port);
                sys::weir_dma_map(device, memory.as_ptr().cast(), bytes, page)
            });
            if code != 0 {
                return Err(self.failed("give it access to the memory of frames", code, log));
            }
        }
        let wanted = sys::weir_settings {
            queues: settings.queues,
            rx_ring: settings.rx_ring,
            tx_ring: settings.tx_ring,
            mtu: settings.mtu.unwrap_or(0),
            pool: pool.as_ptr(),
        };
        let mut got = sys::weir_obtained::default();
        // Also what was only half started is to be stopped.
        self.started = true;
        // SAFETY: both structures live through the call; the pool lives for ever.
        let (code, log) =
            log::listening(|| unsafe { sys::weir_configure(self.port, &raw const wanted, &raw mut got) });
        if code != 0 {
            // SAFETY: a string constant, set before whatever can fail.
            let step = unsafe { CStr::from_ptr(got.step) }.to_string_lossy();
            return Err(self.failed(step, code, log));
        }
        Ok(Obtained {
            rx_ring: got.rx_ring,
            tx_ring: got.tx_ring,
            rss: got.rss,
            symmetric: got.symmetric,
            fast_free: got.fast_free,
            scattered: got.scattered,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number, for [`receive`](Self::receive) and [`transmit`](Self::transmit).
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it, or what is behind it, went away: it has to be closed and made anew.
    pub fn gone(port: u16) -> bool {
        GONE.get(usize::from(port)).is_none_or(|gone| gone.load(Ordering::Acquire))
    }

    /// Marks it as gone.
    pub fn give_up(&self) {
        // SAFETY: sets a flag.
        unsafe { device_gone(self.port) };
    }

    /// Its link, without waiting for it.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn link(&self) -> Result<Link, Error> {
        let mut link = sys::weir_link::default();
        // SAFETY: `link` is written to.
        self.check("read its link", unsafe { sys::weir_link(self.port, &raw mut link) })?;
        Ok(Link { up: link.up, mbit: link.mbit })
    }

    /// What it counted since it was started. Asks the device, which takes some time: not for a worker to call.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn stats(&self) -> Result<Stats, Error> {
        let mut stats = sys::weir_stats::default();
        // SAFETY: `stats` is written to.
        self.check("read its counters", unsafe { sys::weir_stats(self.port, &raw mut stats) })?;
        Ok(Stats {
            rx_missed: stats.rx_missed,
            rx_errors: stats.rx_errors,
            rx_no_frame: stats.rx_no_mbuf,
            tx_errors: stats.tx_errors,
        })
    }

    /// Its MAC address.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn mac(&self) -> Result<[u8; 6], Error> {
        let mut mac = [0; 6];
        // SAFETY: six bytes are written.
        self.check("read its MAC address", unsafe { sys::weir_mac(self.port, mac.as_mut_ptr()) })?;
        Ok(mac)
    }

    /// Gives it another MAC address.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        // SAFETY: six bytes are read.
        self.check("set its MAC address", unsafe { sys::weir_set_mac(self.port, mac.as_ptr()) })
    }

    /// Has it receive frames to other MAC addresses too, or no more.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn set_promiscuous(&self, on: bool) -> Result<(), Error> {
        // SAFETY: no pointers.
        let code = unsafe {
            if on {
                sys::rte_eth_promiscuous_enable(self.port)
            } else {
                sys::rte_eth_promiscuous_disable(self.port)
            }
        };
        self.check("receive frames to other addresses", code)
    }

    /// Has it receive every multicast frame.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn receive_all_multicast(&self) -> Result<(), Error> {
        // SAFETY: no pointers.
        self.check("receive all multicast", unsafe { sys::rte_eth_allmulticast_enable(self.port) })
    }

    /// Receives up to as many mbufs as there are places, and returns how many: these places are then filled.
    ///
    /// # Safety
    /// The device of this number is started and has the queue, and no other thread receives from it meanwhile. The mbufs become the
    /// caller's.
    #[inline]
    pub unsafe fn receive(port: u16, queue: u16, into: &mut [MaybeUninit<Mbuf>]) -> usize {
        let count = into.len().min(usize::from(u16::MAX)) as u16;
        // SAFETY: an mbuf is a pointer to one, and there are `count` places.
        usize::from(unsafe { sys::weir_rx_burst(port, queue, into.as_mut_ptr().cast(), count) })
    }

    /// Sends mbufs from the front, as many as the ring has room for, and returns how many: these are then the device's.
    ///
    /// # Safety
    /// As for [`receive`](Self::receive); the mbufs are the caller's.
    #[inline]
    pub unsafe fn transmit(port: u16, queue: u16, mbufs: &mut [Mbuf]) -> usize {
        let count = mbufs.len().min(usize::from(u16::MAX)) as u16;
        // SAFETY: as above.
        usize::from(unsafe { sys::weir_tx_burst(port, queue, mbufs.as_mut_ptr().cast(), count) })
    }

    /// Has the driver free what has been sent, although there is still room. False if it cannot be asked.
    ///
    /// # Safety
    /// As for [`transmit`](Self::transmit).
    pub unsafe fn clean(port: u16, queue: u16) -> bool {
        // SAFETY: no pointers.
        unsafe { sys::rte_eth_tx_done_cleanup(port, queue, 0) >= 0 }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _guard = control();
        // SAFETY: nobody uses the queues any more, and the device is removed once.
        unsafe {
            let device = sys::weir_device(self.port);
            sys::weir_unwatch(self.port);
            if self.started {
                sys::rte_eth_dev_stop(self.port);
            }
            sys::rte_eth_dev_close(self.port);
            if !device.is_null() {
                sys::weir_remove(device);
            }
        }
    }
}

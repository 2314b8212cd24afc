//! A DPDK port: how it may be opened, what was obtained, what can be asked of it while it is open.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use weir_config::MacAddress;
use weir_dpdk::{About, Device, Eal, Obtained, Settings};

use super::error::OpenError;
use super::pool::mempool;
use super::queue::DpdkQueue;
use super::stale;
use crate::frame::FramePool;
use crate::io::afxdp::largest_mtu;
use crate::io::{Backend, LinkState, Port, PortCounters, PortInfo};

/// MTU of a device that is not asked for another.
const ETHERNET: u32 = 1500;
/// Ethernet header and checksum: what drivers count to a frame beyond its MTU unless they say otherwise.
const OVERHEAD: u32 = 18;
/// How long a device may go on sending what stands in its rings before it is stopped.
const DRAIN: Duration = Duration::from_millis(2);

/// How a device is opened.
#[derive(Clone, Debug)]
pub struct DpdkOpenOptions {
    /// A PCI address, or a virtual device with its arguments, as EAL takes them: "0000:3b:02.1", "net_memif0,role=server".
    pub devargs: String,
    /// The VF's token (a UUID) where its PF is on vfio-pci too.
    pub token: Option<String>,
    /// Queues wanted; fewer where the device has no more.
    pub queues: u16,
    /// Entries of each queue's receive ring, as far as the device allows.
    pub rx_ring: u16,
    /// Entries of each queue's transmit ring, as far as the device allows.
    pub tx_ring: u16,
    /// Receive frames to other MAC addresses too.
    pub promiscuous: bool,
    /// Largest L3 packet in bytes; 1500 if absent.
    pub mtu: Option<u16>,
    /// MAC address to give to the device.
    pub mac: Option<MacAddress>,
}

impl DpdkOpenOptions {
    /// The usual options: one queue.
    pub fn new(devargs: impl Into<String>) -> Self {
        Self {
            devargs: devargs.into(),
            token: None,
            queues: 1,
            rx_ring: 1024,
            tx_ring: 1024,
            promiscuous: false,
            mtu: None,
            mac: None,
        }
    }
}

/// What the port and its queues share: the device, which the last of the queues closes.
#[derive(Debug)]
pub(super) struct Shared {
    port: u16,
    about: About,
    /// `None` once closed.
    device: Mutex<Option<Device>>,
    queues: u16,
    open: AtomicUsize,
}

impl Shared {
    fn device(&self) -> MutexGuard<'_, Option<Device>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One queue less. The last one stops and removes the device, upon which its frames are back in the pool.
    pub(super) fn close_queue(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let device = self.device().take();
        if device.is_some() && !Device::gone(self.port) {
            match self.about.driver.as_str() {
                // This driver would lose what stands in its rings.
                "net_ring" => (0..self.queues).for_each(|queue| drain(self.port, queue)),
                _ if self.about.bus != "vdev" => std::thread::sleep(DRAIN),
                _ => {}
            }
        }
        drop(device);
    }
}

/// Frees what a queue has received and nobody took, at most what its ring holds.
fn drain(port: u16, queue: u16) {
    let mut mbufs = [const { std::mem::MaybeUninit::uninit() }; 64];
    for _ in 0..1024 {
        // SAFETY: the queue's worker has closed it, and the device still runs; the mbufs received are freed once.
        unsafe {
            let count = Device::receive(port, queue, &mut mbufs);
            mbufs.iter().take(count).for_each(|mbuf| mbuf.assume_init().free());
            if count == 0 {
                break;
            }
        }
    }
}

/// When a device has to be made anew because of its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Anew {
    Never,
    /// A client of memif cannot connect again by itself.
    WhenDown,
    /// A VF loses its link when its PF is reset, and then has to be set up from the start. Not every driver tells of a reset.
    WhenBack,
}

impl Anew {
    fn of(driver: &str, devargs: &str) -> Self {
        match driver {
            "net_memif" if !devargs.contains("role=server") => Self::WhenDown,
            "net_e1000_igb_vf" | "net_ixgbe_vf" => Self::WhenBack,
            _ => Self::Never,
        }
    }
}

/// The control side of a DPDK port. The device is closed with the last of its queues.
#[derive(Debug)]
pub struct DpdkPort {
    info: PortInfo,
    shared: Arc<Shared>,
    anew: Anew,
    /// Whether it had a carrier when it was looked at last, and whether it ever had.
    carrier: AtomicBool,
    connected: AtomicBool,
}

impl DpdkPort {
    /// Makes, configures and starts a device. The device of a virtual one on a network device (`net_af_packet`, say) is looked for in the
    /// calling thread's network namespace.
    ///
    /// The first call initialises DPDK, which takes some tenths of a second. Not for a worker to call.
    ///
    /// # Errors
    /// [`OpenError`], in words for the operator. The pool is then whole, and the device free.
    pub fn open(
        options: &DpdkOpenOptions,
        pool: &Arc<FramePool>,
    ) -> Result<(Self, Vec<DpdkQueue>), OpenError> {
        check_driver(&options.devargs)?;
        let eal = Eal::get(options.token.as_deref())?;
        stale::remove(&options.devargs);
        let mut device = Device::probe(eal, &options.devargs)?;
        let about = device.about()?;
        let mut warnings = Vec::new();
        let queues = queues(options, &about, &mut warnings);
        let mtu = options.mtu.map_or(ETHERNET, u32::from);
        check(options, &about, queues, mtu, pool)?;
        let mempool = mempool(eal, pool)?;
        let settings = Settings {
            queues,
            rx_ring: options.rx_ring,
            tx_ring: options.tx_ring,
            mtu: options.mtu.filter(|mtu| about.bus != "vdev" || may_have(&about, u32::from(*mtu))),
        };
        let obtained = device.start(&settings, mempool)?;
        warn(&about, &obtained, queues, pool.memory().frame_size(), &mut warnings);
        address(&device, options, &about, &mut warnings);
        let port = device.port();
        let carrier = device.link().is_ok_and(|link| link.up);
        let mac = MacAddress(device.mac()?);
        let prefix = if about.bus == "vdev" { "vdev" } else { "pci" };
        let info = PortInfo {
            device: format!("{prefix}:{}", options.devargs),
            driver: about.driver.clone(),
            backend: Backend::Dpdk,
            ifindex: 0,
            mac,
            mtu,
            numa: about.numa,
            queues: queues.into(),
            tx_queues: queues.into(),
            refused: Vec::new(),
            warnings,
            carrier,
        };
        let anew = Anew::of(&about.driver, &options.devargs);
        let shared = Arc::new(Shared {
            port,
            about,
            device: Mutex::new(Some(device)),
            queues,
            open: AtomicUsize::new(queues.into()),
        });
        let queues = (0..queues)
            .map(|queue| DpdkQueue::new(Arc::clone(&shared), port, queue, mempool, pool))
            .collect();
        Ok((Self { info, shared, anew, carrier: carrier.into(), connected: carrier.into() }, queues))
    }
}

/// Drivers of the kernel that let DPDK drive a function.
const LETTING: [&str; 4] = ["vfio-pci", "uio_pci_generic", "igb_uio", "mlx5_core"];

/// Whether a PCI function, if it is one, is DPDK's to drive. Asked before DPDK is: what it does not find, it reports as an error of its own
/// at each try.
fn check_driver(devargs: &str) -> Result<(), OpenError> {
    let address = devargs.split(',').next().unwrap_or_default();
    let Some(weir_config::DeviceName::Pci(address)) = weir_config::DeviceName::parse_value(address) else {
        return Ok(());
    };
    let driver =
        std::fs::read_link(format!("/sys/bus/pci/devices/{}/driver", address.to_ascii_lowercase())).ok();
    let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    match driver {
        Some(driver) if LETTING.contains(&driver.as_str()) => Ok(()),
        driver => Err(OpenError::Unbound { device: address.to_owned(), driver }),
    }
}

fn queues(options: &DpdkOpenOptions, about: &About, warnings: &mut Vec<String>) -> u16 {
    let wanted = options.queues.max(1);
    let queues = wanted.min(about.max_rx_queues).min(about.max_tx_queues).max(1);
    if queues < wanted {
        warnings.push(format!("the device has {queues} queues, of {wanted} that were asked for"));
    }
    queues
}

/// What can be known to fail before the device is touched.
fn check(
    options: &DpdkOpenOptions,
    about: &About,
    queues: u16,
    mtu: u32,
    pool: &Arc<FramePool>,
) -> Result<(), OpenError> {
    let frame_size = pool.memory().frame_size();
    let limit = largest_mtu(frame_size);
    if mtu > limit {
        return Err(OpenError::Mtu { device: about.device.clone(), mtu, limit, frame_size });
    }
    // A virtual device copies from and to its peer's memory: it has no frames waiting.
    let needed = usize::from(queues) * usize::from(options.rx_ring);
    let available = pool.available();
    if about.bus != "vdev" && needed > available {
        return Err(OpenError::Frames { device: about.device.clone(), queues, needed, available });
    }
    Ok(())
}

/// Whether a driver says that a device may have this MTU. Virtual ones often name limits that they do not have.
fn may_have(about: &About, mtu: u32) -> bool {
    let (smallest, largest) = (u32::from(about.mtus.0), u32::from(about.mtus.1));
    let overhead = if largest < u32::from(u16::MAX) && about.longest > largest {
        about.longest - largest
    } else {
        OVERHEAD
    };
    (smallest..=largest).contains(&mtu) && mtu + overhead <= about.longest
}

fn warn(about: &About, obtained: &Obtained, queues: u16, frame_size: u16, warnings: &mut Vec<String>) {
    if obtained.scattered && about.bus != "vdev" {
        warnings.push(format!(
            "the driver {} may spread a frame over several chunks of {frame_size} bytes, which weir puts together by copying; with memory.frame-size = {} it need not",
            about.driver,
            u32::from(frame_size) * 2
        ));
    }
    if queues > 1 && !obtained.rss && about.bus != "vdev" {
        warnings.push("the device does not spread what it receives over its queues (RSS)".to_owned());
    }
}

/// Sees to it that frames to weir's address and to groups are received.
fn address(device: &Device, options: &DpdkOpenOptions, about: &About, warnings: &mut Vec<String>) {
    // A virtual device has no filter.
    let real = about.bus != "vdev";
    if let Some(MacAddress(mac)) = options.mac.filter(|mac| mac.0 != about.mac) {
        if let Err(error) = device.set_mac(mac) {
            if real {
                warnings.push(error.to_string());
            }
        }
    }
    let multicast = device.receive_all_multicast();
    let promiscuous = if options.promiscuous { device.set_promiscuous(true) } else { Ok(()) };
    for error in [multicast, promiscuous].into_iter().filter_map(Result::err).filter(|_| real) {
        warnings
            .push(format!("{error}; a VF may have to be trusted by its PF: `ip link set PF vf N trust on`"));
    }
}

impl Port for DpdkPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn link(&self) -> LinkState {
        let guard = self.shared.device();
        let link = guard.as_ref().and_then(|device| device.link().ok());
        let carrier = link.is_some_and(|link| link.up);
        let before = self.carrier.swap(carrier, Ordering::Relaxed);
        let ever = self.connected.fetch_or(carrier, Ordering::Relaxed);
        let lost = match self.anew {
            Anew::Never => false,
            Anew::WhenDown => before && !carrier,
            Anew::WhenBack => ever && !before && carrier,
        };
        if let Some(device) = guard.as_ref().filter(|_| lost) {
            device.give_up();
        }
        let present = guard.is_some() && !Device::gone(self.shared.port);
        LinkState { present, carrier: present && carrier, mtu: if present { self.info.mtu } else { 0 } }
    }

    fn gone(&self) -> bool {
        self.shared.device().is_none() || Device::gone(self.shared.port)
    }

    fn set_promiscuous(&mut self, promiscuous: bool) -> io::Result<()> {
        let guard = self.shared.device();
        let Some(device) = &*guard else { return Err(io::ErrorKind::NotConnected.into()) };
        match device.set_promiscuous(promiscuous) {
            Err(error) if self.shared.about.bus != "vdev" => Err(io::Error::other(error)),
            _ => Ok(()),
        }
    }

    fn counters(&self) -> PortCounters {
        let stats = self.shared.device().as_ref().and_then(|device| device.stats().ok()).unwrap_or_default();
        PortCounters {
            missed: stats.rx_missed + stats.rx_no_frame,
            errors: stats.rx_errors,
            ..PortCounters::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(mtus: (u16, u16), longest: u32) -> About {
        About {
            device: "net_x0".into(),
            driver: "net_x".into(),
            bus: "vdev".into(),
            mac: [0; 6],
            numa: -1,
            max_rx_queues: 1,
            max_tx_queues: 1,
            mtus,
            longest,
        }
    }

    #[test]
    fn a_driver_that_names_a_limit_is_not_asked_for_more() {
        assert!(!may_have(&about((68, u16::MAX), 1518), 9000));
        assert!(may_have(&about((68, u16::MAX), 1518), 1500));
        assert!(may_have(&about((68, 9710), 9728), 9000));
        assert!(!may_have(&about((68, 9710), 9728), 9711));
    }

    #[test]
    fn a_function_that_is_not_there_is_not_asked_of_dpdk() {
        let error = check_driver("ffff:ff:1f.7").unwrap_err().to_string();
        assert!(error.contains("`ffff:ff:1f.7`: there is no such function, or it has no driver"), "{error}");
        assert!(check_driver("net_null0,size=64").is_ok());
    }

    #[test]
    fn what_cannot_go_on_by_itself_is_made_anew() {
        assert_eq!(Anew::of("net_memif", "net_memif0,role=client,socket=/a"), Anew::WhenDown);
        assert_eq!(Anew::of("net_memif", "net_memif0,role=server,socket=/a"), Anew::Never);
        assert_eq!(Anew::of("net_e1000_igb_vf", "0000:01:10.0"), Anew::WhenBack);
    }

    #[test]
    fn a_port_may_move_between_threads_and_its_queues_too() {
        fn is_send<T: Send>() {}
        is_send::<DpdkPort>();
        is_send::<DpdkQueue>();
    }
}

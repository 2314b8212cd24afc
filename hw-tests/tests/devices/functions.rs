//! Virtual functions of a card, bound to vfio-pci for the time of a test.

use std::path::Path;

use weir_hw_tests::{Node, driver_of, write_sysfs};

const FUNCTIONS: &str = "/sys/bus/pci/devices";
/// MAC addresses that the physical function gives to its virtual ones: these and the number of each.
const MAC: &str = "02:57:45:49:52:0";

/// Virtual functions of one physical function; gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Functions {
    pf: String,
    pub(crate) list: Vec<String>,
}

/// Whether a card can have virtual functions, and the machine an IOMMU for them.
pub(crate) fn possible(pf: &str) -> Result<(), String> {
    let total = std::fs::read_to_string(format!("{FUNCTIONS}/{pf}/sriov_totalvfs")).unwrap_or_default();
    if total.trim().parse().unwrap_or(0) < 2 {
        return Err(format!("{pf} has no virtual functions"));
    }
    if !Path::new(FUNCTIONS).join(pf).join("iommu_group").exists() {
        return Err("the machine has no IOMMU".to_owned());
    }
    if !Path::new("/sys/bus/pci/drivers/vfio-pci").exists() {
        return Err("vfio-pci is not loaded".to_owned());
    }
    Ok(())
}

impl Functions {
    /// Makes `count` virtual functions of the card that `node` has as `interface`, on vfio-pci.
    #[track_caller]
    pub(crate) fn new(pf: &str, node: &Node, interface: &str, count: usize) -> Self {
        let functions = Self::without_driver(pf, node, interface, count);
        functions.list.iter().for_each(|function| functions.bind(function));
        functions
    }

    /// The same with the kernel's own driver for them.
    #[track_caller]
    pub(crate) fn with_the_kernels_driver(pf: &str, node: &Node, interface: &str, count: usize) -> Self {
        let functions = Self::without_driver(pf, node, interface, count);
        write_sysfs(&format!("{FUNCTIONS}/{pf}/sriov_drivers_autoprobe"), "1");
        functions.list.iter().for_each(|function| write_sysfs("/sys/bus/pci/drivers_probe", function));
        functions
    }

    fn without_driver(pf: &str, node: &Node, interface: &str, count: usize) -> Self {
        let file = |name: &str| format!("{FUNCTIONS}/{pf}/{name}");
        // No driver but the one that is asked for.
        write_sysfs(&file("sriov_drivers_autoprobe"), "0");
        write_sysfs(&file("sriov_numvfs"), &count.to_string());
        let address = |n: usize| {
            let link = std::fs::read_link(file(&format!("virtfn{n}"))).expect("a virtual function");
            link.file_name().map(|name| name.to_string_lossy().into_owned()).expect("its address")
        };
        let functions = Self { pf: pf.to_owned(), list: (0..count).map(address).collect() };
        for n in 0..count {
            node.ip(&format!("link set {interface} vf {n} mac {MAC}{n}"));
        }
        functions
    }

    /// Gives a function to vfio-pci.
    #[track_caller]
    pub(crate) fn bind(&self, function: &str) {
        write_sysfs(&format!("{FUNCTIONS}/{function}/driver_override"), "vfio-pci");
        write_sysfs("/sys/bus/pci/drivers_probe", function);
        assert_eq!(driver_of(function).as_deref(), Some("vfio-pci"), "{function}");
    }

    /// Takes it away again, from whoever uses it.
    #[track_caller]
    pub(crate) fn unbind(&self, function: &str) {
        write_sysfs("/sys/bus/pci/drivers/vfio-pci/unbind", function);
    }
}

impl Drop for Functions {
    fn drop(&mut self) {
        for (file, value) in [("sriov_numvfs", "0"), ("sriov_drivers_autoprobe", "1")] {
            let _ = std::fs::write(format!("{FUNCTIONS}/{}/{file}", self.pf), value);
        }
    }
}

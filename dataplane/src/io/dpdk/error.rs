//! What can go wrong with a DPDK port, in words for the operator.

/// Why a device cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// DPDK, its driver or the device refused something.
    #[error("{0}")]
    Dpdk(#[from] weir_dpdk::Error),
    /// A PCI function that is not there, or is the kernel's.
    #[error("DPDK device `{device}`: {}", unbound(driver.as_deref()))]
    Unbound {
        /// Its address.
        device: String,
        /// The driver that it is bound to; `None`: there is no such function, or it has none.
        driver: Option<String>,
    },
    /// The MTU asked for does not fit a frame.
    #[error(
        "DPDK device `{device}`: an MTU of {mtu} does not fit a frame of {frame_size} bytes, which holds an MTU of at most {limit}; {}",
        remedy(*mtu, *limit)
    )]
    Mtu {
        /// The device.
        device: String,
        /// The MTU in bytes.
        mtu: u32,
        /// The largest MTU whose frames fit, in bytes.
        limit: u32,
        /// memory.frame-size in bytes.
        frame_size: u16,
    },
    /// The frame pool cannot fill the receive rings.
    #[error(
        "DPDK device `{device}`: its {queues} queues need {needed} frames and {available} are free; raise memory.frames"
    )]
    Frames {
        /// The device.
        device: String,
        /// Its queues.
        queues: u16,
        /// Frames that its receive rings hold.
        needed: usize,
        /// Free frames.
        available: usize,
    },
}

fn unbound(driver: Option<&str>) -> String {
    match driver {
        Some(driver) => format!("it is bound to {driver}; bind it to vfio-pci"),
        None => "there is no such function, or it has no driver; bind it to vfio-pci".to_owned(),
    }
}

fn remedy(mtu: u32, limit: u32) -> String {
    let fits = |size: &u16| mtu <= crate::io::afxdp::largest_mtu(*size);
    match [4096, 8192, 16384].iter().find(|size| fits(size)) {
        Some(size) => format!("set memory.frame-size = {size} or lower the MTU to {limit}"),
        None => format!("lower the MTU to {limit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_that_does_not_fit_names_the_frame_size_that_holds_it() {
        let text = |mtu| {
            let limit = crate::io::afxdp::largest_mtu(2048);
            OpenError::Mtu { device: "net_null0".into(), mtu, limit, frame_size: 2048 }.to_string()
        };
        assert_eq!(
            text(9000),
            "DPDK device `net_null0`: an MTU of 9000 does not fit a frame of 2048 bytes, which holds an MTU of at most 1770; set \
             memory.frame-size = 16384 or lower the MTU to 1770"
        );
        assert!(text(65_000).ends_with("at most 1770; lower the MTU to 1770"));
    }
}

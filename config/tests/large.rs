//! Tens of thousands of interfaces, routes and rules load in reasonable time.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests, outside test functions.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

#[test]
fn a_large_configuration_loads_in_seconds() {
    let mut text = String::from("[port.under]\nmode = \"dedicated\"\naddresses = [\"10.255.0.1/16\"]\n");
    for i in 0..10_000u32 {
        let (a, b) = (i / 250, i % 250);
        let _ = write!(
            text,
            "[vrf.v{i}]\n[[vrf.v{i}.route]]\nprefix = \"0.0.0.0/0\"\nvia = {{ tunnel = \"t{i}\" }}\n\
             [tunnel.t{i}.vxlan]\nlocal = \"10.255.0.1\"\nremote = \"10.255.{a}.{}\"\nvni = {i}\nvrf = \"v{i}\"\n\
             addresses = [\"172.16.0.1/30\"]\n",
            b + 2
        );
        let _ = write!(
            text,
            "[[classify]]\nfrom = \"vrf.v{i}\"\nto-prefix = \"10.{a}.{b}.0/24\"\nchain = \"none\"\n"
        );
    }
    let start = Instant::now();
    let loaded = weir_config::load_str("large.toml", &text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.config.tunnels.len(), 10_000);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    eprintln!("{:?}", start.elapsed());
}

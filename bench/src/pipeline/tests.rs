use super::*;

/// Small, so that it takes a moment without optimisation too.
fn setup(source: Mode) -> Setup {
    Setup { lengths: Lengths::Fixed(64), order: None, source, inputs: 128 }
}

fn named(name: &str) -> &'static Workload {
    workload::ALL.iter().find(|workload| workload.name == name).unwrap()
}

/// A repeat fails by itself unless every packet is transmitted.
fn repeat(bed: &mut Bed, burst: usize) -> Runs {
    let mut runs = Runs::default();
    bed.repeat(burst, 512, &mut runs).unwrap();
    runs
}

#[test]
fn every_packet_of_every_workload_leaves() {
    for workload in workload::ALL.iter().filter(|workload| !workload.large) {
        let mut bed = Bed::new(workload, &setup(Mode::Inplace)).unwrap();
        let runs = repeat(&mut bed, BURST);
        assert_eq!((runs.whole.len(), runs.null.len()), (1, 1), "{}", workload.name);
    }
}

#[test]
fn every_packet_leaves_whatever_the_source_the_lengths_the_order_and_the_burst() {
    for source in [Mode::Inplace, Mode::Copy] {
        for name in ["W4", "W5", "W6"] {
            for (lengths, burst) in [(Lengths::Imix, 7), (Lengths::Fixed(1514), 1)] {
                let setup = Setup { lengths, order: Some(Order::Random), ..setup(source) };
                let mut bed = Bed::new(named(name), &setup).unwrap();
                for _ in 0..2 {
                    repeat(&mut bed, burst);
                }
            }
        }
    }
}

#[test]
fn of_the_hostile_mix_some_packets_leave_and_always_as_many() {
    for name in ["W2", "W4"] {
        let mut bed = Bed::with_hostile_mix(named(name), &setup(Mode::Inplace)).unwrap();
        assert!(bed.hostile());
        for _ in 0..3 {
            repeat(&mut bed, BURST);
        }
    }
}

#[test]
fn each_packet_walks_where_first_packets_are_measured() {
    let mut bed = Bed::new(named("first"), &setup(Mode::Inplace)).unwrap();
    for _ in 0..3 {
        repeat(&mut bed, BURST);
    }
}

#[test]
fn names_of_workloads_differ() {
    let names: std::collections::BTreeSet<_> = workload::ALL.iter().map(|workload| workload.name).collect();
    assert_eq!(names.len(), workload::ALL.len());
}

#[test]
fn a_capture_holds_the_input() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w2.pcap");
    let bed = Bed::new(named("W2"), &setup(Mode::Inplace)).unwrap();
    capture::write(&path, &bed, 100).unwrap();
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes.len(), 24 + 100 * (16 + 64));
    let expected = bed.frames(1).next().unwrap();
    assert_eq!(bytes.get(40..104), Some(expected.as_slice()));
}

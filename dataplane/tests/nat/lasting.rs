//! How long bindings last, how many there are, and what weir says of their addresses.

use super::*;

#[test]
fn when_ports_run_out_others_go_on_and_the_rest_is_counted() {
    let mut lab = nat("snat = { to = \"203.0.113.7\", ports = \"4000-4009\" }");
    for port in 1..=15 {
        let sent = pass(&mut lab, "lan", &out(ALICE, SERVER).udp(port, 53));
        assert_eq!(sent.len(), usize::from(port <= 10), "port {port}");
    }
    assert_eq!(
        pass(&mut lab, "lan", &out(ALICE, SERVER).udp(3, 54)).len(),
        1,
        "a binding that is there serves all"
    );
    assert_eq!(lab.drops(), BTreeMap::from([("nat_ports_exhausted", 5)]));
    lab.wait_ms(310_000);
    assert_eq!(bindings(&lab), NOTHING);
    assert_eq!(pass(&mut lab, "lan", &out(ALICE, SERVER).udp(99, 53)), NOTHING, "they rest");
    lab.wait_ms(130_000);
    assert_eq!(pass(&mut lab, "lan", &out(ALICE, SERVER).udp(99, 53)).len(), 1);
}

#[test]
fn what_a_function_behind_the_translator_refuses_holds_no_port() {
    let edge =
        "[service.edge.firewall]\ndefault = \"allow\"\nrules = [{ reject = \"tcp\", to-port = 113 }]\n";
    let text = format!("{}{edge}", site(ONE)).replace("hops = [\"out\"]", "hops = [\"out\", \"edge\"]");
    let mut lab = Lab::new(&text);
    lab.inject("lan", &out(ALICE, SERVER).tcp(5000, 113).flags(SYN).build());
    assert_eq!(lab.drops(), BTreeMap::from([("firewall_rejected", 1)]));
    assert_eq!(bindings(&lab), NOTHING);
    assert_eq!(
        pass(&mut lab, "lan", &out(ALICE, SERVER).tcp(5000, 80).flags(SYN)).len(),
        2,
        "and the reset before"
    );
    assert_eq!(bindings(&lab), ["6 10.1.0.2:5000 203.0.113.7:5000"]);
}

#[test]
fn sessions_live_as_long_as_the_translator_says() {
    let times = "udp-timeout = \"150s\"\nicmp-timeout = \"70s\"";
    let mut lab = nat(&format!("{ONE}\n{times}"));
    pass(&mut lab, "lan", &out(ALICE, SERVER).udp(5000, 53));
    pass(&mut lab, "lan", &out(ALICE, SERVER).echo_request(6000, 1));
    lab.wait_ms(65_000);
    assert_eq!(bindings(&lab).len(), 2);
    lab.wait_ms(9_000);
    assert_eq!(bindings(&lab), ["17 10.1.0.2:5000 203.0.113.7:5000"]);
    // RFC 4787 REQ-6: what goes out keeps it alive.
    pass(&mut lab, "lan", &out(ALICE, SERVER).udp(5000, 53));
    lab.wait_ms(145_000);
    assert_eq!(bindings(&lab).len(), 1);
    lab.wait_ms(8_000);
    assert_eq!(bindings(&lab), NOTHING);
    assert_eq!(pass(&mut lab, "wan", &back(SERVER, "203.0.113.7").udp(53, 5000)), NOTHING);
    assert_eq!(lab.drops(), BTreeMap::from([("nat_no_binding", 1)]));
}

#[test]
fn a_translation_outlives_a_change_that_leaves_its_rule_and_no_other() {
    let rule = "{ from = \"10.1.0.2/32\", to = \"203.0.113.7\", ports = \"20000-29999\" }";
    let mut lab = nat(&format!("snat = [{rule}]"));
    let there = out(ALICE, SERVER).udp(5000, 53);
    let first = pass(&mut lab, "lan", &there);
    // Another rule in front, other timeouts: hers is still there.
    let more = site(&format!(
        "snat = [{{ from = \"10.1.0.3/32\", to = \"203.0.113.8\" }}, {rule}]\nudp-timeout = \"200s\""
    ));
    lab.apply(&more);
    assert_eq!(pass(&mut lab, "lan", &there), first);
    let port: u16 = first[0].split([':', ' ']).nth(2).unwrap().parse().unwrap();
    let answer = back(SERVER, "203.0.113.7").udp(53, port);
    assert_eq!(pass(&mut lab, "wan", &answer).len(), 1);
    // Her rule has another address now.
    lab.apply(&site(&format!("snat = [{}]", rule.replace("113.7", "113.9"))));
    lab.inject("wan", &answer.build());
    let left = lab.take();
    assert!(left.iter().all(|(port, _)| port != "lan"), "nothing comes in by a translation that is gone");
    let now = pass(&mut lab, "lan", &there);
    assert!(now[0].starts_with("wan 203.0.113.9:"), "{now:?}");
    // Nobody sends any more, and the rule goes: the ports come back all the same.
    lab.apply(&site("snat = { from = \"10.9.0.0/16\", to = \"203.0.113.9\" }"));
    lab.wait_ms(3_000);
    lab.take();
    assert_eq!(bindings(&lab), NOTHING);
    assert_eq!(pass(&mut lab, "lan", &there), ["wan 10.1.0.2:5000 > 198.51.100.9:53"]);
}

#[test]
fn a_binding_that_outlives_its_rule_is_that_of_the_rule_that_took_it_over() {
    let rule = |from: &str| {
        site(&format!(
            "snat = {{ from = {from}, to = \"203.0.113.7\" }}\nfiltering = \"endpoint-independent\""
        ))
    };
    let mut lab = Lab::new(&rule("[\"10.1.0.0/24\"]"));
    let there = [SERVER, OTHER].map(|server| out(ALICE, server).udp(5000, 53));
    for packet in &there {
        pass(&mut lab, "lan", packet);
    }
    // More hosts, the same pool: her sessions begin anew one by one, and the binding passes from the old ones to the new.
    lab.apply(&rule("[\"10.1.0.0/24\", \"10.3.0.0/24\"]"));
    for packet in &there {
        assert!(pass(&mut lab, "lan", packet)[0].starts_with("wan 203.0.113.7:5000 "));
    }
    lab.wait_ms(3_000);
    assert_eq!(bindings(&lab), ["17 10.1.0.2:5000 203.0.113.7:5000"]);
    assert_eq!(
        pass(&mut lab, "wan", &back("198.51.100.77", "203.0.113.7").udp(9, 5000)),
        ["lan 198.51.100.77:9 > 10.1.0.2:5000"]
    );
    assert_eq!(lab.drops(), BTreeMap::new());
}

#[test]
fn a_masquerade_ends_when_its_address_is_weirs_no_more() {
    let text = site("snat = { to = \"masquerade\" }");
    let mut lab = Lab::new(&text);
    let there = out(ALICE, SERVER).udp(5000, 53);
    assert_eq!(pass(&mut lab, "lan", &there), ["wan 203.0.113.1:5000 > 198.51.100.9:53"]);
    lab.apply(&text.replace("203.0.113.1/24", "203.0.113.2/24"));
    assert_eq!(pass(&mut lab, "lan", &there), ["wan 203.0.113.2:5000 > 198.51.100.9:53"]);
    assert_eq!(bindings(&lab).len(), 1);
}

#[test]
fn weir_answers_arp_for_external_addresses() {
    let mut lab = nat("snat = { to = \"203.0.113.8/31\" }");
    let ask = |target: [u8; 4]| {
        let request = arp::Packet {
            operation: 1,
            sender_mac: GATEWAY.parse().unwrap(),
            sender_ip: [203, 0, 113, 254].into(),
            target_mac: weir_config::MacAddress::default(),
            target_ip: target.into(),
        };
        Packet::ethernet(GATEWAY, "ff:ff:ff:ff:ff:ff").arp(request).build()
    };
    for (last, answered) in [(8, true), (9, true), (10, false), (1, true)] {
        lab.inject("wan", &ask([203, 0, 113, last]));
        let sent = lab.take();
        assert_eq!(sent.len(), usize::from(answered), "203.0.113.{last}");
        assert!(sent.iter().all(|(_, frame)| frame[28..32] == [203, 0, 113, last]));
    }
    // Not on the other side.
    let inside = Packet::ethernet(HOST, "ff:ff:ff:ff:ff:ff").arp(arp::Packet {
        operation: 1,
        sender_mac: HOST.parse().unwrap(),
        sender_ip: [10, 1, 0, 2].into(),
        target_mac: weir_config::MacAddress::default(),
        target_ip: [203, 0, 113, 8].into(),
    });
    lab.inject("lan", &inside.build());
    assert!(lab.take().is_empty());
}

#[test]
fn a_forwarded_host_that_does_not_answer_is_asked_for_by_its_own_address() {
    let rules =
        "dnat = [{ protocol = \"udp\", to = \"203.0.113.7\", to-port = 53, forward = \"10.1.0.99\" }]";
    let mut lab = Lab::new(&format!("{}{INBOUND}", site(rules)));
    let request = back(SERVER, "203.0.113.7").udp(4000, 53);
    lab.inject("wan", &request.build());
    lab.wait_ms(400);
    let sent = lab.take();
    let mut asked = sent.iter().filter(|(port, frame)| port == "lan" && frame[12..14] == [8, 6]);
    assert!(asked.any(|(_, frame)| frame[38..42] == [10, 1, 0, 99]), "{sent:02x?}");
    lab.wait_ms(10_000);
    assert_eq!(lab.drops(), BTreeMap::from([("neighbour_unreachable", 1)]));
}

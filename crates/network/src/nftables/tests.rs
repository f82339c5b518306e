//! What the kernel makes of our batches, each test in a network namespace of its own.

use super::testing::Namespace;
use super::{
    Base, Batch, ChainType, CmpOp, Connection, CtDirection, CtKey, Data, DynsetOp, Element, Expression,
    Family, Field, Hook, MetaKey, PayloadBase, Set, Verdict,
};

const TABLE: &str = "pintle-test";

fn port(port: u16) -> Vec<u8> {
    port.to_be_bytes().to_vec()
}

fn tcp_port_key(number: u16) -> Vec<u8> {
    let mut key = vec![6, 0, 0, 0];
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(&[0, 0]);
    key
}

fn base(chain_type: ChainType, hook: Hook, priority: i32) -> Option<Base> {
    Some(Base { chain_type, hook, priority })
}

fn is_tcp() -> [Expression; 2] {
    [
        Expression::Meta { key: MetaKey::Protocol, to: 0 },
        Expression::Compare { op: CmpOp::Equal, register: 0, value: vec![6] },
    ]
}

/// Every expression there is, in chains where the kernel allows it.
fn everything() -> Batch {
    let mut batch = Batch::default();
    let (v4, table) = (Family::Ipv4, TABLE);
    batch.add_table(v4, table);
    batch.add_chain(v4, table, "pre", base(ChainType::Nat, Hook::Prerouting, -100));
    batch.add_chain(v4, table, "post", base(ChainType::Nat, Hook::Postrouting, 100));
    batch.add_chain(v4, table, "forward", base(ChainType::Filter, Hook::Forward, 0));
    batch.add_chain(v4, table, "other", None);
    let ports = [Field::Protocol, Field::Port];
    batch.add_set(
        v4,
        table,
        &Set { name: "ports", key: &ports, data: Data::None, interval: false, dynamic: false, size: 0 },
    );
    batch.add_set(
        v4,
        table,
        &Set {
            name: "ways",
            key: &[Field::Port],
            data: Data::Verdict,
            interval: false,
            dynamic: false,
            size: 0,
        },
    );
    let target = [Field::Ipv4, Field::Port];
    batch.add_set(
        v4,
        table,
        &Set {
            name: "targets",
            key: &[Field::Mark],
            data: Data::Fields(&target),
            interval: false,
            dynamic: false,
            size: 0,
        },
    );
    batch.add_set(
        v4,
        table,
        &Set {
            name: "seen",
            key: &[Field::Ipv4],
            data: Data::Fields(&[Field::Mark]),
            interval: false,
            dynamic: true,
            size: 100,
        },
    );
    batch.add_set(
        v4,
        table,
        &Set {
            name: "blocks",
            key: &[Field::Ipv4],
            data: Data::None,
            interval: true,
            dynamic: false,
            size: 0,
        },
    );
    let pair = [Field::Mark, Field::Ipv4];
    batch.add_set(
        v4,
        table,
        &Set { name: "ranges", key: &pair, data: Data::None, interval: true, dynamic: false, size: 0 },
    );
    batch.add_elements(
        v4,
        table,
        "ports",
        &ports,
        &[Element::of(tcp_port_key(80)), Element::of(tcp_port_key(443))],
    );
    batch.add_elements(
        v4,
        table,
        "ways",
        &[Field::Port],
        &[Element::with_verdict(port(80), Verdict::Goto("other".into()))],
    );
    let data = vec![10, 0, 0, 1, 0, 80, 0, 0];
    batch.add_elements(
        v4,
        table,
        "targets",
        &[Field::Mark],
        &[Element::with_data(0_u32.to_ne_bytes().into(), data)],
    );
    batch.add_elements(
        v4,
        table,
        "blocks",
        &[Field::Ipv4],
        &[Element::range(vec![10, 0, 0, 0], Some(vec![10, 1, 0, 0]))],
    );
    let mut range = Element::of([&7_u32.to_ne_bytes()[..], &[10, 2, 0, 0]].concat());
    range.end = Some([&7_u32.to_ne_bytes()[..], &[10, 2, 255, 255]].concat());
    batch.add_elements(v4, table, "ranges", &pair, &[range]);

    let mut pick = is_tcp().to_vec();
    pick.extend([
        Expression::Payload { base: PayloadBase::Transport, offset: 2, len: 2, to: 1 },
        Expression::Lookup { set: "ports".into(), key: 0, data: None, negate: false },
        Expression::Counter,
        Expression::Random { modulus: 1, to: 4 },
        Expression::Lookup { set: "targets".into(), key: 4, data: Some(5), negate: false },
        Expression::Dnat { family: v4, address: 5, port: Some(6) },
    ]);
    batch.add_rule(v4, table, "pre", &pick);
    let mut redirect = is_tcp().to_vec();
    redirect.extend([Expression::Immediate { to: 1, value: port(8080) }, Expression::Redirect { port: 1 }]);
    batch.add_rule(v4, table, "pre", &redirect);
    let mark = 0x4000_u32.to_ne_bytes().to_vec();
    batch.add_rule(
        v4,
        table,
        "post",
        &[
            Expression::Meta { key: MetaKey::Mark, to: 0 },
            Expression::Bitwise { register: 0, to: 0, mask: mark.clone(), xor: vec![0; 4] },
            Expression::Compare { op: CmpOp::NotEqual, register: 0, value: vec![0; 4] },
            Expression::Immediate { to: 0, value: vec![0; 4] },
            Expression::SetMeta { key: MetaKey::Mark, from: 0 },
            Expression::Masquerade,
        ],
    );
    batch.add_rule(
        v4,
        table,
        "forward",
        &[
            Expression::Ct { key: CtKey::DestinationIpv4, direction: Some(CtDirection::Original), to: 0 },
            Expression::Lookup { set: "blocks".into(), key: 0, data: None, negate: true },
            Expression::SourceAddressType { to: 1 },
            Expression::Compare {
                op: CmpOp::Equal,
                register: 1,
                value: super::expression::ADDRESS_LOCAL.to_ne_bytes().into(),
            },
            Expression::Immediate { to: 2, value: vec![0; 4] },
            Expression::Dynset {
                set: "seen".into(),
                op: DynsetOp::Update,
                key: 0,
                data: Some(2),
                timeout_milliseconds: Some(5000),
            },
            Expression::Dynset {
                set: "seen".into(),
                op: DynsetOp::Delete,
                key: 0,
                data: Some(2),
                timeout_milliseconds: None,
            },
        ],
    );
    let mut way = is_tcp().to_vec();
    way.extend([
        Expression::Payload { base: PayloadBase::Transport, offset: 2, len: 2, to: 1 },
        Expression::Range { register: 1, from: port(10), to: port(90) },
        Expression::VerdictMap { map: "ways".into(), key: 1 },
    ]);
    batch.add_rule(v4, table, "forward", &way);
    let mut reset = is_tcp().to_vec();
    reset.push(Expression::RejectReset);
    batch.add_rule(v4, table, "forward", &reset);
    batch.add_rule(
        v4,
        table,
        "forward",
        &[
            Expression::DestinationAddressType { to: 1 },
            Expression::Compare {
                op: CmpOp::NotEqual,
                register: 1,
                value: super::expression::ADDRESS_LOCAL.to_ne_bytes().into(),
            },
            Expression::Verdict(Verdict::Jump("other".into())),
        ],
    );
    batch.add_rule(v4, table, "other", &[Expression::RejectUnreachable { family: v4 }]);
    batch
}

#[test]
fn the_kernel_takes_every_expression_and_nft_reads_it_as_meant() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.run(|| Connection::open().unwrap().commit(&everything())).unwrap();
    let Some(ruleset) = namespace.ruleset() else { return };
    for wanted in [
        "type nat hook prerouting priority dstnat; policy accept;",
        "type nat hook postrouting priority srcnat; policy accept;",
        "type filter hook forward priority filter; policy accept;",
        "meta l4proto . tcp dport @ports counter packets 0 bytes 0 dnat ip to numgen",
        "numgen random mod 1 map @targets",
        "redirect to :8080",
        "masquerade fully-random",
        "elements = { tcp . 80,",
        "elements = { 80 : goto other }",
        "elements = { 0x00000000 : 10.0.0.1 . 80 }",
        "elements = { 10.0.0.0/16 }",
        ". 10.2.0.0/16 }",
        "ct original ip daddr != @blocks",
        "timeout 5s",
        "delete @seen",
        "fib saddr type local",
        "fib daddr type != local jump other",
        "tcp dport 10-90 tcp dport vmap @ways",
        "reject with tcp reset",
        "\t\treject\n",
    ] {
        assert!(ruleset.contains(wanted), "{wanted:?} is not in\n{ruleset}");
    }
}

#[test]
fn a_refused_batch_changes_nothing_and_says_what_was_refused() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.run(|| {
        let mut connection = Connection::open().unwrap();
        let mut batch = Batch::default();
        batch.add_table(Family::Ipv6, TABLE);
        batch.add_rule(Family::Ipv6, TABLE, "nowhere", &[Expression::Counter]);
        let refusal = connection.commit(&batch).unwrap_err();
        assert!(refusal.is_absent(), "{refusal:?}");
        assert_eq!(refusal.to_string(), format!("adding a rule to chain nowhere of table {TABLE}"));
        assert_eq!(connection.tables(Family::Ipv6).unwrap(), [""; 0]);
        // The same connection goes on.
        let mut batch = Batch::default();
        batch.add_table(Family::Ipv6, TABLE);
        connection.commit(&batch).unwrap();
        assert_eq!(connection.tables(Family::Ipv6).unwrap(), [TABLE]);
        assert!(connection.elements(Family::Ipv6, TABLE, "nothing").unwrap_err().is_absent());
    });
}

#[test]
fn many_elements_go_in_and_come_back() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.run(|| {
        let mut connection = Connection::open().unwrap();
        let key = [Field::Ipv4, Field::Port];
        let of = |n: u32| {
            Element::with_data([&n.to_be_bytes()[..], &[0, 80, 0, 0]].concat(), n.to_ne_bytes().into())
        };
        let elements: Vec<Element> = (0..20_000).map(of).collect();
        let mut batch = Batch::default();
        batch.add_table(Family::Ipv4, TABLE);
        let map = Set {
            name: "many",
            key: &key,
            data: Data::Fields(&[Field::Mark]),
            interval: false,
            dynamic: false,
            size: 0,
        };
        batch.add_set(Family::Ipv4, TABLE, &map);
        batch.add_elements(Family::Ipv4, TABLE, "many", &key, &elements);
        connection.commit(&batch).unwrap();
        let mut batch = Batch::default();
        batch.delete_elements(Family::Ipv4, TABLE, "many", &key, &elements[1..]);
        let mut found = connection.elements(Family::Ipv4, TABLE, "many").unwrap();
        found.sort_by(|a, b| a.key.cmp(&b.key));
        assert!(found == elements);
        connection.commit(&batch).unwrap();
        assert_eq!(connection.elements(Family::Ipv4, TABLE, "many").unwrap(), elements[..1]);
    });
}

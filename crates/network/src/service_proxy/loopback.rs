//! The node's loopback, whose ports may lead to pods: what keeps it to the node all the same.
//!
//! A connection of the node to a host port of 127.0.0.1 goes to the pod over a link that the kernel lets such packets
//! pass (`route_localnet`), with the node's address in place of 127.0.0.1. By itself the kernel would then take packets
//! for 127.0.0.1, and from there, from that link, too, so that the pod could reach what listens on the loopback because it
//! trusts everybody there (CVE-2020-8558). Therefore a table of its own, `pintle-loopback`, drops whatever comes in from
//! another link with such an address, before anything is translated: replies to the node's connections have its address.

use super::tables::mark;
use crate::nftables::{
    Base, Batch, ChainType, CmpOp, Connection, Error, Expression, Family, Hook, MetaKey, PayloadBase,
    Register, Verdict,
};

const TABLE: &str = "pintle-loopback";
const CHAIN: &str = "prerouting";

/// Before connections are tracked, and so before addresses are translated.
const RAW: i32 = -300;

/// The index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// Where a packet has its addresses.
const SOURCE_AT: u32 = 12;
const DESTINATION_AT: u32 = 16;

const KEY: Register = 0;

/// Keeps the loopback of this thread's network namespace to the node. Before this, no link may have `route_localnet`.
///
/// # Errors
/// Where the kernel does not take the rules.
pub fn guard() -> Result<(), Error> {
    let mut batch = Batch::default();
    write(&mut batch);
    Connection::open()?.commit(&batch)
}

/// Makes the table anew.
pub(super) fn write(batch: &mut Batch) {
    let family = Family::Ipv4;
    // Deleting what is not there is an error; adding what is there is none.
    batch.add_table(family, TABLE);
    batch.delete_table(family, TABLE);
    batch.add_table(family, TABLE);
    let base = Base { chain_type: ChainType::Filter, hook: Hook::Prerouting, priority: RAW };
    batch.add_chain(family, TABLE, CHAIN, Some(base));
    for at in [SOURCE_AT, DESTINATION_AT] {
        let mut rule = over_another_link(MetaKey::InputInterface).to_vec();
        rule.extend(is_loopback(at));
        rule.push(Expression::Verdict(Verdict::Drop));
        batch.add_commented_rule(family, TABLE, CHAIN, &rule, "");
    }
}

/// What leaves the loopback does so with the node's address.
pub(super) fn masquerade() -> Vec<Expression> {
    let mut rule = over_another_link(MetaKey::OutputInterface).to_vec();
    rule.extend(is_loopback(SOURCE_AT));
    rule.push(Expression::Masquerade);
    rule
}

fn over_another_link(key: MetaKey) -> [Expression; 2] {
    [
        Expression::Meta { key, to: KEY },
        Expression::Compare { op: CmpOp::NotEqual, register: KEY, value: mark(LOOPBACK) },
    ]
}

/// `127.0.0.0/8`.
fn is_loopback(at: u32) -> [Expression; 2] {
    [
        Expression::Payload { base: PayloadBase::Network, offset: at, len: 1, to: KEY },
        Expression::Compare { op: CmpOp::Equal, register: KEY, value: vec![127] },
    ]
}

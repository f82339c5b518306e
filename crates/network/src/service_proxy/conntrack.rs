//! Connections of UDP that lead to endpoints which are no longer there.
//!
//! Owns: finding and deleting them in the kernel's connection tracking. Never touches: rules.
//!
//! A UDP client keeps its port, so the kernel takes its next packet for the same connection and sends it where the
//! first one went, for as long as the client goes on. Whoever takes an endpoint away has to end these.

use std::net::{IpAddr, SocketAddr};

use super::objects::Protocol;
use super::tables::Stale;
use crate::nftables::{Attributes, Connection, Error, Family, Reader, SUBSYSTEM_CONNTRACK};

const GET: u16 = 1;
const DELETE: u16 = 2;
const NESTED: u16 = 0x8000;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// A connection as the kernel names it.
struct Entry {
    original: Vec<u8>,
    id: Vec<u8>,
    /// Where the client sent to.
    destination: SocketAddr,
    /// Who answers.
    answerer: SocketAddr,
}

/// Ends the connections that `stale` is about and that lead to no present endpoint. Says how many.
pub fn clean(connection: &mut Connection, family: Family, stale: &Stale) -> Result<usize, Error> {
    if stale.frontends.is_empty() {
        return Ok(0);
    }
    let mut found = Vec::new();
    connection.dump(
        SUBSYSTEM_CONNTRACK,
        GET,
        family.number(),
        &Attributes::default(),
        |reader, restart| {
            if restart {
                return found.clear();
            }
            found.extend(read(reader).filter(|entry| is_stale(entry.destination, entry.answerer, stale)));
        },
    )?;
    for entry in &found {
        let mut attributes = Attributes::default();
        attributes.put(TUPLE_ORIGINAL | NESTED, &entry.original);
        attributes.put(ID, &entry.id);
        let subject = "deleting a connection of UDP";
        match connection.call(SUBSYSTEM_CONNTRACK, DELETE, family.number(), &attributes, subject) {
            Ok(()) => {}
            // It ended by itself.
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found.len())
}

fn is_stale(destination: SocketAddr, answerer: SocketAddr, stale: &Stale) -> bool {
    stale.frontends.get(&destination).is_some_and(|present| !present.contains(&answerer))
}

fn read(reader: &Reader<'_>) -> Option<Entry> {
    let original = reader.find(TUPLE_ORIGINAL)?;
    let protocol = Reader::new(original).nested(TUPLE_PROTOCOL).find_u8(PROTOCOL_NUMBER)?;
    if protocol != Protocol::Udp as u8 {
        return None;
    }
    let reply = reader.nested(TUPLE_REPLY);
    Some(Entry {
        original: original.to_vec(),
        id: reader.find(ID)?.to_vec(),
        destination: end(&Reader::new(original), [2, 4], DESTINATION_PORT)?,
        answerer: end(&reply, [1, 3], SOURCE_PORT)?,
    })
}

/// One end of a tuple: its address is an attribute of the first number (IPv4) or of the second (IPv6).
fn end(tuple: &Reader<'_>, [v4, v6]: [u16; 2], port: u16) -> Option<SocketAddr> {
    let addresses = tuple.nested(TUPLE_IP);
    let address: IpAddr = match addresses.find(v4) {
        Some(bytes) => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        None => IpAddr::from(<[u8; 16]>::try_from(addresses.find(v6)?).ok()?),
    };
    Some(SocketAddr::new(address, tuple.nested(TUPLE_PROTOCOL).find_u16(port)?))
}

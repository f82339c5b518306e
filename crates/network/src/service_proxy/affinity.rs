//! Which client stays at which endpoint, carried over when a table is made anew.
//!
//! Owns: the translation of remembered clients from the numbers of the old table, which another process may have
//! given, to those of the new one. Never touches: how clients come to be remembered (rules do that).

use std::collections::HashMap;

use super::ruleset::{AFFINITY, MEMBERS, TABLE};
use super::tables::{Scope, Tables, WORD, mark};
use crate::nftables::{Connection, Element, Error};

/// What the kernel's table knows of groups and their members.
struct Old {
    clients: Vec<Element>,
    /// The scope of a group, and an address under which it is known.
    groups: HashMap<Vec<u8>, (Scope, Vec<u8>)>,
    /// Endpoints by group and number.
    members: HashMap<Vec<u8>, Vec<u8>>,
}

/// The remembered clients whose Service and endpoint are still there, as elements of the new table.
pub(super) fn clients(connection: &mut Connection, tables: &Tables) -> Result<Vec<Element>, Error> {
    let Some(old) = Old::read(connection, tables)? else { return Ok(Vec::new()) };
    let numbers = tables.members.elements();
    // Group and endpoint, to the number of the endpoint.
    let numbers: HashMap<Vec<u8>, &[u8]> = numbers
        .iter()
        .filter_map(|member| {
            let (group, number) = member.key.split_at_checked(WORD)?;
            Some(([group, member.data.as_deref()?].concat(), number))
        })
        .collect();
    Ok(old.clients.iter().filter_map(|client| old.translate(client, tables, &numbers)).collect())
}

impl Old {
    /// `None` where there is nothing to carry over.
    fn read(connection: &mut Connection, tables: &Tables) -> Result<Option<Self>, Error> {
        let family = tables.family();
        let clients = match connection.elements(family, TABLE, AFFINITY) {
            Ok(clients) if !clients.is_empty() => clients,
            Ok(_) => return Ok(None),
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut groups = HashMap::new();
        for scope in [Scope::Cluster, Scope::Local] {
            for frontend in connection.elements(family, TABLE, scope.groups())? {
                let group = frontend.data.as_deref().and_then(|data| data.get(WORD..2 * WORD));
                if let Some(group) = group {
                    groups.insert(group.to_vec(), (scope, frontend.key));
                }
            }
        }
        let members = connection.elements(family, TABLE, MEMBERS)?;
        let members = members.into_iter().filter_map(|member| Some((member.key, member.data?))).collect();
        Ok(Some(Self { clients, groups, members }))
    }

    fn translate(
        &self,
        client: &Element,
        tables: &Tables,
        numbers: &HashMap<Vec<u8>, &[u8]>,
    ) -> Option<Element> {
        let (group, address) = client.key.split_at_checked(WORD)?;
        let endpoint = self.members.get(client.data.as_deref()?.get(WORD..3 * WORD)?)?;
        let (scope, frontend) = self.groups.get(group)?;
        let group = tables.group(*scope, frontend)?;
        let number = numbers.get([group, endpoint].concat().as_slice())?;
        Some(Element {
            key: [group, address].concat(),
            data: Some([&mark(0), group, number].concat()),
            timeout_milliseconds: client.timeout_milliseconds,
            expiration_milliseconds: client.expiration_milliseconds,
            ..Element::default()
        })
    }
}

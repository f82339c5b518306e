//! A transaction: changes that the kernel makes all at once or not at all.
//!
//! Owns: the messages, and what each was about, for the error. Never touches: the socket.

use super::Attributes;
use super::expression::Expression;
use super::set::{Data, Element, Field, Set};

pub(super) const SUBSYSTEM: u16 = 10;
const MESSAGE_BATCH_BEGIN: u16 = 0x10;
const MESSAGE_BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;

const FLAG_REQUEST: u16 = 1;
const FLAG_ACK: u16 = 4;
const FLAG_CREATE: u16 = 0x400;
const FLAG_APPEND: u16 = 0x800;
const HEADER_LEN: usize = 16;
/// Where a message's flags stand in its header.
const FLAGS_AT: usize = 6;
const LIST_ELEM: u16 = 1;

/// A longer comment is left out.
pub const COMMENT_LEN_MAX: u8 = 128;
/// Bytes of elements in one message: the list is an attribute, whose length has sixteen bits.
const ELEMENTS_BYTES_MAX: usize = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    Ipv4,
    Ipv6,
    Inet,
}

impl Family {
    /// `NFPROTO_*`.
    pub fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainType {
    Filter,
    Nat,
}

/// What makes a chain one that packets come to by themselves. Its policy is accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    pub chain_type: ChainType,
    pub hook: Hook,
    pub priority: i32,
}

/// Changes, in the order in which the kernel makes them.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// What the message of each sequence number is about. The first has number 1; 0 begins the batch.
    subjects: Vec<String>,
    last_message_at: usize,
    set_ids: u32,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// Adds a table; one that is there stays as it is.
    pub fn add_table(&mut self, family: Family, table: &str) {
        let subject = format!("adding table {table}");
        self.message(NEW_TABLE, FLAG_CREATE, family, subject, |out| {
            out.put_str(1, table);
            out.put_u32(2, 0);
        });
    }

    /// Deletes a table with everything in it.
    pub fn delete_table(&mut self, family: Family, table: &str) {
        let subject = format!("deleting table {table}");
        self.message(DELETE_TABLE, 0, family, subject, |out| out.put_str(1, table));
    }

    pub fn add_chain(&mut self, family: Family, table: &str, chain: &str, base: Option<Base>) {
        let subject = format!("adding chain {chain} of table {table}");
        self.message(NEW_CHAIN, FLAG_CREATE, family, subject, |out| {
            out.put_str(1, table);
            out.put_str(3, chain);
            if let Some(base) = base {
                out.nest(4, |hook| {
                    hook.put_u32(1, base.hook as u32);
                    hook.put(2, &base.priority.to_be_bytes());
                });
                out.put_str(7, if base.chain_type == ChainType::Nat { "nat" } else { "filter" });
            }
        });
    }

    /// Deletes a chain that nothing jumps to any more, with its rules.
    pub fn delete_chain(&mut self, family: Family, table: &str, chain: &str) {
        self.flush_chain(family, table, chain);
        let subject = format!("deleting chain {chain} of table {table}");
        self.message(DELETE_CHAIN, 0, family, subject, |out| {
            out.put_str(1, table);
            out.put_str(3, chain);
        });
    }

    /// Deletes the rules of a chain.
    pub fn flush_chain(&mut self, family: Family, table: &str, chain: &str) {
        let subject = format!("emptying chain {chain} of table {table}");
        self.message(DELETE_RULE, 0, family, subject, |out| {
            out.put_str(1, table);
            out.put_str(2, chain);
        });
    }

    /// Appends a rule.
    pub fn add_rule(&mut self, family: Family, table: &str, chain: &str, expressions: &[Expression]) {
        self.add_commented_rule(family, table, chain, expressions, "");
    }

    /// Appends a rule with a comment of up to [`COMMENT_LEN_MAX`] bytes, for who lists the rules.
    pub fn add_commented_rule(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        expressions: &[Expression],
        comment: &str,
    ) {
        let subject = format!("adding a rule to chain {chain} of table {table}");
        self.message(NEW_RULE, FLAG_CREATE | FLAG_APPEND, family, subject, |out| {
            out.put_str(1, table);
            out.put_str(2, chain);
            out.nest(4, |list| {
                for expression in expressions {
                    list.nest(LIST_ELEM, |item| expression.write(item));
                }
            });
            if let Some(len) =
                u8::try_from(comment.len() + 1).ok().filter(|len| (2..=COMMENT_LEN_MAX + 1).contains(len))
            {
                // The form in which `nft` keeps comments: kind, length, text.
                out.put(7, &[&[0, len], comment.as_bytes(), &[0]].concat());
            }
        });
    }

    pub fn add_set(&mut self, family: Family, table: &str, set: &Set<'_>) {
        self.set_ids += 1;
        let id = self.set_ids;
        let what = if set.data == Data::None { "set" } else { "map" };
        let subject = format!("adding {what} {} of table {table}", set.name);
        self.message(NEW_SET, FLAG_CREATE, family, subject, |out| set.write(table, id, out));
    }

    /// Deletes a set that no rule looks into any more.
    pub fn delete_set(&mut self, family: Family, table: &str, set: &str) {
        let subject = format!("deleting set {set} of table {table}");
        self.message(DELETE_SET, 0, family, subject, |out| {
            out.put_str(1, table);
            out.put_str(2, set);
        });
    }

    /// Adds elements to a set whose key has these fields.
    pub fn add_elements(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
        key: &[Field],
        elements: &[Element],
    ) {
        self.elements(NEW_ELEMENTS, FLAG_CREATE, family, (table, set), key, elements);
    }

    /// Deletes elements, which must be there.
    pub fn delete_elements(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
        key: &[Field],
        elements: &[Element],
    ) {
        self.elements(DELETE_ELEMENTS, 0, family, (table, set), key, elements);
    }

    fn elements(
        &mut self,
        kind: u16,
        flags: u16,
        family: Family,
        (table, set): (&str, &str),
        key: &[Field],
        elements: &[Element],
    ) {
        let verb = if kind == NEW_ELEMENTS { "adding" } else { "deleting" };
        let mut rest = elements;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fit = rest.iter().take_while(|element| {
                bytes += element.len_max();
                bytes <= ELEMENTS_BYTES_MAX
            });
            let (now, later) = rest.split_at(fit.count().max(1));
            rest = later;
            let subject = format!("{verb} {} elements of set {set} of table {table}", now.len());
            self.message(kind, flags, family, subject, |out| {
                out.put_str(1, table);
                out.put_str(2, set);
                out.nest(3, |list| now.iter().for_each(|element| element.write(key, list)));
            });
        }
    }

    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        family: Family,
        subject: String,
        write: impl FnOnce(&mut Attributes),
    ) {
        if self.bytes.is_empty() {
            put_message(&mut self.bytes, MESSAGE_BATCH_BEGIN, FLAG_REQUEST, 0, (0, SUBSYSTEM), &[]);
        }
        self.subjects.push(subject);
        let mut attributes = Attributes::default();
        write(&mut attributes);
        self.last_message_at = self.bytes.len();
        let sequence = self.last_sequence();
        put_message(
            &mut self.bytes,
            SUBSYSTEM << 8 | kind,
            FLAG_REQUEST | flags,
            sequence,
            (family.number(), 0),
            attributes.bytes(),
        );
    }

    /// The number of the last message; its acknowledgement says that all of them were taken.
    pub(super) fn last_sequence(&self) -> u32 {
        u32::try_from(self.subjects.len()).unwrap_or(u32::MAX)
    }

    /// What the message of this number was about.
    pub(super) fn subject(&self, sequence: u32) -> &str {
        let index = (sequence as usize).checked_sub(1);
        index.and_then(|index| self.subjects.get(index)).map_or("committing", String::as_str)
    }

    /// The bytes to send: everything so far, and the batch's end.
    pub(super) fn finish(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let flags = u16::from_ne_bytes([
            bytes[self.last_message_at + FLAGS_AT],
            bytes[self.last_message_at + FLAGS_AT + 1],
        ]);
        bytes[self.last_message_at + FLAGS_AT..][..2].copy_from_slice(&(flags | FLAG_ACK).to_ne_bytes());
        put_message(
            &mut bytes,
            MESSAGE_BATCH_END,
            FLAG_REQUEST,
            self.last_sequence().saturating_add(1),
            (0, SUBSYSTEM),
            &[],
        );
        bytes
    }
}

/// One message: netlink's header, netfilter's header (family, resource), attributes.
pub(super) fn put_message(
    out: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    (family, resource): (u8, u16),
    attributes: &[u8],
) {
    let len = u32::try_from(HEADER_LEN + 4 + attributes.len())
        .expect("a message is shorter than its attributes' limit");
    out.extend_from_slice(&len.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[family, 0]);
    out.extend_from_slice(&resource.to_be_bytes());
    out.extend_from_slice(attributes);
}

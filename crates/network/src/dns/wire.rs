//! DNS messages as bytes (RFC 1035, RFC 6891): reading questions, writing answers, finding one's way in foreign ones.
//!
//! Hot path: a question is read and answered without an allocation. That is why there is no tree of records here as
//! libraries have it; tests read what is written with such a library.
//!
//! Everything read is somebody else's: no length, count or pointer in it is believed.

use std::net::IpAddr;
use std::ops::Range;

pub(super) const HEADER_LEN: usize = 12;
/// With its length bytes and the root.
pub(super) const NAME_MAX: usize = 255;
const LABEL_MAX: usize = 63;
/// What everybody takes without saying so.
pub(super) const UDP_MIN: usize = 512;
/// What passes every network unfragmented, and all that is sent, whatever larger a client says it takes.
pub(super) const UDP_MAX: usize = 1232;
/// An `OPT` record without options.
const OPT_LEN: usize = 11;
/// Records that are looked at in one foreign message.
const RECORDS_MAX: usize = 4096;

pub(super) mod kind {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
}

pub(super) mod rcode {
    pub const NO_ERROR: u8 = 0;
    pub const FORMAT_ERROR: u8 = 1;
    pub const SERVER_FAILURE: u8 = 2;
    pub const NAME_ERROR: u8 = 3;
    pub const NOT_IMPLEMENTED: u8 = 4;
    pub const REFUSED: u8 = 5;
}

pub(super) const CLASS_IN: u16 = 1;

const RESPONSE: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const AUTHORITATIVE: u16 = 0x0400;
pub(super) const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;
const CHECKING_DISABLED: u16 = 0x0010;
const DNSSEC_OK: u16 = 0x8000;

/// A name in its form on the wire: labels with their lengths before them, the root at the end, in lower case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name {
    bytes: [u8; NAME_MAX],
    len: u8,
}

impl Name {
    /// Reads `example.com`, with or without a dot at the end. `None` where that cannot be a name.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut name = Self { bytes: [0; NAME_MAX], len: 0 };
        let text = text.strip_suffix('.').unwrap_or(text);
        for label in text.split('.').filter(|_| !text.is_empty()) {
            name.push(label.as_bytes())?;
        }
        name.end()
    }

    /// This name below another one.
    pub fn below(labels: &[&str], parent: &Self) -> Option<Self> {
        let mut name = Self { bytes: [0; NAME_MAX], len: 0 };
        labels.iter().try_for_each(|label| name.push(label.as_bytes()))?;
        let at = usize::from(name.len);
        name.bytes.get_mut(at..at + parent.as_bytes().len())?.copy_from_slice(parent.as_bytes());
        name.len += parent.len;
        Some(name)
    }

    fn push(&mut self, label: &[u8]) -> Option<()> {
        let at = usize::from(self.len);
        if label.is_empty() || label.len() > LABEL_MAX || at + 1 + label.len() >= NAME_MAX {
            return None;
        }
        self.bytes[at] = label.len() as u8;
        for (to, byte) in self.bytes[at + 1..].iter_mut().zip(label) {
            *to = byte.to_ascii_lowercase();
        }
        self.len += 1 + label.len() as u8;
        Some(())
    }

    fn end(mut self) -> Option<Self> {
        (usize::from(self.len) < NAME_MAX).then(|| {
            self.len += 1;
            self
        })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// From the left.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.as_bytes();
        std::iter::from_fn(move || {
            let (len, after) = rest.split_first()?;
            if *len == 0 {
                return None;
            }
            let (label, after) = after.split_at_checked(usize::from(*len))?;
            rest = after;
            Some(label)
        })
    }

    /// How many bytes of it stand before `parent`, if it is that or below it.
    pub fn within(&self, parent: &Self) -> Option<usize> {
        let before = self.as_bytes().len().checked_sub(parent.as_bytes().len())?;
        if self.as_bytes()[before..] != *parent.as_bytes() {
            return None;
        }
        // The bytes may agree by chance: a label has to begin there.
        let mut at = 0;
        while at < before {
            at += 1 + usize::from(self.bytes[at]);
        }
        (at == before).then_some(before)
    }

    /// Reads the name at `at`, following pointers, which may only lead back. Returns where it ends in place.
    pub fn read(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let mut name = Self { bytes: [0; NAME_MAX], len: 0 };
        let (mut at, mut end) = (at, None);
        loop {
            let len = usize::from(*message.get(at)?);
            match len {
                0 => return Some((name.end()?, end.unwrap_or(at + 1))),
                1..=LABEL_MAX => {
                    name.push(message.get(at + 1..at + 1 + len)?)?;
                    at += 1 + len;
                }
                0xc0.. => {
                    let to = (len & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                    end.get_or_insert(at + 2);
                    if to >= at {
                        return None;
                    }
                    at = to;
                }
                _ => return None,
            }
        }
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for label in self.labels() {
            write!(f, "{}.", label.escape_ascii())?;
        }
        Ok(())
    }
}

/// What a client said of itself in an `OPT` record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edns {
    pub size: u16,
    pub version: u8,
    pub dnssec_ok: bool,
}

/// A question as it came.
pub(super) struct Query<'a> {
    pub id: u16,
    flags: u16,
    pub name: Name,
    pub kind: u16,
    pub class: u16,
    pub edns: Option<Edns>,
    /// Name, type and class in the client's own letters.
    question: &'a [u8],
}

/// Why a message is no question that is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unanswerable {
    /// Too short for a header, or an answer: whatever was said back might be answered again.
    Silent,
    /// What to say about it.
    With(u8),
}

impl<'a> Query<'a> {
    pub fn read(message: &'a [u8]) -> Result<Self, Unanswerable> {
        let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
        let header = |at: usize| word(at).ok_or(Unanswerable::Silent);
        let (id, flags) = (header(0)?, header(2)?);
        let counts = [header(4)?, header(6)?, header(8)?, header(10)?];
        if flags & RESPONSE != 0 {
            return Err(Unanswerable::Silent);
        }
        if flags & OPCODE != 0 {
            return Err(Unanswerable::With(rcode::NOT_IMPLEMENTED));
        }
        let malformed = Unanswerable::With(rcode::FORMAT_ERROR);
        if counts[0] != 1 {
            return Err(malformed);
        }
        let (name, end) = Name::read(message, HEADER_LEN).ok_or(malformed)?;
        // A first name has nothing to point to.
        if end - HEADER_LEN != name.as_bytes().len() {
            return Err(malformed);
        }
        let (kind, class) = (word(end).ok_or(malformed)?, word(end + 2).ok_or(malformed)?);
        let question = &message[HEADER_LEN..end + 4];
        let mut edns = None;
        let records = counts[1..].iter().map(|count| usize::from(*count)).sum::<usize>();
        let mut at = end + 4;
        for _ in 0..records.min(RECORDS_MAX) {
            let record = RecordAt::read(message, at).ok_or(malformed)?;
            if record.kind == kind::OPT && edns.is_some() {
                return Err(malformed);
            }
            if record.kind == kind::OPT {
                let ttl = record.ttl(message);
                edns = Some(Edns {
                    size: record.class,
                    version: (ttl >> 16) as u8,
                    dnssec_ok: ttl as u16 & DNSSEC_OK != 0,
                });
            }
            at = record.data.end;
        }
        Ok(Self { id, flags, name, kind, class, edns, question })
    }

    pub fn wants_recursion(&self) -> bool {
        self.flags & RECURSION_DESIRED != 0
    }

    pub fn checking_disabled(&self) -> bool {
        self.flags & CHECKING_DISABLED != 0
    }

    /// How long an answer over UDP may be.
    pub fn udp_limit(&self) -> usize {
        self.edns.map_or(UDP_MIN, |edns| usize::from(edns.size).clamp(UDP_MIN, UDP_MAX))
    }
}

/// Writes a question of our own.
pub(super) fn write_query(
    id: u16,
    name: &Name,
    kind: u16,
    dnssec_ok: bool,
    checking_disabled: bool,
    out: &mut Vec<u8>,
) {
    out.clear();
    let flags = RECURSION_DESIRED | if checking_disabled { CHECKING_DISABLED } else { 0 };
    for word in [id, flags, 1, 0, 0, 1] {
        out.extend(word.to_be_bytes());
    }
    out.extend(name.as_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    write_opt(0, dnssec_ok, out);
}

fn write_opt(extended_rcode: u8, dnssec_ok: bool, out: &mut Vec<u8>) {
    out.push(0);
    out.extend(kind::OPT.to_be_bytes());
    out.extend((UDP_MAX as u16).to_be_bytes());
    out.extend([extended_rcode, 0]);
    out.extend((if dnssec_ok { DNSSEC_OK } else { 0 }).to_be_bytes());
    out.extend([0, 0]);
}

/// Says no to a message of which only the header could be read.
pub(super) fn write_refusal(message: &[u8], code: u8, out: &mut Vec<u8>) {
    out.clear();
    let Some(id) = message.get(..2) else { return };
    let opcode = message.get(2).map_or(0, |byte| byte & 0x79);
    out.extend(id);
    out.extend([0x80 | opcode, code & 0x0f]);
    out.extend([0; 8]);
}

/// Whose record it is that is written.
#[derive(Clone, Copy)]
pub(super) enum Owner<'a> {
    /// The name that was asked for.
    Question,
    /// The end of that name, from this byte of it on.
    QuestionFrom(usize),
    Name(&'a Name),
}

/// An answer that is being written.
pub(super) struct Reply<'a> {
    out: &'a mut Vec<u8>,
    state: Suspended,
}

/// What an answer that is being written has besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspended {
    flags: u16,
    edns: Option<Edns>,
    /// Without the room for `OPT`.
    limit: usize,
    /// Answers, authorities, additionals.
    counts: [u16; 3],
    is_full: bool,
}

impl<'a> Reply<'a> {
    /// `limit` is the length that it may have.
    pub fn to(query: &Query<'_>, limit: usize, out: &'a mut Vec<u8>) -> Self {
        out.clear();
        out.extend([0; HEADER_LEN]);
        out[..2].copy_from_slice(&query.id.to_be_bytes());
        out[5] = 1;
        out.extend(query.question);
        let kept = query.flags & (RECURSION_DESIRED | CHECKING_DISABLED);
        let limit = limit - if query.edns.is_some() { OPT_LEN } else { 0 };
        let flags = RESPONSE | RECURSION_AVAILABLE | kept;
        Self { out, state: Suspended { flags, edns: query.edns, limit, counts: [0; 3], is_full: false } }
    }

    /// Leaves what is written as it is.
    pub fn suspend(self) -> Suspended {
        self.state
    }

    /// Goes on where [`Reply::suspend`] left; `out` is as it was then.
    pub fn resume(state: Suspended, out: &'a mut Vec<u8>) -> Self {
        Self { out, state }
    }

    pub fn authoritative(&mut self) {
        self.state.flags |= AUTHORITATIVE;
    }

    pub fn truncated(&mut self) {
        self.state.flags |= TRUNCATED;
    }

    pub fn has_answers(&self) -> bool {
        self.state.counts[0] > 0
    }

    pub fn address(&mut self, section: Section, owner: Owner<'_>, ttl: u32, address: IpAddr) {
        match address {
            IpAddr::V4(ip) => self.record(section, owner, kind::A, ttl, |out| out.extend(ip.octets())),
            IpAddr::V6(ip) => self.record(section, owner, kind::AAAA, ttl, |out| out.extend(ip.octets())),
        }
    }

    /// `CNAME`, `PTR` and `NS`.
    pub fn name(&mut self, owner: Owner<'_>, kind: u16, ttl: u32, target: &Name) {
        self.record(Section::Answer, owner, kind, ttl, |out| out.extend(target.as_bytes()));
    }

    pub fn service(&mut self, owner: Owner<'_>, ttl: u32, weight: u16, port: u16, target: &Name) {
        self.record(Section::Answer, owner, kind::SRV, ttl, |out| {
            out.extend([0, 0]);
            out.extend(weight.to_be_bytes());
            out.extend(port.to_be_bytes());
            out.extend(target.as_bytes());
        });
    }

    pub fn text(&mut self, owner: Owner<'_>, ttl: u32, text: &str) {
        self.record(Section::Answer, owner, kind::TXT, ttl, |out| {
            out.push(text.len() as u8);
            out.extend(text.as_bytes());
        });
    }

    pub fn record(
        &mut self,
        section: Section,
        owner: Owner<'_>,
        kind: u16,
        ttl: u32,
        data: impl FnOnce(&mut Vec<u8>),
    ) {
        if self.state.is_full {
            return;
        }
        let start = self.out.len();
        match owner {
            Owner::Question => self.out.extend([0xc0, HEADER_LEN as u8]),
            Owner::QuestionFrom(at) => {
                self.out.extend((0xc000 | (HEADER_LEN + at) as u16).to_be_bytes());
            }
            Owner::Name(name) => self.out.extend(name.as_bytes()),
        }
        self.out.extend(kind.to_be_bytes());
        self.out.extend(CLASS_IN.to_be_bytes());
        self.out.extend(ttl.to_be_bytes());
        self.out.extend([0, 0]);
        let data_at = self.out.len();
        data(self.out);
        let len = (self.out.len() - data_at) as u16;
        self.out[data_at - 2..data_at].copy_from_slice(&len.to_be_bytes());
        if self.out.len() > self.state.limit {
            self.out.truncate(start);
            self.state.is_full = true;
            // Additional records are a courtesy: nobody needs to ask again for them.
            if !matches!(section, Section::Additional) {
                self.truncated();
            }
            return;
        }
        self.state.counts[section as usize] += 1;
    }

    pub fn finish(mut self, rcode: u8) {
        self.state.flags |= u16::from(rcode & 0x0f);
        if let Some(edns) = self.state.edns {
            write_opt(rcode >> 4, edns.dnssec_ok, self.out);
            self.state.counts[2] += 1;
        }
        self.out[2..4].copy_from_slice(&self.state.flags.to_be_bytes());
        for (index, count) in self.state.counts.iter().enumerate() {
            let at = 6 + 2 * index;
            self.out[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Answer,
    Authority,
    Additional,
}

/// Where a record lies in a message.
#[derive(Clone, Debug)]
pub(super) struct RecordAt {
    pub name_at: usize,
    pub kind: u16,
    pub class: u16,
    pub ttl_at: usize,
    pub data: Range<usize>,
}

impl RecordAt {
    fn read(message: &[u8], at: usize) -> Option<Self> {
        let fixed = skip_name(message, at)?;
        let bytes = message.get(fixed..fixed + 10)?;
        let data_at = fixed + 10;
        let data = data_at..data_at + usize::from(u16::from_be_bytes([bytes[8], bytes[9]]));
        message.get(data.clone())?;
        Some(Self {
            name_at: at,
            kind: u16::from_be_bytes([bytes[0], bytes[1]]),
            class: u16::from_be_bytes([bytes[2], bytes[3]]),
            ttl_at: fixed + 4,
            data,
        })
    }

    pub fn ttl(&self, message: &[u8]) -> u32 {
        message[self.ttl_at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            len @ 1..=LABEL_MAX => at += 1 + len,
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// Somebody else's answer, as far as it is understood: header, question, answers and authorities.
#[derive(Debug)]
pub(super) struct Foreign {
    pub id: u16,
    pub flags: u16,
    pub name: Name,
    pub kind: u16,
    pub answers: Vec<RecordAt>,
    pub authorities: Vec<RecordAt>,
    /// Where the authorities end.
    pub end: usize,
    pub question_end: usize,
    /// With the upper bits, which `OPT` has.
    pub rcode: u16,
}

impl Foreign {
    pub fn read(message: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
        let (id, flags) = (word(0)?, word(2)?);
        if flags & RESPONSE == 0 || word(4)? != 1 {
            return None;
        }
        let (name, end) = Name::read(message, HEADER_LEN)?;
        let (kind, question_end) = (word(end)?, end + 4);
        word(end + 2)?;
        let mut at = question_end;
        let mut section = |count: u16| {
            let mut records = Vec::with_capacity(usize::from(count).min(64));
            for _ in 0..usize::from(count) {
                let record = RecordAt::read(message, at)?;
                at = record.data.end;
                if records.len() == RECORDS_MAX {
                    return None;
                }
                records.push(record);
            }
            Some((records, at))
        };
        let truncated = flags & TRUNCATED != 0;
        // What is cut off may be cut off anywhere: nothing of it is used.
        let (answers, _) = if truncated { (Vec::new(), 0) } else { section(word(6)?)? };
        let (authorities, end) = if truncated { (Vec::new(), question_end) } else { section(word(8)?)? };
        let (additionals, _) = if truncated { (Vec::new(), 0) } else { section(word(10)?)? };
        let opt = additionals.iter().find(|record| record.kind == kind::OPT);
        let upper = opt.map_or(0, |record| (record.ttl(message) >> 24) as u16);
        let rcode = upper << 4 | flags & 0x0f;
        Some(Self { id, flags, name, kind, answers, authorities, end, question_end, rcode })
    }

    pub fn is_truncated(&self) -> bool {
        self.flags & TRUNCATED != 0
    }
}

impl Reply<'_> {
    /// Adds somebody else's answers about what an alias leads to.
    pub fn append(&mut self, message: &[u8], foreign: &Foreign, age_seconds: u32) {
        for record in &foreign.answers {
            let Some((owner, _)) = Name::read(message, record.name_at) else { return };
            let ttl = record.ttl(message).saturating_sub(age_seconds);
            let data = &message[record.data.clone()];
            match record.kind {
                kind::CNAME | kind::PTR | kind::NS => {
                    let Some((target, _)) = Name::read(message, record.data.start) else { return };
                    self.name(Owner::Name(&owner), record.kind, ttl, &target);
                }
                kind::A | kind::AAAA | kind::TXT => {
                    self.record(Section::Answer, Owner::Name(&owner), record.kind, ttl, |out| {
                        out.extend(data)
                    });
                }
                kind::SRV if data.len() > 6 => {
                    let Some((target, _)) = Name::read(message, record.data.start + 6) else { return };
                    self.record(Section::Answer, Owner::Name(&owner), record.kind, ttl, |out| {
                        out.extend(&data[..6]);
                        out.extend(target.as_bytes());
                    });
                }
                // Others may have names inside, whose pointers mean nothing here.
                _ => {}
            }
        }
    }
}

/// Copies somebody else's answer for a client: with its number and letters, times to live reduced by `age`, and its
/// own idea of `OPT`. What is too long is cut off whole.
pub(super) fn write_foreign(
    message: &[u8],
    foreign: &Foreign,
    age_seconds: u32,
    query: &Query<'_>,
    limit: usize,
    out: &mut Vec<u8>,
) {
    let mut reply = Reply::to(query, limit, out);
    reply.state.flags |= foreign.flags & 0x0020;
    if foreign.end > reply.state.limit || foreign.is_truncated() {
        reply.truncated();
    } else {
        // The question is as long as ours, so every pointer still points where it should.
        let shift = reply.out.len();
        reply.out.extend(&message[foreign.question_end..foreign.end]);
        for record in foreign.answers.iter().chain(&foreign.authorities) {
            let ttl = record.ttl(message).saturating_sub(age_seconds);
            let at = record.ttl_at - foreign.question_end + shift;
            reply.out[at..at + 4].copy_from_slice(&ttl.to_be_bytes());
        }
        reply.state.counts[0] = foreign.answers.len() as u16;
        reply.state.counts[1] = foreign.authorities.len() as u16;
    }
    reply.finish(foreign.rcode.min(0x0f) as u8);
}

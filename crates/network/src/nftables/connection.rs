//! The socket to the kernel's netfilter: commits batches, asks for dumps.
//!
//! Owns: the socket. Never touches: what is sent. Every call blocks for as long as the kernel works; callers in async
//! code use a blocking thread.

use netlink_sys::constants::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};

use super::batch::{Batch, Family, SUBSYSTEM, put_message};
use super::{Attributes, Element, Reader};

pub const SUBSYSTEM_CONNTRACK: u16 = 1;

const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;
const FLAG_REQUEST: u16 = 1;
const FLAG_ACK: u16 = 4;
const FLAG_DUMP: u16 = 0x300;
const FLAG_CAPPED: u16 = 0x100;
const FLAG_ACK_ATTRIBUTES: u16 = 0x200;
const HEADER_LEN: usize = 16;
const NETFILTER_HEADER_LEN: usize = 4;
const ACK_MESSAGE: u16 = 1;

const GET_TABLE: u16 = 1;
const GET_ELEMENTS: u16 = 13;

/// Room for answers; an acknowledgement of each message that fails, or a part of a dump.
const RECEIVE_BYTES: usize = 8 << 20;
/// Largest datagram that the kernel makes of a dump, with room to spare.
const DATAGRAM_BYTES_MAX: usize = 1 << 20;
/// Largest transaction that is tried; the kernel holds it in one piece.
const BATCH_BYTES_MAX: usize = 256 << 20;
/// A dump that changed while it was read is read again this often.
const DUMP_TRIES: usize = 5;
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("opening a netfilter socket")]
    Open(#[source] std::io::Error),
    #[error("talking to netfilter")]
    Socket(#[source] std::io::Error),
    /// The kernel took nothing of the batch. `message` is its own explanation, often empty.
    #[error("{subject}{}{message}", if message.is_empty() { "" } else { ": " })]
    Refused { subject: String, message: String, source: std::io::Error },
    #[error("a transaction of {0} bytes is larger than {BATCH_BYTES_MAX}")]
    TooLarge(usize),
    #[error("netfilter did not answer {0}")]
    NoAnswer(String),
    #[error("the dump changed {DUMP_TRIES} times while it was read")]
    Interrupted,
}

impl Error {
    /// The kernel says that what was named is not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if Errno::from_io_error(source) == Some(Errno::NOENT))
    }
}

/// A socket in the network namespace of the thread that opened it.
pub struct Connection {
    socket: Socket,
    buffer: Vec<u8>,
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl Connection {
    pub fn open() -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(Error::Open)?;
        socket.bind_auto().map_err(Error::Open)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(Error::Open)?;
        socket.set_cap_ack(true).map_err(Error::Open)?;
        socket.set_ext_ack(true).map_err(Error::Open)?;
        sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BYTES)
            .map_err(|error| Error::Open(error.into()))?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM_BYTES_MAX] })
    }

    /// Makes all changes of a batch, or none.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let bytes = batch.finish();
        self.send(&bytes)?;
        // The kernel worked while we sent: its answers are all there.
        let mut refusal = None;
        let mut acknowledged = false;
        while let Some(len) = self.receive(RecvFlags::DONTWAIT)? {
            for message in messages(&self.buffer[..len]) {
                match outcome(&message) {
                    Some(Ok(())) => acknowledged |= message.sequence == batch.last_sequence(),
                    Some(Err((source, text))) => {
                        // The first one is the cause; others may follow from it.
                        refusal.get_or_insert(Error::Refused {
                            subject: batch.subject(message.sequence).to_owned(),
                            message: text,
                            source,
                        });
                    }
                    None => {}
                }
            }
        }
        match refusal {
            Some(refusal) => Err(refusal),
            None if acknowledged => Ok(()),
            None => Err(Error::NoAnswer(batch.subject(batch.last_sequence()).to_owned())),
        }
    }

    /// The names of all tables of a family.
    pub fn tables(&mut self, family: Family) -> Result<Vec<String>, Error> {
        let mut tables = Vec::new();
        self.dump(SUBSYSTEM, GET_TABLE, family.number(), &Attributes::default(), |reader, restart| {
            if restart {
                return tables.clear();
            }
            tables.extend(reader.find_str(1).map(str::to_owned));
        })?;
        Ok(tables)
    }

    /// The elements of a set; [`Error::is_absent`] when there is no such set.
    pub fn elements(&mut self, family: Family, table: &str, set: &str) -> Result<Vec<Element>, Error> {
        let mut attributes = Attributes::default();
        attributes.put_str(1, table);
        attributes.put_str(2, set);
        let mut elements = Vec::new();
        self.dump(SUBSYSTEM, GET_ELEMENTS, family.number(), &attributes, |reader, restart| {
            if restart {
                return elements.clear();
            }
            let list = reader.nested(3).filter(|(kind, _)| *kind == 1);
            elements.extend(list.filter_map(|(_, item)| Element::read(&Reader::new(item))));
        })?;
        Ok(elements)
    }

    /// Asks for everything of a kind. `take` sees each entry, and `true` with nothing when it starts anew.
    pub fn dump(
        &mut self,
        subsystem: u16,
        kind: u16,
        family: u8,
        attributes: &Attributes,
        mut take: impl FnMut(&Reader<'_>, bool),
    ) -> Result<(), Error> {
        for _ in 0..DUMP_TRIES {
            take(&Reader::new(&[]), true);
            let request = request(subsystem, kind, FLAG_REQUEST | FLAG_DUMP, family, attributes);
            self.send(&request)?;
            if self.read_dump(&mut take)? {
                return Ok(());
            }
        }
        Err(Error::Interrupted)
    }

    /// False when the dump is not one consistent state.
    fn read_dump(&mut self, take: &mut impl FnMut(&Reader<'_>, bool)) -> Result<bool, Error> {
        let mut consistent = true;
        loop {
            let len = self.receive(RecvFlags::empty())?.unwrap_or(0);
            for message in messages(&self.buffer[..len]) {
                consistent &= message.flags & FLAG_DUMP_INTERRUPTED == 0;
                if message.kind == MESSAGE_DONE {
                    return Ok(consistent);
                }
                match outcome(&message) {
                    Some(Err((source, message))) => {
                        return Err(Error::Refused { subject: "reading a dump".into(), message, source });
                    }
                    Some(Ok(())) => return Ok(consistent),
                    None => take(
                        &Reader::new(message.payload.get(NETFILTER_HEADER_LEN..).unwrap_or_default()),
                        false,
                    ),
                }
            }
        }
    }

    /// Sends one request and waits for its acknowledgement.
    pub fn call(
        &mut self,
        subsystem: u16,
        kind: u16,
        family: u8,
        attributes: &Attributes,
        subject: &str,
    ) -> Result<(), Error> {
        self.send(&request(subsystem, kind, FLAG_REQUEST | FLAG_ACK, family, attributes))?;
        while let Some(len) = self.receive(RecvFlags::DONTWAIT)? {
            for message in messages(&self.buffer[..len]) {
                match outcome(&message) {
                    Some(Ok(())) => return Ok(()),
                    Some(Err((source, message))) => {
                        return Err(Error::Refused { subject: subject.to_owned(), message, source });
                    }
                    None => {}
                }
            }
        }
        Err(Error::NoAnswer(subject.to_owned()))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() > BATCH_BYTES_MAX {
            return Err(Error::TooLarge(bytes.len()));
        }
        // Answers to a former request that failed half way are nobody's any more.
        while !matches!(self.receive(RecvFlags::DONTWAIT), Ok(None) | Err(_)) {}
        // The kernel takes a message only if the socket's buffer could hold it.
        let room = sockopt::socket_send_buffer_size(&self.socket).map_err(socket_error)?;
        if bytes.len() + HEADER_LEN * 4 > room {
            sockopt::set_socket_send_buffer_size_force(&self.socket, bytes.len() + HEADER_LEN * 4)
                .map_err(socket_error)?;
        }
        send(&self.socket, bytes, SendFlags::empty()).map_err(socket_error)?;
        Ok(())
    }

    /// `None` when nothing is waiting and the flags say not to wait.
    fn receive(&mut self, flags: RecvFlags) -> Result<Option<usize>, Error> {
        loop {
            match recv(&self.socket, &mut self.buffer[..], flags) {
                Ok((len, _)) => return Ok(Some(len)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(socket_error(error)),
            }
        }
    }
}

fn socket_error(error: Errno) -> Error {
    Error::Socket(error.into())
}

/// A single request of a subsystem of netfilter.
pub fn request(subsystem: u16, kind: u16, flags: u16, family: u8, attributes: &Attributes) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_message(&mut bytes, subsystem << 8 | kind, flags, 1, (family, 0), attributes.bytes());
    bytes
}

/// The messages of a datagram; bytes that are none end it.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER_LEN)?;
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let len = word(0) as usize;
        let payload = bytes.get(HEADER_LEN..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind: half(4), flags: half(6), sequence: word(8), payload })
    })
}

/// What an acknowledgement says; `None` for other messages.
fn outcome(message: &Message<'_>) -> Option<Result<(), (std::io::Error, String)>> {
    if message.kind != MESSAGE_ERROR {
        return None;
    }
    let code = i32::from_ne_bytes(message.payload.get(..4)?.try_into().ok()?);
    if code == 0 {
        return Some(Ok(()));
    }
    // After the code comes the header of the request, with its payload unless it was cut.
    let request_len = message.payload.get(4..8)?.try_into().map(u32::from_ne_bytes).ok()? as usize;
    let skip = if message.flags & FLAG_CAPPED == 0 { request_len.next_multiple_of(4) } else { HEADER_LEN };
    let text = if message.flags & FLAG_ACK_ATTRIBUTES == 0 {
        String::new()
    } else {
        let attributes = Reader::new(message.payload.get(4 + skip..).unwrap_or_default());
        attributes.find_str(ACK_MESSAGE).unwrap_or_default().to_owned()
    };
    Some(Err((std::io::Error::from_raw_os_error(code.saturating_neg()), text)))
}

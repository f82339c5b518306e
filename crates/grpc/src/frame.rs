//! Messages in a body: one byte for compression, four for the length, then the message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::status::{Code, Status};

/// The largest message that is taken or sent unless the caller says otherwise: what a kubelet takes of a runtime.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

const PREFIX_BYTES: usize = 5;

/// A message with its prefix.
pub(crate) fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("a message of 4 GiB is nowhere made"));
    message.encode(&mut frame).expect("the buffer grows");
    frame.freeze()
}

/// Collects a body's pieces until a message is whole.
#[derive(Debug)]
pub(crate) struct Decoder {
    buffer: BytesMut,
    message_bytes_max: usize,
}

impl Decoder {
    pub(crate) fn new(message_bytes_max: usize) -> Decoder {
        Decoder { buffer: BytesMut::new(), message_bytes_max }
    }

    pub(crate) fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// Takes the next whole message out.
    pub(crate) fn next<T: Message + Default>(&mut self) -> Result<Option<T>, Status> {
        let Some((prefix, _)) = self.buffer.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let [compressed, length @ ..] = *prefix;
        if compressed != 0 {
            let message = "grpc: a compressed message arrived, and no compression was agreed on";
            return Err(Status::new(Code::Internal, message));
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > self.message_bytes_max {
            return Err(Status::new(
                Code::ResourceExhausted,
                format!("grpc: received message larger than max ({length} vs. {})", self.message_bytes_max),
            ));
        }
        if self.buffer.len() < PREFIX_BYTES + length {
            self.buffer.reserve(PREFIX_BYTES + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        let message = self.buffer.split_to(length).freeze();
        T::decode(message).map(Some).map_err(|error| {
            Status::new(Code::Internal, format!("grpc: failed to unmarshal the received message: {error}"))
        })
    }

    /// Whether nothing is left of a message that never became whole.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_wherever_the_pieces_are_cut() {
        let messages = ["", "a", "something longer"].map(String::from);
        let bytes: Vec<u8> = messages.iter().flat_map(encode).collect();
        for size in 1..=bytes.len() {
            let mut decoder = Decoder::new(100);
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                decoder.push(piece);
                while let Some(message) = decoder.next::<String>().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, messages, "pieces of {size}");
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn too_large_compressed_and_broken_messages_are_refused() {
        for (bytes, code) in [
            (&[0, 0, 0, 0, 11][..], Code::ResourceExhausted),
            (&[1, 0, 0, 0, 0], Code::Internal),
            (&[0, 0, 0, 0, 1, 0xff], Code::Internal),
        ] {
            let mut decoder = Decoder::new(10);
            decoder.push(bytes);
            assert_eq!(decoder.next::<String>().map_err(|status| status.code), Err(code), "{bytes:?}");
        }
        let mut decoder = Decoder::new(10);
        decoder.push(&[0, 0, 0, 0, 10, 1]);
        assert_eq!(decoder.next::<String>(), Ok(None));
        assert!(!decoder.is_empty());
    }
}

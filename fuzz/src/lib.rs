//! What fuzz targets share: where to cut an input, objects of a kind made from bytes ([`shape`]), and a served cluster
//! to send requests to ([`server`]).

pub mod server;
pub mod shape;

/// The two documents of an input, of which the first is one line.
pub fn halves(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = input.iter().position(|&byte| byte == b'\n')?;
    Some((&input[..end], &input[end + 1..]))
}

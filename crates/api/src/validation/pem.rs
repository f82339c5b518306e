//! Finds PEM blocks and says of which type they are; what their content means is for others.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub const CERTIFICATE: &str = "CERTIFICATE";
pub const REQUEST: &str = "CERTIFICATE REQUEST";

#[derive(Debug, PartialEq)]
pub struct Block<'a> {
    pub kind: &'a str,
    pub has_headers: bool,
    pub content: Vec<u8>,
    /// What follows the block.
    pub rest: &'a str,
}

/// The first block that is well formed.
pub fn first(text: &str) -> Option<Block<'_>> {
    let mut rest = text;
    loop {
        rest = after_begin(rest)?;
        if let Some(block) = block(rest) {
            return Some(block);
        }
    }
}

/// What follows the next `-----BEGIN ` at the start of a line.
fn after_begin(text: &str) -> Option<&str> {
    const BEGIN: &str = "-----BEGIN ";
    if let Some(rest) = text.strip_prefix(BEGIN) {
        return Some(rest);
    }
    text.split_once("\n-----BEGIN ").map(|(_, rest)| rest)
}

/// A block from its type on.
fn block(text: &str) -> Option<Block<'_>> {
    let (line, body) = text.split_once('\n')?;
    let kind = line.trim_end().strip_suffix("-----")?;
    let (body, rest) = body.split_once("-----END ")?;
    let (end, rest) = rest.split_once('\n').unwrap_or((rest, ""));
    if end.trim_end().strip_suffix("-----")? != kind {
        return None;
    }
    let (headers, content) = match body.split_once("\n\n") {
        Some((headers, content)) if headers.contains(':') => (headers, content),
        _ => ("", body),
    };
    let content: String = content.split_ascii_whitespace().collect();
    let content = STANDARD.decode(content).ok()?;
    Some(Block { kind, has_headers: !headers.is_empty(), content, rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_one_after_the_other() {
        let text = "x\n-----BEGIN A-----\nnot base64!\n-----END A-----\n-----BEGIN B-----\nK: v\n\nAg==\n-----END B-----\n-----BEGIN C-----\r\nAg==\r\n-----END C-----";
        let b = first(text).unwrap();
        assert_eq!((b.kind, b.has_headers), ("B", true));
        let c = Block { kind: "C", has_headers: false, content: vec![2], rest: "" };
        assert_eq!(first(b.rest), Some(c));
        assert_eq!(first("-----BEGIN A-----\nAg==\n-----END B-----\n"), None);
    }
}

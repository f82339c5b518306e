//! Base64 as Go's `base64.StdEncoding` reads it: padded, line ends skipped.

use crate::Str;

/// Where the text stops being base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("illegal base64 data at input byte {at}")]
pub struct Base64Error {
    pub at: usize,
}

fn sextet(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The form in which the same bytes are written: `None` when the text is in it already.
pub(super) fn canonicalize(text: &str) -> Result<Option<Str>, Base64Error> {
    let bytes = text.as_bytes();
    let line_end = |&(_, byte): &(usize, &u8)| !matches!(byte, b'\r' | b'\n');
    let mut rest = bytes.iter().enumerate().filter(line_end);
    let (mut in_quantum, mut last, mut padding) = (0, 0, 0);
    for (at, &byte) in rest.by_ref() {
        match sextet(byte) {
            Some(bits) => {
                in_quantum = (in_quantum + 1) % 4;
                last = bits;
            }
            None if byte == b'=' && in_quantum >= 2 => {
                padding = 1;
                break;
            }
            None => return Err(Base64Error { at }),
        }
    }
    if padding == 0 && in_quantum != 0 {
        return Err(Base64Error { at: bytes.len() - in_quantum });
    }
    if padding > 0 && in_quantum == 2 {
        match rest.next() {
            Some((_, b'=')) => padding = 2,
            Some((at, _)) => return Err(Base64Error { at: at - 1 }),
            None => return Err(Base64Error { at: bytes.len() }),
        }
    }
    if let Some((at, _)) = rest.next() {
        return Err(Base64Error { at });
    }
    // The last sextet carries bits that belong to no byte; Go reads them as zero.
    let unused = [0, 0b11, 0b1111][padding];
    if last & unused == 0 && !text.contains(['\r', '\n']) {
        return Ok(None);
    }
    let mut plain: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    if padding > 0 {
        plain.truncate(plain.len() - padding - 1);
        plain.push(char::from(ALPHABET[usize::from(last & !unused)]));
        plain.push_str(&"=="[..padding]);
    }
    Ok(Some(plain.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_text_stays_and_loose_text_is_tidied() {
        for (text, canonical) in [
            ("", None),
            ("dg==", None),
            ("dmE=", None),
            ("dmFs", None),
            ("dm\nFs\r\n", Some("dmFs")),
            ("dh==", Some("dg==")),
            ("dmF=", Some("dmE=")),
        ] {
            assert_eq!(canonicalize(text).unwrap().as_deref(), canonical, "{text:?}");
        }
    }

    #[test]
    fn the_error_names_the_byte() {
        for (text, at) in [
            ("***", 0),
            ("dg=", 3),
            ("dg", 0),
            ("dmFs!", 4),
            ("=", 0),
            ("dg==x", 4),
            ("dgx", 0),
            ("dmFsd", 4),
        ] {
            assert_eq!(canonicalize(text), Err(Base64Error { at }), "{text:?}");
        }
    }
}

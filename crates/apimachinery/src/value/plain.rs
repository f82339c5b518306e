//! Hot path: where the bytes of a JSON string stop standing for themselves.

const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);

/// How many bytes from the start are neither `"`, `\` nor a control character.
pub(crate) fn plain_len(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        if let Some(at) = first_special(*word) {
            return index * 8 + at;
        }
    }
    let Some((before, last)) = bytes.split_last_chunk::<8>().filter(|_| !rest.is_empty()) else {
        return words.len() * 8 + rest.iter().take_while(|byte| is_plain(**byte)).count();
    };
    // What of the last eight bytes was looked at already is plain.
    first_special(*last).map_or(bytes.len(), |at| before.len() + at)
}

fn is_plain(byte: u8) -> bool {
    !matches!(byte, 0..0x20 | b'"' | b'\\')
}

fn first_special(word: [u8; 8]) -> Option<usize> {
    let special = specials(u64::from_le_bytes(word));
    (special != 0).then(|| special.trailing_zeros() as usize / 8)
}

/// The high bit of the first byte that is special, and of none before it. Those after it may be set for nothing: a
/// subtraction borrows from the next byte.
fn specials(word: u64) -> u64 {
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = is_zero(word ^ (ONES * u64::from(b'"')));
    let backslash = is_zero(word ^ (ONES * u64::from(b'\\')));
    (control | quote | backslash) & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_special_byte_is_found_wherever_it_stands() {
        for special in (0..0x20).chain([b'"', b'\\']) {
            for length in 0..40 {
                for at in 0..length {
                    let mut bytes = vec![b'a'; length];
                    bytes[at] = special;
                    // What follows must not matter.
                    bytes[at + 1..].fill(b'"');
                    assert_eq!(plain_len(&bytes), at, "{special} in {length} bytes");
                }
            }
        }
    }

    #[test]
    fn everything_else_is_plain() {
        for byte in (0x20..=0xff).filter(|byte| !matches!(byte, b'"' | b'\\')) {
            for length in 0..40 {
                assert_eq!(plain_len(&vec![byte; length]), length, "{byte}");
            }
        }
    }
}

//! Hashes as they stand in names and labels of what controllers make. Pure.

use api::view::PodTemplate;
use apimachinery::Value;

/// Upstream's alphabet of safe suffixes: neither vowels nor look-alikes.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// The hash of a template, told apart from those it collided with. It differs from upstream's in value, not in form;
/// what came from elsewhere is recognised by its template.
pub fn of_template(template: &PodTemplate, collisions: Option<i32>) -> String {
    let mut bytes = Vec::with_capacity(1024);
    template.bare().write_json(&mut bytes);
    if let Some(collisions) = collisions {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    safe_suffix(bytes.iter().fold(FNV_OFFSET, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(FNV_PRIME)))
}

/// The hash of a ControllerRevision's data, upstream's value: FNV-1 over the JSON and the digits of the collisions.
pub fn of_data(data: &Value, collisions: i32) -> String {
    let mut bytes = data.to_json();
    bytes.extend_from_slice(collisions.to_string().as_bytes());
    safe_suffix(bytes.iter().fold(FNV_OFFSET, |hash, byte| hash.wrapping_mul(FNV_PRIME) ^ u32::from(*byte)))
}

/// A number's digits, each as a letter of the alphabet.
fn safe_suffix(number: u32) -> String {
    number
        .to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

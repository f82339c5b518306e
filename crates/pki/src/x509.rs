//! Writes X.509 version 3 certificates (RFC 5280) and requests for them, the few forms that a cluster needs.
//!
//! Why not a certificate library? A client's groups are several O attributes in one subject; the libraries at hand
//! keep one value per attribute type.

use std::net::IpAddr;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, DERWriterSeq, DERWriterSet, Tag};

use crate::Error;
use crate::key::KeyPair;

const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const EC_PUBLIC_KEY: &[u64] = &[1, 2, 840, 10045, 2, 1];
const P256: &[u64] = &[1, 2, 840, 10045, 3, 1, 7];
const ECDSA_WITH_SHA256: &[u64] = &[1, 2, 840, 10045, 4, 3, 2];
const SUBJECT_KEY_IDENTIFIER: &[u64] = &[2, 5, 29, 14];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY_IDENTIFIER: &[u64] = &[2, 5, 29, 35];
/// The attribute of a request that holds the extensions it wants (PKCS #9).
const EXTENSION_REQUEST: &[u64] = &[1, 2, 840, 113549, 1, 9, 14];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
pub(crate) const SERVER_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
pub(crate) const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];

/// Bits of the key usage extension; RFC 5280 counts them from the highest.
pub(crate) const DIGITAL_SIGNATURE: u16 = key_usage_bit(0);
const SIGN_CERTIFICATES: u16 = DIGITAL_SIGNATURE | key_usage_bit(5) | key_usage_bit(6);

pub(crate) const fn key_usage_bit(index: u16) -> u16 {
    0x8000 >> index
}

/// 16 random bytes make serial numbers that nobody guesses and that never meet.
const SERIAL_LEN: usize = 16;
/// Key identifiers are the first 20 bytes of the key's SHA-256 (RFC 7093, method 1).
const KEY_IDENTIFIER_LEN: usize = 20;
const PEM_LINE: usize = 64;

/// A distinguished name, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(Vec<u8>);

impl Name {
    pub fn new(common_name: &str, organizations: &[&str]) -> Self {
        Self(yasna::construct_der(|writer| {
            writer.write_sequence(|rdns| {
                for organization in organizations {
                    write_attribute(rdns.next(), ORGANIZATION, organization);
                }
                write_attribute(rdns.next(), COMMON_NAME, common_name);
            });
        }))
    }

    /// As it stands in a certificate.
    pub fn from_der(der: &[u8]) -> Self {
        Self(der.to_vec())
    }
}

fn write_attribute(writer: DERWriter<'_>, kind: &[u64], value: &str) {
    writer.write_set(|set| {
        set.next().write_sequence(|attribute| {
            write_oid(attribute.next(), kind);
            attribute.next().write_utf8_string(value);
        });
    });
}

fn write_oid(writer: DERWriter<'_>, components: &[u64]) {
    writer.write_oid(&ObjectIdentifier::from_slice(components));
}

pub(crate) enum AltName<'a> {
    Dns(&'a str),
    Ip(IpAddr),
    Email(&'a str),
    Uri(&'a str),
}

pub(crate) enum Extensions<'a> {
    Authority,
    Leaf { key_usage: u16, purposes: Vec<&'static [u64]>, alt_names: Vec<AltName<'a>> },
}

/// All that a certificate says.
pub(crate) struct Template<'a> {
    pub issuer: &'a Name,
    pub issuer_key: &'a KeyPair,
    pub subject: &'a Name,
    /// The encoded `SubjectPublicKeyInfo`, and the key in it.
    pub public_key_info: &'a [u8],
    pub public_key: &'a [u8],
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub extensions: Extensions<'a>,
}

/// All that a request for a certificate says (PKCS #10, RFC 2986).
pub(crate) struct Request<'a> {
    pub subject: &'a Name,
    pub key: &'a KeyPair,
    pub alt_names: Vec<AltName<'a>>,
}

impl Request<'_> {
    /// Encoded, and signed with the key that is to be certified.
    pub fn sign(&self) -> Result<Vec<u8>, Error> {
        let to_be_signed = yasna::construct_der(|writer| {
            writer.write_sequence(|parts| {
                parts.next().write_u8(0);
                parts.next().write_der(&self.subject.0);
                parts.next().write_der(&self.key.public_key_info());
                parts.next().write_tagged_implicit(Tag::context(0), |attributes| {
                    attributes.write_set(|list| self.write_attributes(list));
                });
            });
        });
        signed(&to_be_signed, self.key)
    }

    fn write_attributes(&self, list: &mut DERWriterSet<'_>) {
        if self.alt_names.is_empty() {
            return;
        }
        list.next().write_sequence(|attribute| {
            write_oid(attribute.next(), EXTENSION_REQUEST);
            attribute.next().write_set(|values| {
                values.next().write_sequence(|extensions| {
                    write_extension(extensions, SUBJECT_ALT_NAME, false, |value| {
                        write_alt_names(value, &self.alt_names);
                    });
                });
            });
        });
    }
}

/// What is signed, followed by its signature.
fn signed(to_be_signed: &[u8], key: &KeyPair) -> Result<Vec<u8>, Error> {
    let signature = key.sign(to_be_signed)?;
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence(|parts| {
            parts.next().write_der(to_be_signed);
            write_signature_algorithm(parts.next());
            parts.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    }))
}

impl Template<'_> {
    pub fn sign(&self) -> Result<CertificateDer<'static>, Error> {
        let to_be_signed = self.to_be_signed()?;
        let certificate = signed(&to_be_signed, self.issuer_key)?;
        Ok(CertificateDer::from(certificate))
    }

    fn to_be_signed(&self) -> Result<Vec<u8>, Error> {
        let serial = random_serial()?;
        let (not_before, not_after) = (time_der(self.not_before)?, time_der(self.not_after)?);
        Ok(yasna::construct_der(|writer| {
            writer.write_sequence(|parts| {
                parts.next().write_tagged(Tag::context(0), |version| version.write_u8(2));
                parts.next().write_bigint_bytes(&serial, true);
                write_signature_algorithm(parts.next());
                parts.next().write_der(&self.issuer.0);
                parts.next().write_sequence(|validity| {
                    validity.next().write_der(&not_before);
                    validity.next().write_der(&not_after);
                });
                parts.next().write_der(&self.subject.0);
                parts.next().write_der(self.public_key_info);
                parts.next().write_tagged(Tag::context(3), |extensions| {
                    extensions.write_sequence(|list| self.write_extensions(list));
                });
            });
        }))
    }

    fn write_extensions(&self, list: &mut DERWriterSeq<'_>) {
        match &self.extensions {
            Extensions::Authority => {
                write_extension(list, KEY_USAGE, true, |value| write_key_usage(value, SIGN_CERTIFICATES));
                write_extension(list, BASIC_CONSTRAINTS, true, |value| {
                    value.write_sequence(|parts| parts.next().write_bool(true));
                });
            }
            Extensions::Leaf { key_usage, purposes, alt_names } => {
                write_extension(list, KEY_USAGE, true, |value| write_key_usage(value, *key_usage));
                if !purposes.is_empty() {
                    write_extension(list, EXTENDED_KEY_USAGE, false, |value| {
                        value.write_sequence(|oids| {
                            purposes.iter().for_each(|purpose| write_oid(oids.next(), purpose));
                        });
                    });
                }
                write_extension(list, BASIC_CONSTRAINTS, true, |value| value.write_sequence(|_| ()));
                write_extension(list, AUTHORITY_KEY_IDENTIFIER, false, |value| {
                    value.write_sequence(|parts| {
                        let identifier = key_identifier(self.issuer_key.public_key());
                        let tag = Tag::context(0);
                        parts.next().write_tagged_implicit(tag, |id| id.write_bytes(&identifier));
                    });
                });
                if !alt_names.is_empty() {
                    write_extension(list, SUBJECT_ALT_NAME, false, |value| write_alt_names(value, alt_names));
                }
            }
        }
        write_extension(list, SUBJECT_KEY_IDENTIFIER, false, |value| {
            value.write_bytes(&key_identifier(self.public_key));
        });
    }
}

fn write_extension(
    list: &mut DERWriterSeq<'_>,
    oid: &[u64],
    critical: bool,
    value: impl FnOnce(DERWriter<'_>),
) {
    list.next().write_sequence(|extension| {
        write_oid(extension.next(), oid);
        // DER leaves out what has its default value.
        if critical {
            extension.next().write_bool(true);
        }
        extension.next().write_bytes(&yasna::construct_der(value));
    });
}

fn write_key_usage(writer: DERWriter<'_>, bits: u16) {
    // DER leaves out the zeros at the end.
    let len = 16 - bits.trailing_zeros().min(16) as usize;
    writer.write_bitvec_bytes(&bits.to_be_bytes()[..len.div_ceil(8)], len);
}

fn write_alt_names(writer: DERWriter<'_>, names: &[AltName<'_>]) {
    writer.write_sequence(|list| {
        for name in names {
            let writer = list.next();
            match name {
                AltName::Email(text) => write_text(writer, 1, text),
                AltName::Dns(text) => write_text(writer, 2, text),
                AltName::Uri(text) => write_text(writer, 6, text),
                AltName::Ip(IpAddr::V4(ip)) => write_address(writer, &ip.octets()),
                AltName::Ip(IpAddr::V6(ip)) => write_address(writer, &ip.octets()),
            }
        }
    });
}

fn write_text(writer: DERWriter<'_>, tag: u64, text: &str) {
    writer.write_tagged_implicit(Tag::context(tag), |name| name.write_ia5_string(text));
}

fn write_address(writer: DERWriter<'_>, octets: &[u8]) {
    writer.write_tagged_implicit(Tag::context(7), |name| name.write_bytes(octets));
}

fn write_signature_algorithm(writer: DERWriter<'_>) {
    writer.write_sequence(|algorithm| write_oid(algorithm.next(), ECDSA_WITH_SHA256));
}

/// A P-256 public key in the form `SubjectPublicKeyInfo`.
pub(crate) fn public_key_info(point: &[u8]) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|parts| {
            parts.next().write_sequence(|algorithm| {
                write_oid(algorithm.next(), EC_PUBLIC_KEY);
                write_oid(algorithm.next(), P256);
            });
            parts.next().write_bitvec_bytes(point, point.len() * 8);
        });
    })
}

fn key_identifier(point: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, point).as_ref()[..KEY_IDENTIFIER_LEN].to_vec()
}

fn random_serial() -> Result<[u8; SERIAL_LEN], Error> {
    let mut serial = [0; SERIAL_LEN];
    SystemRandom::new()
        .fill(&mut serial)
        .map_err(|_| Error::Crypto { operation: "drawing a serial number" })?;
    // Positive, and of full length.
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

/// `UTCTime` up to 2049, `GeneralizedTime` from 2050 on, as RFC 5280 has it.
fn time_der(time: SystemTime) -> Result<Vec<u8>, Error> {
    let time = jiff::Timestamp::try_from(time).map_err(|error| Error::Time(error.to_string()))?;
    let civil = time.to_zoned(jiff::tz::TimeZone::UTC);
    let (tag, text) = match civil.year() {
        1950..=2049 => (0x17, civil.strftime("%y%m%d%H%M%SZ").to_string()),
        0..=9999 => (0x18, civil.strftime("%Y%m%d%H%M%SZ").to_string()),
        _ => return Err(Error::Time(time.to_string())),
    };
    let mut der = vec![tag, text.len() as u8];
    der.extend_from_slice(text.as_bytes());
    Ok(der)
}

/// A PEM section.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(PEM_LINE) {
        text.extend(line.iter().copied().map(char::from));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn times_change_their_form_in_2050() {
        let der = |seconds| time_der(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        assert_eq!(der(0), b"\x17\x0d700101000000Z");
        assert_eq!(der(2_524_607_999), b"\x17\x0d491231235959Z");
        assert_eq!(der(2_524_608_000), b"\x18\x0f20500101000000Z");
        assert!(time_der(UNIX_EPOCH + Duration::from_secs(1 << 40)).is_err());
    }

    #[test]
    fn pem_lines_are_of_64_characters() {
        let text = pem("X", &[0; 49]);
        assert_eq!(text, format!("-----BEGIN X-----\n{}\nAA==\n-----END X-----\n", "A".repeat(64)),);
    }
}

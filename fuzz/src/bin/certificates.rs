//! Certificates and requests for them: good ones with some bytes written over.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pki::{Authority, SigningRequest};
use rustls_pki_types::CertificateDer;

/// A request that OpenSSL made, for `CN=jane,O=dev` with a name of each sort.
const REQUEST: &[u8] = include_bytes!("../../seeds/request.der");

struct Good {
    _folder: tempfile::TempDir,
    authority: Authority,
    certificate: Vec<u8>,
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

static GOOD: LazyLock<Good> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = camino::Utf8Path::from_path(folder.path()).expect("a UTF-8 path");
    let authority = Authority::load_or_create(path, now()).expect("keys");
    let issued =
        authority.issue_client("jane", &["dev"], Duration::from_secs(3600), now()).expect("a certificate");
    let certificate = issued.certificate_der().to_vec();
    Good { _folder: folder, authority, certificate }
});

libfuzzer_sys::fuzz_target!(|input: (u16, &[u8])| {
    let (at, over) = input;
    let _ = SigningRequest::from_pem(&pem("CERTIFICATE REQUEST", &written_over(REQUEST, at, over)));
    let _ = SigningRequest::from_pem(over);
    let certificate = written_over(&GOOD.certificate, at, over);
    let _ = pki::not_after(&pem("CERTIFICATE", &certificate));
    let verifier = pki::ClientVerifier::new(GOOD.authority.ca_der()).expect("a verifier");
    let identity = verifier.verify(&[CertificateDer::from(certificate.clone())], now());
    assert!(identity.is_err() || certificate == GOOD.certificate, "nobody has signed it");
    let _ = pki::ClientVerifier::from_pem(&pem("CERTIFICATE", &certificate));
});

fn written_over(good: &[u8], at: u16, over: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    let at = usize::from(at) % bytes.len();
    let end = bytes.len().min(at + over.len());
    bytes[at..end].copy_from_slice(&over[..end - at]);
    bytes
}

fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der)).into_bytes()
}

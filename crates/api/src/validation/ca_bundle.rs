//! The certificate authorities that somebody trusts with a webhook, and what is wrong with them in Go's words.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::parse_x509_certificate;

use super::pem;

/// What is wrong with a `caBundle`, which is PEM; nothing at all is fine, and one good certificate is enough.
pub fn problem(bundle: &[u8]) -> Option<String> {
    if bundle.is_empty() {
        return None;
    }
    let text = String::from_utf8_lossy(bundle);
    let mut rest = &*text;
    let mut complaint = None;
    while !rest.is_empty() {
        let Some(block) = pem::first(rest) else {
            complaint.get_or_insert("unable to parse bytes as PEM block");
            break;
        };
        rest = block.rest;
        if block.kind != pem::CERTIFICATE || block.has_headers {
            continue;
        }
        if matches!(parse_x509_certificate(&block.content), Ok((rest, _)) if rest.is_empty()) {
            return None;
        }
        complaint.get_or_insert("failed to parse certificate: x509: malformed certificate");
    }
    let complaint = complaint.unwrap_or("no valid certificate authority data seen");
    Some(format!("unable to load root certificates: {complaint}"))
}

/// A `caBundle` as it stands in JSON.
pub fn decoded(base64: &str) -> Vec<u8> {
    STANDARD.decode(base64).unwrap_or_default()
}

/// As Go prints bytes.
pub fn shown(bundle: &[u8]) -> String {
    let bytes: Vec<String> = bundle.iter().map(|byte| format!("{byte:#x}")).collect();
    format!("[]byte{{{}}}", bytes.join(", "))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A certificate of nobody.
    pub(crate) const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBcDCCARegAwIBAgIUPqN4Kl0yFRgvWy5MUrz1Ga2nF0UwCgYIKoZIzj0EAwIw\n\
        DTELMAkGA1UEAwwCY2EwIBcNMjYxMTI4MTg0ODE5WhgPMjEyNjExMDQxODQ4MTla\n\
        MA0xCzAJBgNVBAMMAmNhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAERRnJA7Np\n\
        v11cNKWmt440AmupV2rNLv9dCDSAfzCkOA3IwOuyBB1copxOQkZlmMirrpbsqRfW\n\
        fX1fGBSgGWOR16NTMFEwHQYDVR0OBBYEFEylHqyFXe61Lc9IjuEMi3v4apa0MB8G\n\
        A1UdIwQYMBaAFEylHqyFXe61Lc9IjuEMi3v4apa0MA8GA1UdEwEB/wQFMAMBAf8w\n\
        CgYIKoZIzj0EAwIDRwAwRAIgBt0VyosSBP0KmgxnHIhAz0GdJ5gmtYcKQEhu985b\n\
        vyoCICJLGK7OeD11Y1Lq2F76KNIikwYM0tFWsydz0/4f61GJ\n\
        -----END CERTIFICATE-----\n";

    #[test]
    fn one_good_certificate_is_enough() {
        let bad = "-----BEGIN CERTIFICATE-----\nAg==\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nAg==\n-----END PRIVATE KEY-----\n";
        let roots = |why: &str| Some(format!("unable to load root certificates: {why}"));
        for (bundle, problem) in [
            ("", None),
            (CERTIFICATE, None),
            (&format!("{bad}{key}{CERTIFICATE}rubbish"), None),
            ("rubbish", roots("unable to parse bytes as PEM block")),
            ("\n", roots("unable to parse bytes as PEM block")),
            (bad, roots("failed to parse certificate: x509: malformed certificate")),
            (key, roots("no valid certificate authority data seen")),
            (&format!("{key}\n"), roots("unable to parse bytes as PEM block")),
        ] {
            assert_eq!(super::problem(bundle.as_bytes()), problem, "{bundle:?}");
        }
        assert_eq!(shown(b"\nz"), "[]byte{0xa, 0x7a}");
    }
}

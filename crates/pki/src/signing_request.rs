//! Requests for certificates (PKCS #10), as CertificateSigningRequest objects carry them.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use x509_parser::prelude::{
    FromDer, GeneralName, ParsedExtension, X509Certificate, X509CertificationRequest,
};

use crate::x509::{AltName, CLIENT_AUTH, Name, SERVER_AUTH, key_usage_bit};
use crate::{Authority, Error};

/// Kubernetes' names for the bits of the key usage extension, in the order of the bits.
const KEY_USAGES: [&str; 9] = [
    "digital signature",
    "content commitment",
    "key encipherment",
    "data encipherment",
    "key agreement",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
];

/// Kubernetes' names for the purposes of the extended key usage extension.
const PURPOSES: [(&str, &[u64]); 13] = [
    ("any", &[2, 5, 29, 37, 0]),
    ("server auth", SERVER_AUTH),
    ("client auth", CLIENT_AUTH),
    ("code signing", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    ("netscape sgc", &[2, 16, 840, 1, 113730, 4, 1]),
];

/// What a certificate may be used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usages {
    pub(crate) key_usage: u16,
    pub(crate) purposes: Vec<&'static [u64]>,
}

impl Usages {
    /// From the names in a CertificateSigningRequest's `spec.usages`.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let mut usages = Self { key_usage: 0, purposes: Vec::new() };
        for name in names {
            // Two names for one bit.
            let name = if name == "signing" { "digital signature" } else { name };
            if let Some(index) = KEY_USAGES.iter().position(|usage| *usage == name) {
                usages.key_usage |= key_usage_bit(index as u16);
            } else if let Some((_, purpose)) = PURPOSES.iter().find(|(purpose, _)| *purpose == name) {
                if !usages.purposes.contains(purpose) {
                    usages.purposes.push(purpose);
                }
            } else {
                return Err(Error::UnknownUsage(name.to_owned()));
            }
        }
        Ok(usages)
    }
}

/// A request whose signature is good: who sent it holds the key.
#[derive(Clone, Debug)]
pub struct SigningRequest {
    name: Name,
    public_key_info: Vec<u8>,
    public_key: Vec<u8>,
    /// The subject's CN; empty if it has none.
    pub user: String,
    /// The subject's O's.
    pub groups: Vec<String>,
    pub dns_names: Vec<String>,
    pub ips: Vec<IpAddr>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
}

impl SigningRequest {
    /// Reads a request from the PEM that stands, in base64, in a CertificateSigningRequest's `spec.request`.
    ///
    /// Fails if there is none, or the signature is not that of the key in it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem)
            .map_err(|error| bad(format!("it holds no PEM section CERTIFICATE REQUEST ({error})")))?;
        let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|error| bad(error.to_string()))?;
        parsed.verify_signature().map_err(|error| bad(format!("its signature: {error}")))?;
        let info = &parsed.certification_request_info;
        let text = |what: &'static str| move |_| bad(format!("its subject has {what} that is no text"));
        let user = info.subject.iter_common_name().next().map(|name| name.as_str()).transpose();
        let groups = info.subject.iter_organization().map(|group| group.as_str().map(str::to_owned));
        let mut request = Self {
            name: Name::from_der(info.subject.as_raw()),
            public_key_info: info.subject_pki.raw.to_vec(),
            public_key: info.subject_pki.subject_public_key.data.to_vec(),
            user: user.map_err(text("a CN"))?.unwrap_or_default().to_owned(),
            groups: groups.collect::<Result<_, _>>().map_err(text("an O"))?,
            dns_names: Vec::new(),
            ips: Vec::new(),
            emails: Vec::new(),
            uris: Vec::new(),
        };
        for extension in parsed.requested_extensions().into_iter().flatten() {
            // Other extensions, such as wanting to be an authority, are not granted.
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().try_for_each(|name| request.add_alt_name(name))?;
            }
        }
        Ok(request)
    }

    fn add_alt_name(&mut self, name: &GeneralName<'_>) -> Result<(), Error> {
        match name {
            GeneralName::DNSName(host) => self.dns_names.push((*host).to_owned()),
            GeneralName::RFC822Name(email) => self.emails.push((*email).to_owned()),
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::IPAddress(octets) => self.ips.push(read_ip(octets)?),
            other => return Err(bad(format!("{other} is not supported as a subject alternative name"))),
        }
        Ok(())
    }

    pub(crate) fn subject(&self) -> &Name {
        &self.name
    }

    pub(crate) fn public_key_info(&self) -> &[u8] {
        &self.public_key_info
    }

    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    pub(crate) fn alt_names(&self) -> Vec<AltName<'_>> {
        let dns = self.dns_names.iter().map(|host| AltName::Dns(host));
        let ips = self.ips.iter().copied().map(AltName::Ip);
        let emails = self.emails.iter().map(|email| AltName::Email(email));
        let uris = self.uris.iter().map(|uri| AltName::Uri(uri));
        dns.chain(ips).chain(emails).chain(uris).collect()
    }
}

/// Makes the certificates that CertificateSigningRequests ask for: what a controller needs of an authority, and all it
/// gets to see of its key.
pub trait Signer: Send + Sync {
    /// The certificate in PEM. Whether it may be given is for the caller to say.
    fn sign(
        &self,
        request: &SigningRequest,
        usages: &Usages,
        validity: Duration,
        now: SystemTime,
    ) -> Result<String, Error>;
}

impl Signer for Authority {
    fn sign(
        &self,
        request: &SigningRequest,
        usages: &Usages,
        validity: Duration,
        now: SystemTime,
    ) -> Result<String, Error> {
        self.sign_request(request, usages, validity, now)
    }
}

/// When the first certificate in a PEM text ends; `None` if there is none.
pub fn not_after(pem: &[u8]) -> Option<SystemTime> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let seconds = certificate.validity().not_after.timestamp();
    Some(UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0)))
}

pub(crate) fn read_ip(octets: &[u8]) -> Result<IpAddr, Error> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .map_err(|_| bad("an address in it is neither IPv4 nor IPv6".to_owned()))
}

fn bad(problem: String) -> Error {
    Error::SigningRequest(problem)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use camino::Utf8Path;

    use super::*;

    /// Made with OpenSSL: CN=jane, O=dev, O=ops; jane.example, 10.0.0.1; and CA:TRUE, which nobody gets.
    const REQUEST: &str = include_str!("../testdata/jane.csr");

    fn authority() -> (tempfile::TempDir, Authority) {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap();
        let authority =
            Authority::load_or_create(path, UNIX_EPOCH + Duration::from_secs(1_800_000_000)).unwrap();
        (directory, authority)
    }

    #[test]
    fn a_request_says_who_and_where() {
        let request = SigningRequest::from_pem(REQUEST.as_bytes()).unwrap();
        assert_eq!((request.user.as_str(), request.groups.join(",").as_str()), ("jane", "dev,ops"));
        assert_eq!(request.dns_names, ["jane.example"]);
        assert_eq!(request.ips, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn a_signed_request_is_an_identity_and_no_authority() {
        let (_keep, authority) = authority();
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let request = SigningRequest::from_pem(REQUEST.as_bytes()).unwrap();
        let usages = Usages::from_names(["digital signature", "key encipherment", "client auth"]).unwrap();
        let pem = authority.sign_request(&request, &usages, Duration::from_secs(3600), now).unwrap();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        assert!(!parsed.is_ca());
        let usage = parsed.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        let identity = authority.client_verifier().unwrap().verify(std::slice::from_ref(&der), now).unwrap();
        assert_eq!((identity.user.as_str(), identity.groups.join(",").as_str()), ("jane", "dev,ops"));
        // Without the purpose of a client it is none.
        let usages = Usages::from_names(["server auth"]).unwrap();
        let pem = authority.sign_request(&request, &usages, Duration::from_secs(3600), now).unwrap();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        assert!(authority.client_verifier().unwrap().verify(&[der], now).is_err());
    }

    #[test]
    fn a_changed_request_is_refused() {
        let der = CertificateSigningRequestDer::from_pem_slice(REQUEST.as_bytes()).unwrap();
        let mut changed = der.to_vec();
        let at = changed.windows(4).position(|window| window == b"jane").unwrap();
        changed[at..at + 4].copy_from_slice(b"root");
        let pem = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode(&changed)
        );
        let error = SigningRequest::from_pem(pem.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("its signature"), "{error}");
        for text in
            ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"]
        {
            assert!(SigningRequest::from_pem(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn usages_are_those_of_the_api() {
        let usages = Usages::from_names(["signing", "decipher only", "client auth", "client auth"]).unwrap();
        assert_eq!((usages.key_usage, usages.purposes.len()), (0b1000_0000_1000_0000, 1));
        assert!(matches!(Usages::from_names(["x"]), Err(Error::UnknownUsage(_))));
    }
}

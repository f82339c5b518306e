//! Certificates that somebody else signs: a fresh key with the request (PKCS #10) for its certificate, and the pair of
//! both once the certificate has come.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use camino::Utf8Path;
use parking_lot::RwLock;
use ring::digest;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::files::{create_private_directory, read_if_present, write_private};
use crate::key::KeyPair;
use crate::signing_request::read_ip;
use crate::x509::{Name, Request, pem};
use crate::{Error, ServerNames};

const REMEDY: &str = "delete it to ask for another one";

/// A fresh key, and the request for a certificate of it.
pub struct CertificateRequest {
    /// PKCS #8.
    pub key_pem: String,
    /// What stands, in base64, in a CertificateSigningRequest's `spec.request`.
    pub request_pem: String,
}

impl CertificateRequest {
    /// Asks to be `user` in `groups`, and at `names` if it is for a listener.
    pub fn new(user: &str, groups: &[&str], names: &ServerNames) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let request =
            Request { subject: &Name::new(user, groups), key: &key, alt_names: names.subject_alt_names()? };
        Ok(Self { key_pem: key.to_pem(), request_pem: pem("CERTIFICATE REQUEST", &request.sign()?) })
    }
}

/// A certificate with those that lead to its authority, and its key. On disk, all in one file, so that one rename
/// replaces both.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyedCertificate {
    pub certificate_pem: String,
    pub key_pem: String,
    /// The subject's CN.
    pub user: String,
    /// The names and addresses in it.
    pub names: ServerNames,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl KeyedCertificate {
    /// Fails where one of the two is no PEM, or they do not belong together.
    pub fn new(certificate_pem: String, key_pem: String) -> Result<Self, Error> {
        let der = certificates(&certificate_pem).map_err(Error::Tls)?.swap_remove(0);
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| Error::Tls(error.to_string()))?;
        let user = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let time = |at: i64| UNIX_EPOCH + Duration::from_secs(at.try_into().unwrap_or(0));
        let pair = Self {
            user: user.unwrap_or_default().to_owned(),
            names: names(&parsed),
            not_before: time(parsed.validity().not_before.timestamp()),
            not_after: time(parsed.validity().not_after.timestamp()),
            certificate_pem,
            key_pem,
        };
        pair.certified_key()?;
        Ok(pair)
    }

    /// What [`KeyedCertificate::save`] wrote; `None` where there is no such file.
    pub fn load(path: &Utf8Path) -> Result<Option<Self>, Error> {
        let Some(text) = read_if_present(path)? else { return Ok(None) };
        let damaged = |problem: String| Error::Damaged { path: path.to_owned(), problem, remedy: REMEDY };
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|error| damaged(format!("it holds no private key ({error})")))?;
        let PrivateKeyDer::Pkcs8(key) = key else {
            return Err(damaged("its key is not in PKCS #8 form".to_owned()));
        };
        let certificates = certificates(&text).map_err(damaged)?;
        let certificate_pem = certificates.iter().map(|der| pem("CERTIFICATE", der)).collect();
        let pair = Self::new(certificate_pem, pem("PRIVATE KEY", key.secret_pkcs8_der()));
        pair.map(Some).map_err(|error| damaged(error.to_string()))
    }

    /// Writes both for the owner alone, whole or not at all. The folder is made if need be.
    pub fn save(&self, path: &Utf8Path) -> Result<(), Error> {
        if let Some(folder) = path.parent() {
            create_private_directory(folder)?;
        }
        write_private(path, format!("{}{}", self.certificate_pem, self.key_pem).as_bytes())
    }

    /// How long it is good for in all.
    pub fn life(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }

    fn certified_key(&self) -> Result<CertifiedKey, Error> {
        let tls = |problem: String| Error::Tls(problem);
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|error| tls(format!("the private key: {error}")))?;
        let key = any_supported_type(&key).map_err(|error| tls(format!("the private key: {error}")))?;
        let certified = CertifiedKey::new(certificates(&self.certificate_pem).map_err(tls)?, key);
        certified
            .keys_match()
            .map_err(|error| tls(format!("the certificate and its key do not match: {error}")))?;
        Ok(certified)
    }
}

impl std::fmt::Debug for KeyedCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        f.debug_struct("KeyedCertificate")
            .field("user", &self.user)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// What a listener shows whose certificate comes from elsewhere and is replaced while it serves. Before the first one
/// has come, handshakes are refused.
#[derive(Default)]
pub struct ShownCertificate(RwLock<Option<Arc<CertifiedKey>>>);

impl ShownCertificate {
    /// New connections see this one; open ones are left alone.
    pub fn show(&self, certificate: &KeyedCertificate) -> Result<(), Error> {
        let certified = certificate.certified_key()?;
        *self.0.write() = Some(Arc::new(certified));
        Ok(())
    }
}

impl ResolvesServerCert for ShownCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}

impl std::fmt::Debug for ShownCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShownCertificate").finish_non_exhaustive()
    }
}

/// The hashes by which authorities are pinned when a machine joins: `sha256:` and the SHA-256 of each certificate's
/// `SubjectPublicKeyInfo`, in hex, as kubeadm has it.
pub fn public_key_hashes(bundle_pem: &str) -> Result<Vec<String>, Error> {
    let hash = |der: &CertificateDer<'_>| {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| Error::Tls(error.to_string()))?;
        let digest = digest::digest(&digest::SHA256, parsed.public_key().raw);
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("sha256:{hex}"))
    };
    certificates(bundle_pem).map_err(Error::Tls)?.iter().map(hash).collect()
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match all {
        Ok(all) if all.is_empty() => Err("it holds no certificate".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("its certificate ({error})")),
    }
}

fn names(certificate: &X509Certificate<'_>) -> ServerNames {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let all = extension.iter().flat_map(|extension| &extension.value.general_names);
    all.fold(ServerNames::default(), |names, name| match name {
        GeneralName::DNSName(host) => names.with(host),
        GeneralName::IPAddress(octets) => match read_ip(octets) {
            Ok(ip) => names.with(&ip.to_string()),
            Err(_) => names,
        },
        _ => names,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, SigningRequest, Usages};

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn world() -> (tempfile::TempDir, Authority) {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap();
        let authority = Authority::load_or_create(&path.join("ca"), UNIX_EPOCH + NOW).unwrap();
        (directory, authority)
    }

    fn issued(authority: &Authority, names: &ServerNames) -> KeyedCertificate {
        let request = CertificateRequest::new("system:node:n", &["system:nodes", "more"], names).unwrap();
        let read = SigningRequest::from_pem(request.request_pem.as_bytes()).unwrap();
        assert_eq!(
            (read.user.as_str(), read.groups.join(",").as_str()),
            ("system:node:n", "system:nodes,more")
        );
        let usages = Usages::from_names(["digital signature", "client auth"]).unwrap();
        let life = Duration::from_secs(86_400);
        let certificate = authority.sign_request(&read, &usages, life, UNIX_EPOCH + NOW).unwrap();
        KeyedCertificate::new(certificate, request.key_pem).unwrap()
    }

    #[test]
    fn a_request_says_who_and_where() {
        let names = ServerNames::default().with("n.example").with("192.0.2.7").with("2001:db8::7");
        let request = CertificateRequest::new("a", &[], &names).unwrap();
        let read = SigningRequest::from_pem(request.request_pem.as_bytes()).unwrap();
        assert_eq!(read.dns_names, ["n.example"]);
        assert_eq!(
            read.ips.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["192.0.2.7", "2001:db8::7"]
        );
        let none = CertificateRequest::new("a", &[], &ServerNames::default()).unwrap();
        let read = SigningRequest::from_pem(none.request_pem.as_bytes()).unwrap();
        assert!(read.dns_names.is_empty() && read.ips.is_empty());
        assert!(CertificateRequest::new("a", &[], &ServerNames::default().with("no name")).is_err());
    }

    #[test]
    fn a_pair_is_kept_in_one_private_file() {
        let (directory, authority) = world();
        let path = Utf8Path::from_path(directory.path()).unwrap().join("kept/client.pem");
        assert_eq!(KeyedCertificate::load(&path).unwrap(), None);
        let pair = issued(&authority, &ServerNames::default());
        pair.save(&path).unwrap();
        assert_eq!(KeyedCertificate::load(&path).unwrap().as_ref(), Some(&pair));
        assert_eq!(pair.user, "system:node:n");
        assert!(pair.life() >= Duration::from_secs(86_000), "{:?}", pair.life());
        // A key of another certificate, and what is no PEM at all.
        let other = issued(&authority, &ServerNames::default());
        std::fs::write(&path, format!("{}{}", pair.certificate_pem, other.key_pem)).unwrap();
        let error = KeyedCertificate::load(&path).unwrap_err().to_string();
        assert!(error.contains("do not match") && error.contains(path.as_str()), "{error}");
        for damaged in ["", "x", &pair.key_pem, &pair.certificate_pem] {
            std::fs::write(&path, damaged).unwrap();
            let error = KeyedCertificate::load(&path).unwrap_err().to_string();
            assert!(error.contains("is damaged"), "{error}");
        }
    }

    #[test]
    fn authorities_are_pinned_by_their_keys() {
        let (_keep, authority) = world();
        let hashes = public_key_hashes(authority.ca_pem()).unwrap();
        let [hash] = hashes.as_slice() else { panic!("{hashes:?}") };
        let hex = hash.strip_prefix("sha256:").unwrap();
        assert!(hex.len() == 64 && hex.bytes().all(|c| c.is_ascii_hexdigit()), "{hash}");
        let (_keep, another) = world();
        assert_ne!(public_key_hashes(another.ca_pem()).unwrap(), hashes);
        assert!(public_key_hashes("nothing").is_err());
    }
}

//! The cluster's certificate authority on disk.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use camino::{Utf8Path, Utf8PathBuf};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificate::{Issuer, new_authority};
use crate::files::{create_private_directory, read_if_present, write_private};
use crate::key::KeyPair;
use crate::x509::{self, Name};
use crate::{
    ClientVerifier, Error, IssuedCertificate, ServerNames, ServingCertificate, SigningKeys, SigningRequest,
    Usages,
};

const CERTIFICATE_FILE: &str = "ca.crt";
const KEY_FILE: &str = "ca.key";
/// The authority's common name; kubeadm gives it the same.
const NAME: &str = "kubernetes";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_VALIDITY: Duration = DAY.saturating_mul(3650);
/// How long the administrator's certificate is good for.
const ADMIN_VALIDITY: Duration = DAY.saturating_mul(365);

/// The user of [`Authority::issue_admin`].
pub const ADMIN_USER: &str = "kubernetes-admin";
/// The group that may do everything, whatever RBAC says.
const MASTERS_GROUP: &str = "system:masters";

const RESTORE: &str = "restore it from a backup; or, to start over with a new authority and lose every certificate and \
                       token given out so far, move the whole directory away";
const HALF_WRITTEN: &str = "restore the missing file from a backup; or, if the very first start was interrupted here, \
                            delete the remaining one and start again";

/// The authority that signs every certificate of one cluster, and its service-account keys.
///
/// Files under its directory: `ca.crt`, `ca.key`, `service-account-keys.json`; 0600 in a directory of 0700.
pub struct Authority {
    issuer: Arc<Issuer>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    signing_keys: SigningKeys,
}

impl Authority {
    /// Loads the authority kept under `directory`, or makes one where there is none yet.
    ///
    /// Fails where files are damaged, half present or out of their time; it never makes a new key in place of one
    /// that was there.
    pub fn load_or_create(directory: &Utf8Path, now: SystemTime) -> Result<Self, Error> {
        create_private_directory(directory)?;
        let paths = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
        let (issuer, certificate) = match (read_if_present(&paths.0)?, read_if_present(&paths.1)?) {
            (Some(certificate), Some(key)) => load(&paths, &certificate, &key, now)?,
            (None, None) => create(&paths, now)?,
            (Some(_), None) => return Err(incomplete(&paths.1, &paths.0)),
            (None, Some(_)) => return Err(incomplete(&paths.0, &paths.1)),
        };
        Ok(Self {
            signing_keys: SigningKeys::load_or_create(directory, now)?,
            certificate_pem: x509::pem("CERTIFICATE", &certificate),
            certificate,
            issuer: Arc::new(issuer),
        })
    }

    /// The authority's certificate, for kubeconfigs and the ConfigMap `kube-root-ca.crt`.
    pub fn ca_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn ca_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// When the authority's own certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.issuer.not_after
    }

    /// A fresh serving certificate for `names`. It lives in memory only: a start makes a new one, so there is no
    /// stale certificate to look after, and no key of it on disk.
    pub fn serving_certificate(
        &self,
        names: ServerNames,
        now: SystemTime,
    ) -> Result<Arc<ServingCertificate>, Error> {
        ServingCertificate::issue(Arc::clone(&self.issuer), names, now).map(Arc::new)
    }

    /// A client certificate for `user` in `groups`.
    pub fn issue_client(
        &self,
        user: &str,
        groups: &[&str],
        validity: Duration,
        now: SystemTime,
    ) -> Result<IssuedCertificate, Error> {
        self.issuer.issue_client(user, groups, validity, now)
    }

    /// The administrator's certificate: user `kubernetes-admin`, group `system:masters`, one year.
    pub fn issue_admin(&self, now: SystemTime) -> Result<IssuedCertificate, Error> {
        self.issue_client(ADMIN_USER, &[MASTERS_GROUP], ADMIN_VALIDITY, now)
    }

    /// The certificate, in PEM, that a CertificateSigningRequest asks for. Whether it may have it is for others to say:
    /// approvers and the signer's own rules.
    pub fn sign_request(
        &self,
        request: &SigningRequest,
        usages: &Usages,
        validity: Duration,
        now: SystemTime,
    ) -> Result<String, Error> {
        self.issuer.sign_request(request, usages, validity, now)
    }

    /// Checks client certificates against this authority.
    pub fn client_verifier(&self) -> Result<ClientVerifier, Error> {
        ClientVerifier::new(&self.certificate)
    }

    /// The keys that sign service-account tokens.
    pub fn signing_keys(&self) -> &SigningKeys {
        &self.signing_keys
    }
}

fn incomplete(missing: &Utf8Path, present: &Utf8Path) -> Error {
    Error::Incomplete { missing: missing.to_owned(), present: present.to_owned(), remedy: HALF_WRITTEN }
}

fn create(
    (certificate_path, key_path): &(Utf8PathBuf, Utf8PathBuf),
    now: SystemTime,
) -> Result<(Issuer, CertificateDer<'static>), Error> {
    let (issuer, certificate) = new_authority(NAME, CA_VALIDITY, now)?;
    write_private(key_path, issuer.key.to_pem().as_bytes())?;
    write_private(certificate_path, x509::pem("CERTIFICATE", &certificate).as_bytes())?;
    Ok((issuer, certificate))
}

fn load(
    (certificate_path, key_path): &(Utf8PathBuf, Utf8PathBuf),
    certificate: &str,
    key: &str,
    now: SystemTime,
) -> Result<(Issuer, CertificateDer<'static>), Error> {
    let damaged =
        |path: &Utf8Path, problem| Error::Damaged { path: path.to_owned(), problem, remedy: RESTORE };
    let key = KeyPair::from_pem(key).map_err(|problem| damaged(key_path, problem))?;
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|error| {
        damaged(certificate_path, format!("it holds no PEM section CERTIFICATE ({error})"))
    })?;
    let facts = Facts::read(&certificate).map_err(|problem| damaged(certificate_path, problem))?;
    if facts.public_key != key.public_key() {
        return Err(damaged(certificate_path, format!("it does not belong to the key in {key_path}")));
    }
    if now < facts.not_before || now >= facts.not_after {
        return Err(Error::NotValidNow {
            path: certificate_path.clone(),
            problem: facts.validity,
            remedy: "set this machine's clock right; or, if the authority has come to its end, move the whole \
                     directory away to start over with a new one",
        });
    }
    Ok((Issuer { name: facts.subject, key, not_after: facts.not_after }, certificate))
}

/// What is read back from an authority's certificate.
struct Facts {
    subject: Name,
    public_key: Vec<u8>,
    not_before: SystemTime,
    not_after: SystemTime,
    validity: String,
}

impl Facts {
    fn read(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| format!("it holds no X.509 certificate ({error})"))?;
        if !parsed.is_ca() {
            return Err("its certificate is not one of an authority (basicConstraints CA)".to_owned());
        }
        let validity = parsed.validity();
        Ok(Self {
            subject: Name::from_der(parsed.subject().as_raw()),
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
            not_before: system_time(validity.not_before.timestamp()),
            not_after: system_time(validity.not_after.timestamp()),
            validity: format!("it is valid from {} to {}", validity.not_before, validity.not_after),
        })
    }
}

/// Before 1970 counts as 1970: nothing here is that old.
fn system_time(unix_seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix_seconds.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Well after 1970 and before 2050.
    fn noon() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn directory() -> (tempfile::TempDir, Utf8PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap().join("pki");
        (directory, path)
    }

    #[test]
    fn a_second_start_finds_the_same_authority() {
        let (_keep, path) = directory();
        let first = Authority::load_or_create(&path, noon()).unwrap();
        let second = Authority::load_or_create(&path, noon() + DAY).unwrap();
        assert_eq!(first.ca_pem(), second.ca_pem());
        assert_eq!(first.not_after(), second.not_after());
        assert_eq!(first.signing_keys().current_key_id(), second.signing_keys().current_key_id());
        // A certificate of the reloaded authority is accepted by the first one.
        let client = second.issue_client("jane", &["a", "b"], DAY, noon() + DAY).unwrap();
        let identity = first
            .client_verifier()
            .unwrap()
            .verify(&[client.certificate_der().clone()], noon() + DAY)
            .unwrap();
        assert_eq!((identity.user.as_str(), identity.groups.join(",")), ("jane", "a,b".to_owned()));
    }

    #[test]
    fn damage_is_reported_with_the_file_and_a_way_out() {
        type Damage = fn(&Utf8Path);
        let cases: [(&str, Damage, &str); 6] = [
            ("no key", |path| fs::remove_file(path.join(KEY_FILE)).unwrap(), "ca.key is missing, but"),
            (
                "no certificate",
                |path| fs::remove_file(path.join(CERTIFICATE_FILE)).unwrap(),
                "ca.crt is missing",
            ),
            ("cut key", |path| cut(&path.join(KEY_FILE)), "ca.key is damaged: it holds no PEM section"),
            (
                "cut certificate",
                |path| cut(&path.join(CERTIFICATE_FILE)),
                "ca.crt is damaged: it holds no PEM",
            ),
            (
                "another key",
                |path| {
                    let key = KeyPair::generate().unwrap().to_pem();
                    fs::write(path.join(KEY_FILE), key).unwrap();
                },
                "it does not belong to the key in",
            ),
            (
                "cut token keys",
                |path| cut(&path.join("service-account-keys.json")),
                "service-account-keys.json is damaged",
            ),
        ];
        for (case, damage, expected) in cases {
            let (_keep, path) = directory();
            Authority::load_or_create(&path, noon()).unwrap();
            damage(&path);
            let error = Authority::load_or_create(&path, noon()).err().expect(case).to_string();
            assert!(error.contains(expected) && error.contains("; restore"), "{case}: {error}");
        }
    }

    fn cut(path: &Utf8Path) {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, &text[..text.len() / 2]).unwrap();
    }

    #[test]
    fn an_authority_out_of_its_time_does_not_start() {
        let (_keep, path) = directory();
        Authority::load_or_create(&path, noon()).unwrap();
        for now in [noon() - DAY, noon() + CA_VALIDITY] {
            let error = Authority::load_or_create(&path, now).err().expect("out of time");
            assert!(matches!(error, Error::NotValidNow { .. }), "{error}");
        }
    }

    #[test]
    fn a_certificate_does_not_outlive_its_authority() {
        let (_keep, path) = directory();
        let authority = Authority::load_or_create(&path, noon()).unwrap();
        let client = authority.issue_client("jane", &[], CA_VALIDITY * 2, noon()).unwrap();
        assert_eq!(client.not_after, authority.not_after());
    }

    #[test]
    fn a_client_needs_a_name() {
        let (_keep, path) = directory();
        let authority = Authority::load_or_create(&path, noon()).unwrap();
        assert!(authority.issue_client("", &[], DAY, noon()).is_err());
        assert!(authority.issue_client("jane", &[""], DAY, noon()).is_err());
    }
}

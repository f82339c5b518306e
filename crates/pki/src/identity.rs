//! From a client's certificate chain to who the client is.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::digest;
use rustls::RootCertStore;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::Error;

/// The subject attribute that upstream reads a user's uid from: 1.3.6.1.4.1.57683.2.
const UID_ATTRIBUTE: &[u64] = &[1, 3, 6, 1, 4, 1, 57683, 2];

/// Who a verified client certificate speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The subject's CN.
    pub user: String,
    /// The subject's O's, in their order.
    pub groups: Vec<String>,
    /// Upstream's uid attribute, if the subject has it.
    pub uid: Option<String>,
    /// `X509SHA256=` and the certificate's fingerprint in hex: what upstream puts into
    /// `authentication.kubernetes.io/credential-id`.
    pub credential_id: String,
}

/// Checks client certificates against one authority.
///
/// As upstream, the handshake only asks for a certificate and makes sure that the client holds its key; whether the
/// certificate is good is decided per request by [`ClientVerifier::verify`], so that a client with an expired one is
/// told `401 Unauthorized` and not just cut off.
///
/// **Invariant (verified-identity):** an [`Identity`] comes from `verify` alone. Certificates that the connection
/// reports are claims until they passed it.
#[derive(Clone)]
pub struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").finish_non_exhaustive()
    }
}

impl ClientVerifier {
    pub fn new(authority: &CertificateDer<'_>) -> Result<Self, Error> {
        Self::of_all([authority.clone().into_owned()])
    }

    /// Takes what any of the authorities in a PEM bundle signed.
    pub fn from_pem(bundle: &[u8]) -> Result<Self, Error> {
        Self::of_all(authorities(bundle)?)
    }

    /// Takes what `authority` or any in the PEM `bundle` signed.
    pub fn with_bundle(authority: &CertificateDer<'_>, bundle: &[u8]) -> Result<Self, Error> {
        let own = authority.clone().into_owned();
        Self::of_all(std::iter::once(own).chain(authorities(bundle)?))
    }

    fn of_all(authorities: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|error| Error::Tls(error.to_string()))?;
        }
        let chain = WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::new(provider::default_provider()),
        )
        .allow_unauthenticated()
        .build()
        .map_err(|error| Error::Tls(error.to_string()))?;
        Ok(Self { chain })
    }

    /// What to give rustls for the handshake: clients may come without a certificate. They are told which authorities
    /// count, this one's and those of `others`, and choose by that among certificates they have.
    pub fn handshake_verifier(&self, others: &[Self]) -> Arc<dyn ClientCertVerifier> {
        let all = std::iter::once(self).chain(others);
        Arc::new(RequestClientCertificate {
            hints: all.flat_map(|verifier| verifier.chain.root_hint_subjects().to_vec()).collect(),
            provider: Arc::new(provider::default_provider()),
        })
    }

    /// Checks a chain, the client's own certificate first, and reads who it speaks for.
    ///
    /// Fails if the chain does not lead to the authority, is out of its time, is not meant for clients, or names
    /// nobody.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Identity, Error> {
        let rejected = |problem: String| Error::ClientCertificate(problem);
        let (leaf, intermediates) =
            chain.split_first().ok_or_else(|| rejected("there is none".to_owned()))?;
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        self.chain
            .verify_client_cert(leaf, intermediates, now)
            .map_err(|error| rejected(error.to_string()))?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| rejected(error.to_string()))?;
        read_identity(leaf, parsed.subject()).map_err(rejected)
    }
}

fn authorities(bundle: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bundle).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(Error::Tls("it holds no PEM section CERTIFICATE".to_owned())),
        Err(error) => Err(Error::Tls(error.to_string())),
    }
}

fn read_identity(leaf: &[u8], subject: &X509Name<'_>) -> Result<Identity, String> {
    let user = subject
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok())
        .filter(|name| !name.is_empty())
        .ok_or("its subject has no CN")?;
    let groups = subject
        .iter_organization()
        .map(|group| group.as_str().map(str::to_owned))
        .collect::<Result<_, _>>()
        .map_err(|_| "its subject has an O that is no text")?;
    Ok(Identity { user: user.to_owned(), groups, uid: read_uid(subject)?, credential_id: fingerprint(leaf) })
}

fn read_uid(subject: &X509Name<'_>) -> Result<Option<String>, String> {
    let oid =
        x509_parser::oid_registry::Oid::from(UID_ATTRIBUTE).map_err(|_| "the uid attribute is no OID")?;
    let mut values = subject.iter_by_oid(&oid);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err("its subject has more than one uid".to_owned());
    }
    let uid = value.as_str().map_err(|_| "its subject has a uid that is no text")?;
    Ok(Some(uid.to_owned()))
}

fn fingerprint(certificate: &[u8]) -> String {
    let mut text = "X509SHA256=".to_owned();
    for byte in digest::digest(&digest::SHA256, certificate).as_ref() {
        _ = write!(text, "{byte:02x}");
    }
    text
}

/// Asks for a certificate and lets any pass whose key the client holds.
#[derive(Debug)]
struct RequestClientCertificate {
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for RequestClientCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

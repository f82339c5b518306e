//! TLS towards peers: whose certificates are good, and why one is not, in Go's words.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{ClientConfig, ConfigError, TransportProblem};

/// The rustls side of a configuration.
pub(crate) fn client_config(config: &ClientConfig) -> Result<rustls::ClientConfig, ConfigError> {
    let other = |error: rustls::Error| ConfigError::ClientCertificate(error.to_string());
    let provider = Arc::new(provider::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match (config.insecure_skip_verify, &config.ca_bundle) {
        (true, Some(_)) => return Err(ConfigError::InsecureRoots),
        (true, None) => Arc::new(AnyCertificate(provider.clone())),
        (false, None) => Arc::new(Verifier::new(system_roots().to_vec(), &provider)?),
        (false, Some(pem)) => Arc::new(Verifier::new(certificates(pem)?, &provider)?),
    };
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut tls = match &config.client_certificate {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = certificates(&own.certificate_pem)
                .map_err(|_| ConfigError::ClientCertificate(NO_CERTIFICATE.to_owned()))?;
            let key = PrivateKeyDer::from_pem_slice(&own.key_pem)
                .map_err(|_| ConfigError::ClientCertificate(NO_KEY.to_owned()))?;
            builder.with_client_auth_cert(chain, key).map_err(other)?
        }
    };
    tls.alpn_protocols = match config.http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    Ok(tls)
}

const NO_CERTIFICATE: &str = "tls: failed to find any PEM data in certificate input";
const NO_KEY: &str = "tls: failed to find any PEM data in key input";

/// All certificates of a PEM text; at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let bad = || ConfigError::Roots("unable to parse bytes as PEM block".to_owned());
    let list: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| bad())?;
    if list.is_empty() { Err(bad()) } else { Ok(list) }
}

/// The roots that this machine trusts, read once.
fn system_roots() -> &'static [CertificateDer<'static>] {
    static ROOTS: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            tracing::warn!(errors = ?found.errors, "Found no root certificates on this machine");
        }
        found.certs
    })
}

/// webpki's verdict with Go's reasons.
#[derive(Debug)]
struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    roots: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(roots: Vec<CertificateDer<'static>>, provider: &Arc<CryptoProvider>) -> Result<Self, ConfigError> {
        let mut store = RootCertStore::empty();
        // As Go does: one bad certificate among the roots does not take the others away.
        store.add_parsable_certificates(roots.iter().cloned());
        let chain = match store.is_empty() {
            true => None,
            false => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
                    .build()
                    .map_err(|error| ConfigError::Roots(error.to_string()))?,
            ),
        };
        Ok(Self { chain, roots, provider: provider.clone() })
    }

    /// A self-signed certificate that is a root itself is good for its own names. webpki refuses it if it also says
    /// that it is an authority, which is what `openssl req -x509` makes of a webhook's certificate.
    fn is_root_itself(&self, leaf: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
        self.roots.iter().any(|root| root == leaf)
            && X509Certificate::from_der(leaf)
                .is_ok_and(|(_, own)| out_of_time(&own, now).is_none() && has_name(leaf, name))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = match &self.chain {
            Some(chain) => chain.verify_server_cert(leaf, intermediates, name, ocsp, now),
            None => Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        };
        match verdict {
            Err(rustls::Error::InvalidCertificate(_)) if self.is_root_itself(leaf, name, now) => {
                Ok(ServerCertVerified::assertion())
            }
            Err(rustls::Error::InvalidCertificate(problem)) => {
                let text = Reason(reason(leaf, name, now, &problem));
                Err(CertificateError::Other(OtherError(Arc::new(text))).into())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// For `insecure-skip-tls-verify`.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Go's text, on its way through rustls' error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(String);

/// What a failed handshake looks like to Go.
pub(crate) fn problem(error: &rustls::Error) -> TransportProblem {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(source))) => {
            match source.downcast_ref::<Reason>() {
                Some(Reason(text)) => TransportProblem::Certificate(text.clone()),
                None => TransportProblem::Tls(error.to_string()),
            }
        }
        rustls::Error::AlertReceived(alert) => {
            TransportProblem::Tls(format!("remote error: tls: {}", alert_text(*alert)))
        }
        rustls::Error::InvalidMessage(_) => {
            TransportProblem::Tls("tls: first record does not look like a TLS handshake".to_owned())
        }
        other => TransportProblem::Tls(format!("tls: {other}")),
    }
}

/// An alert as Go names it: words for a name in capitals.
fn alert_text(alert: rustls::AlertDescription) -> String {
    use rustls::AlertDescription as Alert;
    match alert {
        Alert::UnknownCA => "unknown certificate authority".to_owned(),
        Alert::CertificateExpired => "expired certificate".to_owned(),
        Alert::CertificateUnknown => "unknown certificate".to_owned(),
        Alert::HandshakeFailure => "handshake failure".to_owned(),
        Alert::ProtocolVersion => "protocol version not supported".to_owned(),
        Alert::UnrecognisedName => "unrecognized name".to_owned(),
        other => {
            let name = format!("{other:?}");
            name.char_indices().fold(String::new(), |mut words, (at, letter)| {
                if at > 0 && letter.is_ascii_uppercase() {
                    words.push(' ');
                }
                words.push(letter.to_ascii_lowercase());
                words
            })
        }
    }
}

fn reason(
    leaf: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
    problem: &CertificateError,
) -> String {
    let Ok((_, own)) = X509Certificate::from_der(leaf) else {
        return "x509: malformed certificate".to_owned();
    };
    if let Some(text) = out_of_time(&own, now) {
        return text;
    }
    match problem {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            wrong_name(&own, name)
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "x509: certificate specifies an incompatible key usage".to_owned()
        }
        CertificateError::BadEncoding => "x509: malformed certificate".to_owned(),
        // Of an intermediate, then.
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "x509: certificate has expired or is not yet valid: ".to_owned()
        }
        // Go checks names before it looks for the issuer.
        _ if !has_name(leaf, name) => wrong_name(&own, name),
        _ => "x509: certificate signed by unknown authority".to_owned(),
    }
}

fn out_of_time(own: &X509Certificate<'_>, now: UnixTime) -> Option<String> {
    let validity = own.validity();
    let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let now = i64::try_from(now.as_secs()).ok()?;
    let (relation, limit) = match now {
        early if early < from => ("before", from),
        late if late > until => ("after", until),
        _ => return None,
    };
    let text = |seconds| Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default();
    Some(format!(
        "x509: certificate has expired or is not yet valid: current time {} is {relation} {}",
        text(now),
        text(limit)
    ))
}

fn has_name(leaf: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    ParsedCertificate::try_from(leaf)
        .is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, name).is_ok())
}

fn wrong_name(own: &X509Certificate<'_>, wanted: &ServerName<'_>) -> String {
    let extension = own.subject_alternative_name().ok().flatten();
    let names =
        extension.as_ref().map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let is_ip = matches!(wanted, ServerName::IpAddress(_));
    let wanted = wanted.to_str();
    let presented: Vec<String> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(dns) if !is_ip => Some((*dns).to_owned()),
            GeneralName::IPAddress(bytes) if is_ip => ip(bytes).map(|ip| ip.to_string()),
            _ => None,
        })
        .collect();
    let has_common_name = own.subject().iter_common_name().any(|cn| cn.as_str().is_ok_and(|cn| cn == wanted));
    match presented.is_empty() {
        false => format!("x509: certificate is valid for {}, not {wanted}", presented.join(", ")),
        true if is_ip => {
            format!("x509: cannot validate certificate for {wanted} because it doesn't contain any IP SANs")
        }
        true if extension.is_none() && has_common_name => {
            "x509: certificate relies on legacy Common Name field, use SANs instead".to_owned()
        }
        true => format!("x509: certificate is not valid for any names, but wanted to match {wanted}"),
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

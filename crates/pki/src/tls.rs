//! rustls configurations with the cluster's authority. The cryptographic provider is named, never the process default.

use std::sync::Arc;

use rustls::crypto::ring as provider;
use rustls::server::ResolvesServerCert;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::{ClientVerifier, Error, IssuedCertificate};

/// HTTP/2 first, HTTP/1.1 for upgrades (exec, attach, port-forward) and old clients.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// For a listener: shows `serving`, asks clients for a certificate and takes those without one.
pub fn server_config(
    serving: Arc<dyn ResolvesServerCert>,
    clients: &ClientVerifier,
) -> Result<ServerConfig, Error> {
    server_config_for(serving, clients, &[])
}

/// As [`server_config`], for certificates of `others` as well.
pub fn server_config_for(
    serving: Arc<dyn ResolvesServerCert>,
    clients: &ClientVerifier,
    others: &[ClientVerifier],
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls(error.to_string()))?
        .with_client_cert_verifier(clients.handshake_verifier(others))
        .with_cert_resolver(serving);
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    Ok(config)
}

/// For a client of servers whose certificates lead to one in `ca_pem`; with `certificate` it says who it is.
pub fn client_config(ca_pem: &str, certificate: Option<&IssuedCertificate>) -> Result<ClientConfig, Error> {
    let tls = |error: &dyn std::fmt::Display| Error::Tls(error.to_string());
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        let root = root.map_err(|error| tls(&error))?;
        roots.add(root).map_err(|error| tls(&error))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| tls(&error))?
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(issued) => builder
            .with_client_auth_cert(vec![issued.certificate_der().clone()], issued.key_der())
            .map_err(|error| tls(&error))?,
    };
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    Ok(config)
}

#[cfg(test)]
mod tests;

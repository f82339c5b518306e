//! Certificate authority, certificates and service-account keys.
//!
//! Owns: the cluster's certificate authority, the keys that sign service-account tokens, and every certificate and
//! kubeconfig made from them. Never touches: sockets, clocks (`now` is a parameter) and the API.
//!
//! Start at [`Authority::load_or_create`]. From it come
//! - [`ServingCertificate`], what the HTTPS listener shows; it is replaced while serving,
//! - [`IssuedCertificate`], a client certificate whose CN is the user and whose O's are the groups,
//! - [`ClientVerifier`], which turns a client's certificate chain back into an [`Identity`],
//! - certificates for [`SigningRequest`]s that somebody else made; [`CertificateRequest`] is the other side, which gets
//!   a [`KeyedCertificate`],
//! - [`SigningKeys`], the ES256 keys of service-account tokens,
//! - [`Kubeconfig`], the file that a person hands to kubectl.
//!
//! **Invariant (keys-are-never-guessed):** a damaged or half-present key file is an error that names the file and the
//! way out. Making a new key in its place would lock out everybody who holds a certificate or token of the old one.

mod authority;
mod certificate;
mod certificate_request;
mod error;
mod files;
mod identity;
mod key;
mod kubeconfig;
mod serving;
mod signing_keys;
mod signing_request;
mod tls;
mod x509;

pub use authority::{ADMIN_USER, Authority};
pub use certificate::{IssuedCertificate, ServerNames};
pub use certificate_request::{CertificateRequest, KeyedCertificate, ShownCertificate, public_key_hashes};
pub use error::Error;
pub use files::write_private;
pub use identity::{ClientVerifier, Identity};
pub use key::random_text;
pub use kubeconfig::{CONTEXT, Credential, Kubeconfig};
pub use serving::ServingCertificate;
pub use signing_keys::{PublicKey, SigningKeys};
pub use signing_request::{Signer, SigningRequest, Usages, not_after};
pub use tls::{client_config, server_config, server_config_for};

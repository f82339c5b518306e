//! What can go wrong with keys and certificates.

use std::io;

use camino::Utf8PathBuf;

/// An error of this crate. Print it with its sources.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("creating the directory {path}")]
    CreateDirectory {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("reading {path}")]
    Read {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("writing {path}")]
    Write {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file is there but its content is not what it should be.
    #[error("{path} is damaged: {problem}; {remedy}")]
    Damaged { path: Utf8PathBuf, problem: String, remedy: &'static str },
    /// One of two files that belong together is missing.
    #[error("{missing} is missing, but {present} is there; {remedy}")]
    Incomplete { missing: Utf8PathBuf, present: Utf8PathBuf, remedy: &'static str },
    #[error("the certificate authority in {path} is not valid at this time: {problem}; {remedy}")]
    NotValidNow { path: Utf8PathBuf, problem: String, remedy: &'static str },
    #[error("{operation}: the cryptographic library refused")]
    Crypto { operation: &'static str },
    #[error("{0} lies outside of the dates that a certificate can hold")]
    Time(String),
    #[error("{value:?} can not stand in a certificate: {problem}")]
    BadName { value: String, problem: String },
    #[error("the certificate signing request is not good: {0}")]
    SigningRequest(String),
    #[error(
        "{0:?} is no usage of a key; the API reference lists them under CertificateSigningRequest spec.usages"
    )]
    UnknownUsage(String),
    #[error("setting up TLS: {0}")]
    Tls(String),
    #[error("the client certificate was not accepted: {0}")]
    ClientCertificate(String),
}

//! The one HTTPS client with which the server calls others.
//!
//! Owns: how a peer is named ([`ClientConfig`], also as a kubeconfig file), connections and their reuse, time and size
//! limits of a call, and the words of everything that can go wrong on the way. Never touches: what is said over it
//! (reviews, tokens, audit events), and where a Service is ([`ServiceResolver`] knows).
//!
//! Start at [`Client`]. Upstream's servers call through Go's `net/http`, and users read its errors in answers and
//! events (`dial tcp …: connection refused`, `x509: certificate signed by unknown authority`), so those are the words
//! here.
//!
//! **Invariant (bounded):** every call has a timeout and a limit on what it reads.

mod client;
mod clients;
mod config;
mod connect;
mod error;
mod kubeconfig;
mod resolve;
mod retry;
mod tls;

pub use client::{Answer, Body, Call, Client};
pub use clients::Clients;
pub use config::{ClientCertificate, ClientConfig, ConfigError, Credential, ServiceReference, Target};
pub use error::{Error, TransportProblem};
pub use kubeconfig::{KubeconfigError, Users};
pub use resolve::{NoServices, ServiceResolver};
pub use retry::Backoff;

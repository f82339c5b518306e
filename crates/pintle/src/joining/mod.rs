//! How machines join a cluster elsewhere: `pintle token` and `pintle node`.
//!
//! Owns: what a cluster says to those that come ([`invitation`]), the tokens by which they come ([`tokens`]), how a
//! machine finds out that the cluster is the one that is meant ([`discovery`]), what it keeps of its membership
//! ([`credentials`]), and its life as a node ([`member`]). Never touches: approving and signing certificates, and
//! signing what the cluster says of itself, which controllers do.
//!
//! ```text
//!   cluster                                          machine
//!   cluster-info, signed with the token  ──────────> is it the cluster that is meant?  (discovery)
//!   CertificateSigningRequest            <────────── the token, once                   (credentials)
//!   certificate of system:node:<name>    ──────────> node agent, network, DNS          (member)
//! ```
//!
//! All of it is upstream's: kubeadm's `cluster-info` and TLS bootstrapping of kubelets.

pub mod credentials;
pub mod discovery;
pub mod invitation;
pub mod member;
mod token;
pub mod tokens;

pub use token::Token;

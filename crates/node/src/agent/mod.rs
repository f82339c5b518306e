//! The agent of a real node: what a kubelet does.
//!
//! Owns: the pods bound to one node, from their arrival to the last process of them, and that node's object and lease.
//! Never touches: containers (a [`runtime::Runtime`] has them), addresses and Services (crate `network`).

pub mod config;
pub mod probes;
pub mod server;
pub mod stats;
pub mod volumes;

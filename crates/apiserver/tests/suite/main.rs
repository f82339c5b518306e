//! The API server as clients meet it: over HTTPS, with certificates and tokens.
//!
//! [`replay`] sends recorded requests and compares the answers with upstream's; the other modules test the generic
//! machinery where nothing was recorded. Each test starts a server of its own ([`server`]), on port 0 and in memory.

#![allow(clippy::disallowed_methods, reason = "a suite looks at a server from outside, in real time")]

mod access;
mod aggregation;
mod audit;
mod bad_input;
mod cbor;
mod compare;
mod connections;
mod conversions;
mod custom_resources;
mod deletes;
mod devices;
mod encodings;
mod fairness;
mod hook;
mod identity;
mod kinds;
mod known;
mod policies;
mod protocol;
mod quotas;
mod reads;
mod recorded;
mod replay;
mod server;
mod services;
mod watches;
mod webhooks;
mod wire;
mod workloads;
mod writes;

//! gRPC: calls and streams over a Unix socket or TCP, and a small server for both.
//!
//! Owns: gRPC's wire form over HTTP/2 (frames, deadlines, status in trailers), connections of clients and how they are
//! made again. Never touches: what the messages mean. They are structs with `#[derive(prost::Message)]`, written by
//! hand where they are used: there is no generated code and no `protoc`.
//!
//! Start at [`Client`] and [`Router`]. Messages are never compressed, TLS is not spoken: the peers are on this machine
//! or in its pods.

mod client;
mod executor;
mod frame;
mod server;
mod status;
mod timeout;

#[cfg(test)]
mod tests;

pub use client::{Client, Endpoint, Options, Streaming};
pub use frame::MESSAGE_BYTES_MAX;
pub use server::{Router, Server};
pub use status::{Code, Status};

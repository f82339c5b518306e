//! SPDY/3.1, as much of it as client-go speaks.
//!
//! Owns: frames and their headers' compression ([`frame`]), and a connection on which the client opens streams
//! ([`connection`]). Not here: windows, priorities, pushed streams. The library that client-go speaks SPDY with counts no
//! windows: it would never open one that had closed.

pub mod connection;
mod dictionary;
pub mod frame;
mod headers;

/// Why a stream is reset.
pub mod reset {
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const REFUSED_STREAM: u32 = 3;
    pub const CANCEL: u32 = 5;
}

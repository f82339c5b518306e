//! The client against a real containerd, which each test starts for itself, and against servers that only answer.

mod containerd;
mod server;
mod streaming;

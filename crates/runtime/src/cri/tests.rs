//! The client against a real containerd, which each test starts for itself, and against a server that only answers.

mod containerd;
mod server;

//! CNI, in both directions: the built-in pod network for runtimes that ask for one by CNI, and the plugins of others for
//! the embedded runtime ([`foreign`]).
//!
//! Owns: a CNI plugin, which is this very program under another name ([`plugin`]), the socket behind it ([`server`]),
//! the configuration by which a runtime finds it ([`install`]), the documents of both directions (`wire`), and calls of
//! foreign plugins. Never touches: links and addresses; a [`runtime::PodNetwork`] has them, the same one for every
//! runtime, so that Services, policies and names are the same, too.
//!
//! ```text
//!     containerd ── exec, stdin ──> plugin ── socket ──> node's process ──> PodNetwork
//! ```
//!
//! The plugin decides nothing: it hands on what it was given and prints what it is answered. The obvious design, a plugin
//! that makes the link itself, would need a second book of addresses and could not wait for policies.

pub mod foreign;
pub mod install;
pub mod plugin;
pub mod server;
mod wire;

#[cfg(test)]
mod tests;

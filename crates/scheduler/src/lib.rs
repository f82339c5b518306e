//! Places pods on nodes as kube-scheduler does, an order of magnitude faster.
//!
//! Owns: the scheduling queue, the cache of nodes and pods, the plugin framework and the plugins. Never touches:
//! anything but the [`client::Api`] it is handed.
//!
//! ```text
//!     informers ─> run ──events──> Engine { queue ─pop─> shortlist of the pod's signature ─best node─> assume }
//!                   │ <─Decision──                         ^ repaired where the cache changed
//!                   └──> tasks: PreBind, Bind; or event and condition  ──answer──> Engine
//! ```
//!
//! Where to start: `engine` for a cycle, `framework` for what plugins may do, `plugins::registry` for which there are,
//! `shortlist` for why it is fast, `run` for the loop, `groups` for pods that are placed together. A new plugin is a
//! file under `plugins` and a line in the registry; a program may also bring its own list and call [`run_profiles`].

pub mod affinity;
pub mod budget;
pub mod cache;
pub mod configuration;
pub mod diagnosis;
mod engine;
mod extender;
pub mod framework;
pub mod groups;
mod metrics;
pub mod permit;
pub mod plugins;
pub mod pod;
pub mod queue;
pub mod resource;
mod run;
mod shared;
pub mod shortlist;

#[cfg(test)]
mod testing;

pub use groups::GroupFeatures;
pub use run::{DEFAULT_SCHEDULER, Options, RunError, profiles, run, run_profiles};

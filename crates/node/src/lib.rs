//! What runs on nodes: the life of pods, by whatever runtime.
//!
//! Owns: the agent of a real node ([`agent`]) and simulated nodes ([`sim`]). Never touches: anything but the
//! [`client::Api`] it is handed, and what is on its own machine.
//!
//! Both take the pods bound to their nodes through their phases and report them as status. The simulated one decides
//! by a table of stages (`sim::stage`) in place of containers.

pub mod agent;
mod changes;
mod lease;
pub mod sim;

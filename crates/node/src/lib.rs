//! What runs on nodes: the life of pods, by whatever runtime.
//!
//! Owns: the simulated runtime ([`sim`]). Never touches: anything but the [`client::Api`] it is handed.
//!
//! A runtime takes the pods bound to its nodes through their phases and reports them as status. The simulated one
//! decides by a table of stages (`sim::stage`) in place of containers; one that starts containers joins beside it.

pub mod sim;

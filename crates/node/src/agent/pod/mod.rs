//! One pod on this node, from its arrival to the last process of it.
//!
//! Owns: what is to be done next ([`plan`], pure), doing it ([`worker`], one task per pod), what is said of it
//! ([`status`], pure), and when something that failed is tried again ([`backoff`]). Never touches: other pods.
//!
//! ```text
//!     pod changed ─┐
//!     container ───┼─> worker: observe ─ plan ─ act ─ report ─ wait
//!     probe ───────┘
//! ```
//!
//! Level driven: a step looks at the pod and at what the runtime has, and does what is missing. Nothing is remembered
//! that a restart may not lose: sandboxes and containers carry the pod's uid, a container's number is its restart
//! count, and its configuration's hash says whether it is still what the pod asks for.

pub mod backoff;
mod ending;
pub mod observed;
pub mod plan;
pub mod reporting;
mod resizing;
mod start;
pub mod status;
pub mod termination;
pub mod turns;
pub mod worker;

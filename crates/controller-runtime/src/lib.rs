//! What every controller needs: a work queue, a reconcile loop, back-off, expectations.
//!
//! Owns: [`Queue`] (keys, one worker per key), [`Controller`] (watch events to keys to reconciles),
//! [`Expectations`] (own writes that the caches have not shown yet), [`ControllerDescriptor`]. Never touches: any
//! kind, any transport.
//!
//! ```text
//!     informer ── Delta ──> map ── keys ──> Queue ──> N workers: Reconcile::reconcile(key)
//!                                             ^                 │
//!                                             └── done / requeue / back-off
//! ```
//!
//! Start at [`Controller::run`]. Laws: level-driven (a key, never a payload), no-polling, bounded.

pub mod backoff;
pub mod controller;
pub mod descriptor;
pub mod expectations;
pub mod queue;

pub use controller::{Action, Controller, Error, Outcome, Reconcile, Result};
pub use descriptor::{Context, ControllerDescriptor, Started, start_all};
pub use expectations::Expectations;
pub use queue::Queue;

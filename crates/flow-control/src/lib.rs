//! API Priority and Fairness: who is served now, who waits and who is sent away.
//!
//! Owns: which FlowSchema a request belongs to, the seats of each priority level, its queues, and how levels lend
//! seats to each other. Never touches: HTTP, storage, or where the configuration comes from.
//!
//! A request passes in this order:
//! 1. [`schema`] finds the first FlowSchema that matches, and with it a priority level;
//! 2. [`width`] says how many seats it takes: one, or more for a list or for a write that many watch;
//! 3. [`level`] gives the seats at once if nobody waits and they are free. This is all that happens to nearly every
//!    request, and costs a few atomic operations (Hot path:);
//! 4. otherwise [`queues`] keeps it until it is its turn, fair between flows and not between requests, or it is
//!    refused.
//!
//! Locks: a level's queues, and the configuration's swap; neither is taken while the other is held.

mod allocation;
mod configuration;
pub mod defaults;
mod demand;
mod drops;
mod dump;
mod hand;
mod level;
mod queues;
mod schema;
#[cfg(test)]
mod tests;
pub mod width;

pub use configuration::{Classified, Dangling, FlowControl, Options};
pub use level::{Rejected, Seats};
pub use width::Width;

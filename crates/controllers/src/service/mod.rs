//! What the two endpoint controllers share: which pods back a service, at which addresses and ports, and when that
//! last changed.

pub mod backends;
pub mod trigger;

pub use backends::{family_of_service, find_port, wake_services};
pub use trigger::TriggerTimes;

//! What the endpoint controllers share: which pods back a service, at which addresses and ports, when that last
//! changed, and how slices are written.

pub mod backends;
pub mod slices;
pub mod trigger;

pub use backends::{family_of_service, find_port, wake_services};
pub use slices::Slices;
pub use trigger::TriggerTimes;

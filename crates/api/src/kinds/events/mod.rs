//! The `events.k8s.io` group; its one kind shares its rules with the core group's.

use super::core::event::Event;

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[("Event", &Event::Events)];

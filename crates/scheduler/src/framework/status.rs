//! Why a plugin turned a pod away.

use std::borrow::Cow;

use smallvec::{SmallVec, smallvec};

/// A reason as users read it, e.g. `Insufficient cpu`.
pub type Reason = Cow<'static, str>;

/// What kind of refusal it is. Success is `Ok`, never a [`Status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Something went wrong inside; retried with back-off.
    Error,
    /// Does not fit now; evicting pods could help.
    Unschedulable,
    /// Does not fit, and evicting pods would not help.
    UnschedulableAndUnresolvable,
}

/// A refusal with its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Status {
    pub code: Code,
    pub reasons: SmallVec<[Reason; 1]>,
}

impl Status {
    pub fn new(code: Code, reason: impl Into<Reason>) -> Self {
        Self { code, reasons: smallvec![reason.into()] }
    }

    pub fn unschedulable(reason: impl Into<Reason>) -> Self {
        Self::new(Code::Unschedulable, reason)
    }

    pub fn unresolvable(reason: impl Into<Reason>) -> Self {
        Self::new(Code::UnschedulableAndUnresolvable, reason)
    }

    pub fn error(reason: impl Into<Reason>) -> Self {
        Self::new(Code::Error, reason)
    }

    /// All reasons in one line, as upstream joins them.
    pub fn message(&self) -> String {
        self.reasons.join(", ")
    }
}

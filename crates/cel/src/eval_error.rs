//! [`EvalError`]: why an expression has no value.

use std::borrow::Cow;
use std::fmt;

/// An error value of the language, or the end of an evaluation.
///
/// Error values can be absorbed (`true || error`); the end of the budget cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError {
    kind: EvalErrorKind,
    message: Cow<'static, str>,
}

/// What kind of end it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalErrorKind {
    /// The expression itself: a missing key, a division by zero.
    Failed,
    /// The expression cost more than one may.
    CostLimit,
    /// All expressions together cost more than they may.
    Budget,
}

impl EvalError {
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: EvalErrorKind::Failed, message: message.into() }
    }

    pub fn kind(&self) -> EvalErrorKind {
        self.kind
    }

    /// Whether nothing may absorb this error.
    pub(crate) fn is_final(&self) -> bool {
        self.kind != EvalErrorKind::Failed
    }

    /// As the expression that reads a composed variable reports it.
    pub(crate) fn of_composed(self, name: &str) -> Self {
        if self.is_final() {
            return self;
        }
        Self::new(format!("composited variable \"{name}\" fails to evaluate: {self}"))
    }

    pub(crate) fn cost_limit() -> Self {
        Self {
            kind: EvalErrorKind::CostLimit,
            message: "operation cancelled: actual cost limit exceeded".into(),
        }
    }

    pub(crate) fn budget() -> Self {
        Self {
            kind: EvalErrorKind::Budget,
            message:
                "validation failed due to running out of cost budget, no further validation rules will be run"
                    .into(),
        }
    }

    pub(crate) fn no_such_overload() -> Self {
        Self::new("no such overload")
    }

    pub(crate) fn no_such_key(key: &impl fmt::Display) -> Self {
        Self::new(format!("no such key: {key}"))
    }

    pub(crate) fn no_such_field(field: &str) -> Self {
        Self::new(format!("no such field '{field}'"))
    }
}

impl std::error::Error for EvalError {}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

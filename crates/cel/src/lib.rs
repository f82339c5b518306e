//! The Common Expression Language as Kubernetes speaks it.
//!
//! Owns: the parser ([`Environment::compile`] begins there), the static checker, the estimate of what an expression
//! can cost, the compiled form and its evaluation with exact accounting, and Kubernetes' libraries.
//! Never touches: what expressions are for. Rules of custom resources, admission policies, webhooks, authentication
//! and device selectors each declare their variables in an [`Environment`] and decide what a result means.
//!
//! Start at [`Environment`]. An expression is compiled once into a [`Program`]; a program is evaluated on an
//! [`Activation`], which borrows the trees that requests are made of, against a [`Budget`].
//!
//! Hot path: evaluating. A look into an object is a walk through its tree; nothing of it is copied or converted
//! before an expression asks for it.
//!
//! Errors and costs are those of upstream to the letter and to the unit, because users see them: a rule that is
//! accepted here must be accepted there.

pub mod admission;
mod ast;
mod checker;
mod cost;
mod environment;
mod error;
mod eval;
mod eval_error;
mod lexer;
mod library;
pub mod limits;
mod macros;
pub mod names;
mod number;
mod opaques;
mod parser;
mod plan;
mod program;
pub mod regex;
mod time;
mod types;
mod validators;
mod value;

pub use cost::CostEstimate;
pub use environment::Environment;
pub use error::{CompileError, Issue, Location, Refusal};
pub use eval::{Activation, Budget};
pub use eval_error::{EvalError, EvalErrorKind};
pub use library::authorizer;
pub use library::url::is_request_uri;
pub use opaques::Opaques;
pub use program::Program;
pub use types::{Decl, Field, ListKind, ObjectType, Opaque, Shape, Type};
pub use value::{Evaluated, Key, List, Map, Text, Value};

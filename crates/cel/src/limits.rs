//! How much expressions may cost.

/// What one evaluation may cost; about a tenth of a second.
pub const PER_CALL: u64 = 1_000_000;
/// What all rules of one object, or all policies of one binding, may cost.
pub const PER_OBJECT: u64 = 10_000_000;
/// What the match conditions of one webhook or policy may cost.
pub const MATCH_CONDITIONS: u64 = 2_500_000;
/// What a rule of a custom resource may be estimated to cost.
pub const ESTIMATED_PER_RULE: u64 = 10_000_000;
/// What all rules of a custom resource may be estimated to cost.
pub const ESTIMATED_PER_RESOURCE: u64 = 100_000_000;
/// Bytes that a `messageExpression` may produce.
pub const MESSAGE_BYTES_MAX: usize = 5 * 1024;
/// The largest request, from which the sizes of unbounded values are guessed.
pub const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;

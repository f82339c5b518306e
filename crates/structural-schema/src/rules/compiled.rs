//! One rule, compiled.

use std::sync::OnceLock;

use cel::limits::REQUEST_BYTES_MAX;
use cel::{Decl, Environment, Program, Type};

use crate::Structural;
use crate::definition::FieldPath;
use crate::structural::Rule;

/// The number of the variable `self`.
pub(crate) const SELF: usize = 0;
/// The number of the variable `oldSelf`.
pub(crate) const OLD_SELF: usize = 1;

/// A rule and its message.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub program: Result<Program, Refusal>,
    pub uses_old_self: bool,
    /// The message's expression, if there is one and it compiles.
    pub message: Option<Program>,
    /// Why the message's expression does not compile.
    pub message_refusal: Option<String>,
    /// Where below the value the complaint goes.
    pub field_path: Option<Box<str>>,
    /// How often a value like this fits into a request: the rule may run as often.
    pub cardinality_max: u64,
}

/// Why a rule is not run.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is nothing to run.
    Empty,
    /// In upstream's words.
    Invalid(String),
}

/// What every rule's variables are called; their numbers are the same for all.
pub(crate) fn variables() -> &'static Environment {
    static NAMES: OnceLock<Environment> = OnceLock::new();
    NAMES.get_or_init(|| environment(&Decl::dynamic(), false))
}

fn environment(decl: &Decl, is_optional: bool) -> Environment {
    let old =
        if is_optional { Decl::plain(Type::optional(decl.ty.clone()), decl.bytes_min) } else { decl.clone() };
    Environment::new().variable("self", decl.clone()).variable("oldSelf", old)
}

pub(crate) fn compile(rule: &Rule, decl: &Decl, schema: &Structural) -> Compiled {
    let cardinality_max = REQUEST_BYTES_MAX / (decl.bytes_min + 1);
    let mut compiled = Compiled {
        program: Err(Refusal::Empty),
        uses_old_self: false,
        message: None,
        message_refusal: None,
        field_path: None,
        cardinality_max,
    };
    if rule.rule.trim().is_empty() {
        return compiled;
    }
    let environment = environment(decl, rule.optional_old_self == Some(true));
    let program = match environment.compile(&rule.rule) {
        Ok(program) if *program.output() == Type::Bool => program,
        Ok(_) => {
            compiled.program = Err(Refusal::Invalid("cel expression must evaluate to a bool".into()));
            return compiled;
        }
        Err(error) => {
            let step = if error.is_instantiation() { "program instantiation" } else { "compilation" };
            compiled.program = Err(Refusal::Invalid(format!("{step} failed: {error}")));
            return compiled;
        }
    };
    compiled.uses_old_self = program.reads(OLD_SELF);
    compiled.program = Ok(program);
    if !rule.message_expression.is_empty() {
        match environment.compile(&rule.message_expression) {
            Ok(program) if *program.output() == Type::String => compiled.message = Some(program),
            Ok(_) => {
                compiled.message_refusal = Some("messageExpression must evaluate to a string".into());
                return compiled;
            }
            Err(error) => {
                let step = if error.is_instantiation() { "instantiation" } else { "compilation" };
                compiled.message_refusal = Some(format!("messageExpression {step} failed: {error}"));
                return compiled;
            }
        }
    }
    if !rule.field_path.is_empty() {
        let path = FieldPath::parse(&rule.field_path, schema, true).ok();
        compiled.field_path = path.map(|path| path.to_string().into());
    }
    compiled
}

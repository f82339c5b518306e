//! `matchConditions`: expressions that all have to hold before anything else happens.

use apimachinery::Value;
use cel::{Budget, Type, limits};

use super::expression::{Expression, Failure, Reads, Scope};
use super::inputs::Inputs;
use crate::aggregate;

/// The conditions of one webhook or policy.
pub(crate) struct Conditions {
    expressions: Vec<Expression>,
    reads: Reads,
    fails_open: bool,
}

/// Whether they hold.
#[derive(Debug, PartialEq)]
pub(crate) enum Holds {
    Yes,
    No,
    /// It cannot be told, and the request must not go on without knowing.
    Unknown(String),
}

impl Conditions {
    pub fn new(scope: &Scope, conditions: &[Value], fails_open: bool) -> Self {
        let expressions: Vec<Expression> = conditions
            .iter()
            .map(|condition| scope.compile(condition.str_at(&["expression"]), &[Type::Bool]))
            .collect();
        Self { reads: scope.reads(expressions.iter()), expressions, fails_open }
    }

    /// One that is false settles it, whatever became of the others.
    pub fn hold(&self, scope: &Scope, inputs: &Inputs<'_>) -> Holds {
        if self.expressions.is_empty() {
            return Holds::Yes;
        }
        let activation = scope.activation(inputs, self.reads);
        let mut budget = Budget::new(limits::MATCH_CONDITIONS);
        let mut problems = Vec::new();
        for expression in &self.expressions {
            match expression.eval(&activation, &mut budget) {
                Ok(value) if value.as_bool() == Some(false) => return Holds::No,
                Ok(_) => {}
                Err(Failure::This(problem)) => problems.push(problem),
                Err(Failure::Budget(problem)) => {
                    problems = vec![problem];
                    break;
                }
            }
        }
        match aggregate(problems) {
            None => Holds::Yes,
            Some(_) if self.fails_open => Holds::No,
            Some(problems) => Holds::Unknown(problems),
        }
    }
}

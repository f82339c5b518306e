//! `matchConditions`: expressions that all have to hold before anything else happens.

use apimachinery::Value;
use cel::{Budget, Type, limits};
use telemetry::MatchConditionLabels;

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

    /// Whether they hold. `labels` say whose they are, for metrics.
    pub fn hold(&self, scope: &Scope, inputs: &Inputs<'_>, labels: &MatchConditionLabels<'_>) -> Holds {
        if self.expressions.is_empty() {
            return Holds::Yes;
        }
        let began = rt::instant();
        let (holds, errors) = self.evaluate(scope, inputs);
        if holds != Holds::Yes {
            telemetry::metrics().admission.conditions_failed(labels, began.elapsed(), errors);
        }
        holds
    }

    /// One that is false settles it, whatever became of the others. Beside that, how many have no value; a budget that
    /// is spent is no error of one.
    fn evaluate(&self, scope: &Scope, inputs: &Inputs<'_>) -> (Holds, u64) {
        let activation = scope.activation(inputs, self.reads);
        let mut budget = Budget::new(limits::MATCH_CONDITIONS);
        let mut problems = Vec::new();
        let mut errors = 0;
        for expression in &self.expressions {
            match expression.eval(&activation, &mut budget) {
                Ok(value) if value.as_bool() == Some(false) => return (Holds::No, errors),
                Ok(_) => {}
                Err(Failure::This(problem)) => {
                    problems.push(problem);
                    errors += 1;
                }
                Err(Failure::Budget(problem)) => {
                    (problems, errors) = (vec![problem], 0);
                    break;
                }
            }
        }
        let holds = match aggregate(problems) {
            None => Holds::Yes,
            Some(_) if self.fails_open => Holds::No,
            Some(problems) => Holds::Unknown(problems),
        };
        (holds, errors)
    }
}

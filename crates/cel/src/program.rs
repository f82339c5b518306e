//! [`Program`]: a compiled expression.

use crate::cost::CostEstimate;
use crate::eval::{Activation, Budget, Frame};
use crate::plan::Plan;
use crate::types::Type;
use crate::value::Evaluated;

/// An expression, ready to be evaluated any number of times.
#[derive(Debug)]
pub struct Program {
    plan: Plan,
    output: Type,
    estimate: CostEstimate,
}

impl Program {
    pub(crate) fn new(plan: Plan, output: Type, estimate: CostEstimate) -> Self {
        Self { plan, output, estimate }
    }

    /// The type of its results.
    pub fn output(&self) -> &Type {
        &self.output
    }

    /// What evaluating it costs, by the declared sizes of its variables.
    pub fn estimate(&self) -> CostEstimate {
        self.estimate
    }

    /// Whether it reads a variable, by number.
    pub fn reads(&self, variable: usize) -> bool {
        self.plan.variables.contains(&variable)
    }

    /// Evaluates it. What that costs is taken from the budget also if it fails.
    pub fn eval<'a>(&'a self, activation: &Activation<'a>, budget: &mut Budget) -> Evaluated<'a> {
        let (result, cost) = self.eval_with_cost(activation);
        budget.charge(cost.saturating_add(activation.take_lazy_cost()))?;
        result
    }

    /// Evaluates it and says what that cost.
    pub(crate) fn eval_with_cost<'a>(&'a self, activation: &Activation<'a>) -> (Evaluated<'a>, u64) {
        let mut frame = Frame::new(activation, self.plan.locals);
        let result = self.plan.root.eval(&mut frame);
        (result, frame.cost())
    }
}

//! [`Selectors`]: expressions that choose devices, compiled once, with what they said about each device.
//!
//! A device never changes, a new state of its slice is another slice; so an answer stays good as long as the slice.

use std::collections::HashMap;

use api::devices::Selector;
use apimachinery::Str;

use super::inventory::Slice;

/// Expressions kept. When there are more, all are forgotten: those in use come back at once.
const EXPRESSIONS_MAX: usize = 1000;

/// An expression's number.
pub type ExpressionId = usize;

#[derive(Debug, Default)]
pub struct Selectors {
    compiled: Vec<Result<Selector, String>>,
    by_text: HashMap<Str, ExpressionId>,
    answers: HashMap<u64, Vec<Answers>>,
}

/// Of one expression, by device of a slice.
#[derive(Debug)]
struct Answers {
    expression: ExpressionId,
    chosen: Box<[Option<bool>]>,
}

/// What went wrong, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl Selectors {
    /// Room for the expressions of another pod. Numbers given before may be good no longer.
    pub fn make_room(&mut self) {
        if self.compiled.len() > EXPRESSIONS_MAX {
            *self = Self::default();
        }
    }

    pub fn number(&mut self, expression: &Str) -> ExpressionId {
        if let Some(&known) = self.by_text.get(expression) {
            return known;
        }
        let compiled = Selector::compile(expression).map_err(|error| error.to_string());
        self.compiled.push(compiled);
        self.by_text.insert(expression.clone(), self.compiled.len() - 1);
        self.compiled.len() - 1
    }

    /// Whether an expression chooses a device of a slice, by the device's position.
    pub fn chooses(
        &mut self,
        expression: ExpressionId,
        slice: &Slice,
        device: usize,
    ) -> Result<bool, Failure> {
        let answers = self.answers.entry(slice.id).or_default();
        let at = answers.iter().position(|own| own.expression == expression).unwrap_or_else(|| {
            let chosen = vec![None; slice.devices().len()].into();
            answers.push(Answers { expression, chosen });
            answers.len() - 1
        });
        let answer = &mut answers[at].chosen[device];
        if let Some(known) = *answer {
            return Ok(known);
        }
        let selector = self.compiled[expression].as_ref();
        let selector = selector.map_err(|why| Failure(format!("CEL compile error: {why}")))?;
        let chosen = selector.matches(slice.driver(), &slice.devices()[device]);
        let chosen = chosen.map_err(|why| Failure(format!("CEL runtime error: {why}")))?;
        *answer = Some(chosen);
        Ok(chosen)
    }

    /// A slice is no more.
    pub fn forget(&mut self, slice: &Slice) {
        self.answers.remove(&slice.id);
    }
}

//! `x-kubernetes-validations`: rules over the parts of an object, in CEL.
//!
//! Rules of a schema are compiled together into a [`RuleSet`], a tree that has the nodes of the schema below which
//! there are rules and no others. A rule that reads `oldSelf` is a rule about a change and runs only where the old
//! value is known. Complaints of other rules about what did not change are dropped (KEP-4008).

mod compiled;
mod declaration;

use apimachinery::field::{Error, ErrorKind, ErrorList, Path, Shown, go_quote};
use apimachinery::{Str, Value};
use cel::limits::{MESSAGE_BYTES_MAX, PER_OBJECT};
use cel::{Activation, Budget, Decl, EvalErrorKind};

pub(crate) use cel::names::escape;
pub(crate) use compiled::{Compiled, OLD_SELF, Refusal, SELF, compile, variables};
pub(crate) use declaration::declare;

use crate::Structural;
use crate::correlation::{Correlated, OldItems};
use crate::structural::{Kind, Rule};

/// Complaints about one object end here.
const ERRORS_MAX: usize = 1000;

/// The compiled rules of a schema and of all below it.
#[derive(Debug)]
pub struct RuleSet {
    root: Node,
}

#[derive(Debug)]
struct Node {
    decl: Decl,
    rules: Box<[(Rule, Compiled)]>,
    schema: std::sync::Arc<Structural>,
    properties: Box<[(Str, Node)]>,
    additional: Option<Box<Node>>,
    items: Option<Box<Node>>,
}

/// Whether there is a rule in the schema or below.
pub fn any(schema: &Structural) -> bool {
    !schema.rules.is_empty()
        || schema.items.as_deref().is_some_and(any)
        || schema.additional.schema().is_some_and(|values| any(values))
        || schema.properties.iter().any(|(_, property)| any(property))
}

impl RuleSet {
    /// `is_object` for the schema of a whole object. `None` when there are no rules.
    pub fn compile(schema: &std::sync::Arc<Structural>, is_object: bool) -> Option<Self> {
        if !any(schema) {
            return None;
        }
        Some(Self { root: Node::compile(schema, declare(schema, is_object, "self")?)? })
    }

    /// Runs the rules on a value that stands at `path`; with `old`, on its change. `false` when the budget ran out.
    pub fn validate(
        &self,
        errors: &mut ErrorList,
        value: &Value,
        old: Option<&Value>,
        ratchet: bool,
        budget: &mut Budget,
        path: &Path<'_>,
    ) -> bool {
        let correlated =
            old.filter(|_| ratchet).map(|old| Correlated { new: value, old, schema: &self.root.schema });
        let was = Was { here: correlated, above: None };
        let mut run = Run { errors, budget };
        run.node(&self.root, value, old, was, path)
    }
}

/// A new budget for the rules of one object.
pub fn budget() -> Budget {
    Budget::new(PER_OBJECT)
}

impl Node {
    fn compile(schema: &std::sync::Arc<Structural>, decl: Decl) -> Option<Self> {
        let properties: Box<[(Str, Self)]> = schema
            .properties
            .iter()
            .filter(|(_, property)| any(property))
            .filter_map(|(name, property)| {
                let decl = match escape(name) {
                    // Fields of unknown type are left out of rules altogether.
                    Some(escaped) => decl.step(&escaped)?.clone(),
                    None => declare(property, property.embedded, name)?,
                };
                Some((name.clone(), Self::compile(property, decl)?))
            })
            .collect();
        let below = |child: Option<&std::sync::Arc<Structural>>| {
            let child = child.filter(|child| any(child))?;
            Some(Box::new(Self::compile(child, decl.step("@items")?.clone())?))
        };
        let additional = below(schema.additional.schema());
        let items = below(schema.items.as_ref());
        let rules: Box<[(Rule, Compiled)]> =
            schema.rules.iter().map(|rule| (rule.clone(), compile(rule, &decl, schema))).collect();
        let is_empty = rules.is_empty() && properties.is_empty() && additional.is_none() && items.is_none();
        (!is_empty).then(|| Self { decl, rules, schema: schema.clone(), properties, additional, items })
    }
}

/// What is known of the value before the update.
#[derive(Clone, Copy, Default)]
struct Was<'a> {
    /// `None` in parts that cannot be followed back.
    here: Option<Correlated<'a>>,
    /// The innermost part around that can.
    above: Option<Correlated<'a>>,
}

impl<'a> Was<'a> {
    fn is_unchanged(self) -> bool {
        self.here.or(self.above).is_some_and(Correlated::is_unchanged)
    }

    fn key(self, name: &str) -> Self {
        match self.here {
            None => self,
            // Both sides of an update were brought to one version, so a change of these does not show.
            Some(_) if self.above.is_none() && matches!(name, "apiVersion" | "kind") => Self::default(),
            Some(here) => Self { here: here.key(name), above: Some(here) },
        }
    }

    /// The same of each item of a list.
    fn items(self) -> impl Fn(usize) -> Self {
        let items = self.here.map(Correlated::items);
        move |index| match &items {
            None => self,
            Some(items) => Self { here: items.get(index), above: self.here },
        }
    }
}

struct Run<'e> {
    errors: &'e mut ErrorList,
    budget: &'e mut Budget,
}

/// What to do after a rule.
enum Next {
    Go,
    Stop,
}

impl Run<'_> {
    fn node<'a>(
        &mut self,
        node: &'a Node,
        value: &'a Value,
        old: Option<&'a Value>,
        was: Was<'a>,
        path: &Path<'_>,
    ) -> bool {
        if value.is_null() {
            return true;
        }
        if !self.rules(node, value, old.filter(|old| !old.is_null()), was, path)
            || self.errors.len() >= ERRORS_MAX
        {
            return false;
        }
        match value {
            Value::Array(list) => {
                let Some(items) = &node.items else { return true };
                let old = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let (old, was) = (OldItems::of(&node.schema, old), was.items());
                list.iter().enumerate().all(|(index, item)| {
                    self.node(items, item, old.find(item, index), was(index), &path.index(index))
                })
            }
            Value::Object(map) => {
                if let Some(values) = &node.additional {
                    for (name, value) in map {
                        let old = old.and_then(|old| old.get(name));
                        if !self.node(values, value, old, was.key(name), &path.key(name)) {
                            return false;
                        }
                    }
                }
                node.properties.iter().all(|(name, property)| {
                    let Some(value) = map.get(name) else { return true };
                    let old = old.and_then(|old| old.get(name));
                    self.node(property, value, old, was.key(name), &path.child(name))
                })
            }
            _ => true,
        }
    }

    fn rules<'a>(
        &mut self,
        node: &'a Node,
        value: &'a Value,
        old: Option<&'a Value>,
        was: Was<'a>,
        path: &Path<'_>,
    ) -> bool {
        if node.rules.is_empty() {
            return true;
        }
        if self.budget.remaining() == 0 {
            self.complain(node, path, OUT_OF_BUDGET);
            return false;
        }
        let own = match cel::Value::declared(value, &node.decl) {
            Ok(own) => own,
            Err(error) => {
                for (rule, _) in &node.rules {
                    self.complain(node, path, format!("{error} evaluating rule: {}", named(rule)));
                }
                return true;
            }
        };
        let before = old.and_then(|old| cel::Value::declared(old, &node.decl).ok());
        let mut plain = Activation::new(variables());
        let mut optional = Activation::new(variables());
        plain.bind(SELF, own.clone());
        optional.bind(SELF, own);
        if let Some(before) = before.clone() {
            plain.bind(OLD_SELF, before);
        }
        let before = before.map_or(cel::Value::Optional(None), cel::Value::some);
        optional.bind(OLD_SELF, before);
        node.rules.iter().all(|(rule, compiled)| {
            let activations = Activations { plain: &plain, optional: &optional };
            matches!(self.rule(node, rule, compiled, value, old.is_some(), was, activations, path), Next::Go)
        })
    }

    #[expect(clippy::too_many_arguments, reason = "a rule is run on all that is known of its value")]
    fn rule<'a>(
        &mut self,
        node: &'a Node,
        rule: &Rule,
        compiled: &'a Compiled,
        value: &Value,
        has_old: bool,
        was: Was<'a>,
        activations: Activations<'_, 'a>,
        path: &Path<'_>,
    ) -> Next {
        let program = match &compiled.program {
            Ok(program) => program,
            Err(Refusal::Empty) => return Next::Go,
            Err(Refusal::Invalid(why)) => {
                self.complain(node, path, format!("rule compile error: {why}"));
                return Next::Go;
            }
        };
        let is_optional = rule.optional_old_self == Some(true);
        if compiled.uses_old_self && !has_old && !is_optional {
            return Next::Go;
        }
        let activation = if is_optional { activations.optional } else { activations.plain };
        match program.eval(activation, self.budget) {
            Ok(cel::Value::Bool(true)) => return Next::Go,
            Ok(_) => {}
            Err(error) => return self.failed(node, rule, &error, path),
        }
        let detail = match self.message(node, rule, compiled, activations.plain, path) {
            Ok(message) => message,
            Err(next) => return next,
        };
        if compiled.uses_old_self || !was.is_unchanged() {
            let place = match &compiled.field_path {
                Some(below) => path.child(below).to_string(),
                None => path.to_string(),
            };
            self.errors.push(complaint(node, rule, value, detail, place));
        }
        Next::Go
    }

    fn failed(&mut self, node: &Node, rule: &Rule, error: &cel::EvalError, path: &Path<'_>) -> Next {
        let rule = named(rule);
        match error.kind() {
            EvalErrorKind::Budget => {
                self.complain(node, path, OUT_OF_BUDGET);
                Next::Stop
            }
            EvalErrorKind::CostLimit => {
                let detail = format!(
                    "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {rule}"
                );
                self.complain(node, path, detail);
                Next::Stop
            }
            EvalErrorKind::Failed => {
                let text = error.to_string();
                let detail = if text.starts_with("no such overload") {
                    format!(
                        "'{text}': call arguments did not match a supported operator, function or macro signature for rule: {rule}"
                    )
                } else {
                    format!("{text} evaluating rule: {rule}")
                };
                self.complain(node, path, detail);
                Next::Go
            }
        }
    }

    /// What to say about a rule that does not hold; its own expression first, if that says something usable.
    fn message<'a>(
        &mut self,
        node: &Node,
        rule: &Rule,
        compiled: &'a Compiled,
        activation: &Activation<'a>,
        path: &Path<'_>,
    ) -> Result<String, Next> {
        let usual = || {
            if rule.message.is_empty() {
                format!("failed rule: {}", named(rule))
            } else {
                rule.message.trim().to_owned()
            }
        };
        let Some(program) = &compiled.message else { return Ok(usual()) };
        match program.eval(activation, self.budget) {
            Ok(value) => {
                let text = value.as_str().unwrap_or_default().trim();
                let usable = !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n');
                Ok(if usable { text.to_owned() } else { usual() })
            }
            Err(error) => match error.kind() {
                EvalErrorKind::Failed => Ok(usual()),
                EvalErrorKind::Budget => {
                    self.complain(
                        node,
                        path,
                        "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run",
                    );
                    Err(Next::Stop)
                }
                EvalErrorKind::CostLimit => {
                    let detail = format!(
                        "no further validation rules will be run due to call cost exceeds limit for messageExpression: {}",
                        go_quote(&rule.message_expression)
                    );
                    self.complain(node, path, detail);
                    Err(Next::Stop)
                }
            },
        }
    }

    /// A complaint about a rule rather than about the value; it shows the type.
    fn complain(&mut self, node: &Node, path: &Path<'_>, detail: impl Into<String>) {
        self.errors.push(Error::invalid(path, node.schema.type_name(), detail));
    }
}

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

#[derive(Clone, Copy)]
struct Activations<'s, 'a> {
    plain: &'s Activation<'a>,
    optional: &'s Activation<'a>,
}

/// A rule as messages name it.
fn named(rule: &Rule) -> &str {
    if rule.message.is_empty() { rule.rule.trim() } else { rule.message.trim() }
}

fn complaint(node: &Node, rule: &Rule, value: &Value, detail: String, path: String) -> Error {
    let is_compound = matches!(node.schema.kind, Some(Kind::Object | Kind::Array));
    let shown = (!is_compound).then(|| value.shown());
    match rule.reason.as_deref() {
        Some("FieldValueForbidden") => Error { kind: ErrorKind::Forbidden, path, shown: None, detail },
        Some("FieldValueRequired") => Error { kind: ErrorKind::Required, path, shown: None, detail },
        Some("FieldValueDuplicate") => {
            Error { kind: ErrorKind::Duplicate, path, shown, detail: String::new() }
        }
        _ => Error { kind: ErrorKind::Invalid, path, shown, detail },
    }
}

#[cfg(test)]
mod tests;

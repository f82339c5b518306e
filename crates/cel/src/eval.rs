//! Evaluation of a compiled expression.
//!
//! Hot path: one recursion over the [`Node`]s, whose depth the parser bounds. Costs are counted as cel-go's tracker
//! counts them, which is not always what one would think: constants and what can be folded into them are free, a
//! variable costs 1 and so does each step into it, `has` is the steps without the variable, and a branch of `?:`
//! that is a variable does not count it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::ast::operator;
use crate::cost::CallCost;
use crate::environment::Environment;
use crate::eval_error::EvalError;
use crate::limits;
use crate::plan::{Attribute, Base, Call, Fold, Node, Qualifier, Regex, Step};
use crate::program::Program;
use crate::value::{Evaluated, List, Map, Value};

/// What is left to spend on evaluations.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    remaining: u64,
}

impl Budget {
    pub fn new(limit: u64) -> Self {
        Self { remaining: limit }
    }

    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Spends; an error if there is not enough.
    pub fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        let enough = cost <= self.remaining;
        self.remaining = self.remaining.saturating_sub(cost);
        if enough { Ok(()) } else { Err(EvalError::budget()) }
    }
}

/// The variables of an evaluation.
///
/// A lazy variable is an expression over the others; it is evaluated when first read, once for all programs that are
/// evaluated on this activation.
#[derive(Debug)]
pub struct Activation<'a> {
    bindings: Vec<Binding<'a>>,
    lazy_cost: Cell<u64>,
}

#[derive(Debug)]
enum Binding<'a> {
    Absent,
    Value(Value<'a>),
    Lazy { program: &'a Program, value: RefCell<Option<Evaluated<'a>>> },
}

impl<'a> Activation<'a> {
    /// Without any value yet, for programs of this environment.
    pub fn new(environment: &Environment) -> Self {
        let bindings = (0..environment.variables_len()).map(|_| Binding::Absent).collect();
        Self { bindings, lazy_cost: Cell::new(0) }
    }

    /// Binds the variable of this number.
    pub fn bind(&mut self, variable: usize, value: Value<'a>) {
        self.bindings[variable] = Binding::Value(value);
    }

    /// Binds the variable of this number to an expression.
    pub fn bind_lazy(&mut self, variable: usize, program: &'a Program) {
        self.bindings[variable] = Binding::Lazy { program, value: RefCell::new(None) };
    }

    /// What lazy variables have cost since this was last asked.
    pub(crate) fn take_lazy_cost(&self) -> u64 {
        self.lazy_cost.take()
    }

    fn get(&self, variable: usize, name: &str) -> Evaluated<'a> {
        let absent = || Err(EvalError::new(format!("no such attribute(s): {name}")));
        match self.bindings.get(variable) {
            None | Some(Binding::Absent) => absent(),
            Some(Binding::Value(value)) => Ok(value.clone()),
            Some(Binding::Lazy { program, value }) => {
                let Ok(mut cached) = value.try_borrow_mut() else {
                    // Variables may only read those before them, so nothing reads itself.
                    return absent();
                };
                if let Some(known) = &*cached {
                    return known.clone();
                }
                let (result, cost) = program.eval_with_cost(self);
                self.lazy_cost.set(self.lazy_cost.get().saturating_add(cost));
                *cached = Some(result.clone());
                result
            }
        }
    }
}

/// The state of one evaluation.
pub(crate) struct Frame<'f, 'a> {
    activation: &'f Activation<'a>,
    /// Variables of comprehensions; an accumulator can hold an error that is absorbed later.
    locals: Vec<Evaluated<'a>>,
    cost: u64,
}

impl<'f, 'a> Frame<'f, 'a> {
    pub fn new(activation: &'f Activation<'a>, locals: usize) -> Self {
        let locals = (0..locals).map(|_| Ok(Value::Null)).collect();
        Self { activation, locals, cost: 0 }
    }

    pub fn cost(&self) -> u64 {
        self.cost
    }

    fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > limits::PER_CALL { Err(EvalError::cost_limit()) } else { Ok(()) }
    }
}

impl Node {
    pub(crate) fn eval<'a>(&'a self, frame: &mut Frame<'_, 'a>) -> Evaluated<'a> {
        match self {
            Self::Const(value) => Ok(value.clone()),
            Self::Attribute(attribute) => attribute.eval(frame, true),
            Self::And(terms) => logical(terms, false, frame),
            Self::Or(terms) => logical(terms, true, frame),
            Self::Equal { terms, negated, cost } => {
                let left = terms[0].eval(frame);
                let right = terms[1].eval(frame);
                let operands = match (left, right) {
                    (Ok(left), Ok(right)) => [left, right],
                    (left, right) => return Err(failed_operands(*cost, [left, right], frame)),
                };
                frame.charge(cost.of(&operands, None))?;
                Ok(Value::Bool(operands[0].equals(&operands[1]) != *negated))
            }
            Self::NotStrictlyFalse(node) => not_strictly_false(node, frame),
            Self::Call(call) => call.eval(frame),
            Self::Membership { value, set, list } => {
                let value = value.eval(frame)?;
                Ok(Value::Bool(match set {
                    Some(set) => set.contains(&value),
                    None => list.iter().any(|item| item.is_ok_and(|item| item.equals(&value))),
                }))
            }
            Self::OptionalOr(terms) => match terms[0].eval(frame)? {
                Value::Optional(None) => terms[1].eval(frame),
                some @ Value::Optional(Some(_)) => Ok(some),
                _ => Err(EvalError::no_such_overload()),
            },
            Self::OptionalOrValue(terms) => match terms[0].eval(frame)? {
                Value::Optional(None) => terms[1].eval(frame),
                Value::Optional(Some(value)) => Ok((*value).clone()),
                _ => Err(EvalError::no_such_overload()),
            },
            Self::List(elements) => list(elements, frame),
            Self::Map(entries) => map(entries, frame),
            Self::Message { object, fields } => {
                let mut values = Vec::with_capacity(fields.len());
                for (name, value, optional) in fields {
                    let value = counted(value, 40, frame)?;
                    if let Some(value) = initializer(value, *optional, name)? {
                        values.push((name.clone(), value));
                    }
                }
                frame.charge(40)?;
                Ok(Value::Map(Map::message(object, values)))
            }
            Self::Fold(fold) => fold.eval(frame),
        }
    }

    /// Evaluates an operand whose own unit, if it is a variable, is not counted.
    fn eval_uncounted<'a>(&'a self, frame: &mut Frame<'_, 'a>) -> Evaluated<'a> {
        match self {
            Self::Attribute(attribute) => attribute.eval(frame, false),
            other => other.eval(frame),
        }
    }
}

/// `&&` and `||`: the deciding value wins over errors on either side.
fn logical<'a>(terms: &'a [Node; 2], decisive: bool, frame: &mut Frame<'_, 'a>) -> Evaluated<'a> {
    let mut error = None;
    for term in terms {
        match term.eval(frame) {
            Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
            Ok(Value::Bool(_)) => {}
            Ok(_) => {
                error.get_or_insert_with(EvalError::no_such_overload);
            }
            Err(failed) if failed.is_final() => return Err(failed),
            Err(failed) => {
                error.get_or_insert(failed);
            }
        }
    }
    error.map_or(Ok(Value::Bool(!decisive)), Err)
}

fn not_strictly_false<'a>(node: &'a Node, frame: &mut Frame<'_, 'a>) -> Evaluated<'a> {
    let value = match node.eval(frame) {
        Ok(Value::Bool(value)) => value,
        Err(error) if error.is_final() => return Err(error),
        _ => true,
    };
    frame.charge(1)?;
    Ok(Value::Bool(value))
}

/// The value of an element that may be optional: `None` leaves it out.
fn initializer<'a>(
    value: Value<'a>,
    optional: bool,
    key: &dyn std::fmt::Display,
) -> Result<Option<Value<'a>>, EvalError> {
    match value {
        Value::Optional(value) if optional => Ok(value.map(|value| (*value).clone())),
        value if optional => Err(EvalError::new(format!(
            "cannot initialize optional entry '{key}' from non-optional value {value}"
        ))),
        value => Ok(Some(value)),
    }
}

/// Evaluates a part of a literal; the literal is paid for also if that fails.
fn counted<'a>(node: &'a Node, cost: u64, frame: &mut Frame<'_, 'a>) -> Evaluated<'a> {
    let result = node.eval(frame);
    if result.is_err() {
        frame.charge(cost)?;
    }
    result
}

fn list<'a>(elements: &'a [(Node, bool)], frame: &mut Frame<'_, 'a>) -> Evaluated<'a> {
    let mut items = Vec::with_capacity(elements.len());
    for (element, optional) in elements {
        match counted(element, 10, frame)? {
            Value::Optional(value) if *optional => items.extend(value.map(|value| (*value).clone())),
            value if *optional => {
                return Err(EvalError::new(format!(
                    "cannot initialize optional list element from non-optional value {value}"
                )));
            }
            value => items.push(value),
        }
    }
    frame.charge(10)?;
    Ok(Value::list(items))
}

fn map<'a>(entries: &'a [(Node, Node, bool)], frame: &mut Frame<'_, 'a>) -> Evaluated<'a> {
    let mut pairs = Vec::with_capacity(entries.len());
    for (key, value, optional) in entries {
        let key = counted(key, 30, frame)?;
        let value = counted(value, 30, frame)?;
        if let Some(value) = initializer(value, *optional, &key)? {
            pairs.push((key, value));
        }
    }
    frame.charge(30)?;
    Ok(Value::Map(Map::from_entries(pairs)?))
}

impl Call {
    fn eval<'a>(&'a self, frame: &mut Frame<'_, 'a>) -> Evaluated<'a> {
        match &self.args[..] {
            // A constant pattern makes it a call that ends with the first failure, unpaid.
            _ if self.regex.is_some() => {}
            [only] => {
                return match only.eval(frame) {
                    Ok(value) => self.apply(&[value], frame),
                    Err(error) => Err(failed_operands(self.cost, [Err(error)], frame)),
                };
            }
            // Both are evaluated, and accounted for, before either's error counts.
            [first, second] => {
                return match (first.eval(frame), second.eval(frame)) {
                    (Ok(first), Ok(second)) => self.apply(&[first, second], frame),
                    (first, second) => Err(failed_operands(self.cost, [first, second], frame)),
                };
            }
            _ => {}
        }
        let mut values: SmallVec<[Value<'a>; 3]> = SmallVec::with_capacity(self.args.len());
        for arg in &self.args {
            values.push(arg.eval(frame)?);
        }
        self.apply(&values, frame)
    }

    fn apply<'a>(&'a self, args: &[Value<'a>], frame: &mut Frame<'_, 'a>) -> Evaluated<'a> {
        if let Some(cost) = self.cost.before(args) {
            frame.charge(cost)?;
            return self.run(args);
        }
        let result = self.run(args);
        frame.charge(self.cost.of(args, result.as_ref().ok()))?;
        result
    }

    pub(crate) fn run<'a>(&self, args: &[Value<'a>]) -> Evaluated<'a> {
        match (&self.regex, args) {
            (Some(Regex::Matches(regex)), [Value::String(text), ..]) => Ok(Value::Bool(regex.is_match(text))),
            (Some(Regex::Find(regex)), [Value::String(text), ..]) => {
                Ok(crate::library::regex::first_match(regex, text))
            }
            (Some(Regex::FindAll(regex)), [Value::String(text), _, limit @ ..]) => {
                crate::library::regex::all_matches(regex, text, limit)
            }
            _ => (self.implementation)(args).map_err(|error| self.named(error, args)),
        }
    }

    /// Says which overload was missing, where upstream does.
    #[cold]
    fn named(&self, error: EvalError, args: &[Value<'_>]) -> EvalError {
        if error != EvalError::no_such_overload() {
            return error;
        }
        let name = self.function;
        if name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return match name {
                "contains" | "startsWith" | "endsWith" | "matches" | "containsIP" | "type" | "dyn" => error,
                "size" => EvalError::new("no such overload: size"),
                _ => {
                    let types: Vec<String> = args.iter().map(|arg| arg.type_of().name().to_owned()).collect();
                    EvalError::new(format!("no such overload: {name}({})", types.join(", ")))
                }
            };
        }
        if args.first().is_none_or(|first| has_operator(first, name)) {
            return error;
        }
        EvalError::new(format!("no such overload: {name}"))
    }
}

/// Whether values of this type have an operator at all.
fn has_operator(value: &Value<'_>, name: &str) -> bool {
    let number = matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_));
    let time = matches!(value, Value::Duration(_) | Value::Timestamp(_));
    let text = matches!(value, Value::String(_) | Value::Bytes(_));
    match name {
        operator::ADD => number || time || text || matches!(value, Value::List(_)),
        operator::SUBTRACT => number || time,
        operator::MULTIPLY | operator::DIVIDE => number,
        operator::MODULO => matches!(value, Value::Int(_) | Value::Uint(_)),
        operator::LESS | operator::LESS_EQUALS | operator::GREATER | operator::GREATER_EQUALS => {
            number || time || text || matches!(value, Value::Bool(_))
        }
        _ => true,
    }
}

/// The first error, after the call is accounted for: what failed counts as a value of size 1.
#[cold]
fn failed_operands<'a, const N: usize>(
    cost: CallCost,
    operands: [Evaluated<'a>; N],
    frame: &mut Frame<'_, 'a>,
) -> EvalError {
    let mut error = None;
    let values = operands.map(|operand| {
        operand.unwrap_or_else(|failed| {
            error.get_or_insert(failed);
            Value::Null
        })
    });
    let error = error.unwrap_or_else(EvalError::no_such_overload);
    if error.is_final() {
        return error;
    }
    frame.charge(cost.of(&values, None)).err().unwrap_or(error)
}

impl Attribute {
    /// `counted` says whether the variable itself costs 1.
    fn eval<'a>(&'a self, frame: &mut Frame<'_, 'a>, counted: bool) -> Evaluated<'a> {
        let conditional = matches!(self.base, Base::Conditional(_));
        let result = self.resolve(frame);
        if counted && !conditional && !self.test_only {
            frame.charge(1)?;
        }
        result
    }

    fn resolve<'a>(&'a self, frame: &mut Frame<'_, 'a>) -> Evaluated<'a> {
        let mut value = match &self.base {
            Base::Variable { index, name } => frame.activation.get(*index, name)?,
            Base::Composed { index, name } => {
                let value = frame.activation.get(*index, name);
                frame.charge(1)?;
                value.map_err(|error| error.of_composed(name))?
            }
            Base::Local(slot) => frame.locals[*slot].clone()?,
            Base::Relative(node) => node.eval(frame)?,
            Base::Conditional(parts) => match parts.0.eval(frame)? {
                Value::Bool(true) => parts.1.eval_uncounted(frame)?,
                Value::Bool(false) => parts.2.eval_uncounted(frame)?,
                _ => return Err(EvalError::no_such_overload()),
            },
        };
        if self.qualifiers.is_empty() {
            return Ok(value);
        }
        let mut optional = false;
        if let Value::Optional(inner) = value {
            let Some(inner) = inner else { return Ok(self.absent()) };
            value = (*inner).clone();
            optional = true;
        }
        let last = self.qualifiers.len() - 1;
        for (at, (qualifier, marked)) in self.qualifiers.iter().enumerate() {
            optional |= marked;
            let test = self.test_only && at == last;
            match qualifier.step(&value, frame)? {
                Some(next) => {
                    frame.charge(1)?;
                    value = next;
                }
                None if test => {
                    frame.charge(1)?;
                    return Ok(Value::Bool(false));
                }
                None if optional => return Ok(self.absent()),
                None => {
                    frame.charge(1)?;
                    return Err(qualifier.missing(&value, frame));
                }
            }
            if test {
                return Ok(Value::Bool(!matches!(value, Value::Optional(None))));
            }
        }
        Ok(if optional { Value::some(value) } else { value })
    }

    /// The result when there was nothing to look into.
    fn absent<'a>(&self) -> Value<'a> {
        if self.test_only { Value::Bool(false) } else { Value::Optional(None) }
    }
}

impl Qualifier {
    fn step<'a>(
        &'a self,
        value: &Value<'a>,
        frame: &mut Frame<'_, 'a>,
    ) -> Result<Option<Value<'a>>, EvalError> {
        match self {
            Self::Field(name) => value.field(name),
            Self::Key(key) => value.at(key),
            Self::Computed(node) => {
                let key = node.eval_uncounted(frame)?;
                value.at(&key)
            }
        }
    }

    fn missing<'a>(&'a self, value: &Value<'a>, frame: &mut Frame<'_, 'a>) -> EvalError {
        let before = frame.cost;
        let key = match self {
            Self::Field(name) => Value::borrowed(name),
            Self::Key(key) => key.clone(),
            Self::Computed(node) => match node.eval_uncounted(frame) {
                Ok(key) => key,
                Err(error) => return error,
            },
        };
        frame.cost = before;
        match value {
            Value::List(_) => EvalError::new(format!("index out of bounds: {key}")),
            _ => EvalError::no_such_key(&key),
        }
    }
}

impl Fold {
    fn eval<'a>(&'a self, frame: &mut Frame<'_, 'a>) -> Evaluated<'a> {
        let range = self.range.eval(frame)?;
        frame.locals[self.accumulator] = self.init.eval(frame);
        if let Err(error) = &frame.locals[self.accumulator]
            && error.is_final()
        {
            return Err(error.clone());
        }
        match &range {
            Value::List(list) => {
                for index in 0..list.len() {
                    let item = list.get(index).ok_or_else(EvalError::no_such_overload)?;
                    let index = Value::Int(i64::try_from(index).unwrap_or(i64::MAX));
                    if !self.next(Ok(index), item, false, frame)? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for (key, value) in map.entries() {
                    if !self.next(Ok(key.value()), value, true, frame)? {
                        break;
                    }
                }
            }
            other => {
                return Err(EvalError::new(format!(
                    "got '{}', expected iterable type",
                    other.type_of().name()
                )));
            }
        }
        self.result.eval(frame)
    }

    /// One iteration; false when the condition says to stop.
    fn next<'a>(
        &'a self,
        key: Evaluated<'a>,
        item: Evaluated<'a>,
        keyed: bool,
        frame: &mut Frame<'_, 'a>,
    ) -> Result<bool, EvalError> {
        match self.second {
            Some(second) => {
                frame.locals[self.variable] = key;
                frame.locals[second] = item;
            }
            None => frame.locals[self.variable] = if keyed { key } else { item },
        }
        match self.condition.eval(frame) {
            Ok(Value::Bool(false)) => return Ok(false),
            Err(error) if error.is_final() => return Err(error),
            _ => {}
        }
        let accumulated = match &self.step {
            Step::Node(node) => node.eval(frame),
            Step::Append { filter, element } => self.append(filter.as_ref(), element, frame),
            Step::Insert { filter, key, value } => self.insert(filter.as_ref(), key.as_ref(), value, frame),
        };
        if let Err(error) = &accumulated
            && error.is_final()
        {
            return Err(error.clone());
        }
        frame.locals[self.accumulator] = accumulated;
        Ok(true)
    }

    /// Takes the accumulator out of its place, so that adding to it makes no copy.
    fn take<'a>(&self, frame: &mut Frame<'_, 'a>) -> Evaluated<'a> {
        std::mem::replace(&mut frame.locals[self.accumulator], Ok(Value::Null))
    }

    /// Whether the filter lets this iteration add something; if not, the accumulator stays as it is.
    fn filtered<'a>(filter: Option<&'a Node>, frame: &mut Frame<'_, 'a>) -> Result<bool, EvalError> {
        match filter.map(|filter| filter.eval(frame)) {
            None | Some(Ok(Value::Bool(true))) => Ok(true),
            Some(Ok(Value::Bool(false))) => Ok(false),
            Some(Ok(_)) => Err(EvalError::no_such_overload()),
            Some(Err(error)) => Err(error),
        }
    }

    /// `@result + [element]`: the accumulator 1, the list 10 unless it is constant, the sum 1.
    fn append<'a>(
        &'a self,
        filter: Option<&'a Node>,
        element: &'a Node,
        frame: &mut Frame<'_, 'a>,
    ) -> Evaluated<'a> {
        if !Self::filtered(filter, frame)? {
            return self.take(frame);
        }
        let item = element.eval(frame);
        let literal = if matches!(element, Node::Const(_)) { 0 } else { 10 };
        frame.charge(2 + literal)?;
        match self.take(frame)? {
            Value::List(mut list) => {
                list.push(item?)?;
                Ok(Value::List(list))
            }
            _ => Err(EvalError::no_such_overload()),
        }
    }

    /// `cel.@mapInsert(@result, key, value)`: the accumulator 1, the call 1.
    fn insert<'a>(
        &'a self,
        filter: Option<&'a Node>,
        key: Option<&'a Node>,
        value: &'a Node,
        frame: &mut Frame<'_, 'a>,
    ) -> Evaluated<'a> {
        if !Self::filtered(filter, frame)? {
            return self.take(frame);
        }
        let key = key.map(|key| key.eval(frame)).transpose()?;
        let value = value.eval(frame)?;
        frame.charge(2)?;
        let Value::Map(mut map) = self.take(frame)? else { return Err(EvalError::no_such_overload()) };
        match (key, value) {
            (Some(key), value) => map.insert(key, value)?,
            (None, Value::Map(entries)) => {
                for (key, value) in entries.entries() {
                    map.insert(key.value(), value?)?;
                }
            }
            _ => return Err(EvalError::no_such_overload()),
        }
        Ok(Value::Map(map))
    }
}

/// Constants of a list, for membership by look-up.
#[derive(Debug)]
pub(crate) struct ConstantSet(std::collections::HashSet<crate::value::Key<'static>>);

impl ConstantSet {
    /// The set of a list whose items can all be keys.
    pub fn of(list: &List<'static>) -> Option<Arc<Self>> {
        let keys = list.iter().map(|item| crate::value::Key::of(&item.ok()?)).collect::<Option<_>>()?;
        Some(Arc::new(Self(keys)))
    }

    fn contains(&self, value: &Value<'_>) -> bool {
        crate::value::Key::of(value).is_some_and(|key| self.0.contains(&key))
    }
}

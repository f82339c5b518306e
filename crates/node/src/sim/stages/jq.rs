//! The part of jq in which Stages say what they look at.
//!
//! Owns: paths (`.a`, `."a"`, `["a"]`, `[0]`, `[]`, each with `?`), `|`, `,`, `//`, `or`, `and`, `==` `!=` `<` `<=` `>`
//! `>=`, parentheses, literals, and the functions of [`Function`]. Anything else is refused by name. Never touches:
//! assignments, arithmetic, definitions, variables.
//!
//! Hot path: a path is walked through the tree; only what an expression computes is made.

use std::borrow::Cow;
use std::cmp::Ordering;

use apimachinery::value::Number;
use apimachinery::{Str, Value};

/// A compiled query.
#[derive(Debug)]
pub struct Query {
    root: Filter,
}

/// Parentheses, pipes and arguments in one another.
const DEPTH_MAX: usize = 64;

#[derive(Debug)]
enum Filter {
    Identity,
    Literal(Value),
    Field(Box<Filter>, Str),
    /// `x[y]`
    Index(Box<Filter>, Box<Filter>),
    /// `x[]`
    Each(Box<Filter>),
    /// `x?`
    Try(Box<Filter>),
    Pipe(Box<Filter>, Box<Filter>),
    Comma(Box<Filter>, Box<Filter>),
    Alternative(Box<Filter>, Box<Filter>),
    Or(Box<Filter>, Box<Filter>),
    And(Box<Filter>, Box<Filter>),
    Compare(fn(Ordering) -> bool, Box<Filter>, Box<Filter>),
    Call(Function, Vec<Filter>),
}

/// Functions by name and number of arguments.
#[derive(Clone, Copy, Debug)]
enum Function {
    Select,
    Map,
    Any,
    AnyOf,
    All,
    AllOf,
    Has,
    Contains,
    StartsWith,
    EndsWith,
    Not,
    Length,
    Keys,
    First,
    Last,
    Type,
    ToString,
    ToNumber,
    Empty,
}

const FUNCTIONS: &[(&str, usize, Function)] = &[
    ("select", 1, Function::Select),
    ("map", 1, Function::Map),
    ("any", 0, Function::Any),
    ("any", 1, Function::AnyOf),
    ("all", 0, Function::All),
    ("all", 1, Function::AllOf),
    ("has", 1, Function::Has),
    ("contains", 1, Function::Contains),
    ("startswith", 1, Function::StartsWith),
    ("endswith", 1, Function::EndsWith),
    ("not", 0, Function::Not),
    ("length", 0, Function::Length),
    ("keys", 0, Function::Keys),
    ("first", 0, Function::First),
    ("last", 0, Function::Last),
    ("type", 0, Function::Type),
    ("tostring", 0, Function::ToString),
    ("tonumber", 0, Function::ToNumber),
    ("empty", 0, Function::Empty),
];

impl Query {
    /// Compiles a query; what it cannot be is said with the place.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let root = parser.pipe()?;
        match parser.peek() {
            None => Ok(Self { root }),
            Some(letter) => Err(parser.unexpected(letter)),
        }
    }

    /// What it yields, nulls left out; nothing as soon as any part of it fails.
    pub fn results<'v>(&self, tree: &'v Value) -> Vec<Cow<'v, Value>> {
        let mut found = Vec::new();
        let collected = self.root.run(Cow::Borrowed(tree), &mut |value| {
            if !value.is_null() {
                found.push(value);
            }
            Ok(())
        });
        if collected.is_err() { Vec::new() } else { found }
    }

    /// The first of [`Query::results`].
    pub fn first<'v>(&self, tree: &'v Value) -> Option<Cow<'v, Value>> {
        self.results(tree).into_iter().next()
    }
}

// === evaluation ===

/// A query that cannot be answered on what it looks at. `Stop` ends a search that has its answer.
#[derive(Debug)]
enum Halt {
    Failed,
    Stop,
}

type Outcome = Result<(), Halt>;

impl Filter {
    fn run<'v>(&self, input: Cow<'v, Value>, give: &mut dyn FnMut(Cow<'v, Value>) -> Outcome) -> Outcome {
        match self {
            Self::Identity => give(input),
            Self::Literal(value) => give(Cow::Owned(value.clone())),
            Self::Field(from, name) => from.run(input, &mut |value| give(field(value, name)?)),
            Self::Index(from, key) => from.run(input.clone(), &mut |value| {
                key.run(input.clone(), &mut |key| give(index(value.clone(), &key)?))
            }),
            Self::Each(from) => from.run(input, &mut |value| each(value, give)),
            Self::Try(inner) => {
                // What `give` itself answers is not for us to hide.
                let mut answer = Ok(());
                let ran = inner.run(input, &mut |value| {
                    answer = give(value);
                    if answer.is_err() { Err(Halt::Stop) } else { Ok(()) }
                });
                answer?;
                if matches!(ran, Err(Halt::Stop)) { ran } else { Ok(()) }
            }
            Self::Pipe(left, right) => left.run(input, &mut |value| right.run(value, give)),
            Self::Comma(left, right) => {
                left.run(input.clone(), give)?;
                right.run(input, give)
            }
            Self::Alternative(left, right) => {
                let mut truths = Vec::new();
                let _ = left.run(input.clone(), &mut |value| {
                    if is_true(&value) {
                        truths.push(value);
                    }
                    Ok(())
                });
                if truths.is_empty() { right.run(input, give) } else { truths.into_iter().try_for_each(give) }
            }
            Self::Or(left, right) => logical(true, [left, right], input, give),
            Self::And(left, right) => logical(false, [left, right], input, give),
            Self::Compare(accepted, left, right) => right.run(input.clone(), &mut |right| {
                left.run(input.clone(), &mut |left| give(truth(accepted(order(&left, &right)))))
            }),
            Self::Call(function, arguments) => function.run(arguments, input, give),
        }
    }

    fn is_any_true(&self, input: Cow<'_, Value>, wanted: bool) -> Result<bool, Halt> {
        let mut found = false;
        let ran = self.run(input, &mut |value| {
            found |= is_true(&value) == wanted;
            if found { Err(Halt::Stop) } else { Ok(()) }
        });
        if found { Ok(true) } else { ran.map(|()| false) }
    }
}

fn logical<'v>(
    decisive: bool,
    [left, right]: [&Filter; 2],
    input: Cow<'v, Value>,
    give: &mut dyn FnMut(Cow<'v, Value>) -> Outcome,
) -> Outcome {
    left.run(input.clone(), &mut |value| {
        if is_true(&value) == decisive {
            return give(truth(decisive));
        }
        right.run(input.clone(), &mut |value| give(truth(is_true(&value))))
    })
}

impl Function {
    fn run<'v>(
        self,
        arguments: &[Filter],
        input: Cow<'v, Value>,
        give: &mut dyn FnMut(Cow<'v, Value>) -> Outcome,
    ) -> Outcome {
        match (self, arguments) {
            (Self::Select, [test]) => test.run(input.clone(), &mut |value| {
                if is_true(&value) { give(input.clone()) } else { Ok(()) }
            }),
            (Self::Map, [inner]) => {
                let mut made = Vec::new();
                each(input, &mut |item| {
                    inner.run(item, &mut |value| {
                        made.push(value.into_owned());
                        Ok(())
                    })
                })?;
                give(Cow::Owned(made.into()))
            }
            (Self::Any, _) => give(truth(Filter::Each(Box::new(Filter::Identity)).is_any_true(input, true)?)),
            (Self::All, _) => {
                give(truth(!Filter::Each(Box::new(Filter::Identity)).is_any_true(input, false)?))
            }
            (Self::AnyOf | Self::AllOf, [test]) => {
                let wanted = matches!(self, Self::AnyOf);
                let mut found = false;
                each(input, &mut |item| {
                    found = found || test.is_any_true(item, wanted)?;
                    Ok(())
                })?;
                give(truth(found == wanted))
            }
            (Self::Empty, _) => Ok(()),
            (_, [argument]) => argument.run(input.clone(), &mut |argument| {
                give(truth(self.holds(&input, &argument).ok_or(Halt::Failed)?))
            }),
            _ => give(Cow::Owned(self.of(&input).ok_or(Halt::Failed)?)),
        }
    }

    /// A question about a value, with an argument.
    fn holds(self, input: &Value, argument: &Value) -> Option<bool> {
        match (self, input, argument) {
            (Self::Has, Value::Object(map), Value::String(key)) => Some(map.contains_key(key)),
            (Self::Has, Value::Array(items), key) => {
                let at = key.as_i64()?;
                Some(usize::try_from(at).is_ok_and(|at| at < items.len()))
            }
            (Self::StartsWith, Value::String(text), Value::String(start)) => {
                Some(text.starts_with(start.as_str()))
            }
            (Self::EndsWith, Value::String(text), Value::String(end)) => Some(text.ends_with(end.as_str())),
            (Self::Contains, whole, part) => contains(whole, part),
            _ => None,
        }
    }

    /// What a value becomes.
    fn of(self, input: &Value) -> Option<Value> {
        match (self, input) {
            (Self::Not, _) => Some((!is_true(input)).into()),
            (Self::Length, Value::Null) => Some(0.into()),
            (Self::Length, Value::String(text)) => Some((text.chars().count() as u64).into()),
            (Self::Length, Value::Array(items)) => Some((items.len() as u64).into()),
            (Self::Length, Value::Object(map)) => Some((map.len() as u64).into()),
            (Self::Length, Value::Number(Number::Int(number))) => Some(number.checked_abs()?.into()),
            (Self::Length, Value::Number(number)) => Some(number.as_f64().abs().into()),
            (Self::Keys, Value::Object(map)) => {
                Some(map.keys().map(|key| Value::from(key.clone())).collect())
            }
            (Self::Keys, Value::Array(items)) => Some((0..items.len() as u64).map(Value::from).collect()),
            (Self::First, Value::Null) | (Self::Last, Value::Null) => Some(Value::Null),
            (Self::First, Value::Array(items)) => Some(items.first().cloned().unwrap_or_default()),
            (Self::Last, Value::Array(items)) => Some(items.last().cloned().unwrap_or_default()),
            (Self::Type, Value::Bool(_)) => Some("boolean".into()),
            (Self::Type, other) => Some(other.json_type().into()),
            (Self::ToString, Value::String(_)) => Some(input.clone()),
            (Self::ToString, other) => Some(other.to_json_string().into()),
            (Self::ToNumber, Value::Number(_)) => Some(input.clone()),
            (Self::ToNumber, Value::String(text)) => {
                Value::parse(text.as_bytes()).ok().filter(|value| matches!(value, Value::Number(_)))
            }
            _ => None,
        }
    }
}

fn truth<'v>(value: bool) -> Cow<'v, Value> {
    Cow::Owned(Value::Bool(value))
}

fn is_true(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}

fn field<'v>(value: Cow<'v, Value>, name: &str) -> Result<Cow<'v, Value>, Halt> {
    match value {
        Cow::Borrowed(Value::Null) => Ok(Cow::Owned(Value::Null)),
        Cow::Borrowed(Value::Object(map)) => Ok(map.get(name).map_or(Cow::Owned(Value::Null), Cow::Borrowed)),
        Cow::Owned(Value::Null) => Ok(Cow::Owned(Value::Null)),
        Cow::Owned(Value::Object(mut map)) => Ok(Cow::Owned(map.remove(name).unwrap_or_default())),
        _ => Err(Halt::Failed),
    }
}

fn index<'v>(value: Cow<'v, Value>, key: &Value) -> Result<Cow<'v, Value>, Halt> {
    let at = match key {
        Value::String(name) => return field(value, name),
        Value::Number(number) => number.as_f64().floor() as i64,
        _ => return Err(Halt::Failed),
    };
    let place = |length: usize| {
        let at = if at < 0 { at + length as i64 } else { at };
        usize::try_from(at).ok()
    };
    match value {
        Cow::Borrowed(Value::Array(items)) => {
            let item = place(items.len()).and_then(|at| items.get(at));
            Ok(item.map_or(Cow::Owned(Value::Null), Cow::Borrowed))
        }
        Cow::Owned(Value::Array(items)) => {
            Ok(Cow::Owned(place(items.len()).and_then(|at| items.get(at)).cloned().unwrap_or_default()))
        }
        value if value.is_null() => Ok(Cow::Owned(Value::Null)),
        _ => Err(Halt::Failed),
    }
}

fn each<'v>(value: Cow<'v, Value>, give: &mut dyn FnMut(Cow<'v, Value>) -> Outcome) -> Outcome {
    match value {
        Cow::Borrowed(Value::Array(items)) => items.iter().try_for_each(|item| give(Cow::Borrowed(item))),
        Cow::Borrowed(Value::Object(map)) => map.values().try_for_each(|item| give(Cow::Borrowed(item))),
        Cow::Owned(Value::Array(items)) => items.into_iter().try_for_each(|item| give(Cow::Owned(item))),
        Cow::Owned(Value::Object(map)) => map.into_iter().try_for_each(|(_, item)| give(Cow::Owned(item))),
        _ => Err(Halt::Failed),
    }
}

/// Whether the whole holds the part, text in text, item in item; `None` for values of two types.
fn contains(whole: &Value, part: &Value) -> Option<bool> {
    match (whole, part) {
        (Value::String(whole), Value::String(part)) => Some(whole.contains(part.as_str())),
        (Value::Array(items), Value::Array(parts)) => {
            Some(parts.iter().all(|part| items.iter().any(|item| contains(item, part) == Some(true))))
        }
        (Value::Object(map), Value::Object(parts)) => {
            let holds = |(key, part): (&Str, &Value)| {
                map.get(key).is_some_and(|own| contains(own, part) == Some(true))
            };
            Some(parts.iter().all(holds))
        }
        (whole, part) if rank(whole) == rank(part) => Some(whole == part),
        _ => None,
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(false) => 1,
        Value::Bool(true) => 2,
        Value::Number(_) => 3,
        Value::String(_) => 4,
        Value::Array(_) => 5,
        Value::Object(_) => 6,
    }
}

/// The order of all values: null, false, true, numbers, texts, lists, objects.
fn order(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64().total_cmp(&right.as_f64()),
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Array(left), Value::Array(right)) => {
            let items = left.iter().zip(right).map(|(left, right)| order(left, right));
            items.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| left.len().cmp(&right.len()))
        }
        (Value::Object(left), Value::Object(right)) => left.keys().cmp(right.keys()).then_with(|| {
            let items = left.values().zip(right.values()).map(|(left, right)| order(left, right));
            items.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        }),
        (left, right) => rank(left).cmp(&rank(right)),
    }
}

// === parsing ===

struct Parser<'q> {
    text: &'q str,
    at: usize,
    depth: usize,
}

type Parsed = Result<Filter, String>;

/// Whether an order makes a comparison true.
type Comparison = fn(Ordering) -> bool;

const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Ordering::is_eq),
    ("!=", Ordering::is_ne),
    ("<=", Ordering::is_le),
    (">=", Ordering::is_ge),
    ("<", Ordering::is_lt),
    (">", Ordering::is_gt),
];

impl<'q> Parser<'q> {
    fn rest(&self) -> &'q str {
        &self.text[self.at..]
    }

    /// The next letter that is no space.
    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    fn unexpected(&self, letter: char) -> String {
        format!("{:?} at position {} of {:?} is not supported in a key", letter, self.at + 1, self.text)
    }

    fn take(&mut self, token: &str) -> bool {
        self.peek();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        match (self.take(token), self.peek()) {
            (true, _) => Ok(()),
            (false, Some(letter)) => Err(self.unexpected(letter)),
            (false, None) => Err(format!("{:?} ends where {token:?} is due", self.text)),
        }
    }

    /// A word of the language, if it is the next.
    fn take_word(&mut self, word: &str) -> bool {
        self.peek();
        let found = self.word_ahead() == word;
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn word_ahead(&self) -> &'q str {
        let rest = self.rest();
        let end = rest.find(|letter: char| letter != '_' && !letter.is_ascii_alphanumeric());
        &rest[..end.unwrap_or(rest.len())]
    }

    fn pipe(&mut self) -> Parsed {
        if self.depth >= DEPTH_MAX {
            return Err(format!("{:?} is nested too deeply", self.text));
        }
        self.depth += 1;
        let mut left = self.comma()?;
        while !self.rest_is_assignment() && self.take("|") {
            left = Filter::Pipe(Box::new(left), Box::new(self.comma()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    /// `|=`
    fn rest_is_assignment(&mut self) -> bool {
        self.peek();
        self.rest().starts_with("|=")
    }

    fn comma(&mut self) -> Parsed {
        let mut left = self.alternative()?;
        while self.take(",") {
            left = Filter::Comma(Box::new(left), Box::new(self.alternative()?));
        }
        Ok(left)
    }

    fn alternative(&mut self) -> Parsed {
        let left = self.or()?;
        self.peek();
        if !self.rest().starts_with("//=") && self.take("//") {
            return Ok(Filter::Alternative(Box::new(left), Box::new(self.alternative()?)));
        }
        Ok(left)
    }

    fn or(&mut self) -> Parsed {
        let mut left = self.and()?;
        while self.take_word("or") {
            left = Filter::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed {
        let mut left = self.comparison()?;
        while self.take_word("and") {
            left = Filter::And(Box::new(left), Box::new(self.comparison()?));
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Parsed {
        let left = self.postfix()?;
        let Some((_, accepted)) = COMPARISONS.iter().find(|(token, _)| self.take(token)) else {
            return Ok(left);
        };
        Ok(Filter::Compare(*accepted, Box::new(left), Box::new(self.postfix()?)))
    }

    fn postfix(&mut self) -> Parsed {
        let mut filter = self.term()?;
        loop {
            self.peek();
            let rest = self.rest();
            filter = if rest.starts_with('[') {
                self.bracket(filter)?
            } else if rest.starts_with(".[") {
                self.at += 1;
                self.bracket(filter)?
            } else if rest.starts_with('.') && rest[1..].starts_with(starts_name) {
                self.at += 1;
                self.name(filter)?
            } else if self.take("?") {
                Filter::Try(Box::new(filter))
            } else {
                return Ok(filter);
            };
        }
    }

    fn bracket(&mut self, from: Filter) -> Parsed {
        self.expect("[")?;
        if self.take("]") {
            return Ok(Filter::Each(Box::new(from)));
        }
        let key = self.pipe()?;
        self.expect("]")?;
        Ok(match key {
            Filter::Literal(Value::String(name)) => Filter::Field(Box::new(from), name),
            key => Filter::Index(Box::new(from), Box::new(key)),
        })
    }

    /// What follows a dot: a name, plain or quoted.
    fn name(&mut self, from: Filter) -> Parsed {
        if self.rest().starts_with('"') {
            let Value::String(name) = self.string()? else { unreachable!("a string is read as one") };
            return Ok(Filter::Field(Box::new(from), name));
        }
        let name = self.word_ahead();
        self.at += name.len();
        Ok(Filter::Field(Box::new(from), name.into()))
    }

    fn term(&mut self) -> Parsed {
        let Some(letter) = self.peek() else { return Err(format!("{:?} ends too early", self.text)) };
        match letter {
            '.' => {
                self.at += 1;
                match self.rest().chars().next() {
                    Some('.') => Err(self.unexpected('.')),
                    Some(next) if starts_name(next) => self.name(Filter::Identity),
                    _ => Ok(Filter::Identity),
                }
            }
            '(' => {
                self.at += 1;
                let inner = self.pipe()?;
                self.expect(")")?;
                Ok(inner)
            }
            '"' => self.string().map(Filter::Literal),
            '-' | '0'..='9' => self.number(),
            letter if letter == '_' || letter.is_ascii_alphabetic() => self.call(),
            letter => Err(self.unexpected(letter)),
        }
    }

    /// A text of JSON; `\(…)` in it would be computed.
    fn string(&mut self) -> Result<Value, String> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.bytes().skip(1).position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        let end = end.ok_or_else(|| format!("{:?} has a text that does not end", self.text))? + 2;
        let text = &rest[..end];
        let value = Value::parse(text.as_bytes());
        let value = value.map_err(|_| format!("{text} at position {} is not a text of JSON", self.at + 1))?;
        self.at += end;
        Ok(value)
    }

    fn number(&mut self) -> Parsed {
        let rest = self.rest();
        let end = rest[1..].find(|letter: char| !letter.is_ascii_digit() && !".eE".contains(letter));
        let text = &rest[..end.map_or(rest.len(), |end| end + 1)];
        let value =
            Value::parse(text.as_bytes()).map_err(|_| self.unexpected(rest.chars().next().unwrap_or('-')))?;
        self.at += text.len();
        Ok(Filter::Literal(value))
    }

    fn call(&mut self) -> Parsed {
        let name = self.word_ahead();
        let start = self.at;
        self.at += name.len();
        match name {
            "null" => return Ok(Filter::Literal(Value::Null)),
            "true" | "false" => return Ok(Filter::Literal((name == "true").into())),
            _ => {}
        }
        let mut arguments = Vec::new();
        if self.rest().starts_with('(') {
            self.at += 1;
            arguments.push(self.pipe()?);
            while self.take(";") {
                arguments.push(self.pipe()?);
            }
            self.expect(")")?;
        }
        let known = FUNCTIONS.iter().find(|(own, count, _)| *own == name && *count == arguments.len());
        match known {
            Some((_, _, function)) => Ok(Filter::Call(*function, arguments)),
            None => {
                let mut names: Vec<&str> = FUNCTIONS.iter().map(|(own, ..)| *own).collect();
                names.dedup();
                let names = names.join(", ");
                let (count, place) = (arguments.len(), start + 1);
                Err(format!(
                    "function {name}/{count} at position {place} is not supported; there are {names}"
                ))
            }
        }
    }
}

fn starts_name(letter: char) -> bool {
    letter == '"' || letter == '_' || letter.is_ascii_alphabetic()
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn results(query: &str) -> String {
        let tree = json!({
            "metadata": {"annotations": {"a.b/c": "5s"}, "finalizers": ["x", "y"]},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "Disk", "status": "False"}],
                "containerStatuses": [{"state": {"running": {"startedAt": "t"}}}, {"state": {}}],
                "count": 3,
            },
        });
        let found: Vec<String> = match Query::parse(query) {
            Ok(query) => query.results(&tree).iter().map(|value| value.to_json_string()).collect(),
            Err(error) => vec![error],
        };
        found.join(" ")
    }

    #[test]
    fn keys_of_stages_are_answered() {
        for (query, expected) in [
            (".metadata.annotations[\"a.b/c\"]", "\"5s\""),
            (".metadata.annotations.\"a.b/c\"", "\"5s\""),
            (".metadata.missing.deeper", ""),
            (".status.conditions.[] | select( .type == \"Ready\" ) | .status", "\"True\""),
            (".status.conditions[] | select(.type != \"Ready\" and .status == \"False\").type", "\"Disk\""),
            (".status.containerStatuses.[].state.running.startedAt", "\"t\""),
            (".metadata.finalizers", "[\"x\",\"y\"]"),
            (".metadata.finalizers.[]", "\"x\" \"y\""),
            (".metadata.finalizers[-1], .metadata.finalizers[7]", "\"y\""),
            (".status.count > 2", "true"),
            (".missing // .status.count", "3"),
            (".status.conditions | length", "2"),
            (".status.conditions | map(.type)", "[\"Ready\",\"Disk\"]"),
            (".status.conditions | any(.status == \"True\"), all(.status == \"True\")", "true false"),
            (".metadata | has(\"annotations\"), (.missing | not)", "true true"),
            ("[.]", "'[' at position 1 of \"[.]\" is not supported in a key"),
        ] {
            assert_eq!(results(query), expected, "{query}");
        }
    }

    #[test]
    fn a_failure_anywhere_is_no_result() {
        for query in [".metadata.finalizers.x", ".missing[]", ".status.count, .status.count[]", ".status[0]"]
        {
            assert_eq!(results(query), "", "{query}");
        }
        assert_eq!(results(".missing[]?, .status.count"), "3");
    }

    #[test]
    fn what_is_not_spoken_is_refused_by_name() {
        for (query, expected) in [
            (".a = 1", "'=' at position 4 of \".a = 1\" is not supported in a key"),
            (".a |= 1", "'|' at position 4 of \".a |= 1\" is not supported in a key"),
            (".a + 1", "'+' at position 4 of \".a + 1\" is not supported in a key"),
            ("..", "'.' at position 2 of \"..\" is not supported in a key"),
            (".a | $x", "'$' at position 6 of \".a | $x\" is not supported in a key"),
            (".a[", "\".a[\" ends too early"),
            (".a[0", "\".a[0\" ends where \"]\" is due"),
            ("\"a\\(1)\"", "\"a\\(1)\" at position 1 is not a text of JSON"),
            ("", "\"\" ends too early"),
        ] {
            assert_eq!(results(query), expected, "{query}");
        }
        assert!(
            results("test(\"a\")")
                .starts_with("function test/1 at position 1 is not supported; there are select, map,")
        );
        assert!(results(&"(".repeat(100)).contains("nested too deeply"));
    }
}

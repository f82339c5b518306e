//! The paths of printer columns: client-go's JSONPath template language, as far as one value can be named by it.
//!
//! `.spec.size`, `.spec['app.kubernetes.io/name']`, `.status.conditions[?(@.type=="Ready")].status`, `.items[0]`,
//! `.items[*].name`, `.items[1:3]`, `..name`.

use apimachinery::{Str, Value};

/// A parsed path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JsonPath(Box<[Step]>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(Str),
    /// `[*]` and `.*`.
    Every,
    /// `[2]`, `[-1]`: of a list.
    Index(i64),
    /// `[1:3]`, with defaults for what was left out.
    Slice(Option<i64>, Option<i64>, i64),
    /// `[?(@.a=="b")]`; without a comparison the left side has to exist.
    Filter(Operand, Option<(Comparison, Operand)>),
    /// `..`: everything below.
    Recursive,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// In the order in which they have to be tried: longer ones first.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

/// Filters within filters; deeper ones are refused.
const NESTING_MAX: usize = 4;

impl JsonPath {
    /// `None` for what is no path.
    pub fn parse(text: &str) -> Option<Self> {
        Self::nested(text, 0)
    }

    fn nested(text: &str, depth: usize) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = text.strip_prefix(['$', '@']).unwrap_or(text);
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("..") {
                steps.push(Step::Recursive);
                rest = after;
            } else if let Some(after) = rest.strip_prefix('.') {
                if after.is_empty() {
                    return steps.is_empty().then(Self::default);
                }
                rest = after;
            } else if !rest.starts_with('[') && !steps.is_empty() {
                return None;
            }
            let (step, after) = if rest.starts_with('[') { bracket(rest, depth)? } else { field(rest)? };
            steps.push(step);
            rest = after;
        }
        Some(Self(steps.into()))
    }

    /// Every value that the path names, in order.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        follow(&self.0, value)
    }

    /// The first value that the path names.
    pub fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        let mut found = value;
        for (at, step) in self.0.iter().enumerate() {
            // Nearly all paths are plain fields.
            let Step::Field(name) = step else {
                return follow(&self.0[at..], found).into_iter().next();
            };
            found = found.get(name)?;
        }
        Some(found)
    }
}

fn follow<'v>(steps: &[Step], value: &'v Value) -> Vec<&'v Value> {
    steps.iter().fold(vec![value], |found, step| {
        let mut next = Vec::new();
        found.into_iter().for_each(|value| step.take(value, &mut next));
        next
    })
}

impl Step {
    fn take<'v>(&self, value: &'v Value, out: &mut Vec<&'v Value>) {
        match (self, value) {
            (Self::Field(name), _) => out.extend(value.get(name)),
            (Self::Every, Value::Array(items)) => out.extend(items),
            (Self::Every, Value::Object(map)) => out.extend(map.iter().map(|(_, value)| value)),
            (Self::Index(index), Value::Array(items)) => {
                out.extend(position(*index, items.len()).and_then(|at| items.get(at)));
            }
            (Self::Slice(from, to, step), Value::Array(items)) => {
                let bound = |bound: Option<i64>, missing| {
                    bound.map_or(missing, |own| position(own, items.len()).unwrap_or(0).min(items.len()))
                };
                let (from, to) = (bound(*from, 0), bound(*to, items.len()));
                let step = usize::try_from(*step).unwrap_or(1).max(1);
                out.extend(items.get(from..to).unwrap_or_default().iter().step_by(step));
            }
            (Self::Filter(left, right), Value::Array(items)) => {
                out.extend(items.iter().filter(|item| is_selected(item, left, right.as_ref())));
            }
            (Self::Recursive, _) => descend(value, out),
            _ => {}
        }
    }
}

fn descend<'v>(value: &'v Value, out: &mut Vec<&'v Value>) {
    out.push(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| descend(item, out)),
        Value::Object(map) => map.iter().for_each(|(_, value)| descend(value, out)),
        _ => {}
    }
}

/// Negative positions count from the end.
fn position(index: i64, len: usize) -> Option<usize> {
    match usize::try_from(index) {
        Ok(at) => Some(at),
        Err(_) => len.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
    }
}

fn is_selected(item: &Value, left: &Operand, right: Option<&(Comparison, Operand)>) -> bool {
    let Some(left) = left.value(item) else { return false };
    let Some((comparison, right)) = right else { return true };
    right.value(item).is_some_and(|right| comparison.holds(left, right))
}

impl Operand {
    fn parse(text: &str, depth: usize) -> Option<Self> {
        let text = text.trim();
        if text.starts_with(['@', '$']) {
            return JsonPath::nested(text, depth).map(Self::Path);
        }
        if let Some(quoted) = unquoted(text) {
            return Some(Self::Literal(quoted.into()));
        }
        // Numbers, `true` and `false`; a bare word reads as text.
        let literal = Value::parse(text.as_bytes()).ok().filter(|value| !value.is_object());
        Some(Self::Literal(literal.unwrap_or_else(|| text.into())))
    }

    fn value<'v>(&'v self, item: &'v Value) -> Option<&'v Value> {
        match self {
            Self::Path(path) => path.first(item),
            Self::Literal(value) => Some(value),
        }
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> bool {
        let order = match (left, right) {
            (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            _ => None,
        };
        order.is_some_and(|order| match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        })
    }
}

/// A name up to the next dot or bracket; a backslash keeps the character after it.
fn field(text: &str) -> Option<(Step, &str)> {
    let mut name = String::new();
    let mut characters = text.char_indices();
    let mut end = text.len();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.extend(characters.next().map(|(_, kept)| kept)),
            '.' | '[' => {
                end = at;
                break;
            }
            ' ' | '{' | '}' | '(' | ')' | '|' | ']' => return None,
            _ => name.push(character),
        }
    }
    let step = match name.as_str() {
        "" => return None,
        "*" => Step::Every,
        name => Step::Field(name.into()),
    };
    Some((step, &text[end..]))
}

/// What stands in brackets.
fn bracket(text: &str, depth: usize) -> Option<(Step, &str)> {
    let end = end_of_bracket(text)?;
    let (inner, rest) = (text[1..end].trim(), &text[end + 1..]);
    if let Some(condition) = inner.strip_prefix("?(").and_then(|own| own.strip_suffix(')')) {
        return Some((filter(condition, depth + 1)?, rest));
    }
    if let Some(name) = unquoted(inner) {
        return Some((Step::Field(name.into()), rest));
    }
    if inner == "*" {
        return Some((Step::Every, rest));
    }
    let bounds: Vec<Option<i64>> = inner
        .split(':')
        .map(|bound| if bound.is_empty() { Some(None) } else { bound.parse().ok().map(Some) })
        .collect::<Option<_>>()?;
    let step = match bounds[..] {
        [Some(index)] => Step::Index(index),
        [from, to] => Step::Slice(from, to, 1),
        [from, to, step] => Step::Slice(from, to, step.unwrap_or(1)),
        _ => return None,
    };
    Some((step, rest))
}

/// Where the bracket at the beginning is closed, outside of quotes and inner brackets.
fn end_of_bracket(text: &str) -> Option<usize> {
    let (mut open, mut quote) = (0_usize, None);
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(own), _) if own == character => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '[') => open += 1,
            (None, ']') => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn filter(condition: &str, depth: usize) -> Option<Step> {
    if depth > NESTING_MAX {
        return None;
    }
    let outside = outside_of_quotes(condition);
    let found = COMPARISONS.iter().filter_map(|(sign, own)| Some((outside.find(sign)?, *sign, *own)));
    // The first sign in the text, and of two at one place the longer one.
    let Some((at, sign, comparison)) = found.min_by_key(|(at, sign, _)| (*at, usize::MAX - sign.len()))
    else {
        return Some(Step::Filter(Operand::parse(condition, depth)?, None));
    };
    let left = Operand::parse(&condition[..at], depth)?;
    let right = Operand::parse(&condition[at + sign.len()..], depth)?;
    Some(Step::Filter(left, Some((comparison, right))))
}

/// The text with everything in quotes or brackets blanked, byte for byte.
fn outside_of_quotes(text: &str) -> String {
    let (mut quote, mut open) = (None, 0_usize);
    let blanked = text.bytes().map(|byte| {
        match (quote, byte) {
            (Some(own), _) if own == byte => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'[') => open += 1,
            (None, b']') => open = open.saturating_sub(1),
            (None, _) if open == 0 && byte.is_ascii() => return byte,
            _ => {}
        }
        b' '
    });
    String::from_utf8_lossy(&blanked.collect::<Vec<_>>()).into_owned()
}

fn unquoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    Some(inner.replace(&format!("\\{quote}"), &quote.to_string()))
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn a_path_names_what_client_go_finds() {
        let object = json!({
            "spec": {"size": 3, "a.b": "dotted", "list": [1, 2, 3], "none": null},
            "status": {"conditions": [
                {"type": "Ready", "status": "True", "n": 2},
                {"type": "Synced", "status": "False", "n": 5, "has": true},
            ]},
        });
        let cases = [
            (".spec.size", "[3]"),
            ("$.spec.size", "[3]"),
            ("spec.size", "[3]"),
            (".spec['a.b']", "[\"dotted\"]"),
            (".spec.a\\.b", "[\"dotted\"]"),
            (".spec.list[0]", "[1]"),
            (".spec.list[-1]", "[3]"),
            (".spec.list[1:]", "[2,3]"),
            (".spec.list[0:3:2]", "[1,3]"),
            (".spec.list[*]", "[1,2,3]"),
            (".spec.list[9]", "[]"),
            (".spec.none", "[null]"),
            (".spec.absent.further", "[]"),
            (".status.conditions[?(@.type==\"Ready\")].status", "[\"True\"]"),
            (".status.conditions[?(@.type=='Synced')].status", "[\"False\"]"),
            (".status.conditions[?(@.n>2)].type", "[\"Synced\"]"),
            (".status.conditions[?(@.n <= 5)].type", "[\"Ready\",\"Synced\"]"),
            (".status.conditions[?(@.type != \"Ready\")].n", "[5]"),
            (".status.conditions[?(@.has)].type", "[\"Synced\"]"),
            (".status.conditions[*].type", "[\"Ready\",\"Synced\"]"),
            ("..type", "[\"Ready\",\"Synced\"]"),
        ];
        for (path, expected) in cases {
            let path = JsonPath::parse(path).unwrap_or_else(|| panic!("{path} is a path"));
            let found: Value = path.find(&object).into_iter().cloned().collect();
            assert_eq!(found.to_json_string(), expected, "{path:?}");
            assert_eq!(path.first(&object), found.as_array().unwrap().first(), "{path:?}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let deep = format!(".a{}", "[?(@.a".repeat(100_000));
        let nested = format!(".a{}{}", "[?(@".repeat(50), ")]".repeat(50));
        for text in [".spec.", ".spec[", ".spec[x]", ".spec[1:2:3:4]", ".a b", "..", &deep, &nested] {
            assert_eq!(JsonPath::parse(text), None, "{}", &text[..text.len().min(20)]);
        }
    }
}

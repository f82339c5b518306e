//! What a call really cost.

use super::{AUTHORIZATION, LIST, MESSAGE, PER_CHARACTER, PER_PATTERN_CHARACTER};
use crate::ast::operator;
use crate::opaques::Opaques;
use crate::value::Value;

/// How to account for a call, decided when it is compiled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CallCost {
    Fixed(u64),
    /// `==` and `!=`; of opaque values `==` is 1.
    Equality {
        opaque_is_unit: bool,
    },
    /// Walking through the first argument so often.
    Text(f64),
    /// As [`CallCost::Text`], looking into optionals.
    TextWithin,
    /// Comparing two texts, as far as the shorter reaches.
    Compare,
    /// Copying two texts.
    Concat,
    /// The size of the second argument.
    InList,
    /// A pattern, the second argument, on a text.
    Pattern,
    Contains,
    /// Looking at everything there is in the first argument.
    Scan,
    Selector,
    Join,
    Prefix {
        of_prefix: bool,
        parsed: bool,
    },
    Format,
    /// A list that is as long as the result.
    Output,
    Flatten,
    /// Comparing the items of an argument with each other.
    SelfCompare(usize),
    Sets(f64),
}

impl CallCost {
    /// The accounting of a call whose overload is known, or of which several remain.
    pub fn new(function: &str, overloads: &[&'static str]) -> Self {
        let overload = if let [only] = overloads { only } else { "" };
        Self::extension(overload)
            .or_else(|| Self::kubernetes(function, overload))
            .or_else(|| Self::standard(overload))
            .unwrap_or(Self::Fixed(1))
    }

    fn extension(overload: &str) -> Option<Self> {
        Some(match overload {
            "list_slice" | "lists_range" | "list_reverse" => Self::Output,
            "list_flatten" | "list_flatten_int" => Self::Flatten,
            "list_distinct" => Self::SelfCompare(0),
            "list_sets_contains_list" | "list_sets_intersects_list" => Self::Sets(1.0),
            "list_sets_equivalent_list" => Self::Sets(2.0),
            _ if overload.starts_with("list_") && overload.ends_with("_sort") => Self::SelfCompare(0),
            _ if overload.ends_with("_sortByAssociatedKeys") => Self::SelfCompare(1),
            _ => return None,
        })
    }

    fn kubernetes(function: &str, overload: &str) -> Option<Self> {
        Some(match function {
            "check" => Self::Fixed(AUTHORIZATION),
            "fieldSelector" | "labelSelector" => Self::Selector,
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => Self::Scan,
            "url"
            | "lowerAscii"
            | "upperAscii"
            | "substring"
            | "trim"
            | "jsonpatch.escapeKey"
            | "cidr"
            | "isIP"
            | "isCIDR"
            | "quantity"
            | "isQuantity"
            | "semver"
            | "isSemver" => Self::Text(1.0),
            "replace" | "split" | "ip.isCanonical" => Self::Text(2.0),
            "join" => Self::Join,
            "find" | "findAll" => Self::Pattern,
            "ip" if overload == "cidr_ip" => Self::Fixed(1),
            "ip" => Self::Text(1.0),
            "containsIP" => Self::Prefix { of_prefix: false, parsed: overload == "cidr_contains_ip_string" },
            "containsCIDR" => {
                Self::Prefix { of_prefix: true, parsed: overload == "cidr_contains_cidr_string" }
            }
            "validate" => Self::Format,
            operator::EQUALS => Self::Equality { opaque_is_unit: true },
            operator::NOT_EQUALS => Self::Equality { opaque_is_unit: false },
            _ => return None,
        })
    }

    fn standard(overload: &str) -> Option<Self> {
        Some(match overload {
            "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string"
            | "strings_quote" | "string_format" => Self::TextWithin,
            "in_list" => Self::InList,
            "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes" => Self::Compare,
            "add_string" | "add_bytes" => Self::Concat,
            "matches_string" => Self::Pattern,
            "contains_string" => Self::Contains,
            _ => return None,
        })
    }

    /// The cost, where it does not depend on the result: what is too expensive is then not even tried.
    pub fn before(self, args: &[Value<'_>]) -> Option<u64> {
        match (self, args) {
            (Self::Join, _) => None,
            // The result of a range is as long as its argument says.
            (Self::Output, [Value::Int(length)]) => {
                Some(u64::try_from(*length).unwrap_or(0).saturating_add(1 + LIST))
            }
            (Self::Output, _) => None,
            _ => Some(self.of(args, None)),
        }
    }

    pub fn of(self, args: &[Value<'_>], result: Option<&Value<'_>>) -> u64 {
        let size = |index: usize| args.get(index).map_or(1, Value::size);
        let within = |index: usize| args.get(index).map_or(1, Value::size_within);
        let text = |size: u64| scaled(size, PER_CHARACTER);
        match self {
            Self::Fixed(cost) => cost,
            Self::Equality { opaque_is_unit: true } if matches!(args.first(), Some(Value::Opaque(_))) => 1,
            Self::Equality { .. } | Self::Compare => text(within(0).min(within(1))),
            Self::Text(times) => scaled(size(0), times * PER_CHARACTER),
            Self::TextWithin => text(within(0)),
            Self::Concat => text(within(0).saturating_add(within(1))),
            Self::InList => within(1),
            Self::Pattern => {
                text(size(0).saturating_add(1)).saturating_mul(scaled(size(1), PER_PATTERN_CHARACTER))
            }
            Self::Contains => text(within(0)).saturating_mul(text(within(1))),
            Self::Scan => args.first().map_or(0, traversal),
            Self::Selector => {
                let length = size(1);
                LIST + text(length) + scaled(scaled(length, 0.5), (LIST + MESSAGE) as f64)
            }
            Self::Join => scaled(result.map_or(1, Value::size), 2.0 * PER_CHARACTER),
            Self::Prefix { of_prefix, parsed } => {
                let mut cost = text(size(0) * 2);
                if of_prefix {
                    cost += text(size(0)) + 1;
                }
                if parsed {
                    cost += text(size(1));
                }
                cost
            }
            Self::Format => match args {
                [Value::Opaque(format), value] => match &**format {
                    Opaques::NamedFormat(format) => text(value.size() + 1)
                        .saturating_mul(scaled(format.pattern_length, PER_PATTERN_CHARACTER)),
                    _ => 1,
                },
                _ => 1,
            },
            Self::Output => result.map_or(1, Value::size).saturating_add(1 + LIST),
            Self::Flatten => {
                let depth = match args.get(1) {
                    Some(Value::Int(depth)) => *depth as f64,
                    _ => 1.0,
                };
                ((size(0) as f64 * depth) as u64).saturating_add(1 + LIST)
            }
            Self::SelfCompare(index) => self_compare(args.get(index)),
            Self::Sets(factor) => {
                ((size(0).saturating_mul(size(1)) as f64 * factor) as u64).saturating_add(1)
            }
        }
    }
}

fn scaled(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

fn self_compare(list: Option<&Value<'_>>) -> u64 {
    let Some(Value::List(list)) = list else { return 1 };
    let length = list.len() as u64;
    let texts = matches!(list.get(0), Some(Ok(Value::String(_) | Value::Bytes(_))));
    let factor = if texts { 2.0 + PER_CHARACTER } else { 2.0 };
    ((length.saturating_mul(length) as f64 * factor) as u64).saturating_add(1 + LIST)
}

/// Everything there is in a value, texts by their bytes.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * PER_CHARACTER) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * PER_CHARACTER) as u64,
        Value::List(list) => list.iter().flatten().map(|item| traversal(&item)).sum(),
        Value::Map(map) => map
            .entries()
            .filter_map(|(key, value)| Some(traversal(&key.value()) + traversal(&value.ok()?)))
            .sum(),
        _ => 1,
    }
}

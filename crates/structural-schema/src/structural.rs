//! [`Structural`]: a schema as its algorithms walk it, without prose.
//!
//! Made from the `openAPIV3Schema` of a version, which is JSON that was decoded as `JSONSchemaProps`. Descriptions,
//! titles and examples stay in the definition's own bytes; publication reads them there. Equal sub-schemas of one
//! schema are one node: definitions that embed a pod template repeat the same few shapes hundreds of times.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use apimachinery::{Str, Value};

use crate::format::Format;
use crate::pattern::Pattern;

/// Deeper schemas are cut off: below, anything goes. JSON itself nests 128 levels, and each level of a schema takes
/// at least one.
pub const DEPTH_MAX: usize = 128;

/// One node of a schema, also one inside `allOf` and its siblings, where only some of the fields are in use.
#[derive(Debug, Default, PartialEq)]
pub struct Structural {
    /// `None` where no type is given, which int-or-string and preserved fields may do.
    pub kind: Option<Kind>,
    pub nullable: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic_map: bool,
    /// `x-kubernetes-list-type`; atomic when absent.
    pub list_type: ListType,
    /// Sorted by name.
    pub properties: Box<[(Str, Arc<Structural>)]>,
    pub additional: Additional,
    pub items: Option<Arc<Structural>>,
    pub default: Option<Box<Value>>,
    pub validation: Option<Box<Validation>>,
    /// `x-kubernetes-validations`.
    pub rules: Box<[Rule]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// `x-kubernetes-list-type` with `x-kubernetes-list-map-keys`.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    Map(Box<[Str]>),
}

/// `additionalProperties`.
#[derive(Debug, Default, PartialEq)]
pub enum Additional {
    /// Not said, or said to be forbidden: unknown fields go.
    #[default]
    None,
    /// `true`: any field, of any type.
    Any,
    Schema(Arc<Structural>),
}

/// The keywords that judge a value and give it no structure.
#[derive(Debug, Default, PartialEq)]
pub struct Validation {
    /// Only formats that this server checks.
    pub format: Option<Format>,
    pub maximum: Option<Bound>,
    pub minimum: Option<Bound>,
    pub multiple_of: Option<f64>,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: Option<Arc<Pattern>>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub required: Box<[Str]>,
    pub choices: Box<[Value]>,
    pub all_of: Box<[Arc<Structural>]>,
    pub any_of: Box<[Arc<Structural>]>,
    pub one_of: Box<[Arc<Structural>]>,
    pub not: Option<Arc<Structural>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    pub at: f64,
    pub exclusive: bool,
}

/// One rule of `x-kubernetes-validations`; texts are empty where they are not given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    pub rule: Box<str>,
    pub message: Box<str>,
    pub message_expression: Box<str>,
    pub reason: Option<Box<str>>,
    pub field_path: Box<str>,
    pub optional_old_self: Option<bool>,
}

impl Kind {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

impl Structural {
    /// Reads a schema. What is not structural in it (see [`crate`]) is not there for the algorithms; judging that is
    /// the validation of the definition.
    pub fn parse(schema: &Value) -> Arc<Self> {
        Parser::default().node(schema, 0)
    }

    pub fn property(&self, name: &str) -> Option<&Arc<Self>> {
        let at = self.properties.binary_search_by(|(own, _)| own.as_str().cmp(name)).ok()?;
        Some(&self.properties[at].1)
    }

    /// The schema of a field, declared by name or as one of many.
    pub fn field(&self, name: &str) -> Option<&Arc<Self>> {
        self.property(name).or_else(|| self.additional.schema())
    }

    /// The type's name; empty when none is given.
    pub fn type_name(&self) -> &'static str {
        self.kind.map_or("", Kind::name)
    }
}

impl Additional {
    pub fn schema(&self) -> Option<&Arc<Structural>> {
        match self {
            Self::Schema(schema) => Some(schema),
            Self::None | Self::Any => None,
        }
    }
}

/// Reads nodes bottom-up, so that equal ones are found by the addresses of their children.
#[derive(Default)]
struct Parser {
    seen: HashMap<u64, Vec<Arc<Structural>>>,
}

impl Parser {
    fn node(&mut self, schema: &Value, depth: usize) -> Arc<Structural> {
        if depth >= DEPTH_MAX {
            return self.share(Structural { preserve_unknown: true, ..Structural::default() });
        }
        let child = depth + 1;
        let truth = |key: &str| schema[key].as_bool() == Some(true);
        let mut properties: Vec<(Str, Arc<Structural>)> = match schema["properties"].as_object() {
            Some(map) => map.iter().map(|(name, schema)| (name.clone(), self.node(schema, child))).collect(),
            None => Vec::new(),
        };
        properties.shrink_to_fit();
        let kind = Kind::parse(schema.str_at(&["type"]));
        let int_or_string = truth("x-kubernetes-int-or-string");
        let node = Structural {
            kind,
            nullable: truth("nullable"),
            int_or_string,
            preserve_unknown: truth("x-kubernetes-preserve-unknown-fields"),
            embedded: truth("x-kubernetes-embedded-resource"),
            atomic_map: schema.str_at(&["x-kubernetes-map-type"]) == "atomic",
            list_type: list_type(schema),
            properties: properties.into(),
            additional: match &schema["additionalProperties"] {
                Value::Bool(true) => Additional::Any,
                own @ Value::Object(_) => Additional::Schema(self.node(own, child)),
                _ => Additional::None,
            },
            items: schema["items"].is_object().then(|| self.node(&schema["items"], child)),
            default: schema.get("default").filter(|value| !value.is_null()).cloned().map(Box::new),
            validation: self.validation(schema, if int_or_string { None } else { kind }, depth),
            rules: schema.array_at(&["x-kubernetes-validations"]).iter().map(rule).collect(),
        };
        self.share(node)
    }

    fn validation(&mut self, schema: &Value, kind: Option<Kind>, depth: usize) -> Option<Box<Validation>> {
        let number = |key: &str| schema[key].as_f64();
        let whole = |key: &str| schema[key].as_i64();
        let bound = |key: &str, exclusive: &str| {
            number(key).map(|at| Bound { at, exclusive: schema[exclusive].as_bool() == Some(true) })
        };
        let not = &schema["not"];
        let validation = Validation {
            format: Format::parse(schema.str_at(&["format"]), kind),
            maximum: bound("maximum", "exclusiveMaximum"),
            minimum: bound("minimum", "exclusiveMinimum"),
            multiple_of: number("multipleOf"),
            max_length: whole("maxLength"),
            min_length: whole("minLength"),
            pattern: Some(schema.str_at(&["pattern"]))
                .filter(|pattern| !pattern.is_empty())
                .map(Pattern::shared),
            max_items: whole("maxItems"),
            min_items: whole("minItems"),
            max_properties: whole("maxProperties"),
            min_properties: whole("minProperties"),
            required: texts(schema, "required"),
            choices: schema.array_at(&["enum"]).into(),
            all_of: self.alternatives(schema, "allOf", depth),
            any_of: self.alternatives(schema, "anyOf", depth),
            one_of: self.alternatives(schema, "oneOf", depth),
            not: not.is_object().then(|| self.node(not, depth + 1)),
        };
        (validation != Validation::default()).then(|| Box::new(validation))
    }

    fn alternatives(&mut self, schema: &Value, key: &str, depth: usize) -> Box<[Arc<Structural>]> {
        schema.array_at(&[key]).iter().map(|schema| self.node(schema, depth + 1)).collect()
    }

    fn share(&mut self, node: Structural) -> Arc<Structural> {
        let seen = self.seen.entry(node.fingerprint()).or_default();
        if let Some(same) = seen.iter().find(|own| ***own == node) {
            return same.clone();
        }
        let node = Arc::new(node);
        seen.push(node.clone());
        node
    }
}

impl Structural {
    /// Equal for nodes that are equal and whose children are shared. Everything counts: definitions have thousands of
    /// nodes that differ in a default or a bound only.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let flags =
            [self.nullable, self.int_or_string, self.preserve_unknown, self.embedded, self.atomic_map];
        (self.kind, flags, &self.list_type, &self.default, &self.rules).hash(&mut hasher);
        for (name, child) in &self.properties {
            (name, Arc::as_ptr(child)).hash(&mut hasher);
        }
        self.items.as_ref().map(Arc::as_ptr).hash(&mut hasher);
        (self.additional == Additional::Any, self.additional.schema().map(Arc::as_ptr)).hash(&mut hasher);
        if let Some(validation) = &self.validation {
            validation.fingerprint(&mut hasher);
        }
        hasher.finish()
    }
}

impl Validation {
    fn fingerprint(&self, hasher: &mut DefaultHasher) {
        let bound = |bound: Option<Bound>| bound.map(|own| (own.at.to_bits(), own.exclusive));
        (bound(self.maximum), bound(self.minimum), self.multiple_of.map(f64::to_bits)).hash(hasher);
        let (lengths, items) = ([self.max_length, self.min_length], [self.max_items, self.min_items]);
        (lengths, items, [self.max_properties, self.min_properties]).hash(hasher);
        let (format, pattern) = (self.format.as_ref(), self.pattern.as_ref());
        (format.map(|own| &own.name), pattern.map(|own| own.text()), &self.required, &self.choices)
            .hash(hasher);
        for children in [&self.all_of, &self.any_of, &self.one_of] {
            children.iter().map(Arc::as_ptr).collect::<Vec<_>>().hash(hasher);
        }
        self.not.as_ref().map(Arc::as_ptr).hash(hasher);
    }
}

/// JSON has no number that differs from itself. With this, shared children are compared by their addresses first.
impl Eq for Structural {}
impl Eq for Validation {}

fn list_type(schema: &Value) -> ListType {
    match schema.str_at(&["x-kubernetes-list-type"]) {
        "set" => ListType::Set,
        "map" => ListType::Map(texts(schema, "x-kubernetes-list-map-keys")),
        _ => ListType::Atomic,
    }
}

fn rule(rule: &Value) -> Rule {
    let text = |key: &str| rule.str_at(&[key]).into();
    Rule {
        rule: text("rule"),
        message: text("message"),
        message_expression: text("messageExpression"),
        reason: rule["reason"].as_str().map(Into::into),
        field_path: text("fieldPath"),
        optional_old_self: rule["optionalOldSelf"].as_bool(),
    }
}

fn texts(schema: &Value, key: &str) -> Box<[Str]> {
    schema.array_at(&[key]).iter().filter_map(Value::as_str).map(Str::from).collect()
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn equal_parts_of_a_schema_are_one_node() {
        let part = json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}});
        let other = json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 4}}});
        let root = json!({"type": "object", "properties": {"x": part.clone(), "y": part, "z": other}});
        let root = Structural::parse(&root);
        let property = |name| root.property(name).expect("was given");
        assert!(Arc::ptr_eq(property("x"), property("y")));
        assert!(!Arc::ptr_eq(property("x"), property("z")));
    }

    /// Compared with each other, these would take minutes.
    #[test]
    fn parts_that_differ_a_little_are_told_apart_at_once() {
        const PARTS: i64 = 60_000;
        let part = |n: i64| json!({"type": "integer", "default": n, "minimum": n, "multipleOf": n});
        let properties: apimachinery::Map = (0..PARTS).map(|n| (format!("p{n}").into(), part(n))).collect();
        let root = Structural::parse(&json!({"type": "object", "properties": Value::Object(properties)}));
        assert_eq!(i64::try_from(root.properties.len()), Ok(PARTS));
    }

    #[test]
    fn a_schema_too_deep_is_cut_off() {
        let mut schema = json!({"type": "string"});
        for _ in 0..DEPTH_MAX + 10 {
            schema = json!({"type": "array", "items": schema});
        }
        let mut node = Structural::parse(&schema);
        let mut depth = 0;
        while let Some(items) = &node.items {
            depth += 1;
            node = items.clone();
        }
        assert_eq!(depth, DEPTH_MAX);
        assert!(node.preserve_unknown);
    }
}

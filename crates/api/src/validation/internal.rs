//! Parts of objects as upstream shows them in complaints: the JSON of its internal Go structs, indented by one space.
//!
//! Those have all fields, also empty ones, in the order of the declarations and under Go's names. Names and order stand
//! in `data/internal.txt`, types in `data/schema.txt`; where the internal types hold a value elsewhere than the
//! versioned ones, [`lines`] moves it there first.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use apimachinery::Value;

use crate::builtin::tables::{self, Definition, Field, Form, Type};

/// What is beyond this many lines is not shown: a `{}` of a request can take a hundred of them.
pub const LINES_MAX: usize = 10_000;

const PACKAGE: &str = "api.core.v1.";
const META_PACKAGE: &str = "apimachinery.pkg.apis.meta.v1.";

/// Fields of a pod's spec that the internal types have in its security context.
const HOST_FIELDS: [&str; 5] = ["hostIPC", "hostNetwork", "hostPID", "hostUsers", "shareProcessNamespace"];

static STRUCTS: LazyLock<HashMap<&str, GoStruct>> = LazyLock::new(|| {
    let text = include_str!("../../data/internal.txt");
    let rows = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(GoStruct::parse).map(|own| (own.name, own)).collect()
});

static DEFINITIONS: LazyLock<HashMap<&str, Definition>> =
    LazyLock::new(|| tables::definitions().map(|own| (own.name, own)).collect());

/// A row of `internal.txt`.
struct GoStruct {
    name: &'static str,
    /// The type of the versioned API that has the fields.
    definition: &'static str,
    fields: Vec<GoField>,
    /// Types of `meta` do; they have names for JSON.
    omits_empty: bool,
}

/// A field of a struct as it is printed.
struct GoField {
    name: &'static str,
    /// The field of the versioned API.
    field: Field,
    within: Definition,
    /// Its own fields stand in its place.
    embedded: bool,
}

/// The lines of a value of the internal type with this name, without line breaks.
pub fn lines(go_type: &str, value: &Value) -> Vec<String> {
    let value = match go_type {
        "PodSpec" => Cow::Owned(with_host_fields_moved(value)),
        _ => Cow::Borrowed(value),
    };
    let mut printer = Printer { lines: vec![String::new()] };
    printer.structure(go_type, &value, 0);
    printer.lines
}

fn with_host_fields_moved(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let mut context = spec["securityContext"].clone();
    let context_fields = context.ensure_object();
    for name in HOST_FIELDS {
        if let Some(value) = spec.ensure_object().remove(name) {
            context_fields.insert(name, value);
        }
    }
    spec.set_at(&["securityContext"], context);
    spec
}

impl GoStruct {
    fn parse(row: &'static str) -> Self {
        let (head, words) = row.split_once(' ').unwrap_or((row, ""));
        let (name, definition) = head.split_once('@').unwrap_or((head, head));
        let omits_empty = words.starts_with(|c: char| c.is_ascii_lowercase());
        let mut own = Self { name, definition, fields: Vec::new(), omits_empty };
        own.fields = words.split(' ').map(|word| own.field(word)).collect();
        own
    }

    fn field(&self, word: &'static str) -> GoField {
        let (word, definition) = word.split_once('@').unwrap_or((word, self.definition));
        let (name, wanted) = word.split_once('=').unwrap_or((word, word));
        let embedded = name.starts_with("..");
        let wanted = wanted.trim_start_matches("..");
        let within = definition_of(definition).expect("internal.txt names types of schema.txt");
        let field = within.fields().find(|field| field.name.eq_ignore_ascii_case(wanted));
        GoField { name, field: field.expect("internal.txt names fields of schema.txt"), within, embedded }
    }
}

fn definition_of(name: &str) -> Option<Definition> {
    let in_package = |package: &str| DEFINITIONS.get(format!("{package}{name}").as_str()).copied();
    in_package(PACKAGE).or_else(|| in_package(META_PACKAGE))
}

struct Printer {
    lines: Vec<String>,
}

impl Printer {
    fn structure(&mut self, go_type: &str, value: &Value, depth: usize) {
        let mut fields = Vec::new();
        collect_fields(go_type, value, &mut fields);
        self.items('{', fields, '}', depth);
    }

    fn value(&mut self, kind: Type, within: Definition, value: &Value, depth: usize) {
        match (kind, value) {
            (Type::List(items), Value::Array(list)) => {
                let items = list.iter().map(|item| Item::new("", Type::parse(items), within, item));
                self.items('[', items.collect(), ']', depth);
            }
            (Type::Map(values), Value::Object(map)) => {
                let entries =
                    map.iter().map(|(key, value)| Item::new(key, Type::parse(values), within, value));
                self.items('{', entries.collect(), '}', depth);
            }
            (Type::Reference(name), value) => match structure_name(name, within) {
                Some(go_type) => self.structure(go_type, value, depth),
                None => self.append(&go_json(value)),
            },
            (_, value) => self.append(&go_json(value)),
        }
    }

    fn items(&mut self, open: char, items: Vec<Item<'_>>, close: char, depth: usize) {
        self.append(open.encode_utf8(&mut [0; 4]));
        let count = items.len();
        for (index, item) in items.into_iter().enumerate() {
            if self.lines.len() >= LINES_MAX {
                return;
            }
            let label = if open == '{' { format!("{}: ", go_json(&item.name.into())) } else { String::new() };
            self.lines.push(" ".repeat(depth + 1) + &label);
            match item.zero {
                Some(zero) => self.append(zero),
                None => self.value(item.kind, item.within, item.value, depth + 1),
            }
            if index + 1 < count {
                self.append(",");
            }
        }
        if count > 0 {
            self.lines.push(" ".repeat(depth));
        }
        self.append(close.encode_utf8(&mut [0; 4]));
    }

    fn append(&mut self, text: &str) {
        if let Some(last) = self.lines.last_mut() {
            last.push_str(text);
        }
    }
}

/// An entry of a collection, about to be printed.
struct Item<'a> {
    name: &'a str,
    kind: Type,
    within: Definition,
    value: &'a Value,
    /// What an absent value reads as.
    zero: Option<&'static str>,
}

impl<'a> Item<'a> {
    fn new(name: &'a str, kind: Type, within: Definition, value: &'a Value) -> Self {
        let zero = if value.is_null() { zero(kind, within) } else { None };
        Self { name, kind, within, value, zero }
    }
}

fn collect_fields<'a>(go_type: &str, value: &'a Value, items: &mut Vec<Item<'a>>) {
    let own = &STRUCTS[go_type];
    for &GoField { name, field, within, embedded } in &own.fields {
        let value = &value[field.name];
        if embedded {
            if let Some(inner) = reference(field.kind).and_then(|name| structure_name(name, within)) {
                collect_fields(inner, value, items);
            }
            continue;
        }
        if own.omits_empty && value.is_null() && !field.always_present {
            continue;
        }
        let mut item = Item::new(name, field.kind, within, value);
        if field.pointer && value.is_null() {
            item.zero = Some("null");
        }
        items.push(item);
    }
}

fn reference(kind: Type) -> Option<&'static str> {
    match kind {
        Type::Reference(name) => Some(name),
        _ => None,
    }
}

/// The internal type that a reference means, if it is a struct.
fn structure_name(name: &'static str, within: Definition) -> Option<&'static str> {
    let definition = DEFINITIONS.get(within.resolve(name).as_str())?;
    let short = name.rsplit('.').next().unwrap_or(name);
    (definition.form == Form::Struct).then_some(short)
}

/// How Go prints what was not said; structs print their fields.
fn zero(kind: Type, within: Definition) -> Option<&'static str> {
    Some(match kind {
        Type::Boolean => "false",
        Type::Int32 | Type::Int64 | Type::Double => "0",
        Type::String => "\"\"",
        Type::Bytes | Type::List(_) | Type::Map(_) => "null",
        Type::Reference(name) => match DEFINITIONS.get(within.resolve(name).as_str())?.form {
            Form::Struct => return None,
            Form::Quantity => "\"0\"",
            Form::IntOrString => "0",
            Form::Any | Form::Object | Form::Time | Form::MicroTime => "null",
        },
    })
}

/// JSON with the signs escaped that Go keeps out of web pages.
fn go_json(value: &Value) -> String {
    let json = value.to_json_string();
    if !json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return json;
    }
    json.chars().fold(String::new(), |mut out, c| {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn every_name_of_the_table_is_one_of_the_schema() {
        for own in STRUCTS.values() {
            for &GoField { field, within, .. } in &own.fields {
                let mut kind = field.kind;
                while let Type::List(inner) | Type::Map(inner) = kind {
                    kind = Type::parse(inner);
                }
                if let Some(inner) = reference(kind).and_then(|name| structure_name(name, within)) {
                    assert!(STRUCTS.contains_key(inner), "{inner} of {} is not in the table", own.name);
                }
            }
        }
    }

    #[test]
    fn no_field_of_the_versioned_types_is_forgotten() {
        // An alias that the internal type does not have.
        let aliases = [("PodSpec", "serviceAccount")];
        for (name, own) in STRUCTS.iter().filter(|(name, _)| **name != "PersistentVolumeSource") {
            let printed: Vec<&str> = own.fields.iter().map(|own| own.field.name).collect();
            let moved = |field: &str| *name == "PodSpec" && HOST_FIELDS.contains(&field);
            for field in definition_of(own.definition).unwrap().fields().map(|field| field.name) {
                let known = printed.contains(&field) || moved(field) || aliases.contains(&(*name, field));
                assert!(known, "{name} lacks {field}");
            }
        }
    }

    #[test]
    fn empty_fields_are_printed_as_go_prints_them() {
        let probe = json!({"httpGet": {"path": "/<", "port": 80}});
        let text = lines("Probe", &probe).join("\n");
        assert!(
            text.starts_with("{\n \"Exec\": null,\n \"HTTPGet\": {\n  \"Path\": \"/\\u003c\",\n"),
            "{text}"
        );
        assert!(text.contains("\n  \"Port\": 80,\n  \"Host\": \"\",\n"), "{text}");
        assert!(text.ends_with("\n \"TerminationGracePeriodSeconds\": null\n}"), "{text}");
    }

    #[test]
    fn host_fields_stand_in_the_security_context() {
        let text = lines("PodSpec", &json!({"hostNetwork": true})).join("\n");
        assert!(
            text.contains("\n \"SecurityContext\": {\n  \"HostNetwork\": true,\n  \"HostPID\": false,\n"),
            "{text}"
        );
    }

    #[test]
    fn metadata_leaves_out_what_is_empty() {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {}});
        let text = lines("PersistentVolumeClaimTemplate", &template).join("\n");
        assert!(text.starts_with("{\n \"labels\": {\n  \"a\": \"b\"\n },\n \"Spec\": {\n"), "{text}");
    }
}

//! Columns of custom resources, as `additionalPrinterColumns` declare them.

use api::columns::human_duration;
use api::strategy::Printer;
use apimachinery::field::go_float;
use apimachinery::{Number, Str, Value, json, time};
use jiff::Timestamp;

use crate::json_path::JsonPath;

/// The columns of one version: the name, and then its own.
pub struct PrinterColumns(Box<[Column]>);

struct Column {
    name: Str,
    kind: Kind,
    /// The type as declared, for the definition.
    declared: Str,
    format: Str,
    description: Str,
    priority: i64,
    path: Str,
    parsed: JsonPath,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Integer,
    Number,
    Boolean,
    Text,
    Date,
    Other,
}

impl PrinterColumns {
    /// From a version of a definition. One without columns shows an age; a path that cannot be read leaves only the
    /// columns before it.
    pub fn new(version: &Value) -> Self {
        let age = json!([{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]);
        let declared = match version.array_at(&["additionalPrinterColumns"]) {
            [] => age.as_array().map(Vec::as_slice).unwrap_or_default(),
            declared => declared,
        };
        Self(declared.iter().map_while(Column::new).collect())
    }
}

impl Printer for PrinterColumns {
    fn definitions(&self) -> Vec<Value> {
        let name =
            json!({"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0});
        std::iter::once(name).chain(self.0.iter().map(Column::definition)).collect()
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = Value::from(object.str_at(&["metadata", "name"]));
        std::iter::once(name).chain(self.0.iter().map(|column| column.cell(object, now))).collect()
    }
}

impl Column {
    fn new(declared: &Value) -> Option<Self> {
        let text = |key: &str| Str::from(declared.str_at(&[key]));
        let path = text("jsonPath");
        Some(Self {
            name: text("name"),
            kind: Kind::parse(declared.str_at(&["type"])),
            declared: text("type"),
            format: text("format"),
            description: text("description"),
            priority: declared.at(&["priority"]).and_then(Value::as_i64).unwrap_or_default(),
            parsed: JsonPath::parse(&path)?,
            path,
        })
    }

    fn definition(&self) -> Value {
        let description = match self.description.as_str() {
            "" => format!("Custom resource definition column (in JSONPath format): {}", self.path),
            own => own.to_owned(),
        };
        json!({
            "name": self.name.as_str(), "type": self.declared.as_str(), "format": self.format.as_str(),
            "description": description, "priority": self.priority,
        })
    }

    /// What does not fit the column's type is not shown.
    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(value) = self.parsed.first(object) else { return Value::Null };
        match (self.kind, value) {
            (Kind::Text, value) => printed(value).into(),
            (Kind::Integer, Value::Number(Number::Float(float))) => (*float as i64).into(),
            (Kind::Integer, Value::Number(number)) => number.as_i64().map_or(Value::Null, Value::from),
            (Kind::Number, Value::Number(_)) | (Kind::Boolean, Value::Bool(_)) => value.clone(),
            (Kind::Date, Value::String(date)) => date_cell(date, now).into(),
            _ => Value::Null,
        }
    }
}

impl Kind {
    fn parse(name: &str) -> Self {
        match name {
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            "string" => Self::Text,
            "date" => Self::Date,
            _ => Self::Other,
        }
    }
}

/// As Go's templates print a value.
fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.to_string(),
        Value::Number(Number::Float(float)) => go_float(*float),
        other => other.to_json_string(),
    }
}

fn date_cell(date: &str, now: Timestamp) -> String {
    match time::parse(date) {
        Some(since) => human_duration(since.duration_until(now).as_secs()),
        None if date.is_empty() => "<unknown>".to_owned(),
        None => "<invalid>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(kind: &str, value: Value) -> Value {
        let version =
            json!({"additionalPrinterColumns": [{"name": "C", "type": kind, "jsonPath": ".spec.c"}]});
        let mut object = json!({"metadata": {"name": "n"}, "spec": {}});
        object.set_at(&["spec", "c"], value);
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        PrinterColumns::new(&version).cells(&object, now).swap_remove(1)
    }

    #[test]
    fn a_cell_has_the_type_of_its_column_or_is_empty() {
        let cases = [
            ("integer", json!(3), json!(3)),
            ("integer", json!(2.9), json!(2)),
            ("integer", json!("3"), Value::Null),
            ("number", json!(2.5), json!(2.5)),
            ("number", json!(3), json!(3)),
            ("boolean", json!(true), json!(true)),
            ("boolean", json!("true"), Value::Null),
            ("string", json!("x"), json!("x")),
            ("string", json!(3), json!("3")),
            ("string", json!(1e21), json!("1e+21")),
            ("string", json!(2.5), json!("2.5")),
            ("string", json!(2500000.5), json!("2.5000005e+06")),
            ("string", json!([1, "a"]), json!("[1,\"a\"]")),
            ("string", json!({"a": 1}), json!("{\"a\":1}")),
            ("date", json!("2026-01-01T00:00:00Z"), json!("60m")),
            ("date", json!("2026-01-01T02:00:00Z"), json!("<invalid>")),
            ("date", json!("yesterday"), json!("<invalid>")),
            ("date", json!(""), json!("<unknown>")),
            ("date", json!(1), Value::Null),
        ];
        for (kind, value, expected) in cases {
            assert_eq!(cell(kind, value.clone()), expected, "{kind} of {value:?}");
        }
    }

    #[test]
    fn the_name_comes_first_and_without_columns_the_age_last() {
        let columns = PrinterColumns::new(&json!({}));
        let names: Vec<String> =
            columns.definitions().iter().map(|own| own.str_at(&["name"]).to_owned()).collect();
        assert_eq!(names, ["Name", "Age"]);
        let object = json!({"metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        let now = "2026-01-01T00:00:05Z".parse().unwrap();
        assert_eq!(columns.cells(&object, now), [json!("n"), json!("5s")]);
    }
}

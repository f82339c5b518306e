//! How a schema and its rules appear in upstream's messages: as Go writes its internal structures.

use apimachinery::Value;

/// The fields of Go's `JSONSchemaProps` in their order, and what they are called in JSON.
pub(super) const FIELDS: &[(&str, &str)] = &[
    ("ID", "id"),
    ("Schema", "$schema"),
    ("Ref", "$ref"),
    ("Description", "description"),
    ("Type", "type"),
    ("Nullable", "nullable"),
    ("Format", "format"),
    ("Title", "title"),
    ("Default", "default"),
    ("Maximum", "maximum"),
    ("ExclusiveMaximum", "exclusiveMaximum"),
    ("Minimum", "minimum"),
    ("ExclusiveMinimum", "exclusiveMinimum"),
    ("MaxLength", "maxLength"),
    ("MinLength", "minLength"),
    ("Pattern", "pattern"),
    ("MaxItems", "maxItems"),
    ("MinItems", "minItems"),
    ("UniqueItems", "uniqueItems"),
    ("MultipleOf", "multipleOf"),
    ("Enum", "enum"),
    ("MaxProperties", "maxProperties"),
    ("MinProperties", "minProperties"),
    ("Required", "required"),
    ("Items", "items"),
    ("AllOf", "allOf"),
    ("OneOf", "oneOf"),
    ("AnyOf", "anyOf"),
    ("Not", "not"),
    ("Properties", "properties"),
    ("AdditionalProperties", "additionalProperties"),
    ("PatternProperties", "patternProperties"),
    ("Dependencies", "dependencies"),
    ("AdditionalItems", "additionalItems"),
    ("Definitions", "definitions"),
    ("ExternalDocs", "externalDocs"),
    ("Example", "example"),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields"),
    ("XEmbeddedResource", "x-kubernetes-embedded-resource"),
    ("XIntOrString", "x-kubernetes-int-or-string"),
    ("XListMapKeys", "x-kubernetes-list-map-keys"),
    ("XListType", "x-kubernetes-list-type"),
    ("XMapType", "x-kubernetes-map-type"),
    ("XValidations", "x-kubernetes-validations"),
];

pub(super) const ALLOWED_BESIDE_STATUS: &[&str] = &[
    "Description",
    "Type",
    "Format",
    "Title",
    "Maximum",
    "ExclusiveMaximum",
    "Minimum",
    "ExclusiveMinimum",
    "MaxLength",
    "MinLength",
    "Pattern",
    "MaxItems",
    "MinItems",
    "UniqueItems",
    "MultipleOf",
    "Required",
    "Items",
    "Properties",
    "ExternalDocs",
    "Example",
    "XPreserveUnknownFields",
    "XValidations",
];

/// Whether Go would not tell the value from an absent one.
pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(_) => false,
    }
}

/// A schema as Go's internal structure.
pub(super) fn schema(schema: &Value) -> String {
    let fields: Vec<String> =
        FIELDS.iter().map(|(name, key)| format!("\"{name}\":{}", field(name, &schema[*key]))).collect();
    format!("{{{}}}", fields.join(","))
}

fn field(name: &str, value: &Value) -> String {
    if value.is_null() {
        return zero(name).to_owned();
    }
    let list = |each: fn(&Value) -> String| {
        let items: Vec<String> = value.as_array().into_iter().flatten().map(each).collect();
        format!("[{}]", items.join(","))
    };
    let map = |each: fn(&Value) -> String| {
        let quoted = |key: &str| Value::from(key).to_json_string();
        let entries: Vec<String> = value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{}:{}", quoted(key), each(value)))
            .collect();
        format!("{{{}}}", entries.join(","))
    };
    match name {
        "Items" => match value {
            Value::Array(_) => format!("{{\"Schema\":null,\"JSONSchemas\":{}}}", list(schema)),
            _ => format!("{{\"Schema\":{},\"JSONSchemas\":null}}", schema(value)),
        },
        "AdditionalProperties" | "AdditionalItems" => match value {
            Value::Bool(allows) => format!("{{\"Allows\":{allows},\"Schema\":null}}"),
            _ => format!("{{\"Allows\":true,\"Schema\":{}}}", schema(value)),
        },
        "AllOf" | "OneOf" | "AnyOf" => list(schema),
        "Not" => schema(value),
        "Properties" | "PatternProperties" | "Definitions" => map(schema),
        "Dependencies" => map(|own| match own {
            Value::Array(_) => format!("{{\"Schema\":null,\"Property\":{own}}}"),
            _ => format!("{{\"Schema\":{},\"Property\":null}}", schema(own)),
        }),
        "ExternalDocs" => {
            let text = |key: &str| Value::from(value.str_at(&[key])).to_json_string();
            format!("{{\"Description\":{},\"URL\":{}}}", text("description"), text("url"))
        }
        "XValidations" => list(rule),
        _ => value.to_json_string(),
    }
}

fn zero(name: &str) -> &'static str {
    match name {
        "ID" | "Schema" | "Description" | "Type" | "Format" | "Title" | "Pattern" => "\"\"",
        "Nullable" | "ExclusiveMaximum" | "ExclusiveMinimum" | "UniqueItems" | "XEmbeddedResource"
        | "XIntOrString" => "false",
        _ => "null",
    }
}

/// A rule as Go's internal structure.
pub(super) fn rule(rule: &Value) -> String {
    let text = |key: &str| Value::from(rule.str_at(&[key])).to_json_string();
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        text("rule"),
        text("message"),
        text("messageExpression"),
        rule["reason"],
        text("fieldPath"),
        rule["optionalOldSelf"],
    )
}

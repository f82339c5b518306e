//! Other forms of values.

use apimachinery::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::text;
use crate::Datum;
use crate::Parameter::{Any, Text};
use crate::builtin::{Native, fixed};

type Result<T = Datum> = std::result::Result<T, String>;

pub const FUNCTIONS: &[Native] = &[
    fixed("b64enc", &[Text], |args| Ok(STANDARD.encode(text(&args[0])).into())),
    fixed("b64dec", &[Text], |args| match STANDARD.decode(text(&args[0])) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned().into()),
        Err(error) => Ok(error.to_string().into()),
    }),
    fixed("toJson", &[Any], |args| Ok(html_safe(&args[0].to_value().to_json_string()).into())),
    fixed("mustToJson", &[Any], |args| Ok(html_safe(&args[0].to_value().to_json_string()).into())),
    fixed("toRawJson", &[Any], |args| Ok(args[0].to_value().to_json_string().into())),
    fixed("toPrettyJson", &[Any], |args| Ok(pretty(&args[0].to_value(), 0).into())),
    fixed("fromJson", &[Text], |args| Ok(from_json(text(&args[0])).unwrap_or(Datum::Nil))),
    fixed("mustFromJson", &[Text], |args| from_json(text(&args[0]))),
];

/// As Go's encoder writes it.
pub fn html_safe(json: &str) -> String {
    json.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}

fn from_json(json: &str) -> Result {
    Value::parse(json.as_bytes()).map(|value| Datum::from(&value)).map_err(|error| error.to_string())
}

fn pretty(value: &Value, depth: usize) -> String {
    let pad = "  ".repeat(depth + 1);
    let close = "  ".repeat(depth);
    match value {
        Value::Array(items) if !items.is_empty() => {
            let items: Vec<String> =
                items.iter().map(|item| format!("{pad}{}", pretty(item, depth + 1))).collect();
            format!("[\n{}\n{close}]", items.join(",\n"))
        }
        Value::Object(map) if !map.is_empty() => {
            let quoted = |key: &str| html_safe(&Value::from(key).to_json_string());
            let entries: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{pad}{}: {}", quoted(key), pretty(value, depth + 1)))
                .collect();
            format!("{{\n{}\n{close}}}", entries.join(",\n"))
        }
        leaf => html_safe(&leaf.to_json_string()),
    }
}

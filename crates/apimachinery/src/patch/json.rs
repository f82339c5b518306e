//! JSON patch: a list of operations at JSON pointers (RFC 6902).
//!
//! Follows the library upstream uses where it is laxer than the RFC: a negative index counts from the end, a missing
//! `value` is `null`, and `test` of an absent field against `null` succeeds.

use super::PatchError;
use crate::{Str, Value};

/// Upstream's `maxJSONPatchOperations`.
pub const OPERATIONS_MAX: usize = 10_000;
/// Bytes that all `copy` operations of one patch may add, so that a small patch cannot make a huge object.
pub const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// A parsed patch.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPatch {
    operations: Vec<Operation>,
}

#[derive(Debug, Clone, PartialEq)]
struct Operation {
    kind: Kind,
    /// `None` when it is missing or null, which is a pointer to nothing; an empty one points to the document.
    path: Option<Str>,
    from: Str,
    value: Value,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Add,
    Remove,
    Replace,
    Move,
    Copy,
    Test,
    Unknown(Str),
}

impl JsonPatch {
    /// Reads a patch document. The second result notes unknown members of operations, for warnings and strict
    /// validation.
    pub fn parse(document: Value) -> Result<(Self, Vec<String>), PatchError> {
        let items = match document {
            Value::Array(items) => items,
            other => return Err(PatchError::not_a("[]handlers.jsonPatchOp", &other)),
        };
        if items.len() > OPERATIONS_MAX {
            return Err(PatchError::TooManyOperations { count: items.len(), most: OPERATIONS_MAX });
        }
        let mut notes = Vec::new();
        let mut operations = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            operations.push(operation(index, item, &mut notes)?);
        }
        Ok((Self { operations }, notes))
    }

    /// Applies all operations in order. On an error the document is left half patched.
    pub fn apply(self, document: &mut Value) -> Result<(), PatchError> {
        let mut copied = 0;
        self.operations.into_iter().try_for_each(|operation| operation.apply(document, &mut copied))
    }
}

fn operation(index: usize, item: Value, notes: &mut Vec<String>) -> Result<Operation, PatchError> {
    let map = match item {
        Value::Object(map) => map,
        other => return Err(PatchError::not_a("handlers.jsonPatchOp", &other)),
    };
    let mut operation =
        Operation { kind: Kind::Unknown(Str::default()), path: None, from: "".into(), value: Value::Null };
    for (name, member) in map {
        match name.as_str() {
            "op" => operation.kind = kind(text("op", member)?),
            "path" if member.is_null() => operation.path = None,
            "path" => operation.path = Some(text("path", member)?),
            "from" => operation.from = text("from", member)?,
            "value" => operation.value = member,
            _ => notes.push(format!("json patch unknown field \"[{index}].{name}\"")),
        }
    }
    Ok(operation)
}

fn text(name: &str, member: Value) -> Result<Str, PatchError> {
    match member {
        Value::String(text) => Ok(text),
        Value::Null => Ok(Str::default()),
        other => Err(PatchError::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {} into Go struct field jsonPatchOp.{name} of type string",
            other.json_type()
        ))),
    }
}

fn kind(name: Str) -> Kind {
    match name.as_str() {
        "add" => Kind::Add,
        "remove" => Kind::Remove,
        "replace" => Kind::Replace,
        "move" => Kind::Move,
        "copy" => Kind::Copy,
        "test" => Kind::Test,
        _ => Kind::Unknown(name),
    }
}

impl Operation {
    fn apply(self, document: &mut Value, copied: &mut usize) -> Result<(), PatchError> {
        let Self { kind, path, from, value } = self;
        let Some(path) = path else {
            return Err(PatchError::Inapplicable("operation missing path field: missing value".to_owned()));
        };
        match kind {
            Kind::Add => add(document, &path, value).map_err(|why| why.of("add", &path)),
            Kind::Remove => remove(document, &path).map(drop).map_err(|why| why.of("remove", &path)),
            Kind::Replace => replace(document, &path, value).map_err(|why| why.of("replace", &path)),
            Kind::Move => {
                let moved = remove(document, &from).map_err(|why| why.of("move", &from))?;
                add(document, &path, moved).map_err(|why| why.of("move", &path))
            }
            Kind::Copy => {
                let value = find(document, &from).ok_or_else(|| Misfit::Missing.of("copy", &from))?.clone();
                *copied = copied.saturating_add(value.to_json().len());
                if *copied > COPIED_BYTES_MAX {
                    let text = format!(
                        "unable to copy, the accumulated size increase of copy is {copied}, exceeding the limit {COPIED_BYTES_MAX}"
                    );
                    return Err(PatchError::Inapplicable(text));
                }
                add(document, &path, value).map_err(|why| why.of("copy", &path))
            }
            Kind::Test => {
                if find(document, &path).unwrap_or(&Value::Null) == &value {
                    Ok(())
                } else {
                    Err(PatchError::Inapplicable(format!("testing value {path} failed: test failed")))
                }
            }
            Kind::Unknown(name) => Err(PatchError::Inapplicable(format!("Unexpected kind: {name}"))),
        }
    }
}

/// Why an operation does not fit.
#[derive(Debug, Clone, Copy)]
enum Misfit {
    Missing,
    Index,
    Pointer,
    NoContainer,
}

impl Misfit {
    fn of(self, operation: &str, path: &str) -> PatchError {
        let why = match self {
            Self::Missing => "missing value",
            Self::Index => "invalid index referenced",
            Self::Pointer => "not a JSON pointer",
            Self::NoContainer => "no object or list holds it",
        };
        PatchError::Inapplicable(format!("{operation} operation does not apply at path {path:?}: {why}"))
    }
}

/// The reference tokens of a pointer, unescaped; `None` for text that is no pointer.
fn tokens(pointer: &str) -> Option<impl DoubleEndedIterator<Item = Str>> {
    let rest = match pointer {
        "" => None,
        _ => Some(pointer.strip_prefix('/')?),
    };
    Some(rest.into_iter().flat_map(|rest| rest.split('/')).map(|token| {
        if token.contains('~') {
            token.replace("~1", "/").replace("~0", "~").into()
        } else {
            Str::from(token)
        }
    }))
}

/// Position in a list of `length`; negative ones count from the end.
fn position(token: &str, length: usize) -> Option<usize> {
    // Leading zeros and signs other than minus are no indexes.
    let digits = token.strip_prefix('-').unwrap_or(token);
    if digits.is_empty()
        || !digits.bytes().all(|byte| byte.is_ascii_digit())
        || (digits.len() > 1 && digits.starts_with('0'))
    {
        return None;
    }
    let index: i64 = token.parse().ok()?;
    let index = if index < 0 { index + i64::try_from(length).ok()? } else { index };
    usize::try_from(index).ok().filter(|&index| index < length)
}

fn find<'v>(document: &'v Value, pointer: &str) -> Option<&'v Value> {
    tokens(pointer)?.try_fold(document, |value, token| match value {
        Value::Object(map) => map.get(&token),
        Value::Array(items) => items.get(position(&token, items.len())?),
        _ => None,
    })
}

/// The container that a pointer's last token names something in.
fn parent<'v>(document: &'v mut Value, pointer: &str) -> Result<(&'v mut Value, Option<Str>), Misfit> {
    let mut tokens = tokens(pointer).ok_or(Misfit::Pointer)?;
    let Some(last) = tokens.next_back() else { return Ok((document, None)) };
    let mut value = document;
    for token in tokens {
        value = match value {
            Value::Object(map) => map.get_mut(&token).ok_or(Misfit::NoContainer)?,
            Value::Array(items) => {
                let at = position(&token, items.len()).ok_or(Misfit::Index)?;
                &mut items[at]
            }
            _ => return Err(Misfit::NoContainer),
        };
    }
    Ok((value, Some(last)))
}

fn add(document: &mut Value, pointer: &str, value: Value) -> Result<(), Misfit> {
    match parent(document, pointer)? {
        (root, None) => *root = value,
        (Value::Object(map), Some(name)) => {
            map.insert(name, value);
        }
        (Value::Array(items), Some(token)) if token == "-" => items.push(value),
        (Value::Array(items), Some(token)) => {
            let at = position(&token, items.len() + 1).ok_or(Misfit::Index)?;
            items.insert(at, value);
        }
        _ => return Err(Misfit::NoContainer),
    }
    Ok(())
}

fn remove(document: &mut Value, pointer: &str) -> Result<Value, Misfit> {
    match parent(document, pointer)? {
        (root, None) => Ok(root.take()),
        (Value::Object(map), Some(name)) => map.remove(&name).ok_or(Misfit::Missing),
        (Value::Array(items), Some(token)) => {
            let at = position(&token, items.len()).ok_or(Misfit::Index)?;
            Ok(items.remove(at))
        }
        _ => Err(Misfit::NoContainer),
    }
}

fn replace(document: &mut Value, pointer: &str, value: Value) -> Result<(), Misfit> {
    let slot = match parent(document, pointer)? {
        (root, None) => root,
        (Value::Object(map), Some(name)) => map.get_mut(&name).ok_or(Misfit::Missing)?,
        (Value::Array(items), Some(token)) => {
            let at = position(&token, items.len()).ok_or(Misfit::Index)?;
            &mut items[at]
        }
        _ => return Err(Misfit::NoContainer),
    };
    *slot = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn patched(mut document: Value, patch: Value) -> Result<Value, String> {
        let (patch, _) = JsonPatch::parse(patch).map_err(|error| error.to_string())?;
        patch.apply(&mut document).map_err(|error| error.to_string())?;
        Ok(document)
    }

    #[test]
    fn each_operation_does_what_the_rfc_says() {
        let document = || json!({"a": {"b": [1, 2]}, "x~y/z": 1});
        for (patch, expected) in [
            (
                json!([{"op": "add", "path": "/a/c", "value": 3}]),
                json!({"a": {"b": [1, 2], "c": 3}, "x~y/z": 1}),
            ),
            (
                json!([{"op": "add", "path": "/a/b/0", "value": 0}]),
                json!({"a": {"b": [0, 1, 2]}, "x~y/z": 1}),
            ),
            (
                json!([{"op": "add", "path": "/a/b/2", "value": 3}]),
                json!({"a": {"b": [1, 2, 3]}, "x~y/z": 1}),
            ),
            (
                json!([{"op": "add", "path": "/a/b/-", "value": 3}]),
                json!({"a": {"b": [1, 2, 3]}, "x~y/z": 1}),
            ),
            (json!([{"op": "remove", "path": "/a/b/-1"}]), json!({"a": {"b": [1]}, "x~y/z": 1})),
            (json!([{"op": "remove", "path": "/x~0y~1z"}]), json!({"a": {"b": [1, 2]}})),
            (
                json!([{"op": "replace", "path": "/a/b/1", "value": null}]),
                json!({"a": {"b": [1, null]}, "x~y/z": 1}),
            ),
            (
                json!([{"op": "move", "from": "/a/b", "path": "/b"}]),
                json!({"a": {}, "b": [1, 2], "x~y/z": 1}),
            ),
            (
                json!([{"op": "copy", "from": "/a/b/0", "path": "/b"}]),
                json!({"a": {"b": [1, 2]}, "b": 1, "x~y/z": 1}),
            ),
            (json!([{"op": "test", "path": "/a/b", "value": [1, 2]}]), document()),
            (json!([{"op": "test", "path": "/nope", "value": null}]), document()),
            (json!([{"op": "replace", "path": "", "value": {}}]), json!({})),
            (json!([]), document()),
        ] {
            assert_eq!(patched(document(), patch.clone()), Ok(expected), "{patch}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for patch in [
            json!([{"op": "remove", "path": "/b"}]),
            json!([{"op": "replace", "path": "/b", "value": 1}]),
            json!([{"op": "add", "path": "/b/c", "value": 1}]),
            json!([{"op": "add", "path": "/a/5", "value": 1}]),
            json!([{"op": "add", "path": "/a/01", "value": 1}]),
            json!([{"op": "add", "path": "a", "value": 1}]),
            json!([{"op": "move", "from": "/b", "path": "/c"}]),
            json!([{"op": "copy", "from": "/b", "path": "/c"}]),
            json!([{"op": "test", "path": "/a", "value": 1}]),
            json!([{"op": "nope", "path": "/a"}]),
            json!([{}]),
        ] {
            let (parsed, _) = JsonPatch::parse(patch.clone()).unwrap();
            let error = parsed.apply(&mut json!({"a": [1]})).unwrap_err();
            assert_eq!(error.into_status().code, 422, "{patch}");
        }
    }

    #[test]
    fn a_document_of_another_form_is_malformed() {
        for (document, message) in [
            (json!({}), "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
            (json!([1]), "json: cannot unmarshal number into Go value of type handlers.jsonPatchOp"),
            (
                json!([{"op": 1}]),
                "json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
            ),
        ] {
            let error = JsonPatch::parse(document).unwrap_err();
            assert_eq!(error.to_string(), format!("error decoding patch: {message}"));
            assert_eq!(error.into_status().code, 400);
        }
        let many = Value::Array(vec![json!({"op": "test", "path": "/a"}); OPERATIONS_MAX + 1]);
        assert_eq!(JsonPatch::parse(many).unwrap_err().into_status().code, 413);
        let (_, notes) = JsonPatch::parse(json!([{"op": "add", "path": "/a", "vaule": 1}])).unwrap();
        assert_eq!(notes, ["json patch unknown field \"[0].vaule\""]);
    }

    #[test]
    fn copies_may_not_grow_an_object_without_end() {
        let double = json!({"op": "copy", "from": "/a", "path": "/a/-"});
        let error = patched(json!({"a": [1]}), Value::Array(vec![double; 40])).unwrap_err();
        assert!(error.contains("exceeding the limit"), "{error}");
    }
}

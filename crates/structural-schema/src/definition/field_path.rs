//! Paths that point from a node of a schema to a field below it: `.spec.size`, `['spec']['a.b']`.

use std::sync::Arc;

use crate::Structural;
use crate::structural::Additional;

/// A path that leads somewhere.
#[derive(Debug, Clone)]
pub struct FieldPath {
    steps: Vec<Step>,
    /// What it leads to; `None` for a field of a map of anything.
    pub target: Option<Arc<Structural>>,
}

#[derive(Debug, Clone)]
enum Step {
    Field(String),
    Key(String),
}

impl FieldPath {
    /// Follows `text` from `schema`. Upstream's complaint, if it leads nowhere.
    pub fn parse(text: &str, schema: &Structural, allow_brackets: bool) -> Result<Self, String> {
        let mut own = Self { steps: Vec::new(), target: None };
        let mut rest = text;
        while !rest.is_empty() {
            let token = take(&mut rest);
            match token {
                "." => {
                    let name = next(&mut rest)?;
                    own.step(schema, name.to_owned())?;
                }
                "[" if !allow_brackets => return Err("array notation is not allowed".into()),
                "[" => {
                    let quoted = next(&mut rest)?;
                    let inner = quoted
                        .strip_prefix('\'')
                        .and_then(|inner| inner.strip_suffix('\''))
                        .ok_or_else(|| format!("expected single quoted string but got {quoted}"))?;
                    own.step(schema, unescape(inner)?)?;
                    let close = next(&mut rest)?;
                    if close != "]" {
                        return Err(format!("expected ] but got {close}"));
                    }
                }
                other => return Err(format!("expected [ or . but got: {other}")),
            }
        }
        Ok(own)
    }

    /// The name of the first field.
    pub fn root(&self) -> &str {
        match self.steps.first() {
            Some(Step::Field(name) | Step::Key(name)) => name,
            None => "",
        }
    }

    fn step(&mut self, schema: &Structural, name: String) -> Result<(), String> {
        const NOWHERE: &str = "does not refer to a valid field";
        let here = match (&self.target, self.steps.is_empty()) {
            (Some(target), _) => &**target,
            (None, true) => schema,
            (None, false) => return Err(NOWHERE.into()),
        };
        if !here.properties.is_empty() {
            let target = here.property(&name).ok_or(NOWHERE)?.clone();
            self.target = Some(target);
            self.steps.push(Step::Field(name));
            return Ok(());
        }
        self.target = match &here.additional {
            Additional::Schema(values) => Some(values.clone()),
            Additional::Any => None,
            Additional::None => return Err(NOWHERE.into()),
        };
        self.steps.push(Step::Key(name));
        Ok(())
    }
}

impl std::fmt::Display for FieldPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            match step {
                Step::Field(name) if index == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Key(name) => write!(f, "[{name}]")?,
            }
        }
        Ok(())
    }
}

/// A delimiter, a quoted string, or what there is up to the next delimiter.
fn take<'t>(rest: &mut &'t str) -> &'t str {
    let text = *rest;
    let end = if text.starts_with(['.', '[', ']']) {
        1
    } else if text.starts_with('\'') {
        let mut previous = '\'';
        let close = text.char_indices().skip(1).find(|(_, c)| {
            let is_end = *c == '\'' && previous != '\\';
            previous = *c;
            is_end
        });
        close.map_or(text.len(), |(at, _)| at + 1)
    } else {
        text.find(['.', '[', ']']).unwrap_or(text.len())
    };
    let (token, after) = text.split_at(end);
    *rest = after;
    token
}

fn next<'t>(rest: &mut &'t str) -> Result<&'t str, String> {
    if rest.is_empty() { Err("unexpected end of JSON path".into()) } else { Ok(take(rest)) }
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next() {
            Some('a') => '\u{7}',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\u{b}',
            Some(own @ ('\'' | '\\')) => own,
            Some(other) => return Err(format!("invalid string literal: invalid escape char \\{other}")),
            None => '\\',
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn paths_follow_the_schema() {
        let schema = Structural::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"a.b": {"type": "string"}, "n": {"type": "integer"}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"v": {"type": "string"}}}},
        }}));
        for (text, expected) in [
            (".spec.n", Ok("spec.n")),
            (".spec['a.b']", Ok("spec.a.b")),
            ("['spec'].n", Ok("spec.n")),
            (".map.k.v", Ok("map[k].v")),
            (".spec.x", Err("does not refer to a valid field")),
            (".spec.n.x", Err("does not refer to a valid field")),
            ("spec", Err("expected [ or . but got: spec")),
            (".spec[n]", Err("expected single quoted string but got n")),
            (".spec['n'", Err("unexpected end of JSON path")),
            (".", Err("unexpected end of JSON path")),
            (".spec['\\q']", Err("invalid string literal: invalid escape char \\q")),
        ] {
            let found = FieldPath::parse(text, &schema, true).map(|path| path.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{text}");
        }
        let error = FieldPath::parse(".spec['n']", &schema, false).expect_err("no brackets");
        assert_eq!(error, "array notation is not allowed");
    }
}

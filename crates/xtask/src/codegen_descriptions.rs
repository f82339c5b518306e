//! What `kubectl explain` says: the descriptions of types and fields, out of the source of the `k8s-openapi` crate.
//!
//! Owns: `crates/api/data/descriptions.txt.gz`; its reader is `api::openapi`. The crate's schemas are functions, one
//! for each type, whose descriptions are string literals at fixed depths. Reading them as text costs nothing; building
//! the crate with its schemas, and them into the server, would cost minutes and megabytes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::GzBuilder;

use crate::codegen::DEFINITION_PREFIX;

/// What the schema function of a type says.
#[derive(Default)]
struct Described {
    own: String,
    fields: BTreeMap<String, String>,
}

/// Reads the source of one Kubernetes version of the crate (`src/v1_36`).
pub fn run(source: &Path) -> Result<()> {
    let mut types = BTreeMap::new();
    read_folder(source, &mut types)?;
    ensure!(!types.is_empty(), "{} holds no schemas of k8s-openapi", source.display());
    let path = crate::repository().join("crates/api/data/descriptions.txt.gz");
    let mut packed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    packed.write_all(table(&types).as_bytes()).context("packing the descriptions")?;
    fs::write(&path, packed.finish()?).with_context(|| format!("writing {path}"))
}

/// A type at the start of a line, its fields indented below it; a tab stands before the description.
fn table(types: &BTreeMap<String, Described>) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('\n', "\\n");
    let mut out = String::new();
    for (name, described) in types {
        out += &format!("{name}\t{}\n", escaped(&described.own));
        for (field, text) in &described.fields {
            out += &format!(" {field}\t{}\n", escaped(text));
        }
    }
    out
}

fn read_folder(folder: &Path, types: &mut BTreeMap<String, Described>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            read_folder(&path, types)?;
        } else if path.extension().is_some_and(|own| own == "rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            read_file(&text, types);
        }
    }
    Ok(())
}

fn read_file(text: &str, types: &mut BTreeMap<String, Described>) {
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if !line.trim_start().starts_with("fn schema_name()") {
            continue;
        }
        let name = lines.next().and_then(|line| literal(line, "\"", "\".into()"));
        let Some(name) = name.and_then(|name| name.strip_prefix(DEFINITION_PREFIX).map(str::to_owned)) else {
            continue;
        };
        let mut described = Described::default();
        let mut field = String::new();
        // The function ends where its impl does.
        for line in lines.by_ref().take_while(|line| *line != "}") {
            let depth = line.len() - line.trim_start().len();
            match depth {
                12 => {
                    if let Some(text) = literal(line, "\"description\": \"", "\",") {
                        described.own = text;
                    }
                }
                16 => {
                    if let Some((name, _)) =
                        line.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'))
                    {
                        field = name.to_owned();
                    }
                }
                20 => {
                    let text = literal(line, "\"description\": \"", "\",")
                        .or_else(|| literal(line, "insert(\"description\".into(), \"", "\".into());"));
                    if let Some(text) = text {
                        described.fields.insert(field.clone(), text);
                    }
                }
                _ => {}
            }
        }
        types.insert(name, described);
    }
}

/// The text of a string literal between two marks of a line.
fn literal(line: &str, before: &str, after: &str) -> Option<String> {
    let start = line.find(before)? + before.len();
    let end = line.rfind(after)?;
    let mut text = String::new();
    let mut escaped = false;
    for c in line.get(start..end)?.chars() {
        match (escaped, c) {
            (false, '\\') => {
                escaped = true;
                continue;
            }
            (true, 'n') => text.push('\n'),
            (true, 't') => text.push('\t'),
            (_, c) => text.push(c),
        }
        escaped = false;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_of_types_and_fields_are_found() {
        let source = r#"
impl crate::schemars::JsonSchema for ConfigMap {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "io.k8s.api.core.v1.ConfigMap".into()
    }

    fn json_schema(__gen: &mut crate::schemars::SchemaGenerator) -> crate::schemars::Schema {
        crate::schemars::json_schema!({
            "description": "A \"map\".",
            "properties": {
                "data": {
                    "description": "First.\nSecond.",
                },
                "metadata": ({
                    schema_obj.ensure_object().insert("description".into(), "Of the map.".into());
                }),
            },
        })
    }
}
"#;
        let mut types = BTreeMap::new();
        read_file(source, &mut types);
        let expected = "api.core.v1.ConfigMap\tA \"map\".\n data\tFirst.\\nSecond.\n metadata\tOf the map.\n";
        assert_eq!(table(&types), expected);
    }
}

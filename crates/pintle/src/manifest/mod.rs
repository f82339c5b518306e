//! Manifests: files, folders and stdin read into objects before anything is started.

use std::io::Read;

use anyhow::{Context, bail};
use apimachinery::Value;
use camino::{Utf8Path, Utf8PathBuf};

/// Endings that count as manifests in a folder, as kubectl's.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// One document.
#[derive(Debug)]
pub struct Manifest {
    pub object: Value,
    /// Where it stands, for messages: `shop/web.yaml, document 2`.
    pub origin: String,
}

/// Reads everything; the first thing that is wrong ends it, named by file, document and line.
pub fn read_all(paths: &[Utf8PathBuf]) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for path in paths {
        if path == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("--apply -: reading stdin")?;
            parse("stdin", &text, &mut manifests)?;
        } else if path.is_dir() {
            for file in files_in(path)? {
                read_file(&file, &mut manifests)?;
            }
        } else {
            read_file(path, &mut manifests)?;
        }
    }
    Ok(manifests)
}

fn files_in(folder: &Utf8Path) -> anyhow::Result<Vec<Utf8PathBuf>> {
    let entries = folder.read_dir_utf8().with_context(|| format!("--apply {folder}: reading the folder"))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("--apply {folder}: reading the folder"))?.into_path();
        if path.is_file() && path.extension().is_some_and(|ending| ENDINGS.contains(&ending)) {
            files.push(path);
        }
    }
    if files.is_empty() {
        bail!("--apply {folder}: no .yaml, .yml or .json file in it");
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Utf8Path, manifests: &mut Vec<Manifest>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("--apply {path}"))?;
    parse(path.as_str(), &text, manifests)
}

fn parse(file: &str, text: &str, manifests: &mut Vec<Manifest>) -> anyhow::Result<()> {
    for (number, document) in documents(text).enumerate() {
        let origin = format!("{file}, document {}", number + 1);
        if document.is_blank() {
            continue;
        }
        let value = Value::parse_yaml(&document.padded()).with_context(|| origin.clone())?;
        if value.is_null() {
            continue;
        }
        collect(value, origin, manifests)?;
    }
    Ok(())
}

/// A `List` counts as its items.
fn collect(value: Value, origin: String, manifests: &mut Vec<Manifest>) -> anyhow::Result<()> {
    if !value.is_object() {
        bail!("{origin}: a manifest must be an object with apiVersion and kind");
    }
    for field in ["apiVersion", "kind"] {
        if value.str_at(&[field]).is_empty() {
            bail!("{origin}: {field} is missing");
        }
    }
    if value.str_at(&["kind"]) == "List" {
        for (index, item) in value.array_at(&["items"]).iter().enumerate() {
            collect(item.clone(), format!("{origin}, item {}", index + 1), manifests)?;
        }
        return Ok(());
    }
    let metadata = &value["metadata"];
    if metadata.str_at(&["name"]).is_empty() && metadata.str_at(&["generateName"]).is_empty() {
        bail!("{origin}: metadata.name is missing");
    }
    manifests.push(Manifest { object: value, origin });
    Ok(())
}

/// One document of a multi-document file and the line it starts on.
struct Document<'a> {
    text: &'a str,
    lines_before: usize,
}

impl Document<'_> {
    fn is_blank(&self) -> bool {
        self.text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    }

    /// With as many empty lines in front as the file has, so that a parser's line numbers are the file's.
    fn padded(&self) -> String {
        format!("{}{}", "\n".repeat(self.lines_before), self.text)
    }
}

/// Splits at lines that begin with `---`.
fn documents(text: &str) -> impl Iterator<Item = Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let rest = line.strip_prefix("---");
        if rest.is_some_and(|rest| rest.trim().is_empty() || rest.starts_with([' ', '\t'])) {
            documents.push(Document { text: &text[start..at], lines_before: start_line });
            start = at + line.len();
            start_line = number + 1;
        }
        at += line.len();
    }
    documents.push(Document { text: &text[start..], lines_before: start_line });
    documents.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        parse("f.yaml", text, &mut manifests).map(|()| manifests)
    }

    const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";

    #[test]
    fn documents_lists_and_comments_are_told_apart() {
        let list =
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: s}}\n";
        let text = format!("# head\n---\n{MAP}---\n\n--- # empty\n{MAP}---\n{list}");
        let found = read(&text).unwrap();
        let origins: Vec<&str> = found.iter().map(|manifest| manifest.origin.as_str()).collect();
        assert_eq!(origins, ["f.yaml, document 2", "f.yaml, document 4", "f.yaml, document 5, item 1"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let broken = format!("{MAP}---\napiVersion: v1\nkind: [\n");
        let cases = [
            (broken.as_str(), "f.yaml, document 2"),
            ("kind: X\nmetadata: {name: a}\n", "apiVersion is missing"),
            ("apiVersion: v1\nmetadata: {name: a}\n", "kind is missing"),
            ("apiVersion: v1\nkind: X\n", "metadata.name is missing"),
            ("just text\n", "must be an object"),
        ];
        for (text, expected) in cases {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_yaml_error_counts_lines_from_the_top_of_the_file() {
        let error = format!("{:#}", read(&format!("{MAP}---\nkind: a\n  b: c\n")).unwrap_err());
        assert!(error.contains("line 6"), "{error}");
    }
}

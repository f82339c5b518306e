//! Rules for single files: size, names, left-overs, links.

use std::fs;

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};

use super::Complaint;

/// Beyond this a file is data that belongs into a compact form, or a build product that slipped in.
const FILE_BYTES_MAX: u64 = 512 * 1024;
/// Beyond this a source file is a folder that has not been made yet. Tests stand in files of their own.
const RUST_LINES_MAX: usize = 900;
/// Names that say nothing; name the noun instead.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "common", "helper", "helpers", "misc"];
/// What is not ours to check. (`.git` is a file in a linked work tree.)
const SKIPPED: [&str; 7] = ["target", ".git", ".venv", "__pycache__", "node_modules", "corpus", "artifacts"];

/// Text that ties the repository to somebody's machine. Split, so that this file does not contain it.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];
/// The mark of unfinished work; a name in parentheses must follow, so that somebody owns it.
const MARK: &str = concat!("TO", "DO");

/// Checks every file below `root`.
pub(super) fn check(root: &Utf8Path) -> anyhow::Result<Vec<Complaint>> {
    let mut complaints = Vec::new();
    for path in files_below(root)? {
        let place = path.strip_prefix(root).unwrap_or(&path);
        let size = fs::metadata(&path).with_context(|| format!("reading {place}"))?.len();
        if size > FILE_BYTES_MAX {
            let text = format!("{size} bytes; at most {FILE_BYTES_MAX} may stand in the repository");
            complaints.push(Complaint::new(place.as_str(), text));
        }
        let bytes = fs::read(&path).with_context(|| format!("reading {place}"))?;
        // Anything that is not text (a compressed table) has no lines to check.
        if let Ok(text) = std::str::from_utf8(&bytes) {
            check_text(root, place, text, &mut complaints);
        }
    }
    Ok(complaints)
}

fn check_text(root: &Utf8Path, place: &Utf8Path, text: &str, complaints: &mut Vec<Complaint>) {
    for (at, line) in text.lines().enumerate() {
        for objection in objections_to_line(line) {
            complaints.push(Complaint::new(format!("{place}:{}", at + 1), objection));
        }
    }
    match place.extension() {
        Some("rs") => complaints
            .extend(objections_to_rust(place, text).map(|text| Complaint::new(place.as_str(), text))),
        Some("md") => complaints.extend(dead_links(root, place, text)),
        _ => {}
    }
}

fn objections_to_line(line: &str) -> Vec<String> {
    let mut objections = Vec::new();
    for path in MACHINE_PATHS {
        // A URL's path is nobody's folder.
        if line
            .match_indices(path)
            .any(|(at, _)| !line[..at].ends_with(|letter: char| letter.is_alphanumeric()))
        {
            objections.push(format!("names a folder of one machine ({path}…)"));
        }
    }
    let owned = |rest: &str| rest.starts_with('(') || rest.starts_with(|next: char| next.is_alphanumeric());
    if line.match_indices(MARK).any(|(at, _)| !owned(&line[at + MARK.len()..])) {
        objections.push(format!("{MARK} without an owner; write {MARK}(name)"));
    }
    objections
}

fn objections_to_rust(place: &Utf8Path, text: &str) -> impl Iterator<Item = String> {
    let stem = place.file_stem().unwrap_or_default();
    let name =
        EMPTY_NAMES.contains(&stem).then(|| format!("`{stem}` says nothing; name the noun that lives here"));
    let is_root = matches!(place.file_name(), Some("lib.rs" | "main.rs"));
    let undocumented = is_root && !text.starts_with("//!");
    let doc =
        undocumented.then(|| "begins without a module doc; say what it owns and where to start".to_owned());
    let lines = text.lines().count();
    let is_test = stem == "tests" || place.components().any(|part| part.as_str() == "tests");
    let long = lines > RUST_LINES_MAX && !is_test;
    let length =
        long.then(|| format!("{lines} lines; beyond {RUST_LINES_MAX} make a folder, one file per concept"));
    [name, doc, length].into_iter().flatten()
}

/// Relative links of a Markdown file whose target does not exist.
fn dead_links(root: &Utf8Path, place: &Utf8Path, text: &str) -> Vec<Complaint> {
    let folder = root.join(place.parent().unwrap_or(Utf8Path::new("")));
    let mut complaints = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for target in links_of(line) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !folder.join(file).exists() {
                complaints.push(Complaint::new(
                    format!("{place}:{}", at + 1),
                    format!("links to {file}, which is not there"),
                ));
            }
        }
    }
    complaints
}

fn links_of(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(|(at, open)| {
        let rest = &line[at + open.len()..];
        rest.split_once(')').map(|(target, _)| target)
    })
}

fn files_below(root: &Utf8Path) -> anyhow::Result<Vec<Utf8PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir_utf8().with_context(|| format!("listing {folder}"))? {
            let entry = entry.with_context(|| format!("listing {folder}"))?;
            let kind = entry.file_type().with_context(|| format!("reading {}", entry.path()))?;
            if SKIPPED.contains(&entry.file_name()) {
                continue;
            }
            if kind.is_dir() {
                folders.push(entry.path().to_owned());
            } else if kind.is_file() {
                files.push(entry.path().to_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_paths_and_unowned_marks_are_found() {
        for (line, count) in [
            (format!("let path = \"{}me/x\";", MACHINE_PATHS[1]), 1),
            (format!("see https://example.com{}net", MACHINE_PATHS[0]), 0),
            (format!("// {MARK}: later"), 1),
            (format!("// {MARK}(ada): later"), 0),
            (format!("const {MARK}S: u8 = 0;"), 0),
            ("plain".to_owned(), 0),
        ] {
            assert_eq!(objections_to_line(&line).len(), count, "{line}");
        }
    }

    #[test]
    fn a_rust_file_has_a_telling_name_a_doc_at_its_root_and_an_end() {
        let count = |place: &str, text: &str| objections_to_rust(place.into(), text).count();
        assert_eq!(count("crates/x/src/lib.rs", "//! What it owns.\n"), 0);
        assert_eq!(count("crates/x/src/lib.rs", "mod a;\n"), 1);
        assert_eq!(count("crates/x/src/queue.rs", "mod a;\n"), 0);
        assert_eq!(count("crates/x/src/helpers.rs", ""), 1);
        assert_eq!(count("crates/x/src/queue.rs", &"\n".repeat(RUST_LINES_MAX + 1)), 1);
        assert_eq!(count("crates/x/src/tests.rs", &"\n".repeat(RUST_LINES_MAX + 1)), 0);
    }

    #[test]
    fn links_are_read_from_a_line() {
        let links: Vec<_> = links_of("see [a](docs/a.md#part) and [b](https://example.com)").collect();
        assert_eq!(links, ["docs/a.md#part", "https://example.com"]);
    }
}

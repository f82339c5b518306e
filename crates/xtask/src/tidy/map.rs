//! The crate map in `ARCHITECTURE.md`, written from the manifests.

use anyhow::Context;
use camino::Utf8Path;

use super::layers::Layer;
use super::manifests::Package;
use super::{Complaint, Mode};

const FILE: &str = "ARCHITECTURE.md";
const BEGIN: &str = "<!-- crate map: written by `cargo xtask tidy --fix`, do not edit -->\n";
const END: &str = "<!-- end of crate map -->";

const LAYERS: [Layer; 7] = [Layer::L0, Layer::L1, Layer::L2, Layer::L3, Layer::L4, Layer::L5, Layer::Dev];

/// Complains about a map that does not say what the manifests say, or with [`Mode::Fix`] rewrites it.
pub(super) fn check(root: &Utf8Path, packages: &[Package], mode: Mode) -> anyhow::Result<Vec<Complaint>> {
    let path = root.join(FILE);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {FILE}"))?;
    let Some(wanted) = with_map(&text, &render(packages)) else {
        return Ok(vec![Complaint::new(
            FILE,
            format!("needs the lines `{}` and `{END}` around the map", BEGIN.trim()),
        )]);
    };
    if wanted == text {
        return Ok(Vec::new());
    }
    if mode == Mode::Fix {
        std::fs::write(&path, wanted).with_context(|| format!("writing {FILE}"))?;
        return Ok(Vec::new());
    }
    Ok(vec![Complaint::new(FILE, "the crate map is stale; run `cargo xtask tidy --fix`")])
}

/// The text with what stands between the markers replaced; `None` without markers.
fn with_map(text: &str, map: &str) -> Option<String> {
    let start = text.find(BEGIN)? + BEGIN.len();
    let end = start + text[start..].find(END)?;
    Some(format!("{}{map}{}", &text[..start], &text[end..]))
}

fn render(packages: &[Package]) -> String {
    let mut map = "\n| layer | crate | what lives there | uses |\n|---|---|---|---|\n".to_owned();
    for layer in LAYERS {
        for package in packages.iter().filter(|package| package.layer == Some(layer)) {
            let uses: Vec<&str> = package.uses.iter().map(String::as_str).collect();
            map.push_str(&format!(
                "| {} | [`{}`]({}) | {} | {} |\n",
                layer.name(),
                package.name,
                package.folder,
                package.description,
                uses.join(", ")
            ));
        }
    }
    map.push('\n');
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let text = format!("before\n{BEGIN}old\n{END}\nafter\n");
        assert_eq!(with_map(&text, "new\n"), Some(format!("before\n{BEGIN}new\n{END}\nafter\n")));
        assert_eq!(with_map("no markers", "new"), None);
    }
}

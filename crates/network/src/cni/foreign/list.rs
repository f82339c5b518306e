//! [`NetworkList`]: a network's configuration, as an administrator or a DaemonSet puts it into the folder.

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cni::install::ENDINGS;
use crate::cni::wire::{DOCUMENT_BYTES_MAX, VERSIONS};

/// Versions that no plugin of ours speaks, and others may.
const OLD_VERSIONS: [&str; 2] = ["0.1.0", "0.2.0"];

/// A document that says nothing is of this version.
const VERSION_DEFAULT: &str = "0.1.0";

/// The plugins that connect a pod, in the order in which they are called.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct NetworkList {
    pub name: String,
    /// The newest version that both the document and we know.
    pub version: String,
    pub disables_gc: bool,
    pub plugins: Vec<Map<String, Value>>,
}

impl NetworkList {
    /// The first document of the folder, in the order of names; `None` where there is none. As containerd does it, one
    /// that cannot be used is not passed over.
    ///
    /// # Errors
    /// Says which file cannot be used, and why.
    pub fn first(folder: &Utf8Path) -> Result<Option<Self>, String> {
        let Some(path) = first_file(folder).map_err(|error| format!("reading {folder}: {error}"))? else {
            return Ok(None);
        };
        let of_file = |why: String| format!("{path}: {why}");
        let size = path.metadata().map_err(|error| of_file(error.to_string()))?.len();
        if size > DOCUMENT_BYTES_MAX {
            return Err(of_file(format!("it has {size} bytes, and at most {DOCUMENT_BYTES_MAX} are read")));
        }
        let bytes = std::fs::read(&path).map_err(|error| of_file(error.to_string()))?;
        Self::parse(&bytes).map(Some).map_err(of_file)
    }

    /// A list (`.conflist`), or one plugin alone (`.conf`): told apart by what is in it.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let name = document.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !is_network_name(&name) {
            return Err(format!(
                "name: {name:?} must begin with a letter or a digit and have only those, _, . and -"
            ));
        }
        let version = version(&document)?;
        let disables_gc = document.get("disableGC").is_some_and(is_true);
        let plugins = match document.get("plugins") {
            None if document.contains_key("type") => vec![document],
            None => return Err("plugins: required, or type where it is one plugin alone".to_owned()),
            Some(plugins) => Vec::deserialize(plugins).map_err(|error| format!("plugins: {error}"))?,
        };
        if plugins.is_empty() {
            return Err("plugins: a network has at least one plugin".to_owned());
        }
        for (index, plugin) in plugins.iter().enumerate() {
            let kind = kind(plugin);
            // It is looked up in the folders of plugins, and nowhere else.
            if kind.is_empty() || kind.contains('/') || kind.starts_with('.') {
                return Err(format!("plugins[{index}].type: {kind:?} is no name of a plugin"));
            }
        }
        Ok(Self { name, version, disables_gc, plugins })
    }

    /// Whether the version has something that came with this one.
    pub fn is_at_least(&self, version: &str) -> bool {
        rank(&self.version) >= rank(version)
    }
}

/// A plugin's program.
pub(super) fn kind(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// As JSON has it, or as text: upstream takes both.
fn is_true(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("true")))
}

fn first_file(folder: &Utf8Path) -> std::io::Result<Option<Utf8PathBuf>> {
    let mut names = Vec::new();
    for entry in folder.read_dir_utf8()? {
        let entry = entry?;
        let is_network =
            Utf8Path::new(entry.file_name()).extension().is_some_and(|ending| ENDINGS.contains(&ending));
        if is_network && !entry.path().is_dir() {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names.into_iter().min().map(|name| folder.join(name)))
}

fn is_network_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric();
    name.bytes().next().is_some_and(is_plain)
        && name.bytes().all(|byte| is_plain(byte) || [b'_', b'.', b'-'].contains(&byte))
}

/// The newest of `cniVersion` and `cniVersions` that is known here.
fn version(document: &Map<String, Value>) -> Result<String, String> {
    let several = document.get("cniVersions").and_then(Value::as_array).into_iter().flatten();
    let mut said: Vec<&str> =
        document.get("cniVersion").into_iter().chain(several).filter_map(Value::as_str).collect();
    if said.is_empty() {
        said.push(VERSION_DEFAULT);
    }
    let known = said.iter().filter(|version| rank(version).is_some()).max_by_key(|version| rank(version));
    known.map(|version| (*version).to_owned()).ok_or_else(|| {
        let known: Vec<&str> = OLD_VERSIONS.into_iter().chain(VERSIONS).collect();
        format!("cniVersion: {} is not known, but {} are", said.join(", "), known.join(", "))
    })
}

fn rank(version: &str) -> Option<usize> {
    OLD_VERSIONS.into_iter().chain(VERSIONS).position(|known| known == version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(String, String, Vec<String>), String> {
        let list = NetworkList::parse(text.as_bytes())?;
        let kinds = list.plugins.iter().map(|plugin| kind(plugin).to_owned()).collect();
        Ok((list.name, list.version, kinds))
    }

    #[test]
    fn a_document_is_a_list_or_one_plugin() {
        for (text, expected) in [
            (
                r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "a"}, {"type": "b"}]}"#,
                ("1.0.0", vec!["a", "b"]),
            ),
            (r#"{"cniVersion": "0.3.1", "name": "n", "type": "a"}"#, ("0.3.1", vec!["a"])),
            (r#"{"name": "n", "type": "a"}"#, ("0.1.0", vec!["a"])),
            // The newest that both know.
            (
                r#"{"cniVersion": "0.4.0", "cniVersions": ["1.0.0", "1.1.0", "9.0.0"], "name": "n", "type": "a"}"#,
                ("1.1.0", vec!["a"]),
            ),
        ] {
            let (name, version, kinds) = parsed(text).unwrap();
            assert_eq!(
                (name.as_str(), version.as_str(), kinds),
                ("n", expected.0, expected.1.iter().map(ToString::to_string).collect()),
                "{text}"
            );
        }
    }

    #[test]
    fn a_document_that_cannot_be_used_says_which_field() {
        for (text, expected) in [
            ("{", "EOF"),
            (r#"{"type": "a"}"#, "name: \"\""),
            (r#"{"name": "../n", "type": "a"}"#, "name: "),
            (r#"{"name": "n"}"#, "plugins: required"),
            (r#"{"name": "n", "plugins": []}"#, "at least one plugin"),
            (r#"{"name": "n", "plugins": [{"type": "a"}, {"type": "../b"}]}"#, "plugins[1].type"),
            (r#"{"name": "n", "plugins": ["a"]}"#, "plugins: "),
            (r#"{"cniVersion": "9.0.0", "name": "n", "type": "a"}"#, "cniVersion: 9.0.0 is not known"),
        ] {
            let why = parsed(text).expect_err(text);
            assert!(why.contains(expected), "{text}: {why}");
        }
    }

    #[test]
    fn the_first_file_counts_whatever_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap();
        let first = || NetworkList::first(path).map(|list| list.map(|list| list.name));
        let write = |name: &str, text: &str| std::fs::write(path.join(name), text).unwrap();
        assert_eq!(first(), Ok(None));
        write("00-readme", "");
        write("00-new.conflist.tmp", "");
        assert_eq!(first(), Ok(None));
        write("20-b.conflist", r#"{"name": "b", "plugins": [{"type": "x"}]}"#);
        write("10-a.conf", r#"{"name": "a", "type": "x"}"#);
        assert_eq!(first(), Ok(Some("a".to_owned())));
        write("05-broken.json", "");
        assert!(first().is_err_and(|why| why.contains("05-broken.json")));
        assert!(NetworkList::first(&path.join("none")).is_err());
    }

    #[test]
    fn versions_are_in_the_order_of_their_age() {
        let list = |version: &str| NetworkList { version: version.to_owned(), ..NetworkList::default() };
        for (version, least, expected) in [
            ("0.3.1", "0.4.0", false),
            ("0.4.0", "0.4.0", true),
            ("1.1.0", "0.4.0", true),
            ("1.0.0", "1.1.0", false),
        ] {
            assert_eq!(list(version).is_at_least(least), expected, "{version} {least}");
        }
    }
}

//! Where a runtime finds the plugin: a configuration in one folder, names of this program in another.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use super::plugin::{LOOPBACK, PLUGIN};

/// Before the names that other networks usually have: runtimes take the first.
const CONFIGURATION: &str = "10-pintle.conflist";

/// Endings of files that runtimes take for a network's.
pub(super) const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// Where things go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The runtime's folder of networks.
    pub configurations: Utf8PathBuf,
    /// The runtime's folder of plugins.
    pub programs: Utf8PathBuf,
    /// Where the node's process listens.
    pub socket: Utf8PathBuf,
    /// This program.
    pub executable: Utf8PathBuf,
}

/// What is not as it should be, in a sentence for whoever runs the node.
pub type Warning = String;

/// Makes the plugin known to the runtime. What it says another network comes first is a warning: it is the user's to
/// decide.
///
/// # Errors
/// Where a file cannot be made.
pub fn install(places: &Places) -> io::Result<Option<Warning>> {
    let about = |path: &Utf8Path| {
        let path = path.to_owned();
        move |error: io::Error| io::Error::new(error.kind(), format!("making {path}: {error}"))
    };
    for folder in [&places.configurations, &places.programs] {
        std::fs::create_dir_all(folder).map_err(about(folder))?;
    }
    let plugin = places.programs.join(PLUGIN);
    link(&places.executable, &plugin).map_err(about(&plugin))?;
    let loopback = places.programs.join(LOOPBACK);
    // Whoever has one already keeps it, unless it is a link of ours to a program that is gone.
    if !loopback.exists() {
        link(&places.executable, &loopback).map_err(about(&loopback))?;
    }
    let configuration = places.configurations.join(CONFIGURATION);
    let content = json!({
        "cniVersion": "1.0.0",
        "name": "pintle",
        "plugins": [{"type": PLUGIN, "socket": places.socket, "capabilities": {"portMappings": true}}],
    });
    write(&configuration, &format!("{content:#}\n")).map_err(about(&configuration))?;
    Ok(before(&places.configurations).map(|other| {
        let folder = &places.configurations;
        format!(
            "the container runtime takes the network of {folder}/{other}, which comes before {CONFIGURATION}"
        )
    }))
}

/// Replaces whatever has that name, at once: a runtime may be starting it.
fn link(to: &Utf8Path, at: &Utf8Path) -> io::Result<()> {
    if std::fs::read_link(at).is_ok_and(|target| target == *to) {
        return Ok(());
    }
    let new = Utf8PathBuf::from(format!("{at}.new"));
    remove(&new)?;
    std::os::unix::fs::symlink(to, &new)?;
    std::fs::rename(&new, at)
}

fn write(path: &Utf8Path, content: &str) -> io::Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|before| before == content) {
        return Ok(());
    }
    // An ending that no runtime reads.
    let new = Utf8PathBuf::from(format!("{path}.new"));
    std::fs::write(&new, content)?;
    std::fs::rename(&new, path)
}

fn remove(path: &Utf8Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The first network, if it is not ours.
fn before(folder: &Utf8Path) -> Option<String> {
    let entries = folder.read_dir_utf8().ok()?;
    let names = entries.flatten().map(|entry| entry.file_name().to_owned());
    let networks =
        names.filter(|name| Utf8Path::new(name).extension().is_some_and(|ending| ENDINGS.contains(&ending)));
    networks.min().filter(|first| first != CONFIGURATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_finds_the_plugin_and_hears_of_networks_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let places = Places {
            configurations: dir.join("net.d"),
            programs: dir.join("bin"),
            socket: "/run/x/cni.sock".into(),
            executable: "/bin/sh".into(),
        };
        assert_eq!(install(&places).unwrap(), None);
        assert_eq!(std::fs::read_link(dir.join("bin/pintle-cni")).unwrap().to_str(), Some("/bin/sh"));
        let text = std::fs::read_to_string(dir.join("net.d/10-pintle.conflist")).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["plugins"][0]["socket"], "/run/x/cni.sock");

        // The program moved; another loopback stays as it is; a network that sorts later does no harm.
        std::fs::remove_file(dir.join("bin/loopback")).unwrap();
        std::fs::write(dir.join("bin/loopback"), "other").unwrap();
        std::fs::write(dir.join("net.d/20-other.conflist"), "{}").unwrap();
        std::fs::write(dir.join("net.d/00-readme"), "").unwrap();
        let moved = Places { executable: "/bin/cat".into(), ..places };
        assert_eq!(install(&moved).unwrap(), None);
        assert_eq!(std::fs::read_link(dir.join("bin/pintle-cni")).unwrap().to_str(), Some("/bin/cat"));
        assert_eq!(std::fs::read_to_string(dir.join("bin/loopback")).unwrap(), "other");

        std::fs::write(dir.join("net.d/05-first.conf"), "{}").unwrap();
        assert!(install(&moved).unwrap().is_some_and(|warning| warning.contains("05-first.conf")));
    }
}

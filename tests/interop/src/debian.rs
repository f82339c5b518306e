//! Root folders of software that nobody here wrote, made from the packages of Debian.
//!
//! Owns: which packages a program needs to run, fetching them once, unpacking them. Never touches: what is installed on
//! this machine; no script of a package runs. Start at [`Packages::unpack`].
//!
//! A container needs the libraries that a program links, not what configures a machine (debconf, perl, init scripts), so
//! the walk over dependencies follows libraries only; anything else is asked for by name.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};

/// Folders that are links in a Debian of today; packages still name the old ones.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
/// What apt waits for a mirror that does not answer.
const FETCH_TIMEOUT: &str = "Acquire::http::Timeout=10";
const DEPENDENCIES_ONLY: [&str; 7] = [
    "depends",
    "--no-recommends",
    "--no-suggests",
    "--no-conflicts",
    "--no-breaks",
    "--no-replaces",
    "--no-enhances",
];

/// Debian's packages, kept in a folder between runs.
#[derive(Debug)]
pub struct Packages {
    cache: Utf8PathBuf,
    /// What stands before a command that needs the network.
    launcher: Vec<String>,
}

/// A file of the archive, as `apt-get download --print-uris` names it.
#[derive(Debug, PartialEq, Eq)]
struct Archived {
    file: String,
    size: u64,
}

impl Packages {
    /// `launcher` begins the commands that need the network, such as `nsenter --net=…`; it may be empty.
    ///
    /// # Errors
    /// This machine has no apt, or the folder cannot be made.
    pub fn new(cache: &Utf8Path, launcher: Vec<String>) -> anyhow::Result<Self> {
        for program in ["apt-get", "apt-cache", "dpkg-deb", "tar"] {
            output(Command::new(program).arg("--version"))
                .with_context(|| format!("{program} is needed to make images from Debian's packages"))?;
        }
        fs::create_dir_all(cache).with_context(|| format!("making {cache}"))?;
        Ok(Self { cache: cache.to_owned(), launcher })
    }

    /// Fills a folder with packages and every library they need, except those in `without`.
    ///
    /// # Errors
    /// A package is unknown, cannot be fetched or cannot be unpacked.
    pub fn unpack(&self, roots: &[&str], without: &[&str], into: &Utf8Path) -> anyhow::Result<()> {
        let packages = needed(roots, without)?;
        let files = self.fetch(&packages)?;
        for folder in MERGED {
            fs::create_dir_all(into.join("usr").join(folder))
                .with_context(|| format!("making {into}/usr"))?;
            symlink(format!("usr/{folder}"), into.join(folder))
                .with_context(|| format!("linking {into}/{folder}"))?;
        }
        for file in files {
            unpack_one(&file, into).with_context(|| format!("unpacking {file}"))?;
        }
        Ok(())
    }

    /// The files of packages, fetched unless they lie there from an earlier run.
    fn fetch(&self, packages: &BTreeSet<String>) -> anyhow::Result<Vec<Utf8PathBuf>> {
        let listed = output(Command::new("apt-get").args(["download", "--print-uris"]).args(packages))?;
        let archived: Vec<Archived> = listed.lines().filter_map(archived).collect();
        ensure!(
            archived.len() == packages.len(),
            "apt names {} files for {} packages:\n{listed}",
            archived.len(),
            packages.len()
        );
        let lies_there = |own: &Archived| {
            fs::metadata(self.cache.join(&own.file)).is_ok_and(|file| file.len() == own.size)
        };
        if !archived.iter().all(lies_there) {
            let mut words: Vec<&str> = self.launcher.iter().map(String::as_str).collect();
            words.extend(["apt-get", "download", "--quiet", "-o", "APT::Sandbox::User=root"]);
            words.extend(["-o", "Acquire::Retries=0", "-o", FETCH_TIMEOUT]);
            let (program, arguments) = words.split_first().context("apt-get is a word")?;
            output(Command::new(program).args(arguments).args(packages).current_dir(&self.cache))?;
        }
        if let Some(missing) = archived.iter().find(|own| !lies_there(own)) {
            bail!("apt fetched no {} of {} bytes", missing.file, missing.size);
        }
        Ok(archived.into_iter().map(|own| self.cache.join(own.file)).collect())
    }
}

/// The packages of a program that link it: itself, and the libraries of the libraries.
fn needed(roots: &[&str], without: &[&str]) -> anyhow::Result<BTreeSet<String>> {
    let mut found: BTreeSet<String> = roots.iter().map(|&root| root.to_owned()).collect();
    let mut unseen: Vec<String> = found.iter().cloned().collect();
    while !unseen.is_empty() {
        let said = output(Command::new("apt-cache").args(DEPENDENCIES_ONLY).args(&unseen))?;
        unseen = libraries(&said)
            .filter(|&library| !without.contains(&library) && !found.contains(library))
            .map(str::to_owned)
            .collect();
        unseen.sort();
        unseen.dedup();
        found.extend(unseen.iter().cloned());
    }
    Ok(found)
}

/// The libraries in what `apt-cache depends` says; of alternatives, the first.
fn libraries(said: &str) -> impl Iterator<Item = &str> {
    let mut is_other_choice = false;
    said.lines().filter_map(move |line| {
        let (kind, package) = line.trim_start().split_once("Depends: ")?;
        // `|Depends: a` is followed by what would do in its place.
        let is_skipped = is_other_choice;
        is_other_choice = kind.starts_with('|');
        let is_library = package.starts_with("lib") || package.starts_with("zlib");
        (is_library && !is_skipped && !kind.contains(' ')).then_some(package)
    })
}

/// `'http://…' name_version_arch.deb 1234 SHA256:…`
fn archived(line: &str) -> Option<Archived> {
    let mut words = line.strip_prefix('\'')?.split_whitespace().skip(1);
    Some(Archived { file: words.next()?.to_owned(), size: words.next()?.parse().ok()? })
}

/// As `dpkg -x`, except that `bin` and the like stay links.
fn unpack_one(file: &Utf8Path, into: &Utf8Path) -> anyhow::Result<()> {
    let mut archive = Command::new("dpkg-deb")
        .args(["--fsys-tarfile", file.as_str()])
        .stdout(Stdio::piped())
        .spawn()
        .context("starting dpkg-deb")?;
    let tar = archive.stdout.take().context("its output is piped")?;
    let unpacked = output(
        Command::new("tar")
            .args(["-x", "--keep-directory-symlink", "-C", into.as_str()])
            .stdin(Stdio::from(tar)),
    );
    let status = archive.wait().context("waiting for dpkg-deb")?;
    unpacked?;
    ensure!(status.success(), "dpkg-deb ended with {status}");
    Ok(())
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("running {name}"))?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_package_depends_on_only_libraries_are_followed() {
        let said = "server\n  PreDepends: init-system-helpers\n |Depends: locales\n  Depends: locales-all\n  \
                    Depends: libc6\n |Depends: libone\n  Depends: libother\n  Depends: <libvirtual>\n    libreal\n  \
                    Depends: zlib1g\n";
        assert_eq!(libraries(said).collect::<Vec<_>>(), ["libc6", "libone", "zlib1g"]);
    }

    #[test]
    fn a_line_of_apt_names_the_file_and_its_size() {
        let line = "'http://mirror.example/pool/d_1%3a2_amd64.deb' d_1%3a2_amd64.deb 97412 SHA256:00ff";
        assert_eq!(archived(line), Some(Archived { file: "d_1%3a2_amd64.deb".to_owned(), size: 97412 }));
        assert_eq!(archived("Get:1 something"), None);
    }
}

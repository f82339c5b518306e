//! The program that runs here, as an image.

use std::collections::{BTreeMap, BTreeSet};

use camino::{Utf8Path, Utf8PathBuf};

use super::{Build, Source};
use crate::{Error, ImageConfig, Result};

/// The running executable with the loader and the libraries that it has in memory, at their own paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SelfImage {
    executable: Utf8PathBuf,
    libraries: BTreeSet<Utf8PathBuf>,
}

/// Where it lies in the image, wherever it lies here.
const EXECUTABLE_FOLDER: &str = "/usr/local/bin";

impl SelfImage {
    pub(crate) fn of_this_process() -> Result<Self> {
        let read = |path: &str| {
            std::fs::read_to_string(path).map_err(|error| Error::of_io(format!("read {path}"), error))
        };
        let executable = std::fs::read_link("/proc/self/exe")
            .map_err(|error| Error::of_io("read /proc/self/exe".to_owned(), error))?;
        let executable = Utf8PathBuf::from_path_buf(executable).map_err(|path| {
            Error::Invalid(format!("the path of this program is no text: {}", path.display()))
        })?;
        Ok(Self { libraries: libraries(&read("/proc/self/maps")?, &executable), executable })
    }

    pub(crate) fn into_build(self) -> Result<Build> {
        let name = self.executable.file_name().unwrap_or("app").trim_end_matches(" (deleted)");
        let target = Utf8Path::new(EXECUTABLE_FOLDER).join(name);
        let config = ImageConfig {
            entrypoint: vec![target.to_string()],
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
            ..ImageConfig::default()
        };
        // This name is the program itself, also after its file was replaced.
        let mut files = BTreeMap::from([(target, Utf8PathBuf::from("/proc/self/exe"))]);
        for library in self.libraries {
            for path in names_of(&library) {
                files.insert(path, library.clone());
            }
        }
        Ok(Build { source: Source::Files(files), config })
    }
}

/// Files that are mapped to be executed, from the text of `/proc/self/maps`.
fn libraries(maps: &str, executable: &Utf8Path) -> BTreeSet<Utf8PathBuf> {
    maps.lines()
        .filter_map(|line| {
            // Address, permissions, offset, device, inode, path.
            let mut fields = line.splitn(6, ' ');
            let permissions = fields.nth(1)?;
            let path = fields.nth(3)?.trim_start();
            let is_library = permissions.contains('x') && path.starts_with('/') && path != executable;
            is_library.then(|| Utf8PathBuf::from(path))
        })
        .filter(|path| !path.as_str().ends_with(" (deleted)"))
        .collect()
}

/// A loader is asked for by a fixed name, mostly a link's; where `/lib` is a link, a library has its name there too.
fn names_of(library: &Utf8Path) -> Vec<Utf8PathBuf> {
    let mut names = vec![library.to_owned()];
    if let Ok(inside) = library.strip_prefix("/usr") {
        names.push(Utf8Path::new("/").join(inside));
    }
    let Some(name) = library.file_name() else { return names };
    // The ABI of x86-64 puts the loader there whatever the distribution does.
    for folder in ["/lib", "/lib64"] {
        let alias = Utf8Path::new(folder).join(name);
        let is_same = alias.canonicalize_utf8().is_ok_and(|real| real == library);
        if is_same && !names.contains(&alias) {
            names.push(alias);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_is_mapped_to_be_executed() {
        let maps = "\
55d0-55d1 r-xp 00000000 fe:00 1  /opt/pintle
7f00-7f01 r-xp 00001000 fe:00 2                   /usr/lib/x86_64-linux-gnu/libc.so.6
7f01-7f02 r--p 00001000 fe:00 2                   /usr/lib/x86_64-linux-gnu/libm.so.6
7f02-7f03 r-xp 00001000 fe:00 3  /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
7f04-7f05 r-xp 00001000 fe:00 4  /tmp/gone.so (deleted)
7f06-7f07 rw-p 00000000 00:00 0
7fff-8000 r-xp 00000000 00:00 0  [vdso]
";
        let found = libraries(maps, Utf8Path::new("/opt/pintle"));
        let names: Vec<&str> = found.iter().map(|path| path.as_str()).collect();
        assert_eq!(
            names,
            ["/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "/usr/lib/x86_64-linux-gnu/libc.so.6"]
        );
    }
}

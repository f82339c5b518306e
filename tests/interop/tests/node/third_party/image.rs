//! The images: which packages, which files beside them, how the program is started.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use interop::{Checks, Packages};

use crate::world::{Cluster, Inputs, run};

/// Who may own files and run programs in the images; the numbers are the images' own.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\n\
                      redis:x:101:101::/data:/bin/sh\npostgres:x:106:106::/data:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/sh\n";
const GROUP: &str = "root:x:0:\nwww-data:x:33:\nredis:x:101:\npostgres:x:106:\nnogroup:x:65534:\n";

/// Answers with the name of its pod, which says who answered.
const NGINX_CONF: &str = "user www-data;\nworker_processes 1;\nevents {}\nhttp {\n  access_log off;\n  server {\n    listen 80;\n    \
                          location / { return 200 \"$hostname\\n\"; }\n  }\n}\n";

/// What one image is made of.
pub struct Recipe {
    pub name: &'static str,
    packages: &'static [&'static str],
    /// Libraries that its program does without.
    without: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
    user: &'static str,
    entrypoint: &'static [&'static str],
}

pub const NGINX: Recipe = Recipe {
    name: "third.example/nginx:1.22",
    packages: &["nginx", "nginx-common"],
    without: &[],
    files: &[("etc/nginx/nginx.conf", NGINX_CONF)],
    user: "",
    entrypoint: &["/usr/sbin/nginx", "-e", "stderr", "-g", "daemon off;"],
};

pub const REDIS: Recipe = Recipe {
    name: "third.example/redis:7",
    packages: &["redis-server", "redis-tools"],
    without: &[],
    files: &[],
    user: "redis",
    entrypoint: &["/usr/bin/redis-server"],
};

pub const POSTGRES: Recipe = Recipe {
    name: "third.example/postgres:15",
    packages: &["postgresql-15", "postgresql-client-15", "dash"],
    // It compiles queries only when asked to.
    without: &["libllvm14"],
    files: &[],
    user: "postgres",
    entrypoint: &["/usr/lib/postgresql/15/bin/postgres"],
};

/// Makes images in the store of a cluster.
pub struct Images<'a> {
    packages: Packages,
    inputs: &'a Inputs,
}

impl<'a> Images<'a> {
    pub fn new(inputs: &'a Inputs) -> anyhow::Result<Self> {
        let cache = Utf8Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian");
        // The suite's namespace leads nowhere; its parent is the same program outside of it.
        let outside = format!("--net=/proc/{}/ns/net", std::os::unix::process::parent_id());
        Ok(Self { packages: Packages::new(&cache, vec!["nsenter".to_owned(), outside])?, inputs })
    }

    /// Whether there is the image now. That it cannot be fetched is no failure of ours.
    pub fn make(&self, recipe: &Recipe, cluster: &Cluster, checks: &mut Checks) -> bool {
        let Ok(scratch) = tempfile::tempdir() else {
            interop::skip("there is no room for temporary files");
            return false;
        };
        let Some(root) = Utf8Path::from_path(scratch.path()).map(|path| path.join("root")) else {
            return false;
        };
        if let Err(error) = self.packages.unpack(recipe.packages, recipe.without, &root) {
            interop::skip(&format!("{}: {error:#}", recipe.name));
            return false;
        }
        let built = complete(recipe, &root).and_then(|()| self.build(recipe, &root, cluster));
        let is_built = built.is_ok();
        checks.check(&format!("{} is built from Debian's packages", recipe.name), || built);
        is_built
    }

    fn build(&self, recipe: &Recipe, root: &Utf8Path, cluster: &Cluster) -> anyhow::Result<()> {
        let data = cluster.data();
        let mut words = vec!["image", "build", recipe.name, "--data-dir", data.as_str(), "--from-dir"];
        words.extend([root.as_str(), "--user", recipe.user]);
        words.extend(recipe.entrypoint.iter().flat_map(|&word| ["--entrypoint", word]));
        run(self.inputs.binary.as_str(), &words).map(drop)
    }

    /// Writes an image into an archive.
    pub fn export(&self, name: &str, cluster: &Cluster, file: &Utf8Path) -> anyhow::Result<()> {
        let data = cluster.data();
        let words = ["image", "export", name, "--data-dir", data.as_str(), "-o", file.as_str()];
        run(self.inputs.binary.as_str(), &words).map(drop)
    }
}

/// What scripts of the packages would have made, and the files of the recipe.
fn complete(recipe: &Recipe, root: &Utf8Path) -> anyhow::Result<()> {
    for heavy in ["usr/share/doc", "usr/share/man", "usr/share/locale"] {
        let _ = fs::remove_dir_all(root.join(heavy));
    }
    for folder in ["etc", "run", "data", "tmp", "var/log"] {
        fs::create_dir_all(root.join(folder)).with_context(|| format!("making {folder}"))?;
    }
    for folder in ["data", "tmp"] {
        fs::set_permissions(root.join(folder), Permissions::from_mode(0o1777))
            .with_context(|| format!("opening {folder} to everybody"))?;
    }
    let shell = root.join("usr/bin/sh");
    if root.join("usr/bin/dash").is_file() && !shell.is_symlink() {
        symlink("dash", &shell).context("linking sh")?;
    }
    let own = [("etc/passwd", PASSWD), ("etc/group", GROUP)];
    for (name, content) in own.iter().chain(recipe.files) {
        let path: Utf8PathBuf = root.join(name);
        fs::write(&path, content).with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}

//! A file of CDI devices where every runtime looks for them; goes with the value.

use std::fs;

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};

const FOLDER: &str = "/var/run/cdi";

pub struct CdiFile(Utf8PathBuf);

impl CdiFile {
    /// The name of its only device, which is another one in each run.
    pub fn device() -> String {
        format!("{}=one", Self::kind())
    }

    fn kind() -> String {
        format!("test{}.pintle.dev/toy", std::process::id())
    }

    /// With it come the variable `CDI` and zeros at `/dev/toy-cdi`.
    pub fn write() -> anyhow::Result<Self> {
        let folder = Utf8Path::new(FOLDER);
        fs::create_dir_all(folder).with_context(|| format!("making {folder}"))?;
        let own = Self(folder.join(format!("pintle-suite-{}.yaml", std::process::id())));
        let text = format!(
            "cdiVersion: 0.6.0\nkind: {}\ndevices:\n- name: one\n  containerEdits:\n    env: [CDI=yes]\n    \
             deviceNodes:\n    - path: /dev/toy-cdi\n      hostPath: /dev/zero\n",
            Self::kind()
        );
        fs::write(&own.0, text).with_context(|| format!("writing {}", own.0))?;
        Ok(own)
    }
}

impl Drop for CdiFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

//! `pintle kubeconfig`.

use anyhow::{Context, bail};

use crate::cli::KubeconfigArguments;

/// File name of the kubeconfig in a data directory.
pub const FILE_NAME: &str = "kubeconfig";

pub fn run(arguments: &KubeconfigArguments) -> anyhow::Result<()> {
    let path = arguments.data_dir.join(FILE_NAME);
    if !path.exists() {
        bail!(
            "there is no {path}: start the cluster with `pintle up --data-dir {}` first",
            arguments.data_dir
        );
    }
    if arguments.raw {
        print!("{}", std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?);
    } else {
        let path = path.canonicalize_utf8().unwrap_or(path);
        println!("{path}");
    }
    Ok(())
}

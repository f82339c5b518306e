//! `pintle kubeconfig`, and how the other commands find the cluster that they are for.

use std::sync::Arc;

use anyhow::{Context, bail};
use camino::Utf8PathBuf;
use client::Api;
use remote::RemoteApi;

use crate::cli::{ClusterArguments, KubeconfigArguments};

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

/// The cluster that a command is for, as its kubeconfig says.
pub fn connect(arguments: &ClusterArguments) -> anyhow::Result<Arc<dyn Api>> {
    let path = find(arguments)?;
    let api = RemoteApi::from_kubeconfig(&path, concat!("pintle/", env!("CARGO_PKG_VERSION")));
    Ok(Arc::new(api.with_context(|| format!("--kubeconfig {path}"))?))
}

/// The kubeconfig that is named, else where other clients look, else where `pintle up` puts it.
fn find(arguments: &ClusterArguments) -> anyhow::Result<Utf8PathBuf> {
    if let Some(path) = &arguments.kubeconfig {
        return Ok(path.clone());
    }
    if let Some(path) = std::env::var("KUBECONFIG").ok().filter(|path| !path.is_empty()) {
        return Ok(Utf8PathBuf::from(path));
    }
    let own = crate::cli::default_data_dir().join(FILE_NAME);
    let home = std::env::var("HOME").map(|home| Utf8PathBuf::from(home).join(".kube/config"));
    let known = [Some(own.clone()), home.ok()];
    match known.into_iter().flatten().find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!(
            "there is no kubeconfig at {own}: name one with --kubeconfig, or start a cluster with `pintle up`"
        ),
    }
}

//! How the API server reaches kubelets, for logs, commands and proxies.

use anyhow::Context;
use apiserver::connect::{AddressType, KubeletOptions};
use camino::Utf8PathBuf;
use clap::Args;

#[derive(Args)]
pub struct KubeletArguments {
    /// Which of a node's addresses to use, most preferred first
    #[arg(
        long,
        value_name = "TYPE,…",
        value_delimiter = ',',
        default_value = "InternalIP,ExternalIP,Hostname,InternalDNS,ExternalDNS"
    )]
    pub kubelet_preferred_address_types: Vec<AddressType>,

    /// Authorities that sign kubelets' certificates, in PEM [default: the cluster's own]
    #[arg(long, value_name = "FILE")]
    pub kubelet_certificate_authority: Option<Utf8PathBuf>,

    /// Do not check kubelets' certificates, as for kubelets that sign their own
    #[arg(long, conflicts_with = "kubelet_certificate_authority")]
    pub kubelet_insecure_tls: bool,

    /// Certificate to show to kubelets, in PEM; without it the cluster's own authority makes one
    #[arg(long, value_name = "FILE", requires = "kubelet_client_key")]
    pub kubelet_client_certificate: Option<Utf8PathBuf>,

    /// Its key, in PEM
    #[arg(long, value_name = "FILE", requires = "kubelet_client_certificate")]
    pub kubelet_client_key: Option<Utf8PathBuf>,
}

impl KubeletArguments {
    pub fn options(&self) -> anyhow::Result<KubeletOptions> {
        let certificate = read(&self.kubelet_client_certificate, "--kubelet-client-certificate")?;
        let key = read(&self.kubelet_client_key, "--kubelet-client-key")?;
        Ok(KubeletOptions {
            preferred_address_types: self.kubelet_preferred_address_types.clone(),
            certificate_authority: read(
                &self.kubelet_certificate_authority,
                "--kubelet-certificate-authority",
            )?,
            client_certificate: certificate.zip(key),
        })
    }
}

fn read(path: &Option<Utf8PathBuf>, flag: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(path) = path else { return Ok(None) };
    std::fs::read(path).map(Some).with_context(|| format!("{flag} {path}"))
}

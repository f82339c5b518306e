//! Which admission plugins are on.

use camino::Utf8PathBuf;
use clap::Args;

#[derive(Args)]
pub struct AdmissionArguments {
    /// Admission plugins to turn on beside those that are on by default
    #[arg(long, value_name = "PLUGIN,…", value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,

    /// Admission plugins to turn off
    #[arg(long, value_name = "PLUGIN,…", value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,

    /// What plugins are told: an AdmissionConfiguration (apiserver.config.k8s.io/v1)
    #[arg(long, value_name = "FILE")]
    pub admission_control_config_file: Option<Utf8PathBuf>,
}

impl AdmissionArguments {
    /// Reads the file, if one is named.
    pub fn options(&self) -> Result<admission::Options, admission::ConfigurationError> {
        let configuration = match &self.admission_control_config_file {
            Some(file) => admission::Configuration::load(file.as_std_path())?,
            None => admission::Configuration::default(),
        };
        Ok(admission::Options {
            enable: self.enable_admission_plugins.clone(),
            disable: self.disable_admission_plugins.clone(),
            configuration,
        })
    }
}

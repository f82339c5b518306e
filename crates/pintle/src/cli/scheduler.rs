//! What the scheduler is told.

use camino::Utf8PathBuf;
use clap::Args;
use scheduler::configuration::{Configuration, ConfigurationError};

#[derive(Args)]
pub struct SchedulerArguments {
    /// Profiles, plugins and extenders: a KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1)
    #[arg(long, value_name = "FILE")]
    pub scheduler_config: Option<Utf8PathBuf>,
}

impl SchedulerArguments {
    /// Reads the file, if one is named.
    pub fn options(&self) -> Result<scheduler::Options, ConfigurationError> {
        let configuration = match &self.scheduler_config {
            Some(file) => Configuration::load(file.as_std_path())?,
            None => Configuration::default(),
        };
        Ok(scheduler::Options { configuration, ..scheduler::Options::default() })
    }
}

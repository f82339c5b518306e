//! Which parts of the API there are.

use api::Features;
use api::builtin::RuntimeConfig;
use apiserver::options::Apis;
use clap::Args;

#[derive(Args)]
pub struct ApiArguments {
    /// Built-in APIs to turn on or off: api/all, api/ga, api/beta, api/alpha, group/version or group/version/resource,
    /// each with =true or =false
    #[arg(long, value_name = "KEY=BOOL,…", default_value = "", hide_default_value = true, value_parser = RuntimeConfig::parse)]
    pub runtime_config: RuntimeConfig,

    /// Features to turn on or off, by upstream's names; AllAlpha and AllBeta stand for all of a stage
    #[arg(long, value_name = "GATE=BOOL,…", default_value = "", hide_default_value = true, value_parser = Features::parse)]
    pub feature_gates: Features,
}

impl ApiArguments {
    pub fn options(&self) -> Apis {
        Apis { runtime_config: self.runtime_config.clone(), features: self.feature_gates.clone() }
    }
}

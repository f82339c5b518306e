//! What an administrator may choose about the server; every default is upstream's.
//!
//! One struct per concern, each made by the code that knows it. The flags that fill them are the binary's.

use api::Features;
use api::builtin::RuntimeConfig;

pub use crate::authentication::Authentication;
use crate::connect::KubeletOptions;

/// Everything that can be chosen.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub apis: Apis,
    pub admission: admission::Options,
    pub kubelets: KubeletOptions,
    pub authentication: Authentication,
}

/// Which parts of the API there are.
#[derive(Clone, Debug, Default)]
pub struct Apis {
    pub runtime_config: RuntimeConfig,
    pub features: Features,
}

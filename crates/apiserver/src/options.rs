//! What an administrator may choose about the server; every default is upstream's, but for
//! [`Options::allow_privileged`].
//!
//! One struct per concern, each made by the code that knows it. The flags that fill them are the binary's.

use std::time::Duration;

use api::Features;
use api::builtin::RuntimeConfig;

pub use crate::authentication::Authentication;
pub use crate::authorization::Authorization;
use crate::connect::KubeletOptions;

/// Everything that can be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    pub requests: Requests,
    pub audit: audit::Options,
    pub apis: Apis,
    pub admission: admission::Options,
    pub kubelets: KubeletOptions,
    pub authentication: Authentication,
    pub authorization: Authorization,
    /// Answer `metrics.k8s.io` from what simulated nodes are said to use.
    pub resource_metrics: bool,
    /// Containers may be privileged. Upstream's own default is that they may not, and every distribution turns it
    /// on, since network and storage plugins need it.
    pub allow_privileged: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            requests: Requests::default(),
            audit: audit::Options::default(),
            apis: Apis::default(),
            admission: admission::Options::default(),
            kubelets: KubeletOptions::default(),
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            resource_metrics: false,
            allow_privileged: true,
        }
    }
}

/// Which parts of the API there are.
#[derive(Clone, Debug, Default)]
pub struct Apis {
    pub runtime_config: RuntimeConfig,
    pub features: Features,
}

/// How many requests are served at a time, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Requests {
    /// By priority and fairness; otherwise by the two limits alone.
    pub priority_and_fairness: bool,
    /// Reading requests at a time; 0 is no limit.
    pub in_flight_max: u32,
    /// Writing requests at a time; 0 is no limit.
    pub mutating_in_flight_max: u32,
    /// A request that is not a watch or a stream has this long.
    pub timeout: Duration,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            priority_and_fairness: true,
            in_flight_max: 400,
            mutating_in_flight_max: 200,
            timeout: Duration::from_secs(60),
        }
    }
}

impl Requests {
    /// The seats of all priority levels, and how long a request may wait for one.
    pub(crate) fn flow_control(&self) -> flow_control::Options {
        let seats = self.in_flight_max + self.mutating_in_flight_max;
        flow_control::Options { seats, wait_max: self.wait_max() }
    }

    /// A quarter of its time.
    fn wait_max(&self) -> Duration {
        (self.timeout / 4).min(Duration::from_secs(60))
    }

    /// After this time a request that is not a watch or a stream is over, also one that waited for its seat.
    pub(crate) fn duration_max(&self) -> Duration {
        self.timeout.saturating_add(self.wait_max())
    }
}

//! When this machine, as a node, lets go of images and pods: the kubelet's flags.

use std::time::Duration;

use anyhow::{anyhow, ensure};
use clap::Args;
use node::agent::eviction::Settings;
use node::agent::eviction::thresholds::{self, Flags, HARD_DEFAULT};
use node::agent::images::collection;

use super::parse_duration;

#[derive(Args)]
pub struct EvictionArguments {
    /// Pods are evicted at once while less is left of something than this; empty for never
    #[arg(long, value_name = "SIGNAL<AMOUNT,...", default_value = HARD_DEFAULT)]
    eviction_hard: String,

    /// Pods are evicted while less is left than this for longer than the grace period
    #[arg(long, value_name = "SIGNAL<AMOUNT,...", default_value = "")]
    eviction_soft: String,

    /// For how long less may be left than --eviction-soft says
    #[arg(long, value_name = "SIGNAL=DURATION,...", default_value = "")]
    eviction_soft_grace_period: String,

    /// How much more than the threshold has to be there again once it was not kept
    #[arg(long, value_name = "SIGNAL=AMOUNT,...", default_value = "")]
    eviction_minimum_reclaim: String,

    /// How long the node says that it is short of something after it last was
    #[arg(long, value_name = "DURATION", default_value = "5m0s", value_parser = parse_duration)]
    eviction_pressure_transition_period: Duration,

    /// How many seconds a soft eviction grants a pod at most
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    eviction_max_pod_grace_period: u32,

    /// From how many percent of its disk on unused images are removed; 100 for never
    #[arg(long, value_name = "PERCENT", default_value_t = 85, value_parser = clap::value_parser!(u8).range(0..=100))]
    image_gc_high_threshold: u8,

    /// Down to how many percent of the disk unused images are removed
    #[arg(long, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=100))]
    image_gc_low_threshold: u8,

    /// How long an unused image stays at least after it came
    #[arg(long, value_name = "DURATION", default_value = "2m0s", value_parser = parse_duration)]
    minimum_image_ttl_duration: Duration,

    /// After how long an unused image goes, however empty the disk is; 0s for never
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    maximum_image_ttl_duration: Duration,
}

impl EvictionArguments {
    /// # Errors
    /// Names the flag that says nothing sensible.
    pub fn eviction(&self) -> anyhow::Result<Settings> {
        let flags = Flags {
            hard: &self.eviction_hard,
            soft: &self.eviction_soft,
            soft_grace: &self.eviction_soft_grace_period,
            reclaim: &self.eviction_minimum_reclaim,
        };
        Ok(Settings {
            thresholds: thresholds::parse(flags).map_err(|error| anyhow!(error))?,
            transition: self.eviction_pressure_transition_period,
            soft_grace_max: Duration::from_secs(self.eviction_max_pod_grace_period.into()),
            ..Settings::default()
        })
    }

    /// # Errors
    /// Where the lower threshold is not the lower one.
    pub fn image_collection(&self) -> anyhow::Result<collection::Settings> {
        let (high, low) = (self.image_gc_high_threshold, self.image_gc_low_threshold);
        ensure!(
            low < high,
            "--image-gc-low-threshold {low}: must be lower than --image-gc-high-threshold {high}"
        );
        Ok(collection::Settings {
            high_percent: high,
            low_percent: low,
            age_min: self.minimum_image_ttl_duration,
            age_max: self.maximum_image_ttl_duration,
            ..collection::Settings::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        own: EvictionArguments,
    }

    fn parsed(arguments: &[&str]) -> EvictionArguments {
        let all = std::iter::once("up").chain(arguments.iter().copied());
        Flags::try_parse_from(all).map(|flags| flags.own).unwrap_or_else(|error| panic!("flags: {error}"))
    }

    #[test]
    fn without_flags_a_node_is_as_a_kubelet() {
        let own = parsed(&[]);
        assert_eq!(own.eviction().unwrap().thresholds, Settings::default().thresholds);
        assert_eq!(own.image_collection().unwrap(), collection::Settings::default());
    }

    #[test]
    fn what_cannot_be_is_named() {
        let error = parsed(&["--eviction-hard", "disk<1"]).eviction().unwrap_err().to_string();
        assert!(error.starts_with("--eviction-hard: there is no signal"), "{error}");
        let error = parsed(&["--image-gc-low-threshold", "85"]).image_collection().unwrap_err().to_string();
        assert!(error.contains("must be lower"), "{error}");
    }
}

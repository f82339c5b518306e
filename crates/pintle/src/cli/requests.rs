//! How many requests are served at a time, and for how long.

use std::time::Duration;

use apiserver::options::Requests;
use clap::{Args, builder::BoolishValueParser};

#[derive(Args)]
pub struct RequestArguments {
    /// Whether requests share the server by priority and fairness, or by the two limits on requests in flight alone
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub enable_priority_and_fairness: bool,

    /// Reading requests at a time; with priority and fairness, added to the next as what is shared
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub max_requests_inflight: u32,

    /// Writing requests at a time
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub max_mutating_requests_inflight: u32,

    /// How long a request may take that is not a watch or a stream, such as 1m0s
    #[arg(long, value_name = "DURATION", default_value = "1m0s", value_parser = duration)]
    pub request_timeout: Duration,
}

impl RequestArguments {
    pub fn options(&self) -> Requests {
        Requests {
            priority_and_fairness: self.enable_priority_and_fairness && self.seats() > 0,
            in_flight_max: self.max_requests_inflight,
            mutating_in_flight_max: self.max_mutating_requests_inflight,
            timeout: self.request_timeout,
        }
    }

    /// Without any there is nothing to share.
    fn seats(&self) -> u32 {
        self.max_requests_inflight + self.max_mutating_requests_inflight
    }
}

/// A Go duration above zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    let nanoseconds = apimachinery::duration::parse(text).map_err(|error| error.to_string())?;
    match u64::try_from(nanoseconds) {
        Ok(nanoseconds) if nanoseconds > 0 => Ok(Duration::from_nanos(nanoseconds)),
        _ => Err("it must be longer than nothing, such as 30s or 1m0s".to_owned()),
    }
}

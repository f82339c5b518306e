//! Log lines: where they go, how they look, which are shown.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The environment variable that chooses what is logged, when no `--log` flag does (since 0.1).
pub const LOG_ENV: &str = "PINTLE_LOG";

/// A log filter that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid log filter {filter:?} from {origin}; use a level (error, warn, info, debug, trace) or a list of \
     target=level such as info,scheduler=debug"
)]
pub struct InvalidFilter {
    filter: String,
    origin: &'static str,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

/// Sends log lines to standard error from now on, one event a line, coloured on a terminal.
///
/// The filter is `flag` (of `--log`) if given, else [`LOG_ENV`] if set and not empty, else `default`.
///
/// # Errors
/// [`InvalidFilter`], naming where the filter came from. A second call in one process changes nothing.
pub fn init_logging(flag: Option<&str>, default: &str) -> Result<(), InvalidFilter> {
    let from_env = std::env::var(LOG_ENV).ok().filter(|filter| !filter.is_empty());
    let filter = parse(flag, from_env.as_deref(), default)?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .compact()
        .finish();
    // Fails only if a subscriber is already there: a test harness' own, which may stay.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

fn parse(flag: Option<&str>, from_env: Option<&str>, default: &str) -> Result<EnvFilter, InvalidFilter> {
    let (filter, origin) = match (flag, from_env) {
        (Some(flag), _) => (flag, "--log"),
        (None, Some(value)) => (value, LOG_ENV),
        (None, None) => (default, "the built-in default"),
    };
    EnvFilter::builder().parse(filter).map_err(|source| InvalidFilter {
        filter: filter.to_owned(),
        origin,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_environment_and_that_over_the_default() {
        for (flag, env, chosen) in [
            (Some("debug"), Some("error"), "debug"),
            (None, Some("error"), "error"),
            (None, None, "info"),
            (Some("warn,scheduler=trace"), None, "scheduler=trace,warn"),
        ] {
            assert_eq!(parse(flag, env, "info").unwrap().to_string(), chosen);
        }
    }

    #[test]
    fn a_bad_filter_is_named_with_its_origin() {
        let error = parse(Some("loud=very=much"), None, "info").unwrap_err().to_string();
        assert!(error.starts_with(r#"invalid log filter "loud=very=much" from --log;"#), "{error}");
        let error = parse(None, Some("a=b=c"), "info").unwrap_err().to_string();
        assert!(error.contains("from PINTLE_LOG;"), "{error}");
    }
}

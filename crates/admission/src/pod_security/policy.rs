//! Levels, versions, and the policy that a namespace's labels ask for.

use std::fmt;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

/// From the most permissive to the strictest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    /// Whatever is no level is the strictest, and a complaint.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "privileged" => Ok(Self::Privileged),
            "baseline" => Ok(Self::Baseline),
            "restricted" => Ok(Self::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

/// The release of Kubernetes whose standards count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.x
    Minor(u32),
    Latest,
}

impl Version {
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const BAD: &str = "must be \"latest\" or \"v1.x\"";
        if text == "latest" {
            return Ok(Self::Latest);
        }
        let minor = text.strip_prefix("v1.").ok_or(BAD)?;
        let plain =
            minor == "0" || !minor.starts_with('0') && minor.bytes().all(|byte| byte.is_ascii_digit());
        minor.parse().ok().filter(|_| plain).map(Self::Minor).ok_or(BAD)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minor(minor) => write!(f, "v1.{minor}"),
            Self::Latest => f.write_str("latest"),
        }
    }
}

/// What one mode asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard {
    pub level: Level,
    pub version: Version,
}

impl Standard {
    pub const NONE: Self = Self { level: Level::Privileged, version: Version::Latest };

    fn is_equivalent(&self, other: &Self) -> bool {
        self == other || self.level == Level::Privileged && other.level == Level::Privileged
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

/// What is refused, noted in the audit log, and warned about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Standard,
    pub audit: Standard,
    pub warn: Standard,
}

impl Default for Policy {
    fn default() -> Self {
        Self { enforce: Standard::NONE, audit: Standard::NONE, warn: Standard::NONE }
    }
}

pub const PREFIX: &str = "pod-security.kubernetes.io/";

impl Policy {
    /// What a namespace with these labels asks for. A policy comes out also where labels are wrong: the strictest to
    /// enforce, and nothing to warn or audit.
    pub fn of_labels(labels: &Value, defaults: &Self) -> (Self, ErrorList) {
        let (mut policy, mut errors) = (*defaults, ErrorList::new());
        let mut enforced = false;
        if let Some(level) = level(labels, "enforce", &mut errors) {
            enforced = level.is_ok();
            policy.enforce.level = level.unwrap_or(Level::Restricted);
        }
        set_version(&mut policy.enforce, labels, "enforce", &mut errors);
        if let Some(level) = level(labels, "audit", &mut errors) {
            policy.audit.level = level.unwrap_or(Level::Privileged);
        }
        set_version(&mut policy.audit, labels, "audit", &mut errors);
        let warned = level(labels, "warn", &mut errors);
        if let Some(level) = &warned {
            policy.warn.level = level.unwrap_or(Level::Privileged);
        }
        let versioned = set_version(&mut policy.warn, labels, "warn", &mut errors);
        // Who enforces something stricter wants to hear of it for workloads, too.
        if warned.is_none() && enforced && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if !versioned {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }

    pub fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|standard| standard.level == Level::Privileged)
    }

    pub fn is_equivalent(&self, other: &Self) -> bool {
        self.enforce.is_equivalent(&other.enforce)
            && self.audit.is_equivalent(&other.audit)
            && self.warn.is_equivalent(&other.warn)
    }

    /// The modes that labels set to something, as a warning lists them.
    pub fn described(&self, labels: &Value) -> String {
        let modes = [("enforce", self.enforce), ("audit", self.audit), ("warn", self.warn)];
        let set = |mode: &str| {
            let label = |suffix: &str| labels.get(&format!("{PREFIX}{mode}{suffix}")).is_some();
            label("") || label("-version")
        };
        modes
            .into_iter()
            .filter(|(mode, standard)| standard.level != Level::Privileged && set(mode))
            .map(|(mode, standard)| format!("{mode}={standard}"))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

fn level(labels: &Value, mode: &str, errors: &mut ErrorList) -> Option<Result<Level, ()>> {
    let label = format!("{PREFIX}{mode}");
    let text = labels.get(&label)?.as_str()?;
    Some(Level::parse(text).map_err(|why| complain(errors, &label, text, why)))
}

/// Whether the labels name a version.
fn set_version(standard: &mut Standard, labels: &Value, mode: &str, errors: &mut ErrorList) -> bool {
    let label = format!("{PREFIX}{mode}-version");
    let Some(text) = labels.get(&label).and_then(Value::as_str) else { return false };
    standard.version = Version::parse(text).unwrap_or_else(|why| {
        complain(errors, &label, text, why);
        Version::Latest
    });
    true
}

fn complain(errors: &mut ErrorList, label: &str, text: &str, why: &str) {
    let path = Path::root("metadata.labels");
    errors.push(Error::invalid(&path.key(label), text, why));
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Value {
        pairs.iter().map(|(key, value)| (format!("{PREFIX}{key}").into(), (*value).into())).collect()
    }

    #[test]
    fn labels_ask_for_standards() {
        let all = |policy: Policy| format!("{} {} {}", policy.enforce, policy.audit, policy.warn);
        for (pairs, expected, complaints) in [
            (vec![], "privileged:latest privileged:latest privileged:latest", 0),
            (vec![("enforce", "baseline")], "baseline:latest privileged:latest baseline:latest", 0),
            (
                vec![("enforce", "restricted"), ("enforce-version", "v1.20")],
                "restricted:v1.20 privileged:latest restricted:v1.20",
                0,
            ),
            (
                vec![("enforce", "restricted"), ("warn-version", "v1.3")],
                "restricted:latest privileged:latest restricted:v1.3",
                0,
            ),
            (
                vec![("enforce", "baseline"), ("warn", "privileged"), ("audit", "restricted")],
                "baseline:latest restricted:latest privileged:latest",
                0,
            ),
            (
                vec![("enforce", "strict"), ("warn", "x"), ("audit-version", "1.2")],
                "restricted:latest privileged:latest privileged:latest",
                3,
            ),
        ] {
            let (policy, errors) = Policy::of_labels(&labels(&pairs), &Policy::default());
            assert_eq!((all(policy).as_str(), errors.len()), (expected, complaints), "{pairs:?}");
        }
        let (_, errors) = Policy::of_labels(&labels(&[("enforce", "strict")]), &Policy::default());
        assert_eq!(
            errors[0].to_string(),
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of \
             privileged, baseline, restricted"
        );
        assert_eq!(Policy::of_labels(&json!({}), &Policy::default()), (Policy::default(), vec![]));
    }

    #[test]
    fn versions_are_latest_or_a_minor_one() {
        for (text, version) in [
            ("latest", Ok(Version::Latest)),
            ("v1.0", Ok(Version::Minor(0))),
            ("v1.36", Ok(Version::Minor(36))),
            ("v1.036", Err(())),
            ("v1.", Err(())),
            ("v1.+3", Err(())),
            ("v2.0", Err(())),
            ("1.0", Err(())),
        ] {
            assert_eq!(Version::parse(text).map_err(drop), version, "{text}");
        }
    }
}

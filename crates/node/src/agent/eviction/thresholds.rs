//! What is measured of a node, and how little of it may be left: the kubelet's `--eviction-…` flags.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use apimachinery::{Quantity, duration};

/// Something of a node that can run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    MemoryAvailable,
    NodefsAvailable,
    NodefsInodesFree,
    ImagefsAvailable,
    ImagefsInodesFree,
    PidAvailable,
}

impl Signal {
    pub const ALL: [Self; 6] = [
        Self::MemoryAvailable,
        Self::NodefsAvailable,
        Self::NodefsInodesFree,
        Self::ImagefsAvailable,
        Self::ImagefsInodesFree,
        Self::PidAvailable,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::NodefsAvailable => "nodefs.available",
            Self::NodefsInodesFree => "nodefs.inodesFree",
            Self::ImagefsAvailable => "imagefs.available",
            Self::ImagefsInodesFree => "imagefs.inodesFree",
            Self::PidAvailable => "pid.available",
        }
    }

    /// What pods have of it, as messages name it.
    pub fn resource(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory",
            Self::NodefsAvailable | Self::ImagefsAvailable => "ephemeral-storage",
            Self::NodefsInodesFree | Self::ImagefsInodesFree => "inodes",
            Self::PidAvailable => "pids",
        }
    }

    pub fn pressure(self) -> Pressure {
        match self {
            Self::MemoryAvailable => Pressure::Memory,
            Self::PidAvailable => Pressure::Pid,
            _ => Pressure::Disk,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == text)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A condition of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pressure {
    Memory,
    Disk,
    Pid,
}

impl Pressure {
    /// The condition's type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pid => "PIDPressure",
        }
    }
}

/// An amount, or a share of what there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Quantity(u64),
    /// 0.1 is `10%`.
    Share(f64),
}

impl Amount {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| format!("{text:?} is no percentage"))?;
            return if (0.0..100.0).contains(&percent) {
                Ok(Self::Share(percent / 100.0))
            } else {
                Err(format!("{text} must be at least 0% and below 100%"))
            };
        }
        let quantity = Quantity::parse(text).map_err(|error| format!("{text:?}: {error}"))?;
        u64::try_from(quantity.value())
            .map(Self::Quantity)
            .map_err(|_| format!("{text} must not be negative"))
    }

    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Quantity(amount) => amount,
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a share of a capacity needs no more digits than a float has"
            )]
            Self::Share(share) => (capacity as f64 * share) as u64,
        }
    }

    fn is_zero(self) -> bool {
        matches!(self, Self::Quantity(0)) || matches!(self, Self::Share(share) if share == 0.0)
    }
}

/// How little of something may be left.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    pub below: Amount,
    /// For how long it may be below before pods are evicted; zero for a hard threshold.
    pub grace: Duration,
    /// So much more than the threshold has to be there again before the node is content.
    pub reclaim: Option<Amount>,
}

/// The flags as they are written, `signal<amount` and `signal=value`, separated by commas.
#[derive(Clone, Copy, Debug)]
pub struct Flags<'a> {
    pub hard: &'a str,
    pub soft: &'a str,
    pub soft_grace: &'a str,
    pub reclaim: &'a str,
}

/// The default of `--eviction-hard`. The kubelet keeps 10 and 15 percent of its disks free; a machine that is more than a
/// node, such as a developer's, seldom has so much, and 5 percent are still gigabytes.
pub const HARD_DEFAULT: &str = "memory.available<100Mi,nodefs.available<5%,nodefs.inodesFree<5%,imagefs.available<5%,imagefs.inodesFree<5%";

/// # Errors
/// Names the flag and what of it cannot be.
pub fn parse(flags: Flags<'_>) -> Result<Vec<Threshold>, String> {
    let grace = pairs(flags.soft_grace, '=').and_then(|pairs| {
        let parsed = pairs.into_iter().map(|(signal, text)| {
            let nanoseconds = duration::parse(text).ok().and_then(|own| u64::try_from(own).ok());
            let grace = nanoseconds.filter(|own| *own > 0).map(Duration::from_nanos);
            grace.map(|grace| (signal, grace)).ok_or_else(|| {
                format!("{signal}={text}: a grace period is a duration above zero such as 1m30s")
            })
        });
        parsed.collect::<Result<BTreeMap<_, _>, _>>()
    });
    let grace = grace.map_err(|error| format!("--eviction-soft-grace-period: {error}"))?;
    let reclaim = pairs(flags.reclaim, '=').and_then(|pairs| {
        let parsed = pairs.into_iter().map(|(signal, text)| Ok((signal, Amount::parse(text)?)));
        parsed.collect::<Result<BTreeMap<_, _>, String>>()
    });
    let reclaim = reclaim.map_err(|error| format!("--eviction-minimum-reclaim: {error}"))?;
    let amounts = |flag: &str, text: &'static str| {
        let parsed = pairs(flag, '<').and_then(|pairs| {
            let parsed = pairs.into_iter().map(|(signal, text)| Ok((signal, Amount::parse(text)?)));
            parsed.collect::<Result<Vec<_>, String>>()
        });
        parsed.map_err(|error| format!("{text}: {error}"))
    };
    let mut thresholds = Vec::new();
    for (signal, below) in amounts(flags.hard, "--eviction-hard")? {
        let reclaim = reclaim.get(&signal).copied();
        thresholds.push(Threshold { signal, below, grace: Duration::ZERO, reclaim });
    }
    for (signal, below) in amounts(flags.soft, "--eviction-soft")? {
        let Some(grace) = grace.get(&signal).copied() else {
            return Err(format!(
                "--eviction-soft: {signal} needs a grace period: add {signal}=1m30s to --eviction-soft-grace-period"
            ));
        };
        thresholds.push(Threshold { signal, below, grace, reclaim: reclaim.get(&signal).copied() });
    }
    // Nothing is below nothing: so a threshold is turned off.
    thresholds.retain(|threshold| !threshold.below.is_zero());
    Ok(thresholds)
}

fn pairs(text: &str, separator: char) -> Result<Vec<(Signal, &str)>, String> {
    let mut found: Vec<(Signal, &str)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (signal, value) =
            part.split_once(separator).ok_or_else(|| format!("{part:?} is not SIGNAL{separator}VALUE"))?;
        let Some(known) = Signal::parse(signal.trim()) else {
            let all = Signal::ALL.map(Signal::as_str).join(", ");
            return Err(format!("there is no signal {signal:?}; there are {all}"));
        };
        if found.iter().any(|(other, _)| *other == known) {
            return Err(format!("{known} is given twice"));
        }
        found.push((known, value.trim()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags<'a>(hard: &'a str, soft: &'a str, soft_grace: &'a str, reclaim: &'a str) -> Flags<'a> {
        Flags { hard, soft, soft_grace, reclaim }
    }

    #[test]
    fn flags_are_read_as_the_kubelet_reads_them() {
        let all = parse(flags(HARD_DEFAULT, "", "", "")).unwrap();
        assert_eq!(all.len(), 5);
        assert_eq!(all[0].below, Amount::Quantity(100 << 20));
        assert_eq!(all[1].below.of(1_000), 50);
        let all = parse(flags(
            "memory.available<0%",
            "memory.available<1Gi",
            "memory.available=1m30s",
            "memory.available=500Mi",
        ))
        .unwrap();
        let wanted = Threshold {
            signal: Signal::MemoryAvailable,
            below: Amount::Quantity(1 << 30),
            grace: Duration::from_secs(90),
            reclaim: Some(Amount::Quantity(500 << 20)),
        };
        assert_eq!(all, [wanted], "a threshold of nothing is none");
        assert_eq!(parse(flags("", "", "", "")), Ok(Vec::new()));
    }

    #[test]
    fn flags_that_say_nothing_sensible_are_named() {
        for (wanted, flags) in [
            ("--eviction-hard: there is no signal \"disk\"", flags("disk<1Gi", "", "", "")),
            ("--eviction-hard: \"memory.available\" is not", flags("memory.available", "", "", "")),
            ("--eviction-hard: 100% must be", flags("nodefs.available<100%", "", "", "")),
            ("--eviction-hard: -1 must not be", flags("pid.available<-1", "", "", "")),
            ("is given twice", flags("pid.available<1,pid.available<2", "", "", "")),
            ("--eviction-soft: memory.available needs a grace", flags("", "memory.available<1Gi", "", "")),
            ("--eviction-soft-grace-period: ", flags("", "", "memory.available=soon", "")),
            ("--eviction-minimum-reclaim: ", flags("", "", "", "memory.available=much")),
        ] {
            let error = parse(flags).expect_err(wanted);
            assert!(error.contains(wanted), "{error}");
        }
    }
}

//! How fast nodes that are not ready may be evicted, zone by zone. Pure.
//!
//! When much of a zone is silent, the network is a likelier reason than the nodes: eviction slows down, or stops in a
//! small zone. When every zone is silent, it is our own network: nothing is evicted at all. Numbers are upstream's.

use std::collections::HashMap;
use std::time::Duration;

use apimachinery::Str;
use rt::Instant;

/// `--node-eviction-rate`, per second.
const RATE: f64 = 0.1;
/// `--secondary-node-eviction-rate`, for large zones that are partly silent.
const SECONDARY_RATE: f64 = 0.01;
/// `--unhealthy-zone-threshold`.
const UNHEALTHY_SHARE: f64 = 0.55;
/// `--large-cluster-size-threshold`.
const LARGE_ZONE: usize = 50;
/// So few silent nodes are no disruption, whatever their share.
const FEW: usize = 2;

/// When a node may be evicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Turn {
    Now,
    /// Ask again after this time.
    After(Duration),
    /// Not while the disruption lasts.
    Never,
}

#[derive(Debug, Default)]
pub(super) struct Zones {
    nodes: HashMap<Str, Known>,
    zones: HashMap<Str, Zone>,
    all_disrupted: bool,
}

#[derive(Debug)]
struct Known {
    zone: Str,
    ready: bool,
}

#[derive(Debug, Default)]
struct Zone {
    ready: usize,
    not_ready: usize,
    /// When the next eviction may take place.
    next: Option<Instant>,
}

impl Zones {
    /// Records a node's state. True when that starts or ends the disruption of everything.
    pub(super) fn note(&mut self, node: &str, zone: &str, ready: bool) -> bool {
        self.uncount(node);
        let own = self.zones.entry(zone.into()).or_default();
        *(if ready { &mut own.ready } else { &mut own.not_ready }) += 1;
        self.nodes.insert(node.into(), Known { zone: zone.into(), ready });
        self.judge()
    }

    /// As [`Zones::note`], for a node that is gone.
    pub(super) fn forget(&mut self, node: &str) -> bool {
        self.uncount(node);
        self.judge()
    }

    /// Whether a node of the zone may be evicted; `free` ones cost nothing: they have their taint, or need none.
    pub(super) fn turn(&mut self, zone: &str, free: bool, now: Instant) -> Turn {
        if self.all_disrupted {
            return Turn::Never;
        }
        let Some(own) = self.zones.get_mut(zone).filter(|_| !free) else { return Turn::Now };
        let rate = own.rate();
        if rate == 0.0 {
            return Turn::Never;
        }
        match own.next.filter(|next| *next > now) {
            Some(next) => Turn::After(next - now),
            None => {
                own.next = Some(now + Duration::from_secs_f64(1.0 / rate));
                Turn::Now
            }
        }
    }

    fn uncount(&mut self, node: &str) {
        let Some(known) = self.nodes.remove(node) else { return };
        if let Some(own) = self.zones.get_mut(&known.zone) {
            *(if known.ready { &mut own.ready } else { &mut own.not_ready }) -= 1;
            if own.ready + own.not_ready == 0 {
                self.zones.remove(&known.zone);
            }
        }
    }

    fn judge(&mut self) -> bool {
        let all = !self.zones.is_empty() && self.zones.values().all(Zone::is_disrupted);
        std::mem::replace(&mut self.all_disrupted, all) != all
    }
}

impl Zone {
    fn is_disrupted(&self) -> bool {
        self.ready == 0 && self.not_ready > 0
    }

    fn rate(&self) -> f64 {
        let total = self.ready + self.not_ready;
        let share = self.not_ready as f64 / total.max(1) as f64;
        if self.is_disrupted() || self.not_ready <= FEW || share < UNHEALTHY_SHARE {
            RATE
        } else if total > LARGE_ZONE {
            SECONDARY_RATE
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(ready: usize, not_ready: usize) -> Zones {
        let mut zones = Zones::default();
        for n in 0..ready + not_ready {
            zones.note(&format!("n{n}"), "a", n < ready);
        }
        // A healthy node elsewhere: not everything is disrupted.
        zones.note("elsewhere", "b", true);
        zones
    }

    #[tokio::test]
    async fn the_rate_falls_with_the_share_of_silent_nodes() {
        let now = rt::instant();
        let rows = [
            (10, 1, Turn::After(Duration::from_secs(10))),
            (1, 2, Turn::After(Duration::from_secs(10))),
            (4, 6, Turn::Never),
            (40, 60, Turn::After(Duration::from_secs(100))),
            (0, 60, Turn::After(Duration::from_secs(10))),
        ];
        for (ready, not_ready, second) in rows {
            let mut zones = zones(ready, not_ready);
            let first = zones.turn("a", false, now);
            assert_eq!(
                first,
                if second == Turn::Never { Turn::Never } else { Turn::Now },
                "{ready} {not_ready}"
            );
            assert_eq!(zones.turn("a", false, now), second, "{ready} {not_ready}");
            assert_eq!(zones.turn("a", true, now), Turn::Now, "free of charge");
        }
    }

    #[tokio::test]
    async fn nothing_is_evicted_while_every_zone_is_silent() {
        let mut zones = Zones::default();
        assert!(zones.note("a", "z1", false), "a single silent node is all there is");
        assert_eq!(zones.turn("z1", false, rt::instant()), Turn::Never);
        assert!(zones.note("b", "z2", true));
        assert_eq!(zones.turn("z1", false, rt::instant()), Turn::Now);
        assert!(zones.note("b", "z2", false));
        assert!(!zones.note("b", "z2", false));
        assert!(!zones.forget("b"));
        assert!(zones.forget("a"), "without nodes nothing is disrupted");
    }
}

//! How long a pod may stay on a tainted node. Pure.

use std::time::Duration;

use api::placement::tolerates;
use api::view::{Node, Pod, Taint};
use jiff::Timestamp;

use crate::pods::timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Stays,
    GoesAfter(Duration),
    Goes,
}

/// Taints that evict.
pub(super) fn evicting(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.taints.iter().filter(|taint| taint.effect == "NoExecute")
}

pub(super) fn judge(pod: &Pod, node: &Node, now: Timestamp) -> Verdict {
    let mut shortest: Option<Duration> = None;
    for taint in evicting(node) {
        let Some(toleration) = pod.spec.tolerations.iter().find(|own| tolerates(own, taint)) else {
            return Verdict::Goes;
        };
        let Some(seconds) = toleration.toleration_seconds else { continue };
        let left = time_left(pod, taint, seconds, now);
        shortest = Some(shortest.map_or(left, |shortest| shortest.min(left)));
    }
    match shortest {
        None => Verdict::Stays,
        Some(left) if left.is_zero() => Verdict::Goes,
        Some(left) => Verdict::GoesAfter(left),
    }
}

/// Counted from when taint and pod were both there.
fn time_left(pod: &Pod, taint: &Taint, seconds: i64, now: Timestamp) -> Duration {
    let tainted = timestamp(taint.time_added.as_ref());
    let came = timestamp(pod.status.start_time.as_ref().or(pod.metadata.creation_timestamp.as_ref()));
    let since = tainted.max(came).unwrap_or(now);
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Duration::from_secs(seconds.max(0).unsigned_abs()).saturating_sub(passed)
}

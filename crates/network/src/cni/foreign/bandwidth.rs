//! How fast a pod may send and receive, by its annotations.

use apimachinery::Quantity;
use runtime::spec::Labels;
use serde_json::{Map, Value};

/// Bits per second that can be asked for, as the kubelet has it.
const RATE_MIN: i64 = 1_000;
const RATE_MAX: i64 = 1_000_000_000_000_000;

/// Bits at once: as many as upstream's runtimes let through.
const BURST: u32 = u32::MAX;

/// Each annotation, and what plugins call the direction.
const DIRECTIONS: [(&str, &str); 2] =
    [("kubernetes.io/ingress-bandwidth", "ingress"), ("kubernetes.io/egress-bandwidth", "egress")];

/// What the capability `bandwidth` is given; `None` where nothing is limited.
pub(super) fn of(annotations: &Labels) -> Result<Option<Value>, String> {
    let mut limits = Map::new();
    for (annotation, direction) in DIRECTIONS {
        let Some(text) = annotations.get(annotation) else { continue };
        let rate =
            Quantity::parse(text).map_err(|error| format!("annotation {annotation}: {error}"))?.value();
        if !(RATE_MIN..=RATE_MAX).contains(&rate) {
            return Err(format!("annotation {annotation}: {text} must be from 1k to 1P"));
        }
        limits.insert(format!("{direction}Rate"), rate.into());
        limits.insert(format!("{direction}Burst"), BURST.into());
    }
    Ok((!limits.is_empty()).then(|| limits.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bandwidth_is_asked_for_by_annotations() {
        let (ingress, egress) = (DIRECTIONS[0].0, DIRECTIONS[1].0);
        let limits = |pairs: &[(&str, &str)]| {
            of(&pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        let burst = u32::MAX;
        assert_eq!(limits(&[("other", "1")]), Ok(None));
        assert_eq!(limits(&[(ingress, "1k")]), Ok(Some(json!({"ingressRate": 1000, "ingressBurst": burst}))));
        assert_eq!(
            limits(&[(ingress, "10M"), (egress, "1P")]),
            Ok(Some(json!({
                "ingressRate": 10_000_000, "ingressBurst": burst, "egressRate": RATE_MAX, "egressBurst": burst,
            })))
        );
        for text in ["", "fast", "999", "2P", "-1M"] {
            assert!(limits(&[(egress, text)]).is_err_and(|why| why.contains(egress)), "{text}");
        }
    }
}

//! Shares of a device's capacity: what a request takes, and whether that is there and allowed.

use std::collections::BTreeMap;

use api::view::{CapacityRequestPolicy, CapacityRequestPolicyRange, Device, DeviceCapacity};
use apimachinery::quantity::Format;
use apimachinery::{Quantity, Str};

type Amounts = BTreeMap<Str, Quantity>;

/// What a request takes of each capacity of a device.
pub fn consumed(requested: &Amounts, device: &Device) -> Amounts {
    let each = device.capacity.iter();
    each.map(|(name, capacity)| (name.clone(), taken_of(requested.get(name), capacity))).collect()
}

/// Whether a device has what is requested, besides what others `taken` of it. A request for a capacity that the
/// device does not have cannot be met.
pub fn fits(requested: &Amounts, device: &Device, taken: &[&Amounts]) -> bool {
    if !requested.keys().all(|name| device.capacity.contains_key(name)) {
        return false;
    }
    device.capacity.iter().all(|(name, capacity)| {
        let wanted = taken_of(requested.get(name), capacity);
        let others = taken.iter().filter_map(|taken| taken.get(name));
        is_allowed(wanted, capacity.request_policy.as_ref())
            && others.fold(wanted, |sum, other| sum.add(*other)) <= capacity.value
    })
}

fn taken_of(requested: Option<&Quantity>, capacity: &DeviceCapacity) -> Quantity {
    let policy = capacity.request_policy.as_ref();
    let Some(&requested) = requested else {
        return policy.and_then(|policy| policy.default).unwrap_or(capacity.value);
    };
    let Some(policy) = policy else { return requested };
    match &policy.valid_range {
        Some(range) if range.min.is_some() => rounded_up(requested, range),
        _ => policy.valid_values.iter().copied().find(|value| requested <= *value).unwrap_or(requested),
    }
}

/// To the least, or to a whole number of steps above it.
fn rounded_up(requested: Quantity, range: &CapacityRequestPolicyRange) -> Quantity {
    let Some(min) = range.min else { return requested };
    let Some(step) = range.step.map(|step| step.value()).filter(|step| *step > 0) else {
        return requested.max(min);
    };
    if requested < min {
        return min;
    }
    let above = i128::from(requested.value()) - i128::from(min.value());
    let steps = (above + i128::from(step) - 1) / i128::from(step);
    let value = i128::from(min.value()) + steps * i128::from(step);
    Quantity::new(i64::try_from(value).unwrap_or(i64::MAX), Format::BinarySi)
}

fn is_allowed(wanted: Quantity, policy: Option<&CapacityRequestPolicy>) -> bool {
    let Some(policy) = policy else { return true };
    if policy.default == Some(wanted) {
        return true;
    }
    match &policy.valid_range {
        Some(range) => is_in_range(wanted, range),
        None => policy.valid_values.is_empty() || policy.valid_values.contains(&wanted),
    }
}

fn is_in_range(wanted: Quantity, range: &CapacityRequestPolicyRange) -> bool {
    if range.max.is_some_and(|max| wanted > max) {
        return false;
    }
    let min = range.min.map_or(0, |min| min.value());
    match range.step.map(|step| step.value()).filter(|step| *step != 0) {
        Some(step) => (i128::from(wanted.value()) - i128::from(min)) % i128::from(step) == 0,
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(policy: &str) -> Device {
        let text = format!(r#"{{"name":"d","capacity":{{"memory":{{"value":"10Gi"{policy}}}}}}}"#);
        serde_json::from_str(&text).expect("test data is a device")
    }

    fn amounts(text: &str) -> Amounts {
        if text.is_empty() { Amounts::new() } else { [("memory".into(), text.parse().unwrap())].into() }
    }

    #[test]
    fn requests_are_rounded_up_as_the_policy_says_and_refused_beyond_it() {
        let range =
            r#","requestPolicy":{"default":"1Gi","validRange":{"min":"1Gi","max":"8Gi","step":"2Gi"}}"#;
        let values = r#","requestPolicy":{"default":"2Gi","validValues":["2Gi","4Gi"]}"#;
        // Policy, request, taken before, what it takes if it fits.
        for (policy, requested, before, wanted) in [
            ("", "", "", Some("10Gi")),
            ("", "3Gi", "", Some("3Gi")),
            ("", "3Gi", "7Gi", Some("3Gi")),
            ("", "3Gi", "8Gi", None),
            ("", "11Gi", "", None),
            (range, "", "", Some("1Gi")),
            (range, "512Mi", "", Some("1Gi")),
            (range, "2Gi", "", Some("3Gi")),
            (range, "3Gi", "7Gi", Some("3Gi")),
            (range, "8Gi", "", None),
            (values, "", "9Gi", None),
            (values, "", "8Gi", Some("2Gi")),
            (values, "3Gi", "", Some("4Gi")),
            (values, "5Gi", "", None),
        ] {
            let device = device(policy);
            let (requested, before) = (amounts(requested), amounts(before));
            let taken = fits(&requested, &device, &[&before]).then(|| consumed(&requested, &device));
            let shown = taken.map(|taken| taken["memory"].to_string());
            assert_eq!(shown.as_deref(), wanted, "{policy} {requested:?} {before:?}");
        }
        let other = [("cores".into(), Quantity::ZERO)].into();
        assert!(!fits(&other, &device(""), &[]), "a capacity that the device does not have");
    }
}

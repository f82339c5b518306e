//! What a pod can be told of itself: `fieldRef` and `resourceFieldRef`, for variables and for files.

use api::amounts::Amounts;
use apimachinery::Quantity;
use apimachinery::field::go_quote;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use super::resources::amounts;

/// A field of the pod's metadata, or one that its spec has; `None` for those that only a [`super::PodFacts`] knows.
fn of_object(pod: &Pod, path: &str) -> Option<String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    let keyed = |map: Option<&std::collections::BTreeMap<String, String>>, key: &str| {
        map.and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    if let Some((base, key)) = subscript(path) {
        return match base {
            "metadata.annotations" => Some(keyed(meta.annotations.as_ref(), key)),
            "metadata.labels" => Some(keyed(meta.labels.as_ref(), key)),
            _ => None,
        };
    }
    Some(match path {
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        _ => return None,
    })
}

/// `base['key']` in its parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (base, rest) = path.split_once("['")?;
    Some((base, rest.strip_suffix("']")?))
}

/// `key="value"`, a line each, without a last line's end.
fn lines(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", go_quote(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Addresses that a `fieldRef` may ask for, in their order.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    pub pod: Vec<String>,
    pub host: Vec<String>,
}

/// The value of `fieldRef.fieldPath`.
///
/// # Errors
/// A message, for paths that no pod has.
pub fn field(pod: &Pod, path: &str, addresses: &Addresses) -> Result<String, String> {
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    Ok(match path {
        "status.hostIP" => first(&addresses.host),
        "status.hostIPs" => addresses.host.join(","),
        "status.podIP" => first(&addresses.pod),
        "status.podIPs" => addresses.pod.join(","),
        // Its name before 1.2, which conversion still knows.
        "spec.host" => of_object(pod, "spec.nodeName").unwrap_or_default(),
        _ => of_object(pod, path).ok_or_else(|| format!("unsupported fieldPath: {path}"))?,
    })
}

/// The value of a `resourceFieldRef` that a container named by it, or the one it stands in, has.
///
/// Limits that a container has not are the pod's, and then the node's: it cannot get more.
///
/// # Errors
/// A message, for resources that cannot be asked for.
pub fn resource(
    pod: &Pod,
    container: &Container,
    selector: &ResourceFieldSelector,
    allocatable: &Amounts,
) -> Result<String, String> {
    let unsupported = || format!("unsupported container resource: {}", selector.resource);
    let (list, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let is_huge = name.starts_with("hugepages-");
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge {
        return Err(unsupported());
    }
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let amount = match list {
        "limits" => {
            let limits = |own: Option<&k8s_openapi::api::core::v1::ResourceRequirements>| {
                amounts(own.and_then(|own| own.limits.as_ref())).get(name).filter(|own| !own.is_zero())
            };
            let node = if is_huge { None } else { allocatable.get(name) };
            limits(container.resources.as_ref()).or_else(|| limits(of_pod)).or(node)
        }
        "requests" => amounts(container.resources.as_ref().and_then(|own| own.requests.as_ref())).get(name),
        _ => return Err(unsupported()),
    };
    let divisor = selector.divisor.as_ref().and_then(|divisor| Quantity::parse(&divisor.0).ok());
    let divisor =
        divisor.filter(|divisor| divisor.sign() > 0).unwrap_or(Quantity::new(1, Default::default()));
    let (amount, divisor) = match name {
        "cpu" => (amount.unwrap_or_default().milli_value(), divisor.milli_value()),
        _ => (amount.unwrap_or_default().value(), divisor.value()),
    };
    Ok(divided_up(amount, divisor.max(1)).to_string())
}

fn divided_up(amount: i64, divisor: i64) -> i64 {
    amount / divisor + i64::from(amount % divisor > 0)
}

/// The container that a `resourceFieldRef` of a volume names.
///
/// # Errors
/// A message, where the pod has none of that name.
pub fn container_named<'a>(pod: &'a Pod, name: &str) -> Result<&'a Container, String> {
    let spec = pod.spec.as_ref();
    let all =
        spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    all.into_iter().find(|own| own.name == name).ok_or_else(|| format!("container {name} not found"))
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn every_field_has_its_value() {
        let pod =
            fixture::pod(serde_json::json!({"nodeName": "n1", "serviceAccountName": "sa", "containers": []}));
        let addresses =
            Addresses { pod: vec!["10.1.1.1".into(), "fd00::1".into()], host: vec!["192.0.2.1".into()] };
        for (path, wanted) in [
            ("metadata.name", Ok("web")),
            ("metadata.namespace", Ok("ns")),
            ("metadata.uid", Ok("u-1")),
            ("metadata.labels", Ok("app=\"web\"")),
            ("metadata.annotations", Ok("a=\"1\"\nb=\"two\\n\"")),
            ("metadata.annotations['a']", Ok("1")),
            ("metadata.annotations['none']", Ok("")),
            ("metadata.labels['app']", Ok("web")),
            ("spec.nodeName", Ok("n1")),
            ("spec.serviceAccountName", Ok("sa")),
            ("status.podIP", Ok("10.1.1.1")),
            ("status.podIPs", Ok("10.1.1.1,fd00::1")),
            ("status.hostIP", Ok("192.0.2.1")),
            ("status.hostIPs", Ok("192.0.2.1")),
            ("spec.replicas", Err("unsupported fieldPath: spec.replicas")),
            ("metadata.name['x']", Err("unsupported fieldPath: metadata.name['x']")),
        ] {
            let value = field(&pod, path, &addresses);
            assert_eq!(value.as_deref().map_err(String::as_str), wanted, "{path}");
        }
    }

    #[test]
    fn resources_are_counted_in_divisors_and_limits_end_at_the_nodes() {
        let pod = fixture::pod(serde_json::json!({"containers": [{"name": "c", "resources": {
            "limits": {"cpu": "1500m", "hugepages-2Mi": "4Mi"}, "requests": {"cpu": "250m", "memory": "100Mi"}}}]}));
        let allocatable = fixture::node().allocatable;
        let container = container_named(&pod, "c").expect("it is there");
        for (resource_name, divisor, wanted) in [
            ("limits.cpu", "", Ok("2")),
            ("limits.cpu", "1m", Ok("1500")),
            ("limits.memory", "1Mi", Ok("8192")),
            ("requests.cpu", "0", Ok("1")),
            ("requests.memory", "1Gi", Ok("1")),
            ("requests.memory", "1Ki", Ok("102400")),
            ("requests.ephemeral-storage", "", Ok("0")),
            ("limits.hugepages-2Mi", "1Mi", Ok("4")),
            ("limits.storage", "", Err("unsupported container resource: limits.storage")),
            ("cpu", "", Err("unsupported container resource: cpu")),
        ] {
            let selector = ResourceFieldSelector {
                container_name: None,
                divisor: Some(k8s_openapi::apimachinery::pkg::api::resource::Quantity(divisor.into())),
                resource: resource_name.into(),
            };
            let value = resource(&pod, container, &selector, &allocatable);
            assert_eq!(value.as_deref().map_err(String::as_str), wanted, "{resource_name} {divisor}");
        }
        assert_eq!(container_named(&pod, "x").map(drop), Err("container x not found".into()));
    }
}

//! Names and amounts of resources: `cpu`, `memory`, `hugepages-2Mi`, `example.com/gpu`.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Map, Quantity, Value};

use super::fields::{Fields, NOT_NEGATIVE, invalid_each};
use super::text;

const HUGE_PAGES: &str = "hugepages-";
const REQUESTS: &str = "requests.";

/// Standard resources of containers besides huge pages.
const CONTAINER: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const QUOTA: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// Resources that are counted.
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// A decoded quantity; `None` only for what the decoder would not have let through.
pub fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(_) => Quantity::parse(&value.to_json_string()).ok(),
        _ => None,
    }
}

pub fn is_negative(value: &Value) -> bool {
    quantity(value).is_some_and(|quantity| quantity.sign() < 0)
}

pub fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// A resource without a domain or with Kubernetes' own.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether requests below limits are possible.
pub fn is_overcommittable(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with(REQUESTS)
        && text::qualified_name(&format!("{REQUESTS}{name}")).is_empty()
}

/// Whether only whole amounts make sense.
pub fn is_counted(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

pub fn is_standard_for_quota(name: &str) -> bool {
    QUOTA.contains(&name) || is_huge_pages(name.strip_prefix(REQUESTS).unwrap_or(name))
}

fn is_standard(name: &str) -> bool {
    name == "storage" || is_standard_for_quota(name)
}

fn is_supported_for_pod(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_pages(name)
}

/// Whose resources are named, which decides what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Container,
    Pod,
    Quota,
    Other,
}

/// Checks a resource's name.
pub fn name(errors: &mut ErrorList, name: &str, owner: Owner, path: &Path<'_>) {
    // The names that nearly every pod uses.
    if CONTAINER.contains(&name) && owner != Owner::Pod || matches!(name, "cpu" | "memory") {
        return;
    }
    let before = errors.len();
    let qualified = name.contains('/');
    let messages = text::qualified_name(name);
    if messages.is_empty() {
        if !qualified && !is_standard(name) {
            errors.push(Error::invalid(path, name, "must be a standard resource type or fully qualified"));
        }
    } else {
        invalid_each(errors, path, name, messages);
    }
    match owner {
        Owner::Other => {}
        Owner::Quota => {
            if !qualified && !is_standard_for_quota(name) {
                errors.push(Error::invalid(path, name, "must be a standard resource for quota"));
            }
        }
        Owner::Container => {
            if !qualified {
                if !CONTAINER.contains(&name) && !is_huge_pages(name) {
                    errors.push(Error::invalid(path, name, "must be a standard resource for containers"));
                }
            } else if !is_native(name) && !is_extended(name) {
                errors.push(Error::invalid(path, name, "doesn't follow extended resource name standard"));
            }
        }
        Owner::Pod => {
            if errors.len() == before && !is_supported_for_pod(name) {
                errors.push(Error::not_supported(path, name, &["cpu", "hugepages-", "memory"]));
            }
        }
    }
}

/// Checks an amount: not negative, and whole where only whole ones make sense.
pub fn amount(errors: &mut ErrorList, name: &str, amount: Quantity, path: &Path<'_>) {
    if amount.sign() < 0 {
        errors.push(Error::invalid(path, amount.to_string(), NOT_NEGATIVE));
    }
    if !amount.is_integer() && is_counted(name) && amount.milli_value() % 1000 != 0 {
        errors.push(Error::invalid(path, amount.to_string(), "must be an integer"));
    }
}

/// Checks the names and amounts of a list.
pub fn list(errors: &mut ErrorList, list: Option<&Map>, owner: Owner, path: &Path<'_>) {
    for (key, value) in list.into_iter().flatten() {
        let path = path.key(key);
        name(errors, key, owner, &path);
        if let Some(quantity) = quantity(value) {
            amount(errors, key, quantity, &path);
        }
    }
}

/// Checks `limits`, `requests` and `claims` of a container or pod. `claims` names the pod's resource claims.
pub fn requirements(
    errors: &mut ErrorList,
    requirements: &Value,
    owner: Owner,
    claims: &[&str],
    path: &Path<'_>,
) {
    let (limits, requests) = (requirements.map("limits"), requirements.map("requests"));
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    let (mut compute, mut huge) = (false, false);
    let mut one = |errors: &mut ErrorList, key: &str, quantity: Quantity, path: &Path<'_>| {
        name(errors, key, owner, path);
        amount(errors, key, quantity, path);
        compute |= matches!(key, "cpu" | "memory");
    };
    for (key, value) in limits.into_iter().flatten() {
        let Some(quantity) = quantity(value) else { continue };
        let path = limits_path.key(key);
        one(errors, key, quantity, &path);
        if is_huge_pages(key) {
            huge = true;
            whole_pages(errors, key, quantity, &path);
        }
    }
    for (key, value) in requests.into_iter().flatten() {
        let Some(quantity) = quantity(value) else { continue };
        let path = requests_path.key(key);
        one(errors, key, quantity, &path);
        match limits.and_then(|limits| limits.get(key)).and_then(self::quantity) {
            Some(limit) if quantity != limit && !is_overcommittable(key) => errors.push(Error::invalid(
                &requests_path,
                quantity.to_string(),
                format!("must be equal to {key} limit of {limit}"),
            )),
            Some(limit) if quantity > limit => errors.push(Error::invalid(
                &requests_path,
                quantity.to_string(),
                format!("must be less than or equal to {key} limit of {limit}"),
            )),
            None if !is_overcommittable(key) => errors
                .push(Error::required(&limits_path, "Limit must be set for non overcommitable resources")),
            _ => {}
        }
        if is_huge_pages(key) {
            huge = true;
            whole_pages(errors, key, quantity, &path);
        }
    }
    if huge && !compute {
        errors.push(Error::forbidden(path, "HugePages require cpu or memory"));
    }
    claim_names(errors, requirements.list("claims"), claims, &path.child("claims"));
}

fn whole_pages(errors: &mut ErrorList, name: &str, amount: Quantity, path: &Path<'_>) {
    let page = name
        .strip_prefix(HUGE_PAGES)
        .and_then(|size| Quantity::parse(size).ok())
        .map_or(0, |size| size.value());
    if page <= 0 || amount.value() % page != 0 {
        errors.push(Error::invalid(
            path,
            amount.to_string(),
            format!("{amount} is not positive integer multiple of {name}"),
        ));
    }
}

fn claim_names(errors: &mut ErrorList, claims: &[Value], known: &[&str], path: &Path<'_>) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (index, claim) in claims.iter().enumerate() {
        let path = path.index(index);
        let (name, request) = (claim.text("name"), claim.text("request"));
        if name.is_empty() {
            errors.push(Error::required(&path, ""));
            continue;
        }
        // A claim as a whole excludes every request of it, and the other way round.
        if seen.contains(&(name, "")) || (request.is_empty() && seen.iter().any(|(own, _)| *own == name)) {
            errors.push(Error::duplicate(&path, name));
        } else if !request.is_empty() {
            invalid_each(errors, &path.child("request"), request, text::dns1123_label(request));
            if seen.contains(&(name, request)) {
                errors.push(Error::duplicate(&path, format!("{name}/{request}")));
            }
        }
        seen.push((name, request));
        if !known.contains(&name) {
            let mut error = Error::not_found(&path, name);
            error.detail = if known.is_empty() {
                "must be one of the names in pod.spec.resourceClaims which is empty".to_owned()
            } else {
                let mut names = known.to_vec();
                names.sort_unstable();
                format!("must be one of the names in pod.spec.resourceClaims: {}", names.join(", "))
            };
            errors.push(error);
        }
    }
}

/// The amount of one resource that the containers of a pod need together. Sidecars run along; other init containers
/// run one after the other before the rest, so that the largest of them counts.
pub fn aggregate(spec: &(impl Fields + ?Sized), list: &str, resource: &str) -> Option<Quantity> {
    let of = |container: &Value| {
        container["resources"].map(list).and_then(|map| map.get(resource)).and_then(quantity)
    };
    let add = |sum: Option<Quantity>, more: Option<Quantity>| match (sum, more) {
        (Some(sum), Some(more)) => Some(sum.add(more)),
        (sum, more) => sum.or(more),
    };
    let running = spec.list("containers").iter().map(of).fold(None, add);
    let (mut sidecars, mut starting) = (None, None);
    for container in spec.list("initContainers") {
        let own = of(container);
        if container.text("restartPolicy") == "Always" {
            sidecars = add(sidecars, own);
            starting = starting.max(sidecars);
        } else {
            starting = starting.max(add(sidecars, own));
        }
    }
    add(running, sidecars).max(starting)
}

fn aggregated_names<'a>(spec: &'a (impl Fields + ?Sized), list: &str) -> Vec<&'a str> {
    let mut names: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|key| spec.list(key))
        .flat_map(|container| container["resources"].map(list).into_iter().flatten())
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Scheme defaults of pod-level resources: huge page limits and requests follow from those of the containers, other
/// requests from the containers or from the pod's own limits.
pub fn default_pod_resources(spec: &mut Map) {
    let Some(resources) = spec.maybe("resources") else { return };
    let (limits, requests) = (resources.map("limits"), resources.map("requests"));
    let unset = |map: Option<&Map>, name: &str| map.is_none_or(|map| !map.contains_key(name));
    if limits.is_none_or(Map::is_empty) && requests.is_none_or(Map::is_empty) {
        return;
    }
    let huge: Vec<(String, Quantity)> = aggregated_names(spec, "limits")
        .into_iter()
        .filter(|name| is_huge_pages(name) && unset(limits, name) && unset(requests, name))
        .filter_map(|name| Some((name.to_owned(), aggregate(spec, "limits", name)?)))
        .collect();
    let mut wanted: Vec<(String, Quantity)> = Vec::new();
    if limits.is_some_and(|limits| !limits.is_empty()) || !huge.is_empty() {
        for name in aggregated_names(spec, "requests") {
            if unset(requests, name)
                && is_supported_for_pod(name)
                && is_overcommittable(name)
                && let Some(sum) = aggregate(spec, "requests", name)
            {
                wanted.push((name.to_owned(), sum));
            }
        }
        let own_limits = limits
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.to_string(), quantity(value)?)));
        for (name, limit) in own_limits.chain(huge.iter().cloned()) {
            if unset(requests, &name)
                && is_supported_for_pod(&name)
                && wanted.iter().all(|(own, _)| *own != name)
            {
                wanted.push((name, limit));
            }
        }
    }
    let Some(resources) = spec.get_mut("resources") else { return };
    for (list, entries) in [("limits", huge), ("requests", wanted)] {
        for (name, quantity) in entries {
            resources.ensure_object_at(&[list]).insert(name, quantity.to_string());
        }
    }
}

/// Checks pod-level resources against those of the containers.
pub fn pod_consistency(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let resources = &spec["resources"];
    let requests_path = path.child("requests");
    for name in aggregated_names(spec, "requests") {
        let own = resources.map("requests").and_then(|map| map.get(name)).and_then(quantity);
        if let (Some(own), Some(sum)) = (own, aggregate(spec, "requests", name))
            && sum > own
        {
            errors.push(Error::invalid(
                &requests_path.key(name),
                own.to_string(),
                format!("must be greater than or equal to aggregate container requests of {sum}"),
            ));
        }
    }
    let limits = resources.map("limits");
    let limit_of = |name: &str| limits.and_then(|map| map.get(name)).and_then(quantity);
    for name in aggregated_names(spec, "limits").into_iter().filter(|name| is_huge_pages(name)) {
        if let (Some(own), Some(sum)) = (limit_of(name), aggregate(spec, "limits", name))
            && sum > own
        {
            errors.push(Error::invalid(
                &path.child("limits").key(name),
                own.to_string(),
                format!("must be greater than or equal to aggregate container limits of {sum}"),
            ));
        }
    }
    let containers = path.child("containers");
    for (index, container) in spec.list("containers").iter().enumerate() {
        for (name, value) in container["resources"].entries("limits") {
            if let (Some(limit), Some(own)) = (quantity(value), limit_of(name))
                && limit > own
            {
                errors.push(Error::invalid(
                    &containers.index(index).key(name).child("limits"),
                    limit.to_string(),
                    format!("must be less than or equal to pod limits of {own}"),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn complaints(value: Value) -> Vec<String> {
        let mut errors = ErrorList::new();
        requirements(&mut errors, &value, Owner::Container, &["claim"], &Path::root("resources"));
        errors.into_iter().map(|error| error.to_string()).collect()
    }

    #[test]
    fn requirements_are_checked() {
        let cases = [
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
                vec![],
            ),
            (json!({"limits": {"example.com/gpu": "1"}, "requests": {"example.com/gpu": "1"}}), vec![]),
            (
                json!({"requests": {"example.com/gpu": "1"}}),
                vec!["resources.limits: Required value: Limit must be set for non overcommitable resources"],
            ),
            (
                json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
                vec![
                    "resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                ],
            ),
            (
                json!({"limits": {"example.com/gpu": "1500m"}, "requests": {"example.com/gpu": "1500m"}}),
                vec![
                    "resources.limits[example.com/gpu]: Invalid value: \"1500m\": must be an integer",
                    "resources.requests[example.com/gpu]: Invalid value: \"1500m\": must be an integer",
                ],
            ),
            (
                json!({"limits": {"hugepages-2Mi": "3Mi"}}),
                vec![
                    "resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
                    "resources: Forbidden: HugePages require cpu or memory",
                ],
            ),
            (json!({"claims": [{"name": "claim"}]}), vec![]),
            (
                json!({"claims": [{"name": "other"}]}),
                vec![
                    "resources.claims[0]: Not found: \"other\": must be one of the names in pod.spec.resourceClaims: claim",
                ],
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(complaints(value.clone()), expected, "{value}");
        }
    }

    #[test]
    fn sidecars_add_up_and_other_init_containers_do_not() {
        let of = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        let spec = json!({"containers": [], "initContainers": []});
        let with = |containers: Vec<Value>, init: Vec<Value>| {
            let mut spec = spec.clone();
            spec.set_at(&["containers"], containers);
            spec.set_at(&["initContainers"], init);
            aggregate(&spec, "requests", "cpu").map(|quantity| quantity.to_string())
        };
        assert_eq!(with(vec![of("1"), of("2")], vec![]).as_deref(), Some("3"));
        assert_eq!(with(vec![of("1")], vec![of("5"), of("4")]).as_deref(), Some("5"));
        assert_eq!(with(vec![of("1")], vec![sidecar("2"), of("4")]).as_deref(), Some("6"));
        assert_eq!(with(vec![], vec![]), None);
    }

    #[test]
    fn pod_level_requests_follow_from_containers_then_limits() {
        let mut spec = json!({
            "containers": [{"resources": {"requests": {"cpu": "100m"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
        });
        default_pod_resources(spec.as_object_mut().expect("an object"));
        assert_eq!(spec["resources"]["requests"], json!({"cpu": "100m", "memory": "1Gi"}));
    }
}

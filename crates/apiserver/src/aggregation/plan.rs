//! What an APIService should be, and whether what it points to can be called. Pure.

use api::conditions::Condition;
use api::discovery;
use apimachinery::{Value, json};
use jiff::Timestamp;
use webhook::ServiceReference;

/// Who keeps an APIService up to date: `onstart` for built-in groups, `true` for those of definitions.
pub(super) const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Where a group version comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    BuiltIn,
    Definition,
    /// Built in, but anybody may put another server in its place, for good.
    Yielding,
}

/// What to do about the object itself.
#[derive(Debug, PartialEq)]
pub(super) enum Registration {
    Keep,
    Create(Value),
    /// The object with another spec.
    Update(Value),
    Delete,
}

/// What is known about an APIService before anybody is called.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Local,
    /// Reason and message of the condition.
    Unavailable(&'static str, String),
    /// Looks good, but has to answer.
    Call(ServiceReference),
}

/// Group and version in an APIService's name: `v1.apps`, `v1.` for the core group.
pub(super) fn group_version(name: &str) -> (&str, &str) {
    let (version, group) = name.split_once('.').unwrap_or((name, ""));
    (group, version)
}

/// Upstream's table of the auto-register controller: only what is marked as managed is touched.
pub(super) fn register(name: &str, current: Option<&Value>, served: Option<Origin>) -> Registration {
    let managed = |object: &Value| object.at(&["metadata", "labels", MANAGED]).is_some();
    match (current, served) {
        (None, None) => Registration::Keep,
        (None, Some(origin)) => Registration::Create(local(name, origin)),
        (Some(current), _) if !managed(current) => Registration::Keep,
        (Some(_), None) => Registration::Delete,
        (Some(current), Some(origin)) => {
            let wanted = local(name, origin);
            if current["spec"] == wanted["spec"] {
                return Registration::Keep;
            }
            let mut changed = current.clone();
            changed.set_at(&["spec"], wanted["spec"].clone());
            Registration::Update(changed)
        }
    }
}

/// The APIService of a group version that is served here.
fn local(name: &str, origin: Origin) -> Value {
    let (group, version) = group_version(name);
    let (group_priority, version_priority) = discovery::priority(group, version);
    let labels = match origin {
        Origin::BuiltIn => json!({(MANAGED): "onstart"}),
        Origin::Definition => json!({(MANAGED): "true"}),
        Origin::Yielding => json!({}),
    };
    let mut spec = json!({
        "version": version, "groupPriorityMinimum": group_priority, "versionPriority": version_priority,
    });
    if !group.is_empty() {
        spec.set_at(&["group"], group);
    }
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": name, "labels": labels}, "spec": spec,
    })
}

/// Whether the Service behind an APIService could answer.
pub(super) fn judge(object: &Value, service: Option<&Value>, slices: &[Value]) -> Verdict {
    let named = &object["spec"]["service"];
    if named.is_null() {
        return Verdict::Local;
    }
    let (namespace, name) = (named.str_at(&["namespace"]), named.str_at(&["name"]));
    let port = named["port"].as_i64().unwrap_or(443);
    let Some(service) = service else {
        let why = format!("service/{name} in {namespace:?} is not present");
        return Verdict::Unavailable("ServiceNotFound", why);
    };
    if service.str_at(&["spec", "type"]) == "ClusterIP" {
        let ports = service.array_at(&["spec", "ports"]);
        let Some(own) = ports.iter().find(|own| own["port"].as_i64() == Some(port)) else {
            let why = format!("service/{name} in {namespace:?} is not listening on port {port}");
            return Verdict::Unavailable("ServicePortError", why);
        };
        if slices.is_empty() {
            let why = format!("cannot find endpointslices for service/{name} in {namespace:?}");
            return Verdict::Unavailable("EndpointsNotFound", why);
        }
        let port_name = own.str_at(&["name"]);
        if !slices.iter().any(|slice| has_endpoint(slice, port_name)) {
            let why = format!(
                "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
            );
            return Verdict::Unavailable("MissingEndpoints", why);
        }
    }
    Verdict::Call(ServiceReference {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        port: u16::try_from(port).unwrap_or(ServiceReference::DEFAULT_PORT),
        path: String::new(),
    })
}

fn has_endpoint(slice: &Value, port_name: &str) -> bool {
    let is_ready = |endpoint: &Value| endpoint["conditions"]["ready"].as_bool() != Some(false);
    let has_port = |port: &Value| port.str_at(&["name"]) == port_name && port["port"].as_i64().is_some();
    slice.array_at(&["endpoints"]).iter().any(is_ready) && slice.array_at(&["ports"]).iter().any(has_port)
}

/// The object with its `Available` condition set, or `None` if it says so already.
pub(super) fn with_condition(
    object: &Value,
    available: bool,
    reason: &'static str,
    message: &str,
    now: Timestamp,
) -> Option<Value> {
    let condition = Condition::new("Available", available, reason, message);
    if condition.is_set(object) {
        return None;
    }
    let mut changed = object.clone();
    condition.set(&mut changed, now);
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_managed_is_touched() {
        let own = |managed: Option<&str>, priority: i64| {
            let labels: Value = managed.map(|text| json!({(MANAGED): text})).unwrap_or_else(|| json!({}));
            json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": {"name": "v1.example.com", "labels": labels},
                "spec": {"group": "example.com", "version": "v1", "groupPriorityMinimum": priority,
                    "versionPriority": 100},
            })
        };
        let name = "v1.example.com";
        assert_eq!(register(name, None, None), Registration::Keep);
        assert_eq!(
            register(name, None, Some(Origin::Definition)),
            Registration::Create(own(Some("true"), 1000))
        );
        assert_eq!(register(name, Some(&own(None, 7)), Some(Origin::Definition)), Registration::Keep);
        assert_eq!(register(name, Some(&own(None, 7)), None), Registration::Keep);
        assert_eq!(register(name, Some(&own(Some("true"), 1000)), None), Registration::Delete);
        assert_eq!(
            register(name, Some(&own(Some("true"), 1000)), Some(Origin::Definition)),
            Registration::Keep
        );
        assert_eq!(
            register(name, Some(&own(Some("true"), 7)), Some(Origin::Definition)),
            Registration::Update(own(Some("true"), 1000))
        );
        let Registration::Create(core) = register("v1.", None, Some(Origin::BuiltIn)) else {
            panic!("the core group is registered")
        };
        assert_eq!(
            core["spec"],
            json!({"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1})
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let object = json!({"spec": {"service": {"namespace": "ns", "name": "s", "port": 443}}});
        let service =
            |port: i64| json!({"spec": {"type": "ClusterIP", "ports": [{"name": "https", "port": port}]}});
        let slice = |ready: bool, port: &str| json!({"endpoints": [{"conditions": {"ready": ready}}], "ports": [{"name": port, "port": 8443}]});
        let unavailable = |reason, message: &str| Verdict::Unavailable(reason, message.to_owned());
        let missing = || {
            unavailable(
                "MissingEndpoints",
                "endpointslices for service/s in \"ns\" have no addresses with port name \"https\"",
            )
        };
        assert_eq!(judge(&json!({"spec": {}}), None, &[]), Verdict::Local);
        assert_eq!(
            judge(&object, None, &[]),
            unavailable("ServiceNotFound", "service/s in \"ns\" is not present")
        );
        assert_eq!(
            judge(&object, Some(&service(80)), &[]),
            unavailable("ServicePortError", "service/s in \"ns\" is not listening on port 443")
        );
        assert_eq!(
            judge(&object, Some(&service(443)), &[]),
            unavailable("EndpointsNotFound", "cannot find endpointslices for service/s in \"ns\"")
        );
        assert_eq!(judge(&object, Some(&service(443)), &[slice(false, "https")]), missing());
        assert_eq!(judge(&object, Some(&service(443)), &[slice(true, "http")]), missing());
        let reference =
            ServiceReference { namespace: "ns".into(), name: "s".into(), port: 443, path: String::new() };
        assert_eq!(judge(&object, Some(&service(443)), &[slice(true, "https")]), Verdict::Call(reference));
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_turns() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let (first, later) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
        let object = with_condition(&json!({}), false, "A", "a", first).expect("a change");
        assert_eq!(with_condition(&object, false, "A", "a", later), None);
        let same = with_condition(&object, false, "B", "b", later).expect("another reason");
        let time =
            |object: &Value| object["status"]["conditions"][0].str_at(&["lastTransitionTime"]).to_owned();
        assert_eq!(time(&same), "2026-01-01T00:00:00Z");
        let turned = with_condition(&same, true, "Passed", "all checks passed", later).expect("it turned");
        assert_eq!(time(&turned), "2026-01-02T00:00:00Z");
        assert_eq!(turned.array_at(&["status", "conditions"]).len(), 1);
    }
}

//! Hot path: scheme defaults of pods and of everything that holds a pod template.
//!
//! One walk over the tree; a field that is set costs a look-up and nothing more.

use apimachinery::{Map, Value};

use crate::kinds::core::persistent_volume_claim;
use crate::validation::fields::{Fields, is_empty};
use crate::validation::resources;

const FILE_MODE: i64 = 0o644;
const TOKEN_SECONDS: i64 = 3600;

/// Defaults of a whole pod: those of its spec, and those that templates do not get.
pub fn pod(object: &mut Value) {
    let Some(spec) = ensure(object, "spec") else { return };
    let host_network = spec.truth("hostNetwork");
    for list in ["containers", "initContainers"] {
        for container in items(spec, list) {
            requests_from_limits(container);
            if host_network {
                host_ports(container);
            }
        }
    }
    if spec.has("resources") {
        resources::default_pod_resources(spec);
    }
    set(spec, "enableServiceLinks", true);
    pod_spec(spec);
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        primary_and_list(status, "podIP", "podIPs", Some("ip"));
    }
}

/// Defaults of a `PodTemplateSpec`.
pub fn template(template: &mut Value) {
    if let Some(spec) = ensure(template, "spec") {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Map) {
    set_text(spec, "dnsPolicy", "ClusterFirst");
    set_text(spec, "restartPolicy", "Always");
    if !spec.has("securityContext") {
        spec.insert("securityContext", Value::object());
    }
    if !spec.has("terminationGracePeriodSeconds") {
        spec.insert("terminationGracePeriodSeconds", 30);
    }
    set_text(spec, "schedulerName", "default-scheduler");
    service_account(spec);
    for volume in items(spec, "volumes") {
        self::volume(volume);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items(spec, list) {
            self::container(container);
        }
    }
}

/// The deprecated spelling mirrors the current one.
pub(super) fn service_account(spec: &mut Map) {
    let (name, old) = (spec.text("serviceAccountName"), spec.text("serviceAccount"));
    if name == old {
        return;
    }
    if name.is_empty() {
        let old = old.to_owned();
        spec.insert("serviceAccountName", old);
    } else {
        let name = name.to_owned();
        spec.insert("serviceAccount", name);
    }
}

fn container(container: &mut Map) {
    if is_empty(container.get("imagePullPolicy")) {
        let policy = pull_policy(container.text("image"));
        container.insert("imagePullPolicy", policy);
    }
    set_text(container, "terminationMessagePath", "/dev/termination-log");
    set_text(container, "terminationMessagePolicy", "File");
    for port in items(container, "ports") {
        set_text(port, "protocol", "TCP");
    }
    for variable in items(container, "env") {
        let Some(from) = child(variable, "valueFrom") else { continue };
        field_ref(from);
        if let Some(file) = child(from, "fileKeyRef") {
            set(file, "optional", false);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child(container, name) {
            self::probe(probe);
        }
    }
    if let Some(lifecycle) = child(container, "lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(handler) = child(lifecycle, name) {
                http_get(handler);
            }
        }
    }
}

fn probe(probe: &mut Map) {
    for (key, seconds) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if probe.int(key) == 0 {
            probe.insert(key, seconds);
        }
    }
    http_get(probe);
    if let Some(grpc) = child(probe, "grpc")
        && !grpc.has("service")
    {
        grpc.insert("service", "");
    }
}

fn http_get(handler: &mut Map) {
    if let Some(get) = child(handler, "httpGet") {
        set_text(get, "path", "/");
        set_text(get, "scheme", "HTTP");
    }
}

fn field_ref(holder: &mut Map) {
    if let Some(reference) = child(holder, "fieldRef") {
        set_text(reference, "apiVersion", "v1");
    }
}

fn volume(volume: &mut Map) {
    if volume.iter().all(|(key, value)| key == "name" || value.is_null()) {
        volume.insert("emptyDir", Value::object());
        return;
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = child(volume, source)
            && !source.has("defaultMode")
        {
            source.insert("defaultMode", FILE_MODE);
        }
    }
    if let Some(source) = child(volume, "downwardAPI") {
        items(source, "items").for_each(field_ref);
    }
    if let Some(source) = child(volume, "projected") {
        items(source, "sources").for_each(projection);
    }
    if let Some(host) = child(volume, "hostPath")
        && !host.has("type")
    {
        host.insert("type", "");
    }
    if let Some(image) = child(volume, "image")
        && is_empty(image.get("pullPolicy"))
    {
        let policy = pull_policy(image.text("reference"));
        image.insert("pullPolicy", policy);
    }
    if let Some(template) = child(volume, "ephemeral").and_then(|source| child(source, "volumeClaimTemplate"))
        && let Some(spec) = template.get_mut("spec")
    {
        persistent_volume_claim::default_spec(spec);
    }
    if let Some(source) = child(volume, "scaleIO") {
        set_text(source, "storageMode", "ThinProvisioned");
        set_text(source, "fsType", "xfs");
    }
    network_disk(volume);
}

fn projection(source: &mut Map) {
    if let Some(token) = child(source, "serviceAccountToken")
        && !token.has("expirationSeconds")
    {
        token.insert("expirationSeconds", TOKEN_SECONDS);
    }
    if let Some(source) = child(source, "downwardAPI") {
        items(source, "items").for_each(field_ref);
    }
}

/// Defaults of the sources that pods and persistent volumes share.
pub fn shared_volume_source(holder: &mut Value) {
    if let Some(holder) = holder.as_object_mut() {
        network_disk(holder);
        if let Some(host) = child(holder, "hostPath")
            && !host.has("type")
        {
            host.insert("type", "");
        }
    }
}

fn network_disk(holder: &mut Map) {
    if let Some(source) = child(holder, "iscsi") {
        set_text(source, "iscsiInterface", "default");
    }
    if let Some(source) = child(holder, "rbd") {
        set_text(source, "pool", "rbd");
        set_text(source, "user", "admin");
        set_text(source, "keyring", "/etc/ceph/keyring");
    }
    if let Some(source) = child(holder, "azureDisk") {
        for (key, value) in [("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("kind", "Shared")] {
            if !source.has(key) {
                source.insert(key, value);
            }
        }
        set(source, "readOnly", false);
    }
}

/// A pod asks for as much as it is limited to, where it does not say.
fn requests_from_limits(container: &mut Map) {
    let Some(resources) = child(container, "resources") else { return };
    let Some(limits) = resources.map("limits") else { return };
    let missing: Vec<_> = limits
        .iter()
        .filter(|(name, _)| resources.map("requests").is_none_or(|requests| !requests.contains_key(name)))
        .map(|(name, quantity)| (name.clone(), quantity.clone()))
        .collect();
    if missing.is_empty() {
        return;
    }
    let requests = resources.get_or_insert_with("requests", Value::object).ensure_object();
    for (name, quantity) in missing {
        requests.insert(name, quantity);
    }
}

fn host_ports(container: &mut Map) {
    for port in items(container, "ports") {
        if port.int("hostPort") == 0 {
            let number = port.int("containerPort");
            port.insert("hostPort", number);
        }
    }
}

/// `Always` for the tag `latest`, also when it is only implied; `IfNotPresent` for everything else, also for what is
/// not an image reference at all.
fn pull_policy(image: &str) -> &'static str {
    if tag_is_latest(image) { "Always" } else { "IfNotPresent" }
}

fn tag_is_latest(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let after_domain = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => rest,
        _ => name,
    };
    let last = after_domain.rsplit('/').next().unwrap_or_default();
    let (path, tag) = match last.split_once(':') {
        Some((own, tag)) => (&after_domain[..after_domain.len() - last.len() + own.len()], Some(tag)),
        None => (after_domain, None),
    };
    let well_formed = !path.is_empty()
        && path.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-' | b'/')
        });
    well_formed && (tag == Some("latest") || (tag.is_none() && digest.is_none()))
}

/// Keeps a single value and the list that begins with it (`podIP`, `podIPs`) in step; the single one wins.
pub fn primary_and_list(holder: &mut Map, single: &str, list: &str, item_key: Option<&str>) {
    let read = |item: &Value| match item_key {
        Some(key) => item.text(key).to_owned(),
        None => item.as_str().unwrap_or_default().to_owned(),
    };
    let first = holder.list(list).first().map(read);
    let primary = holder.text(single).to_owned();
    match first {
        Some(first) if primary.is_empty() => {
            holder.insert(single, first);
        }
        first if !primary.is_empty() && first.as_deref() != Some(&*primary) => {
            let item = match item_key {
                Some(key) => [(key.into(), Value::from(primary))].into_iter().collect(),
                None => Value::from(primary),
            };
            holder.insert(list, Value::Array(vec![item]));
        }
        _ => {}
    }
}

fn ensure<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Map> {
    let value = object.as_object_mut()?.get_or_insert_with(key, Value::object);
    Some(value.ensure_object())
}

fn child<'a>(holder: &'a mut Map, key: &str) -> Option<&'a mut Map> {
    holder.get_mut(key)?.as_object_mut()
}

fn items<'a>(holder: &'a mut Map, key: &str) -> impl Iterator<Item = &'a mut Map> {
    holder.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn set_text(holder: &mut Map, key: &str, text: &str) {
    if is_empty(holder.get(key)) {
        holder.insert(key, text);
    }
}

fn set(holder: &mut Map, key: &str, flag: bool) {
    if !holder.has(key) {
        holder.insert(key, flag);
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn the_pull_policy_follows_the_tag() {
        let cases = [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("registry.example:5000/a/nginx", "Always"),
            ("registry.example:5000/a/nginx:1", "IfNotPresent"),
            ("nginx@sha256:0123", "IfNotPresent"),
            ("nginx:latest@sha256:0123", "Always"),
            ("Not An Image", "IfNotPresent"),
            ("", "IfNotPresent"),
        ];
        for (image, policy) in cases {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn templates_do_not_get_what_only_pods_get() {
        let mut template_of = json!({"spec": {"hostNetwork": true, "containers": [
            {"name": "c", "ports": [{"containerPort": 1}], "resources": {"limits": {"cpu": "1"}}}]}});
        let mut pod_of = template_of.clone();
        template(&mut template_of);
        pod(&mut pod_of);
        assert_eq!(
            template_of["spec"]["containers"][0]["ports"][0],
            json!({"containerPort": 1, "protocol": "TCP"})
        );
        assert!(template_of["spec"]["containers"][0]["resources"].get("requests").is_none());
        assert_eq!(
            pod_of["spec"]["containers"][0]["ports"][0],
            json!({"containerPort": 1, "hostPort": 1, "protocol": "TCP"})
        );
        assert_eq!(pod_of["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "1"}));
        assert_eq!(pod_of["spec"]["enableServiceLinks"], true.into());
    }

    #[test]
    fn defaults_are_idempotent_and_keep_what_is_set() {
        let mut object = json!({"spec": {
            "serviceAccountName": "a", "volumes": [{"name": "v"}, {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}],
            "containers": [{"name": "c", "image": "i", "livenessProbe": {"httpGet": {"port": 1, "path": "/x"}, "periodSeconds": 7}}],
        }});
        pod(&mut object);
        let once = object.clone();
        pod(&mut object);
        assert_eq!(object, once);
        assert_eq!(object["spec"]["serviceAccount"], "a".into());
        assert_eq!(object["spec"]["volumes"][0], json!({"name": "v", "emptyDir": {}}));
        let probe = &object["spec"]["containers"][0]["livenessProbe"];
        assert_eq!(probe["periodSeconds"], 7.into());
        assert_eq!(probe["httpGet"], json!({"port": 1, "path": "/x", "scheme": "HTTP"}));
    }

    #[test]
    fn the_single_address_leads_the_list() {
        let sync = |mut status: Value| {
            primary_and_list(status.ensure_object(), "podIP", "podIPs", Some("ip"));
            status
        };
        assert_eq!(sync(json!({"podIP": "1"})), json!({"podIP": "1", "podIPs": [{"ip": "1"}]}));
        assert_eq!(
            sync(json!({"podIPs": [{"ip": "1"}, {"ip": "2"}]})),
            json!({"podIP": "1", "podIPs": [{"ip": "1"}, {"ip": "2"}]})
        );
        assert_eq!(
            sync(json!({"podIP": "3", "podIPs": [{"ip": "1"}]})),
            json!({"podIP": "3", "podIPs": [{"ip": "3"}]})
        );
        assert_eq!(sync(json!({})), json!({}));
    }
}

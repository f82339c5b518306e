//! Hot path: validation of a pod spec, in a pod or in a template.
//!
//! One walk in upstream's order. Nothing is formatted or copied unless there is a complaint.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::{container, scheduling, security, volumes};
use crate::strategy::Context;
use crate::validation::fields::{Fields, as_go_struct, invalid_each, item_text, one_of};
use crate::validation::meta::annotations;
use crate::validation::{ip, resources, selector, text};

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
/// All search paths together, with a space between each two, in bytes.
const SEARCH_LIST_MAX: usize = 2048;
const HOSTNAME_OVERRIDE_MAX: usize = 64;
pub const PREEMPTION_POLICIES: [&str; 2] = ["PreemptLowerPriority", "Never"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const TOLERATIONS_ANNOTATION: &str = "scheduler.alpha.kubernetes.io/tolerations";

/// What the spec stands in.
#[derive(Clone, Copy)]
pub enum Holder<'a> {
    /// A pod with this metadata.
    Pod(&'a Value),
    Template,
}

/// Checks a whole `PodTemplateSpec`.
pub fn template(errors: &mut ErrorList, ctx: &Context<'_>, template: &Value, path: &Path<'_>) {
    let (metadata, spec) = (&template["metadata"], &template["spec"]);
    // Upstream leaves `metadata` out of these paths.
    selector::labels(errors, metadata.map("labels"), &path.child("labels"));
    let annotations_path = path.child("annotations");
    annotations(errors, metadata.map("annotations"), &annotations_path);
    pod_annotations(errors, metadata, spec, &annotations_path);
    let spec_path = path.child("spec");
    pod_spec(errors, ctx, spec, Holder::Template, &spec_path);
    annotations_match_fields(errors, metadata, spec, &spec_path);
    if !spec.list("ephemeralContainers").is_empty() {
        errors.push(Error::forbidden(
            &spec_path.child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        ));
    }
}

/// Checks a `PodSpec`.
pub fn pod_spec(
    errors: &mut ErrorList,
    ctx: &Context<'_>,
    spec: &Value,
    holder: Holder<'_>,
    path: &Path<'_>,
) {
    let (is_pod, metadata) = match holder {
        Holder::Pod(metadata) => (true, Some(metadata)),
        Holder::Template => (false, None),
    };
    let grace = spec.maybe_int("terminationGracePeriodSeconds");
    if grace.is_none() {
        errors.push(Error::required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    let pod_name = metadata.map(|metadata| metadata.text("name")).unwrap_or_default();
    let usable = volumes::volumes(errors, spec.list("volumes"), pod_name, is_pod, &path.child("volumes"));
    let claims =
        resource_claims(errors, spec.list("resourceClaims"), metadata, &path.child("resourceClaims"));
    let pod = container::Pod {
        volumes: &usable,
        claims: &claims,
        restart_policy: spec.text("restartPolicy"),
        grace,
        host_users: spec.maybe_truth("hostUsers") != Some(false),
        allow_privileged: ctx.allow_privileged,
    };
    let (main, init) = (spec.list("containers"), spec.list("initContainers"));
    container::containers(errors, main, &pod, &path.child("containers"));
    container::init_containers(errors, init, main, &pod, &path.child("initContainers"));
    container::ephemeral_containers(
        errors,
        spec.list("ephemeralContainers"),
        main,
        init,
        &pod,
        &path.child("ephemeralContainers"),
    );
    pod_resources(errors, spec, &claims, path);
    host_network_ports(errors, spec, is_pod, path);
    one_of(errors, pod.restart_policy, &path.child("restartPolicy"), &RESTART_POLICIES);
    one_of(errors, spec.text("dnsPolicy"), &path.child("dnsPolicy"), &DNS_POLICIES);
    selector::labels(errors, spec.map("nodeSelector"), &path.child("nodeSelector"));
    if let Some(context) = spec.maybe("securityContext") {
        security::pod(errors, context, spec, &path.child("securityContext"));
    }
    if let Some(affinity) = spec.maybe("affinity") {
        scheduling::affinity(errors, affinity, &path.child("affinity"));
    }
    dns_config(errors, spec, &path.child("dnsConfig"));
    let gates = path.child("readinessGates");
    for (index, gate) in spec.list("readinessGates").iter().enumerate() {
        let condition = gate.text("conditionType");
        invalid_each(
            errors,
            &gates.index(index).child("conditionType"),
            condition,
            text::qualified_name(condition),
        );
    }
    scheduling::scheduling_gates(errors, spec.list("schedulingGates"), &path.child("schedulingGates"));
    scheduling::topology_spread(
        errors,
        spec.list("topologySpreadConstraints"),
        &path.child("topologySpreadConstraints"),
    );
    security::windows_host_process(errors, ctx, spec, path);
    own_user_namespace(errors, spec, path);
    hostname_override(errors, spec, path);
    names(errors, spec, path);
    scheduling::tolerations(errors, spec.list("tolerations"), &path.child("tolerations"));
    host_aliases(errors, spec.list("hostAliases"), &path.child("hostAliases"));
    for key in ["priorityClassName", "runtimeClassName"] {
        if let Some(name) = spec.maybe_text(key)
            && !(name.is_empty() && key == "priorityClassName")
        {
            invalid_each(errors, &path.child(key), name, text::dns1123_subdomain(name));
        }
    }
    if let Some(policy) = spec.maybe_text("preemptionPolicy") {
        one_of(errors, policy, &path.child("preemptionPolicy"), &PREEMPTION_POLICIES);
    }
    if let Some(overhead) = spec.map("overhead") {
        // Upstream checks an overhead as if it were the limits of a container, and says so.
        let path = path.child("overhead");
        resources::list(errors, Some(overhead), resources::Owner::Container, &path.child("limits"));
    }
    security::operating_system(errors, spec, path);
    if let Some(group) = spec.maybe("schedulingGroup") {
        scheduling::scheduling_group(errors, group, &path.child("schedulingGroup"));
    }
    file_key_volumes(errors, spec, path);
}

fn resource_claims<'a>(
    errors: &mut ErrorList,
    claims: &'a [Value],
    metadata: Option<&Value>,
    path: &Path<'_>,
) -> Vec<&'a str> {
    let is_mirror = metadata.is_some_and(|metadata| metadata["annotations"].has(MIRROR_ANNOTATION));
    for (index, claim) in claims.iter().enumerate() {
        if is_mirror {
            errors.push(Error::forbidden(&Path::root(""), "static pods do not support resource claims"));
            continue;
        }
        let path = path.index(index);
        let name = claim.text("name");
        if name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else if claims[..index].iter().any(|other| other.text("name") == name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        } else {
            invalid_each(errors, &path.child("name"), name, text::dns1123_label(name));
        }
        let (claimed, template) =
            (claim.maybe_text("resourceClaimName"), claim.maybe_text("resourceClaimTemplateName"));
        let complaint = match (claimed, template) {
            (Some(_), Some(_)) => {
                Some("at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified")
            }
            (None, None) => Some("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            _ => None,
        };
        if let Some(complaint) = complaint {
            const LAYOUT: [(&str, &str, &str); 3] = [
                ("name", "Name", "\"\""),
                ("resourceClaimName", "ResourceClaimName", "null"),
                ("resourceClaimTemplateName", "ResourceClaimTemplateName", "null"),
            ];
            errors.push(Error::invalid(&path, as_go_struct(claim, &LAYOUT), complaint));
        }
        for (key, name) in [("resourceClaimName", claimed), ("resourceClaimTemplateName", template)] {
            if let Some(name) = name {
                invalid_each(errors, &path.child(key), name, text::dns1123_subdomain(name));
            }
        }
    }
    claims.iter().map(|claim| claim.text("name")).filter(|name| !name.is_empty()).collect()
}

fn pod_resources(errors: &mut ErrorList, spec: &Value, claims: &[&str], path: &Path<'_>) {
    let Some(own) = spec.maybe("resources") else { return };
    let path = path.child("resources");
    if spec["os"].text("name") == "windows" {
        errors.push(Error::forbidden(&path, "may not be set for a windows pod"));
        return;
    }
    if own.has("claims") {
        errors.push(Error::forbidden(
            &path.child("claims"),
            "claims may not be set for Resources at pod-level",
        ));
    }
    resources::requirements(errors, own, resources::Owner::Pod, claims, &path);
    resources::pod_consistency(errors, spec, &path);
}

fn host_network_ports(errors: &mut ErrorList, spec: &Value, is_pod: bool, path: &Path<'_>) {
    if !spec.truth("hostNetwork") {
        return;
    }
    let containers = path.child("containers");
    for (index, container) in spec.list("containers").iter().enumerate() {
        let ports = containers.index(index);
        let ports = ports.child("ports");
        for (index, port) in container.list("ports").iter().enumerate() {
            let (host, own) = (port.int("hostPort"), port.int("containerPort"));
            if (is_pod || host != 0) && host != own {
                errors.push(Error::invalid(
                    &ports.index(index).child("hostPort"),
                    host,
                    "must match `containerPort` when `hostNetwork` is true",
                ));
            }
        }
    }
}

fn dns_config(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let config = spec.maybe("dnsConfig");
    let nameservers = config.map(|config| config.list("nameservers")).unwrap_or_default();
    if spec.text("dnsPolicy") == "None" {
        if config.is_none() {
            errors.push(Error::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if nameservers.is_empty() {
            errors.push(Error::required(
                &path.child("nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            ));
            return;
        }
    }
    let Some(config) = config else { return };
    let servers_path = path.child("nameservers");
    if nameservers.len() > NAMESERVERS_MAX {
        errors.push(Error::invalid(
            &servers_path,
            &config["nameservers"],
            format!("must not have more than {NAMESERVERS_MAX} nameservers"),
        ));
    }
    for (index, server) in nameservers.iter().enumerate() {
        ip::check_ip(errors, item_text(server), &servers_path.index(index), &[]);
    }
    let searches = config.list("searches");
    let searches_path = path.child("searches");
    if searches.len() > SEARCHES_MAX {
        errors.push(Error::invalid(
            &searches_path,
            &config["searches"],
            format!("must not have more than {SEARCHES_MAX} search paths"),
        ));
    }
    let length = searches.iter().map(|search| item_text(search).len() + 1).sum::<usize>().saturating_sub(1);
    if length > SEARCH_LIST_MAX {
        errors.push(Error::invalid(
            &searches_path,
            &config["searches"],
            format!(
                "must not have more than {SEARCH_LIST_MAX} characters (including spaces) in the search list"
            ),
        ));
    }
    for (index, search) in searches.iter().map(item_text).enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        invalid_each(
            errors,
            &searches_path.index(index),
            search,
            text::dns1123_subdomain_with_underscore(search),
        );
    }
    let options = path.child("options");
    for (index, _) in
        config.list("options").iter().enumerate().filter(|(_, option)| option.text("name").is_empty())
    {
        errors.push(Error::required(&options.index(index), "must not be empty"));
    }
}

/// A pod with its own user namespace may not share other namespaces of the host.
fn own_user_namespace(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    if spec.maybe_truth("hostUsers") != Some(false) {
        return;
    }
    const WHEN: &str = "when `hostUsers` is false";
    for (key, spelled) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.truth(key) {
            errors.push(Error::forbidden(&path.child(spelled), WHEN));
        }
    }
    container::visit(spec, path, |container, path| {
        if !container.list("volumeDevices").is_empty() {
            errors.push(Error::forbidden(&path.child("volumeDevices"), WHEN));
        }
    });
}

fn hostname_override(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let Some(name) = spec.maybe_text("hostnameOverride") else { return };
    let path = path.child("hostnameOverride");
    if spec.truth("setHostnameAsFQDN") {
        errors.push(Error::forbidden(&path, "may not be specified when setHostnameAsFQDN is true"));
    }
    if spec.truth("hostNetwork") {
        errors.push(Error::forbidden(&path, "may not be specified when hostNetwork is true"));
    }
    if name.len() > HOSTNAME_OVERRIDE_MAX {
        errors.push(Error::too_long(&path, HOSTNAME_OVERRIDE_MAX));
    }
    invalid_each(errors, &path, name, text::dns1123_subdomain(name));
}

fn names(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let mut check = |key: &str, form: fn(&str) -> text::Messages| {
        let name = spec.text(key);
        if !name.is_empty() {
            invalid_each(errors, &path.child(key), name, form(name));
        }
    };
    check("serviceAccountName", text::dns1123_subdomain);
    check("nodeName", text::dns1123_subdomain);
    if let Some(seconds) = spec.maybe_int("activeDeadlineSeconds") {
        let messages = text::in_range(seconds, 1, i64::from(i32::MAX));
        invalid_each(errors, &path.child("activeDeadlineSeconds"), seconds, messages);
    }
    let mut check = |key: &str, form: fn(&str) -> text::Messages| {
        let name = spec.text(key);
        if !name.is_empty() {
            invalid_each(errors, &path.child(key), name, form(name));
        }
    };
    check("hostname", text::dns1123_label);
    check("subdomain", text::dns1123_label);
}

fn host_aliases(errors: &mut ErrorList, aliases: &[Value], path: &Path<'_>) {
    for (index, alias) in aliases.iter().enumerate() {
        let path = path.index(index);
        ip::check_ip(errors, alias.text("ip"), &path.child("ip"), &[]);
        let hostnames = path.child("hostnames");
        for (index, hostname) in alias.list("hostnames").iter().enumerate() {
            let hostname = item_text(hostname);
            invalid_each(errors, &hostnames.index(index), hostname, text::dns1123_subdomain(hostname));
        }
    }
}

/// A variable read from a file needs an `emptyDir` that the file can be in.
fn file_key_volumes(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    container::visit(spec, path, |container, path| {
        let env = path.child("env");
        for (index, variable) in container.list("env").iter().enumerate() {
            let Some(reference) = variable.maybe("valueFrom").and_then(|from| from.maybe("fileKeyRef"))
            else {
                continue;
            };
            let name = reference.text("volumeName");
            let own = env.index(index);
            let own = own.child("valueFrom");
            let own = own.child("fileKeyRef");
            let own = own.child("volumeName");
            // Of volumes with the same name the last one counts.
            match spec.list("volumes").iter().rfind(|volume| volume.text("name") == name) {
                None => errors.push(Error::not_found(&own, name)),
                Some(volume) if !volume.has("emptyDir") => {
                    errors.push(Error::invalid(&own, name, "referenced volume must be of type emptyDir"));
                }
                Some(_) => {}
            }
        }
    });
}

/// Annotations that mean something to Kubernetes.
pub fn pod_annotations(errors: &mut ErrorList, metadata: &Value, spec: &Value, path: &Path<'_>) {
    let Some(annotations) = metadata.map("annotations").filter(|annotations| !annotations.is_empty()) else {
        return;
    };
    if let Some(mirror) = annotations.maybe_text(MIRROR_ANNOTATION)
        && spec.text("nodeName").is_empty()
    {
        errors.push(Error::invalid(
            &path.key(MIRROR_ANNOTATION),
            mirror,
            "must set spec.nodeName if mirror pod annotation is set",
        ));
    }
    let written = annotations.text(TOLERATIONS_ANNOTATION);
    if !written.is_empty() {
        match Value::parse(written.as_bytes()) {
            Ok(Value::Array(tolerations)) => {
                scheduling::tolerations(errors, &tolerations, &path.child(TOLERATIONS_ANNOTATION));
            }
            _ => errors.push(Error::invalid(
                path,
                TOLERATIONS_ANNOTATION,
                "must be a JSON list of tolerations",
            )),
        }
    }
    if let Some(cost) = annotations.maybe_text(DELETION_COST)
        && !is_deletion_cost(cost)
    {
        errors.push(Error::invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer"));
    }
    for (key, value) in annotations {
        let value = item_text(value);
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            seccomp_annotation(errors, value, &path.child(key));
        }
        if let Some(name) = key.strip_prefix(APP_ARMOR) {
            let mut found = false;
            container::visit(spec, path, |container, _| found |= container.text("name") == name);
            if !found {
                errors.push(Error::invalid(&path.key(key), name, "container not found"));
            }
            if !matches!(value, "" | "runtime/default" | "unconfined") && !value.starts_with("localhost/") {
                errors.push(Error::invalid(
                    &path.key(key),
                    value,
                    format!("invalid AppArmor profile name: {}", apimachinery::field::go_quote(value)),
                ));
            }
        }
    }
}

/// A 32-bit number without sign `+` or leading zeros.
fn is_deletion_cost(cost: &str) -> bool {
    let digits = cost.strip_prefix('-').unwrap_or(cost);
    cost.parse::<i32>().is_ok() && !cost.starts_with('+') && (digits == "0" || !digits.starts_with('0'))
}

fn seccomp_annotation(errors: &mut ErrorList, profile: &str, path: &Path<'_>) {
    match profile.strip_prefix("localhost/") {
        Some(local) => volumes::local_descending_path(errors, local, path),
        None if matches!(profile, "runtime/default" | "docker/default" | "unconfined") => {}
        None => errors.push(Error::invalid(path, profile, "must be a valid seccomp profile")),
    }
}

/// Profiles that are given both by annotation and by field have to agree.
pub fn annotations_match_fields(errors: &mut ErrorList, metadata: &Value, spec: &Value, path: &Path<'_>) {
    let Some(annotations) = metadata.map("annotations").filter(|annotations| !annotations.is_empty()) else {
        return;
    };
    let profile = |holder: &Value, key: &str| holder["securityContext"].maybe(key).cloned();
    if let (Some(field), Some(annotation)) =
        (profile(spec, "seccompProfile"), annotations.maybe_text(SECCOMP_POD))
    {
        profile_matches(
            errors,
            "seccomp",
            annotation,
            &field,
            &path.child("securityContext").child("seccompProfile"),
        );
    }
    container::visit(spec, path, |container, path| {
        let key = format!("{SECCOMP_CONTAINER}{}", container.text("name"));
        if let (Some(field), Some(annotation)) =
            (profile(container, "seccompProfile"), annotations.maybe_text(&key))
        {
            let path = path.child("securityContext");
            profile_matches(errors, "seccomp", annotation, &field, &path.child("seccompProfile"));
        }
    });
    if spec["os"].text("name") == "windows" {
        return;
    }
    let of_pod = profile(spec, "appArmorProfile");
    container::visit(spec, path, |container, path| {
        let key = format!("{APP_ARMOR}{}", container.text("name"));
        let field = profile(container, "appArmorProfile").or_else(|| of_pod.clone());
        if let (Some(field), Some(annotation)) = (field, annotations.maybe_text(&key)) {
            let path = path.child("securityContext");
            profile_matches(errors, "apparmor", annotation, &field, &path.child("appArmorProfile"));
        }
    });
}

fn profile_matches(errors: &mut ErrorList, what: &str, annotation: &str, field: &Value, path: &Path<'_>) {
    let type_matches = match field.text("type") {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => {
            annotation == "runtime/default" || (what == "seccomp" && annotation == "docker/default")
        }
        "Localhost" => annotation.starts_with("localhost/"),
        _ => true,
    };
    if !type_matches {
        errors.push(Error::forbidden(
            &path.child("type"),
            format!("{what} type in annotation and field must match"),
        ));
    } else if field.text("type") == "Localhost"
        && annotation.strip_prefix("localhost/") != field.maybe_text("localhostProfile")
    {
        errors.push(Error::forbidden(
            &path.child("localhostProfile"),
            format!("{what} profile in annotation and field must match"),
        ));
    }
}

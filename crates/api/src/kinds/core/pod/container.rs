//! Containers of a pod: what all have in common, and what init, sidecar and ephemeral containers add.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::volumes::{Volumes, has_backsteps, local_descending_path};
use super::{env, security};
use crate::validation::fields::{Fields, invalid_each, is_empty, not_negative, one_of, require, supported};
use crate::validation::{resources, text};

pub const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
pub const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

/// What the rules of a container have to know about its pod.
pub struct Pod<'a> {
    pub volumes: &'a Volumes<'a>,
    pub claims: &'a [&'a str],
    pub restart_policy: &'a str,
    /// `spec.terminationGracePeriodSeconds`.
    pub grace: Option<i64>,
    /// The pod shares the host's user namespace.
    pub host_users: bool,
    /// As [`Context::allow_privileged`](crate::strategy::Context::allow_privileged).
    pub allow_privileged: bool,
}

/// The main containers.
pub fn containers(errors: &mut ErrorList, containers: &[Value], pod: &Pod<'_>, path: &Path<'_>) {
    if containers.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    for (index, container) in containers.iter().enumerate() {
        let own = path.index(index);
        common(errors, container, pod, &own);
        let name = container.text("name");
        if containers[..index].iter().any(|other| other.text("name") == name) {
            errors.push(Error::duplicate(&own.child("name"), name));
        }
        running(errors, container, pod.grace, &own);
        restart_policy(errors, container, &own);
    }
    host_port_conflicts(errors, containers, path);
}

/// Init containers, the restartable ones (sidecars) among them.
pub fn init_containers(
    errors: &mut ErrorList,
    list: &[Value],
    main: &[Value],
    pod: &Pod<'_>,
    path: &Path<'_>,
) {
    for (index, container) in list.iter().enumerate() {
        let own = path.index(index);
        common(errors, container, pod, &own);
        if container.has("restartPolicy") || !container.list("restartPolicyRules").is_empty() {
            restart_policy(errors, container, &own);
        }
        let name = container.text("name");
        let taken = |other: &Value| other.text("name") == name;
        if main.iter().any(taken) || (!name.is_empty() && list[..index].iter().any(taken)) {
            errors.push(Error::duplicate(&own.child("name"), name));
        }
        // Init containers run one after the other, so that only ports of one can conflict.
        host_port_conflicts(errors, std::slice::from_ref(container), path);
        let sidecar = container.text("restartPolicy") == "Always";
        if sidecar {
            running(errors, container, pod.grace, &own);
            continue;
        }
        for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container.has(key) {
                errors.push(Error::forbidden(
                    &own.child(key),
                    "may not be set for init containers without restartPolicy=Always",
                ));
            }
        }
        let policies = own.child("resizePolicy");
        for (index, policy) in container.list("resizePolicy").iter().enumerate() {
            if policy.text("restartPolicy") == "RestartContainer" {
                errors.push(Error::invalid(
                    &policies.index(index).child("restartPolicy"),
                    "RestartContainer",
                    "must not be set to 'RestartContainer' for non-sidecar initContainers",
                ));
            }
        }
    }
}

/// Ephemeral containers, which may have less than others.
pub fn ephemeral_containers(
    errors: &mut ErrorList,
    list: &[Value],
    main: &[Value],
    init: &[Value],
    pod: &Pod<'_>,
    path: &Path<'_>,
) {
    for (index, container) in list.iter().enumerate() {
        let own = path.index(index);
        common(errors, container, pod, &own);
        image_whitespace(errors, container, &own);
        let others = || main.iter().chain(init);
        let name = container.text("name");
        if others().chain(&list[..index]).any(|other| other.text("name") == name) {
            errors.push(Error::duplicate(&own.child("name"), name));
        }
        let target = container.text("targetContainerName");
        if !target.is_empty() && !others().any(|other| other.text("name") == target) {
            errors.push(Error::not_found(&own.child("targetContainerName"), target));
        }
        only_ephemeral_fields(errors, container, &own);
    }
}

fn only_ephemeral_fields(errors: &mut ErrorList, container: &Value, path: &Path<'_>) {
    const NOT_ALLOWED: &str = "cannot be set for an Ephemeral Container";
    // In the order of the Go type.
    const OTHERS: [&str; 9] = [
        "ports",
        "resources",
        "resizePolicy",
        "restartPolicy",
        "restartPolicyRules",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    ];
    for key in OTHERS {
        let set = match container.maybe(key) {
            Some(Value::Object(map)) if key == "resources" => !map.is_empty(),
            value => !is_empty(value),
        };
        if set {
            errors.push(Error::forbidden(&path.child(key), NOT_ALLOWED));
        }
    }
    let mounts = path.child("volumeMounts");
    for (index, mount) in container.list("volumeMounts").iter().enumerate() {
        for key in ["subPath", "subPathExpr"] {
            if !mount.text(key).is_empty() {
                errors.push(Error::forbidden(&mounts.index(index).child(key), NOT_ALLOWED));
            }
        }
    }
}

/// What only whole pods are checked for, since a template's image may still be filled in.
pub fn image_whitespace(errors: &mut ErrorList, container: &Value, path: &Path<'_>) {
    let image = container.text("image");
    if image.trim() != image {
        errors.push(Error::invalid(
            &path.child("image"),
            image,
            "must not have leading or trailing whitespace",
        ));
    }
}

fn common(errors: &mut ErrorList, container: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    let name = container.text("name");
    if require(errors, container, "name", path) {
        invalid_each(errors, &path.child("name"), name, text::dns1123_label(name));
    }
    require(errors, container, "image", path);
    one_of(
        errors,
        container.text("terminationMessagePolicy"),
        &path.child("terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
    );
    let (mounts, devices) = (container.list("volumeMounts"), container.list("volumeDevices"));
    ports(errors, container.list("ports"), &path.child("ports"));
    env::env(errors, container.list("env"), &path.child("env"));
    env::env_from(errors, container.list("envFrom"), &path.child("envFrom"));
    volume_mounts(errors, container, mounts, devices, pod.volumes, &path.child("volumeMounts"));
    volume_devices(errors, devices, mounts, pod.volumes, &path.child("volumeDevices"));
    one_of(errors, container.text("imagePullPolicy"), &path.child("imagePullPolicy"), &PULL_POLICIES);
    if let Some(required) = container.maybe("resources") {
        resources::requirements(
            errors,
            required,
            resources::Owner::Container,
            pod.claims,
            &path.child("resources"),
        );
    }
    resize_policies(errors, container.list("resizePolicy"), pod.restart_policy, &path.child("resizePolicy"));
    if let Some(context) = container.maybe("securityContext") {
        security::container(errors, context, pod, &path.child("securityContext"));
    }
}

fn ports(errors: &mut ErrorList, ports: &[Value], path: &Path<'_>) {
    let mut names: Vec<&str> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.text("name");
        if !name.is_empty() {
            let messages = text::port_name(name);
            if !messages.is_empty() {
                invalid_each(errors, &path.child("name"), name, messages);
            } else if names.contains(&name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            } else {
                names.push(name);
            }
        }
        let number = port.int("containerPort");
        if number == 0 {
            errors.push(Error::required(&path.child("containerPort"), ""));
        } else {
            invalid_each(errors, &path.child("containerPort"), number, text::port_number(number));
        }
        let host = port.int("hostPort");
        if host != 0 {
            invalid_each(errors, &path.child("hostPort"), host, text::port_number(host));
        }
        one_of(errors, port.text("protocol"), &path.child("protocol"), &PROTOCOLS);
    }
}

fn volume_mounts(
    errors: &mut ErrorList,
    container: &Value,
    mounts: &[Value],
    devices: &[Value],
    volumes: &Volumes<'_>,
    path: &Path<'_>,
) {
    for (index, mount) in mounts.iter().enumerate() {
        let own = path.index(index);
        let (name, target) = (mount.text("name"), mount.text("mountPath"));
        require(errors, mount, "name", &own);
        if volumes.get(name).is_none() {
            errors.push(Error::not_found(&own.child("name"), name));
        }
        require(errors, mount, "mountPath", &own);
        if mounts[..index].iter().any(|other| other.text("mountPath") == target) {
            errors.push(Error::invalid(&own.child("mountPath"), target, "must be unique"));
        }
        if devices.iter().any(|device| device.text("name") == name) {
            errors.push(Error::invalid(&own.child("name"), name, "must not already exist in volumeDevices"));
        }
        if devices.iter().any(|device| device.text("devicePath") == target) {
            errors.push(Error::invalid(
                &own.child("mountPath"),
                target,
                "must not already exist as a path in volumeDevices",
            ));
        }
        // From here on upstream reports at the list, not at the item.
        let (sub_path, expression) = (mount.text("subPath"), mount.text("subPathExpr"));
        if !sub_path.is_empty() {
            local_descending_path(errors, sub_path, &path.child("subPath"));
        }
        if !expression.is_empty() {
            if !sub_path.is_empty() {
                errors.push(Error::invalid(
                    &own.child("subPathExpr"),
                    expression,
                    "subPathExpr and subPath are mutually exclusive",
                ));
            }
            local_descending_path(errors, expression, &path.child("subPathExpr"));
        }
        if let Some(propagation) = mount.maybe_text("mountPropagation") {
            mount_propagation(errors, propagation, container, &path.child("mountPropagation"));
        }
        if let Some(recursive) = mount.maybe_text("recursiveReadOnly") {
            recursive_read_only(errors, recursive, mount, &path.child("recursiveReadOnly"));
        }
    }
}

fn mount_propagation(errors: &mut ErrorList, propagation: &str, container: &Value, path: &Path<'_>) {
    supported(errors, propagation, path, &["Bidirectional", "HostToContainer", "None"]);
    if propagation == "Bidirectional" && !container["securityContext"].truth("privileged") {
        errors.push(Error::forbidden(
            path,
            "Bidirectional mount propagation is available only to privileged containers",
        ));
    }
}

fn recursive_read_only(errors: &mut ErrorList, recursive: &str, mount: &Value, path: &Path<'_>) {
    match recursive {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.truth("readOnly") {
                errors.push(Error::forbidden(path, "may only be specified when readOnly is true"));
            }
            if mount.maybe_text("mountPropagation").is_some_and(|propagation| propagation != "None") {
                errors.push(Error::forbidden(
                    path,
                    "may only be specified when mountPropagation is None or not specified",
                ));
            }
        }
        other => errors.push(Error::not_supported(path, other, &["Disabled", "Enabled", "IfPossible"])),
    }
}

fn volume_devices(
    errors: &mut ErrorList,
    devices: &[Value],
    mounts: &[Value],
    volumes: &Volumes<'_>,
    path: &Path<'_>,
) {
    for (index, device) in devices.iter().enumerate() {
        let path = path.index(index);
        let (name_path, device_path) = (path.child("name"), path.child("devicePath"));
        let (name, target) = (device.text("name"), device.text("devicePath"));
        require(errors, device, "name", &path);
        if !name.is_empty() && devices[..index].iter().any(|other| other.text("name") == name) {
            errors.push(Error::invalid(&name_path, name, "must be unique"));
        }
        match volumes.get(name) {
            None => errors.push(Error::not_found(&name_path, name)),
            Some(volume) if !volume.has("persistentVolumeClaim") && !volume.has("ephemeral") => {
                errors.push(Error::invalid(
                    &name_path,
                    name,
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                ));
            }
            Some(_) => {}
        }
        require(errors, device, "devicePath", &path);
        let same_path = |other: &&Value| other.text("devicePath") == target && !has_backsteps(target);
        if devices[..index].iter().find(same_path).is_some() {
            errors.push(Error::invalid(&device_path, target, "must be unique"));
        }
        if has_backsteps(target) {
            errors.push(Error::invalid(&device_path, target, "can not contain backsteps ('..')"));
        }
        if mounts.iter().any(|mount| mount.text("name") == name) {
            errors.push(Error::invalid(&name_path, name, "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|mount| mount.text("mountPath") == target) {
            errors.push(Error::invalid(
                &device_path,
                target,
                "must not already exist as a path in volumeMounts",
            ));
        }
    }
}

fn resize_policies(errors: &mut ErrorList, policies: &[Value], pod_policy: &str, path: &Path<'_>) {
    for (index, policy) in policies.iter().enumerate() {
        let resource = policy.text("resourceName");
        if policies[..index].iter().any(|other| other.text("resourceName") == resource) {
            errors.push(Error::duplicate(&path.index(index), resource));
        }
        one_of(errors, resource, path, &["cpu", "memory"]);
        let restart = policy.text("restartPolicy");
        one_of(errors, restart, path, &["NotRequired", "RestartContainer"]);
        if pod_policy == "Never" && restart != "NotRequired" {
            errors.push(Error::invalid(
                path,
                restart,
                "must be 'NotRequired' when pod `restartPolicy` is 'Never'",
            ));
        }
    }
}

fn restart_policy(errors: &mut ErrorList, container: &Value, path: &Path<'_>) {
    let rules = container.list("restartPolicyRules");
    match container.maybe_text("restartPolicy") {
        Some(policy) => {
            supported(errors, policy, &path.child("restartPolicy"), &["Always", "Never", "OnFailure"]);
        }
        None if rules.is_empty() => return,
        None => errors.push(Error::required(
            &path.child("restartPolicy"),
            "must specify restartPolicy when restart rules are used",
        )),
    }
    let rules_path = path.child("restartPolicyRules");
    if rules.len() > RESTART_RULES_MAX {
        errors.push(Error::too_many(&rules_path, rules.len(), RESTART_RULES_MAX));
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = rules_path.index(index);
        supported(errors, rule.text("action"), &path.child("action"), &["Restart", "RestartAllContainers"]);
        let codes_path = path.child("exitCodes");
        let Some(codes) = rule.maybe("exitCodes") else {
            errors.push(Error::required(&codes_path, "must be specified"));
            continue;
        };
        supported(errors, codes.text("operator"), &codes_path.child("operator"), &["In", "NotIn"]);
        let values = codes.list("values").len();
        if values > EXIT_CODES_MAX {
            errors.push(Error::too_many(&codes_path.child("values"), values, EXIT_CODES_MAX));
        }
    }
}

/// Lifecycle hooks and probes, which only containers that keep running have.
fn running(errors: &mut ErrorList, container: &Value, grace: Option<i64>, path: &Path<'_>) {
    if let Some(lifecycle) = container.maybe("lifecycle") {
        let path = path.child("lifecycle");
        for key in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.maybe(key) {
                self::handler(errors, handler, grace, &path.child(key));
            }
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.maybe(key) else { continue };
        let path = path.child(key);
        self::probe(errors, probe, grace, &path);
        if key == "readinessProbe" {
            if let Some(seconds) = probe.maybe_int("terminationGracePeriodSeconds") {
                errors.push(Error::invalid(
                    &path.child("terminationGracePeriodSeconds"),
                    seconds,
                    "must not be set for readinessProbes",
                ));
            }
        } else if probe.int("successThreshold") != 1 {
            errors.push(Error::invalid(
                &path.child("successThreshold"),
                probe.int("successThreshold"),
                "must be 1",
            ));
        }
    }
}

fn probe(errors: &mut ErrorList, probe: &Value, grace: Option<i64>, path: &Path<'_>) {
    handler(errors, probe, grace, path);
    for key in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        not_negative(errors, probe, key, path);
    }
    if let Some(seconds) = probe.maybe_int("terminationGracePeriodSeconds")
        && seconds <= 0
    {
        errors.push(Error::invalid(
            &path.child("terminationGracePeriodSeconds"),
            seconds,
            "must be greater than 0",
        ));
    }
}

fn handler(errors: &mut ErrorList, handler: &Value, grace: Option<i64>, path: &Path<'_>) {
    let mut found = false;
    for key in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(action) = handler.maybe(key) else { continue };
        let own = path.child(key);
        if std::mem::replace(&mut found, true) {
            errors.push(Error::forbidden(&own, "may not specify more than 1 handler type"));
            continue;
        }
        match key {
            "exec" => {
                if action.list("command").is_empty() {
                    errors.push(Error::required(&own.child("command"), ""));
                }
            }
            "httpGet" => http_get(errors, action, &own),
            "sleep" => sleep(errors, action.int("seconds"), grace, &own),
            _ => port_number_or_name(errors, &action["port"], &own.child("port")),
        }
    }
    if !found {
        errors.push(Error::required(path, "must specify a handler type"));
    }
}

fn http_get(errors: &mut ErrorList, action: &Value, path: &Path<'_>) {
    require(errors, action, "path", path);
    port_number_or_name(errors, &action["port"], &path.child("port"));
    supported(errors, action.text("scheme"), &path.child("scheme"), &["HTTP", "HTTPS"]);
    for header in action.list("httpHeaders") {
        let name = header.text("name");
        invalid_each(errors, &path.child("httpHeaders"), name, text::http_header_name(name));
    }
}

fn sleep(errors: &mut ErrorList, seconds: i64, grace: Option<i64>, path: &Path<'_>) {
    if let Some(grace) = grace
        && (seconds < 0 || seconds > grace)
    {
        errors.push(Error::invalid(
            path,
            seconds,
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"),
        ));
    }
}

/// A port by number, or by the name that a container gave it.
pub fn port_number_or_name(errors: &mut ErrorList, port: &Value, path: &Path<'_>) {
    match port.as_str() {
        Some(name) => invalid_each(errors, path, name, text::port_name(name)),
        None => {
            let number = port.as_i64().unwrap_or_default();
            invalid_each(errors, path, number, text::port_number(number));
        }
    }
}

fn host_port_conflicts(errors: &mut ErrorList, containers: &[Value], path: &Path<'_>) {
    let mut taken: Vec<(&str, &str, i64)> = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let ports = path.index(index);
        let ports = ports.child("ports");
        for (index, port) in container.list("ports").iter().enumerate() {
            let number = port.int("hostPort");
            if number == 0 {
                continue;
            }
            let key = (port.text("protocol"), port.text("hostIP"), number);
            if taken.contains(&key) {
                errors.push(Error::duplicate(
                    &ports.index(index).child("hostPort"),
                    format!("{}/{}/{}", key.0, key.1, key.2),
                ));
            } else {
                taken.push(key);
            }
        }
    }
}

/// Every container of a pod with its path, in the order in which upstream visits them.
pub fn visit(spec: &Value, path: &Path<'_>, mut each: impl FnMut(&Value, &Path<'_>)) {
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let list_path = path.child(list);
        for (index, container) in spec.list(list).iter().enumerate() {
            each(container, &list_path.index(index));
        }
    }
}

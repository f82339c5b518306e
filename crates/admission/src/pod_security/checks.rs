//! The Pod Security Standards: what each level forbids, since which release, and how the complaint reads.
//!
//! A check is a pure function over a pod's metadata and spec. [`CHECKS`] is the list; the order of complaints is that
//! of the checks' names, baseline before restricted.

use std::collections::BTreeSet;

use apimachinery::Value;
use apimachinery::field::go_quote;

use super::policy::{Level, Standard, Version};

/// What is wrong: the reason in a few words, and the details for one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: &'static str,
    pub detail: String,
}

/// A pod, or the template of one.
#[derive(Clone, Copy)]
pub struct Pod<'a> {
    pub metadata: &'a Value,
    pub spec: &'a Value,
}

type Function = fn(Pod<'_>) -> Option<Violation>;

struct Check {
    name: &'static str,
    level: Level,
    /// Since which minor release which function counts; ascending.
    versions: &'static [(u32, Function)],
    /// Of a restricted check: the baseline check that it replaces.
    replaces: &'static str,
}

const fn baseline(name: &'static str, versions: &'static [(u32, Function)]) -> Check {
    Check { name, level: Level::Baseline, versions, replaces: "" }
}

const fn restricted(
    name: &'static str,
    versions: &'static [(u32, Function)],
    replaces: &'static str,
) -> Check {
    Check { name, level: Level::Restricted, versions, replaces }
}

/// Baseline, then restricted, each by name.
const CHECKS: &[Check] = &[
    baseline("appArmorProfile", &[(0, app_armor)]),
    baseline("capabilities_baseline", &[(0, default_capabilities)]),
    baseline("hostNamespaces", &[(0, host_namespaces)]),
    baseline("hostPathVolumes", &[(0, host_path)]),
    baseline("hostPorts", &[(0, host_ports)]),
    baseline("hostProbesAndHostLifecycle", &[(34, probe_hosts)]),
    baseline("privileged", &[(0, privileged)]),
    baseline("procMount", &[(0, proc_mount), (35, |pod| unless_own_users(pod, proc_mount))]),
    baseline("seLinuxOptions", &[(0, se_linux_1_0), (31, se_linux_1_31)]),
    baseline("seccompProfile_baseline", &[(0, seccomp_annotations), (19, seccomp_baseline)]),
    baseline("sysctls", &[(0, sysctls_1_0), (27, sysctls_1_27), (29, sysctls_1_29), (32, sysctls_1_32)]),
    baseline("windowsHostProcess", &[(0, windows_host_process)]),
    restricted(
        "allowPrivilegeEscalation",
        &[(8, escalation), (25, |pod| unless_windows(pod, escalation))],
        "",
    ),
    restricted(
        "capabilities_restricted",
        &[(22, no_capabilities), (25, |pod| unless_windows(pod, no_capabilities))],
        "capabilities_baseline",
    ),
    restricted("procMount_restricted", &[(35, proc_mount)], "procMount"),
    restricted("restrictedVolumes", &[(0, volume_types)], "hostPathVolumes"),
    restricted("runAsNonRoot", &[(0, non_root), (35, |pod| unless_own_users(pod, non_root))], ""),
    restricted("runAsUser", &[(23, no_root_user), (35, |pod| unless_own_users(pod, no_root_user))], ""),
    restricted(
        "seccompProfile_restricted",
        &[(19, seccomp_restricted), (25, |pod| unless_windows(pod, seccomp_restricted))],
        "seccompProfile_baseline",
    ),
];

/// All that a standard complains about in a pod.
pub fn evaluate(standard: Standard, pod: Pod<'_>) -> Vec<Violation> {
    if standard.level == Level::Privileged {
        return Vec::new();
    }
    applying(standard).filter_map(|check| check.at(standard.version)?(pod)).collect()
}

/// The names of the checks that complain, and of those that they stand for.
#[cfg(test)]
pub fn refusing(standard: Standard, pod: Pod<'_>) -> Vec<&'static str> {
    let complains = |check: &&Check| check.at(standard.version).is_some_and(|check| check(pod).is_some());
    applying(standard).filter(complains).flat_map(|check| [check.name, check.replaces]).collect()
}

/// The checks of a standard, without those that a stricter one replaces.
fn applying(standard: Standard) -> impl Iterator<Item = &'static Check> {
    let replaced: Vec<&str> = CHECKS
        .iter()
        .filter(|check| standard.level == Level::Restricted && check.at(standard.version).is_some())
        .map(|check| check.replaces)
        .collect();
    CHECKS.iter().filter(move |check| check.level <= standard.level && !replaced.contains(&check.name))
}

impl Check {
    fn at(&self, version: Version) -> Option<Function> {
        let counts = |since: u32| match version {
            Version::Latest => true,
            Version::Minor(minor) => since <= minor,
        };
        self.versions.iter().rev().find(|(since, _)| counts(*since)).map(|(_, function)| *function)
    }
}

/// What all complaints are about, for a list of pods.
pub fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|violation| violation.reason).collect::<Vec<_>>().join(", ")
}

/// All complaints with their details, for one pod.
pub fn details(violations: &[Violation]) -> String {
    let one = |violation: &Violation| match violation.detail.as_str() {
        "" => violation.reason.to_owned(),
        detail => format!("{} ({detail})", violation.reason),
    };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn unless_windows(pod: Pod<'_>, check: Function) -> Option<Violation> {
    if pod.spec.str_at(&["os", "name"]) == "windows" { None } else { check(pod) }
}

/// Users in a namespace of their own are nobody on the host.
fn unless_own_users(pod: Pod<'_>, check: Function) -> Option<Violation> {
    if pod.spec["hostUsers"].as_bool() == Some(false) { None } else { check(pod) }
}

impl<'a> Pod<'a> {
    fn containers(self) -> impl Iterator<Item = &'a Value> {
        crate::pods::CONTAINER_LISTS.into_iter().flat_map(move |list| self.spec.array_at(&[list]))
    }

    /// The names of containers that a check does not like.
    fn bad_containers(self, mut bad: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers()
            .filter(|container| bad(&container["securityContext"]))
            .map(|container| container.str_at(&["name"]))
            .collect()
    }

    fn security_context(self) -> &'a Value {
        &self.spec["securityContext"]
    }
}

/// `"a", "b"`
fn quoted<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    names.into_iter().map(|name| format!("\"{}\"", name.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural(count: usize, one: &'static str, several: &'static str) -> &'static str {
    if count == 1 { one } else { several }
}

/// `container "a"`, `containers "a", "b"`
fn named(containers: &[&str]) -> String {
    format!("{} {}", plural(containers.len(), "container", "containers"), quoted(containers))
}

/// The pod, its containers, or both, as those who set something.
fn setters(pod: bool, containers: &[&str]) -> Vec<String> {
    let pod = pod.then(|| "pod".to_owned());
    pod.into_iter().chain((!containers.is_empty()).then(|| named(containers))).collect()
}

fn violation(reason: &'static str, detail: String) -> Option<Violation> {
    Some(Violation { reason, detail })
}

fn is_true(value: &Value) -> bool {
    value.as_bool() == Some(true)
}

fn app_armor(pod: Pod<'_>) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let mut bad = |context: &Value| {
        let profile = &context["appArmorProfile"];
        let kind = profile.str_at(&["type"]);
        let bad = profile.is_object() && !matches!(kind, "RuntimeDefault" | "Localhost");
        if bad {
            values.insert(kind.to_owned());
        }
        bad
    };
    let by_pod = bad(pod.security_context());
    let containers = pod.bad_containers(bad);
    let mut setters = setters(by_pod, &containers);
    let mut values: Vec<String> = values.into_iter().collect();
    let annotations: BTreeSet<String> = annotations(pod)
        .filter(|(key, value)| {
            key.starts_with("container.apparmor.security.beta.kubernetes.io/")
                && !matches!(*value, "" | "runtime/default")
                && !value.starts_with("localhost/")
        })
        .map(|(key, value)| format!("{key}={}", go_quote(value)))
        .collect();
    if !annotations.is_empty() {
        setters.push(plural(annotations.len(), "annotation", "annotations").to_owned());
        values.extend(annotations);
    }
    if setters.is_empty() {
        return None;
    }
    let reason = plural(values.len(), "forbidden AppArmor profile", "forbidden AppArmor profiles");
    let detail =
        format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(values));
    violation(reason, detail)
}

fn annotations(pod: Pod<'_>) -> impl Iterator<Item = (&str, &str)> {
    let map = pod.metadata["annotations"].as_object().into_iter().flatten();
    map.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
}

fn default_capabilities(pod: Pod<'_>) -> Option<Violation> {
    const ALLOWED: [&str; 13] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let mut foreign = BTreeSet::new();
    let bad = pod.bad_containers(|context| add_foreign(&mut foreign, context, &ALLOWED));
    if bad.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not include {} in securityContext.capabilities.add", named(&bad), quoted(foreign));
    violation("non-default capabilities", detail)
}

/// Collects the capabilities that a container adds and may not; says whether there are any.
fn add_foreign<'a>(foreign: &mut BTreeSet<&'a str>, context: &'a Value, allowed: &[&str]) -> bool {
    let added = context.array_at(&["capabilities", "add"]).iter().filter_map(Value::as_str);
    let own: Vec<&str> = added.filter(|capability| !allowed.contains(capability)).collect();
    let any = !own.is_empty();
    foreign.extend(own);
    any
}

fn no_capabilities(pod: Pod<'_>) -> Option<Violation> {
    let keeping = pod.bad_containers(|context| {
        let dropped = context.array_at(&["capabilities", "drop"]);
        !dropped.iter().any(|capability| capability.as_str() == Some("ALL"))
    });
    let mut foreign = BTreeSet::new();
    let adding = pod.bad_containers(|context| add_foreign(&mut foreign, context, &["NET_BIND_SERVICE"]));
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping)));
    }
    if !adding.is_empty() {
        let (adding, foreign) = (named(&adding), quoted(foreign));
        details.push(format!("{adding} must not include {foreign} in securityContext.capabilities.add"));
    }
    if details.is_empty() {
        return None;
    }
    violation("unrestricted capabilities", details.join("; "))
}

fn host_namespaces(pod: Pod<'_>) -> Option<Violation> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|key| is_true(&pod.spec[*key]))
        .map(|key| format!("{key}=true"))
        .collect();
    if shared.is_empty() { None } else { violation("host namespaces", shared.join(", ")) }
}

fn volumes_named(names: &[&str]) -> String {
    format!("{} {}", plural(names.len(), "volume", "volumes"), quoted(names))
}

fn host_path(pod: Pod<'_>) -> Option<Violation> {
    let bad: Vec<&str> = pod
        .spec
        .array_at(&["volumes"])
        .iter()
        .filter(|volume| !volume["hostPath"].is_null())
        .map(|volume| volume.str_at(&["name"]))
        .collect();
    if bad.is_empty() { None } else { violation("hostPath volumes", volumes_named(&bad)) }
}

fn host_ports(pod: Pod<'_>) -> Option<Violation> {
    let (mut bad, mut ports) = (Vec::new(), BTreeSet::new());
    for container in pod.containers() {
        let own = container.array_at(&["ports"]).iter().filter_map(|port| port["hostPort"].as_i64());
        let own: Vec<String> = own.filter(|port| *port != 0).map(|port| port.to_string()).collect();
        if !own.is_empty() {
            bad.push(container.str_at(&["name"]));
        }
        ports.extend(own);
    }
    if bad.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {}",
        named(&bad),
        plural(bad.len(), "uses", "use"),
        plural(ports.len(), "hostPort", "hostPorts"),
        ports.into_iter().collect::<Vec<_>>().join(", ")
    );
    violation("hostPort", detail)
}

fn probe_hosts(pod: Pod<'_>) -> Option<Violation> {
    const PLACES: [&[&str]; 5] = [
        &["livenessProbe"],
        &["readinessProbe"],
        &["startupProbe"],
        &["lifecycle", "postStart"],
        &["lifecycle", "preStop"],
    ];
    let (mut bad, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    for container in pod.containers() {
        for handler in PLACES.iter().filter_map(|place| container.at(place)) {
            for host in ["httpGet", "tcpSocket"].map(|key| handler.str_at(&[key, "host"])) {
                if !host.is_empty() {
                    bad.insert(container.str_at(&["name"]));
                    hosts.insert(host);
                }
            }
        }
    }
    if bad.is_empty() {
        return None;
    }
    let bad: Vec<&str> = bad.into_iter().collect();
    let detail = format!(
        "{} {} {} {}",
        named(&bad),
        plural(bad.len(), "uses", "use"),
        plural(hosts.len(), "probe or lifecycle host", "probe or lifecycle hosts"),
        quoted(hosts)
    );
    violation("probe or lifecycle host", detail)
}

fn privileged(pod: Pod<'_>) -> Option<Violation> {
    let bad = pod.bad_containers(|context| is_true(&context["privileged"]));
    if bad.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", named(&bad)))
}

fn proc_mount(pod: Pod<'_>) -> Option<Violation> {
    let mut kinds = BTreeSet::new();
    let bad = pod.bad_containers(|context| {
        let kind = context["procMount"].as_str().filter(|kind| *kind != "Default");
        kinds.extend(kind);
        kind.is_some()
    });
    if bad.is_empty() {
        return None;
    }
    violation(
        "procMount",
        format!("{} must not set securityContext.procMount to {}", named(&bad), quoted(kinds)),
    )
}

fn se_linux_1_0(pod: Pod<'_>) -> Option<Violation> {
    se_linux(pod, &["", "container_t", "container_init_t", "container_kvm_t"])
}

fn se_linux_1_31(pod: Pod<'_>) -> Option<Violation> {
    se_linux(pod, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

fn se_linux(pod: Pod<'_>, allowed: &[&str]) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let (mut user, mut role) = (false, false);
    let mut bad = |context: &Value| {
        let options = &context["seLinuxOptions"];
        let kind = options.str_at(&["type"]);
        let bad_type = !allowed.contains(&kind);
        if bad_type {
            types.insert(kind.to_owned());
        }
        let sets = |key: &str| !options.str_at(&[key]).is_empty();
        let (sets_user, sets_role) = (sets("user"), sets("role"));
        user |= sets_user;
        role |= sets_role;
        bad_type || sets_user || sets_role
    };
    let by_pod = bad(pod.security_context());
    let containers = pod.bad_containers(bad);
    let setters = setters(by_pod, &containers);
    if setters.is_empty() {
        return None;
    }
    let mut set = Vec::new();
    if !types.is_empty() {
        set.push(format!("{} {}", plural(types.len(), "type", "types"), quoted(types)));
    }
    if user {
        set.push("user may not be set".to_owned());
    }
    if role {
        set.push("role may not be set".to_owned());
    }
    let detail =
        format!("{} set forbidden securityContext.seLinuxOptions: {}", setters.join(" and "), set.join("; "));
    violation("seLinuxOptions", detail)
}

/// How pods named their seccomp profiles before they had a field for it.
pub(super) const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub(super) const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

fn seccomp_annotations(pod: Pod<'_>) -> Option<Violation> {
    let names: Vec<String> = pod
        .containers()
        .map(|container| format!("{SECCOMP_CONTAINER}{}", container.str_at(&["name"])))
        .chain([SECCOMP_POD.to_owned()])
        .collect();
    let allowed = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let forbidden: BTreeSet<String> = annotations(pod)
        .filter(|(key, value)| names.iter().any(|name| name == key) && !allowed(value))
        .map(|(key, value)| format!("{key}={}", go_quote(value)))
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let word = plural(forbidden.len(), "annotation", "annotations");
    let list = forbidden.into_iter().collect::<Vec<_>>().join(", ");
    violation("seccompProfile", format!("forbidden {word} {list}"))
}

/// Who sets a seccomp profile that confines nothing, and which.
fn unconfined(pod: Pod<'_>) -> Option<Violation> {
    let mut kinds = BTreeSet::new();
    let mut bad = |context: &Value| {
        let profile = &context["seccompProfile"];
        let kind = profile.str_at(&["type"]);
        let bad = profile.is_object() && !confines(kind);
        if bad {
            kinds.insert(kind.to_owned());
        }
        bad
    };
    let by_pod = bad(pod.security_context());
    let containers = pod.bad_containers(bad);
    let setters = setters(by_pod, &containers);
    if setters.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must not set securityContext.seccompProfile.type to {}",
        setters.join(" and "),
        quoted(kinds)
    );
    violation("seccompProfile", detail)
}

fn confines(kind: &str) -> bool {
    matches!(kind, "Localhost" | "RuntimeDefault")
}

fn seccomp_baseline(pod: Pod<'_>) -> Option<Violation> {
    unconfined(pod)
}

fn seccomp_restricted(pod: Pod<'_>) -> Option<Violation> {
    if let Some(violation) = unconfined(pod) {
        return Some(violation);
    }
    if confines(pod.security_context().str_at(&["seccompProfile", "type"])) {
        return None;
    }
    let silent = pod.bad_containers(|context| !context["seccompProfile"].is_object());
    if silent.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        named(&silent)
    );
    violation("seccompProfile", detail)
}

const SAFE_SYSCTLS: [(u32, &str); 12] = [
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (0, "net.ipv4.tcp_syncookies"),
    (0, "net.ipv4.ping_group_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (32, "net.ipv4.tcp_rmem"),
    (32, "net.ipv4.tcp_wmem"),
];

fn sysctls_1_0(pod: Pod<'_>) -> Option<Violation> {
    sysctls(pod, 0)
}

fn sysctls_1_27(pod: Pod<'_>) -> Option<Violation> {
    sysctls(pod, 27)
}

fn sysctls_1_29(pod: Pod<'_>) -> Option<Violation> {
    sysctls(pod, 29)
}

fn sysctls_1_32(pod: Pod<'_>) -> Option<Violation> {
    sysctls(pod, 32)
}

fn sysctls(pod: Pod<'_>, minor: u32) -> Option<Violation> {
    let is_safe = |name: &str| SAFE_SYSCTLS.iter().any(|(since, safe)| *since <= minor && *safe == name);
    let bad: Vec<&str> = pod
        .security_context()
        .array_at(&["sysctls"])
        .iter()
        .map(|sysctl| sysctl.str_at(&["name"]))
        .filter(|name| !is_safe(name))
        .collect();
    if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
}

fn windows_host_process(pod: Pod<'_>) -> Option<Violation> {
    let is_host = |context: &Value| is_true(&context["windowsOptions"]["hostProcess"]);
    let setters = setters(is_host(pod.security_context()), &pod.bad_containers(is_host));
    if setters.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not set securityContext.windowsOptions.hostProcess=true", setters.join(" and "));
    violation("hostProcess", detail)
}

fn escalation(pod: Pod<'_>) -> Option<Violation> {
    let bad = pod.bad_containers(|context| context["allowPrivilegeEscalation"].as_bool() != Some(false));
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&bad));
    violation("allowPrivilegeEscalation != false", detail)
}

fn volume_types(pod: Pod<'_>) -> Option<Violation> {
    const ALLOWED: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    const RESTRICTED: [&str; 21] = [
        "hostPath",
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "gitRepo",
        "nfs",
        "iscsi",
        "glusterfs",
        "rbd",
        "flexVolume",
        "cinder",
        "cephfs",
        "flocker",
        "fc",
        "azureFile",
        "vsphereVolume",
        "quobyte",
        "azureDisk",
        "photonPersistentDisk",
        "portworxVolume",
        "scaleIO",
        "storageos",
    ];
    let (mut bad, mut types) = (Vec::new(), BTreeSet::new());
    for volume in pod.spec.array_at(&["volumes"]) {
        let has = |key: &&&str| !volume[**key].is_null();
        if ALLOWED.iter().any(|key| has(&key)) {
            continue;
        }
        bad.push(volume.str_at(&["name"]));
        types.insert(RESTRICTED.iter().find(has).copied().unwrap_or("unknown"));
    }
    if bad.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {}",
        volumes_named(&bad),
        plural(bad.len(), "uses", "use"),
        plural(types.len(), "restricted volume type", "restricted volume types"),
        quoted(types)
    );
    violation("restricted volume types", detail)
}

fn non_root(pod: Pod<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let says = |context: &Value| context["runAsNonRoot"].as_bool();
    let by_pod = says(pod.security_context());
    let rooted = pod.bad_containers(|context| says(context) == Some(false));
    let setters = setters(by_pod == Some(false), &rooted);
    if !setters.is_empty() {
        let detail = format!("{} must not set securityContext.runAsNonRoot=false", setters.join(" and "));
        return violation(REASON, detail);
    }
    if by_pod == Some(true) {
        return None;
    }
    let silent = pod.bad_containers(|context| says(context).is_none());
    if silent.is_empty() {
        return None;
    }
    let detail = format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent));
    violation(REASON, detail)
}

fn no_root_user(pod: Pod<'_>) -> Option<Violation> {
    let is_root = |context: &Value| context["runAsUser"].as_i64() == Some(0);
    let setters = setters(is_root(pod.security_context()), &pod.bad_containers(is_root));
    if setters.is_empty() {
        return None;
    }
    violation("runAsUser=0", format!("{} must not set runAsUser=0", setters.join(" and ")))
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn evaluated(level: Level, version: Version, spec: Value) -> Vec<Violation> {
        evaluate(Standard { level, version }, Pod { metadata: &json!({}), spec: &spec })
    }

    #[test]
    fn complaints_read_as_upstream_words_them() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "hostNetwork": true});
        assert_eq!(
            details(&evaluated(Level::Restricted, Version::Latest, spec.clone())),
            "host namespaces (hostNetwork=true), allowPrivilegeEscalation != false (containers \"a\", \"b\" must set \
             securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers \"a\", \"b\" must \
             set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or containers \"a\", \"b\" \
             must set securityContext.runAsNonRoot=true), seccompProfile (pod or containers \"a\", \"b\" must set \
             securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
        assert_eq!(reasons(&evaluated(Level::Baseline, Version::Latest, spec)), "host namespaces");
    }

    #[test]
    fn what_counts_depends_on_the_release() {
        let sysctl = json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}});
        let old = evaluated(Level::Baseline, Version::Minor(31), sysctl.clone());
        assert_eq!(details(&old), "forbidden sysctls (net.ipv4.tcp_rmem)");
        assert_eq!(evaluated(Level::Baseline, Version::Minor(32), sysctl.clone()), []);
        assert_eq!(evaluated(Level::Baseline, Version::Latest, sysctl), []);
        let host_users = json!({"hostUsers": false, "containers": [
            {"name": "a", "securityContext": {"procMount": "Unmasked"}}
        ]});
        assert_eq!(evaluated(Level::Baseline, Version::Minor(35), host_users.clone()), []);
        assert_eq!(reasons(&evaluated(Level::Baseline, Version::Minor(34), host_users.clone())), "procMount");
        assert!(reasons(&evaluated(Level::Restricted, Version::Latest, host_users)).contains("procMount"));
    }

    #[test]
    fn a_stricter_check_replaces_the_looser_one() {
        let spec = json!({"volumes": [{"name": "v", "hostPath": {}}]});
        assert_eq!(reasons(&evaluated(Level::Baseline, Version::Latest, spec.clone())), "hostPath volumes");
        assert_eq!(reasons(&evaluated(Level::Restricted, Version::Latest, spec)), "restricted volume types");
    }

    #[test]
    fn checks_are_in_the_order_of_complaints() {
        let order: Vec<(Level, &str)> = CHECKS.iter().map(|check| (check.level, check.name)).collect();
        assert!(order.is_sorted(), "{order:?}");
    }
}

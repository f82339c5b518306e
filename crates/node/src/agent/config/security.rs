//! As whom a container runs and what it may: its own security context over that of its pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext};
use runtime::ImageStatus;
use runtime::spec::{Namespaces, Seccomp, Security, User, UserMapping};

use super::{NodeFacts, Notice, PodFacts, Refusal, pod_name};

/// Kernel parameters that belong to a pod's own namespaces and hurt nobody else.
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Parameters of the namespace of System V's and POSIX' message queues and shared memory.
const IPC_SYSCTLS: &[&str] = &["kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue."];

fn contexts<'a>(
    pod: &'a Pod,
    container: &'a Container,
) -> (Option<&'a PodSecurityContext>, Option<&'a SecurityContext>) {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    (of_pod, container.security_context.as_ref())
}

/// The rights of a container, whose image says as whom it runs where the pod says nothing.
///
/// # Errors
/// Where it would run as root and must not, or names something that cannot be.
pub fn of_container(
    facts: &PodFacts<'_>,
    container: &Container,
    image: &ImageStatus,
) -> Result<Security, Refusal> {
    let (of_pod, own) = contexts(facts.pod, container);
    let user = own.and_then(|own| own.run_as_user).or(of_pod.and_then(|pod| pod.run_as_user));
    let group = own.and_then(|own| own.run_as_group).or(of_pod.and_then(|pod| pod.run_as_group));
    let non_root = own.and_then(|own| own.run_as_non_root).or(of_pod.and_then(|pod| pod.run_as_non_root));
    if non_root == Some(true) {
        check_non_root(facts.pod, container, user, image)?;
    }
    let privileged = own.and_then(|own| own.privileged).unwrap_or(false);
    let capabilities = own.and_then(|own| own.capabilities.as_ref());
    let names =
        |list: Option<&Vec<String>>| list.into_iter().flatten().map(|name| capability(name)).collect();
    let profile = own.and_then(|own| own.seccomp_profile.as_ref());
    let profile = profile.or(of_pod.and_then(|pod| pod.seccomp_profile.as_ref()));
    Ok(Security {
        privileged,
        add_capabilities: names(capabilities.and_then(|own| own.add.as_ref())),
        drop_capabilities: names(capabilities.and_then(|own| own.drop.as_ref())),
        user: user.map(|id| self::id(id, "runAsUser")).transpose()?.map_or(User::Image, User::Id),
        group: group.map(|id| self::id(id, "runAsGroup")).transpose()?,
        supplemental_groups: supplemental_groups(of_pod, &facts.volumes.groups())?,
        strict_groups: of_pod.and_then(|pod| pod.supplemental_groups_policy.as_deref()) == Some("Strict"),
        read_only_root: own.and_then(|own| own.read_only_root_filesystem).unwrap_or(false),
        no_new_privileges: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        unmasked_proc: own.and_then(|own| own.proc_mount.as_deref()) == Some("Unmasked"),
        seccomp: if privileged { Seccomp::Unconfined } else { seccomp(profile, facts.node)? },
    })
}

fn id(id: i64, field: &str) -> Result<u32, Refusal> {
    u32::try_from(id)
        .map_err(|_| Refusal::config(format!("{field} {id} is no ID that this machine can have")))
}

/// As upstream reads it: with or without `CAP_`, in any case.
fn capability(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").map_or_else(|| name.clone(), str::to_owned)
}

fn supplemental_groups(of_pod: Option<&PodSecurityContext>, of_volumes: &[u32]) -> Result<Vec<u32>, Refusal> {
    let mut groups = Vec::new();
    if let Some(group) = of_pod.and_then(|pod| pod.fs_group) {
        groups.push(id(group, "fsGroup")?);
    }
    groups.extend(of_volumes);
    for group in of_pod.and_then(|pod| pod.supplemental_groups.as_ref()).into_iter().flatten() {
        groups.push(id(*group, "supplementalGroups")?);
    }
    Ok(groups)
}

fn check_non_root(
    pod: &Pod,
    container: &Container,
    user: Option<i64>,
    image: &ImageStatus,
) -> Result<(), Refusal> {
    let place = format!("(pod: {:?}, container: {})", pod_name(pod), container.name);
    let message = match (user, image.uid, image.username.as_str()) {
        (Some(0), ..) => format!("container's runAsUser breaks non-root policy {place}"),
        (Some(_), ..) => return Ok(()),
        (None, Some(0), _) | (None, None, "") => {
            format!("container has runAsNonRoot and image will run as root {place}")
        }
        (None, Some(_), _) => return Ok(()),
        (None, None, name) => format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {place}"
        ),
    };
    Err(Refusal::config(message))
}

fn seccomp(profile: Option<&SeccompProfile>, node: &NodeFacts) -> Result<Seccomp, Refusal> {
    let Some(profile) = profile else {
        return Ok(if node.seccomp_default { Seccomp::RuntimeDefault } else { Seccomp::Unconfined });
    };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        "Localhost" => {
            let name = profile.localhost_profile.as_deref().unwrap_or_default();
            if name.is_empty() {
                let message = "localhostProfile must be set if seccompProfile type is Localhost.";
                return Err(Refusal::config(message));
            }
            let path = camino::Utf8Path::new(name);
            if path.is_absolute() || path.components().any(|part| part.as_str() == "..") {
                let message = format!("localhostProfile {name:?} must be a path below {}", node.seccomp_root);
                return Err(Refusal::config(message));
            }
            Ok(Seccomp::Localhost(node.seccomp_root.join(path)))
        }
        _ => Ok(Seccomp::Unconfined),
    }
}

/// What a pod asks for and does not get, because this machine has no such thing.
pub fn ignored(pod: &Pod, container: &Container) -> Option<Notice> {
    let (of_pod, own) = contexts(pod, container);
    let profile = own.and_then(|own| own.app_armor_profile.as_ref());
    let profile = profile.or(of_pod.and_then(|pod| pod.app_armor_profile.as_ref()))?;
    (profile.type_ != "Unconfined").then(|| {
        Notice::warning("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned())
    })
}

/// Whose namespaces the containers live in.
///
/// # Errors
/// Where the pod asks for a user namespace and none was set aside.
pub fn namespaces(pod: &Pod, mapping: Option<UserMapping>) -> Result<Namespaces, Refusal> {
    let Some(spec) = &pod.spec else { return Ok(Namespaces::default()) };
    let user = match (spec.host_users, mapping) {
        (Some(false), None) => return Err(Refusal::sandbox("no range of user IDs is set aside for the pod")),
        (Some(false), mapping) => mapping,
        _ => None,
    };
    Ok(Namespaces {
        host_network: spec.host_network.unwrap_or(false),
        host_pid: spec.host_pid.unwrap_or(false),
        host_ipc: spec.host_ipc.unwrap_or(false),
        shared_pid: spec.share_process_namespace.unwrap_or(false),
        user,
    })
}

/// Kernel parameters of a pod, by dotted name.
///
/// # Errors
/// Where one may not be set; upstream's reason for it is `SysctlForbidden`.
pub fn sysctls(pod: &Pod, node: &NodeFacts) -> Result<BTreeMap<String, String>, Refusal> {
    let Some(spec) = &pod.spec else { return Ok(BTreeMap::new()) };
    let wanted = spec.security_context.iter().flat_map(|own| own.sysctls.iter().flatten());
    let mut all = BTreeMap::new();
    for own in wanted {
        let name = dotted(&own.name);
        let forbidden = |why: &str| Refusal {
            reason: "SysctlForbidden",
            message: format!("forbidden sysctl: {name:?} {why}"),
        };
        let is_unsafe_allowed = || {
            node.unsafe_sysctls.iter().any(|allowed| match allowed.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => *allowed == name,
            })
        };
        if !SAFE_SYSCTLS.contains(&name.as_str()) && !is_unsafe_allowed() {
            return Err(forbidden("not allowlisted"));
        }
        if name.starts_with("net.") && spec.host_network == Some(true) {
            return Err(forbidden("not allowed with host net enabled"));
        }
        if IPC_SYSCTLS.iter().any(|start| name.starts_with(start)) && spec.host_ipc == Some(true) {
            return Err(forbidden("not allowed with host ipc enabled"));
        }
        all.insert(name, own.value.clone());
    }
    Ok(all)
}

/// `net/ipv4/conf/eth0.1/x` is another spelling in which dots belong to names, and stand where slashes do.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name
            .chars()
            .map(|own| {
                if own == '/' {
                    '.'
                } else if own == '.' {
                    '/'
                } else {
                    own
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Objects, fixture};
    use super::*;

    fn of(pod: serde_json::Value, own: serde_json::Value, image: &ImageStatus) -> Result<Security, String> {
        let pod = fixture::pod(serde_json::json!({"securityContext": pod,
            "containers": [{"name": "c", "securityContext": own}]}));
        let (node, objects, volumes) = (fixture::node(), Objects::default(), fixture::volumes());
        let facts = PodFacts {
            pod: &pod,
            node: &node,
            services: &[],
            objects: &objects,
            addresses: &[],
            volumes: &volumes,
            user_mapping: None,
        };
        let container = &pod.spec.as_ref().expect("it has one").containers[0];
        of_container(&facts, container, image).map_err(|refusal| refusal.message)
    }

    #[test]
    fn the_containers_context_wins() {
        let of_pod = serde_json::json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4, 5],
            "supplementalGroupsPolicy": "Strict", "seccompProfile": {"type": "RuntimeDefault"}});
        let made = of(
            of_pod.clone(),
            serde_json::json!({"runAsUser": 9, "capabilities": {"add": ["cap_net_admin"],
            "drop": ["ALL"]}, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "procMount": "Unmasked",
            "seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}}),
            &ImageStatus::default(),
        );
        let wanted = Security {
            privileged: false,
            add_capabilities: vec!["NET_ADMIN".into()],
            drop_capabilities: vec!["ALL".into()],
            user: User::Id(9),
            group: Some(2),
            supplemental_groups: vec![3, 4, 5],
            strict_groups: true,
            read_only_root: true,
            no_new_privileges: true,
            unmasked_proc: true,
            seccomp: Seccomp::Localhost("/r/seccomp/a/b.json".into()),
        };
        assert_eq!(made, Ok(wanted));
        let plain =
            of(of_pod, serde_json::json!({"privileged": true}), &ImageStatus::default()).expect("it is made");
        assert_eq!(
            (plain.seccomp, plain.user, plain.no_new_privileges),
            (Seccomp::Unconfined, User::Id(1), false)
        );
        let escape = serde_json::json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}});
        assert!(of(escape, serde_json::json!({}), &ImageStatus::default()).is_err());
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let image = |uid: Option<u32>, username: &str| ImageStatus {
            uid,
            username: username.into(),
            ..ImageStatus::default()
        };
        let place = "(pod: \"web_ns(u-1)\", container: c)";
        let as_root = format!("container has runAsNonRoot and image will run as root {place}");
        let named = format!(
            "container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root {place}"
        );
        for (own, image, wanted) in [
            (serde_json::json!({}), image(None, ""), Err(as_root.clone())),
            (serde_json::json!({}), image(Some(0), ""), Err(as_root)),
            (serde_json::json!({}), image(Some(7), ""), Ok(())),
            (serde_json::json!({}), image(None, "www"), Err(named)),
            (
                serde_json::json!({"runAsUser": 0}),
                image(Some(7), ""),
                Err(format!("container's runAsUser breaks non-root policy {place}")),
            ),
            (serde_json::json!({"runAsUser": 5}), image(None, ""), Ok(())),
            (serde_json::json!({"runAsNonRoot": false}), image(None, ""), Ok(())),
        ] {
            assert_eq!(of(serde_json::json!({"runAsNonRoot": true}), own, &image).map(drop), wanted);
        }
    }

    #[test]
    fn kernel_parameters_have_to_be_safe_or_allowed() {
        let of = |name: &str, host: bool| {
            let pod = fixture::pod(serde_json::json!({"hostNetwork": host, "containers": [],
                "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}));
            let node = NodeFacts { unsafe_sysctls: vec!["kernel.msg*".into()], ..fixture::node() };
            let names = sysctls(&pod, &node).map_err(|refusal| refusal.message)?;
            Ok(names.into_keys().next().unwrap_or_default())
        };
        for (name, host, wanted) in [
            ("net.ipv4.tcp_syncookies", false, Ok("net.ipv4.tcp_syncookies")),
            ("net/ipv4/tcp_syncookies", false, Ok("net.ipv4.tcp_syncookies")),
            ("kernel.msgmax", false, Ok("kernel.msgmax")),
            ("vm.swappiness", false, Err("forbidden sysctl: \"vm.swappiness\" not allowlisted")),
            (
                "net.ipv4.tcp_syncookies",
                true,
                Err("forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled"),
            ),
        ] {
            let made: Result<String, String> = of(name, host);
            assert_eq!(made.as_deref().map_err(String::as_str), wanted, "{name}");
        }
        assert_eq!(dotted("net/ipv4/conf/eth0.1/x"), "net.ipv4.conf.eth0/1.x");
    }

    #[test]
    fn namespaces_are_the_hosts_where_the_pod_says_so() {
        let pod = fixture::pod(serde_json::json!({"hostPID": true, "hostUsers": false, "containers": [],
            "shareProcessNamespace": true}));
        let mapping = UserMapping { container: 0, host: 65_536, length: 65_536 };
        let made = namespaces(&pod, Some(mapping)).expect("a range is there");
        assert!(made.host_pid && made.shared_pid && !made.host_network && !made.host_ipc);
        assert_eq!(made.user, Some(mapping));
        assert!(namespaces(&pod, None).is_err());
        let plain = fixture::pod(serde_json::json!({"containers": []}));
        assert_eq!(namespaces(&plain, Some(mapping)), Ok(Namespaces::default()));
    }
}

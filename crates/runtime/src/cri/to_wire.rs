//! From our words to CRI's.

use std::collections::BTreeMap;

use super::cgroup::CgroupDriver;
use super::messages::{self, groups_policy, namespace_mode, profile_type, propagation};
use super::signal;
use crate::spec::{
    ContainerConfig, Mount, Namespaces, PortMapping, Propagation, Protocol, RegistryCredential, Resources,
    SandboxConfig, Seccomp, Security, User, UserMapping,
};

/// Where a sandbox's own configuration is kept with the runtime: a container is made with the configuration of its
/// sandbox, also by the process that comes after the one that made the sandbox.
pub(super) const CONFIG_ANNOTATION: &str = "pintle.io/sandbox-config";

/// What `/proc` and `/sys` show of the host, and a container shall not see unless it asks for `procMount: Unmasked`.
const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What it shall not write.
const READ_ONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub(super) fn sandbox_config(config: &SandboxConfig, driver: CgroupDriver) -> messages::PodSandboxConfig {
    let mut annotations = config.annotations.clone();
    let stored = serde_json::to_string(config).expect("a configuration has only strings and numbers");
    annotations.insert(CONFIG_ANNOTATION.to_owned(), stored);
    messages::PodSandboxConfig {
        metadata: Some(messages::PodSandboxMetadata {
            name: config.name.clone(),
            uid: config.uid.clone(),
            namespace: config.namespace.clone(),
            attempt: config.attempt,
        }),
        hostname: config.hostname.clone(),
        log_directory: config.log_directory.to_string(),
        dns_config: config.dns.as_ref().map(|dns| messages::DnsConfig {
            servers: dns.servers.clone(),
            searches: dns.searches.clone(),
            options: dns.options.clone(),
        }),
        port_mappings: config.port_mappings.iter().map(port_mapping).collect(),
        labels: config.labels.clone(),
        annotations,
        linux: Some(messages::LinuxPodSandboxConfig {
            cgroup_parent: driver.parent(&config.cgroup_parent),
            security_context: Some(messages::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(&config.namespaces, None)),
                run_as_user: None,
                privileged: config.privileged,
                seccomp: Some(seccomp(&Seccomp::RuntimeDefault)),
            }),
            sysctls: config.sysctls.clone(),
            resources: Some(resources(&config.resources)),
        }),
    }
}

fn port_mapping(mapping: &PortMapping) -> messages::PortMapping {
    messages::PortMapping {
        protocol: match mapping.protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
            Protocol::Sctp => 2,
        },
        container_port: mapping.container_port.into(),
        host_port: mapping.host_port.into(),
        host_ip: mapping.host_ip.map(|address| address.to_string()).unwrap_or_default(),
    }
}

/// `pid_target` is of a container, as an own process namespace is; the rest it has in common with its sandbox.
fn namespaces(namespaces: &Namespaces, pid_target: Option<&str>) -> messages::NamespaceOption {
    let of_host = |host| if host { namespace_mode::NODE } else { namespace_mode::POD };
    messages::NamespaceOption {
        network: of_host(namespaces.host_network),
        pid: match (namespaces.host_pid, namespaces.shared_pid, pid_target) {
            (_, _, Some(_)) => namespace_mode::TARGET,
            (true, _, _) => namespace_mode::NODE,
            (_, true, _) => namespace_mode::POD,
            _ => namespace_mode::CONTAINER,
        },
        ipc: of_host(namespaces.host_ipc),
        target_id: pid_target.unwrap_or_default().to_owned(),
        userns_options: namespaces.user.as_ref().map(|mapping| {
            let ids = id_mappings(mapping);
            messages::UserNamespace { mode: namespace_mode::POD, uids: ids.clone(), gids: ids }
        }),
    }
}

fn id_mappings(mapping: &UserMapping) -> Vec<messages::IdMapping> {
    let UserMapping { container, host, length } = *mapping;
    vec![messages::IdMapping { host_id: host, container_id: container, length }]
}

pub(super) fn resources(resources: &Resources) -> messages::LinuxContainerResources {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    messages::LinuxContainerResources {
        cpu_period: number(resources.cpu_period),
        cpu_quota: resources.cpu_quota,
        cpu_shares: number(resources.cpu_shares),
        memory_limit_in_bytes: resources.memory_limit,
        oom_score_adj: resources.oom_score_adj.into(),
        cpuset_cpus: resources.cpuset_cpus.clone(),
        hugepage_limits: resources
            .hugepages
            .iter()
            .map(|(page_size, limit)| messages::HugepageLimit { page_size: page_size.clone(), limit: *limit })
            .collect(),
        unified: resources.unified.clone(),
    }
}

fn seccomp(seccomp: &Seccomp) -> messages::SecurityProfile {
    let (profile_type, localhost_ref) = match seccomp {
        Seccomp::RuntimeDefault => (profile_type::RUNTIME_DEFAULT, String::new()),
        Seccomp::Unconfined => (profile_type::UNCONFINED, String::new()),
        Seccomp::Localhost(path) => (profile_type::LOCALHOST, path.to_string()),
    };
    messages::SecurityProfile { profile_type, localhost_ref }
}

/// As whom an image's process runs; asked for where only a group is given, as CRI wants a user beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ImageUser {
    pub(super) uid: Option<u32>,
    pub(super) username: String,
}

pub(super) fn container_config(
    config: &ContainerConfig,
    sandbox: &SandboxConfig,
    image_user: &ImageUser,
) -> messages::ContainerConfig {
    messages::ContainerConfig {
        metadata: Some(messages::ContainerMetadata { name: config.name.clone(), attempt: config.attempt }),
        image: Some(messages::ImageSpec {
            image: config.image.clone(),
            user_specified_image: config.image_reference.clone(),
        }),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        envs: config
            .env
            .iter()
            .map(|(key, value)| messages::KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts: config.mounts.iter().map(|each| mount(each, sandbox.namespaces.user.as_ref())).collect(),
        devices: config
            .devices
            .iter()
            .map(|device| messages::Device {
                container_path: device.container.to_string(),
                host_path: device.host.to_string(),
                permissions: device.permissions.clone(),
            })
            .collect(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        log_path: config.log_path.to_string(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(messages::LinuxContainerConfig {
            resources: Some(resources(&config.resources)),
            security_context: Some(security(config, sandbox, image_user)),
        }),
        cdi_devices: config
            .cdi_devices
            .iter()
            .map(|name| messages::CdiDevice { name: name.clone() })
            .collect(),
        stop_signal: signal::number(&config.stop_signal),
    }
}

fn mount(mount: &Mount, user: Option<&UserMapping>) -> messages::Mount {
    let (image, image_sub_path) = match &mount.image {
        Some((image, path)) => (Some(messages::ImageSpec::of(image)), path.to_string()),
        None => (None, String::new()),
    };
    let ids = match (user, &image) {
        (Some(mapping), None) => id_mappings(mapping),
        _ => vec![],
    };
    messages::Mount {
        container_path: mount.target.to_string(),
        host_path: mount.source.to_string(),
        readonly: mount.read_only,
        propagation: match mount.propagation {
            Propagation::Private => propagation::PRIVATE,
            Propagation::HostToContainer => propagation::HOST_TO_CONTAINER,
            Propagation::Bidirectional => propagation::BIDIRECTIONAL,
        },
        uid_mappings: ids.clone(),
        gid_mappings: ids,
        recursive_read_only: mount.recursive_read_only,
        image,
        image_sub_path,
    }
}

fn security(
    config: &ContainerConfig,
    sandbox: &SandboxConfig,
    image_user: &ImageUser,
) -> messages::LinuxContainerSecurityContext {
    let Security { privileged, user, group, .. } = &config.security;
    let security = &config.security;
    let paths = |paths: &[&str]| match security.unmasked_proc || *privileged {
        true => vec![],
        false => paths.iter().map(|path| (*path).to_owned()).collect(),
    };
    let (uid, username) = match (user, group) {
        (User::Id(uid), _) => (Some(*uid), String::new()),
        // The runtime knows the image's user itself.
        (User::Image, None) => (None, String::new()),
        (User::Image, Some(_)) if image_user.uid.is_none() && image_user.username.is_empty() => {
            (Some(0), String::new())
        }
        (User::Image, Some(_)) => (image_user.uid, image_user.username.clone()),
    };
    let value = |id: u32| messages::Int64Value { value: id.into() };
    messages::LinuxContainerSecurityContext {
        capabilities: Some(messages::Capability {
            add_capabilities: security.add_capabilities.clone(),
            drop_capabilities: security.drop_capabilities.clone(),
        }),
        privileged: *privileged,
        namespace_options: Some(namespaces(&sandbox.namespaces, config.pid_target.as_deref())),
        run_as_user: uid.map(value),
        run_as_username: username,
        readonly_rootfs: security.read_only_root,
        supplemental_groups: security.supplemental_groups.iter().copied().map(i64::from).collect(),
        no_new_privs: security.no_new_privileges,
        run_as_group: group.map(value),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READ_ONLY_PATHS),
        seccomp: Some(seccomp(if *privileged { &Seccomp::Unconfined } else { &security.seccomp })),
        supplemental_groups_policy: match security.strict_groups {
            true => groups_policy::STRICT,
            false => groups_policy::MERGE,
        },
    }
}

pub(super) fn credential(credential: &RegistryCredential) -> messages::AuthConfig {
    messages::AuthConfig {
        username: credential.username.clone(),
        password: credential.password.clone(),
        registry_token: credential.token.clone(),
    }
}

/// The configuration that was kept with a sandbox.
pub(super) fn stored_config(annotations: &BTreeMap<String, String>) -> Option<SandboxConfig> {
    serde_json::from_str(annotations.get(CONFIG_ANNOTATION)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(namespaces: Namespaces) -> SandboxConfig {
        SandboxConfig {
            name: "web".to_owned(),
            cgroup_parent: "/kubepods/podx".to_owned(),
            namespaces,
            ..Default::default()
        }
    }

    #[test]
    fn each_namespace_is_the_hosts_the_pods_or_the_containers() {
        use namespace_mode::{CONTAINER, NODE, POD, TARGET};
        let none = Namespaces::default();
        let user = UserMapping { container: 0, host: 100_000, length: 65536 };
        for (namespaces, target, expected) in [
            (none.clone(), None, (POD, CONTAINER, POD)),
            (none.clone(), Some("c1"), (POD, TARGET, POD)),
            (Namespaces { host_network: true, ..none.clone() }, None, (NODE, CONTAINER, POD)),
            (Namespaces { host_pid: true, ..none.clone() }, None, (POD, NODE, POD)),
            (Namespaces { shared_pid: true, ..none.clone() }, None, (POD, POD, POD)),
            (Namespaces { host_ipc: true, ..none.clone() }, None, (POD, CONTAINER, NODE)),
        ] {
            let config = ContainerConfig { pid_target: target.map(str::to_owned), ..Default::default() };
            let wire = container_config(&config, &sandbox(namespaces), &ImageUser::default());
            let options = wire.linux.unwrap().security_context.unwrap().namespace_options.unwrap();
            assert_eq!((options.network, options.pid, options.ipc), expected);
            assert_eq!(options.target_id, target.unwrap_or_default());
            assert_eq!(options.userns_options, None);
        }
        let wire = sandbox_config(&sandbox(Namespaces { user: Some(user), ..none }), CgroupDriver::Cgroupfs);
        let options = wire.linux.unwrap().security_context.unwrap().namespace_options.unwrap();
        let ids = vec![messages::IdMapping { host_id: 100_000, container_id: 0, length: 65536 }];
        assert_eq!(
            options.userns_options,
            Some(messages::UserNamespace { mode: POD, uids: ids.clone(), gids: ids })
        );
    }

    #[test]
    fn a_group_never_goes_without_a_user() {
        let image = |uid, username: &str| ImageUser { uid, username: username.to_owned() };
        for (user, group, image_user, expected) in [
            (User::Image, None, image(Some(7), ""), (None, "", None)),
            (User::Id(5), Some(6), image(Some(7), ""), (Some(5), "", Some(6))),
            (User::Image, Some(6), image(Some(7), ""), (Some(7), "", Some(6))),
            (User::Image, Some(6), image(None, "www"), (None, "www", Some(6))),
            (User::Image, Some(6), image(None, ""), (Some(0), "", Some(6))),
        ] {
            let config = ContainerConfig {
                security: Security { user, group, ..Default::default() },
                ..Default::default()
            };
            let wire = container_config(&config, &sandbox(Namespaces::default()), &image_user);
            let security = wire.linux.unwrap().security_context.unwrap();
            let value = |value: Option<messages::Int64Value>| value.map(|value| value.value);
            assert_eq!(
                (
                    value(security.run_as_user),
                    security.run_as_username.as_str(),
                    value(security.run_as_group)
                ),
                expected
            );
        }
    }

    #[test]
    fn what_is_privileged_sees_everything() {
        let wire = |security| {
            let config = ContainerConfig { security, ..Default::default() };
            let wire = container_config(&config, &sandbox(Namespaces::default()), &ImageUser::default());
            wire.linux.unwrap().security_context.unwrap()
        };
        let plain = wire(Security { seccomp: Seccomp::RuntimeDefault, ..Default::default() });
        assert!(plain.masked_paths.contains(&"/proc/kcore".to_owned()));
        assert!(plain.readonly_paths.contains(&"/proc/sys".to_owned()));
        assert_eq!(plain.seccomp.unwrap().profile_type, profile_type::RUNTIME_DEFAULT);
        let unmasked = wire(Security { unmasked_proc: true, ..Default::default() });
        assert!(unmasked.masked_paths.is_empty() && unmasked.readonly_paths.is_empty());
        let seccomp = Seccomp::Localhost("/p.json".into());
        let privileged = wire(Security { privileged: true, seccomp: seccomp.clone(), ..Default::default() });
        assert!(privileged.masked_paths.is_empty());
        assert_eq!(privileged.seccomp.unwrap().profile_type, profile_type::UNCONFINED);
        let localhost = wire(Security { seccomp, ..Default::default() }).seccomp.unwrap();
        assert_eq!(
            (localhost.profile_type, localhost.localhost_ref.as_str()),
            (profile_type::LOCALHOST, "/p.json")
        );
    }

    #[test]
    fn a_sandboxs_configuration_is_found_again_in_its_annotations() {
        let config = sandbox(Namespaces { shared_pid: true, ..Namespaces::default() });
        let wire = sandbox_config(&config, CgroupDriver::Systemd);
        assert_eq!(stored_config(&wire.annotations), Some(config));
        assert_eq!(wire.linux.unwrap().cgroup_parent, "/kubepods.slice/kubepods-podx.slice");
        assert_eq!(stored_config(&BTreeMap::new()), None);
    }

    #[test]
    fn image_volumes_have_no_source_and_no_mapped_ids() {
        let user = UserMapping { container: 0, host: 100_000, length: 65536 };
        let plain = Mount { source: "/a".into(), target: "/b".into(), ..Default::default() };
        let wire = mount(&plain, Some(&user));
        assert_eq!(
            (wire.host_path.as_str(), wire.container_path.as_str(), wire.uid_mappings.len()),
            ("/a", "/b", 1)
        );
        let image =
            Mount { image: Some(("sha256:1".to_owned(), "sub".into())), target: "/b".into(), ..plain };
        let wire = mount(&image, Some(&user));
        assert_eq!(wire.image.unwrap().image, "sha256:1");
        assert_eq!((wire.image_sub_path.as_str(), wire.uid_mappings.len()), ("sub", 0));
    }
}

use super::*;
use crate::spec::{Mount, Propagation, RunningUser, Security};

fn image() -> ImageConfig {
    ImageConfig {
        entrypoint: vec!["/entry".into()],
        cmd: vec!["serve".into()],
        env: vec!["PATH=/bin".into(), "A=image".into()],
        working_dir: "/srv".into(),
        ..ImageConfig::default()
    }
}

fn made(config: &ContainerConfig) -> Value {
    made_with(config, &[])
}

fn made_with(config: &ContainerConfig, cgroup_folders: &[(String, String)]) -> Value {
    let user = Resolved {
        user: RunningUser { uid: 7, gid: 8, supplemental_groups: vec![8, 9] },
        home: Some("/srv/seven".into()),
    };
    let capabilities = ["CAP_CHOWN".to_owned()].into();
    let files = [("/etc/hostname", "/state/hostname".to_owned()), ("/dev/shm", "/state/shm".to_owned())];
    let sources: Vec<String> = config.mounts.iter().map(|mount| mount.source.to_string()).collect();
    let namespaces = [("network", Some("/state/net".to_owned())), ("pid", None)];
    let facts = Facts {
        root: "/state/rootfs",
        cgroup: "/kubepods/pod1/c1",
        user: &user,
        capabilities: &capabilities,
        namespaces: &namespaces,
        cgroup_folders,
        files: &files,
        sources: &sources,
        read_only: &[],
        limits_hugepages: false,
        binds_devices: false,
    };
    container(config, &image(), &facts, "web-0").unwrap()
}

#[test]
fn commands_are_those_of_image_and_pod_as_kubernetes_combines_them() {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    for (pod_command, pod_args, want) in [
        (&[][..], &[][..], &["/entry", "serve"][..]),
        (&[], &["x"], &["/entry", "x"]),
        (&["/c"], &[], &["/c"]),
        (&["/c"], &["x"], &["/c", "x"]),
    ] {
        let config = ContainerConfig {
            command: words(pod_command),
            args: words(pod_args),
            ..ContainerConfig::default()
        };
        assert_eq!(command(&config, &image()), words(want));
    }
}

#[test]
fn the_process_has_the_images_environment_below_the_pods() {
    let config = ContainerConfig {
        env: vec![("A".into(), "pod".into()), ("B".into(), "2".into())],
        ..ContainerConfig::default()
    };
    let spec = made(&config);
    assert_eq!(
        spec["process"]["env"],
        json!(["PATH=/bin", "HOSTNAME=web-0", "A=pod", "B=2", "HOME=/srv/seven"])
    );
    assert_eq!(spec["process"]["cwd"], "/srv");
    assert_eq!(spec["process"]["user"], json!({"uid": 7, "gid": 8, "additionalGids": [8, 9], "umask": 18}));
    assert_eq!(spec["process"]["capabilities"]["effective"], json!(["CAP_CHOWN"]));
}

#[test]
fn privileged_containers_see_the_machine_as_it_is_and_others_do_not() {
    let spec = made(&ContainerConfig::default());
    assert!(spec["linux"]["maskedPaths"].as_array().unwrap().iter().any(|path| path == "/proc/kcore"));
    let options = |spec: &Value, target: &str| {
        let mounts = spec["mounts"].as_array().unwrap();
        mounts.iter().find(|mount| mount["destination"] == target).unwrap()["options"].to_string()
    };
    assert!(options(&spec, "/sys").contains("\"ro\""));
    let privileged = ContainerConfig {
        security: Security { privileged: true, ..Security::default() },
        ..ContainerConfig::default()
    };
    let spec = made(&privileged);
    assert_eq!(spec["linux"]["maskedPaths"], json!([]));
    assert!(options(&spec, "/sys").contains("\"rw\"") && options(&spec, "/sys/fs/cgroup").contains("\"rw\""));
}

#[test]
fn mounts_come_outer_before_inner_and_the_pods_own_files_win() {
    let mount = |target: &str| Mount { source: "/host".into(), target: target.into(), ..Mount::default() };
    let config = ContainerConfig {
        mounts: vec![
            mount("/data/inner"),
            Mount { read_only: true, recursive_read_only: true, ..mount("/data") },
            mount("/etc/hostname"),
            Mount { propagation: Propagation::Bidirectional, ..mount("/shared") },
        ],
        ..ContainerConfig::default()
    };
    let spec = made(&config);
    let mounts = spec["mounts"].as_array().unwrap();
    let place = |target: &str| mounts.iter().position(|mount| mount["destination"] == target).unwrap();
    assert!(place("/data") < place("/data/inner"));
    assert_eq!(mounts[place("/data")]["options"], json!(["rbind", "rprivate", "ro", "rro"]));
    assert_eq!(mounts.iter().filter(|mount| mount["destination"] == "/etc/hostname").count(), 1);
    assert_eq!(mounts[place("/etc/hostname")]["source"], "/host");
    assert_eq!(mounts[place("/dev/shm")]["source"], "/state/shm");
    assert_eq!(spec["linux"]["rootfsPropagation"], "shared");
}

#[test]
fn limits_that_are_not_set_are_not_written() {
    let limits = |config: Resources| resources(&config, false);
    assert_eq!(limits(Resources::default()), json!({"cpu": {}}));
    let set = Resources {
        cpu_shares: 2,
        memory_limit: 5,
        pids_limit: 3,
        hugepages: [("2MB".to_owned(), 0)].into(),
        ..Resources::default()
    };
    assert_eq!(
        limits(set.clone()),
        json!({"cpu": {"shares": 2}, "memory": {"limit": 5}, "pids": {"limit": 3}})
    );
    assert_eq!(resources(&set, true)["hugepageLimits"], json!([{"pageSize": "2MB", "limit": 0}]));
}

#[test]
fn a_command_in_a_container_keeps_all_but_its_words_and_terminal() {
    let spec = made(&ContainerConfig::default());
    let exec = exec_process(&spec["process"], &["ls".to_owned()], true);
    assert_eq!((&exec["args"], &exec["terminal"]), (&json!(["ls"]), &json!(true)));
    assert!(exec["env"].as_array().unwrap().contains(&json!("TERM=xterm")));
    assert_eq!(exec["user"], spec["process"]["user"]);
}

#[test]
fn control_groups_are_mounted_folder_by_folder_where_they_are_given() {
    let folders = [("/sys/fs/cgroup/memory".to_owned(), "/sys/fs/cgroup/memory/kubepods/pod1/c1".to_owned())];
    let spec = made_with(&ContainerConfig::default(), &folders);
    let of = |target: &str| {
        let mounts = spec["mounts"].as_array().unwrap();
        mounts.iter().find(|mount| mount["destination"] == target).cloned().unwrap()
    };
    assert_eq!(of("/sys/fs/cgroup")["type"], "tmpfs");
    assert_eq!(of("/sys/fs/cgroup/memory")["source"], folders[0].1);
    assert!(of("/sys/fs/cgroup/memory")["options"].to_string().contains("\"ro\""));
    let spec = made(&ContainerConfig::default());
    assert!(spec["mounts"].as_array().unwrap().iter().any(|mount| mount["type"] == "cgroup"));
}

//! Pods with users of their own. Needs root, control groups and a static busybox; says so where they lack.

mod world;

use std::time::Duration;

use runtime::spec::{ContainerConfig, Device, Mount, Namespaces, Security, User, UserMapping};
use runtime::{Error, Runtime};
use world::{World, shell};

const GRACE: Duration = Duration::from_secs(5);
const FOREVER: &str = "trap 'exit 0' TERM; while true; do sleep 1000 & wait; done";

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_a_pod_are_root_in_it_and_nobody_on_the_host() {
    let Some(mut world) = World::new().await else { return };
    let users = UserMapping { container: 0, host: 327_680, length: 65_536 };
    let mut config = world.sandbox_config();
    config.namespaces = Namespaces { user: Some(users), shared_pid: true, ..Namespaces::default() };
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&world.dir, mode(0o700)).unwrap();
    let error = world.runtime.run_sandbox(&config).await.unwrap_err();
    assert!(error.to_string().contains(&format!("cannot pass through {}:", world.dir)), "{error}");

    std::fs::set_permissions(&world.dir, mode(0o711)).unwrap();
    let sandbox = world.runtime.run_sandbox(&config).await.unwrap();
    let volume = world.dir.join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "kept\n").unwrap();
    let mounts = vec![Mount { source: volume.clone(), target: "/v".into(), ..Mount::default() }];
    let script = "cat /proc/self/uid_map /v/file; touch /v/new /new; ls -n /v /new | grep -c ' 0 *0 '";
    let devices =
        vec![Device { host: "/dev/zero".into(), container: "/dev/other".into(), permissions: "rw".into() }];
    let config = ContainerConfig { mounts, devices, ..shell(&format!("{script}; echo ready; {FOREVER}")) };
    let id = world.start(&sandbox, config).await;
    world.logged(&id, "ready").await;
    let log = world.log(&id).await.join("\n");
    assert!(log.contains("327680      65536") && log.contains("kept") && log.contains("stdout F 3"), "{log}");
    let owner = |path: &str| std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path).unwrap());
    assert_eq!(owner(volume.join("new").as_str()), 0, "as on the disk");
    assert_eq!(owner(&format!("/proc/{}", world.status(&id).await.pid)), 327_680);

    // A command enters the same namespaces, also for a process that came later.
    world.reopen().await;
    let command = words(&["sh", "-c", "id -u; echo $$ > /v/pid; head -c 2 /dev/other | wc -c; exit 4"]);
    let output = world.runtime.exec_sync(&id, &command, GRACE).await.unwrap();
    assert_eq!((output.exit_code, output.stdout.as_slice()), (4, b"0\n2\n".as_slice()), "{output:?}");
    assert_eq!(owner(volume.join("pid").as_str()), 0);

    let unfit = vec![Mount { source: "/proc/sys".into(), target: "/v".into(), ..Mount::default() }];
    let refused = [
        (
            ContainerConfig { mounts: unfit, ..shell("true") },
            "cannot show /proc/sys with the users of the pod",
        ),
        (
            ContainerConfig {
                security: Security { user: User::Id(65_536), ..Security::default() },
                ..shell("true")
            },
            "user 65536 is none of the pod's own",
        ),
    ];
    for (config, want) in refused {
        let error = world.runtime.create_container(&sandbox, &config).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }) && error.to_string().contains(want), "{error}");
    }
    world.runtime.stop_container(&id, GRACE).await.unwrap();
    world.runtime.remove_sandbox(&sandbox).await.unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(world.dir.as_str()), "{mounts}");
    world.end().await;
}

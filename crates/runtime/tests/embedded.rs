//! The embedded runtime with real containers. Needs root, control groups and a static busybox; says so where they lack.

mod world;

use std::time::Duration;

use runtime::spec::{
    ContainerConfig, ContainerState, Device, Mount, Namespaces, Resources, Seccomp, Security, User,
};
use runtime::{ContainerEventKind, Error, Runtime, Streams, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::{World, shell};

const GRACE: Duration = Duration::from_secs(5);
const FOREVER: &str = "trap 'exit 0' TERM; while true; do sleep 1000 & wait; done";

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_logs_and_its_end_is_told() {
    let Some(world) = World::new().await else { return };
    let sandbox = world.sandbox().await;
    let mut events = world.runtime.events();
    let id =
        world.create(&sandbox, shell("echo out; echo err >&2; hostname; umask; printf tail; exit 3")).await;
    assert_eq!(world.status(&id).await.state, ContainerState::Created);
    world.runtime.start_container(&id).await.unwrap();
    let status = world.ended(&id).await;
    assert_eq!(
        (status.state, status.exit_code, status.reason.as_str()),
        (ContainerState::Exited, 3, "Error")
    );
    assert!(status.started_at.unwrap() <= status.finished_at.unwrap());
    let mut log = world.log(&id).await;
    log.sort();
    assert_eq!(log, ["stderr F err", "stdout F 0022", "stdout F out", "stdout F web-0", "stdout P tail"]);
    let kinds = [events.recv().await.unwrap().kind, events.recv().await.unwrap().kind];
    assert_eq!(kinds, [ContainerEventKind::Started, ContainerEventKind::Exited]);
    world.runtime.start_container(&id).await.unwrap_err();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_stopped_by_its_signal_or_killed_when_it_does_not_listen() {
    let Some(world) = World::new().await else { return };
    let sandbox = world.sandbox().await;
    let listens = world.start(&sandbox, shell(&format!("echo ready; {FOREVER}"))).await;
    world.logged(&listens, "ready").await;
    world.runtime.stop_container(&listens, Duration::from_secs(20)).await.unwrap();
    assert_eq!(world.status(&listens).await.exit_code, 0);

    let deaf = world.start(&sandbox, shell("trap '' TERM; echo ready; while true; do sleep 1; done")).await;
    world.logged(&deaf, "ready").await;
    world.runtime.stop_container(&deaf, Duration::from_millis(50)).await.unwrap();
    let status = world.status(&deaf).await;
    assert_eq!((status.exit_code, status.reason.as_str(), status.pid), (137, "Error", 0));
    world.runtime.stop_container(&deaf, GRACE).await.unwrap();
    world.runtime.stop_container("absent", GRACE).await.unwrap();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_run_is_a_start_error_in_upstreams_words() {
    let Some(world) = World::new().await else { return };
    let sandbox = world.sandbox().await;
    for (command, want) in [
        ("nonsense", "exec: \"nonsense\": executable file not found in $PATH: unknown"),
        ("/etc/not-a-program", "exec: \"/etc/not-a-program\": permission denied: unknown"),
        ("/absent", "exec: \"/absent\": stat /absent: no such file or directory: unknown"),
    ] {
        let config = ContainerConfig { command: words(&[command]), ..shell("") };
        let id = world.create(&sandbox, config).await;
        let error = world.runtime.start_container(&id).await.unwrap_err();
        assert!(error.to_string().ends_with(want), "{error}");
        let status = world.status(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
        assert!(status.message.ends_with(want), "{}", status.message);
    }
    let error = world
        .runtime
        .create_container(&sandbox, &ContainerConfig { image: "absent".into(), ..shell("") })
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotFound(_)));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_in_a_container_with_and_without_a_terminal() {
    let Some(world) = World::new().await else { return };
    let sandbox = world.sandbox().await;
    let config = ContainerConfig { env: vec![("GREETING".into(), "hello".into())], ..shell(FOREVER) };
    let id = world.start(&sandbox, config).await;

    let run = |script: &str| words(&["sh", "-c", script]);
    let output = world
        .runtime
        .exec_sync(&id, &run("echo $GREETING; hostname; echo err >&2; exit 7"), Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(
        (output.exit_code, output.stdout.as_slice(), output.stderr.as_slice()),
        (7, b"hello\nweb-0\n".as_slice(), b"err\n".as_slice())
    );
    let error = world.runtime.exec_sync(&id, &words(&["nonsense"]), Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().contains("exec: \"nonsense\": executable file not found in $PATH"), "{error}");
    let error =
        world.runtime.exec_sync(&id, &run("sleep 1000"), Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)), "{error}");
    let output = world
        .runtime
        .exec_sync(&id, &run("ps | grep -c '[s]leep 1000$' || true"), Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(output.stdout, b"1\n", "only the container's own is left");

    let streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };
    let mut attached = world.runtime.exec(&id, &words(&["cat"]), streams).await.unwrap();
    let mut stdin = attached.stdin.take().unwrap();
    stdin.write_all(b"through\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    drop(stdin);
    let mut text = String::new();
    attached.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!((text.as_str(), attached.exit.await.unwrap()), ("through\n", 0));

    let streams = Streams { stdin: true, stdout: true, stderr: false, tty: true };
    let mut attached = world
        .runtime
        .exec(&id, &run("test -t 0 && echo terminal; read x; stty size; exit 5"), streams)
        .await
        .unwrap();
    let mut stdout = attached.stdout.take().unwrap();
    let mut text = String::new();
    while !text.contains("terminal") {
        let mut piece = [0; 64];
        let len = stdout.read(&mut piece).await.unwrap();
        text.push_str(std::str::from_utf8(&piece[..len]).unwrap());
    }
    let resize = attached.resize.take().unwrap();
    resize.send(TerminalSize { width: 91, height: 17 }).await.unwrap();
    // Taken from the channel in order: once the next has room in it alone, the first is set.
    while resize.capacity() < resize.max_capacity() {
        tokio::task::yield_now().await;
    }
    rt::sleep(Duration::from_millis(50)).await;
    attached.stdin.take().unwrap().write_all(b"\n").await.unwrap();
    stdout.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("17 91"), "{text:?}");
    assert_eq!(attached.exit.await.unwrap(), 5);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_attach_to_pipes_and_to_a_terminal() {
    let Some(world) = World::new().await else { return };
    let sandbox = world.sandbox().await;
    let streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };
    let config = ContainerConfig {
        stdin: true,
        stdin_once: true,
        command: words(&["sh", "-c", "cat; echo end >&2"]),
        ..shell("")
    };
    let id = world.start(&sandbox, config).await;
    let mut watcher = world.runtime.attach(&id, Streams { stdin: false, ..streams }).await.unwrap();
    let mut attached = world.runtime.attach(&id, streams).await.unwrap();
    let mut stdin = attached.stdin.take().unwrap();
    stdin.write_all(b"typed\n").await.unwrap();
    drop(stdin);
    for client in [&mut attached, &mut watcher] {
        let (mut out, mut err) = (String::new(), String::new());
        client.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
        client.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
        assert_eq!((out.as_str(), err.as_str()), ("typed\n", "end\n"));
    }
    attached.exit.await.unwrap();
    assert_eq!(world.ended(&id).await.exit_code, 0);

    let config = ContainerConfig {
        stdin: true,
        tty: true,
        ..shell("read x; echo got $x; test -t 1 && echo terminal")
    };
    let id = world.start(&sandbox, config).await;
    let mut attached = world.runtime.attach(&id, Streams { tty: true, ..streams }).await.unwrap();
    attached.resize.as_ref().unwrap().send(TerminalSize { width: 80, height: 25 }).await.unwrap();
    attached.stdin.as_mut().unwrap().write_all(b"word\n").await.unwrap();
    let mut text = String::new();
    attached.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
    assert!(text.contains("got word") && text.contains("terminal"), "{text:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_outlives_its_runtime_and_is_found_again() {
    let Some(mut world) = World::new().await else { return };
    let sandbox = world.sandbox().await;
    let long = world.start(&sandbox, shell(FOREVER)).await;
    let short = ContainerConfig { stdin: true, stdin_once: true, ..shell("read x; exit 4") };
    let short = world.start(&sandbox, short).await;
    let lost = world.start(&sandbox, shell(FOREVER)).await;
    let made = world.create(&sandbox, shell("exit 6")).await;
    let pid = world.status(&long).await.pid;

    world.reopen().await;
    let status = world.status(&long).await;
    assert_eq!((status.state, status.pid), (ContainerState::Running, pid));
    let attached = world.runtime.attach(&short, Streams { stdin: true, ..Streams::default() }).await.unwrap();
    attached.stdin.unwrap().write_all(b"go\n").await.unwrap();
    assert_eq!(world.ended(&short).await.exit_code, 4);
    world.runtime.start_container(&made).await.unwrap();
    assert_eq!(world.ended(&made).await.exit_code, 6);

    // The program beside it is killed: nobody sees the container's end, and it does not live on unseen.
    let beside = world.beside(&lost);
    rustix::process::kill_process(beside, rustix::process::Signal::KILL).unwrap();
    let status = world.ended(&lost).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "ContainerStatusUnknown"));
    world.reopen().await;
    assert_eq!(world.status(&short).await.exit_code, 4);
    assert_eq!(world.runtime.containers().await.unwrap().len(), 4);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_and_figures_are_read() {
    let Some(world) = World::new().await else { return };
    let sandbox = world.sandbox().await;
    let small = Resources { memory_limit: 16 << 20, pids_limit: 50, ..Resources::default() };
    let greedy = ContainerConfig {
        resources: small.clone(),
        ..shell("x=0123456789abcdef; while true; do x=$x$x; done")
    };
    let id = world.start(&sandbox, greedy).await;
    let status = world.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));

    let id = world.start(&sandbox, ContainerConfig { resources: small, ..shell(FOREVER) }).await;
    let stats = world.runtime.container_stats().await.unwrap();
    assert_eq!(stats.len(), 1);
    assert!(stats[0].memory_usage > 0 && stats[0].processes >= 1 && stats[0].cpu_usage > 0, "{stats:?}");
    let larger = Resources { memory_limit: 64 << 20, cpu_shares: 512, ..Resources::default() };
    world.runtime.update_resources(&id, &larger).await.unwrap();
    let limits = world.limit(&id, "memory.limit_in_bytes", "memory.max").await;
    assert_eq!(limits, (64 << 20).to_string());

    // The pod as a whole.
    let whole = Resources { memory_limit: 128 << 20, cpu_shares: 256, ..Resources::default() };
    world.runtime.update_sandbox(&sandbox, &whole).await.unwrap();
    assert_eq!(world.limit("", "memory.limit_in_bytes", "memory.max").await, (128 << 20).to_string());
    let unlimited = Resources { memory_limit: -1, ..whole };
    world.runtime.update_sandbox(&sandbox, &unlimited).await.unwrap();
    assert_ne!(world.limit("", "memory.limit_in_bytes", "memory.max").await, (128 << 20).to_string());
    assert!(world.runtime.update_sandbox("none", &unlimited).await.is_err());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_capabilities_and_filters_are_exactly_those_asked_for() {
    let Some(world) = World::new().await else { return };
    let sandbox = world.sandbox().await;
    let status = "grep -E '^(Uid|Groups|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status";
    let as_user = |user: User, security: Security| ContainerConfig {
        security: Security { user, ..security },
        ..shell(status)
    };
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };

    let (_, plain) = world.run(&sandbox, as_user(User::Image, Security::default())).await;
    assert_eq!(field(&plain, "CapEff"), field(&plain, "CapBnd"));
    assert_eq!((field(&plain, "Seccomp").as_str(), field(&plain, "NoNewPrivs").as_str()), ("0", "0"));

    let strict = Security {
        drop_capabilities: words(&["ALL"]),
        add_capabilities: words(&["NET_BIND_SERVICE"]),
        seccomp: Seccomp::RuntimeDefault,
        ..Security::default()
    };
    let (_, root) = world.run(&sandbox, as_user(User::Image, strict.clone())).await;
    assert_eq!(field(&root, "CapEff"), "0000000000000400");
    assert_eq!(field(&root, "CapBnd"), "0000000000000400");
    assert_eq!(field(&root, "Seccomp"), "2");
    let (_, user) = world.run(&sandbox, as_user(User::Id(1000), strict.clone())).await;
    assert_eq!(
        (field(&user, "Uid").as_str(), field(&user, "CapEff").as_str()),
        ("1000 1000 1000 1000", "0000000000000000")
    );
    assert_eq!(field(&user, "Groups"), "10 1000");

    // What the default filter forbids, it forbids to root with every capability but the one.
    let filtered = ContainerConfig {
        security: Security { seccomp: Seccomp::RuntimeDefault, ..Security::default() },
        ..shell("unshare -m true 2>&1; echo done")
    };
    let (_, text) = world.run(&sandbox, filtered).await;
    assert!(text.contains("not permitted") && text.ends_with("done"), "{text}");

    let profile = world.dir.join("profile.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(&profile, text).unwrap();
    let own = ContainerConfig {
        security: Security { seccomp: Seccomp::Localhost(profile), ..Security::default() },
        ..shell("mkdir /tmp/x 2>&1; touch /tmp/y && echo touched")
    };
    let (_, text) = world.run(&sandbox, own).await;
    assert!(text.contains("not permitted") && text.ends_with("touched"), "{text}");

    let privileged = Security { privileged: true, ..Security::default() };
    let (code, text) =
        world.run(&sandbox, ContainerConfig { security: privileged, ..shell("test -c /dev/kmsg -o -c /dev/loop-control && echo yes; mount -t tmpfs x /tmp && echo mounted") }).await;
    assert_eq!((code, text.as_str()), (0, "yes\nmounted"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_its_mounts_and_cannot_write_where_it_must_not() {
    let Some(world) = World::new().await else { return };
    let sandbox = world.sandbox().await;
    let data = world.dir.join("data");
    std::fs::create_dir_all(data.join("sub")).unwrap();
    std::fs::write(data.join("file"), "from outside").unwrap();
    let mount = |target: &str, read_only: bool| Mount {
        source: data.clone(),
        target: target.into(),
        read_only,
        ..Mount::default()
    };
    let script = "cat /data/file; echo; echo new > /data/new && echo written; echo x > /fixed/x || echo fixed; \
                  echo x > /rootfile || echo rootfixed; pwd; cat /image/etc/not-a-program; echo; \
                  for f in /sys/fs/cgroup/*/memory.limit_in_bytes /sys/fs/cgroup/memory.max /proc/sys/kernel/hostname; do \
                  test -e $f && echo 1 > $f; done; cat /proc/kcore | wc -c; test -c /dev/mine && echo device";
    let config = ContainerConfig {
        working_dir: "/data/made/here".into(),
        mounts: vec![
            mount("/data", false),
            mount("/fixed", true),
            Mount {
                image: Some(("busybox".into(), "/".into())),
                target: "/image".into(),
                ..Mount::default()
            },
        ],
        devices: vec![Device {
            host: "/dev/null".into(),
            container: "/dev/mine".into(),
            permissions: "rwm".into(),
        }],
        security: Security { read_only_root: true, ..Security::default() },
        ..shell(&format!("({script}) 2>/dev/null"))
    };
    let (_, text) = world.run(&sandbox, config).await;
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        ["from outside", "written", "fixed", "rootfixed", "/data/made/here", "text", "0", "device"]
    );
    assert!(data.join("made/here").is_dir());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_share_what_their_pod_shares() {
    let Some(world) = World::new().await else { return };
    let mut config = world.sandbox_config();
    config.namespaces = Namespaces { shared_pid: true, ..Namespaces::default() };
    config.sysctls = [("net.core.somaxconn".to_owned(), "777".to_owned())].into();
    let sandbox = world.runtime.run_sandbox(&config).await.unwrap();
    let server = world.start(&sandbox, shell("echo shared > /dev/shm/note; nc -l -p 8080 -e /bin/cat")).await;
    world.listening(&sandbox, 8080).await;
    let (_, text) = world.run(&sandbox, shell("cat /dev/shm/note; ps | grep -c '[n]c -l'; cat /proc/1/comm; cat /proc/sys/net/core/somaxconn")).await;
    assert_eq!(text, "shared\n1\ncontainer-shim\n777");

    let mut connection = world.runtime.port_forward(&sandbox, 8080).await.unwrap();
    connection.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping");
    drop(connection);
    world.runtime.stop_container(&server, Duration::ZERO).await.unwrap();
    let error = world.runtime.port_forward(&sandbox, 8081).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().starts_with("failed to connect to localhost:8081"), "{error}");

    // A container may join another one's processes only.
    let alone = world.sandbox().await;
    let target = world.start(&alone, shell(FOREVER)).await;
    let debug = ContainerConfig { pid_target: Some(target), ..shell("ps | grep -c '[s]leep 1000$'") };
    assert_eq!(world.run(&alone, debug).await, (0, "1".to_owned()));
    let (_, others) = world.run(&alone, shell("ps | grep -c '[s]leep 1000$'")).await;
    assert_eq!(others, "0");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_whose_first_process_ended_is_not_ready_and_one_that_lives_is_found_again() {
    let Some(mut world) = World::new().await else { return };
    let mut config = world.sandbox_config();
    config.namespaces.shared_pid = true;
    let dead = world.runtime.run_sandbox(&config).await.unwrap();
    let alive = world.sandbox().await;
    let id = world.start(&dead, shell(FOREVER)).await;
    // The parent in its own namespace: the pod's first process.
    let status =
        std::fs::read_to_string(format!("/sys/fs/cgroup/pids{}/{dead}/cgroup.procs", config.cgroup_parent))
            .or_else(|_| {
                std::fs::read_to_string(format!("/sys/fs/cgroup{}/{dead}/cgroup.procs", config.cgroup_parent))
            });
    let holder = rustix::process::Pid::from_raw(status.unwrap().trim().parse().unwrap()).unwrap();
    world.reopen().await;
    rustix::process::kill_process(holder, rustix::process::Signal::KILL).unwrap();
    assert_eq!(world.ended(&id).await.exit_code, 137);
    world.not_ready(&dead).await;
    let error = world.runtime.create_container(&dead, &shell("true")).await.unwrap_err();
    assert!(error.to_string().contains("is not ready"), "{error}");
    assert_eq!(world.run(&alive, shell("hostname")).await, (0, "web-0".to_owned()));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_moved_away_is_begun_anew() {
    let Some(world) = World::new().await else { return };
    let sandbox = world.sandbox().await;
    let config =
        ContainerConfig { stdin: true, stdin_once: true, ..shell("echo before; read x; echo after") };
    let id = world.start(&sandbox, config).await;
    world.logged(&id, "before").await;
    let path = world.status(&id).await.log_path;
    std::fs::rename(&path, path.with_extension("1")).unwrap();
    world.runtime.reopen_log(&id).await.unwrap();
    let attached = world.runtime.attach(&id, Streams { stdin: true, ..Streams::default() }).await.unwrap();
    attached.stdin.unwrap().write_all(b"\n").await.unwrap();
    world.ended(&id).await;
    assert_eq!(world.log(&id).await, ["stdout F after"]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_containers_at_once_leave_nothing() {
    let Some(world) = World::new().await else { return };
    let world = std::sync::Arc::new(world);
    let begin = rt::instant();
    let each = (0..50).map(|index| {
        let world = std::sync::Arc::clone(&world);
        async move {
            let sandbox = world.sandbox().await;
            let id = world.start(&sandbox, shell(&format!("exit {}", index % 3))).await;
            let ended = world.ended(&id).await;
            assert_eq!(ended.exit_code, index % 3);
            if index % 2 == 0 {
                world.runtime.stop_sandbox(&sandbox).await.unwrap();
            }
            world.runtime.remove_sandbox(&sandbox).await.unwrap();
        }
    });
    futures::future::join_all(each).await;
    println!("fifty pods in {:?}", begin.elapsed());
    std::sync::Arc::into_inner(world).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_is_quick_and_the_program_beside_is_small() {
    let Some(world) = World::new().await else { return };
    let mut starts = Vec::new();
    for _ in 0..10 {
        let begin = rt::instant();
        let sandbox = world.sandbox().await;
        let made = begin.elapsed();
        let id = world.start(&sandbox, shell(FOREVER)).await;
        let started = begin.elapsed();
        world.runtime.exec_sync(&id, &words(&["true"]), Duration::ZERO).await.unwrap();
        starts.push((started, made, begin.elapsed() - started, world.resident(&id)));
    }
    starts.sort();
    let (start, sandbox, exec, resident) = starts.swap_remove(5);
    println!(
        "start {start:?}, of it the sandbox {sandbox:?}; a command {exec:?}; the program beside it {resident}"
    );
    // No more than a guard against something gone quite wrong: machines differ.
    assert!(start < Duration::from_secs(3) && exec < Duration::from_secs(3));
    world.end().await;
}

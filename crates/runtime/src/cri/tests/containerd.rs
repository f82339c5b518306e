//! A pod's life with a real containerd. It runs as a plain process with all of its files in a temporary folder. Pods are
//! in the host's network, or connected to a bridge in a network namespace that containerd has for itself, so nothing of
//! this machine is changed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use camino::Utf8PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cri::{CgroupDriver, CriRuntime};
use crate::spec::{
    ContainerConfig, ContainerState, Dns, Mount, Namespaces, Resources, SandboxConfig, SandboxState, Seccomp,
    Security, User,
};
use crate::{Attached, ContainerEventKind, Error, Runtime, Streams, TerminalSize};

const IMAGE: &str = "test.invalid/busybox:1";

/// A network of two families in CNI's words; `FOLDER` is the test's.
const NETWORK: &str = r#"{
    "cniVersion": "0.4.0",
    "name": "test",
    "plugins": [{
        "type": "bridge",
        "bridge": "test0",
        "isGateway": true,
        "ipam": {
            "type": "host-local",
            "dataDir": "FOLDER/addresses",
            "ranges": [[{"subnet": "10.251.0.0/24"}], [{"subnet": "fd00:251::/64"}]]
        }
    }]
}"#;

/// Where packages put CNI's plugins.
const PLUGIN_FOLDERS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

/// Packs busybox as an image under two names: one for containers, one for sandboxes.
const MAKE_IMAGE: &str = r#"
set -e
cd "$1"
mkdir -p rootfs/bin rootfs/etc rootfs/tmp layout/blobs/sha256
cp "$2" rootfs/bin/busybox
for name in sh sleep cat echo id stty head; do ln -s busybox rootfs/bin/$name; done
echo 'www:x:33:33::/:/bin/sh' > rootfs/etc/passwd
tar -C rootfs -cf layer .
blob() { sum=$(sha256sum < $1 | cut -d' ' -f1); cp $1 layout/blobs/sha256/$sum; size=$(wc -c < $1); }
case $(uname -m) in aarch64) arch=arm64;; *) arch=amd64;; esac
blob layer; layer=$sum; layer_size=$size
printf '{"architecture":"%s","os":"linux","config":{"User":"33","Entrypoint":["/bin/sleep"],"Cmd":["100000"],"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' $arch $layer > config
blob config
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%s}]}' $sum $size $layer $layer_size > manifest
blob manifest
entry() { printf '{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"io.containerd.image.name":"%s"}}' $sum $size $1; }
printf '{"schemaVersion":2,"manifests":[%s,%s]}' "$(entry test.invalid/busybox:1)" "$(entry test.invalid/pause:1)" > layout/index.json
echo '{"imageLayoutVersion":"1.0.0"}' > layout/oci-layout
tar -C layout -cf image.tar .
"#;

/// Where a program is.
fn find(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
}

/// A containerd of one test. When it goes, everything goes that it started.
struct Containerd {
    child: Child,
    folder: tempfile::TempDir,
    shutdown: rt::Shutdown,
}

impl Containerd {
    /// `None`, and it says why, where this machine cannot run one.
    fn start() -> Option<Containerd> {
        Containerd::start_with(&["containerd"], "/nowhere")
    }

    /// One that connects pods to a network, in a network namespace of its own.
    fn start_with_network() -> Option<Containerd> {
        let has_plugins = |folder: &&str| {
            ["bridge", "host-local", "loopback"].iter().all(|name| Path::new(folder).join(name).exists())
        };
        let Some(plugins) = PLUGIN_FOLDERS.iter().find(|folder| has_plugins(folder)) else {
            println!("skipped: there are no CNI plugins");
            return None;
        };
        if find("ip").is_none() || find("unshare").is_none() {
            println!("skipped: there is no ip or no unshare");
            return None;
        }
        let command = ["unshare", "--net", "sh", "-c", "ip link set lo up && exec containerd \"$@\"", "sh"];
        let containerd = Containerd::start_with(&command, plugins)?;
        let folder = containerd.path("cni");
        std::fs::create_dir(&folder).unwrap();
        let network = NETWORK.replace("FOLDER", containerd.folder.path().to_str().unwrap());
        std::fs::write(folder.join("10-test.conflist"), network).unwrap();
        Some(containerd)
    }

    fn start_with(command: &[&str], plugins: &str) -> Option<Containerd> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: containerd needs root");
            return None;
        }
        for name in ["containerd", "ctr", "runc", "busybox", "tar", "sha256sum"] {
            if find(name).is_none() {
                println!("skipped: there is no {name}");
                return None;
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().to_str().unwrap();
        let busybox = find("busybox").unwrap();
        let made = Command::new("sh").args(["-c", MAKE_IMAGE, "sh", at]).arg(busybox).status().unwrap();
        assert!(made.success(), "an image is packed");
        let config = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n[grpc]\naddress = \"{at}/containerd.sock\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nrestrict_oom_score_adj = true\n\
             sandbox_image = \"test.invalid/pause:1\"\nstream_server_address = \"127.0.0.1\"\n\
             stream_server_port = \"0\"\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
             snapshotter = \"native\"\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"{plugins}\"\n\
             conf_dir = \"{at}/cni\"\n"
        );
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let log = std::fs::File::create(folder.path().join("containerd.log")).unwrap();
        let child = Command::new(command[0])
            .args(&command[1..])
            .args(["--config", &format!("{at}/config.toml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Some(Containerd { child, folder, shutdown: rt::Shutdown::new() })
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.folder.path().join(name)).unwrap()
    }

    fn ctr(&self, arguments: &[&str]) -> String {
        let socket = self.path("containerd.sock");
        let output = Command::new("ctr")
            .args(["-a", socket.as_str(), "-n", "k8s.io"])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Connects as soon as it answers.
    async fn connect(&self) -> CriRuntime {
        let endpoint = format!("unix://{}", self.path("containerd.sock"));
        let connect = async {
            loop {
                match CriRuntime::connect(&endpoint, None, CgroupDriver::Cgroupfs, &self.shutdown).await {
                    Ok(runtime) => return runtime,
                    // It is a process of others, which tells nobody that it listens.
                    Err(_) => rt::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        rt::timeout(Duration::from_secs(60), connect).await.unwrap_or_else(|_| {
            let log = std::fs::read_to_string(self.folder.path().join("containerd.log")).unwrap_or_default();
            panic!("containerd did not answer:\n{log}")
        })
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.shutdown.cancel();
        let tasks = self.ctr(&["tasks", "ls", "-q"]);
        for task in tasks.lines() {
            self.ctr(&["tasks", "delete", "--force", task]);
        }
        let _it_may_have_ended = self.child.kill();
        let _ = self.child.wait();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for mount in ours.filter(|mount| Path::new(mount).starts_with(self.folder.path())) {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn sandbox_config(containerd: &Containerd, name: &str) -> SandboxConfig {
    SandboxConfig {
        name: name.to_owned(),
        namespace: "test".to_owned(),
        uid: rt::uuid(),
        log_directory: containerd.path("logs").join(name),
        labels: [("app".to_owned(), name.to_owned())].into(),
        annotations: [("note".to_owned(), "kept".to_owned())].into(),
        namespaces: Namespaces { host_network: true, ..Namespaces::default() },
        ..SandboxConfig::default()
    }
}

fn container_config(image: &str, name: &str, script: &str) -> ContainerConfig {
    ContainerConfig {
        name: name.to_owned(),
        image: image.to_owned(),
        image_reference: IMAGE.to_owned(),
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("GREETING".to_owned(), "hello".to_owned())],
        log_path: Utf8PathBuf::from(name).join("0.log"),
        ..ContainerConfig::default()
    }
}

/// Waits for what a file is to say. Whoever writes it tells nobody.
async fn until_file_has(path: &Utf8PathBuf, wanted: &str) -> String {
    let look = async {
        loop {
            let content = tokio::fs::read_to_string(path).await.unwrap_or_default();
            if content.contains(wanted) {
                return content;
            }
            rt::sleep(Duration::from_millis(20)).await;
        }
    };
    rt::timeout(Duration::from_secs(20), look)
        .await
        .unwrap_or_else(|_| panic!("{path} never says {wanted:?}"))
}

async fn until_exited(runtime: &CriRuntime, container: &str) -> crate::ContainerStatus {
    let look = async {
        loop {
            let status = runtime.container_status(container).await.unwrap();
            if status.state == ContainerState::Exited {
                return status;
            }
            rt::sleep(Duration::from_millis(20)).await;
        }
    };
    rt::timeout(Duration::from_secs(20), look).await.expect("the container ends")
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

async fn read_all(reader: Option<crate::Reader>) -> String {
    let mut text = String::new();
    reader.unwrap().read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_lives_from_its_sandbox_to_its_last_container() {
    let Some(containerd) = Containerd::start() else { return };
    let runtime = containerd.connect().await;
    assert_eq!(runtime.version().await.unwrap().name, "containerd");
    let health = runtime.health().await.unwrap();
    assert!(health.conditions.iter().any(|condition| condition.kind == "RuntimeReady" && condition.status));

    // Images.
    assert_eq!(runtime.image_status(IMAGE).await.unwrap(), None);
    containerd.ctr(&["images", "import", containerd.path("image.tar").as_str()]);
    let image = until_imported(&runtime).await;
    assert!(image.id.starts_with("sha256:") && image.tags.contains(&IMAGE.to_owned()), "{image:?}");
    assert_eq!(image.uid, Some(33));
    assert!(runtime.images().await.unwrap().iter().any(|each| each.id == image.id));
    let space = runtime.image_filesystem().await.unwrap();
    assert!(space.path.starts_with(containerd.path("root")) && space.capacity_bytes > 0, "{space:?}");

    // A sandbox.
    let mut events = runtime.events();
    let config = sandbox_config(&containerd, "web");
    let sandbox = runtime.run_sandbox(&config).await.unwrap();
    let [status] = &runtime.sandboxes().await.unwrap()[..] else { panic!("one sandbox") };
    assert_eq!((&status.id, &status.uid, status.state), (&sandbox, &config.uid, SandboxState::Ready));
    assert!(status.host_network && status.addresses.is_empty());
    assert_eq!((&status.labels, &status.annotations), (&config.labels, &config.annotations));

    // A container, and what it says.
    let script = "trap 'exit 3' TERM; echo $GREETING; echo oops >&2; while :; do sleep 0.1; done";
    let main =
        runtime.create_container(&sandbox, &container_config(&image.id, "main", script)).await.unwrap();
    assert_eq!(runtime.container_status(&main).await.unwrap().state, ContainerState::Created);
    runtime.start_container(&main).await.unwrap();
    let event = events.recv().await.unwrap();
    assert_eq!(
        (&event.container_id, &event.sandbox_id, event.kind),
        (&main, &sandbox, ContainerEventKind::Started)
    );
    let status = runtime.container_status(&main).await.unwrap();
    assert_eq!((status.state, &status.sandbox_id), (ContainerState::Running, &sandbox));
    assert!(status.pid > 0 && Path::new(&format!("/proc/{}", status.pid)).exists());
    assert_eq!(status.log_path, config.log_directory.join("main/0.log"));
    let log = until_file_has(&status.log_path, "oops").await;
    assert!(log.contains(" stdout F hello\n") && log.contains(" stderr F oops\n"), "{log}");
    let rotated = status.log_path.with_extension("old");
    std::fs::rename(&status.log_path, rotated).unwrap();
    runtime.reopen_log(&main).await.unwrap();
    assert!(status.log_path.exists());

    // Commands that run to their end.
    let output =
        runtime.exec_sync(&main, &strings(&["sh", "-c", "echo a; echo b >&2; exit 5"]), Duration::ZERO).await;
    let output = output.unwrap();
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice(), output.exit_code),
        (&b"a\n"[..], &b"b\n"[..], 5)
    );
    let late =
        runtime.exec_sync(&main, &strings(&["sleep", "100"]), Duration::from_secs(1)).await.unwrap_err();
    assert!(
        matches!(&late, Error::Timeout(text) if text == "command timed out: \"sleep 100\" timed out after 1s"),
        "{late}"
    );

    // Use of resources, and their limits.
    let stats = runtime.container_stats().await.unwrap();
    let stats = stats.iter().find(|stats| stats.id == main).expect("a running container has stats");
    assert!(stats.memory_usage > 0 && stats.sandbox_id == sandbox && stats.name == "main", "{stats:?}");
    let limit = Resources { memory_limit: 64 << 20, ..Resources::default() };
    runtime.update_resources(&main, &limit).await.unwrap();

    // The end.
    runtime.stop_container(&main, Duration::from_secs(10)).await.unwrap();
    let status = runtime.container_status(&main).await.unwrap();
    assert_eq!((status.state, status.exit_code, status.pid), (ContainerState::Exited, 3, 0));
    assert!(status.finished_at > status.started_at && status.started_at.is_some());
    let event = events.recv().await.unwrap();
    assert_eq!((&event.container_id, event.kind), (&main, ContainerEventKind::Exited));
    runtime.stop_container(&main, Duration::ZERO).await.unwrap();

    // Whoever comes next knows what the sandbox was made from.
    let next = containerd.connect().await;
    let mut config = container_config(&image.id, "who", "id -u; id -g");
    config.security = Security { group: Some(44), ..Security::default() };
    let who = next.create_container(&sandbox, &config).await.unwrap();
    next.start_container(&who).await.unwrap();
    let status = until_exited(&next, &who).await;
    let log = until_file_has(&status.log_path, "F 44").await;
    assert!(log.contains("F 33\n"), "{log}");
    assert_eq!(next.containers().await.unwrap().len(), 2);

    for _ in 0..2 {
        runtime.remove_container(&who).await.unwrap();
        runtime.remove_sandbox(&sandbox).await.unwrap();
    }
    assert_eq!(runtime.containers().await.unwrap(), []);
    assert_eq!(runtime.sandboxes().await.unwrap(), []);
    assert!(matches!(runtime.container_status(&main).await, Err(Error::NotFound(_))));
    for _ in 0..2 {
        runtime.remove_image(&image.id).await.unwrap();
    }
    assert_eq!(runtime.image_status(IMAGE).await.unwrap(), None);
}

/// An import is known to CRI a moment after it was made.
async fn until_imported(runtime: &CriRuntime) -> crate::ImageStatus {
    let look = async {
        loop {
            // The sandboxes' name for it may be the first that is known.
            match runtime.image_status(IMAGE).await.unwrap() {
                Some(image) if image.tags.len() == 2 => return image,
                _ => rt::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    rt::timeout(Duration::from_secs(20), look).await.expect("the image arrives")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_containers_and_ports_are_connected_to() {
    let Some(containerd) = Containerd::start() else { return };
    let runtime = containerd.connect().await;
    containerd.ctr(&["images", "import", containerd.path("image.tar").as_str()]);
    let image = until_imported(&runtime).await;
    let sandbox = runtime.run_sandbox(&sandbox_config(&containerd, "web")).await.unwrap();
    let main =
        runtime.create_container(&sandbox, &container_config(&image.id, "main", "sleep 1000")).await.unwrap();
    runtime.start_container(&main).await.unwrap();

    // A command reads its stdin to the end, and goes on.
    let all = Streams { stdin: true, stdout: true, stderr: true, tty: false };
    let command = strings(&["sh", "-c", "cat; echo done >&2; exit 7"]);
    let Attached { stdin, stdout, stderr, exit, .. } = runtime.exec(&main, &command, all).await.unwrap();
    let sent = "0123456789abcdef".repeat(64 << 10);
    let mut stdin = stdin.unwrap();
    let send = async {
        stdin.write_all(sent.as_bytes()).await.unwrap();
        drop(stdin);
    };
    let ((), out, err) = tokio::join!(send, read_all(stdout), read_all(stderr));
    assert!(out == sent, "{} bytes came back of {}", out.len(), sent.len());
    assert_eq!((err.as_str(), exit.await.unwrap()), ("done\n", 7));

    // What cannot run says why.
    let only_out = Streams { stdout: true, ..Streams::default() };
    let Attached { exit, .. } = runtime.exec(&main, &strings(&["/no/such/file"]), only_out).await.unwrap();
    let failed = exit.await.unwrap_err().to_string();
    assert!(failed.contains("/no/such/file"), "{failed}");
    assert!(matches!(runtime.exec("no-such-container", &command, all).await, Err(Error::NotFound(_))));

    // A terminal has the size that it is given.
    let terminal = Streams { stdin: true, stdout: true, stderr: false, tty: true };
    let command = strings(&["sh", "-c", "read line; stty size"]);
    let Attached { stdin, stdout, resize, exit, .. } = runtime.exec(&main, &command, terminal).await.unwrap();
    let (mut stdin, mut stdout) = (stdin.unwrap(), stdout.unwrap());
    resize.unwrap().send(TerminalSize { width: 91, height: 33 }).await.unwrap();
    // The size and the line go on streams of their own; the size is taken well before the echo of the second line.
    rt::sleep(Duration::from_millis(500)).await;
    stdin.write_all(b"go\n").await.unwrap();
    let mut shown = String::new();
    stdout.read_to_string(&mut shown).await.unwrap();
    assert!(shown.contains("33 91"), "{shown:?}");
    assert_eq!(exit.await.unwrap(), 0);

    // A container with stdin ends with it.
    let mut config = container_config(&image.id, "echo", "cat; exit 0");
    (config.stdin, config.stdin_once) = (true, true);
    let echo = runtime.create_container(&sandbox, &config).await.unwrap();
    runtime.start_container(&echo).await.unwrap();
    let streams = Streams { stdin: true, stdout: true, ..Streams::default() };
    let Attached { stdin, stdout, exit, .. } = runtime.attach(&echo, streams).await.unwrap();
    stdin.unwrap().write_all(b"hi there\n").await.unwrap();
    assert_eq!(read_all(stdout).await, "hi there\n");
    assert_eq!(exit.await.unwrap(), 0);
    assert_eq!(until_exited(&runtime, &echo).await.exit_code, 0);

    // A port; the pod is in the host's network, where this test listens.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut forwarded = runtime.port_forward(&sandbox, port).await.unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(b"pong").await.unwrap();
        request
    };
    let ask = async {
        forwarded.write_all(b"ping").await.unwrap();
        let mut answer = String::new();
        forwarded.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (request, answer) = tokio::join!(serve, ask);
    assert_eq!((&request, answer.as_str()), (b"ping", "pong"));
    drop(listener);
    let mut refused = runtime.port_forward(&sandbox, port).await.unwrap();
    let refused = refused.read(&mut [0; 1]).await.unwrap_err().to_string();
    assert!(refused.contains("connection refused"), "{refused}");

    runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_takes_too_much_memory_is_told_of() {
    let Some(containerd) = Containerd::start() else { return };
    let runtime = containerd.connect().await;
    containerd.ctr(&["images", "import", containerd.path("image.tar").as_str()]);
    let image = until_imported(&runtime).await;
    let sandbox = runtime.run_sandbox(&sandbox_config(&containerd, "greedy")).await.unwrap();
    let mut config = container_config(&image.id, "greedy", "x=0123456789; while :; do x=$x$x; done");
    config.resources.memory_limit = 24 << 20;
    let mut events = runtime.events();
    let greedy = runtime.create_container(&sandbox, &config).await.unwrap();
    runtime.start_container(&greedy).await.unwrap();
    let status = until_exited(&runtime, &greedy).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    let mut kinds = vec![];
    while kinds.last() != Some(&ContainerEventKind::Exited) {
        let event =
            rt::timeout(Duration::from_secs(20), events.recv()).await.expect("the end is told").unwrap();
        assert_eq!(event.container_id, greedy);
        kinds.push(event.kind);
    }
    assert!(kinds.contains(&ContainerEventKind::OutOfMemory), "{kinds:?}");
    runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_has_the_network_the_names_and_the_namespaces_that_it_was_given() {
    let Some(containerd) = Containerd::start_with_network() else { return };
    let runtime = containerd.connect().await;
    containerd.ctr(&["images", "import", containerd.path("image.tar").as_str()]);
    let image = until_imported(&runtime).await;
    until_network_ready(&runtime).await;
    let dns = Dns {
        servers: vec!["10.96.0.10".to_owned()],
        searches: strings(&["test.svc.cluster.local", "cluster.local"]),
        options: vec!["ndots:5".to_owned()],
    };
    let config = SandboxConfig {
        hostname: "web-0".to_owned(),
        dns: Some(dns),
        sysctls: [("net.ipv4.ip_unprivileged_port_start".to_owned(), "81".to_owned())].into(),
        namespaces: Namespaces { shared_pid: true, ..Namespaces::default() },
        privileged: true,
        ..sandbox_config(&containerd, "web")
    };
    let sandbox = runtime.run_sandbox(&config).await.unwrap();
    let [status] = &runtime.sandboxes().await.unwrap()[..] else { panic!("one sandbox") };
    assert_eq!(
        status.addresses,
        ["10.251.0.2", "fd00:251::2"].map(|address| address.parse::<IpAddr>().unwrap())
    );
    assert!(!status.host_network);

    let volume = containerd.path("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("note"), "from the host\n").unwrap();
    let script = "cat /etc/hostname /etc/resolv.conf /proc/sys/net/ipv4/ip_unprivileged_port_start /volume/note; \
                  echo x > /volume/note || echo read-only; id -G; cat /proc/1/cmdline; cat /proc/self/status";
    let main = ContainerConfig {
        mounts: vec![Mount { source: volume, target: "/volume".into(), read_only: true, ..Mount::default() }],
        security: Security {
            user: User::Id(5),
            group: Some(6),
            supplemental_groups: vec![7],
            drop_capabilities: vec!["ALL".to_owned()],
            no_new_privileges: true,
            seccomp: Seccomp::RuntimeDefault,
            ..Security::default()
        },
        ..container_config(&image.id, "main", script)
    };
    let main = runtime.create_container(&sandbox, &main).await.unwrap();
    runtime.start_container(&main).await.unwrap();
    let status = until_exited(&runtime, &main).await;
    let log = until_file_has(&status.log_path, "Seccomp:").await;
    for line in [
        "web-0",
        "search test.svc.cluster.local cluster.local",
        "nameserver 10.96.0.10",
        "options ndots:5",
        "81",
        "from the host",
        "read-only",
        "6 7",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapBnd:\t0000000000000000",
    ] {
        assert!(log.contains(&format!(" F {line}\n")), "{line:?} is missing in {log}");
    }
    assert!(log.contains("sleep\u{0}100000"), "the first process is the sandbox's: {log}");
    assert!(
        status.mounts.iter().any(|mount| mount.target == "/volume" && mount.read_only),
        "{:?}",
        status.mounts
    );

    // What is privileged sees all of /proc.
    let mut config = container_config(&image.id, "privileged", "cat /proc/self/status; head -c 1 /proc/keys");
    config.security = Security { privileged: true, user: User::Id(0), ..Security::default() };
    let privileged = runtime.create_container(&sandbox, &config).await.unwrap();
    runtime.start_container(&privileged).await.unwrap();
    let log = until_file_has(&until_exited(&runtime, &privileged).await.log_path, "Seccomp:").await;
    assert!(log.contains("Seccomp:\t0\n") && !log.contains("CapEff:\t0000000000000000"), "{log}");
    runtime.remove_sandbox(&sandbox).await.unwrap();
}

/// Containerd finds the network's configuration a moment after it began to answer.
async fn until_network_ready(runtime: &CriRuntime) {
    let look = async {
        loop {
            let conditions = runtime.health().await.unwrap().conditions;
            if conditions.iter().any(|condition| condition.kind == "NetworkReady" && condition.status) {
                return;
            }
            rt::sleep(Duration::from_millis(20)).await;
        }
    };
    rt::timeout(Duration::from_secs(20), look).await.expect("the network is ready");
}

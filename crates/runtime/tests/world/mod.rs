//! A node of its own for each test: folders, control groups and a store with one image.

#![allow(dead_code, reason = "each test uses some of it")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use runtime::embedded::{EmbeddedRuntime, ImageConfig, Images, Options, Owner};
use runtime::spec::{
    ContainerConfig, ContainerState, ContainerStatus, FilesystemUsage, ImageStatus, Namespaces, PullRequest,
    SandboxConfig, SandboxState,
};
use runtime::{Error, Result, Runtime};
use rustix::mount::{MountFlags, mount};

/// An end that is waited for comes within this time, also on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(30);
const BUSYBOX: &str = "/bin/busybox";

/// Images that are folders: one, of busybox.
struct Folders {
    root: Utf8PathBuf,
}

impl Folders {
    fn new(root: Utf8PathBuf) -> Self {
        let image = root.join("image");
        for folder in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
            std::fs::create_dir_all(image.join(folder)).unwrap();
        }
        std::fs::copy(BUSYBOX, image.join("bin/busybox")).unwrap();
        for applet in [
            "sh", "echo", "cat", "sleep", "hostname", "ls", "id", "stty", "head", "dd", "tr", "nc", "ps",
            "grep", "touch", "mkdir", "kill", "env", "pwd", "true", "mount", "unshare", "readlink", "wc",
            "test", "tail", "mknod", "printf",
        ] {
            std::os::unix::fs::symlink("busybox", image.join("bin").join(applet)).unwrap();
        }
        std::fs::write(
            image.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/srv:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(image.join("etc/group"), "root:x:0:\napp:x:1000:\nwheel:x:10:app\n").unwrap();
        std::fs::write(image.join("etc/not-a-program"), "text").unwrap();
        Self { root }
    }

    fn layer(&self, key: &str) -> Utf8PathBuf {
        self.root.join("layers").join(key)
    }
}

#[async_trait]
impl Images for Folders {
    async fn config(&self, image: &str) -> Result<ImageConfig> {
        if image != "busybox" {
            return Err(Error::NotFound(format!("no image {image}")));
        }
        Ok(ImageConfig { cmd: vec!["sh".into()], env: vec!["PATH=/bin".into()], ..ImageConfig::default() })
    }

    async fn mount(&self, _: &str, key: &str, target: &Utf8Path, owner: Option<&Owner>) -> Result<()> {
        let mut image = self.root.join("image");
        let (upper, work) = (self.layer(key).join("upper"), self.layer(key).join("work"));
        std::fs::create_dir_all(&upper).unwrap();
        std::fs::create_dir_all(&work).unwrap();
        if let Some(owner) = owner {
            let mapped = self.layer(key).join("image");
            owner.mount(&image, &mapped).map_err(|error| Error::Failed(error.to_string()))?;
            owner.give(&upper).unwrap();
            image = mapped;
        }
        let options = format!("lowerdir={image},upperdir={upper},workdir={work}");
        let options = std::ffi::CString::new(options).unwrap();
        mount("overlay", target.as_std_path(), "overlay", MountFlags::empty(), Some(options.as_c_str()))
            .map_err(|error| Error::Failed(format!("cannot mount: {error}")))
    }

    async fn mount_read_only(
        &self,
        _: &str,
        _: &str,
        target: &Utf8Path,
        owner: Option<&Owner>,
    ) -> Result<()> {
        let image = self.root.join("image");
        if let Some(owner) = owner {
            return owner.mount(&image, target).map_err(|error| Error::Failed(error.to_string()));
        }
        rustix::mount::mount_bind(image.as_std_path(), target.as_std_path())
            .map_err(|error| Error::Failed(format!("cannot mount: {error}")))
    }

    async fn remove_layer(&self, key: &str) -> Result<()> {
        let mapped = self.layer(key).join("image");
        let _ = rustix::mount::unmount(mapped.as_str(), rustix::mount::UnmountFlags::DETACH);
        let _ = std::fs::remove_dir_all(self.layer(key));
        Ok(())
    }

    async fn retain_layers(&self, _: &[String]) -> Result<()> {
        Ok(())
    }

    async fn layer_usage(&self, _: &str) -> Result<(u64, u64)> {
        Ok((0, 0))
    }

    async fn pull(&self, request: &PullRequest) -> Result<String> {
        Ok(request.image.clone())
    }

    async fn status(&self, _: &str) -> Result<Option<ImageStatus>> {
        Ok(None)
    }

    async fn list(&self) -> Result<Vec<ImageStatus>> {
        Ok(Vec::new())
    }

    async fn remove(&self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn filesystem(&self) -> Result<FilesystemUsage> {
        Ok(FilesystemUsage::default())
    }
}

pub struct World {
    pub runtime: Arc<EmbeddedRuntime>,
    images: Arc<dyn Images>,
    pub dir: Utf8PathBuf,
    pub group: String,
    _temp: tempfile::TempDir,
}

impl World {
    /// `None`, and says why, where this machine cannot run containers.
    pub async fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        if !Path::new(BUSYBOX).exists() {
            println!("skipped: needs a static {BUSYBOX} (Debian: busybox-static)");
            return None;
        }
        if !Path::new("/sys/fs/cgroup").exists() {
            println!("skipped: needs control groups");
            return None;
        }
        let temp = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::try_from(temp.path().canonicalize().unwrap()).unwrap();
        let group = format!("/pintle-test-{}", rt::uuid());
        let images: Arc<dyn Images> = Arc::new(Folders::new(dir.join("images")));
        let runtime = open(&dir, &images).await;
        Some(Self { runtime, images, dir, group, _temp: temp })
    }

    /// As if this process had ended, in whatever way, and another one came.
    pub async fn reopen(&mut self) {
        self.runtime = open(&self.dir, &self.images).await;
    }

    /// The same with other images.
    pub async fn use_images(&mut self, images: Arc<dyn Images>) {
        self.images = images;
        self.reopen().await;
    }

    pub fn sandbox_config(&self) -> SandboxConfig {
        let uid = rt::uuid();
        SandboxConfig {
            name: "web-0".into(),
            namespace: "default".into(),
            hostname: "web-0".into(),
            log_directory: self.dir.join("logs").join(&uid),
            cgroup_parent: format!("{}/pod{uid}", self.group),
            namespaces: Namespaces::default(),
            uid,
            ..SandboxConfig::default()
        }
    }

    pub async fn sandbox(&self) -> String {
        self.runtime.run_sandbox(&self.sandbox_config()).await.unwrap()
    }

    pub async fn create(&self, sandbox: &str, config: ContainerConfig) -> String {
        self.runtime.create_container(sandbox, &config).await.unwrap()
    }

    pub async fn start(&self, sandbox: &str, config: ContainerConfig) -> String {
        let id = self.create(sandbox, config).await;
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    /// The output of a container that runs to its end.
    pub async fn run(&self, sandbox: &str, config: ContainerConfig) -> (i32, String) {
        let id = self.start(sandbox, config).await;
        let status = self.ended(&id).await;
        let lines: Vec<String> =
            self.log(&id).await.iter().map(|line| line.splitn(3, ' ').nth(2).unwrap().to_owned()).collect();
        (status.exit_code, lines.join("\n"))
    }

    pub async fn status(&self, id: &str) -> ContainerStatus {
        self.runtime.container_status(id).await.unwrap()
    }

    /// The status of a container once it has ended.
    pub async fn ended(&self, id: &str) -> ContainerStatus {
        let mut events = self.runtime.events();
        let ended = async {
            loop {
                let status = self.status(id).await;
                if status.state == ContainerState::Exited {
                    return status;
                }
                let _ = events.recv().await;
            }
        };
        rt::timeout(PATIENCE, ended).await.expect("the container ends")
    }

    /// The lines of its log, without their times.
    pub async fn log(&self, id: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.status(id).await.log_path).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    /// Waits until a line is in the log.
    pub async fn logged(&self, id: &str, text: &str) {
        let path = self.status(id).await.log_path;
        self.until(|| std::fs::read_to_string(&path).is_ok_and(|log| log.contains(text))).await;
    }

    /// Waits until somebody listens on a port in the pod.
    pub async fn listening(&self, sandbox: &str, port: u16) {
        let pid =
            self.runtime.containers().await.unwrap().into_iter().find(|status| status.sandbox_id == sandbox);
        let table = format!("/proc/{}/net/tcp", pid.unwrap().pid);
        let (v4, v6) = (format!(":{port:04X} 00000000:0000 0A"), format!("{table}6"));
        self.until(|| {
            [&table, &v6].iter().any(|table| {
                std::fs::read_to_string(table).is_ok_and(|text| {
                    text.contains(&v4)
                        || text.contains(&format!(":{port:04X} 00000000000000000000000000000000:0000 0A"))
                })
            })
        })
        .await;
    }

    /// Waits until a sandbox is known to be of no use any more.
    pub async fn not_ready(&self, sandbox: &str) {
        let reached = async {
            loop {
                let all = self.runtime.sandboxes().await.unwrap();
                if all.iter().any(|status| status.id == sandbox && status.state == SandboxState::NotReady) {
                    return;
                }
                rt::sleep(Duration::from_millis(5)).await;
            }
        };
        rt::timeout(PATIENCE, reached).await.expect("the sandbox is not ready");
    }

    /// Waits for something that tells nobody: files of others.
    async fn until(&self, holds: impl Fn() -> bool) {
        let reached = async {
            while !holds() {
                rt::sleep(Duration::from_millis(5)).await;
            }
        };
        rt::timeout(PATIENCE, reached).await.expect("what is waited for comes");
    }

    /// The program beside a container.
    pub fn beside(&self, id: &str) -> rustix::process::Pid {
        let dir = self.dir.join("state/containers").join(id);
        let found = Utf8Path::new("/proc").read_dir_utf8().unwrap().flatten().find(|process| {
            let command = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            command.trim_end_matches('\0').ends_with(dir.as_str()) && !process.file_name().starts_with('s')
        });
        rustix::process::Pid::from_raw(found.unwrap().file_name().parse().unwrap()).unwrap()
    }

    /// What the program beside a container has in memory.
    pub fn resident(&self, id: &str) -> String {
        let pid = self.beside(id).as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = |name: &str| {
            status
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_default()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        format!("{}, {}", line("VmRSS"), line("RssAnon"))
    }

    /// A container's limit, by the file's name in both versions of control groups.
    pub async fn limit(&self, id: &str, v1: &str, v2: &str) -> String {
        let mut found = Vec::new();
        for group in self.groups() {
            for pod in group.read_dir_utf8().unwrap().flatten() {
                for file in [v1, v2] {
                    found.extend(std::fs::read_to_string(pod.path().join(id).join(file)).ok());
                }
            }
        }
        found.first().unwrap().trim().to_owned()
    }

    /// Removes everything, and sees that nothing is left.
    pub async fn end(self) {
        for sandbox in self.runtime.sandboxes().await.unwrap() {
            self.runtime.remove_sandbox(&sandbox.id).await.unwrap();
        }
        let leftovers = self.leftovers();
        assert!(leftovers.is_empty(), "left behind: {leftovers:#?}");
    }

    fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(self.dir.as_str())).map(str::to_owned));
        for folder in
            ["state/sandboxes", "state/containers", "state/execs", "root/sandboxes", "root/containers"]
        {
            let entries = self.dir.join(folder).read_dir_utf8().unwrap();
            left.extend(entries.map(|entry| entry.unwrap().path().to_string()));
        }
        for group in self.groups() {
            left.extend(group.read_dir_utf8().unwrap().flatten().filter_map(|entry| {
                entry.file_type().is_ok_and(|kind| kind.is_dir()).then(|| entry.path().to_string())
            }));
        }
        for process in Utf8Path::new("/proc").read_dir_utf8().unwrap().flatten() {
            let command = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            if command.contains(self.dir.as_str()) {
                left.push(format!("process {}: {}", process.file_name(), command.replace('\0', " ")));
            }
        }
        left
    }

    /// This test's groups, in every hierarchy.
    fn groups(&self) -> Vec<Utf8PathBuf> {
        let name = self.group.trim_start_matches('/');
        let root = Utf8Path::new("/sys/fs/cgroup");
        let below = root.read_dir_utf8().unwrap().flatten().map(|entry| entry.path().join(name));
        below.chain([root.join(name)]).filter(|group| group.is_dir()).collect()
    }
}

impl Drop for World {
    /// What a test that failed leaves is ended as well.
    fn drop(&mut self) {
        // What was killed takes the kernel a moment; a group that is still in use then stays.
        for _ in 0..1000 {
            let groups = self.groups();
            if groups.is_empty() {
                break;
            }
            for group in groups {
                kill(&group);
                remove(&group);
            }
            std::thread::yield_now();
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for target in mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)) {
            if target.starts_with(self.dir.as_str()) {
                let _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
            }
        }
    }
}

fn kill(group: &Utf8Path) {
    for process in std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Some(process) = process.parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
    }
    for entry in group.read_dir_utf8().into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            kill(entry.path());
        }
    }
}

/// As far as the kernel is done with what was killed.
fn remove(group: &Utf8Path) {
    for entry in group.read_dir_utf8().into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(entry.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}

async fn open(dir: &Utf8Path, images: &Arc<dyn Images>) -> Arc<EmbeddedRuntime> {
    let options = Options {
        root: dir.join("root"),
        state: dir.join("state"),
        shim: vec![env!("CARGO_BIN_EXE_container-shim").to_owned()],
        images: Arc::clone(images),
        network: None,
    };
    EmbeddedRuntime::open(options).await.unwrap()
}

/// A container that runs a script.
pub fn shell(script: &str) -> ContainerConfig {
    let name = format!("c-{}", rt::name_suffix(5));
    ContainerConfig {
        log_path: format!("{name}/0.log").into(),
        name,
        image: "busybox".into(),
        command: vec!["sh".into(), "-c".into(), script.into()],
        ..ContainerConfig::default()
    }
}

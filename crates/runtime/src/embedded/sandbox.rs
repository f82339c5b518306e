//! One sandbox: a pod's namespaces, network, group and common files.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use parking_lot::Mutex;
use rustix::mount::{MountFlags, mount};
use rustix::process::Pid;

use super::namespaces::{self, Wanted};
use super::record::SandboxRecord;
use super::user_namespace::{self, Owner};
use super::{Shared, blocking, clear, failed, holder, new_id, shim};
use crate::spec::{Dns, Resources, SandboxConfig, SandboxState};
use crate::{Duplex, Error, PodNetwork, Result};

/// As large as everybody's.
const SHM_BYTES: u64 = 64 << 20;
pub(super) const SHM: &str = "shm";
pub(super) const HOSTNAME: &str = "hostname";
pub(super) const RESOLV_CONF: &str = "resolv.conf";

pub(super) struct Sandbox {
    pub(super) record: Mutex<SandboxRecord>,
    operation: tokio::sync::Mutex<()>,
}

impl Sandbox {
    fn new(record: SandboxRecord) -> Self {
        Self { record: Mutex::new(record), operation: tokio::sync::Mutex::default() }
    }

    pub(super) async fn run(shared: &Arc<Shared>, config: &SandboxConfig) -> Result<String> {
        if config.namespaces.user.is_some()
            && let Some(closed) = user_namespace::closed_on_the_way(&shared.state)
        {
            return Err(Error::Refused {
                reason: "FailedCreatePodSandBox",
                message: format!(
                    "the pod's own users (hostUsers: false) cannot pass through {closed}: let others do so (chmod o+x)"
                ),
            });
        }
        if !["", super::HANDLER].contains(&config.handler.as_str()) {
            return Err(Error::Refused {
                reason: "FailedCreatePodSandBox",
                message: format!("no runtime for \"{}\" is configured", config.handler),
            });
        }
        let id = new_id();
        let record = SandboxRecord {
            id: id.clone(),
            config: config.clone(),
            state: SandboxState::NotReady,
            created_at: rt::now(),
            addresses: Vec::new(),
            holder: None,
        };
        // Remembered before anything exists, so that a crash leaves nothing that nobody knows of.
        shared
            .sandbox_records
            .save(&id, &record)
            .map_err(|error| failed("cannot remember the sandbox", error))?;
        let sandbox = Self::new(record);
        let entering = Arc::clone(shared);
        blocking(move || {
            entering.enclosure.enter();
            Ok(())
        })
        .await
        .map_err(|error| failed("cannot make room for the sandbox", error))?;
        if let Err(error) = sandbox.make(shared).await {
            let unmade = match sandbox.detach(shared).await {
                Ok(()) => sandbox.take_back(shared).await,
                Err(_) => sandbox.abandon(shared).await,
            };
            // The first error is the one to tell.
            if let Err(error) = unmade {
                tracing::warn!(sandbox = id, %error, "A sandbox that could not be made leaves something behind");
            }
            if let Err(error) = shared.sandbox_records.remove(&id) {
                tracing::warn!(sandbox = id, %error, "A sandbox that could not be made is not forgotten");
            }
            shared.enclosure.leave();
            return Err(error);
        }
        let sandbox = Arc::new(sandbox);
        sandbox.watch_holder(shared);
        shared.sandboxes.lock().insert(id.clone(), sandbox);
        Ok(id)
    }

    async fn make(&self, shared: &Shared) -> Result<()> {
        let SandboxRecord { id, config, .. } = self.record.lock().clone();
        let dir = shared.sandbox_dir(&id);
        if !config.cgroup_parent.is_empty() {
            shared
                .cgroups
                .create(&config.cgroup_parent)
                .and_then(|()| shared.cgroups.apply(&config.cgroup_parent, &config.resources))
                .map_err(|error| failed("cannot make the pod's control group", error))?;
        }
        let wanted = wanted(&config, &shared.shim);
        let holder = {
            let (dir, config, shim) = (dir.clone(), config.clone(), shared.shim.clone());
            blocking(move || {
                write_files(&dir, &config)?;
                namespaces::pin(&dir, &wanted, config.namespaces.user, &shim)
            })
            .await
            .map_err(|error| failed("cannot make the pod's namespaces", error))?
        };
        if let Some(holder) = holder {
            self.record.lock().holder = Some(holder);
            let cgroup = self.record.lock().cgroup();
            shared.cgroups.create(&cgroup).and_then(|()| shared.cgroups.enter(&cgroup, holder)).map_err(
                |error| failed("cannot put the pod's first process into its control group", error),
            )?;
        }
        if let Some(network) = shared.network.as_ref().filter(|_| !config.namespaces.host_network) {
            let addresses = network.attach(&dir.join(namespaces::NETWORK), &config, &id).await?;
            self.record.lock().addresses = addresses;
        }
        let record = {
            let mut record = self.record.lock();
            record.state = SandboxState::Ready;
            record.clone()
        };
        shared
            .sandbox_records
            .save(&id, &record)
            .map_err(|error| failed("cannot remember the sandbox", error))
    }

    /// Takes over a sandbox of a former process.
    pub(super) async fn restore(shared: &Arc<Shared>, record: SandboxRecord) -> Result<()> {
        let id = record.id.clone();
        let dir = shared.sandbox_dir(&id);
        let whole = record.state == SandboxState::Ready && is_whole(&dir, &record.config);
        let sandbox = Arc::new(Self::new(record));
        if whole {
            sandbox.watch_holder(shared);
        } else {
            // Its end, or its beginning, was cut short, or the machine was started anew.
            sandbox.abandon(shared).await?;
            sandbox.note_stopped(shared)?;
        }
        shared.sandboxes.lock().insert(id, sandbox);
        Ok(())
    }

    fn note_stopped(&self, shared: &Shared) -> Result<()> {
        {
            let mut record = self.record.lock();
            record.state = SandboxState::NotReady;
            record.holder = None;
        }
        self.save(shared)
    }

    /// Where the first process of the shared process namespace ends unasked, all its containers have, and the pod needs
    /// another sandbox.
    fn watch_holder(self: &Arc<Self>, shared: &Arc<Shared>) {
        let holder = self.record.lock().holder.and_then(|holder| Pid::from_raw(i32::try_from(holder).ok()?));
        let Some(holder) = holder else { return };
        let (sandbox, shared) = (Arc::clone(self), Arc::clone(shared));
        rt::spawn("sandbox-watch", async move {
            // Gone already is an end as well.
            let _ = holder::ended(holder).await;
            let unasked = {
                let mut record = sandbox.record.lock();
                let unasked = record.state == SandboxState::Ready && record.holder.is_some();
                record.state = SandboxState::NotReady;
                unasked
            };
            if unasked && let Err(error) = sandbox.save(&shared) {
                tracing::warn!(%error, "The end of a pod's first process is known to this process only");
            }
        });
    }

    fn save(&self, shared: &Shared) -> Result<()> {
        let record = self.record.lock().clone();
        shared
            .sandbox_records
            .save(&record.id, &record)
            .map_err(|error| failed("cannot remember the sandbox", error))
    }

    /// Takes back everything that [`Self::make`] made, as far as it came; where the network does not let go, nothing.
    async fn unmake(&self, shared: &Shared) -> Result<()> {
        self.detach(shared).await?;
        self.take_back(shared).await
    }

    /// As [`Self::unmake`], where nobody would try it again: what the network keeps is left to it.
    async fn abandon(&self, shared: &Shared) -> Result<()> {
        if let Some((network, netns, record)) = self.network(shared) {
            network.abandon(&netns, &record.config, &record.id).await?;
        }
        self.take_back(shared).await
    }

    async fn detach(&self, shared: &Shared) -> Result<()> {
        match self.network(shared) {
            Some((network, netns, record)) => network.detach(&netns, &record.config, &record.id).await,
            None => Ok(()),
        }
    }

    /// Who connected it, and what it is known by there; `None` where it has the host's network.
    fn network<'a>(&self, shared: &'a Shared) -> Option<(&'a dyn PodNetwork, Utf8PathBuf, SandboxRecord)> {
        let record = self.record.lock().clone();
        let network = shared.network.as_deref().filter(|_| !record.config.namespaces.host_network)?;
        Some((network, shared.sandbox_dir(&record.id).join(namespaces::NETWORK), record))
    }

    async fn take_back(&self, shared: &Shared) -> Result<()> {
        let record = self.record.lock().clone();
        let dir = shared.sandbox_dir(&record.id);
        if let Some(holder) = record.holder {
            holder::end(&dir, holder).map_err(|error| failed("cannot end the pod's first process", error))?;
        }
        let cgroup = record.cgroup();
        shared
            .cgroups
            .kill(&cgroup)
            .await
            .map_err(|error| failed("cannot end the pod's processes", error))?;
        shared
            .cgroups
            .remove(&cgroup)
            .await
            .map_err(|error| failed("cannot remove a control group", error))?;
        blocking(move || {
            namespaces::unpin(&dir)?;
            namespaces::unmount_all(&dir.join(SHM))?;
            clear(&dir)
        })
        .await
        .map_err(|error| failed("cannot remove the sandbox's files", error))
    }

    pub(super) async fn stop(&self, shared: &Arc<Shared>) -> Result<()> {
        let _operation = self.operation.lock().await;
        self.stop_held(shared).await
    }

    async fn stop_held(&self, shared: &Arc<Shared>) -> Result<()> {
        let id = self.record.lock().id.clone();
        let ends = shared.containers_of(&id).into_iter().map(|container| {
            let shared = Arc::clone(shared);
            async move { container.stop(&shared, Duration::ZERO).await }
        });
        futures::future::try_join_all(ends).await?;
        let stopped = {
            let record = self.record.lock();
            record.state == SandboxState::NotReady && record.holder.is_none()
        };
        if stopped {
            return Ok(());
        }
        self.unmake(shared).await?;
        self.note_stopped(shared)
    }

    pub(super) async fn remove(&self, shared: &Arc<Shared>) -> Result<()> {
        let _operation = self.operation.lock().await;
        self.stop_held(shared).await?;
        let SandboxRecord { id, config, .. } = self.record.lock().clone();
        for container in shared.containers_of(&id) {
            container.remove(shared).await?;
        }
        shared.sandbox_records.remove(&id).map_err(|error| failed("cannot forget the sandbox", error))?;
        if shared.sandboxes.lock().remove(&id).is_some() {
            shared.enclosure.leave();
        }
        shared.cgroups.remove_if_empty(&config.cgroup_parent);
        Ok(())
    }

    /// Whose its files are, if it has users of its own.
    pub(super) fn owner(&self, shared: &Shared) -> Option<Owner> {
        let record = self.record.lock();
        record.config.namespaces.user.map(|ids| Owner::new(&shared.sandbox_dir(&record.id), ids))
    }

    /// Held while a container is made in it: it must be ready, and stay so.
    pub(super) async fn hold_ready(&self) -> Result<tokio::sync::MutexGuard<'_, ()>> {
        let operation = self.operation.lock().await;
        let record = self.record.lock();
        if record.state != SandboxState::Ready {
            return Err(Error::Failed(format!("sandbox {} is not ready", record.id)));
        }
        drop(record);
        Ok(operation)
    }

    /// Changes the limits of the pod as a whole.
    pub(super) async fn update(&self, shared: &Shared, resources: &Resources) -> Result<()> {
        let _operation = self.hold_ready().await?;
        let config = self.record.lock().config.clone();
        if config.cgroup_parent.is_empty() || config.resources == *resources {
            return Ok(());
        }
        shared
            .cgroups
            .apply(&config.cgroup_parent, resources)
            .map_err(|error| failed("cannot update the pod's resources", error))?;
        self.record.lock().config.resources = resources.clone();
        self.save(shared)
    }

    pub(super) async fn connect(&self, shared: &Shared, port: u16) -> Result<Box<dyn Duplex>> {
        let (id, host_network, state) = {
            let record = self.record.lock();
            (record.id.clone(), record.config.namespaces.host_network, record.state)
        };
        if state != SandboxState::Ready {
            return Err(Error::Failed(format!("sandbox {id} is not ready")));
        }
        let namespace = (!host_network).then(|| shared.sandbox_dir(&id).join(namespaces::NETWORK));
        let stream = blocking(move || namespaces::connect(namespace, port)).await;
        stream
            .and_then(|stream| {
                stream.set_nonblocking(true)?;
                tokio::net::TcpStream::from_std(stream)
            })
            .map(|stream| Box::new(stream) as Box<dyn Duplex>)
            .map_err(|error| Error::Failed(error.to_string()))
    }
}

fn wanted(config: &SandboxConfig, shim: &[String]) -> Wanted {
    let namespaces = &config.namespaces;
    let mut sysctls = BTreeMap::new();
    if !namespaces.host_network {
        // As containerd has it: no capability is needed for low ports and for ping.
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        let last_group = namespaces.user.map_or(2_147_483_647, |users| users.length.saturating_sub(1));
        sysctls.insert("net.ipv4.ping_group_range".to_owned(), format!("0 {last_group}"));
    }
    sysctls.extend(config.sysctls.clone());
    Wanted {
        network: !namespaces.host_network,
        ipc: !namespaces.host_ipc,
        uts: (!namespaces.host_network).then(|| config.hostname.clone()),
        pid: namespaces.shared_pid.then(|| shim.iter().cloned().chain([shim::PAUSE.to_owned()]).collect()),
        sysctls,
    }
}

/// The files that all containers of the pod have.
fn write_files(dir: &Utf8Path, config: &SandboxConfig) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    if !config.log_directory.as_str().is_empty() {
        std::fs::create_dir_all(&config.log_directory)?;
    }
    if !config.namespaces.host_network {
        std::fs::write(dir.join(HOSTNAME), format!("{}\n", config.hostname))?;
    }
    if let Some(dns) = &config.dns {
        std::fs::write(dir.join(RESOLV_CONF), resolv_conf(dns))?;
    } else if let Ok(text) = std::fs::read("/etc/resolv.conf") {
        std::fs::write(dir.join(RESOLV_CONF), text)?;
    }
    if !config.namespaces.host_ipc {
        let shm = dir.join(SHM);
        std::fs::create_dir_all(&shm)?;
        let options =
            std::ffi::CString::new(format!("mode=1777,size={SHM_BYTES}")).map_err(io::Error::other)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("shm", shm.as_std_path(), "tmpfs", flags, Some(options.as_c_str()))?;
    }
    let Some(owner) = config.namespaces.user.map(|ids| Owner::new(dir, ids)) else { return Ok(()) };
    let files = [HOSTNAME, RESOLV_CONF, SHM].map(|name| dir.join(name));
    files.iter().filter(|path| path.exists()).try_for_each(|path| owner.give(path))
}

fn resolv_conf(dns: &Dns) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

/// Whether all that the pod has of its own is still there.
fn is_whole(dir: &Utf8Path, config: &SandboxConfig) -> bool {
    let own = &config.namespaces;
    let expected = [
        (namespaces::NETWORK, !own.host_network),
        (namespaces::UTS, !own.host_network),
        (namespaces::IPC, !own.host_ipc),
        (namespaces::PID, own.shared_pid),
        (user_namespace::USER, own.user.is_some()),
    ];
    dir.exists() && expected.into_iter().all(|(kind, wanted)| !wanted || namespaces::is_held(dir, kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Namespaces, UserMapping};

    #[test]
    fn resolver_files_are_written_as_the_kubelet_writes_them() {
        let dns = Dns {
            servers: vec!["10.96.0.10".into(), "1.1.1.1".into()],
            searches: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        let want = "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\nnameserver 1.1.1.1\n\
                    options ndots:5\n";
        assert_eq!(resolv_conf(&dns), want);
        assert_eq!(resolv_conf(&Dns::default()), "");
    }

    #[test]
    fn namespaces_are_those_that_the_pod_does_not_share_with_the_host() {
        let config = |namespaces: Namespaces| SandboxConfig {
            hostname: "web-0".into(),
            namespaces,
            sysctls: [("net.ipv4.ip_unprivileged_port_start".to_owned(), "1024".to_owned())].into(),
            ..SandboxConfig::default()
        };
        let own = wanted(&config(Namespaces { shared_pid: true, ..Namespaces::default() }), &["shim".into()]);
        assert!(own.network && own.ipc);
        assert_eq!(own.uts.as_deref(), Some("web-0"));
        assert_eq!(own.pid.unwrap(), ["shim", "container-pause"]);
        assert_eq!(own.sysctls["net.ipv4.ip_unprivileged_port_start"], "1024", "the pod's wish counts");
        let host =
            wanted(&config(Namespaces { host_network: true, host_ipc: true, ..Namespaces::default() }), &[]);
        assert!(!host.network && !host.ipc && host.uts.is_none() && host.pid.is_none());
        assert!(!host.sysctls.contains_key("net.ipv4.ping_group_range"));
        let users = UserMapping { container: 0, host: 65_536, length: 65_536 };
        let mapped = wanted(&config(Namespaces { user: Some(users), ..Namespaces::default() }), &[]);
        assert_eq!(mapped.sysctls["net.ipv4.ping_group_range"], "0 65535", "no group beyond is the pod's");
    }
}

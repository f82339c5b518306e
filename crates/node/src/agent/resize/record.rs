//! What each pod was granted and given, in memory and on disk: a file of JSON for each pod.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, ResourceRequirements};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::PENDING;
use super::actuation::is_same;
use crate::agent::config::uid;

const FOLDER: &str = "resources";

/// Resources of a pod as a whole and of its containers, as a specification writes them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Amounts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<ResourceRequirements>,
    #[serde(default)]
    pub containers: BTreeMap<String, ResourceRequirements>,
}

impl Amounts {
    /// What the pod asks for.
    pub fn of(pod: &Pod) -> Self {
        let named = containers(pod)
            .map(|container| (container.name.clone(), container.resources.clone().unwrap_or_default()));
        Self { pod: pod.spec.as_ref().and_then(|spec| spec.resources.clone()), containers: named.collect() }
    }

    /// As [`Amounts::of`], but of what its status says that containers have been given. For pods that ran before this
    /// was written down.
    fn of_status(pod: &Pod) -> Self {
        let mut own = Self::of(pod);
        let Some(status) = &pod.status else { return own };
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        for container in all {
            if let (Some(resources), Some(amounts)) =
                (&container.resources, own.containers.get_mut(&container.name))
            {
                amounts.clone_from(resources);
            }
        }
        own
    }

    /// Whether the pod asks for something else.
    fn differs(&self, pod: &Pod) -> bool {
        let of_pod = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
        !is_same(of_pod, self.pod.as_ref())
            || containers(pod).any(|container| {
                let own = self.containers.get(&container.name);
                own.is_some() && !is_same(container.resources.as_ref(), own)
            })
    }

    /// Whether the pod's status says so, and nothing else.
    fn is_told_by(&self, pod: &Pod) -> bool {
        let Some(status) = &pod.status else { return true };
        let pends = |own: &PodCondition| own.type_ == PENDING;
        let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        !status.conditions.iter().flatten().any(pends)
            && all.all(|own| {
                let given = self.containers.get(&own.name);
                (own.resources.is_none() || own.resources.as_ref() == given)
                    && (own.allocated_resources.is_none()
                        || own.allocated_resources.as_ref()
                            == given.and_then(|given| given.requests.as_ref()))
            })
    }

    /// The pod as if it asked for exactly this.
    pub fn apply(&self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        if let Some(spec) = &mut pod.spec {
            spec.resources.clone_from(&self.pod);
            for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                if let Some(own) = self.containers.get(&container.name) {
                    container.resources = Some(own.clone());
                }
            }
        }
        pod
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
}

/// Of one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub allocated: Amounts,
    /// Only of containers that were started.
    #[serde(default)]
    pub given: Amounts,
}

/// Of every pod, by uid.
pub struct Records {
    folder: Utf8PathBuf,
    /// Held while one is written.
    pods: Mutex<HashMap<String, Arc<Record>>>,
}

impl Records {
    /// `root` is the node's folder. What cannot be read is forgotten: the pods' status tells it, too.
    pub fn open(root: &Utf8Path) -> Self {
        let folder = root.join(FOLDER);
        let mut pods = HashMap::new();
        for entry in folder.read_dir_utf8().into_iter().flatten().flatten() {
            let path = entry.path();
            let (Some(uid), Some("json")) = (path.file_stem(), path.extension()) else { continue };
            let read = std::fs::read(path).and_then(|bytes| Ok(serde_json::from_slice::<Record>(&bytes)?));
            match read {
                Ok(record) => {
                    pods.insert(uid.to_owned(), Arc::new(record));
                }
                Err(error) => warn!(%path, %error, "What a pod was granted cannot be read and is forgotten"),
            }
        }
        Self { folder, pods: Mutex::new(pods) }
    }

    pub fn get(&self, uid: &str) -> Option<Arc<Record>> {
        self.pods.lock().get(uid).cloned()
    }

    /// Whether the pod asks for something else than it was granted.
    pub fn differs(&self, pod: &Pod) -> bool {
        self.get(uid(pod)).is_some_and(|record| record.allocated.differs(pod))
    }

    /// The pod as if it asked for exactly what it was granted.
    pub fn apply(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        match self.get(uid(pod)) {
            Some(record) if record.allocated.differs(pod) => Arc::new(record.allocated.apply(pod)),
            _ => pod.clone(),
        }
    }

    /// As [`Records::apply`], with a status that says what containers have: the API's may lag behind.
    pub fn count(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let Some(record) = self.get(uid(pod)) else { return pod.clone() };
        if !record.allocated.differs(pod) && record.given.is_told_by(pod) {
            return pod.clone();
        }
        let mut pod = record.allocated.apply(pod);
        if let Some(status) = &mut pod.status {
            status.conditions = None;
            let lists = [&mut status.container_statuses, &mut status.init_container_statuses];
            for own in lists.into_iter().flatten().flatten() {
                own.resources = record.given.containers.get(&own.name).cloned();
                own.allocated_resources = None;
            }
        }
        Arc::new(pod)
    }

    /// A pod that may run here is granted what it asks for; one that ran here before keeps what it has.
    pub fn admit(&self, pod: &Pod, has_run: bool) {
        if self.get(uid(pod)).is_some() {
            return;
        }
        let allocated = if has_run { Amounts::of_status(pod) } else { Amounts::of(pod) };
        let given = if has_run { allocated.clone() } else { Amounts::default() };
        if let Err(error) = self.put(uid(pod), Record { allocated, given }) {
            warn!(uid = uid(pod), %error, "What a pod was granted could not be written down");
        }
    }

    /// The pod is granted what it asks for.
    ///
    /// # Errors
    /// It could not be written down, and is not granted.
    pub fn allocate(&self, pod: &Pod) -> io::Result<()> {
        let mut record = self.get(uid(pod)).map(|own| (*own).clone()).unwrap_or_default();
        record.allocated = Amounts::of(pod);
        self.put(uid(pod), record)
    }

    /// Containers of the pod, or the pod as a whole, were given something.
    pub fn give(&self, uid: &str, change: impl FnOnce(&mut Amounts)) {
        let Some(old) = self.get(uid) else { return };
        let mut record = (*old).clone();
        change(&mut record.given);
        if record == *old {
            return;
        }
        if let Err(error) = self.put(uid, record) {
            // After a restart it would be given once more, which is no harm.
            warn!(uid, %error, "What a pod was given could not be written down");
        }
    }

    /// The pod is gone.
    pub fn release(&self, uid: &str) {
        let mut pods = self.pods.lock();
        if pods.remove(uid).is_some() {
            self.delete(uid);
        }
    }

    /// Only these pods are there.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        let mut pods = self.pods.lock();
        pods.retain(|uid, _| {
            let stays = is_there(uid);
            if !stays {
                self.delete(uid);
            }
            stays
        });
    }

    fn path(&self, uid: &str) -> Utf8PathBuf {
        self.folder.join(format!("{uid}.json"))
    }

    fn put(&self, uid: &str, record: Record) -> io::Result<()> {
        let mut pods = self.pods.lock();
        let bytes = serde_json::to_vec(&record)?;
        let path = self.path(uid);
        let next = path.with_extension("next");
        let write = || {
            std::fs::write(&next, &bytes)?;
            std::fs::rename(&next, &path)
        };
        match write() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(&self.folder)?;
                write()?;
            }
            written => written?,
        }
        pods.insert(uid.to_owned(), Arc::new(record));
        Ok(())
    }

    fn delete(&self, uid: &str) {
        let path = self.path(uid);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(%path, %error, "What a pod was granted stays on the disk");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::config::fixture;

    fn pod(cpu: &str) -> Pod {
        fixture::pod(serde_json::json!({
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}, {"name": "d"}],
            "initContainers": [{"name": "i", "resources": {"limits": {"memory": "1Gi"}}}],
        }))
    }

    fn root(folder: &tempfile::TempDir) -> &Utf8Path {
        Utf8Path::from_path(folder.path()).expect("temporary paths are text")
    }

    #[test]
    fn what_was_granted_outlives_the_process_and_is_what_the_pod_seems_to_ask_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let records = Records::open(root(&folder));
        records.admit(&pod("100m"), false);
        for (asked, differs) in [("100m", false), ("0.1", false), ("200m", true)] {
            let asked = Arc::new(pod(asked));
            assert_eq!(records.differs(&asked), differs);
            let granted = records.apply(&asked);
            assert_eq!(granted == asked, !differs);
            assert_eq!(Arc::ptr_eq(&granted, &asked), !differs, "nothing is copied needlessly");
        }
        records.allocate(&pod("200m")).expect("it is written");
        records.give("u-1", |given| {
            given.containers.insert("c".into(), ResourceRequirements::default());
        });
        let again = Records::open(root(&folder));
        assert!(!again.differs(&pod("200m")) && again.differs(&pod("100m")));
        assert_eq!(again.get("u-1"), records.get("u-1"));
        // Admitted once is admitted.
        again.admit(&pod("300m"), false);
        assert!(again.differs(&pod("300m")));

        again.release("u-1");
        assert_eq!(Records::open(root(&folder)).get("u-1"), None);
    }

    #[test]
    fn a_pod_that_ran_before_has_what_its_status_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let records = Records::open(root(&folder));
        let mut ran = pod("200m");
        ran.status = serde_json::from_value(serde_json::json!({"containerStatuses": [
            {"name": "c", "resources": {"requests": {"cpu": "100m"}}, "image": "", "imageID": "", "ready": true,
             "restartCount": 0}]}))
        .expect("a status");
        records.admit(&ran, true);
        assert!(records.differs(&ran) && !records.differs(&pod("100m")));
        let record = records.get("u-1").expect("it is known");
        assert_eq!(record.allocated, record.given);
        records.retain(|uid| uid != "u-1");
        assert_eq!(records.get("u-1"), None);
    }

    #[test]
    fn a_pod_counts_with_what_it_has_whatever_its_status_still_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let records = Records::open(root(&folder));
        records.admit(&pod("1"), false);
        records.give("u-1", |given| given.clone_from(&Amounts::of(&pod("1"))));
        let with_status = |cpu: &str| {
            let mut pod = pod("1");
            let amounts = serde_json::json!({"cpu": cpu});
            pod.status = serde_json::from_value(serde_json::json!({"containerStatuses": [
                {"name": "c", "resources": {"requests": amounts}, "allocatedResources": amounts, "image": "",
                 "imageID": "", "ready": true, "restartCount": 0}]}))
            .expect("a status");
            Arc::new(pod)
        };
        let current = with_status("1");
        assert!(Arc::ptr_eq(&records.count(&current), &current), "nothing is copied needlessly");
        let counted = records.count(&with_status("7"));
        let own = &counted.status.as_ref().and_then(|own| own.container_statuses.as_ref()).expect("one")[0];
        assert_eq!(own.resources, pod("1").spec.expect("it has one").containers[0].resources);
        assert_eq!(own.allocated_resources, None);
    }

    #[test]
    fn what_cannot_be_read_is_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let records = Records::open(root(&folder));
        records.admit(&pod("1"), false);
        std::fs::write(records.path("u-1"), "{").expect("it is damaged");
        assert_eq!(Records::open(root(&folder)).get("u-1"), None);
    }
}

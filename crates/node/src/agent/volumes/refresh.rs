//! Keeping volumes up to date: when objects change, before tokens end, and as drivers want it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Volume;
use rt::{Instant, Shutdown};

use super::VolumeManager;
use super::csi::Asking;
use super::manager::{error, reference, used_volumes};
use super::plugins::plugin;

/// What could not be tried is looked at again after this.
const RETRY: Duration = Duration::from_secs(30);

impl VolumeManager {
    /// Keeps volumes up to date until `shutdown`: when objects change, before tokens end, and as drivers want it. Pods
    /// do not wait for each other.
    pub async fn run(&self, shutdown: Shutdown) {
        let mut marked = BTreeSet::new();
        let mut busy: BTreeSet<String> = BTreeSet::new();
        let mut working = FuturesUnordered::new();
        loop {
            let next = self.next_due(&busy);
            let timer = async {
                match next {
                    Some(at) => rt::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.changes.marked() => {}
                () = timer => {}
                Some(done) = working.next(), if !working.is_empty() => {
                    let done: String = done;
                    busy.remove(&done);
                }
            }
            marked.extend(self.changes.take());
            let mut uids = self.due();
            uids.extend(marked.iter().cloned());
            for uid in uids.into_iter().filter(|uid| !busy.contains(uid)).collect::<BTreeSet<_>>() {
                let is_marked = marked.remove(&uid);
                busy.insert(uid.clone());
                working.push(async move {
                    self.refresh(&uid, is_marked).await;
                    uid
                });
            }
        }
    }

    fn next_due(&self, busy: &BTreeSet<String>) -> Option<Instant> {
        let records = self.records.lock();
        let idle = records.iter().filter(|(uid, _)| !busy.contains(*uid));
        idle.flat_map(|(_, record)| record.due.values()).min().copied()
    }

    fn due(&self) -> Vec<String> {
        let now = rt::instant();
        let records = self.records.lock();
        let due = records.iter().filter(|(_, record)| record.due.values().any(|at| *at <= now));
        due.map(|(uid, _)| uid.clone()).collect()
    }

    /// Brings the volumes of a pod up to date that are due, and all data of a pod that is marked. Only of pods that were
    /// mounted, and that nobody unmounted since.
    async fn refresh(&self, uid: &str, is_marked: bool) {
        let lock = self.lock(uid);
        let _own = lock.lock().await;
        let now = rt::instant();
        let known = self.records.lock().get(uid).map(|record| {
            let due = record.due.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone());
            (record.pod.clone(), due.collect::<BTreeSet<_>>(), record.ending.clone())
        });
        let Some((pod, due, ending)) = known else { return };
        if is_marked {
            // What was missing may be there.
            self.failed.lock().retain(|(own, _, _), _| own != uid);
        }
        let objects = self.cache.objects(&pod).await;
        let used = used_volumes(&pod);
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let is_data = |volume: &Volume| plugin(volume).is_some_and(|plugin| plugin.kind.is_data());
        let is_wanted = |volume: &&Volume| {
            used.contains(&volume.name) && (due.contains(&volume.name) || is_marked && is_data(volume))
        };
        let wanted: Vec<&Volume> = volumes.filter(is_wanted).collect();
        let attempts = join_all(wanted.iter().map(|own| self.attempt(&pod, own, &objects, Asking::Again)));
        let done = tokio::select! {
            done = attempts => done,
            () = ending.cancelled() => return,
        };
        for (volume, done) in wanted.into_iter().zip(done) {
            let mut records = self.records.lock();
            let Some(record) = records.get_mut(uid) else { continue };
            let failure = match done {
                Ok(done) => {
                    record.take(&volume.name, done);
                    continue;
                }
                Err(failure) => failure,
            };
            let key = (uid.to_owned(), volume.name.clone(), Asking::Again);
            let retry_at = self.failed.lock().get(&key).map(|own| own.retry_at);
            let retry_at = retry_at.filter(|at| *at > rt::instant());
            record.due.insert(volume.name.clone(), retry_at.unwrap_or_else(|| rt::instant() + RETRY));
            // Whoever mounts it for the first time says so.
            if record.mounted.get(&volume.name).is_some() {
                let error = error(&volume.name, failure);
                self.recorder.warning(&reference(&pod), error.reason, error.message);
            }
        }
        // Nobody has to listen.
        let _ = self.refreshed.send(uid.into());
    }
}

//! Images that no container needs go: when the disk is full, or when nobody used them for long.
//!
//! Owns: since when an image is known and when it was last used. An image that is pinned stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::events::{Reference, Severity};
use jiff::Timestamp;
use runtime::{ContainerStatus, ImageStatus};
use tracing::{info, warn};

use crate::agent::Node;

/// How often the disk is looked at.
const PERIOD: Duration = Duration::from_secs(5 * 60);

/// The kubelet's `--image-gc-…` flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Percent of the disk from which on images go; 100 is never.
    pub high_percent: u8,
    /// Percent of the disk down to which they go.
    pub low_percent: u8,
    /// An image stays for so long after it was first seen.
    pub age_min: Duration,
    /// An image goes that nobody used for so long, however empty the disk is; zero is never.
    pub age_max: Duration,
    pub period: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            high_percent: 85,
            low_percent: 80,
            age_min: Duration::from_secs(120),
            age_max: Duration::ZERO,
            period: PERIOD,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    since: Timestamp,
    used: Option<Timestamp>,
}

/// What is known of images by ID; begins anew with the agent, as the kubelet's.
#[derive(Debug, Default)]
struct Records(BTreeMap<String, Known>);

impl Records {
    fn look(&mut self, images: &[ImageStatus], used: &BTreeSet<String>, now: Timestamp) {
        self.0.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            let known = self.0.entry(image.id.clone()).or_insert(Known { since: now, used: None });
            if used.contains(&image.id) {
                known.used = Some(now);
            }
        }
    }

    /// Images that may go, the one first that was not used for the longest time.
    fn candidates<'a>(
        &self,
        images: &'a [ImageStatus],
        used: &BTreeSet<String>,
    ) -> Vec<(&'a ImageStatus, Known)> {
        let mut found: Vec<_> = images
            .iter()
            .filter(|image| !image.pinned && !used.contains(&image.id))
            .filter_map(|image| Some((image, *self.0.get(&image.id)?)))
            .collect();
        found.sort_by_key(|(_, known)| (known.used, known.since));
        found
    }

    /// Images that nobody used for too long.
    fn stale<'a>(
        &self,
        images: &'a [ImageStatus],
        used: &BTreeSet<String>,
        age_max: Duration,
        now: Timestamp,
    ) -> Vec<&'a ImageStatus> {
        if age_max.is_zero() {
            return Vec::new();
        }
        let all = self.candidates(images, used).into_iter();
        all.filter(|(_, known)| elapsed(known.used.unwrap_or(known.since), now) > age_max)
            .map(|(image, _)| image)
            .collect()
    }

    /// Images that go so that `bytes` become free.
    fn to_free<'a>(
        &self,
        images: &'a [ImageStatus],
        used: &BTreeSet<String>,
        bytes: u64,
        age_min: Duration,
        now: Timestamp,
    ) -> Vec<&'a ImageStatus> {
        let mut freed = 0_u64;
        let mut chosen = Vec::new();
        for (image, known) in self.candidates(images, used) {
            if freed >= bytes {
                break;
            }
            if elapsed(known.since, now) >= age_min {
                freed = freed.saturating_add(image.size);
                chosen.push(image);
            }
        }
        chosen
    }
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(since).try_into().unwrap_or_default()
}

/// IDs of the images that containers, running or not, are made of, or have mounted.
fn used_by(containers: &[ContainerStatus]) -> BTreeSet<String> {
    let mounted = containers.iter().flat_map(|own| &own.mounts).filter_map(|mount| mount.image.as_ref());
    containers.iter().map(|own| own.image.clone()).chain(mounted.map(|(id, _)| id.clone())).collect()
}

/// How much has to become free for the disk to be as full as `low` says; `None` while it is below `high`.
fn excess(available: u64, capacity: u64, settings: Settings) -> Option<u64> {
    let used = u128::from(capacity.saturating_sub(available));
    let percent = (used * 100).checked_div(u128::from(capacity))?;
    if settings.high_percent >= 100 || percent < u128::from(settings.high_percent) {
        return None;
    }
    let allowed = u128::from(capacity) * u128::from(settings.low_percent) / 100;
    u64::try_from(used.saturating_sub(allowed)).ok()
}

/// Looks at images until the node stops.
pub async fn run(node: Arc<Node>) {
    let mut records = Records::default();
    loop {
        if let Err(error) = look(&node, &mut records).await {
            warn!(%error, "Unused images were not looked for");
        }
        tokio::select! {
            () = rt::sleep(node.image_collection.period) => {}
            () = node.shutdown.cancelled() => return,
        }
    }
}

async fn look(node: &Node, records: &mut Records) -> runtime::Result<()> {
    let settings = node.image_collection;
    let (images, containers) = tokio::try_join!(node.runtime.images(), node.runtime.containers())?;
    let (used, now) = (used_by(&containers), rt::now());
    records.look(&images, &used, now);
    for image in records.stale(&images, &used, settings.age_max, now) {
        remove(node, image).await;
    }
    let disk = node.runtime.image_filesystem().await?;
    let Some(bytes) = excess(disk.available_bytes, disk.capacity_bytes, settings) else { return Ok(()) };
    let mut freed = 0_u64;
    for image in records.to_free(&images, &used, bytes, settings.age_min, now) {
        if remove(node, image).await {
            freed = freed.saturating_add(image.size);
        }
    }
    if freed < bytes {
        let percent = (disk.capacity_bytes - disk.available_bytes) * 100 / disk.capacity_bytes.max(1);
        let message = format!(
            "Failed to garbage collect required amount of images. Attempted to free {bytes} bytes, but only found \
             {freed} bytes eligible to free."
        );
        warn!(percent, message);
        let name = node.identity.name.as_str();
        let about =
            Reference { kind: "Node".into(), name: name.into(), uid: name.into(), ..Reference::default() };
        node.reporter.of(&about, Severity::Warning, "FreeDiskSpaceFailed", message);
    }
    Ok(())
}

/// Every image goes that no container has: the disk is needed for pods.
pub async fn remove_unused(node: &Node) {
    let found = tokio::try_join!(node.runtime.images(), node.runtime.containers());
    let Ok((images, containers)) = found else { return };
    let used = used_by(&containers);
    for image in images.iter().filter(|image| !image.pinned && !used.contains(&image.id)) {
        remove(node, image).await;
    }
}

async fn remove(node: &Node, image: &ImageStatus) -> bool {
    let name = image.tags.first().unwrap_or(&image.id);
    match node.runtime.remove_image(&image.id).await {
        Ok(()) => {
            info!(image = %name, bytes = image.size, "Removed an image that nobody uses");
            true
        }
        Err(error) => {
            warn!(image = %name, %error, "An image that nobody uses was not removed");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn image(id: &str, pinned: bool) -> ImageStatus {
        ImageStatus { id: id.into(), size: 10, pinned, ..ImageStatus::default() }
    }

    #[test]
    fn the_disk_is_full_from_high_on_and_until_low() {
        let settings = Settings::default();
        assert_eq!(excess(151, 1_000, settings), None);
        assert_eq!(excess(150, 1_000, settings), Some(50));
        assert_eq!(excess(0, 1_000, Settings { high_percent: 100, ..settings }), None);
        assert_eq!(excess(0, 0, settings), None);
    }

    #[test]
    fn the_image_that_was_not_used_for_longest_goes_first() {
        let images =
            [image("used", false), image("old", false), image("older", false), image("pinned", true)];
        let now_used = BTreeSet::from(["used".to_owned()]);
        let all_used = BTreeSet::from(["used".to_owned(), "old".to_owned(), "older".to_owned()]);
        let mut records = Records::default();
        records.look(&images, &all_used, at(0));
        records.look(&images, &BTreeSet::from(["old".to_owned()]), at(10));
        records.look(&images, &now_used, at(20));
        let chosen = |bytes: u64, age: u64, now: i64| -> Vec<&str> {
            let chosen = records.to_free(&images, &now_used, bytes, Duration::from_secs(age), at(now));
            chosen.into_iter().map(|image| image.id.as_str()).collect()
        };
        assert_eq!(chosen(10, 20, 20), ["older"]);
        assert_eq!(chosen(11, 20, 20), ["older", "old"]);
        assert_eq!(chosen(1_000, 20, 20), ["older", "old"]);
        assert!(chosen(1_000, 21, 20).is_empty(), "too young");
        let stale = |age: u64| records.stale(&images, &now_used, Duration::from_secs(age), at(25)).len();
        assert_eq!([stale(0), stale(14), stale(15), stale(25)], [0, 2, 1, 0]);
    }
}

//! The history of a DaemonSet: the revision of its present template, and those of the past.

use std::collections::HashSet;

use api::gvr::{DAEMON_SETS, PODS};
use api::view::DaemonSet;
use apimachinery::{Object, json};
use client::{Patch, WriteOptions};
use controller_runtime::Error;

use super::Controller;
use super::plan::Member;
use crate::hash;
use crate::history::{self, History, REVISION_HASH, Revision, Strays};
use crate::ownership::Parent;

/// The revision of the present template, made or renumbered as needed, and all others, the oldest first.
pub(super) async fn settle(
    controller: &Controller,
    parent: &Parent<'_>,
    set: &DaemonSet,
    members: &[Member],
) -> Result<(Revision, Vec<Revision>), Error> {
    let history = &controller.history;
    let mut all = history.claim(parent, &DAEMON_SETS, Strays::Released).await?;
    for revision in &mut all {
        if revision.object.label(REVISION_HASH).is_none() {
            let name = revision.name().to_owned();
            let labelled = history
                .change(revision, |tree| tree.set_at(&["metadata", "labels", REVISION_HASH], name))
                .await?;
            *revision = labelled;
        }
    }
    let data = history::data_of(&set.spec.template);
    let (mut current, old): (Vec<Revision>, Vec<Revision>) =
        all.into_iter().partition(|revision| *revision.data() == data);
    let number = history::next_number(&old);
    let Some(newest) = current.pop() else {
        return Ok((create(controller, parent.object, set, number).await?, old));
    };
    if !current.is_empty() {
        drop_duplicates(controller, &newest, current, members).await?;
    }
    let newest = if newest.number() < number { history.renumber(&newest, number).await? } else { newest };
    Ok((newest, old))
}

/// A name that is taken by another template counts as a collision, which the next name differs by.
async fn create(
    controller: &Controller,
    object: &Object,
    set: &DaemonSet,
    number: i64,
) -> Result<Revision, Error> {
    let template = &set.spec.template;
    let hash = hash::of_template(template, set.status.collision_count);
    let name = format!("{}-{hash}", object.name());
    let mut tree = history::new_revision(object, template, number);
    tree.set_at(&["metadata", "name"], name.as_str());
    tree.set_at(&["metadata", "labels", REVISION_HASH], hash);
    match controller.history.create(tree).await? {
        Ok(created) => Ok(created),
        Err(taken) if *taken.data() == history::data_of(template) => Ok(taken),
        Err(_) => {
            count_collision(controller, object, set).await?;
            Err(Error::failed(format!("controllerrevisions.apps \"{name}\" already exists")))
        }
    }
}

/// Counts only if nobody has since the set was read.
async fn count_collision(controller: &Controller, object: &Object, set: &DaemonSet) -> Result<(), Error> {
    let (namespace, name) = (object.namespace(), object.name());
    let mut tree = object.to_value();
    tree.set_at(&["status", "collisionCount"], set.status.collision_count.unwrap_or_default() + 1);
    let options = WriteOptions::default();
    controller.api.update(&DAEMON_SETS, namespace, name, Some("status"), tree, &options).await?;
    Ok(())
}

/// Of several revisions of one template the newest stays, and pods of the others become its own.
async fn drop_duplicates(
    controller: &Controller,
    kept: &Revision,
    duplicates: Vec<Revision>,
    members: &[Member],
) -> Result<(), Error> {
    let hash = kept.object.label(REVISION_HASH).unwrap_or_default();
    let patch = json!({"metadata": {"labels": {"controller-revision-hash": hash}}});
    let (api, options) = (&controller.api, WriteOptions::default());
    for member in members.iter().filter(|own| own.object.label(REVISION_HASH) != Some(hash)) {
        let (namespace, name) = (member.object.namespace(), member.object.name());
        api.patch(&PODS, namespace, name, None, Patch::Merge(patch.clone()), &options).await?;
    }
    for duplicate in duplicates {
        controller.history.delete(&duplicate).await?;
    }
    Ok(())
}

/// Forgets revisions beyond the history's limit, the oldest first, and never one that pods are of.
pub(super) async fn clean_up(
    history: &History,
    set: &DaemonSet,
    old: Vec<Revision>,
    members: &[Member],
) -> Result<(), Error> {
    for revision in beyond_history(set, &old, members) {
        history.delete(revision).await?;
    }
    Ok(())
}

pub(super) fn beyond_history<'a>(
    set: &DaemonSet,
    old: &'a [Revision],
    members: &[Member],
) -> impl Iterator<Item = &'a Revision> {
    let limit = set.spec.revision_history_limit.unwrap_or(history::LIMIT);
    let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    let live: HashSet<String> =
        members.iter().filter_map(|own| own.object.label(REVISION_HASH)).map(str::to_owned).collect();
    let is_live = move |revision: &&Revision| {
        revision.object.label(REVISION_HASH).is_some_and(|hash| live.contains(hash))
    };
    old.iter().filter(move |revision| !is_live(revision)).take(surplus)
}

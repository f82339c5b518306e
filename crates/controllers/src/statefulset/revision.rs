//! Which revisions a StatefulSet is at.

use std::sync::{Arc, LazyLock};

use api::view::{PodTemplate, StatefulSet};
use api::{Features, Strategy};
use apimachinery::{Object, Value};
use controller_runtime::Error;

use super::plan::Revisions;
use crate::hash;
use crate::history::{self, History, Revision};

/// The label with which a StatefulSet's revisions say their hash.
const HASH: &str = "controller.kubernetes.io/hash";

/// The defaults of a StatefulSet.
static DEFAULTS: LazyLock<Arc<dyn Strategy>> =
    LazyLock::new(|| api::kinds::strategy("apps", "StatefulSet", &Features::default()));

/// Where the update revision comes from. `all` has the oldest first.
#[derive(Debug)]
pub(super) enum Source<'a> {
    /// The template has not changed since the newest revision.
    Newest(&'a Revision),
    /// A template of the past came back; its revision becomes the newest.
    Past(&'a Revision),
    New,
}

pub(super) fn source<'a>(object: &Object, template: &PodTemplate, all: &'a [Revision]) -> Source<'a> {
    let Some(newest) = all.last() else { return Source::New };
    let data = history::data_of(template);
    if *newest.data() == data {
        return Source::Newest(newest);
    }
    match all.iter().rfind(|revision| *revision.data() == data) {
        Some(past) => Source::Past(past),
        None if restores(object, newest, &data) => Source::Newest(newest),
        None => Source::New,
    }
}

/// The revision, with the defaults of this version filled in, is the present template: it was written by an older one.
fn restores(object: &Object, revision: &Revision, data: &Value) -> bool {
    let mut restored = object.to_value();
    restored.set_at(&["spec", "template"], revision.template().to_value());
    DEFAULTS.default(&mut restored);
    history::data_of(&PodTemplate::new(restored["spec"]["template"].clone())) == *data
}

/// The current and the update revision, made and renumbered as needed, and how often a name was taken by then.
pub(super) async fn settle(
    history: &History,
    object: &Object,
    set: &StatefulSet,
    all: &[Revision],
) -> Result<(Revisions, i32), Error> {
    let mut collisions = set.status.collision_count.unwrap_or_default();
    let number = history::next_number(all);
    let update = match source(object, &set.spec.template, all) {
        Source::Newest(newest) => newest.clone(),
        Source::Past(past) => history.renumber(past, number).await?,
        Source::New => create(history, object, &set.spec.template, number, &mut collisions).await?,
    };
    let current = all.iter().find(|revision| revision.name() == set.status.current_revision);
    let current = current.cloned().unwrap_or_else(|| update.clone());
    Ok((Revisions { current, update }, collisions))
}

/// A revision whose name is taken by one with other data gets another name.
async fn create(
    history: &History,
    object: &Object,
    template: &PodTemplate,
    number: i64,
    collisions: &mut i32,
) -> Result<Revision, Error> {
    let mut tree = history::new_revision(object, template, number);
    let data = tree["data"].clone();
    tree.set_at(&["metadata", "labels", HASH], hash::of_data(&data, *collisions));
    loop {
        let name = history::name(object.name(), &hash::of_data(&data, *collisions));
        tree.set_at(&["metadata", "name"], name);
        match history.create(tree.clone()).await? {
            Ok(created) => return Ok(created),
            Err(taken) if *taken.data() == data => return Ok(taken),
            Err(_) => *collisions += 1,
        }
    }
}

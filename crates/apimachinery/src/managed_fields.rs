//! Who owns which field: upkeep of `metadata.managedFields`, and server-side apply, which works by it.
//!
//! Owns: [`FieldManager::update`] for creates, updates and patches, [`FieldManager::apply`] for apply patches, the sets
//! of fields ([`Set`]) and conflicts. Never touches: defaults, decoding, storage, clocks; the result of an apply goes
//! through decoding and defaulting like a body from a client.
//!
//! ```text
//!     update: live, new ──compare──► changed fields ──► taken from all entries, given to the writer's entry
//!     apply:  live + config ──merge──► minus fields given up ──compare with live──► conflicts, or the new object
//! ```
//!
//! Start at [`FieldManager`]. Entries stay the trees they are in `metadata.managedFields`; only those that a write
//! concerns are touched. Rules, order of entries and messages are upstream's (`k8s.io/apimachinery/pkg/util/
//! managedfields` over `sigs.k8s.io/structured-merge-diff`).
//!
//! Seam: sets are in the version they were written in. All versions of a kind are taken to have the same paths; when
//! one does not, [`FieldManager::update`] must compare once per version of the entries.

use jiff::Timestamp;

use crate::schema::SchemaRef;
use crate::time::format_seconds;
use crate::{GroupVersionKind, Str, Value};

mod compare;
mod conflict;
mod entry;
mod last_applied;
mod merge;
mod set;
mod typed;

pub use conflict::{ApplyError, Conflict};
pub use set::Set;

use compare::{Changes, compare};
use entry::{Entries, Manager, Operation};
use typed::NoElement;

/// Owner of what was there before the first apply of an object without managed fields.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// kubectl's manager, for which client-side apply's annotation is honoured and kept up.
const KUBECTL: &str = "kubectl";

/// Which of the fields a request carries it can set at all; the others are reset by the resource and so are neither
/// owned nor in conflict.
#[derive(Clone, Debug)]
pub enum Filter {
    /// All but these and what lies below them: `status` for the resource itself, `spec` for its status.
    Except(Set),
    /// Only these and what lies below them; `*` stands for any name or item.
    Only(Vec<Vec<Str>>),
}

impl Default for Filter {
    fn default() -> Self {
        Self::Except(Set::new())
    }
}

impl Filter {
    /// All fields but those at these paths.
    pub fn except(paths: &[&[&str]]) -> Self {
        Self::Except(Set::of_fields(paths))
    }

    /// Only the fields at these paths, in which `*` stands for any one name or item.
    pub fn only(paths: &[&[&str]]) -> Self {
        let element = |name: &&str| if *name == "*" { Str::from("*") } else { set::field_element(name) };
        Self::Only(paths.iter().map(|path| path.iter().map(element).collect()).collect())
    }

    fn apply(&self, set: &mut Set) {
        match self {
            Self::Except(gone) => {
                set.subtract_trees(gone);
            }
            Self::Only(patterns) => {
                let patterns: Vec<&[Str]> = patterns.iter().map(Vec::as_slice).collect();
                *set = Set::from_nodes(matching(set.root(), &patterns));
            }
        }
    }
}

/// The part of a node that lies on or below one of the patterns.
fn matching(node: &crate::Map, patterns: &[&[Str]]) -> Vec<(Str, Value)> {
    set::children(node)
        .filter_map(|(element, child)| {
            let below: Vec<&[Str]> = patterns
                .iter()
                .filter_map(|pattern| pattern.split_first())
                .filter(|(first, _)| **first == "*" || *first == element)
                .map(|(_, rest)| rest)
                .collect();
            if below.is_empty() {
                return None;
            }
            if below.iter().any(|rest| rest.is_empty()) {
                return Some((element.clone(), Value::Object(child.clone())));
            }
            set::make_node(matching(child, &below), set::is_member(child)).map(|node| (element.clone(), node))
        })
        .collect()
}

/// Keeps the managed fields of objects of one kind, at one of its subresources.
#[derive(Clone, Copy, Debug)]
pub struct FieldManager<'a> {
    pub schema: SchemaRef<'a>,
    pub kind: &'a GroupVersionKind,
    /// `status`, `scale`, …; empty for the object itself.
    pub subresource: &'a str,
    pub filter: &'a Filter,
}

impl FieldManager<'_> {
    /// Writes `new.metadata.managedFields` for a create (`live` is absent), update or patch. `new` is decoded and
    /// defaulted. `manager` is the `fieldManager` parameter or what stands for it.
    ///
    /// What `new` brings along as managed fields counts, except at a subresource: an explicitly empty list forgets
    /// all owners, and a good one replaces what the live object has.
    pub fn update(&self, live: Option<&Value>, new: &mut Value, manager: &str, now: Timestamp) {
        let sent = new.remove_at(&["metadata", "managedFields"]);
        let kept = live.map(|live| &live["metadata"]["managedFields"]).unwrap_or(&Value::Null);
        let mut entries = Entries::of_update(sent, kept, !self.subresource.is_empty());
        if entries.is_empty() && live.is_some() {
            // Nobody tracked this object so far; only an apply begins to.
            return;
        }
        let empty;
        let before = match live {
            Some(live) => live,
            None => {
                empty = self.empty_object();
                &empty
            }
        };
        let Ok(changes) = compare(before, new, Some(self.schema)) else {
            // The lists of one of them cannot be told apart; upstream too leaves the owners as they were then.
            if !kept.is_null() {
                new.set_at(&["metadata", "managedFields"], kept.clone());
            }
            return;
        };
        self.hand_over(&mut entries, changes, self.manager(manager, Operation::Update), now);
        entries.cap_updates();
        entries.write(new);
    }

    /// Takes changed fields from everybody and gives them to the writer.
    fn hand_over(&self, entries: &mut Entries, changes: Changes, writer: Manager<'_>, now: Timestamp) {
        let Changes { mut added, modified, mut removed } = changes;
        added.unite(&modified);
        let mut touched = added;
        self.filter.apply(&mut touched);
        self.filter.apply(&mut removed);
        for entry in entries.iter_mut() {
            entry.subtract(&touched);
            entry.subtract(&removed);
        }
        entries.drop_empty();
        strip_metadata(&mut touched);
        if !touched.is_empty() {
            entries.give(writer, touched, format_seconds(now));
        }
    }

    /// Merges an applied configuration into the live object (absent: creates it).
    ///
    /// The result has its managed fields, but is neither decoded nor defaulted. When it equals the live object, no
    /// timestamp in it has moved.
    pub fn apply(
        &self,
        live: Option<&Value>,
        applied: &Value,
        manager: &str,
        force: bool,
        now: Timestamp,
    ) -> Result<Value, ApplyError> {
        self.check_applied(applied)?;
        let before = live.map_or_else(|| self.empty_object(), without_managed_fields);
        let kept = live.map_or(&Value::Null, |live| &live["metadata"]["managedFields"]);
        let mut entries = Entries::of_live(kept).ok_or_else(|| ApplyError::undecodable_entries(kept))?;
        // Only here and not in every update: a stale entry does no harm until somebody applies.
        for entry in entries.iter_mut() {
            if let Some(set) = merge::reconciled(entry.fields(), Some(self.schema)) {
                entry.replace(set);
            }
        }
        if entries.is_empty() && live.is_some() {
            let changes = compare(&self.empty_object(), &before, Some(self.schema)).map_err(unmergeable)?;
            self.hand_over(&mut entries, changes, self.manager(BEFORE_FIRST_APPLY, Operation::Update), now);
        }
        let for_another_try = (manager == KUBECTL && !force).then(|| entries.clone());
        let outcome = self.merge(&before, applied, entries, manager, force);
        let (merged, mut entries) = match (outcome, for_another_try) {
            (Err(ApplyError::Conflicts(conflicts)), Some(entries)) => {
                let left = last_applied::not_excused(conflicts, &before, self.kind, self.schema);
                if !left.is_empty() {
                    return Err(ApplyError::Conflicts(left));
                }
                self.merge(&before, applied, entries, manager, true)?
            }
            (outcome, _) => outcome?,
        };
        let unchanged = merged == before;
        let mut object = if unchanged { before } else { merged };
        if !unchanged {
            entries.touch(self.manager(manager, Operation::Apply), format_seconds(now));
        }
        if manager == KUBECTL {
            last_applied::keep_up(&mut object, applied);
        }
        entries.write(&mut object);
        Ok(object)
    }

    /// One attempt at an apply: the merged object and the owners after it.
    fn merge(
        &self,
        live: &Value,
        applied: &Value,
        mut entries: Entries,
        manager: &str,
        force: bool,
    ) -> Result<(Value, Entries), ApplyError> {
        let schema = Some(self.schema);
        let writer = self.manager(manager, Operation::Apply);
        let merged = merge::merge(live, applied, schema).map_err(unmergeable)?;
        let mut owned = merge::field_set(applied, schema).map_err(unmergeable)?;
        self.filter.apply(&mut owned);
        let last = entries.take(&writer);
        let merged = match &last {
            Some(last) => self.prune(merged, &entries, &owned, last).map_err(unmergeable)?,
            None => merged,
        };
        let Changes { mut added, modified, mut removed } =
            compare(live, &merged, schema).map_err(unmergeable)?;
        added.unite(&modified);
        self.filter.apply(&mut added);
        self.filter.apply(&mut removed);
        let conflicts: Vec<Conflict> =
            entries.iter().filter_map(|entry| Conflict::between(entry, &added)).collect();
        if !conflicts.is_empty() && !force {
            return Err(ApplyError::Conflicts(conflict::sorted(conflicts)));
        }
        for entry in entries.iter_mut() {
            entry.subtract(&added);
            entry.subtract(&removed);
        }
        strip_metadata(&mut owned);
        entries.drop_empty();
        entries.put(writer, owned, last);
        Ok((merged, entries))
    }

    /// Takes out of the merged object what this manager applied last time, does not apply now, and nobody else owns.
    fn prune(
        &self,
        merged: Value,
        others: &Entries,
        owned: &Set,
        last: &entry::Entry,
    ) -> Result<Value, NoElement> {
        let schema = Some(self.schema);
        // Nothing was given up: what most applies find.
        if owned.holds(last.fields()) {
            return Ok(merged);
        }
        let last = last.set();
        let full = |set: &Set| merge::with_declared_parents(set, schema);
        let fields_of = |value: &Value| merge::field_set(value, schema).map(|set| full(&set));
        let last = full(&last);
        let pruned = merge::without(&merged, &last, schema)?;
        let all = fields_of(&merged)?;

        // What somebody owns comes back, along with the fields it lies in.
        let mut managed = owned.clone();
        others.iter().for_each(|entry| managed.unite(&entry.set()));
        let mut gone = all.clone();
        gone.subtract(&fields_of(&pruned)?);
        gone.subtract(&full(&managed));
        let pruned = merge::without(&merged, &gone, schema)?;

        // What was never this manager's, but went because all around it did, comes back too.
        let mut gone = all;
        gone.subtract(&fields_of(&pruned)?);
        merge::without(&merged, &gone.intersection(&last), schema)
    }

    fn check_applied(&self, applied: &Value) -> Result<(), ApplyError> {
        let api_version = applied.str_at(&["apiVersion"]);
        let kind = applied.str_at(&["kind"]);
        let named = crate::GroupVersion::parse(api_version).map(|version| version.with_kind(kind));
        if named.as_ref() != Some(self.kind) {
            let shown =
                named.map_or_else(|| format!("{api_version}, Kind={kind}"), |named| named.to_string());
            return Err(ApplyError::BadRequest(format!("invalid object type: {shown}")));
        }
        if applied["metadata"].get("managedFields").is_some_and(|fields| fields.as_array().is_some()) {
            return Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()));
        }
        let errors = merge::validate(applied, Some(self.schema));
        let list = match errors.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            many => format!("errors:\n  {}", many.join("\n  ")),
        };
        let metadata = &applied["metadata"];
        Err(ApplyError::Internal(format!(
            "failed to create typed patch object ({}/{}; {}): {list}",
            metadata.str_at(&["namespace"]),
            metadata.str_at(&["name"]),
            self.kind
        )))
    }

    fn manager<'m>(&'m self, name: &'m str, operation: Operation) -> Manager<'m> {
        Manager {
            name: if name.is_empty() { "unknown" } else { name },
            operation,
            api_version: self.kind.api_version().into(),
            subresource: self.subresource,
        }
    }

    /// The object before its creation: what Go writes for an empty one of its kind.
    fn empty_object(&self) -> Value {
        self.schema.zero()
    }
}

fn without_managed_fields(object: &Value) -> Value {
    let Value::Object(fields) = object else { return object.clone() };
    let kept = fields.iter().map(|(name, value)| match value {
        Value::Object(metadata) if name == "metadata" => {
            let metadata = metadata.iter().filter(|(name, _)| *name != "managedFields");
            (name.clone(), metadata.map(|(name, value)| (name.clone(), value.clone())).collect())
        }
        _ => (name.clone(), value.clone()),
    });
    kept.collect()
}

/// Fields that are everybody's and nobody's.
fn strip_metadata(set: &mut Set) {
    static STRIPPED: std::sync::LazyLock<Set> = std::sync::LazyLock::new(|| {
        Set::of_fields(&[
            &["apiVersion"],
            &["kind"],
            &["metadata"],
            &["metadata", "name"],
            &["metadata", "namespace"],
            &["metadata", "creationTimestamp"],
            &["metadata", "selfLink"],
            &["metadata", "uid"],
            &["metadata", "clusterName"],
            &["metadata", "generation"],
            &["metadata", "managedFields"],
            &["metadata", "resourceVersion"],
        ])
    });
    set.subtract(&STRIPPED);
}

fn unmergeable(error: NoElement) -> ApplyError {
    ApplyError::Internal(format!("failed to merge config: {error}"))
}

/// Lays a configuration over an object by the rules of its schema and without owners, as a mutating policy does.
///
/// One that names an atomic list, map or struct is refused: all that it does not repeat of it would be lost.
pub fn overlay(live: &Value, config: &Value, schema: SchemaRef<'_>) -> Result<Value, OverlayError> {
    let errors = merge::validate(config, Some(schema));
    if !errors.is_empty() {
        return Err(OverlayError::Untyped(errors.join("\n  ")));
    }
    let atomics = merge::atomics(config, Some(schema));
    if !atomics.is_empty() {
        return Err(OverlayError::Atomic(atomics.join(", ")));
    }
    merge::merge(live, config, Some(schema)).map_err(|error| OverlayError::Unmergeable(error.to_string()))
}

/// Why a configuration can not be laid over an object; the words are those of upstream.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    #[error("failed to convert patch object to typed object: {0}")]
    Untyped(String),
    #[error("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {0}")]
    Atomic(String),
    #[error("failed to merge patch: {0}")]
    Unmergeable(String),
}

/// Puts old timestamps back into `new` when they are all that a write would change, so that it changes nothing.
pub fn keep_timestamps_of_unchanged(live: &Value, new: &mut Value) {
    const PATH: [&str; 2] = ["metadata", "managedFields"];
    let (old_entries, new_entries) = (live.array_at(&PATH), new.array_at(&PATH));
    let same = old_entries.len() == new_entries.len()
        && old_entries.iter().zip(new_entries).all(|(old, new)| entry::equal_but_for_time(old, new));
    if !same || old_entries == new_entries || !equal_but_for_managed_fields(live, new) {
        return;
    }
    new.set_at(&PATH, live["metadata"]["managedFields"].clone());
}

/// `resourceVersion` counts only where both have one: the new state of an object has none yet.
fn equal_but_for_managed_fields(a: &Value, b: &Value) -> bool {
    let plain = |value: &'_ Value, name: &str| {
        value.as_object().map(|map| map.len() - usize::from(map.contains_key(name)))
    };
    if plain(a, "metadata") != plain(b, "metadata") {
        return false;
    }
    let fields = a.as_object().into_iter().flatten();
    if !fields.filter(|(name, _)| *name != "metadata").all(|(name, value)| b.get(name) == Some(value)) {
        return false;
    }
    let counts = |metadata: &Value| {
        metadata.as_object().map_or(0, |map| map.keys().filter(|name| !is_volatile(name)).count())
    };
    let (a, b) = (&a["metadata"], &b["metadata"]);
    counts(a) == counts(b)
        && a.as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| !is_volatile(name))
            .all(|(name, value)| b.get(name) == Some(value))
}

fn is_volatile(name: &str) -> bool {
    matches!(name, "managedFields" | "resourceVersion")
}

#[cfg(test)]
mod tests;

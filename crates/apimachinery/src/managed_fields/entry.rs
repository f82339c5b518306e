//! The entries of `metadata.managedFields`, edited where they stand.

use super::set::{self, Set};
use crate::{Map, Str, Value};

/// Upstream's `DefaultMaxUpdateManagers`: more update entries than this are merged, oldest first.
const UPDATE_MANAGERS_MAX: usize = 10;
/// The manager that takes over from those that are merged away.
const ANCIENT_CHANGES: &str = "ancient-changes";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn text(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What identifies an entry. Appliers are the same in every version.
#[derive(Clone, Debug)]
pub(super) struct Manager<'a> {
    pub name: &'a str,
    pub operation: Operation,
    pub api_version: Str,
    pub subresource: &'a str,
}

impl Manager<'_> {
    fn is(&self, entry: &Entry) -> bool {
        self.name == entry.manager()
            && self.operation == entry.operation()
            && self.subresource == entry.subresource()
            && (self.operation == Operation::Apply || self.api_version == entry.api_version())
    }

    fn entry(&self, set: Set, time: Option<Value>) -> Entry {
        let mut map = Map::new();
        map.insert("apiVersion", self.api_version.clone());
        map.insert("fieldsType", "FieldsV1");
        map.insert("fieldsV1", set.into_fields_v1());
        map.insert("manager", self.name);
        map.insert("operation", self.operation.text());
        if !self.subresource.is_empty() {
            map.insert("subresource", self.subresource);
        }
        if let Some(time) = time {
            map.insert("time", time);
        }
        Entry(Value::Object(map))
    }
}

/// One entry, as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Entry(Value);

impl Entry {
    /// Takes an entry of this server's own making.
    fn own(value: Value) -> Self {
        Self(value)
    }

    /// Checks an entry somebody sent; `None` when upstream would not take it.
    fn foreign(mut value: Value) -> Option<Self> {
        Self::check(&value)?;
        let fields = match value.get("fieldsV1") {
            None | Some(Value::Null) => Set::new(),
            Some(fields) => Set::from_fields_v1(fields)?,
        };
        value.set_at(&["fieldsV1"], fields.into_fields_v1());
        Some(Self(value))
    }

    fn check(value: &Value) -> Option<()> {
        let good = matches!(value.str_at(&["operation"]), "Apply" | "Update")
            && !value.str_at(&["apiVersion"]).is_empty()
            && value.str_at(&["fieldsType"]) == "FieldsV1";
        good.then_some(())
    }

    pub(super) fn manager(&self) -> &str {
        self.0.str_at(&["manager"])
    }

    pub(super) fn operation(&self) -> Operation {
        if self.0.str_at(&["operation"]) == "Apply" { Operation::Apply } else { Operation::Update }
    }

    pub(super) fn api_version(&self) -> &str {
        self.0.str_at(&["apiVersion"])
    }

    pub(super) fn subresource(&self) -> &str {
        self.0.str_at(&["subresource"])
    }

    /// RFC 3339 in UTC, which sorts as text; empty when unset.
    fn time(&self) -> &str {
        self.0.str_at(&["time"])
    }

    pub(super) fn set(&self) -> Set {
        Set::from_stored(&mut self.0["fieldsV1"].clone())
    }

    /// The fields as they are stored, for a look.
    pub(super) fn fields(&self) -> &Map {
        set::node(&self.0["fieldsV1"])
    }

    fn edit<T>(&mut self, change: impl FnOnce(&mut Set) -> T) -> T {
        let slot = self.0.ensure_object().get_or_insert_with("fieldsV1", Value::object);
        let mut set = Set::from_stored(slot);
        let result = change(&mut set);
        *slot = set.into_fields_v1();
        result
    }

    pub(super) fn replace(&mut self, set: Set) {
        self.0.set_at(&["fieldsV1"], set.into_fields_v1());
    }

    pub(super) fn subtract(&mut self, set: &Set) -> bool {
        !set.is_empty() && self.edit(|own| own.subtract(set))
    }

    fn is_empty(&self) -> bool {
        self.0["fieldsV1"].as_object().is_none_or(Map::is_empty)
    }

    fn set_time(&mut self, time: Option<Value>) {
        match time {
            Some(time) => self.0.set_at(&["time"], time),
            None => {
                self.0.remove_at(&["time"]);
            }
        }
    }

    fn order(&self) -> (Operation, &str, &str, &str, &str) {
        (self.operation(), self.time(), self.manager(), self.api_version(), self.subresource())
    }

    fn same_manager(&self, other: &Self) -> bool {
        let (a, b) = (self.order(), other.order());
        (a.0, a.2, a.4) == (b.0, b.2, b.4) && (a.0 == Operation::Apply || a.3 == b.3)
    }
}

/// All entries of an object.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries(Vec<Entry>);

impl Entries {
    /// The entries an update starts from: those it sent, if it may and they are good, else those of the live object.
    pub(super) fn of_update(sent: Option<Value>, kept: &Value, is_subresource: bool) -> Self {
        let live = || Self::of_live(kept).unwrap_or_default();
        match sent {
            Some(sent) if sent == *kept => match sent {
                Value::Array(items) => Self::own(items).unwrap_or_default(),
                _ => Self::default(),
            },
            Some(Value::Array(items)) if !is_subresource => {
                if is_reset(&items) {
                    return Self::default();
                }
                let entries: Option<Vec<Entry>> = items.into_iter().map(Entry::foreign).collect();
                entries.map_or_else(live, |entries| Self(entries).without_repeated_managers())
            }
            _ => live(),
        }
    }

    /// The entries of a stored object; `None` when they are damaged.
    pub(super) fn of_live(kept: &Value) -> Option<Self> {
        match kept {
            Value::Array(items) => Self::own(items.clone()),
            _ => Some(Self::default()),
        }
    }

    fn own(items: Vec<Value>) -> Option<Self> {
        items.iter().try_for_each(Entry::check)?;
        Some(Self(items.into_iter().map(Entry::own).collect()))
    }

    /// Of entries with the same manager the last counts.
    fn without_repeated_managers(mut self) -> Self {
        let mut at = 0;
        while at < self.0.len() {
            if self.0[at + 1..].iter().any(|later| later.same_manager(&self.0[at])) {
                self.0.remove(at);
            } else {
                at += 1;
            }
        }
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.0.iter_mut()
    }

    pub(super) fn drop_empty(&mut self) {
        self.0.retain(|entry| !entry.is_empty());
    }

    /// Adds fields to a manager's entry and moves its time.
    pub(super) fn give(&mut self, manager: Manager<'_>, set: Set, time: String) {
        match self.0.iter_mut().find(|entry| manager.is(entry)) {
            Some(entry) => {
                entry.edit(|own| own.unite(&set));
                entry.set_time(Some(time.into()));
            }
            None => self.0.push(manager.entry(set, Some(time.into()))),
        }
    }

    /// Takes a manager's entry out.
    pub(super) fn take(&mut self, manager: &Manager<'_>) -> Option<Entry> {
        let at = self.0.iter().position(|entry| manager.is(entry))?;
        Some(self.0.remove(at))
    }

    /// Puts an entry in with the time of the one it replaces.
    pub(super) fn put(&mut self, manager: Manager<'_>, set: Set, last: Option<Entry>) {
        if !set.is_empty() {
            let time = last.and_then(|last| last.0.get("time").cloned());
            self.0.push(manager.entry(set, time));
        }
    }

    /// Moves the time of a manager's entry.
    pub(super) fn touch(&mut self, manager: Manager<'_>, time: String) {
        if let Some(entry) = self.0.iter_mut().find(|entry| manager.is(entry)) {
            entry.set_time(Some(time.into()));
        }
    }

    /// Merges the oldest updaters of each version into one entry until there are few enough.
    pub(super) fn cap_updates(&mut self) {
        let is_update = |entry: &&Entry| entry.operation() == Operation::Update;
        let mut count = self.0.iter().filter(is_update).count();
        if count <= UPDATE_MANAGERS_MAX {
            return;
        }
        let (mut updates, mut rest): (Vec<Entry>, Vec<Entry>) =
            std::mem::take(&mut self.0).into_iter().partition(|entry| entry.operation() == Operation::Update);
        updates.sort_by(|a, b| {
            (a.time(), a.manager(), a.api_version()).cmp(&(b.time(), b.manager(), b.api_version()))
        });
        // The first of each version is where the following ones go; it takes the common name once one does.
        let mut firsts: Vec<usize> = Vec::new();
        let mut kept: Vec<Entry> = Vec::with_capacity(updates.len());
        for entry in updates {
            let first = firsts.iter().copied().find(|&at| kept[at].api_version() == entry.api_version());
            match first {
                Some(at) if count > UPDATE_MANAGERS_MAX => {
                    kept[at] = kept[at].as_ancient(&entry);
                    count -= 1;
                }
                _ => {
                    if first.is_none() {
                        firsts.push(kept.len());
                    }
                    kept.push(entry);
                }
            }
        }
        rest.append(&mut kept);
        self.0 = rest;
        *self = std::mem::take(self).with_ancient_united();
    }

    /// There may have been an entry of the common name already, which sorted elsewhere.
    fn with_ancient_united(self) -> Self {
        let mut united: Vec<Entry> = Vec::with_capacity(self.0.len());
        for entry in self.0 {
            let ancient = entry.manager() == ANCIENT_CHANGES;
            match united.iter_mut().find(|own| ancient && own.same_manager(&entry)) {
                Some(own) => *own = own.as_ancient(&entry),
                None => united.push(entry),
            }
        }
        Self(united)
    }

    /// Stores the entries in upstream's order; an object without any has no list.
    pub(super) fn write(mut self, object: &mut Value) {
        if self.0.is_empty() {
            object.remove_at(&["metadata", "managedFields"]);
            return;
        }
        self.0.sort_by(|a, b| a.order().cmp(&b.order()));
        let list = self.0.into_iter().map(|entry| entry.0).collect();
        object.set_at(&["metadata", "managedFields"], Value::Array(list));
    }
}

impl Entry {
    /// The entry that holds this one's fields and a later one's under the common name, with the later one's time.
    fn as_ancient(&self, later: &Self) -> Self {
        let mut set = self.set();
        set.unite(&later.set());
        let manager = Manager {
            name: ANCIENT_CHANGES,
            operation: Operation::Update,
            api_version: self.api_version().into(),
            subresource: "",
        };
        manager.entry(set, later.0.get("time").cloned())
    }
}

/// A list that asks for all owners to be forgotten.
fn is_reset(items: &[Value]) -> bool {
    match items {
        [] => true,
        [one] => one.as_object().is_some_and(|map| map.iter().all(|(_, value)| is_zero(value))),
        _ => false,
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// Whether two stored entries differ in nothing but their time.
pub(super) fn equal_but_for_time(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    let timeless = |map: &'_ Map| map.len() - usize::from(map.contains_key("time"));
    timeless(a) == timeless(b)
        && a.iter().filter(|(name, _)| *name != "time").all(|(name, value)| b.get(name) == Some(value))
}

/// The manager as conflicts name it: `"kubectl" with subresource "status" using apps/v1`.
pub(super) fn describe(entry: &Entry) -> String {
    use crate::field::go_quote;
    let mut text = go_quote(entry.manager());
    if !entry.subresource().is_empty() {
        text.push_str(&format!(" with subresource {}", go_quote(entry.subresource())));
    }
    if entry.operation() == Operation::Update {
        text.push_str(&format!(" using {}", entry.api_version()));
    }
    text
}

//! [`Strategy`]: what differs from kind to kind in the generic verbs.
//!
//! Modelled on upstream's `rest.RESTCreateStrategy` and its siblings. All functions are pure: they see objects
//! that were already decoded against the schema, and never storage or the network.

use apimachinery::{Object, Value, field::ErrorList};
use jiff::Timestamp;

/// What a strategy may know about the request.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub now: Timestamp,
    pub user: &'a str,
    /// `status`, `scale`, …; `None` for the main resource.
    pub subresource: Option<&'a str>,
}

/// Which names a kind allows; messages follow upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain: most kinds.
    DnsSubdomain,
    /// RFC 1123 label: namespaces, (since 1.34) services.
    DnsLabel,
    /// RFC 1035 label: services before that.
    Dns1035Label,
    /// Anything that is one path segment: RBAC objects.
    PathSegment,
}

/// How a delete of this object proceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Gone at once, finalizers permitting.
    Immediate,
    /// Marked and left for an agent to finish within this many seconds.
    Graceful(i64),
}

/// Kind-specific rules; each has the default that suits a plain data kind.
pub trait Strategy: Send + Sync + 'static {
    fn name_rule(&self) -> NameRule {
        NameRule::DnsSubdomain
    }

    /// Fills defaults into an object of the served version (upstream's scheme defaults). Idempotent.
    fn default(&self, _object: &mut Value) {}

    /// Clears what a creator may not set (status) and fills what the server decides.
    fn prepare_for_create(&self, _ctx: &Context<'_>, _object: &mut Value) {}

    /// All complaints about a new object, metadata aside (the registry checks that for every kind).
    fn validate(&self, _ctx: &Context<'_>, _object: &Value) -> ErrorList {
        ErrorList::new()
    }

    /// Puts back what this update may not change: the status in an update of the main resource, everything else
    /// in an update of the status. The default does that by `ctx.subresource` for kinds with a status subresource.
    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep_status_apart(ctx, new, old);
    }

    /// All complaints about a change, metadata aside.
    fn validate_update(&self, ctx: &Context<'_>, new: &Value, _old: &Value) -> ErrorList {
        self.validate(ctx, new)
    }

    /// `Warning` headers for a create (`old` is `None`) or update.
    fn warnings(&self, _ctx: &Context<'_>, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Whether the kind has a status that is separate from its spec.
    fn has_status(&self) -> bool {
        true
    }

    /// Whether `metadata.generation` counts changes of everything but metadata and status.
    fn has_generation(&self) -> bool {
        true
    }

    /// A PUT without `resourceVersion` overwrites whatever is there.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// A PUT of a missing object creates it.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// How to delete `object` when the caller asked for `grace_seconds`.
    fn deletion(&self, _object: &Object, _grace_seconds: Option<i64>) -> Deletion {
        Deletion::Immediate
    }

    /// A delete without a propagation policy leaves dependents alone, as the oldest kinds' clients expect.
    fn orphans_dependents(&self) -> bool {
        false
    }

    /// A finished delete answers with the object instead of a success `Status`.
    fn returns_deleted_object(&self) -> bool {
        false
    }

    /// What a status-less or lightweight write may cost: leases and events may be flushed late.
    fn relaxed_durability(&self) -> bool {
        false
    }
}

/// The default of [`Strategy::prepare_for_update`].
pub fn keep_status_apart(ctx: &Context<'_>, new: &mut Value, old: &Value) {
    let take = |new: &mut Value, old: &Value, key: &str| match old.get(key) {
        Some(value) => {
            new.ensure_object().insert(key, value.clone());
        }
        None => {
            new.ensure_object().remove(key);
        }
    };
    match ctx.subresource {
        None => take(new, old, "status"),
        Some("status") => {
            let map = new.ensure_object();
            let is_apart = |key: &str| matches!(key, "status" | "metadata");
            map.retain(|key, _| is_apart(key) || old.get(key).is_some());
            for (key, value) in old.as_object().into_iter().flatten().filter(|(key, _)| !is_apart(key)) {
                // A patch of the status starts from the stored object, so all of it is usually there already, and
                // comparing is cheaper than cloning.
                if map.get(key) != Some(value) {
                    map.insert(key.clone(), value.clone());
                }
            }
        }
        Some(_) => {}
    }
}

/// A kind without rules of its own.
pub struct Plain;

impl Strategy for Plain {}

/// How `kubectl get` shows a kind: column definitions and the cells of one object.
#[derive(Clone, Copy)]
pub struct Columns {
    pub definitions: &'static [Column],
    /// Cells in column order for an object at a time (ages are relative).
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// `metav1.TableColumnDefinition`.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    pub kind: &'static str,
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
}

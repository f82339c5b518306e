//! [`Strategy`]: what differs from kind to kind in the generic verbs.
//!
//! Modelled on upstream's `rest.RESTCreateStrategy` and its siblings. All functions are pure: they see objects
//! that were already decoded against the schema, and never storage or the network.

use std::sync::Arc;

use apimachinery::decode::{self, DecodeError, FieldValidation};
use apimachinery::schema::SchemaRef;
use apimachinery::{Object, Str, Value, field::ErrorList};
use jiff::Timestamp;

/// What a strategy may know about the request.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub now: Timestamp,
    pub user: &'a str,
    /// `status`, `scale`, …; `None` for the main resource.
    pub subresource: Option<&'a str>,
    /// `--allow-privileged`: containers may be privileged. What Pod Security admission says is another matter.
    pub allow_privileged: bool,
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

    /// Makes what a client sent an object of the kind: drops or refuses unknown fields as `validation` says, refuses
    /// what has the wrong type. Returns what to warn about. `duplicates` are keys that the body named twice.
    fn decode(
        &self,
        value: &mut Value,
        schema: SchemaRef<'_>,
        validation: FieldValidation,
        duplicates: &[String],
    ) -> Result<Vec<String>, DecodeError> {
        decode::decode(value, schema, validation, duplicates)
    }

    /// The `openAPIV3Schema` of a custom resource's version as its definition has it, prose included, for OpenAPI. Made
    /// when asked for; `None` for built-in kinds, whose types are in the tables.
    fn published_schema(&self) -> Option<Value> {
        None
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

    /// Whether an update changes nothing that `metadata.generation` counts.
    fn is_same_generation(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> bool {
        same_spec(new, old)
    }

    /// What the first request to delete an object does to it, for a kind with a controller that finishes the deletion.
    fn begin_deletion(&self) -> Option<fn(&mut Value, Timestamp)> {
        None
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

/// Whether everything but metadata and status is the same.
fn same_spec(new: &Value, old: &Value) -> bool {
    if let (Some(new), Some(old)) = (new.get("spec"), old.get("spec")) {
        return new == old;
    }
    same_but(new, old, &["apiVersion", "kind", "metadata", "status"])
}

/// Whether two objects differ in none but these top-level fields.
pub fn same_but(new: &Value, old: &Value, apart: &[&str]) -> bool {
    fn relevant<'v>(value: &'v Value, apart: &[&str]) -> Vec<(&'v Str, &'v Value)> {
        value.as_object().into_iter().flatten().filter(|(key, _)| !apart.contains(&key.as_str())).collect()
    }
    relevant(new, apart) == relevant(old, apart)
}

/// A kind without rules of its own.
pub struct Plain;

impl Strategy for Plain {}

/// How `kubectl get` shows a kind: column definitions and the cells of one object.
#[derive(Clone)]
pub enum Columns {
    Fixed {
        definitions: &'static [Column],
        /// Cells in column order for an object at a time (ages are relative).
        cells: fn(&Value, Timestamp) -> Vec<Value>,
    },
    /// Of a custom resource.
    Own(Arc<dyn Printer>),
}

/// Columns that are known only at run time.
pub trait Printer: Send + Sync + 'static {
    /// `metav1.TableColumnDefinition` of each column.
    fn definitions(&self) -> Vec<Value>;

    /// Cells in column order for an object at a time.
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value>;
}

impl Columns {
    /// `metav1.TableColumnDefinition` of each column.
    pub fn definitions(&self) -> Vec<Value> {
        match self {
            Self::Fixed { definitions, .. } => definitions.iter().map(Column::definition).collect(),
            Self::Own(printer) => printer.definitions(),
        }
    }

    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match self {
            Self::Fixed { cells, .. } => cells(object, now),
            Self::Own(printer) => printer.cells(object, now),
        }
    }
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

impl Column {
    fn definition(&self) -> Value {
        let mut definition = Value::object();
        let map = definition.ensure_object();
        map.insert("name", self.name);
        map.insert("type", self.kind);
        map.insert("format", self.format);
        map.insert("description", self.description);
        map.insert("priority", self.priority);
        definition
    }
}

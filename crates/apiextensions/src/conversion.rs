//! Objects of one version read as another.
//!
//! An object stays in the store in the version it was written in. Most are read in that version, and most versions
//! differ in nothing but their name: both cost nothing here, because the name is replaced while bytes are copied.
//! What is left goes through a converter: versions with schemas of their own, objects that were written before the
//! schema changed, and webhooks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::conversion::{Converter, Converting};
use apimachinery::object;
use apimachinery::{Object, Status, Str, Value};
use structural_schema::CustomSchema;

/// Calls the webhook that a definition names.
pub trait ConversionWebhook: Send + Sync + 'static {
    /// Converts all objects to one `apiVersion`, in order. `definition` has the name and the `spec.conversion` of the
    /// CustomResourceDefinition.
    fn convert<'a>(
        &'a self,
        definition: &'a Value,
        desired_api_version: &'a str,
        objects: Vec<Value>,
    ) -> Converting<'a, Vec<Value>>;
}

/// How the versions of a definition become each other.
#[derive(Clone)]
pub enum Strategy {
    /// Only `apiVersion` changes.
    None,
    Webhook {
        /// No more of it than a call needs.
        definition: Arc<Value>,
        webhook: Arc<dyn ConversionWebhook>,
    },
}

/// Which stored objects may lack what the schema has come to say since they were written: those from before a
/// revision.
///
/// Shared by all that reads a resource by one set of schemas. Whoever changes a schema takes everything for stale and
/// looks at it later.
#[derive(Debug)]
pub struct Stale(AtomicU64);

impl Stale {
    pub fn nothing() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn everything() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }

    pub fn is_nothing(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn has(&self, revision: u64) -> bool {
        revision < self.0.load(Ordering::Relaxed)
    }

    /// From now on only objects from before this revision are stale.
    pub fn settle(&self, before: u64) {
        self.0.store(before, Ordering::Relaxed);
    }
}

/// Reads objects as one version, and writes those of it for the store.
pub struct VersionConverter {
    pub strategy: Strategy,
    /// `apiVersion` of this version, and of the one that is stored.
    pub served: Str,
    pub stored: Str,
    pub schema: Arc<CustomSchema>,
    pub stored_schema: Arc<CustomSchema>,
    pub stale: Arc<Stale>,
    /// Versions whose objects are those of this one but for their name.
    pub alike: Box<[Str]>,
}

impl Converter for VersionConverter {
    fn is_needed(&self, object: &Object) -> bool {
        self.stale.has(object.revision()) || !self.alike.iter().any(|own| own == object.api_version())
    }

    fn read<'a>(&'a self, objects: Vec<Value>) -> Converting<'a, Vec<Value>> {
        Box::pin(async move { self.convert(objects, &self.served, &self.schema).await })
    }

    fn write(&self, object: Value) -> Converting<'_, Value> {
        Box::pin(async move {
            if self.alike.contains(&self.stored) {
                return Ok(renamed(object, &self.stored));
            }
            let converted = self.convert(vec![object], &self.stored, &self.stored_schema).await?;
            converted.into_iter().next().ok_or_else(|| Status::internal("the conversion returned no object"))
        })
    }
}

impl VersionConverter {
    async fn convert(
        &self,
        objects: Vec<Value>,
        to: &Str,
        schema: &CustomSchema,
    ) -> Result<Vec<Value>, Status> {
        let mut objects = match &self.strategy {
            Strategy::None => objects.into_iter().map(|object| renamed(object, to)).collect(),
            Strategy::Webhook { definition, webhook } => {
                through_webhook(webhook.as_ref(), definition, to, objects).await?
            }
        };
        for object in &mut objects {
            schema.normalize(object).map_err(Status::internal)?;
            schema.default(object);
        }
        Ok(objects)
    }
}

/// Only those that are of another version are sent.
async fn through_webhook(
    webhook: &dyn ConversionWebhook,
    definition: &Value,
    to: &str,
    mut objects: Vec<Value>,
) -> Result<Vec<Value>, Status> {
    let differs = |object: &Value| object.str_at(&["apiVersion"]) != to;
    let (places, sent): (Vec<usize>, Vec<Value>) = objects
        .iter_mut()
        .enumerate()
        .filter(|(_, object)| differs(object))
        .map(|(at, object)| (at, object.take()))
        .unzip();
    if sent.is_empty() {
        return Ok(objects);
    }
    let converted = webhook.convert(definition, to, sent).await?;
    for (at, object) in places.into_iter().zip(converted) {
        objects[at] = object;
    }
    Ok(objects)
}

fn renamed(mut object: Value, api_version: &str) -> Value {
    object.set_at(&["apiVersion"], api_version);
    object
}

/// Whether an object is already as `schema` wants it.
pub fn is_current(schema: &CustomSchema, stored: &Object) -> bool {
    let mut value = stored.to_value();
    let is_readable = schema.normalize(&mut value).is_ok();
    schema.default(&mut value);
    is_readable && object::encode(&value) == *stored.json()
}

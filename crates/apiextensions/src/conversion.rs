//! Objects of one version read as another.
//!
//! An object stays in the store in the version it was written in. Most are read in that version, and most versions
//! differ in nothing but their name: both cost nothing here, because the name is replaced while bytes are copied.
//! What is left goes through a converter: versions with schemas of their own, objects that were written before the
//! schema changed, and webhooks.

use std::sync::Arc;

use api::conversion::{Converter, Converting};
use apimachinery::object;
use apimachinery::{Object, Status, Str, Value};
use structural_schema::CustomSchema;

/// Calls the webhook that a definition names.
pub trait ConversionWebhook: Send + Sync + 'static {
    /// Converts all objects to one `apiVersion`, in order. `definition` is the whole CustomResourceDefinition.
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
        definition: Arc<Value>,
        webhook: Arc<dyn ConversionWebhook>,
    },
}

/// Reads objects as one version, and writes those of it for the store.
pub struct VersionConverter {
    pub strategy: Strategy,
    /// `apiVersion` of this version, and of the one that is stored.
    pub served: Str,
    pub stored: Str,
    pub schema: Arc<CustomSchema>,
    pub stored_schema: Arc<CustomSchema>,
    /// Objects written before this revision may lack what the schema has come to say since.
    pub stale_before: u64,
    /// Versions whose objects are those of this one but for their name.
    pub alike: Box<[Str]>,
}

impl Converter for VersionConverter {
    fn is_needed(&self, object: &Object) -> bool {
        object.revision() < self.stale_before || !self.alike.iter().any(|own| own == object.api_version())
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

/// Whether every object is already as `schema` wants it.
pub fn are_current<'o>(schema: &CustomSchema, objects: impl IntoIterator<Item = &'o Object>) -> bool {
    objects.into_iter().all(|stored| {
        let mut value = stored.to_value();
        let is_readable = schema.normalize(&mut value).is_ok();
        schema.default(&mut value);
        is_readable && object::encode(&value) == stored.json().as_ref()
    })
}

//! Gives flow control the stored configuration, keeps what every cluster has there, and says of each FlowSchema
//! whether its priority level exists.
//!
//! Level-driven: every change of either kind leads to one pass over all of them, and a pass that changes nothing
//! leads to no other.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::object::FieldPaths;
use apimachinery::{GroupVersionResource, Status, Value, json};
use auth::UserInfo;
use client::{Api, Patch, WriteOptions};
use flow_control::{Dangling, FlowControl, defaults};
use registry::Registry;
use storage::{Event, Observer};
use tokio::sync::Notify;
use watch_cache::ResourceCache;

use crate::{Door, LocalApi};

const LEVELS: (&str, GroupVersionResource) =
    ("/registry/prioritylevelconfigurations/", api::gvr::PRIORITY_LEVEL_CONFIGURATIONS);
const SCHEMAS: (&str, GroupVersionResource) = ("/registry/flowschemas/", api::gvr::FLOW_SCHEMAS);

/// Who wrote the objects and who the conditions, by upstream's names.
const PRODUCER: &str = "api-priority-and-fairness-config-producer-v1";
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";
/// After a pass failed, before the next.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// Flow control and what it is configured from.
pub struct Fairness {
    control: FlowControl,
    levels: Arc<ResourceCache>,
    schemas: Arc<ResourceCache>,
    changed: Arc<Notify>,
}

/// Wakes the one that makes the passes.
struct Changes(Arc<Notify>);

impl Observer for Changes {
    fn committed(&self, _events: &[Event]) {
        self.0.notify_one();
    }
}

impl Fairness {
    /// Takes in what is stored. Call before the store takes writes.
    pub fn new(registry: &Registry, options: flow_control::Options) -> Arc<Self> {
        let changed = Arc::new(Notify::new());
        let follow = |prefix: &str| {
            registry.store().observe(prefix, Arc::new(Changes(changed.clone())));
            registry.cache().add_resource(prefix, FieldPaths::NONE)
        };
        let (levels, schemas) = (follow(LEVELS.0), follow(SCHEMAS.0));
        let fairness = Self { control: FlowControl::new(options), levels, schemas, changed };
        fairness.configure();
        Arc::new(fairness)
    }

    pub fn control(&self) -> &FlowControl {
        &self.control
    }

    fn configure(&self) -> Vec<Dangling> {
        let (levels, schemas) = (self.levels.snapshot(), self.schemas.snapshot());
        let json = |object: &Arc<apimachinery::Object>| object.json().clone();
        self.control.configure(levels.objects.values().map(json), schemas.objects.values().map(json))
    }

    /// Makes passes and adjusts limits until `shutdown`.
    pub async fn run(self: Arc<Self>, door: Arc<Door>, shutdown: rt::Shutdown) {
        let api = LocalApi::new(door.clone(), UserInfo::api_server(), shutdown.clone());
        let passes = async {
            loop {
                if let Err(status) = self.pass(&door, &api).await {
                    tracing::warn!(%status, "Could not keep the objects of flow control as they should be");
                    rt::sleep(RETRY_DELAY).await;
                    self.changed.notify_one();
                }
                self.changed.notified().await;
            }
        };
        let drained = async {
            loop {
                self.control.drained().await;
                self.changed.notify_one();
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = passes => {}
            () = drained => {}
            () = self.control.run(shutdown.clone()) => {}
        }
    }

    async fn pass(&self, door: &Door, api: &LocalApi) -> Result<(), Status> {
        let dangling = self.configure();
        if door.endpoint(&SCHEMAS.1).is_err() {
            // `--runtime-config` has turned the group off; flow control goes on with what is stored.
            return Ok(());
        }
        ensure(api).await?;
        for schema in dangling {
            self.tell(api, &schema).await?;
        }
        Ok(())
    }

    /// Writes the condition `Dangling` where it is not what it should be.
    async fn tell(&self, api: &LocalApi, schema: &Dangling) -> Result<(), Status> {
        let key = format!("{}{}", SCHEMAS.0, schema.schema);
        let Some(stored) = self.schemas.get(&key).map(|object| object.to_value()) else { return Ok(()) };
        let wanted = condition(schema);
        let conditions = stored.array_at(&["status", "conditions"]);
        let told = conditions.iter().any(|own| {
            ["type", "status", "reason", "message"].iter().all(|field| own.get(field) == wanted.get(field))
        });
        if told {
            return Ok(());
        }
        let mut applied = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema"});
        applied.set_at(&["metadata", "name"], schema.schema.as_str());
        applied.set_at(&["status", "conditions"], Value::Array(vec![wanted]));
        let options = WriteOptions { field_manager: CONSUMER.into(), force: true, ..WriteOptions::default() };
        match api.patch(&SCHEMAS.1, "", &schema.schema, Some("status"), Patch::Apply(applied), &options).await
        {
            // It was deleted meanwhile; that leads to a pass of its own.
            Err(status) if status.is_not_found() => Ok(()),
            result => result.map(drop),
        }
    }
}

fn condition(schema: &Dangling) -> Value {
    let Dangling { level, is_dangling, .. } = schema;
    let (status, reason, end) = match is_dangling {
        true => ("True", "NotFound", "but there is no such object"),
        false => ("False", "Found", "and it exists"),
    };
    let level = apimachinery::field::go_quote(level);
    let message =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level} {end}");
    let now = apimachinery::time::format_seconds(rt::now());
    json!({"type": "Dangling", "status": status, "reason": reason, "message": message, "lastTransitionTime": now})
}

/// Creates what is missing of the objects that every cluster has, and puts right what nobody has chosen to change.
pub(crate) async fn ensure(api: &LocalApi) -> Result<(), Status> {
    for level in defaults::suggested_levels() {
        ensure_one(api, &LEVELS.1, level, false).await?;
    }
    for schema in defaults::suggested_schemas() {
        ensure_one(api, &SCHEMAS.1, schema, false).await?;
    }
    for level in defaults::mandatory_levels() {
        ensure_one(api, &LEVELS.1, level, true).await?;
    }
    for schema in defaults::mandatory_schemas() {
        ensure_one(api, &SCHEMAS.1, schema, true).await?;
    }
    Ok(())
}

async fn ensure_one(
    api: &LocalApi,
    gvr: &GroupVersionResource,
    wanted: Value,
    mandatory: bool,
) -> Result<(), Status> {
    let name = wanted.str_at(&["metadata", "name"]).to_owned();
    let options = WriteOptions { field_manager: PRODUCER.into(), ..WriteOptions::default() };
    let outcome = match api.get(gvr, "", &name).await {
        Ok(stored) => match defaults::revised(&stored.to_value(), &wanted, mandatory) {
            Some(revised) => api.update(gvr, "", &name, None, revised, &options).await,
            None => return Ok(()),
        },
        Err(_) => api.create(gvr, "", wanted, &options).await,
    };
    match outcome {
        // Somebody else was quicker; what they wrote leads to a pass of its own.
        Err(status) if status.is_conflict() || status.is_already_exists() => Ok(()),
        outcome => outcome.map(drop),
    }
}

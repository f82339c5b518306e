//! KWOK's `Stage` API: what becomes of simulated objects, as their users say.
//!
//! Owns: the `stages.kwok.x-k8s.io` there are, one [`player::Player`] per kind that they name, and the condition that
//! tells on a Stage what is wrong with it. Never touches: kinds that no Stage names; pods and nodes live by the table
//! in `super::stage` then, which costs neither a template nor a tree.
//!
//! ```text
//!     Stage objects ── compile ──> lifecycle per kind ──> player ── choose · delay · play ──> API
//!                        │                                   └─ jq or CEL  └─ one wheel  └─ Go template
//!                        └─ condition on the Stage               failures: an event on the object
//! ```
//!
//! As soon as one Stage names a kind, Stages alone say what happens to it, as in KWOK; when the last is gone, the table
//! takes over again.

pub mod definitions;
mod expression;
mod functions;
mod jq;
mod lifecycle;
mod play;
pub mod player;
mod spec;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::gvr::{CUSTOM_RESOURCE_DEFINITIONS, NODES, PODS};
use apimachinery::{GroupVersionResource, Object, Str, Value, json, time};
use client::informer::{Scope, Subscription};
use client::{Informer, Informers};
use rt::Shutdown;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use lifecycle::Lifecycle;
use player::{Player, Population, World};
use spec::{ResourceRef, StageObject};

pub const STAGES: GroupVersionResource = GroupVersionResource {
    group: Str::const_new("kwok.x-k8s.io"),
    version: Str::const_new("v1alpha1"),
    resource: Str::const_new("stages"),
};

/// The condition of a Stage.
const ACCEPTED: &str = "Accepted";

/// Which of the built-in stages are replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    pub pods: bool,
    pub nodes: bool,
}

/// Follows the Stages.
pub struct Stages {
    world: World,
    informers: Informers,
    definitions: Arc<Informer>,
    definition_deltas: Subscription,
    replaced: watch::Sender<Replaced>,
    casts: BTreeMap<ResourceRef, Cast>,
    shutdown: Shutdown,
}

/// A kind that is played.
struct Cast {
    /// Uid and generation of its Stages.
    versions: Vec<(Str, i64)>,
    lifecycle: watch::Sender<Lifecycle>,
    shutdown: Shutdown,
}

/// The Stages of a kind.
#[derive(Default)]
struct Script {
    versions: Vec<(Str, i64)>,
    lifecycle: Lifecycle,
    objects: Vec<Arc<Object>>,
}

// === impl Stages ===

impl Stages {
    /// Knows the Stages that there are when it returns.
    pub async fn new(
        world: World,
        informers: &Informers,
        replaced: watch::Sender<Replaced>,
        shutdown: Shutdown,
    ) -> Self {
        let scope = Scope { field_selector: "metadata.name=stages.kwok.x-k8s.io".into(), ..Scope::default() };
        let definitions = informers.scoped(&CUSTOM_RESOURCE_DEFINITIONS, scope);
        let mut stages = Self {
            world,
            informers: informers.clone(),
            definition_deltas: definitions.subscribe(),
            definitions,
            replaced,
            casts: BTreeMap::new(),
            shutdown,
        };
        stages.definitions.synced().await;
        if stages.are_served() {
            let informer = stages.informers.of(&STAGES);
            informer.synced().await;
            stages.update(&informer).await;
        }
        stages
    }

    /// Follows them until the informers stop.
    pub async fn run(mut self) {
        loop {
            while !self.are_served() {
                if self.definition_deltas.recv().await.is_none() {
                    return;
                }
            }
            let informer = self.informers.of(&STAGES);
            let mut deltas = informer.subscribe();
            while self.are_served() {
                tokio::select! {
                    is_more = async { deltas.recv_batch(&mut Vec::new()).await } => {
                        if !is_more {
                            return;
                        }
                        self.update(&informer).await;
                    }
                    delta = self.definition_deltas.recv() => if delta.is_none() { return },
                }
            }
            self.informers.stop(&STAGES);
            self.follow(BTreeMap::new()).await;
        }
    }

    fn are_served(&self) -> bool {
        self.definitions.list().iter().any(|definition| {
            let tree = definition.to_value();
            let conditions = tree.array_at(&["status", "conditions"]);
            let is_established = |condition: &Value| {
                condition.str_at(&["type"]) == "Established" && condition.str_at(&["status"]) == "True"
            };
            conditions.iter().any(is_established)
        })
    }

    async fn update(&mut self, informer: &Informer) {
        let mut objects = informer.list();
        objects.sort_by(|a, b| a.name().cmp(b.name()));
        let mut scripts: BTreeMap<ResourceRef, Script> = BTreeMap::new();
        for object in objects {
            let Ok(stage) = object.view::<StageObject>() else {
                warn!(name = object.name(), "Read no Stage");
                continue;
            };
            let script = scripts.entry(stage.spec.resource_ref.full()).or_default();
            script.versions.push((object.uid().into(), object.generation()));
            match stage.spec.compile(object.name()) {
                Ok(compiled) => {
                    script.lifecycle.stages.push(Arc::new(compiled));
                    script.objects.push(object);
                }
                Err(refusal) => self.tell(&object, Some(("Invalid", refusal.to_string()))).await,
            }
        }
        self.follow(scripts).await;
    }

    /// Starts, changes and stops players.
    async fn follow(&mut self, scripts: BTreeMap<ResourceRef, Script>) {
        let replaces = |kind: &str| scripts.keys().any(|kinds| kinds.is_core(kind));
        let replaced = Replaced { pods: replaces("Pod"), nodes: replaces("Node") };
        self.casts.retain(|kind, cast| {
            let keep = scripts.contains_key(kind);
            if !keep {
                info!(kind = %kind.kind, "Stopped playing stages");
                cast.shutdown.cancel();
            }
            keep
        });
        self.replaced.send_if_modified(|old| {
            let changes = *old != replaced;
            *old = replaced;
            changes
        });
        for (kind, script) in scripts {
            match self.casts.get_mut(&kind) {
                Some(cast) if cast.versions == script.versions => continue,
                Some(cast) => {
                    cast.versions = script.versions;
                    cast.lifecycle.send_replace(script.lifecycle);
                    self.accept(&script.objects).await;
                }
                None => self.start(kind, script).await,
            }
        }
    }

    async fn start(&mut self, kind: ResourceRef, script: Script) {
        let Some((resource, population)) = self.resource_of(&kind).await else {
            let message = format!("spec.resourceRef: no {} of {} is served", kind.kind, kind.api_group);
            for object in &script.objects {
                self.tell(object, Some(("KindNotServed", message.clone()))).await;
            }
            return;
        };
        info!(kind = %kind.kind, stages = script.lifecycle.stages.len(), "Plays stages");
        let (lifecycle, follows) = watch::channel(script.lifecycle);
        let shutdown = self.shutdown.child_token();
        let player = Player::new(self.world.clone(), population, self.informers.of(&resource), follows);
        rt::spawn("sim-stages", player.run(shutdown.clone()));
        self.casts.insert(kind, Cast { versions: script.versions, lifecycle, shutdown });
        self.accept(&script.objects).await;
    }

    async fn resource_of(&self, kind: &ResourceRef) -> Option<(GroupVersionResource, Population)> {
        if kind.is_core("Pod") {
            return Some((PODS, Population::Pods));
        }
        if kind.is_core("Node") {
            return Some((NODES, Population::Nodes));
        }
        let served = self.world.api.discover_all().await.unwrap_or_default();
        let found = served.into_iter().find(|resource| {
            resource.kind == kind.kind && resource.gvr.group_version().to_string() == kind.api_group.as_str()
        });
        found.map(|resource| (resource.gvr, Population::All))
    }

    async fn accept(&self, objects: &[Arc<Object>]) {
        for object in objects {
            self.tell(object, None).await;
        }
    }

    /// Writes on a Stage why it cannot be played, or that it can be again. One that always could says nothing.
    async fn tell(&self, stage: &Object, problem: Option<(&str, String)>) {
        let tree = stage.to_value();
        let conditions = tree.array_at(&["status", "conditions"]);
        let own = conditions.iter().find(|condition| condition.str_at(&["type"]) == ACCEPTED);
        let (status, reason, message) = match &problem {
            Some((reason, message)) => ("False", *reason, message.as_str()),
            None if own.is_none() => return,
            None => ("True", "Accepted", ""),
        };
        let says = |key: &str, text: &str| own.is_some_and(|own| own.str_at(&[key]) == text);
        if says("status", status) && says("reason", reason) && says("message", message) {
            return;
        }
        let mut wanted: Vec<Value> =
            conditions.iter().filter(|condition| condition.str_at(&["type"]) != ACCEPTED).cloned().collect();
        let since = match own.filter(|own| own.str_at(&["status"]) == status) {
            Some(own) => own.str_at(&["lastTransitionTime"]).to_owned(),
            None => time::format_seconds(rt::now()),
        };
        wanted.push(json!({
            "type": ACCEPTED, "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
        }));
        let status: Value = [(Str::const_new("conditions"), Value::from(wanted))].into_iter().collect();
        if let Err(status) = self.world.api.patch_status(&STAGES, "", stage.name(), status).await {
            debug!(name = stage.name(), error = %status, "Wrote no condition of a Stage");
        }
    }
}

#[cfg(test)]
mod tests;

//! Devices for pods: ResourceClaims are given devices that drivers publish in ResourceSlices (dynamic resource
//! allocation with structured parameters, `resource.k8s.io`).
//!
//! ```text
//!     events ──> Cluster { inventory: pools by node, classes, claims: what is taken, selectors: what was chosen }
//!                  ^ claims_of(pod)           ^ allocate(node)                  ^ promise
//!     pod ──> PreFilter ─────────────> Filter, each node ──> Score ──> Reserve ─┴─> PreBind: written, pod entered
//!                                        none: PostFilter lets go of a claim that is in the way
//! ```
//!
//! Owns: which claims a pod may use, which devices they get, and what is written about it before the pod is bound.
//! Never touches: how claims are made from templates and released (the controllers'), how devices are made ready (the
//! drivers'). Start at [`allocator`] for the search, at [`cluster`] for what it knows.
//!
//! Locks, in this order: a promise's uid, the cluster, what was seen of nodes. A promise must not go while the cluster
//! is locked.
//!
//! Why does `Reserve` search again, and not keep what `Filter` found? Nothing can have changed in between (both are one
//! step of the scheduling task), one search more is nothing beside one for every node, and nothing has to be kept for
//! nodes that are not taken.

mod allocated;
mod allocator;
mod binding;
mod capacity;
mod claims;
mod classes;
mod cluster;
mod constraint;
mod extended;
mod inventory;
mod selectors;
mod status;
#[cfg(test)]
mod tests;
mod wanted;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::devices::FIRST_AVAILABLE_MAX;
use api::gvr::{PODS, RESOURCE_CLAIMS};
use api::view::{AllocationResult, DeviceClass, ResourceClaim};
use apimachinery::field::{self, Path};
use apimachinery::value::from_value;
use apimachinery::{GroupVersionResource, Object, Str, Value, duration};
use async_trait::async_trait;
use client::ObjectKey;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Notify;

use crate::cache::{Cache, NodeInfo, Slot};
use crate::diagnosis::{Cause, Diagnosis};
use crate::framework::{
    ArgumentError, Arguments, CycleState, EnqueueExtensions, Event, EventSet, Filter, Handle, Hint,
    Nomination, Normalization, NotShareable, Plugin, PostFilter, PostFilterOutcome, PreBind, PreEnqueue,
    PreFilter, PreScore, Relevance, Reserve, Score, Sign, Signature, Status,
};
use crate::pod::PodInfo;
use crate::resource::Resources;
use allocator::{Allocation, Failure, Situation, allocate};
pub(super) use classes::IMPLICIT_PREFIX;
pub(super) use cluster::Cluster;
use cluster::{Extended, PodClaim, PodClaims};
pub(super) use extended::BackedResources;
use extended::IN_MEMORY;
use wanted::Wanted;

/// Upstream's defaults.
const FILTER_TIMEOUT: Duration = Duration::from_secs(10);
const BINDING_TIMEOUT: Duration = Duration::from_secs(600);

pub struct DynamicResources {
    handle: Handle,
    /// Shared by all profiles.
    cluster: Arc<Mutex<Cluster>>,
    /// How long to look for devices on one node.
    filter_timeout: Duration,
    /// How long drivers have to make devices ready.
    binding_timeout: Duration,
    /// Pods whose devices are being made ready, by uid; told when the pod or its node is gone.
    waiting: Mutex<HashMap<Str, Arc<Notify>>>,
}

/// `DynamicResourcesArgs`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Args {
    filter_timeout: Option<Str>,
    binding_timeout: Option<Str>,
}

/// What `PreFilter` found out about a pod, and what `Filter` found out about nodes.
struct State {
    claims: PodClaims,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Positions of claims whose devices cannot be reached from some node, or are not made ready.
    unavailable: BTreeSet<usize>,
    /// How well nodes do that have devices.
    scores: HashMap<Str, i64>,
    /// Why no node need be asked any more.
    failed: Option<Status>,
    /// What is wanted where these of the pod's extended resources are left to devices. Nodes hardly differ.
    with_extended: Option<(Vec<Str>, Arc<Wanted>)>,
}

/// What a node has for a pod.
struct Found {
    wanted: Arc<Wanted>,
    allocations: Vec<Allocation>,
}

/// The claim for a pod's extended resources on a node, with what serves what.
struct ExtendedOnNode {
    claim: PodClaim,
    mappings: Vec<Value>,
}

/// The claims of a pod that has a place.
#[derive(Default)]
struct Reserved {
    claims: Vec<ReservedClaim>,
}

struct ReservedClaim {
    /// As last written or seen.
    object: Arc<Object>,
    allocation: Option<Value>,
    promise: Option<Promise>,
    /// Of a claim for extended resources: what serves what.
    mappings: Option<Vec<Value>>,
}

/// Devices that are taken before the claim says so. When this goes and nothing was written, they are free again.
struct Promise {
    cluster: Arc<Mutex<Cluster>>,
    uid: Mutex<Str>,
}

impl Drop for Promise {
    fn drop(&mut self) {
        let uid = std::mem::take(self.uid.get_mut());
        self.cluster.lock().claims.withdraw(&uid);
    }
}

// === impl DynamicResources ===

impl DynamicResources {
    pub fn new(handle: &Handle, arguments: &Arguments) -> Result<Self, ArgumentError> {
        let Args { filter_timeout, binding_timeout } = arguments.decode()?;
        let filter_timeout = timeout("filterTimeout", filter_timeout, FILTER_TIMEOUT)?;
        let binding_timeout = timeout("bindingTimeout", binding_timeout, BINDING_TIMEOUT)?;
        if binding_timeout < Duration::from_secs(1) {
            let path = Path::root("bindingTimeout");
            let shown = format!("{}s", binding_timeout.as_secs_f64());
            return Err(ArgumentError::of(field::Error::invalid(&path, shown, "must be at least 1 second")));
        }
        let cluster = handle.informers.common();
        let waiting = Mutex::default();
        Ok(Self { handle: handle.clone(), cluster, filter_timeout, binding_timeout, waiting })
    }

    fn situation<'a>(
        &self,
        node: &'a api::view::Node,
        pools: &'a [inventory::Pool],
        claims: &'a claims::Claims,
    ) -> Situation<'a> {
        Situation { node, pools, allocated: &claims.allocated, timeout: self.filter_timeout }
    }

    /// The claims whose devices a pod cannot use on a node, by position.
    fn unavailable(&self, claims: &PodClaims, node: &NodeInfo) -> Vec<usize> {
        let Some(node) = &node.node else { return Vec::new() };
        let is_unavailable = |claim: &PodClaim| {
            let Some(allocation) = &claim.view.status.allocation else { return false };
            let elsewhere = allocation.node_selector.as_ref();
            elsewhere.is_some_and(|selector| !inventory::is_selected(selector, node))
                || self.is_stuck(&claim.view)
        };
        let all = claims.claims.iter().enumerate();
        all.filter(|(_, claim)| is_unavailable(claim)).map(|(at, _)| at).collect()
    }

    /// Its devices were not made ready, and will not be.
    fn is_stuck(&self, claim: &ResourceClaim) -> bool {
        match binding::is_ready(claim) {
            Err(_) => true,
            Ok(ready) => !ready && binding::is_overdue(claim, self.binding_timeout, rt::now()),
        }
    }

    /// Devices for what the pod wants on a node; `None` where it wants nothing.
    fn allocations(&self, state: &State, pod: &PodInfo, node: &NodeInfo) -> Result<Option<Found>, Status> {
        let Some(object) = &node.node else { return Ok(None) };
        let mut cluster = self.cluster.lock();
        let Some(wanted) = wanted_on(state, &mut cluster, pod, &node.allocatable)? else { return Ok(None) };
        let pools = cluster.inventory.pools_of(object);
        let Cluster { selectors, claims, .. } = &mut *cluster;
        match allocate(&wanted, &self.situation(object, &pools, claims), selectors) {
            Ok(Some(allocations)) => Ok(Some(Found { wanted, allocations })),
            Ok(None) => Err(Status::unresolvable("cannot allocate all claims")),
            Err(Failure::OnNode(why)) => Err(Status::unresolvable(why)),
            Err(Failure::Fatal(why)) => {
                let status = Status::error(why);
                state.seen.lock().failed = Some(status.clone());
                Err(status)
            }
        }
    }

    /// Takes devices for the claims of a pod on the node where it is to run.
    fn take(&self, pod: &PodInfo, node: &str) -> Result<Option<Reserved>, Status> {
        let mut cluster = self.cluster.lock();
        let Some(claims) = cluster.claims_of(pod)? else { return Ok(None) };
        let mut reserved: Vec<ReservedClaim> =
            claims.claims.iter().map(|claim| ReservedClaim::of(&claim.object)).collect();
        let Some((node, pools)) = cluster.inventory.last_asked(node) else {
            // Nothing was to be allocated.
            return Ok(Some(Reserved { claims: reserved }));
        };
        let allocatable = Resources::from_list(&node.status.allocatable);
        let (wanted, extended) = wanted_in_full(&mut cluster, pod, &claims, &allocatable)?;
        if wanted.claims.is_empty() {
            return Ok(Some(Reserved { claims: reserved }));
        }
        let Cluster { selectors, claims: books, .. } = &mut *cluster;
        let found = allocate(&wanted, &self.situation(&node, &pools, books), selectors);
        let Ok(Some(found)) = found else {
            return Err(Status::error("claim allocation not found for node"));
        };
        if let Some(ExtendedOnNode { claim, mappings }) = extended {
            reserved.push(ReservedClaim { mappings: Some(mappings), ..ReservedClaim::of(&claim.object) });
        }
        let unallocated = reserved.iter_mut().filter(|claim| claim.needs_devices());
        let mut written = Vec::new();
        for ((claim, wanted), found) in unallocated.zip(&wanted.claims).zip(&found) {
            let name = &node.metadata.name;
            let allocation = written_allocation(&cluster.classes, wanted, found, name, &claim.object)?;
            let read = from_value::<AllocationResult>(&allocation);
            let read = read.map_err(|error| Status::error(error.to_string()))?;
            written.push((claim, allocation, Arc::new(read)));
        }
        // Nothing can fail any more: a promise that goes while the lock is held would wait for it.
        for (claim, allocation, read) in written {
            cluster.claims.promise(claim.object.uid().into(), read);
            claim.promise = Some(Promise::new(&self.cluster, claim.object.uid()));
            claim.allocation = Some(allocation);
        }
        Ok(Some(Reserved { claims: reserved }))
    }

    /// Writes what was reserved. Each claim is left as it then is, also when a later one fails.
    async fn write(&self, claims: &mut [ReservedClaim], pod: &PodInfo) -> Result<(), String> {
        for claim in claims {
            if !claim.is_reserved_for(pod) {
                self.write_claim(claim, pod).await?;
            }
        }
        Ok(())
    }

    async fn write_claim(&self, claim: &mut ReservedClaim, pod: &PodInfo) -> Result<(), String> {
        let api = &self.handle.api;
        if claim.object.name() == IN_MEMORY {
            let created = binding::create_extended(api, &claim.object).await?;
            if let Some(promise) = &claim.promise {
                promise.rename(created.uid());
            }
            claim.object = created;
        }
        let written = binding::bind(api, &claim.object, claim.allocation.as_ref(), pod).await?;
        if let Some(promise) = &claim.promise {
            promise.kept(written.revision());
        }
        claim.object = written;
        match &claim.mappings {
            Some(mappings) => binding::show_extended(api, pod, &claim.object, mappings).await,
            None => Ok(()),
        }
    }

    /// Waits until drivers have made the devices ready that need it.
    async fn until_ready(
        &self,
        claims: &mut [ReservedClaim],
        pod: &PodInfo,
        node: &str,
    ) -> Result<(), String> {
        let view = |claim: &ReservedClaim| claim.object.view::<ResourceClaim>().ok();
        if !claims.iter().filter_map(view).any(|claim| binding::has_binding_conditions(&claim)) {
            return Ok(());
        }
        let text = format!("waiting for binding conditions for device on node {node}");
        self.handle.recorder.normal(&crate::run::reference(pod), "BindingConditionsPending", text);
        let gone = Arc::new(Notify::new());
        self.waiting.lock().insert(pod.uid().clone(), gone.clone());
        // From now on it is told when the pod goes.
        let current = self.handle.informers.of(&PODS).get(pod.namespace(), pod.name());
        if current.is_none_or(|current| current.uid() != pod.uid().as_str()) {
            gone.notify_one();
        }
        let result = self.wait_for_devices(claims, &gone).await;
        self.waiting.lock().remove(pod.uid());
        result
    }

    async fn wait_for_devices(&self, claims: &mut [ReservedClaim], gone: &Notify) -> Result<(), String> {
        let informer = self.handle.informers.of(&RESOURCE_CLAIMS);
        let mut changes = informer.subscribe();
        let deadline = rt::instant() + self.binding_timeout;
        loop {
            for claim in &mut *claims {
                // What was written may not be seen yet.
                if let Some(seen) = informer.get(claim.object.namespace(), claim.object.name())
                    && seen.revision() > claim.object.revision()
                {
                    claim.object = seen;
                }
            }
            if self.are_ready(claims)? {
                return Ok(());
            }
            tokio::select! {
                change = changes.recv() => change.map(drop).ok_or("the scheduler is stopping")?,
                () = gone.notified() => return Err("the pod or its node is gone".to_owned()),
                () = rt::sleep_until(deadline) => {
                    return Err(format!("{}: context deadline exceeded", binding::BINDING_TIMEOUT));
                }
            }
        }
    }

    fn are_ready(&self, claims: &[ReservedClaim]) -> Result<bool, String> {
        for claim in claims {
            let view = claim.object.view::<ResourceClaim>().map_err(|error| error.to_string())?;
            if !binding::is_ready(&view)? {
                if binding::is_overdue(&view, self.binding_timeout, rt::now()) {
                    return Err(format!("{}: claim={}", binding::BINDING_TIMEOUT, claim.object.name()));
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_usable(&self, pod: &PodInfo) -> bool {
        self.cluster.lock().named_claims(&pod.pod).is_ok()
    }

    /// Whether what happened to a claim can help a pod: devices are free, or it is a claim of the pod itself.
    fn claim_helps(&self, pod: &PodInfo, old: Option<&Object>, new: &Object) -> bool {
        let Ok(claims) = self.cluster.lock().named_claims(&pod.pod) else { return false };
        let status = |claim: &Object| claim.view::<ResourceClaim>().map(|view| view.status.clone()).ok();
        let (old, now) = (old.map(status), status(new).unwrap_or_default());
        let had_devices = matches!(&old, Some(Some(old)) if old.allocation.is_some());
        if had_devices && now.allocation.is_none() {
            return true;
        }
        let is_own = claims.iter().any(|claim| claim.object.uid() == new.uid());
        is_own && old.is_none_or(|old| old.is_none_or(|old| old != now))
    }
}

fn timeout(name: &str, text: Option<Str>, default: Duration) -> Result<Duration, ArgumentError> {
    let Some(text) = text else { return Ok(default) };
    let invalid =
        |detail: String| ArgumentError::of(field::Error::invalid(&Path::root(name), text.as_str(), detail));
    let nanoseconds = duration::parse(&text).map_err(|error| invalid(error.to_string()))?;
    let nanoseconds =
        u64::try_from(nanoseconds).map_err(|_| invalid("must be zero or positive".to_owned()))?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// What a pod wants on a node; `None` where it wants nothing.
fn wanted_on(
    state: &State,
    cluster: &mut Cluster,
    pod: &PodInfo,
    allocatable: &Resources,
) -> Result<Option<Arc<Wanted>>, Status> {
    let resources = match &state.claims.extended {
        None => Vec::new(),
        Some(extended) => extended.backed.left_to_devices(allocatable),
    };
    let mut seen = state.seen.lock();
    let wanted = match &seen.with_extended {
        Some((known, wanted)) if *known == resources => wanted.clone(),
        _ => {
            let (wanted, _) = wanted_in_full(cluster, pod, &state.claims, allocatable)?;
            let wanted = Arc::new(wanted);
            seen.with_extended = Some((resources, wanted.clone()));
            wanted
        }
    };
    Ok(Some(wanted).filter(|wanted| !wanted.claims.is_empty()))
}

/// What a pod wants on a node, with the claim for its extended resources and what serves what, if devices have to
/// serve any there.
fn wanted_in_full(
    cluster: &mut Cluster,
    pod: &PodInfo,
    claims: &PodClaims,
    allocatable: &Resources,
) -> Result<(Wanted, Option<ExtendedOnNode>), Status> {
    let left = claims.extended.as_ref().map(|extended| extended.backed.left_to_devices(allocatable));
    let (Some(extended), Some(resources)) = (&claims.extended, left) else {
        return Ok((claims.wanted.clone(), None));
    };
    if resources.is_empty() || extended.claim.is_allocated() {
        return Ok((claims.wanted.clone(), None));
    }
    let made = cluster.wanted_with(&pod.pod, claims, &resources).map_err(Status::error)?;
    let (wanted, requests) = made;
    let claim = extended.with_requests(requests.requests).map_err(Status::error)?;
    Ok((wanted, Some(ExtendedOnNode { claim, mappings: requests.mappings })))
}

/// `status.allocation` for a claim.
fn written_allocation(
    classes: &classes::Classes,
    wanted: &wanted::WantedClaim,
    found: &Allocation,
    node: &str,
    claim: &Object,
) -> Result<Value, Status> {
    let alternatives = wanted.requests.iter().flat_map(|request| &request.alternatives);
    let names = alternatives.map(|alternative| alternative.class.metadata.name.clone());
    let trees: HashMap<Str, Value> =
        names.filter_map(|name| Some((name.clone(), classes.object(&name)?.to_value()))).collect();
    let allocation = status::allocation(wanted, found, node, &claim.to_value(), |name| trees.get(name));
    allocation.map_err(|why| Status::error(format!("create NodeSelector for claim {}: {why}", claim.name())))
}

/// How much the alternatives are liked that were found: of each list, the first most.
fn score(claims: &PodClaims, wanted: &Wanted, found: &[Allocation]) -> i64 {
    let liking = |position: usize| (FIRST_AVAILABLE_MAX - position.min(FIRST_AVAILABLE_MAX)) as i64;
    let new = wanted.claims.iter().zip(found).flat_map(|(claim, found)| {
        let requests = claim.requests.iter().zip(&found.chosen);
        requests.filter(|(request, _)| request.is_list).map(|(_, &chosen)| liking(chosen))
    });
    let given = claims.claims.iter().flat_map(|claim| {
        let results = claim.view.status.allocation.iter().flat_map(|given| &given.devices.results);
        let taken: BTreeSet<&str> = results.map(|result| result.request.as_str()).collect();
        let requests = claim.view.spec.devices.requests.iter();
        let positions = requests.flat_map(move |request| {
            let list = request.first_available.iter().enumerate();
            let name = |own: &Str| format!("{}/{own}", request.name);
            let chosen = list.filter(|(_, own)| taken.contains(name(&own.name).as_str()));
            chosen.map(|(position, _)| position).collect::<Vec<_>>()
        });
        positions.map(liking).collect::<Vec<_>>()
    });
    new.chain(given).sum()
}

// === impl Extended ===

impl Extended {
    /// The claim with what is asked for on a node.
    fn with_requests(&self, requests: Vec<Value>) -> Result<PodClaim, String> {
        let mut tree = self.claim.object.to_value();
        tree.set_at(&["spec", "devices", "requests"], requests);
        let object = extended::object(&tree).ok_or("claim in memory")?;
        PodClaim::new(Arc::new(object))
    }
}

// === impl ReservedClaim ===

impl ReservedClaim {
    fn of(claim: &Arc<Object>) -> Self {
        Self { object: claim.clone(), allocation: None, promise: None, mappings: None }
    }

    fn needs_devices(&self) -> bool {
        self.object.view::<ResourceClaim>().is_ok_and(|claim| claim.status.allocation.is_none())
    }

    fn is_reserved_for(&self, pod: &PodInfo) -> bool {
        self.object.view::<ResourceClaim>().is_ok_and(|claim| claim.is_reserved_for(pod.uid()))
    }
}

// === impl Promise ===

impl Promise {
    fn new(cluster: &Arc<Mutex<Cluster>>, uid: &str) -> Self {
        Self { cluster: cluster.clone(), uid: Mutex::new(uid.into()) }
    }

    fn rename(&self, uid: &str) {
        let new = Str::from(uid);
        let mut own = self.uid.lock();
        self.cluster.lock().claims.rename(&own, &new);
        *own = new;
    }

    fn kept(&self, revision: u64) {
        let uid = self.uid.lock();
        self.cluster.lock().claims.kept(&uid, revision);
    }
}

// === the plugin ===

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }
}

impl Sign for DynamicResources {
    /// What devices a node has left does not depend on the pod and the node alone.
    fn sign(&self, pod: &PodInfo, _: &Cache, _: &mut Signature) -> Result<(), NotShareable> {
        let uses_devices = !pod.pod.spec.resource_claims.is_empty()
            || !pod.requests.extended.is_empty()
                && BackedResources::of(pod, &self.cluster.lock().classes).is_some();
        if uses_devices { Err(NotShareable) } else { Ok(()) }
    }
}

impl EnqueueExtensions for DynamicResources {
    fn events(&self) -> EventSet {
        EventSet::NODE_ADD
            .with(EventSet::NODE_LABEL)
            .with(EventSet::NODE_ALLOCATABLE)
            .with(EventSet::RESOURCE_CLAIM)
            .with(EventSet::POD_GENERATED_CLAIM)
            .with(EventSet::DEVICE_CLASS)
            .with(EventSet::RESOURCE_SLICE)
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        let helps = match event {
            Event::Object { new: None, .. } => false,
            Event::Object { resource, old, new: Some(new) } if **resource == RESOURCE_CLAIMS => {
                self.claim_helps(pod, *old, new)
            }
            Event::PodUpdated { new, .. } => new.uid() == pod.uid() && self.is_usable(new),
            _ => true,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }

    /// The informer is at least as new as the event.
    fn on_object(&self, event: &Event<'_>) {
        let Event::Object { resource, old, new } = event else { return };
        let Some(key) = (*new).or(*old).map(ObjectKey::from) else { return };
        let current = self.handle.informers.of(resource).get(&key.namespace, &key.name);
        self.cluster.lock().set(resource, &key, current.as_ref());
    }

    fn on_objects(&self, resource: &GroupVersionResource, objects: &[Arc<Object>]) {
        self.cluster.lock().set_all(resource, objects);
    }
}

impl PreEnqueue for DynamicResources {
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Status> {
        if pod.pod.spec.resource_claims.is_empty() {
            return Ok(());
        }
        self.cluster.lock().named_claims(&pod.pod).map(drop).map_err(Status::unresolvable)
    }
}

impl PreFilter for DynamicResources {
    fn pre_filter(&self, state: &mut CycleState, pod: &PodInfo, nodes: &Cache) -> Result<Relevance, Status> {
        if pod.pod.spec.resource_claims.is_empty() && pod.requests.extended.is_empty() {
            return Ok(Relevance::Skip);
        }
        let mut cluster = self.cluster.lock();
        cluster.inventory.trim(nodes.node_count());
        let Some(claims) = cluster.claims_of(pod)? else { return Ok(Relevance::Skip) };
        if let Some(extended) = &claims.extended {
            state.insert(extended.backed.clone());
        }
        state.insert(State { claims, seen: Mutex::default() });
        Ok(Relevance::EveryNode)
    }
}

impl Filter for DynamicResources {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        let Some(state) = state.get::<State>() else { return Ok(()) };
        if let Some(failed) = state.seen.lock().failed.clone() {
            return Err(failed);
        }
        // A claim that was made for a pod which then was not bound is for another node, perhaps.
        let is_made = |extended: &Extended| !extended.claim.view.spec.devices.requests.is_empty();
        if state.claims.extended.as_ref().is_some_and(is_made) {
            return Err(Status::unresolvable("cannot schedule extended resource claim"));
        }
        let unavailable = self.unavailable(&state.claims, node);
        let found = self.allocations(state, pod, node)?;
        if !unavailable.is_empty() {
            state.seen.lock().unavailable.extend(unavailable);
            return Err(Status::unresolvable("resourceclaim not available on the node"));
        }
        if let Some(Found { wanted, allocations }) = found
            && wanted.has_lists()
        {
            let score = score(&state.claims, &wanted, &allocations);
            state.seen.lock().scores.insert(node.name.clone(), score);
        }
        Ok(())
    }
}

impl PostFilter for DynamicResources {
    /// Lets go of a claim whose devices are in the wrong place, if nobody else uses it.
    fn post_filter(&self, pod: &PodInfo, _: &Cache, diagnosis: &Diagnosis<'_>) -> PostFilterOutcome {
        let state = match &diagnosis.cause {
            Cause::Nodes(shortlist) => shortlist.state().get::<State>(),
            Cause::PreFilter { .. } => None,
        };
        let message = match state {
            None => "no new claims to deallocate",
            Some(state) => self.let_go(state, pod),
        };
        PostFilterOutcome { message: message.to_owned(), nomination: Nomination::Keep }
    }
}

impl DynamicResources {
    fn let_go(&self, state: &State, pod: &PodInfo) -> &'static str {
        let api = self.handle.api.clone();
        let seen = state.seen.lock();
        let is_unused = |claim: &&PodClaim| {
            claim.view.status.reserved_for.iter().all(|user| user.uid == *pod.uid())
                && claim.view.status.reserved_for.len() <= 1
        };
        let mut unavailable = seen.unavailable.iter().filter_map(|&at| state.claims.claims.get(at));
        if let Some(claim) = unavailable.find(is_unused) {
            rt::spawn("deallocate-claim", binding::deallocate(api, claim.object.clone()));
            return "deallocation of ResourceClaim completed";
        }
        if let Some(extended) = &state.claims.extended
            && extended.claim.object.name() != IN_MEMORY
        {
            rt::spawn("delete-claim", binding::delete_extended(api, extended.claim.object.clone()));
            return "deletion of ResourceClaim completed";
        }
        "still not schedulable"
    }
}

impl PreScore for DynamicResources {
    /// Only lists of alternatives make nodes differ.
    fn pre_score(&self, state: &mut CycleState, _: &PodInfo, _: &Cache, _: &[Slot]) -> Relevance {
        let differ = state.get::<State>().is_some_and(|state| !state.seen.lock().scores.is_empty());
        if differ { Relevance::EveryNode } else { Relevance::Skip }
    }
}

impl Score for DynamicResources {
    fn score(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> i64 {
        let state = state.get::<State>();
        state.and_then(|state| state.seen.lock().scores.get(&node.name).copied()).unwrap_or(0)
    }

    fn normalization(&self) -> Normalization {
        Normalization::PROPORTIONAL
    }
}

impl Reserve for DynamicResources {
    fn reserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Result<(), Status> {
        if pod.pod.spec.resource_claims.is_empty() && pod.requests.extended.is_empty() {
            return Ok(());
        }
        if let Some(reserved) = self.take(pod, node)? {
            state.insert(reserved);
        }
        Ok(())
    }

    fn unreserve(&self, state: &mut CycleState, pod: &PodInfo, _: &str) {
        let Some(reserved) = state.get::<Reserved>() else { return };
        for claim in &reserved.claims {
            let (api, object) = (self.handle.api.clone(), claim.object.clone());
            if claim.mappings.is_some() {
                if object.name() != IN_MEMORY {
                    rt::spawn("delete-claim", binding::delete_extended(api, object));
                }
            } else if claim.is_reserved_for(pod) {
                rt::spawn("unreserve-claim", binding::unreserve(api, object, pod.uid().clone()));
            }
        }
        // Promises go with it.
        state.insert(Reserved::default());
    }
}

#[async_trait]
impl PreBind for DynamicResources {
    fn is_needed(&self, state: &CycleState, _: &PodInfo) -> bool {
        state.get::<Reserved>().is_some()
    }

    async fn pre_bind(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Result<(), Status> {
        let Some(Reserved { claims }) = state.get_mut() else { return Ok(()) };
        self.write(claims, pod).await.map_err(Status::error)?;
        self.until_ready(claims, pod, node).await.map_err(Status::error)
    }

    fn wake(&self, uid: &str) {
        if let Some(waiting) = self.waiting.lock().get(uid) {
            waiting.notify_one();
        }
    }
}

/// Whether a class that appeared or changed stands for an extended resource that a pod asks for.
pub(super) fn stands_for_request(class: &Object, pod: &PodInfo) -> bool {
    let explicit = class.view::<DeviceClass>().ok().and_then(|view| view.spec.extended_resource_name.clone());
    let asks = |name: &str| pod.requests.extended(name) > 0;
    explicit.is_some_and(|name| asks(&name)) || asks(&format!("{IMPLICIT_PREFIX}{}", class.name()))
}

//! `ResourceQuota`: what a namespace uses stays within its quotas, also when many ask at the same time.
//!
//! A request that costs something is charged to the status of every quota it falls under before it is committed, and
//! refused if one of them has not enough left. Charges of a namespace queue up: whoever is next takes all that wait
//! and writes them as one, so that no two can spend the same, and a busy namespace costs few writes.
//!
//! What is charged and then fails to be committed stays charged until the quota controller counts again, as upstream.
//!
//! Start at [`evaluate`] for what is asked of which quota.

mod configuration;
mod evaluate;

use std::collections::HashMap;
use std::sync::Arc;

use api::gvr;
use api::quota::{Change, Kind};
use apimachinery::{Object, Status, Str, Value};
use async_trait::async_trait;
use auth::UserInfo;
use parking_lot::Mutex;
use registry::admission::{Attributes, Operation};
use registry::{Endpoint, Rewrite, WriteContext};

use crate::configuration::Configuration;
use crate::dynamic::DynamicPlugin;
use crate::plugins::{BuildError, Environment};
use crate::{forbidden, is_write};
use configuration::Limited;
use evaluate::{Claim, Refusal, Request};

/// Who the charges are written by, as managed fields have it.
const MANAGER: &str = "kube-apiserver";

/// A charge is tried again this often when a quota is changed by somebody else meanwhile.
const TRIES_MAX: usize = 16;

pub struct ResourceQuota {
    quotas: Endpoint,
    limited: Vec<Limited>,
    queues: Queues,
}

/// By namespace; only those in which somebody waits.
type Queues = Mutex<HashMap<Str, Arc<Queue>>>;

/// Charges of one namespace.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Vec<Arc<Waiter>>>,
    /// Held by whoever writes.
    turn: tokio::sync::Mutex<()>,
}

/// A request that waits for its charge.
struct Waiter {
    claims: Vec<Claim>,
    outcome: Mutex<Option<Outcome>>,
}

/// A request's place in the queue of its namespace. A request that goes away leaves it, and is not charged if nobody
/// took it along yet.
struct Place<'q> {
    queues: &'q Queues,
    namespace: Str,
    queue: Arc<Queue>,
    waiter: Arc<Waiter>,
}

impl<'q> Place<'q> {
    fn take(queues: &'q Queues, namespace: &str, claims: Vec<Claim>) -> Self {
        let namespace = Str::from(namespace);
        let queue = queues.lock().entry(namespace.clone()).or_default().clone();
        let waiter = Arc::new(Waiter { claims, outcome: Mutex::default() });
        queue.waiting.lock().push(waiter.clone());
        Self { queues, namespace, queue, waiter }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queues = self.queues.lock();
        let mut waiting = self.queue.waiting.lock();
        waiting.retain(|own| !Arc::ptr_eq(own, &self.waiter));
        // This one and the map's.
        if Arc::strong_count(&self.queue) == 2 && waiting.is_empty() {
            queues.remove(&self.namespace);
        }
    }
}

#[derive(Clone)]
enum Outcome {
    Charged,
    Refused(String),
    Failed(Status),
}

impl ResourceQuota {
    pub fn new(environment: &Environment<'_>, configuration: &Configuration) -> Result<Self, BuildError> {
        Ok(Self {
            quotas: environment.endpoint(&gvr::RESOURCE_QUOTAS)?,
            limited: configuration.of("ResourceQuota", configuration::parse)?,
            queues: Mutex::default(),
        })
    }

    /// The quotas of a namespace.
    fn quotas(&self, namespace: &str) -> Vec<Arc<Object>> {
        let snapshot = self.quotas.cache.snapshot();
        let prefix = self.quotas.resource.key_prefix(namespace);
        snapshot.range(&prefix, None).map(|(_, quota)| quota.clone()).collect()
    }

    /// What the request asks of which quota.
    fn claims(&self, attributes: &Attributes<'_>, object: &Value) -> Result<Vec<Claim>, Refusal> {
        let resource = attributes.resource;
        if !is_write(attributes) || attributes.namespace.is_empty() || !resource.namespaced {
            return Ok(Vec::new());
        }
        let quotas = self.quotas(attributes.namespace);
        if quotas.is_empty() && self.limited.is_empty() {
            return Ok(Vec::new());
        }
        let Some(kind) = Kind::of(&resource.group, &resource.plural) else { return Ok(Vec::new()) };
        let updates = attributes.operation == Operation::Update;
        let old = updates.then(|| attributes.old_value()).flatten();
        let change = Change {
            subresource: attributes.subresource.unwrap_or_default(),
            new: object,
            old: old.as_deref(),
        };
        if !kind.is_charged(change) {
            return Ok(Vec::new());
        }
        let quotas: Vec<Value> = quotas.iter().map(|quota| self.quotas.served(quota)).collect();
        let request =
            Request { group: &resource.group, plural: &resource.plural, kind: &kind, change, now: rt::now() };
        evaluate::claims(&quotas, &request, &self.limited)
    }

    /// Waits until the claims are charged or refused.
    async fn charge(&self, attributes: &Attributes<'_>, claims: Vec<Claim>) -> Outcome {
        let place = Place::take(&self.queues, attributes.namespace, claims);
        let (queue, waiter) = (&place.queue, &place.waiter);
        let _turn = queue.turn.lock().await;
        let settled = waiter.outcome.lock().clone();
        if let Some(outcome) = settled {
            return outcome;
        }
        let mut batch = std::mem::take(&mut *queue.waiting.lock());
        // Whoever took this one along went away before it was written.
        if !batch.iter().any(|own| Arc::ptr_eq(own, waiter)) {
            batch.push(waiter.clone());
        }
        self.settle(attributes, &batch).await;
        let outcome = waiter.outcome.lock().clone();
        outcome.unwrap_or(Outcome::Failed(Status::internal("a quota was not settled")))
    }

    /// Charges a batch: decides for each of it in turn, then writes every quota that changed, once.
    async fn settle(&self, attributes: &Attributes<'_>, batch: &[Arc<Waiter>]) {
        let mut written = Vec::<Str>::new();
        for _ in 0..TRIES_MAX {
            let mut quotas: Vec<(Arc<Object>, Value)> = self
                .quotas(attributes.namespace)
                .into_iter()
                .filter(|quota| !written.iter().any(|name| name == quota.name()))
                .map(|quota| {
                    let tree = self.quotas.served(&quota);
                    (quota, tree)
                })
                .collect();
            for waiter in batch {
                let refused = matches!(*waiter.outcome.lock(), Some(Outcome::Refused(_)));
                if !refused && let Err(why) = evaluate::charge_all(&mut quotas, &waiter.claims) {
                    *waiter.outcome.lock() = Some(Outcome::Refused(why));
                }
            }
            match self.write_all(attributes, quotas, &mut written).await {
                Ok(true) => {
                    for waiter in batch {
                        waiter.outcome.lock().get_or_insert(Outcome::Charged);
                    }
                    return;
                }
                Ok(false) => {}
                Err(status) => {
                    for waiter in batch {
                        waiter.outcome.lock().get_or_insert_with(|| Outcome::Failed(status.clone()));
                    }
                    return;
                }
            }
        }
        let status = Status::internal("quotas of the namespace change too often to be charged");
        for waiter in batch {
            waiter.outcome.lock().get_or_insert_with(|| Outcome::Failed(status.clone()));
        }
    }

    /// Writes the usage of quotas that changed. False when one is no longer what it was; those written by then are
    /// named in `written`.
    async fn write_all(
        &self,
        attributes: &Attributes<'_>,
        quotas: Vec<(Arc<Object>, Value)>,
        written: &mut Vec<Str>,
    ) -> Result<bool, Status> {
        let user = UserInfo::api_server();
        let warnings = registry::Warnings::default();
        let ctx = WriteContext {
            user: &user,
            namespace: attributes.namespace,
            subresource: Some("status"),
            dry_run: false,
            field_manager: MANAGER,
            now: rt::now(),
            warnings: &warnings,
        };
        for (quota, charged) in quotas {
            let before = self.quotas.served(&quota);
            if charged == before {
                continue;
            }
            let mut produce = |present: Option<&Value>| match present {
                Some(present) if *present == before => {
                    Ok(Rewrite { trusted: true, ..Rewrite::of_current(charged.clone(), present) })
                }
                _ => Err(Status::stale(&self.quotas.resource.group_resource(), quota.name())),
            };
            match attributes.registry.modify(&self.quotas, &ctx, quota.name(), false, &mut produce).await {
                Ok(_) => written.push(quota.name().into()),
                Err(status) if status.is_conflict() || status.is_not_found() => return Ok(false),
                Err(status) => return Err(status),
            }
        }
        Ok(true)
    }

    /// What would become of the claims, without charging them.
    fn try_out(&self, attributes: &Attributes<'_>, claims: &[Claim]) -> Outcome {
        let mut quotas: Vec<(Arc<Object>, Value)> = self
            .quotas(attributes.namespace)
            .into_iter()
            .map(|quota| {
                let tree = self.quotas.served(&quota);
                (quota, tree)
            })
            .collect();
        match evaluate::charge_all(&mut quotas, claims) {
            Ok(()) => Outcome::Charged,
            Err(why) => Outcome::Refused(why),
        }
    }
}

#[async_trait]
impl DynamicPlugin for ResourceQuota {
    fn is_idle(&self) -> bool {
        self.limited.is_empty() && self.quotas.cache.is_empty()
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        let claims = match self.claims(attributes, object) {
            Ok(claims) if claims.is_empty() => return Ok(()),
            Ok(claims) => claims,
            Err(Refusal::Forbidden(why)) => return Err(forbidden(attributes, why)),
            Err(Refusal::Failed(why)) => return Err(Status::new(500, "", why)),
        };
        let outcome = if attributes.dry_run {
            self.try_out(attributes, &claims)
        } else {
            self.charge(attributes, claims).await
        };
        match outcome {
            Outcome::Charged => Ok(()),
            Outcome::Refused(why) => Err(forbidden(attributes, why)),
            Outcome::Failed(status) => Err(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_goes_away_is_not_charged() {
        let queues = Queues::default();
        let (gone, stays) = (Place::take(&queues, "n", Vec::new()), Place::take(&queues, "n", Vec::new()));
        drop(gone);
        let waiting = std::mem::take(&mut *stays.queue.waiting.lock());
        assert!(matches!(&waiting[..], [only] if Arc::ptr_eq(only, &stays.waiter)));
        drop(stays);
        assert!(queues.lock().is_empty(), "a namespace in which nobody waits has no queue");
    }
}

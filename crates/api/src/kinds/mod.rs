//! The rules of every built-in kind, one folder per API group, one file per kind.
//!
//! Owns: which kinds have which [`Strategy`], and the facts about them that are plain data ([`facts`]). Never touches:
//! schemas, names of resources, table columns (see [`crate::resource`]), and checks that several kinds share
//! (see [`crate::validation`]).
//!
//! Rules come in three layers. [`facts`] has one row for every kind: form of names, status, generation, which updates
//! are allowed. [`defaults`] has upstream's scheme defaults that are simple data. What is left — typed defaults,
//! validation, immutability, deletion — is a [`Strategy`] in a file named after the kind. Adding one is a file and a
//! line in its group's list.
//!
//! Start at [`strategy`]; the largest kind is [`core::pod`].

pub mod admissionregistration;
pub mod apiextensions;
pub mod apiregistration;
pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
pub mod coordination;
pub mod core;
pub mod defaults;
pub mod discovery;
pub mod events;
pub mod facts;
pub mod flowcontrol;
pub mod networking;
pub mod node;
pub mod policy;
pub mod rbac;
pub mod resource;
pub mod scheduling;
pub mod storage;
pub mod storagemigration;
mod warnings;

use std::sync::Arc;

use apimachinery::field::ErrorList;
use apimachinery::{Object, Value};
use jiff::Timestamp;

use crate::features::Features;
use crate::features::fields::Dropped;
use crate::strategy::{Context, Deletion, NameRule, Plain, Strategy};
use facts::Facts;

/// The kinds of one group that have rules of their own.
type Rules = &'static [(&'static str, &'static dyn Strategy)];

/// Every group with rules; the one visible list.
const GROUPS: &[(&str, Rules)] = &[
    ("", core::RULES),
    ("admissionregistration.k8s.io", admissionregistration::RULES),
    ("apiextensions.k8s.io", apiextensions::RULES),
    ("apiregistration.k8s.io", apiregistration::RULES),
    ("apps", apps::RULES),
    ("autoscaling", autoscaling::RULES),
    ("batch", batch::RULES),
    ("certificates.k8s.io", certificates::RULES),
    ("coordination.k8s.io", coordination::RULES),
    ("discovery.k8s.io", discovery::RULES),
    ("events.k8s.io", events::RULES),
    ("flowcontrol.apiserver.k8s.io", flowcontrol::RULES),
    ("networking.k8s.io", networking::RULES),
    ("node.k8s.io", node::RULES),
    ("policy", policy::RULES),
    ("rbac.authorization.k8s.io", rbac::RULES),
    ("resource.k8s.io", resource::RULES),
    ("scheduling.k8s.io", scheduling::RULES),
    ("storage.k8s.io", storage::RULES),
    ("storagemigration.k8s.io", storagemigration::RULES),
];

/// The strategy of a built-in kind. A kind that is not listed anywhere gets the rules of plain data.
pub fn strategy(group: &str, kind: &str, features: &Features) -> Arc<dyn Strategy> {
    let rules = GROUPS
        .iter()
        .find(|(own, _)| *own == group)
        .and_then(|(_, kinds)| kinds.iter().find(|(own, _)| *own == kind))
        .map_or(&Plain as &'static dyn Strategy, |(_, rules)| *rules);
    let dropped = Dropped::of(group, kind, features);
    Arc::new(Kind { facts: facts::of(group, kind), defaults: defaults::of(group, kind), dropped, rules })
}

/// A kind's rules together with its rows of data.
struct Kind {
    facts: &'static Facts,
    defaults: defaults::Table,
    dropped: Dropped,
    rules: &'static dyn Strategy,
}

impl Strategy for Kind {
    fn name_rule(&self) -> NameRule {
        self.facts.names
    }

    fn default(&self, object: &mut Value) {
        defaults::apply(self.defaults, object);
        self.rules.default(object);
    }

    fn prepare_for_create(&self, ctx: &Context<'_>, object: &mut Value) {
        if let Some(status) = self.facts.initial_status
            && let Ok(status) = Value::parse(status.as_bytes())
        {
            object.ensure_object().insert("status", status);
        }
        self.dropped.apply(object, None);
        self.rules.prepare_for_create(ctx, object);
    }

    fn validate(&self, ctx: &Context<'_>, object: &Value) -> ErrorList {
        self.rules.validate(ctx, object)
    }

    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        self.dropped.apply(new, Some(old));
        self.rules.prepare_for_update(ctx, new, old);
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        self.rules.validate_update(ctx, new, old)
    }

    fn warnings(&self, ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        self.rules.warnings(ctx, new, old)
    }

    fn has_status(&self) -> bool {
        self.facts.status
    }

    fn has_generation(&self) -> bool {
        self.facts.generation
    }

    fn allow_unconditional_update(&self) -> bool {
        self.facts.unconditional_update
    }

    fn allow_create_on_update(&self) -> bool {
        self.facts.create_on_update
    }

    fn deletion(&self, object: &Object, grace_seconds: Option<i64>) -> Deletion {
        self.rules.deletion(object, grace_seconds)
    }

    fn begin_deletion(&self) -> Option<fn(&mut Value, Timestamp)> {
        self.rules.begin_deletion()
    }

    fn is_same_generation(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> bool {
        self.rules.is_same_generation(ctx, new, old)
    }

    fn orphans_dependents(&self) -> bool {
        self.facts.orphans_dependents
    }

    fn returns_deleted_object(&self) -> bool {
        self.facts.returns_deleted
    }

    fn relaxed_durability(&self) -> bool {
        self.rules.relaxed_durability()
    }
}

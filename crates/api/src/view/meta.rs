//! `metav1` types that views share.

use apimachinery::selector::{Expression, SelectorError};
use apimachinery::{Selector, Str};
use serde::Deserialize;

use super::StringMap;
use super::string_map::exact;

/// What components read of `metav1.ObjectMeta`. The resourceVersion is `Object::revision`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectMeta {
    pub name: Str,
    pub namespace: Str,
    pub uid: Str,
    pub generation: i64,
    pub labels: StringMap,
    pub annotations: StringMap,
    #[serde(deserialize_with = "exact")]
    pub finalizers: Vec<Str>,
    #[serde(deserialize_with = "exact")]
    pub owner_references: Vec<OwnerReference>,
    pub creation_timestamp: Option<Str>,
    pub deletion_timestamp: Option<Str>,
    pub deletion_grace_period_seconds: Option<i64>,
}

/// `metav1.OwnerReference`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct OwnerReference {
    pub api_version: Str,
    pub kind: Str,
    pub name: Str,
    pub uid: Str,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

/// `metav1.LabelSelector` as it is written in objects; matching is `apimachinery::selector`'s.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct LabelSelector {
    pub match_labels: StringMap,
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// `metav1.LabelSelectorRequirement`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct LabelSelectorRequirement {
    pub key: Str,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: Str,
    pub values: Vec<Str>,
}

impl ObjectMeta {
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller)
    }
}

impl LabelSelector {
    /// The selector in the form that matches; empty selects everything.
    pub fn selector(&self) -> Result<Selector, SelectorError> {
        let labels = self.match_labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let expressions = self.match_expressions.iter().map(|requirement| Expression {
            key: &requirement.key,
            operator: &requirement.operator,
            values: requirement.values.iter().map(Str::as_str),
        });
        Selector::from_parts(labels, expressions)
    }

    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

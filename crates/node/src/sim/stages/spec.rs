//! `Stage` as an object, and what is compiled of it.
//!
//! Owns: the fields of KWOK's `v1alpha1.Stage`, old forms and new ones (`next` beside `steps`, `key` beside `jq.key`),
//! and what is said about a Stage that cannot be played. Never touches: the API.

use std::collections::BTreeMap;
use std::fmt;

use apimachinery::{Str, Value};
use gotemplate::Template;
use serde::Deserialize;

use super::expression::{Expression, Requirement};
use super::functions::Names;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StageObject {
    pub spec: StageSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StageSpec {
    pub resource_ref: ResourceRef,
    pub selector: Option<Selector>,
    pub weight: i64,
    pub weight_from: Option<Source>,
    pub delay: Option<DelaySpec>,
    pub next: Option<Next>,
    pub steps: Vec<StepSpec>,
}

/// Which kind a Stage is for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceRef {
    /// Group and version, `v1` if it is left out.
    pub api_group: Str,
    pub kind: Str,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Selector {
    pub match_labels: BTreeMap<Str, Str>,
    pub match_annotations: BTreeMap<Str, Str>,
    pub match_expressions: Vec<MatchExpression>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MatchExpression {
    pub cel: Option<Cel>,
    pub jq: Option<Jq>,
    #[serde(flatten)]
    pub plain: Jq,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Jq {
    pub key: Str,
    pub operator: Str,
    pub values: Vec<Str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cel {
    pub expression: Str,
}

/// `ExpressionFrom`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Source {
    pub cel: Option<Cel>,
    pub jq: Option<Cel>,
    pub expression_from: Str,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DelaySpec {
    pub duration_milliseconds: Option<i64>,
    pub duration_from: Option<Source>,
    pub jitter_duration_milliseconds: Option<i64>,
    pub jitter_duration_from: Option<Source>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Next {
    pub event: Option<EventSpec>,
    pub finalizers: Option<FinalizersSpec>,
    pub delete: bool,
    pub patches: Vec<PatchSpec>,
    pub status_template: String,
    pub status_subresource: Option<Str>,
    pub status_patch_as: Option<Impersonation>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StepSpec {
    pub patch: Option<PatchSpec>,
    pub event: Option<EventSpec>,
    pub finalizers: Option<FinalizersSpec>,
    pub delete: bool,
    pub apply: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EventSpec {
    #[serde(rename = "type")]
    pub type_: Str,
    pub reason: Str,
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FinalizersSpec {
    pub add: Vec<Finalizer>,
    pub remove: Vec<Finalizer>,
    pub empty: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Finalizer {
    pub value: Str,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PatchSpec {
    #[serde(rename = "type")]
    pub type_: Option<Str>,
    pub subresource: Str,
    pub root: Str,
    pub template: String,
    pub impersonation: Option<Impersonation>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Impersonation {
    pub username: Str,
}

/// A Stage that can be played.
#[derive(Debug)]
pub struct Stage {
    pub name: Str,
    /// `None` for a Stage without selector, which selects nothing.
    pub selector: Option<Compiled>,
    pub weight: i64,
    pub weight_from: Option<Expression>,
    pub delay: Option<Delay>,
    pub steps: Vec<Step>,
}

/// What a Stage selects.
#[derive(Debug)]
pub struct Compiled {
    pub labels: BTreeMap<Str, Str>,
    pub annotations: BTreeMap<Str, Str>,
    pub requirements: Vec<Requirement>,
}

/// Milliseconds, and where else they come from.
#[derive(Debug)]
pub struct Delay {
    pub milliseconds: i64,
    pub from: Option<Expression>,
    pub jitter_milliseconds: Option<i64>,
    pub jitter_from: Option<Expression>,
}

/// One thing that a Stage does.
#[derive(Debug)]
pub enum Step {
    Event(EventSpec),
    Finalizers(FinalizersSpec),
    Patch(PatchStep),
    Delete,
}

#[derive(Debug)]
pub struct PatchStep {
    pub kind: PatchKind,
    pub subresource: Str,
    pub root: Str,
    pub template: Template,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
}

/// Why a Stage cannot be played: the field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub field: String,
    pub why: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

fn refused<T>(field: impl Into<String>, why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { field: field.into(), why: why.into() })
}

impl ResourceRef {
    /// With the default in its place.
    pub fn full(&self) -> Self {
        let api_group = if self.api_group.is_empty() { "v1".into() } else { self.api_group.clone() };
        Self { api_group, kind: self.kind.clone() }
    }

    pub fn is_core(&self, kind: &str) -> bool {
        self.full().api_group == "v1" && self.kind == kind
    }
}

// === compiling ===

impl StageSpec {
    pub fn compile(&self, name: &str) -> Result<Stage, Refusal> {
        if self.resource_ref.kind.is_empty() {
            return refused("spec.resourceRef.kind", "Required value");
        }
        let selector = self.selector.as_ref().map(Selector::compile).transpose()?;
        Ok(Stage {
            name: name.into(),
            selector,
            weight: self.weight,
            weight_from: compile_from("spec.weightFrom", self.weight_from.as_ref())?,
            delay: self.delay.as_ref().map(DelaySpec::compile).transpose()?,
            steps: self.compile_steps()?,
        })
    }

    /// Steps win over `next`, whose parts are done in this order.
    fn compile_steps(&self) -> Result<Vec<Step>, Refusal> {
        let strategic = self.resource_ref.is_core("Pod") || self.resource_ref.is_core("Node");
        let mut steps = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            let field = format!("spec.steps[{index}]");
            if step.apply.is_some() {
                return refused(format!("{field}.apply"), "not supported here; patch the object itself");
            }
            steps.extend(step.event.clone().map(Step::Event));
            steps.extend(step.finalizers.clone().map(Step::Finalizers));
            if step.delete {
                steps.push(Step::Delete);
            } else if let Some(patch) = &step.patch {
                steps.push(patch.compile(&format!("{field}.patch"), strategic)?);
            }
        }
        let Some(next) = self.next.as_ref().filter(|_| self.steps.is_empty()) else { return Ok(steps) };
        steps.extend(next.event.clone().map(Step::Event));
        steps.extend(next.finalizers.clone().map(Step::Finalizers));
        for (index, patch) in next.patches.iter().enumerate() {
            steps.push(patch.compile(&format!("spec.next.patches[{index}]"), strategic)?);
        }
        if next.patches.is_empty() && !next.status_template.is_empty() {
            steps.push(next.status_patch().compile("spec.next.statusTemplate", strategic)?);
        }
        steps.extend(next.delete.then_some(Step::Delete));
        Ok(steps)
    }
}

impl Next {
    fn status_patch(&self) -> PatchSpec {
        PatchSpec {
            type_: None,
            subresource: self.status_subresource.clone().unwrap_or_else(|| "status".into()),
            root: "status".into(),
            template: self.status_template.clone(),
            impersonation: self.status_patch_as.clone(),
        }
    }
}

impl PatchSpec {
    fn compile(&self, field: &str, strategic: bool) -> Result<Step, Refusal> {
        let kind = match self.type_.as_deref() {
            None | Some("") if strategic => PatchKind::Strategic,
            None | Some("") => PatchKind::Merge,
            Some("json") => PatchKind::Json,
            Some("merge") => PatchKind::Merge,
            Some("strategic") => PatchKind::Strategic,
            Some(other) => {
                let why = format!(
                    "Unsupported value: {other:?}: supported values: \"json\", \"merge\", \"strategic\""
                );
                return refused(format!("{field}.type"), why);
            }
        };
        if self.impersonation.is_some() {
            return refused(field, "patches as another user are not supported here");
        }
        match Template::parse("_", self.template.trim(), &Names) {
            Ok(template) => Ok(Step::Patch(PatchStep {
                kind,
                subresource: self.subresource.clone(),
                root: self.root.clone(),
                template,
            })),
            Err(error) => refused(field, error.to_string()),
        }
    }
}

impl Selector {
    fn compile(&self) -> Result<Compiled, Refusal> {
        let mut requirements = Vec::new();
        for (index, expression) in self.match_expressions.iter().enumerate() {
            let field = format!("spec.selector.matchExpressions[{index}]");
            requirements.push(match (&expression.jq, &expression.cel) {
                (Some(jq), _) => jq.compile(&format!("{field}.jq"))?,
                (None, Some(cel)) => match Expression::cel(&cel.expression) {
                    Ok(expression) => Requirement::Cel(expression),
                    Err(why) => return refused(format!("{field}.cel.expression"), why),
                },
                (None, None) => expression.plain.compile(&field)?,
            });
        }
        Ok(Compiled {
            labels: self.match_labels.clone(),
            annotations: self.match_annotations.clone(),
            requirements,
        })
    }
}

impl Jq {
    fn compile(&self, field: &str) -> Result<Requirement, Refusal> {
        if self.key.is_empty() {
            return refused(format!("{field}.key"), "Required value");
        }
        match (self.operator.as_str(), self.values.is_empty()) {
            ("In" | "NotIn", true) => {
                let why = "Required value: must be specified when `operator` is 'In' or 'NotIn'";
                return refused(format!("{field}.values"), why);
            }
            ("Exists" | "DoesNotExist", false) => {
                let why = "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                return refused(format!("{field}.values"), why);
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            (other, _) => {
                let allowed = "\"In\", \"NotIn\", \"Exists\", \"DoesNotExist\"";
                let why = format!("Unsupported value: {other:?}: supported values: {allowed}");
                return refused(format!("{field}.operator"), why);
            }
        }
        match super::jq::Query::parse(&self.key) {
            Ok(query) => {
                Ok(Requirement::Jq { query, operator: self.operator.clone(), values: self.values.clone() })
            }
            Err(why) => refused(format!("{field}.key"), why),
        }
    }
}

impl DelaySpec {
    fn compile(&self) -> Result<Delay, Refusal> {
        let negative = [
            ("durationMilliseconds", self.duration_milliseconds),
            ("jitterDurationMilliseconds", self.jitter_duration_milliseconds),
        ];
        for (name, milliseconds) in negative {
            if milliseconds.is_some_and(|milliseconds| milliseconds < 0) {
                return refused(
                    format!("spec.delay.{name}"),
                    "Invalid value: must be greater than or equal to 0",
                );
            }
        }
        Ok(Delay {
            milliseconds: self.duration_milliseconds.unwrap_or(0),
            from: compile_from("spec.delay.durationFrom", self.duration_from.as_ref())?,
            jitter_milliseconds: self.jitter_duration_milliseconds,
            jitter_from: compile_from("spec.delay.jitterDurationFrom", self.jitter_duration_from.as_ref())?,
        })
    }
}

fn compile_from(field: &str, from: Option<&Source>) -> Result<Option<Expression>, Refusal> {
    let Some(from) = from else { return Ok(None) };
    let (field, compiled) = match (&from.cel, &from.jq) {
        (Some(cel), _) => (format!("{field}.cel.expression"), Expression::cel(&cel.expression)),
        (None, Some(jq)) => (format!("{field}.jq.expression"), Expression::jq(&jq.expression)),
        (None, None) if from.expression_from.is_empty() => return Ok(None),
        (None, None) => (format!("{field}.expressionFrom"), Expression::jq(&from.expression_from)),
    };
    compiled.map(Some).or_else(|why| refused(field, why))
}

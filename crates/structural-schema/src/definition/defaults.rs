//! Defaults in a schema: each is a good value of its own place, and nothing of it would be pruned.

use std::sync::Arc;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::schema::SchemaRef;
use cel::Budget;

use super::Builtin;
use crate::custom::OBJECT_META;
use crate::metadata::{self, Malformed, is_meta};
use crate::rules::{self, RuleSet};
use crate::structural::Kind;
use crate::{Structural, prune, validate};

/// All complaints about the defaults of a whole object's schema.
pub(super) fn validate(
    schema: &Arc<Structural>,
    demand_pruned: bool,
    builtin: Builtin<'_>,
    path: &Path<'_>,
) -> ErrorList {
    let Some(object_meta) = builtin.schemas.definition(OBJECT_META) else { return ErrorList::new() };
    let mut walk =
        Walk { errors: ErrorList::new(), demand_pruned, builtin, object_meta, budget: rules::budget() };
    walk.schema(schema, Place::root(schema, true), path);
    walk.errors
}

/// Whether a default of the schema has fields that the schema does not know. Metadata is not pruned by its schema.
pub(super) fn has_unpruned(schema: &Value) -> bool {
    any_unpruned(&Structural::parse(schema), true, false)
}

fn any_unpruned(schema: &Structural, is_object: bool, in_meta: bool) -> bool {
    let (is_object, in_meta) = (is_object || schema.embedded, in_meta && !schema.embedded);
    !in_meta && schema.default.as_deref().is_some_and(|default| is_unpruned(schema, default))
        || schema.items.as_deref().is_some_and(|items| any_unpruned(items, false, in_meta))
        || schema
            .properties
            .iter()
            .any(|(name, property)| any_unpruned(property, false, in_meta || is_object && is_meta(name)))
}

fn is_unpruned(schema: &Structural, default: &Value) -> bool {
    let mut pruned = default.clone();
    prune::prune_value(&mut pruned, schema);
    pruned != *default
}

/// A step from a whole object to a part of it.
#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Index,
}

/// Where a schema stands within the innermost whole object around it.
#[derive(Clone, Copy)]
struct Place<'a> {
    object: &'a Structural,
    /// The innermost step, and the place it was made from.
    last: Option<(Step<'a>, &'a Place<'a>)>,
    in_meta: bool,
    is_object: bool,
}

impl<'a> Place<'a> {
    fn root(object: &'a Structural, is_object: bool) -> Self {
        Self { object, last: None, in_meta: false, is_object }
    }

    fn below(&'a self, step: Step<'a>, in_meta: bool) -> Self {
        Self { object: self.object, last: Some((step, self)), in_meta, is_object: false }
    }

    /// A whole object that has `value` here and nothing else but a type.
    fn surround(&self, value: Value) -> Value {
        let mut value = value;
        let mut at = self;
        while let Some((step, parent)) = at.last {
            value = match step {
                Step::Field(name) => [(name.into(), value)].into_iter().collect::<Value>(),
                Step::Index => Value::Array(vec![value]),
            };
            at = parent;
        }
        let map = value.ensure_object();
        map.get_or_insert_with("kind", || "Validation".into());
        map.get_or_insert_with("apiVersion", || "validation/v1".into());
        value
    }
}

struct Walk<'a> {
    errors: ErrorList,
    demand_pruned: bool,
    builtin: Builtin<'a>,
    object_meta: SchemaRef<'a>,
    /// For the rules that are run on all defaults.
    budget: Budget,
}

impl Walk<'_> {
    fn schema(&mut self, schema: &Arc<Structural>, place: Place<'_>, path: &Path<'_>) {
        let place = if schema.embedded { Place::root(schema, true) } else { place };
        if let Some(default) = &schema.default {
            self.default(schema, default, &place, &path.child("default"));
        }
        // Defaults are forbidden in the values of maps.
        if let Some(items) = &schema.items {
            self.schema(items, place.below(Step::Index, place.in_meta), &path.child("items"));
        }
        let properties = path.child("properties");
        for (name, property) in &schema.properties {
            let in_meta = place.in_meta || place.is_object && is_meta(name);
            let below = place.below(Step::Field(name), in_meta);
            self.schema(property, below, &properties.key(name));
        }
    }

    fn default(&mut self, schema: &Arc<Structural>, default: &Value, place: &Place<'_>, path: &Path<'_>) {
        let found = if place.in_meta {
            self.in_metadata(schema, default, place, path)
        } else {
            self.plain(schema, default, place, path)
        };
        match found {
            Err(error) => self.errors.push(*error),
            Ok(mut found) => self.errors.append(&mut found),
        }
    }

    fn plain(
        &mut self,
        schema: &Arc<Structural>,
        default: &Value,
        place: &Place<'_>,
        path: &Path<'_>,
    ) -> Result<ErrorList, Box<Error>> {
        if self.demand_pruned && is_unpruned(schema, default) {
            self.errors.push(Error::invalid(path, default, "must not have unknown fields"));
        }
        let mut coerced = default.clone();
        metadata::coerce_embedded(&mut coerced, schema, self.object_meta, Malformed::Refuse, None, path)
            .map_err(Box::new)?;
        let mut found = ErrorList::new();
        metadata::validate_embedded(&mut found, schema, default, self.builtin.object_meta, path);
        if found.is_empty() {
            found = self.value(schema, default, place, path);
        }
        Ok(found)
    }

    /// What the schema itself says about its default, as a new value and as one that stays.
    fn value(
        &mut self,
        schema: &Arc<Structural>,
        default: &Value,
        place: &Place<'_>,
        path: &Path<'_>,
    ) -> ErrorList {
        let mut found = validate::create(schema, default, path);
        if found.is_empty()
            && let Some(rules) = RuleSet::compile(schema, place.is_object)
        {
            let went_on = rules.validate(&mut found, default, Some(default), false, &mut self.budget, path);
            if went_on && found.is_empty() {
                rules.validate(&mut found, default, None, false, &mut self.budget, path);
            }
        }
        found
    }

    /// A default of metadata is judged as a part of an object that has only this.
    fn in_metadata(
        &mut self,
        schema: &Arc<Structural>,
        default: &Value,
        place: &Place<'_>,
        path: &Path<'_>,
    ) -> Result<ErrorList, Box<Error>> {
        let bad = |why: String| {
            Box::new(Error::invalid(path, default, format!("must result in valid metadata: {why}")))
        };
        let whole = Structural {
            kind: Some(Kind::Object),
            embedded: true,
            preserve_unknown: true,
            properties: place.object.properties.clone(),
            ..Structural::default()
        };
        let top = Path::NONE;
        let mut object = place.surround(default.clone());
        metadata::coerce_embedded(&mut object, &whole, self.object_meta, Malformed::Refuse, None, &top)
            .map_err(|error| bad(error.to_string()))?;
        let mut found = ErrorList::new();
        metadata::validate_embedded(&mut found, &whole, &object, self.builtin.object_meta, &top);
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        match texts.as_slice() {
            [] => Ok(self.value(schema, default, place, path)),
            [one] => Err(bad(one.clone())),
            more => Err(bad(format!("[{}]", more.join(", ")))),
        }
    }
}

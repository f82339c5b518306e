//! [`CustomSchema`]: one version's schema, with all that its objects need.

use std::sync::{Arc, OnceLock};

use apimachinery::Value;
use apimachinery::decode::{DecodeError, FieldValidation};
use apimachinery::field::{Error, ErrorList, Path, go_quote};
use apimachinery::schema::{NodeId, SchemaRef, Schemas};

use crate::metadata::{self, Malformed, ObjectMetaCheck};
use crate::rules::RuleSet;
use crate::{Structural, bridge, default, list_type, prune, rules, validate};

/// Stands in for rules that would be read on values of the wrong form.
const NOT_RUN: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

/// The definition of every object's metadata.
pub(crate) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The schema of one served version. Shared by everything that serves it.
#[derive(Debug)]
pub struct CustomSchema {
    /// As JSON, with the prose that the parsed form leaves out.
    declared: Box<[u8]>,
    structural: Arc<Structural>,
    schemas: Arc<Schemas>,
    root: NodeId,
    object_meta: NodeId,
    object_meta_check: ObjectMetaCheck,
    /// Compiled when the first object is written: most definitions are only ever read.
    rules: OnceLock<Option<RuleSet>>,
}

/// Schemas are the same when their authors wrote the same.
impl PartialEq for CustomSchema {
    fn eq(&self, other: &Self) -> bool {
        self.declared == other.declared
    }
}

impl CustomSchema {
    /// From the `openAPIV3Schema` of a version; an empty one preserves everything. `builtin` has `ObjectMeta`, whose
    /// rules are `object_meta`.
    pub fn new(schema: &Value, builtin: &Arc<Schemas>, object_meta: ObjectMetaCheck) -> Self {
        let structural = Structural::parse(schema);
        let mut schemas = Schemas::extending(builtin.clone());
        let meta = builtin.definition(OBJECT_META).expect("the built-in types have ObjectMeta").id;
        let root = bridge::object(&mut schemas, &structural, meta);
        schemas.shrink_to_fit();
        Self {
            declared: schema.to_json_string().into_bytes().into(),
            structural,
            schemas: Arc::new(schemas),
            root,
            object_meta: meta,
            object_meta_check: object_meta,
            rules: OnceLock::new(),
        }
    }

    /// The schema as its author wrote it, for publication.
    pub fn declared(&self) -> Value {
        Value::parse(&self.declared).unwrap_or_default()
    }

    pub fn structural(&self) -> &Structural {
        &self.structural
    }

    /// The nodes that merging and server-side apply walk, and the root among them.
    pub fn nodes(&self) -> (&Arc<Schemas>, NodeId) {
        (&self.schemas, self.root)
    }

    /// Brings an object that a client sent into the form in which it is stored: unknown fields gone, metadata of its
    /// type, meaningless nulls gone. The result lists what to tell the client, as `apimachinery::decode` does. Defaults
    /// come after it ([`Self::default`]).
    pub fn decode(
        &self,
        object: &mut Value,
        validation: FieldValidation,
        duplicates: &[String],
    ) -> Result<Vec<String>, DecodeError> {
        if validation == FieldValidation::Ignore {
            return self.coerce(object, Malformed::Refuse, None).map(|()| Vec::new());
        }
        let mut unknown = Vec::new();
        self.coerce(object, Malformed::Refuse, Some(&mut unknown))?;
        let duplicates = duplicates.iter().map(|path| format!("duplicate field {}", go_quote(path)));
        let unknown = unknown.iter().map(|path| format!("unknown field \"{path}\""));
        let notes: Vec<String> = duplicates.chain(unknown).collect();
        if validation == FieldValidation::Strict && !notes.is_empty() {
            return Err(DecodeError::Strict(notes));
        }
        Ok(notes)
    }

    /// Brings an object of the store, or one converted from another version, into this version's form. Metadata that
    /// an older server let in goes where it has the wrong form.
    pub fn normalize(&self, object: &mut Value) -> Result<(), DecodeError> {
        self.coerce(object, Malformed::Drop, None)
    }

    /// Fills in what is missing.
    pub fn default(&self, object: &mut Value) {
        default::default(object, &self.structural);
    }

    fn coerce(
        &self,
        object: &mut Value,
        malformed: Malformed,
        mut unknown: Option<&mut Vec<String>>,
    ) -> Result<(), DecodeError> {
        let object_meta = self.object_meta();
        if let Value::Object(map) = object {
            metadata::coerce(map, object_meta, malformed, unknown.as_deref_mut())?;
        }
        // The schema may restrict the metadata, but never decides about its fields.
        let own = object.as_object_mut().and_then(|map| map.remove("metadata"));
        prune::prune(object, &self.structural, unknown.as_deref_mut());
        default::prune_nulls(object, &self.structural);
        let result =
            metadata::coerce_embedded(object, &self.structural, object_meta, malformed, unknown, &Path::NONE);
        if let (Some(own), Some(map)) = (own, object.as_object_mut()) {
            map.insert("metadata", own);
        }
        result.map_err(|error| DecodeError::Field(error.to_string()))
    }

    fn object_meta(&self) -> SchemaRef<'_> {
        self.schemas.at(self.object_meta)
    }

    /// All complaints about an object; with `old`, about its change. `between` adds what upstream finds between the
    /// schema's complaints and those about embedded objects, lists and rules (the replicas of a scale).
    pub fn validate(
        &self,
        object: &Value,
        old: Option<&Value>,
        between: impl FnOnce(&mut ErrorList),
    ) -> ErrorList {
        let top = Path::NONE;
        let mut errors = match old {
            None => validate::create(&self.structural, object, &top),
            Some(old) => validate::update(&self.structural, object, old, &top),
        };
        between(&mut errors);
        metadata::validate_embedded(&mut errors, &self.structural, object, self.object_meta_check, &top);
        let mut repeated = ErrorList::new();
        list_type::validate(&mut repeated, &self.structural, object, &top);
        // An object that had repeated items may keep them.
        if !repeated.is_empty()
            && old.is_none_or(|old| {
                let mut before = ErrorList::new();
                list_type::validate(&mut before, &self.structural, old, &top);
                before.is_empty()
            })
        {
            errors.append(&mut repeated);
        }
        self.run_rules(&mut errors, object, old);
        errors
    }

    fn run_rules(&self, errors: &mut ErrorList, object: &Value, old: Option<&Value>) {
        let Some(rules) = self.rules.get_or_init(|| RuleSet::compile(&self.structural, true)) else { return };
        if errors.iter().any(validate::is_blocking) {
            errors.push(Error::invalid(&Path::NONE, Value::Null, NOT_RUN));
        } else {
            rules.validate(errors, object, old, true, &mut rules::budget(), &Path::NONE);
        }
    }
}

#[cfg(test)]
mod tests;

//! The schemas of a definition's versions, judged by `structural-schema`.
//!
//! Upstream lifts what all versions agree in to the spec, and complains about it there.

use apimachinery::Value;
use apimachinery::field::{ErrorList, Path};
use structural_schema::definition::{self, Builtin, Demands, Place};

use crate::strategy::NameRule;
use crate::validation::fields::{Fields, same};
use crate::validation::meta::{self, ObjectMetaRules};

/// What the schemas of an update are compared with.
pub struct Schemas<'a> {
    demands: Demands,
    old: Option<&'a Value>,
}

impl<'a> Schemas<'a> {
    /// For a new definition, or for the update of one with the spec `old`.
    pub fn new(old: Option<&'a Value>) -> Self {
        let demands = old.map_or(Demands::ALL, Demands::of_update);
        Self { demands, old }
    }

    /// Complaints about the schema of a version, which may stand for all.
    pub fn schema(&self, errors: &mut ErrorList, version: &Value, has_status: bool, path: &Path<'_>) {
        let is_unchanged = self.before(version).is_some_and(|old| same(&old["schema"], &version["schema"]));
        let place = Place { has_status, is_unchanged };
        definition::schema(errors, &version["schema"], place, &self.demands, builtin(), path);
    }

    /// The version of this name before the update.
    fn before(&self, version: &Value) -> Option<&Value> {
        self.old?.list("versions").iter().find(|old| old.text("name") == version.text("name"))
    }

    /// Complaints about the selectable fields of a version.
    pub fn selectable_fields(&self, errors: &mut ErrorList, version: &Value, path: &Path<'_>) {
        let fields = version.list("selectableFields");
        let had_them = self
            .before(version)
            .is_some_and(|old| same(&old["selectableFields"], &version["selectableFields"]));
        definition::selectable_fields(errors, fields, &version["schema"]["openAPIV3Schema"], had_them, path);
    }
}

fn builtin() -> Builtin<'static> {
    Builtin { schemas: crate::builtin::schemas(), object_meta: embedded_meta }
}

/// Complaints about the metadata of an object inside another one: it may live anywhere and have any name.
pub fn embedded_meta(metadata: &Value, path: &Path<'_>) -> ErrorList {
    let rules = ObjectMetaRules {
        namespaced: !metadata.text("namespace").is_empty(),
        name: NameRule::PathSegment,
        qualified_finalizers: false,
    };
    meta::object_meta(rules, metadata, path)
}

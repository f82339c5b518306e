//! The environment of admission: match conditions of webhooks, and policies.

use std::sync::{Arc, LazyLock};

use crate::environment::Environment;
use crate::types::{Decl, Field, ListKind, ObjectType, Opaque, Type};

/// Which variables there are beside `object`, `oldObject`, `namespaceObject` and `request`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// `params`
    pub params: bool,
    /// `authorizer` and `authorizer.requestResource`
    pub authorizer: bool,
    /// The types that mutations construct.
    pub mutations: bool,
}

/// The name of the type of `variables`.
pub const VARIABLES_TYPE: &str = "kubernetes.variables";

/// An environment of this scope; `variables` are the fields of `variables`, if there is that.
pub fn environment(scope: Scope, variables: Option<&[(&str, Type)]>) -> Environment {
    let mut environment = Environment::new()
        .variable("object", Decl::dynamic())
        .variable("oldObject", Decl::dynamic())
        .variable("namespaceObject", NAMESPACE.clone())
        .variable("request", REQUEST.clone());
    if scope.params {
        environment = environment.variable("params", Decl::dynamic());
    }
    if scope.authorizer {
        let opaque = |opaque| Decl::plain(Type::Opaque(opaque), 0);
        environment = environment
            .variable("authorizer", opaque(Opaque::Authorizer))
            .variable("authorizer.requestResource", opaque(Opaque::ResourceCheck));
    }
    if scope.mutations {
        environment = environment.mutations();
    }
    match variables {
        None => environment,
        Some(variables) => {
            let fields = variables.iter().map(|(name, ty)| (*name, Decl::plain(ty.clone(), 0))).collect();
            environment.composed("variables", VARIABLES_TYPE, fields)
        }
    }
}

/// `Object`, what an apply configuration is.
pub fn object_type() -> Type {
    Type::Object(Arc::new(ObjectType::open("Object")))
}

/// A list of `JSONPatch`.
pub fn json_patch_type() -> Type {
    Type::list(Type::Object(Arc::new(ObjectType::open("JSONPatch"))))
}

fn object(name: &str, fields: Vec<(&str, Decl)>) -> Decl {
    let fields = fields.into_iter().map(|(name, decl)| Field::new(name, decl)).collect();
    Decl::object(Arc::new(ObjectType::new(name, fields)))
}

fn list(items: Decl) -> Decl {
    Decl::list(items, u64::MAX, ListKind::Atomic)
}

fn texts(names: &[&'static str]) -> Vec<(&'static str, Decl)> {
    names.iter().map(|name| (*name, Decl::string())).collect()
}

/// `request`: that of an AdmissionReview without its uid and its objects.
pub static REQUEST: LazyLock<Decl> = LazyLock::new(|| {
    let kind = || object("kubernetes.GroupVersionKind", texts(&["group", "version", "kind"]));
    let resource = || object("kubernetes.GroupVersionResource", texts(&["group", "version", "resource"]));
    let mut user = texts(&["username", "uid"]);
    user.push(("groups", list(Decl::string())));
    user.push(("extra", Decl::map(Decl::string(), list(Decl::string()), u64::MAX)));
    let mut fields = texts(&["subResource", "requestSubResource", "name", "namespace", "operation"]);
    fields.extend([
        ("kind", kind()),
        ("resource", resource()),
        ("requestKind", kind()),
        ("requestResource", resource()),
        ("userInfo", object("kubernetes.UserInfo", user)),
        ("dryRun", Decl::bool()),
        ("options", Decl::dynamic()),
    ]);
    object("kubernetes.AdmissionRequest", fields)
});

/// `namespaceObject`: a Namespace without what policies are not shown.
pub static NAMESPACE: LazyLock<Decl> = LazyLock::new(|| {
    let map = || Decl::map(Decl::string(), Decl::string(), u64::MAX);
    let mut condition = texts(&["status", "type", "message", "reason"]);
    condition.push(("lastTransitionTime", Decl::timestamp()));
    let mut metadata = texts(&["name", "generateName", "namespace", "UID", "resourceVersion"]);
    metadata.extend([
        ("labels", map()),
        ("annotations", map()),
        ("creationTimestamp", Decl::timestamp()),
        ("deletionGracePeriodSeconds", Decl::int()),
        ("deletionTimestamp", Decl::timestamp()),
        ("generation", Decl::int()),
        ("finalizers", list(Decl::string())),
    ]);
    let status = vec![
        ("conditions", list(object("kubernetes.NamespaceCondition", condition))),
        ("phase", Decl::string()),
    ];
    object(
        "kubernetes.Namespace",
        vec![
            ("metadata", object("kubernetes.NamespaceMetadata", metadata)),
            ("spec", object("kubernetes.NamespaceSpec", vec![("finalizers", list(Decl::string()))])),
            ("status", object("kubernetes.NamespaceStatus", status)),
        ],
    )
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_sees_its_variables() {
        let all = Scope { params: true, authorizer: true, mutations: true };
        for (scope, variables, text, compiles) in [
            (Scope::default(), false, "object.spec.x == request.userInfo.username", true),
            (Scope::default(), false, "namespaceObject.metadata.labels['a'] == 'b'", true),
            (Scope::default(), false, "params.x", false),
            (Scope::default(), false, "authorizer.group('').resource('pods').check('get').allowed()", false),
            (Scope::default(), false, "variables.a", false),
            (Scope::default(), false, "request.uid == ''", false),
            (all, true, "params.x == variables.a", true),
            (all, true, "variables.b", false),
            (all, true, "authorizer.requestResource.check('get').allowed()", true),
            (all, true, "Object{spec: Object.spec{replicas: 1}}", true),
            (all, true, "[JSONPatch{op: 'add', path: jsonpatch.escapeKey('a/b'), value: 1}]", true),
            (all, true, "[JSONPatch{op: 1}]", false),
        ] {
            let fields = [("a", Type::Dyn)];
            let environment = environment(scope, variables.then_some(&fields));
            assert_eq!(environment.compile(text).is_ok(), compiles, "{text}");
        }
        let environment = environment(all, None);
        let program = environment.compile_as("Object{}", &[object_type()]);
        assert!(program.is_ok());
        let program = environment.compile_as("[JSONPatch{op: 'test'}]", &[json_patch_type()]);
        assert!(program.is_ok());
    }
}

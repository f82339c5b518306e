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
    let params = scope.params.then(Decl::dynamic);
    let mut environment = about(&Decl::dynamic(), params.as_ref());
    if scope.authorizer {
        environment = environment
            .variable("authorizer", opaque(Opaque::Authorizer))
            .variable("authorizer.requestResource", opaque(Opaque::ResourceCheck));
    }
    if scope.mutations {
        environment = environment.mutations();
    }
    match variables {
        None => environment,
        Some(variables) => composed(environment, variables),
    }
}

/// The environment in which a policy's expressions are held against the kinds that it is about. As upstream's it lacks
/// `authorizer.requestResource`.
pub fn typed_environment(object: &Decl, params: Option<&Decl>, variables: &[(&str, Type)]) -> Environment {
    let environment = about(object, params).variable("authorizer", opaque(Opaque::Authorizer));
    composed(environment, variables)
}

/// With what every expression of admission sees.
fn about(object: &Decl, params: Option<&Decl>) -> Environment {
    let environment = Environment::new()
        .variable("object", object.clone())
        .variable("oldObject", object.clone())
        .variable("namespaceObject", NAMESPACE.clone())
        .variable("request", REQUEST.clone());
    match params {
        None => environment,
        Some(params) => environment.variable("params", params.clone()),
    }
}

fn composed(environment: Environment, variables: &[(&str, Type)]) -> Environment {
    let fields = variables.iter().map(|(name, ty)| (*name, Decl::plain(composable(ty), 0))).collect();
    environment.composed("variables", VARIABLES_TYPE, fields)
}

/// What is known of a variable by those who read it: upstream forgets the fields of objects on the way.
fn composable(ty: &Type) -> Type {
    match ty {
        Type::List(item) => Type::list(composable(item)),
        Type::Map(entry) => Type::map(composable(&entry.0), composable(&entry.1)),
        Type::Error
        | Type::Type(_)
        | Type::Optional(_)
        | Type::Object(_)
        | Type::Opaque(_)
        | Type::Param(_) => Type::Dyn,
        plain => plain.clone(),
    }
}

fn opaque(opaque: Opaque) -> Decl {
    Decl::plain(Type::Opaque(opaque), 0)
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

    /// As upstream's `convertCelTypeToDeclType`.
    #[test]
    fn a_variable_keeps_its_type_but_not_the_fields_of_objects() {
        let policies = Scope { authorizer: true, ..Scope::default() };
        for (variable, text, refused) in [
            ("'a'", "variables.v == 1", Some("applied to '(string, int)'")),
            ("[[1]]", "variables.v[0][0] == 'a'", Some("applied to '(int, string)'")),
            ("{'a': 1}", "variables.v.a == 'a'", Some("applied to '(int, string)'")),
            ("[namespaceObject]", "variables.v[0].nothing", None),
            ("namespaceObject.metadata", "variables.v.nothing", None),
            ("authorizer", "variables.v.group('apps').resource('deployments').check('get').allowed()", None),
            ("optional.of(1)", "variables.v.orValue('a') == 'a'", None),
        ] {
            let ty = environment(policies, Some(&[])).check(variable).expect(variable);
            let outcome = environment(policies, Some(&[("v", ty)])).check(text);
            let complaint = outcome.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(complaint.contains(refused.unwrap_or_default()), "{text}: {complaint}");
            assert_eq!(complaint.is_empty(), refused.is_none(), "{text}: {complaint}");
        }
    }

    #[test]
    fn objects_of_known_kinds_have_no_other_fields() {
        let kind = |field: &str| object(&format!("With{field}"), vec![(field, Decl::string())]);
        let (object, params) = (kind("a"), kind("b"));
        for (has_params, text, refused) in [
            (true, "object.a == params.b && oldObject.a == 'x'", None),
            (true, "object.b == ''", Some("undefined field 'b'")),
            (true, "params.a == ''", Some("undefined field 'a'")),
            (false, "params.b == ''", Some("undeclared reference to 'params'")),
            (false, "authorizer.group('').resource('pods').check('get').allowed()", None),
            (
                false,
                "authorizer.requestResource.check('get').allowed()",
                Some("unexpected failed resolution of 'kubernetes.authorization.Authorizer'"),
            ),
            (false, "int('a') == 1", None),
        ] {
            let environment = typed_environment(&object, has_params.then_some(&params), &[]);
            let complaint = environment.check(text).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(complaint.contains(refused.unwrap_or_default()), "{text}: {complaint}");
            assert_eq!(complaint.is_empty(), refused.is_none(), "{text}: {complaint}");
        }
    }
}

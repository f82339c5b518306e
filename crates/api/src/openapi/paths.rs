//! Which paths a set of resources has, and the operations on them.
//!
//! The naming of operations, who takes which parameter and who answers with what follow upstream's route installer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apimachinery::{GroupVersion, GroupVersionKind};

use super::definitions::{TypeName, Types};
use super::parameters::{DELETE_OPTIONS_BODY, NAME, PATCH_BODY, Parameter};
use crate::{Resource, Subresource};

/// A path with its operations.
pub(super) struct PathItem {
    pub path: String,
    /// Parameters of all its operations.
    pub parameters: Vec<Parameter>,
    pub operations: Vec<Operation>,
    /// It is a path of a custom resource.
    pub is_custom: bool,
}

pub(super) struct Operation {
    /// Lower case.
    pub method: &'static str,
    pub id: String,
    pub tag: String,
    /// `x-kubernetes-action` and the kind it acts on; `None` outside of resources.
    pub action: Option<(&'static str, GroupVersionKind)>,
    pub consumes: &'static [&'static str],
    pub produces: &'static [&'static str],
    pub body: Option<Body>,
    /// Without those of its path once the [`PathItem`] is made; sorted.
    pub parameters: Vec<Parameter>,
    /// Status codes that answer with `answer`.
    pub codes: &'static [u16],
    pub answer: Answer,
}

pub(super) enum Body {
    Type(TypeName),
    /// A shared parameter of the document.
    Shared(&'static str),
}

/// What a successful answer is.
#[derive(Clone)]
pub(super) enum Answer {
    Type(TypeName),
    Text,
    /// Nothing that is described.
    Unknown,
}

const ANY: &[&str] = &["*/*"];
const TEXT: &[&str] = &["application/json", "application/yaml"];
const OBJECT: &[&str] =
    &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"];
const GROUP: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAM: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/cbor",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
    "application/cbor-seq",
];
const LOG: &[&str] = &[
    "text/plain",
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/cbor",
];
const PATCH: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
];

const META: &str = "apimachinery.pkg.apis.meta.v1.";
const STATUS: &str = "apimachinery.pkg.apis.meta.v1.Status";
const WATCH_EVENT: &str = "apimachinery.pkg.apis.meta.v1.WatchEvent";

/// Kinds whose delete answers with the deleted object instead of a status.
const ANSWERS_WITH_DELETED: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "PersistentVolume",
            "PersistentVolumeClaim",
            "Pod",
            "PodTemplate",
            "ResourceQuota",
            "Service",
            "ServiceAccount",
        ],
    ),
    (
        "resource.k8s.io",
        &[
            "DeviceClass",
            "DeviceTaintRule",
            "ResourceClaim",
            "ResourceClaimTemplate",
            "ResourcePoolStatusRequest",
            "ResourceSlice",
        ],
    ),
    (
        "storage.k8s.io",
        &["CSIDriver", "CSINode", "StorageClass", "VolumeAttachment", "VolumeAttributesClass"],
    ),
];

/// All paths of a set of resources with those that every server has, sorted. They are made group by group, as they are
/// taken.
pub(super) fn all<'a>(
    types: &'a Types<'_>,
    resources: &'a [Arc<Resource>],
) -> impl Iterator<Item = PathItem> + 'a {
    let mut parts: BTreeMap<String, Part<'_>> = BTreeMap::new();
    for item in fixed(types) {
        parts.entry(item.path.clone()).or_default().fixed.push(item);
    }
    for resource in resources {
        let begin = match resource.group.as_str() {
            "" => "/api/".to_owned(),
            group => format!("/apis/{group}/"),
        };
        parts.entry(begin).or_default().resources.push(resource);
    }
    parts.into_values().flat_map(|part| part.paths(types))
}

/// The paths that begin alike: those of a group, or one that every server has.
#[derive(Default)]
struct Part<'a> {
    fixed: Vec<PathItem>,
    resources: Vec<&'a Resource>,
}

impl Part<'_> {
    fn paths(self, types: &Types<'_>) -> Vec<PathItem> {
        let mut paths = self.fixed;
        // Upstream describes the discovery of built-in groups only.
        let built_in = self.resources.iter().filter(|own| own.custom.is_none());
        let versions: BTreeSet<(&str, &str)> =
            built_in.map(|own| (own.group.as_str(), own.version.as_str())).collect();
        let group = versions.first().map(|(group, _)| *group).filter(|group| !group.is_empty());
        paths.extend(group.map(group_path));
        paths.extend(
            versions.into_iter().map(|(group, version)| version_path(&GroupVersion::new(group, version))),
        );
        paths.extend(self.resources.into_iter().flat_map(|resource| of_resource(types, resource)));
        paths.sort_by(|a, b| a.path.cmp(&b.path));
        paths
    }
}

/// Where a group version's resources are, with a trailing slash.
pub(super) fn root(group_version: &GroupVersion) -> String {
    if group_version.group.is_empty() {
        format!("/api/{}/", group_version.version)
    } else {
        format!("/apis/{}/{}/", group_version.group, group_version.version)
    }
}

// === Outside of resources ===

fn fixed(types: &Types) -> Vec<PathItem> {
    let document = |path: &str, id: &str, tag: &str, produces, answer| {
        single(path, Operation { produces, answer, ..plain(id, tag) })
    };
    const JSON: &[&str] = &["application/json"];
    let typed = |name: &str| builtin(types.known(&format!("{META}{name}")));
    let group = |path, id, tag, answer| {
        single(path, Operation { consumes: GROUP, produces: GROUP, answer, ..plain(id, tag) })
    };
    let version = types.known("apimachinery.pkg.version.Info");
    vec![
        document(
            "/.well-known/openid-configuration/",
            "getServiceAccountIssuerOpenIDConfiguration",
            "WellKnown",
            JSON,
            Answer::Text,
        ),
        group("/api/", "getCoreAPIVersions", "core", typed("APIVersions")),
        group("/apis/", "getAPIVersions", "apis", typed("APIGroupList")),
        document(
            "/openid/v1/jwks/",
            "getServiceAccountIssuerOpenIDKeyset",
            "openid",
            &["application/jwk-set+json"],
            Answer::Text,
        ),
        single(
            "/version/",
            Operation {
                consumes: JSON,
                produces: JSON,
                answer: builtin(version),
                ..plain("getCodeVersion", "version")
            },
        ),
    ]
}

fn group_path(group: &str) -> PathItem {
    let id = format!("get{}APIGroup", capitalized(&camel(group)));
    let answer = builtin("apimachinery.pkg.apis.meta.v1.APIGroup");
    let operation = Operation { consumes: GROUP, produces: GROUP, answer, ..plain(&id, &camel(group)) };
    single(&format!("/apis/{group}/"), operation)
}

fn version_path(group_version: &GroupVersion) -> PathItem {
    let id = format!("get{}APIResources", identifier(group_version));
    let answer = builtin("apimachinery.pkg.apis.meta.v1.APIResourceList");
    let operation =
        Operation { consumes: OBJECT, produces: OBJECT, answer, ..plain(&id, &tag(group_version)) };
    single(&root(group_version), operation)
}

/// A GET without parameters and types.
fn plain(id: &str, tag: &str) -> Operation {
    Operation {
        method: "get",
        id: id.to_owned(),
        tag: tag.to_owned(),
        action: None,
        consumes: &[],
        produces: &[],
        body: None,
        parameters: Vec::new(),
        codes: &[200],
        answer: Answer::Unknown,
    }
}

fn single(path: &str, operation: Operation) -> PathItem {
    PathItem::new(path.to_owned(), Vec::new(), vec![operation])
}

impl PathItem {
    /// Adds `every` parameter to all operations, then moves what all operations take to the path.
    fn new(path: String, every: Vec<Parameter>, mut operations: Vec<Operation>) -> Self {
        for operation in &mut operations {
            operation.parameters.extend(&every);
            operation.parameters.sort_by_key(|own| (own.name, own.place));
        }
        let (first, rest) = operations.split_first().expect("a path has an operation");
        let is_common = |own: &&Parameter| rest.iter().all(|other| other.parameters.contains(own));
        let parameters: Vec<Parameter> = first.parameters.iter().filter(is_common).copied().collect();
        for operation in &mut operations {
            operation.parameters.retain(|own| !parameters.contains(own));
        }
        Self { path, parameters, operations, is_custom: false }
    }
}

// === Resources ===

/// A resource with what its operations have in common.
struct Routes<'r> {
    types: &'r Types<'r>,
    resource: &'r Resource,
    kind: TypeName,
    group_version: GroupVersion,
    media: &'static Media,
}

/// In which forms a resource's objects come and go.
struct Media {
    consumes: &'static [&'static str],
    produces: &'static [&'static str],
    streams: &'static [&'static str],
    patches: &'static [&'static str],
    /// Paths that only watch, as they were before `?watch`.
    has_watches: bool,
    /// A patch can create an object.
    patch_codes: &'static [u16],
}

const BUILT_IN: Media = Media {
    consumes: ANY,
    produces: OBJECT,
    streams: STREAM,
    patches: PATCH,
    has_watches: true,
    patch_codes: &[200, 201],
};

const CUSTOM: Media = Media {
    consumes: TEXT,
    produces: TEXT,
    streams: TEXT,
    patches: &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"],
    has_watches: false,
    patch_codes: &[200],
};

/// A built-in type, named without prefix.
fn builtin(name: &'static str) -> Answer {
    Answer::Type(TypeName::BuiltIn(name))
}

fn of_resource(types: &Types, resource: &Resource) -> Vec<PathItem> {
    let Some(kind) = types.of_kind(&resource.gvk()) else { return Vec::new() };
    let group_version = GroupVersion::new(&resource.group, &resource.version);
    let media = if resource.custom.is_some() { &CUSTOM } else { &BUILT_IN };
    let routes = Routes { types, resource, kind, group_version, media };
    let mut paths = Vec::new();
    paths.extend(routes.collection());
    paths.extend(routes.item());
    if resource.namespaced && resource.has_verb("list") {
        paths.push(routes.all_namespaces());
    }
    if resource.has_verb("watch") && media.has_watches {
        paths.extend(routes.watches());
    }
    for subresource in &resource.subresources {
        paths.extend(routes.subresource(subresource));
    }
    let is_custom = resource.custom.is_some();
    paths.iter_mut().for_each(|path| path.is_custom = is_custom);
    paths
}

impl Routes<'_> {
    fn collection(&self) -> Option<PathItem> {
        let resource = self.resource;
        let mut operations = Vec::new();
        if resource.has_verb("list") {
            operations.push(self.list(self.id("list", "", "")));
        }
        if resource.has_verb("create") {
            operations.push(self.create(&resource.gvk(), &self.kind, ""));
        }
        if resource.has_verb("deletecollection") {
            operations.push(Operation {
                method: "delete",
                id: self.id("delete", "Collection", ""),
                body: self.media.has_watches.then_some(Body::Shared(DELETE_OPTIONS_BODY)),
                parameters: self.collection_parameters(),
                answer: builtin(STATUS),
                ..self.operation("deletecollection", resource.gvk())
            });
        }
        self.path(&self.base(""), false, operations)
    }

    fn item(&self) -> Option<PathItem> {
        let resource = self.resource;
        let mut operations = self.read_write(&resource.verbs, &resource.gvk(), &self.kind, "");
        if resource.has_verb("delete") {
            operations.push(Operation {
                method: "delete",
                id: self.id("delete", "", ""),
                body: Some(Body::Shared(DELETE_OPTIONS_BODY)),
                parameters: self.types.shared.delete(),
                codes: &[200, 202],
                answer: if self.answers_with_deleted() { self.answer() } else { builtin(STATUS) },
                ..self.operation("delete", resource.gvk())
            });
        }
        self.path(&format!("{}/{{name}}", self.base("")), true, operations)
    }

    fn all_namespaces(&self) -> PathItem {
        let id = format!("list{}{}ForAllNamespaces", identifier(&self.group_version), self.resource.kind);
        let path = format!("{}{}", root(&self.group_version), self.resource.plural);
        PathItem::new(path, vec![self.types.shared.pretty()], vec![self.list(id)])
    }

    fn watches(&self) -> Vec<PathItem> {
        let group_version = identifier(&self.group_version);
        let kind = &self.resource.kind;
        let watch = |action, id| Operation {
            produces: STREAM,
            parameters: self.types.shared.list(),
            answer: builtin(WATCH_EVENT),
            id,
            ..self.operation(action, self.resource.gvk())
        };
        let collection = self.base("watch/");
        let mut paths = Vec::new();
        let list = watch("watchlist", format!("{}List", self.id("watch", "", "")));
        paths.extend(self.path(&collection, false, vec![list]));
        if self.resource.has_verb("get") {
            let one = watch("watch", self.id("watch", "", ""));
            paths.extend(self.path(&format!("{collection}/{{name}}"), true, vec![one]));
        }
        if self.resource.namespaced {
            let path = format!("{}watch/{}", root(&self.group_version), self.resource.plural);
            let id = format!("watch{group_version}{kind}ListForAllNamespaces");
            paths.push(PathItem::new(path, vec![self.types.shared.pretty()], vec![watch("watchlist", id)]));
        }
        paths
    }

    fn subresource(&self, subresource: &Subresource) -> Vec<PathItem> {
        let path = format!("{}/{{name}}/{}", self.base(""), subresource.name);
        let suffix = capitalized(&subresource.name);
        if subresource.kind.kind.ends_with("Options") {
            return self.connections(subresource, &path, &suffix);
        }
        let Some(kind) = self.types.of_kind(&subresource.kind) else { return Vec::new() };
        // What acts on a custom resource acts on its kind, whatever it takes and answers.
        let custom = self.resource.custom.is_some();
        let acts_on = if custom { self.resource.gvk() } else { subresource.kind.clone() };
        let mut operations = self.read_write(&subresource.verbs, &acts_on, &kind, &suffix);
        if subresource.verbs.iter().any(|verb| verb == "create") {
            operations.push(self.create(&subresource.kind, &kind, &suffix));
        }
        if subresource.name == "log" {
            for operation in &mut operations {
                operation.produces = LOG;
                operation.answer = Answer::Text;
                operation.parameters.extend(self.types.shared.log());
            }
        }
        self.path(&path, true, operations).into_iter().collect()
    }

    /// Streams and proxies: methods stand for themselves. A proxy also has everything below its path.
    fn connections(&self, subresource: &Subresource, path: &str, suffix: &str) -> Vec<PathItem> {
        const PROXIED: &[&str] = &["delete", "get", "head", "options", "patch", "post", "put"];
        let proxied = subresource.name == "proxy";
        let methods = if proxied { PROXIED } else { &["get", "post"] };
        let connect = |below: &str, method: &'static str| Operation {
            method,
            id: format!("{}{below}", self.id("connect", &capitalized(method), suffix)),
            produces: ANY,
            parameters: self.types.shared.connect(&subresource.kind.kind),
            answer: Answer::Text,
            ..self.operation("connect", subresource.kind.clone())
        };
        let mut every = self.place(true);
        let operations = methods.iter().map(|method| connect("", method)).collect();
        let mut paths = vec![PathItem::new(path.to_owned(), every.clone(), operations)];
        if proxied {
            every.push(self.types.shared.proxied_path());
            let operations = methods.iter().map(|method| connect("WithPath", method)).collect();
            paths.push(PathItem::new(format!("{path}/{{path}}"), every, operations));
        }
        paths
    }

    /// Get, put and patch of an object or subresource, as far as `verbs` allow.
    fn read_write(
        &self,
        verbs: &[apimachinery::Str],
        gvk: &GroupVersionKind,
        kind: &TypeName,
        suffix: &str,
    ) -> Vec<Operation> {
        let has = |verb: &str| verbs.iter().any(|own| own == verb);
        let answer = || Answer::Type(kind.clone());
        let mut operations = Vec::new();
        if has("get") {
            let id = self.id("read", "", suffix);
            let custom = self.resource.custom.is_some();
            let parameters = if custom { self.types.shared.custom_get() } else { Vec::new() };
            let operation = self.operation("get", gvk.clone());
            operations.push(Operation { id, parameters, answer: answer(), ..operation });
        }
        if has("update") {
            operations.push(Operation {
                method: "put",
                id: self.id("replace", "", suffix),
                body: Some(Body::Type(kind.clone())),
                parameters: self.types.shared.write(),
                codes: &[200, 201],
                answer: answer(),
                ..self.operation("put", gvk.clone())
            });
        }
        if has("patch") {
            operations.push(Operation {
                method: "patch",
                id: self.id("patch", "", suffix),
                consumes: self.media.patches,
                body: Some(Body::Shared(PATCH_BODY)),
                parameters: self.types.shared.patch(),
                codes: self.media.patch_codes,
                answer: answer(),
                ..self.operation("patch", gvk.clone())
            });
        }
        operations
    }

    fn list(&self, id: String) -> Operation {
        let resource = self.resource;
        let list = GroupVersionKind { kind: resource.list_kind.clone(), ..resource.gvk() };
        Operation {
            id,
            produces: self.media.streams,
            parameters: self.types.shared.list(),
            answer: self.types.of_kind(&list).map_or(Answer::Unknown, Answer::Type),
            ..self.operation("list", resource.gvk())
        }
    }

    fn create(&self, gvk: &GroupVersionKind, kind: &TypeName, suffix: &str) -> Operation {
        Operation {
            method: "post",
            id: self.id("create", "", suffix),
            body: Some(Body::Type(kind.clone())),
            parameters: self.types.shared.write(),
            codes: &[200, 201, 202],
            answer: Answer::Type(kind.clone()),
            ..self.operation("post", gvk.clone())
        }
    }

    /// A GET that acts on a kind.
    fn operation(&self, action: &'static str, gvk: GroupVersionKind) -> Operation {
        Operation {
            action: Some((action, gvk)),
            consumes: self.media.consumes,
            produces: self.media.produces,
            ..plain("", &tag(&self.group_version))
        }
    }

    fn path(&self, path: &str, named: bool, operations: Vec<Operation>) -> Option<PathItem> {
        let mut every = self.place(named);
        every.push(self.types.shared.pretty());
        (!operations.is_empty()).then(|| PathItem::new(path.to_owned(), every, operations))
    }

    /// The parameters that are part of the path.
    fn place(&self, named: bool) -> Vec<Parameter> {
        let namespace = self.resource.namespaced.then(|| self.types.shared.namespace());
        namespace.into_iter().chain(named.then_some(NAME)).collect()
    }

    fn base(&self, before: &str) -> String {
        let root = root(&self.group_version);
        let namespace = if self.resource.namespaced { "namespaces/{namespace}/" } else { "" };
        format!("{root}{before}{namespace}{}", self.resource.plural)
    }

    /// `listCoreV1NamespacedPod`, `deleteCoreV1CollectionNode`, `readAppsV1NamespacedDeploymentScale`.
    fn id(&self, verb: &str, infix: &str, suffix: &str) -> String {
        let namespaced = if self.resource.namespaced { "Namespaced" } else { "" };
        let group_version = identifier(&self.group_version);
        format!("{verb}{group_version}{infix}{namespaced}{}{suffix}", self.resource.kind)
    }

    fn answer(&self) -> Answer {
        Answer::Type(self.kind.clone())
    }

    /// Upstream describes the deletion of many custom resources as a list that is not sent a body.
    fn collection_parameters(&self) -> Vec<Parameter> {
        if self.media.has_watches { self.types.shared.delete_collection() } else { self.types.shared.list() }
    }

    fn answers_with_deleted(&self) -> bool {
        let resource = self.resource;
        ANSWERS_WITH_DELETED
            .iter()
            .any(|(group, kinds)| *group == resource.group && kinds.contains(&resource.kind.as_str()))
    }
}

// === Names ===

/// `CoreV1`, `RbacAuthorizationV1beta1`.
fn identifier(group_version: &GroupVersion) -> String {
    format!("{}{}", capitalized(&camel(&group_version.group)), capitalized(&group_version.version))
}

/// `core_v1`, `rbacAuthorization_v1beta1`.
fn tag(group_version: &GroupVersion) -> String {
    format!("{}_{}", camel(&group_version.group), group_version.version)
}

/// A group as one word: `core`, `apps`, `rbacAuthorization` for `rbac.authorization.k8s.io`.
fn camel(group: &str) -> String {
    let group = group.strip_suffix(".k8s.io").unwrap_or(group);
    if group.is_empty() {
        return "core".into();
    }
    let mut parts = group.split('.');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |word, part| word + &capitalized(part))
}

fn capitalized(word: &str) -> String {
    let mut rest = word.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

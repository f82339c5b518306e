//! Discovery: which groups, versions and resources a server has, in the unaggregated and the aggregated form.
//!
//! Owns: these documents for any set of [`Resource`]s, built-in or custom. Never touches: negotiation, the network,
//! caching. A document is made once for a set and kept by its caller as bytes.
//!
//! Start at [`Documents::new`].

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{GroupVersion, GroupVersionKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde::Serialize;

use crate::builtin::{self, tables};
use crate::{Resource, Subresource};

pub mod version;

/// Priority of the group that the aggregation layer itself serves: before all others.
const REGISTRATION_PRIORITY: i32 = 20_000;
/// Priorities of groups and versions that are not built in.
const CUSTOM_PRIORITY: (i32, i32) = (1_000, 100);

/// All discovery documents of one set of resources, as JSON.
#[derive(Clone, Debug)]
pub struct Documents {
    /// By path: `/apis`, `/api/v1`, `/apis/{group}`, `/apis/{group}/{version}`.
    by_path: BTreeMap<String, Bytes>,
    aggregated: Aggregated,
}

/// The aggregated documents (`as=APIGroupDiscoveryList`), in both versions of `apidiscovery.k8s.io`.
#[derive(Clone, Debug)]
struct Aggregated {
    core_v2: Bytes,
    groups_v2: Bytes,
    core_v2beta1: Bytes,
    groups_v2beta1: Bytes,
}

/// Version of `apidiscovery.k8s.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregatedVersion {
    V2,
    V2Beta1,
}

impl AggregatedVersion {
    /// Reads the `v` of an `Accept` header.
    pub fn parse(version: &str) -> Option<Self> {
        match version {
            "v2" => Some(Self::V2),
            "v2beta1" => Some(Self::V2Beta1),
            _ => None,
        }
    }
}

/// The documents of one group: what a change of another group leaves as it is.
#[derive(Clone, Debug)]
pub struct GroupDocuments {
    name: String,
    /// Groups of a higher one are listed first.
    priority: i32,
    /// The unaggregated documents by path.
    by_path: Vec<(String, Bytes)>,
    /// The group's item in `/apis`.
    listed: Bytes,
    /// The group's item in the aggregated documents.
    aggregated: Bytes,
}

impl GroupDocuments {
    /// The documents of each group that the resources belong to.
    pub fn all(resources: &[Arc<Resource>]) -> Vec<Arc<Self>> {
        groups(resources).iter().map(|group| Arc::new(Self::new(group))).collect()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    fn new(group: &Group<'_>) -> Self {
        let root = if group.name.is_empty() { "/api".into() } else { format!("/apis/{}", group.name) };
        let mut by_path = Vec::with_capacity(1 + group.versions.len());
        if !group.name.is_empty() {
            by_path.push((root.clone(), encode(&group_document(group, true))));
        }
        by_path.extend(group.versions.iter().map(|version| {
            (format!("{root}/{}", version.name), encode(&resource_list(group.name, version)))
        }));
        Self {
            name: group.name.to_owned(),
            priority: group.priority(),
            by_path,
            listed: encode(&group_document(group, false)),
            aggregated: encode(&group_discovery(group)),
        }
    }
}

impl Documents {
    /// Makes all documents for a set of resources, in any order.
    pub fn new(resources: &[Arc<Resource>]) -> Self {
        Self::assemble(GroupDocuments::all(resources))
    }

    /// Puts the documents of groups together, which may come in any order.
    pub fn assemble(mut groups: Vec<Arc<GroupDocuments>>) -> Self {
        groups.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.name.cmp(&b.name)));
        let mut by_path: BTreeMap<String, Bytes> =
            groups.iter().flat_map(|group| group.by_path.iter().cloned()).collect();
        let (core, named): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| group.name.is_empty());
        let listed = named.iter().map(|group| &group.listed);
        let head = r#"{"kind":"APIGroupList","apiVersion":"v1","groups":["#;
        by_path.insert("/apis".to_owned(), joined(head, listed));
        Self { by_path, aggregated: Aggregated::new(&core, &named) }
    }

    /// The unaggregated document at a path without trailing slash; `/api` is [`api_versions`].
    pub fn at(&self, path: &str) -> Option<&Bytes> {
        self.by_path.get(path)
    }

    /// Paths of all unaggregated documents, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.by_path.keys().map(String::as_str)
    }

    /// The aggregated document of the core group (`/api`).
    pub fn aggregated_core(&self, version: AggregatedVersion) -> &Bytes {
        match version {
            AggregatedVersion::V2 => &self.aggregated.core_v2,
            AggregatedVersion::V2Beta1 => &self.aggregated.core_v2beta1,
        }
    }

    /// The aggregated document of all other groups (`/apis`).
    pub fn aggregated_groups(&self, version: AggregatedVersion) -> &Bytes {
        match version {
            AggregatedVersion::V2 => &self.aggregated.groups_v2,
            AggregatedVersion::V2Beta1 => &self.aggregated.groups_v2beta1,
        }
    }
}

/// The document at `/api`; clients anywhere are told to use `server_address` (`host:port`).
pub fn api_versions(server_address: &str) -> Bytes {
    encode(&ApiVersions {
        kind: "APIVersions",
        versions: ["v1"],
        server_address_by_client_cidrs: [ServerAddress { client_cidr: "0.0.0.0/0", server_address }],
    })
}

/// `storageVersionHash` of a resource: clients that see it change know that objects need to be rewritten. Empty for
/// resources that are not stored.
pub fn storage_version_hash(resource: &Resource) -> String {
    if !resource.is_stored() {
        return String::new();
    }
    let api_version = match builtin::upstream_storage_version(&resource.group, &resource.kind) {
        "" => GroupVersion::new(&resource.group, &resource.storage_version).to_string(),
        upstream => upstream.to_owned(),
    };
    // The group of the core API is the empty string here too: `/v1/Pod`.
    let stored = GroupVersion::parse(&api_version).unwrap_or_default();
    let stored = format!("{}/{}/{}", stored.group, stored.version, resource.kind);
    STANDARD.encode(&digest(&SHA256, stored.as_bytes()).as_ref()[..8])
}

// === The set, sorted ===

struct Group<'r> {
    name: &'r str,
    versions: Vec<Version<'r>>,
}

impl Group<'_> {
    /// That of its most important version.
    fn priority(&self) -> i32 {
        self.versions.iter().map(|own| priority(self.name, own.name).0).max().unwrap_or_default()
    }
}

struct Version<'r> {
    name: &'r str,
    /// Sorted by plural name.
    resources: Vec<&'r Resource>,
}

/// Groups and their versions by priority; groups of the same priority by name.
fn groups(resources: &[Arc<Resource>]) -> Vec<Group<'_>> {
    let mut sorted: BTreeMap<&str, BTreeMap<&str, Vec<&Resource>>> = BTreeMap::new();
    for resource in resources {
        sorted.entry(&resource.group).or_default().entry(&resource.version).or_default().push(resource);
    }
    let mut groups: Vec<Group<'_>> = sorted
        .into_iter()
        .map(|(name, versions)| Group { name, versions: sort_versions(name, versions) })
        .collect();
    // A stable sort: names stay in order.
    groups.sort_by_key(|group| Reverse(group.priority()));
    groups
}

fn sort_versions<'r>(group: &str, versions: BTreeMap<&'r str, Vec<&'r Resource>>) -> Vec<Version<'r>> {
    let mut versions: Vec<Version<'r>> = versions
        .into_iter()
        .map(|(name, mut resources)| {
            resources.sort_by(|a, b| a.plural.cmp(&b.plural));
            Version { name, resources }
        })
        .collect();
    versions
        .sort_by_cached_key(|own| (Reverse(priority(group, own.name).1), Reverse(version::rank(own.name))));
    versions
}

/// Priority of a group version among groups and within its group.
pub fn priority(group: &str, version: &str) -> (i32, i32) {
    if group == "apiregistration.k8s.io" {
        return (REGISTRATION_PRIORITY, CUSTOM_PRIORITY.1);
    }
    tables::priorities()
        .find(|row| row.group == group && row.version == version)
        .map_or(CUSTOM_PRIORITY, |row| (row.group_priority, row.version_priority))
}

// === Unaggregated documents ===

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiVersions<'a> {
    kind: &'static str,
    versions: [&'static str; 1],
    #[serde(rename = "serverAddressByClientCIDRs")]
    server_address_by_client_cidrs: [ServerAddress<'a>; 1],
}

#[derive(Serialize)]
struct ServerAddress<'a> {
    #[serde(rename = "clientCIDR")]
    client_cidr: &'static str,
    #[serde(rename = "serverAddress")]
    server_address: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupDocument<'r> {
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_version: &'static str,
    name: &'r str,
    versions: Vec<VersionName<'r>>,
    preferred_version: Option<VersionName<'r>>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionName<'r> {
    group_version: String,
    version: &'r str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceList<'r> {
    kind: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_version: &'static str,
    group_version: String,
    resources: Vec<ResourceEntry<'r>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceEntry<'r> {
    name: Cow<'r, str>,
    singular_name: &'r str,
    namespaced: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'r str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'r str,
    kind: &'r str,
    verbs: Vec<&'r str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    short_names: Vec<&'r str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<&'r str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    storage_version_hash: String,
}

/// A group alone has type meta, one in the list does not.
fn group_document<'r>(group: &Group<'r>, alone: bool) -> GroupDocument<'r> {
    let name = |version: &Version<'r>| VersionName {
        group_version: GroupVersion::new(group.name, version.name).to_string(),
        version: version.name,
    };
    let versions: Vec<_> = group.versions.iter().map(name).collect();
    GroupDocument {
        kind: if alone { "APIGroup" } else { "" },
        api_version: if alone { "v1" } else { "" },
        name: group.name,
        preferred_version: versions.first().cloned(),
        versions,
    }
}

fn resource_list<'r>(group: &str, version: &Version<'r>) -> ResourceList<'r> {
    let mut resources: Vec<ResourceEntry<'r>> =
        version.resources.iter().flat_map(|own| entries(own)).collect();
    // Custom resources' subresources come as they were made.
    if version.resources.iter().all(|own| own.custom.is_none()) {
        resources.sort_by(|a, b| a.name.cmp(&b.name));
    }
    ResourceList {
        kind: "APIResourceList",
        // The core API's list is older than the rule that everything has an apiVersion.
        api_version: if group.is_empty() { "" } else { "v1" },
        group_version: GroupVersion::new(group, version.name).to_string(),
        resources,
    }
}

/// The entry of a resource and those of its subresources.
fn entries(resource: &Resource) -> Vec<ResourceEntry<'_>> {
    let mut entries = Vec::with_capacity(1 + resource.subresources.len());
    entries.push(ResourceEntry {
        name: resource.plural.as_str().into(),
        singular_name: &resource.singular,
        namespaced: resource.namespaced,
        group: "",
        version: "",
        kind: &resource.kind,
        verbs: verbs(resource),
        short_names: texts(&resource.short_names),
        categories: texts(&resource.categories),
        storage_version_hash: storage_version_hash(resource),
    });
    for subresource in &resource.subresources {
        let (group, version) = elsewhere(resource, &subresource.kind);
        entries.push(ResourceEntry {
            name: format!("{}/{}", resource.plural, subresource.name).into(),
            singular_name: "",
            namespaced: resource.namespaced,
            group,
            version,
            kind: &subresource.kind.kind,
            verbs: texts(&subresource.verbs),
            short_names: Vec::new(),
            categories: Vec::new(),
            storage_version_hash: String::new(),
        });
    }
    entries
}

/// Group and version of a subresource's kind; empty when they are those of its resource.
fn elsewhere<'r>(resource: &Resource, kind: &'r GroupVersionKind) -> (&'r str, &'r str) {
    if kind.group == resource.group && kind.version == resource.version {
        ("", "")
    } else {
        (&kind.group, &kind.version)
    }
}

/// While its definition is being deleted, a custom resource is not for writing.
fn verbs(resource: &Resource) -> Vec<&str> {
    let is_ending = resource.custom.as_ref().is_some_and(|custom| custom.terminating);
    let mut verbs = texts(&resource.verbs);
    verbs.retain(|verb| !is_ending || !matches!(*verb, "create" | "patch" | "update"));
    verbs
}

fn texts(list: &[apimachinery::Str]) -> Vec<&str> {
    list.iter().map(|text| text.as_str()).collect()
}

// === Aggregated documents ===

#[derive(Serialize)]
struct Metadata<'r> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'r str,
}

#[derive(Serialize)]
struct GroupDiscovery<'r> {
    metadata: Metadata<'r>,
    versions: Vec<VersionDiscovery<'r>>,
}

#[derive(Serialize)]
struct VersionDiscovery<'r> {
    version: &'r str,
    resources: Vec<ResourceDiscovery<'r>>,
    /// Stale only when an aggregated server does not answer.
    freshness: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceDiscovery<'r> {
    resource: &'r str,
    response_kind: ResponseKind<'r>,
    scope: &'static str,
    singular_resource: &'r str,
    verbs: Vec<&'r str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    short_names: Vec<&'r str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<&'r str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subresources: Vec<SubresourceDiscovery<'r>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SubresourceDiscovery<'r> {
    subresource: &'r str,
    response_kind: ResponseKind<'r>,
    verbs: Vec<&'r str>,
}

/// Group and version are empty when they are those of the list they stand in.
#[derive(Serialize)]
struct ResponseKind<'r> {
    group: &'r str,
    version: &'r str,
    kind: &'r str,
}

impl Aggregated {
    fn new(core: &[Arc<GroupDocuments>], named: &[Arc<GroupDocuments>]) -> Self {
        let list = |groups: &[Arc<GroupDocuments>], version: &str| {
            let head = format!(
                r#"{{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/{version}","metadata":{{}},"items":["#
            );
            joined(&head, groups.iter().map(|group| &group.aggregated))
        };
        Self {
            core_v2: list(core, "v2"),
            groups_v2: list(named, "v2"),
            core_v2beta1: list(core, "v2beta1"),
            groups_v2beta1: list(named, "v2beta1"),
        }
    }
}

/// A list of documents that are there already; `head` ends where its items begin.
fn joined<'b>(head: &str, items: impl Iterator<Item = &'b Bytes>) -> Bytes {
    let mut out = head.as_bytes().to_vec();
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item);
    }
    out.extend_from_slice(b"]}");
    out.into()
}

fn group_discovery<'r>(group: &Group<'r>) -> GroupDiscovery<'r> {
    let version = |own: &Version<'r>| VersionDiscovery {
        version: own.name,
        resources: own.resources.iter().map(|resource| resource_discovery(resource)).collect(),
        freshness: "Current",
    };
    GroupDiscovery {
        metadata: Metadata { name: group.name },
        versions: group.versions.iter().map(version).collect(),
    }
}

fn resource_discovery(resource: &Resource) -> ResourceDiscovery<'_> {
    let (group, version) =
        if resource.custom.is_some() { (&*resource.group, &*resource.version) } else { ("", "") };
    ResourceDiscovery {
        resource: &resource.plural,
        response_kind: ResponseKind { group, version, kind: &resource.kind },
        scope: if resource.namespaced { "Namespaced" } else { "Cluster" },
        singular_resource: &resource.singular,
        verbs: verbs(resource),
        short_names: texts(&resource.short_names),
        categories: texts(&resource.categories),
        subresources: resource.subresources.iter().map(|own| subresource_discovery(resource, own)).collect(),
    }
}

fn subresource_discovery<'r>(resource: &Resource, subresource: &'r Subresource) -> SubresourceDiscovery<'r> {
    let kind = &subresource.kind;
    let (group, version) =
        if resource.custom.is_some() { (&*kind.group, &*kind.version) } else { elsewhere(resource, kind) };
    SubresourceDiscovery {
        subresource: &subresource.name,
        response_kind: ResponseKind { group, version, kind: &subresource.kind.kind },
        verbs: texts(&subresource.verbs),
    }
}

fn encode(document: &impl Serialize) -> Bytes {
    serde_json::to_vec(document).expect("documents of strings and flags always encode").into()
}

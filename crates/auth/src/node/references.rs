//! What pods and volumes refer to, read from their JSON.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::rbac::null_is_empty;

/// An annotation that marks the shadow of a pod which a node runs by itself.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// The objects, all in the pod's namespace, that a node needs to run a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodReferences {
    pub service_account: Option<String>,
    pub secrets: Vec<String>,
    pub config_maps: Vec<String>,
    pub claims: Vec<String>,
    pub resource_claims: Vec<String>,
}

impl PodReferences {
    /// Reads them from a pod's JSON. A mirror pod refers to nothing: a node makes it, and must not give itself access
    /// in this way.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        let pod: Pod = serde_json::from_slice(json)?;
        if pod.metadata.annotations.is_some_and(|annotations| annotations.contains_key(MIRROR_ANNOTATION)) {
            return Ok(Self::default());
        }
        let mut references = Self {
            service_account: pod.spec.service_account_name.filter(|name| !name.is_empty()),
            ..Self::default()
        };
        references.secrets.extend(pod.spec.image_pull_secrets.into_iter().map(|secret| secret.name));
        let containers = [pod.spec.init_containers, pod.spec.containers, pod.spec.ephemeral_containers];
        for container in containers.into_iter().flatten() {
            references.add_container(container);
        }
        for volume in pod.spec.volumes {
            references.add_volume(&pod.metadata.name, volume);
        }
        let status = pod.status.unwrap_or_default();
        for claim in pod.spec.resource_claims {
            let made = || status.resource_claim_statuses.iter().find(|made| made.name == claim.name);
            let name = claim.resource_claim_name.or_else(|| made()?.resource_claim_name.clone());
            references.resource_claims.extend(name);
        }
        let extended = status.extended_resource_claim_status.map(|status| status.resource_claim_name);
        references.resource_claims.extend(extended);
        for names in [
            &mut references.secrets,
            &mut references.config_maps,
            &mut references.claims,
            &mut references.resource_claims,
        ] {
            names.retain(|name| !name.is_empty());
            names.sort_unstable();
            names.dedup();
        }
        Ok(references)
    }

    fn add_container(&mut self, container: Container) {
        for source in container.env_from {
            self.secrets.extend(source.secret_ref.map(|secret| secret.name));
            self.config_maps.extend(source.config_map_ref.map(|config_map| config_map.name));
        }
        for source in container.env.into_iter().filter_map(|variable| variable.value_from) {
            self.secrets.extend(source.secret_key_ref.map(|secret| secret.name));
            self.config_maps.extend(source.config_map_key_ref.map(|config_map| config_map.name));
        }
    }

    fn add_volume(&mut self, pod: &str, volume: Volume) {
        self.secrets.extend(volume.secret.map(|secret| secret.secret_name));
        self.secrets.extend(volume.azure_file.map(|source| source.secret_name));
        self.secrets
            .extend(volume.csi.and_then(|source| source.node_publish_secret_ref).map(|secret| secret.name));
        let drivers = [
            volume.cephfs,
            volume.cinder,
            volume.flex_volume,
            volume.rbd,
            volume.scale_io,
            volume.iscsi,
            volume.storageos,
        ];
        let secrets = drivers.into_iter().flatten().filter_map(|driver| driver.secret_ref);
        self.secrets.extend(secrets.map(|secret| secret.name));
        self.config_maps.extend(volume.config_map.map(|config_map| config_map.name));
        for source in volume.projected.map(|projected| projected.sources).unwrap_or_default() {
            self.secrets.extend(source.secret.map(|secret| secret.name));
            self.config_maps.extend(source.config_map.map(|config_map| config_map.name));
        }
        self.claims.extend(volume.persistent_volume_claim.map(|claim| claim.claim_name));
        if volume.ephemeral.is_some() {
            // The claim that is made for an ephemeral volume has a fixed name.
            self.claims.push(format!("{pod}-{}", volume.name));
        }
    }
}

/// What a node needs of a PersistentVolume that is bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeReferences {
    /// Namespace and name of the claim it is bound to.
    pub claim: Option<(String, String)>,
    /// Namespaces and names of the secrets that the kubelet reads to mount it.
    pub secrets: Vec<(String, String)>,
}

impl VolumeReferences {
    /// Reads them from a PersistentVolume's JSON.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        let volume: PersistentVolume = serde_json::from_slice(json)?;
        let spec = volume.spec;
        let Some(claim) = spec.claim_ref else { return Ok(Self::default()) };
        let in_namespace = |namespace: Option<String>, name: String| {
            (
                namespace
                    .filter(|namespace| !namespace.is_empty())
                    .unwrap_or_else(|| claim.namespace.clone()),
                name,
            )
        };
        let mut secrets = Vec::new();
        secrets
            .extend(spec.azure_file.map(|source| in_namespace(source.secret_namespace, source.secret_name)));
        let drivers =
            [spec.cephfs, spec.cinder, spec.flex_volume, spec.rbd, spec.scale_io, spec.iscsi, spec.storageos];
        let of_csi = spec.csi.map(|csi| [csi.node_publish_secret_ref, csi.node_stage_secret_ref]);
        let of_csi = of_csi.into_iter().flatten().flatten();
        let of_drivers = drivers.into_iter().flatten().filter_map(|driver| driver.secret_ref);
        secrets.extend(of_drivers.chain(of_csi).map(|secret| in_namespace(secret.namespace, secret.name)));
        secrets.retain(|(_, name)| !name.is_empty());
        Ok(Self { claim: Some((claim.namespace, claim.name)), secrets })
    }
}

// === The parts of the JSON that are looked at ===

#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    namespace: Option<String>,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata {
    name: String,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Pod {
    metadata: Metadata,
    spec: PodSpec,
    status: Option<PodStatus>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    service_account_name: Option<String>,
    #[serde(deserialize_with = "null_is_empty")]
    image_pull_secrets: Vec<Named>,
    #[serde(deserialize_with = "null_is_empty")]
    containers: Vec<Container>,
    #[serde(deserialize_with = "null_is_empty")]
    init_containers: Vec<Container>,
    #[serde(deserialize_with = "null_is_empty")]
    ephemeral_containers: Vec<Container>,
    #[serde(deserialize_with = "null_is_empty")]
    volumes: Vec<Volume>,
    #[serde(deserialize_with = "null_is_empty")]
    resource_claims: Vec<PodResourceClaim>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PodStatus {
    #[serde(deserialize_with = "null_is_empty")]
    resource_claim_statuses: Vec<PodResourceClaim>,
    extended_resource_claim_status: Option<ExtendedResourceClaim>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PodResourceClaim {
    name: String,
    resource_claim_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ExtendedResourceClaim {
    resource_claim_name: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    #[serde(deserialize_with = "null_is_empty")]
    env: Vec<Variable>,
    #[serde(deserialize_with = "null_is_empty")]
    env_from: Vec<VariableSource>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Variable {
    value_from: Option<VariableSource>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct VariableSource {
    secret_ref: Option<Named>,
    secret_key_ref: Option<Named>,
    config_map_ref: Option<Named>,
    config_map_key_ref: Option<Named>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Volume {
    name: String,
    secret: Option<SecretSource>,
    config_map: Option<Named>,
    projected: Option<Projected>,
    persistent_volume_claim: Option<ClaimSource>,
    ephemeral: Option<serde::de::IgnoredAny>,
    azure_file: Option<SecretSource>,
    csi: Option<Csi>,
    cephfs: Option<Driver>,
    cinder: Option<Driver>,
    flex_volume: Option<Driver>,
    rbd: Option<Driver>,
    #[serde(rename = "scaleIO")]
    scale_io: Option<Driver>,
    iscsi: Option<Driver>,
    storageos: Option<Driver>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct SecretSource {
    secret_name: String,
    secret_namespace: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ClaimSource {
    claim_name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Projected {
    #[serde(deserialize_with = "null_is_empty")]
    sources: Vec<ProjectedSource>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ProjectedSource {
    secret: Option<Named>,
    config_map: Option<Named>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Driver {
    secret_ref: Option<Named>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Csi {
    node_publish_secret_ref: Option<Named>,
    node_stage_secret_ref: Option<Named>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PersistentVolume {
    spec: PersistentVolumeSpec,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PersistentVolumeSpec {
    claim_ref: Option<ClaimReference>,
    azure_file: Option<SecretSource>,
    csi: Option<Csi>,
    cephfs: Option<Driver>,
    cinder: Option<Driver>,
    flex_volume: Option<Driver>,
    rbd: Option<Driver>,
    #[serde(rename = "scaleIO")]
    scale_io: Option<Driver>,
    iscsi: Option<Driver>,
    storageos: Option<Driver>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ClaimReference {
    namespace: String,
    name: String,
}

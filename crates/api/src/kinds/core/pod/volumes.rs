//! Volumes of a pod: each has exactly one source, and each kind of source has its rules.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::kinds::certificates::signer_name;
use crate::kinds::core::persistent_volume_claim;
use crate::validation::fields::{Fields, as_go_struct, invalid_each, item_text, one_of, require, supported};
use crate::validation::meta::{ANNOTATIONS_MAX, template_object_meta};
use crate::validation::{resources, selector, text};

/// Mode bits of a file that a volume makes.
const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const FILE_MODE_MAX: i64 = 0o777;
const ONE_SOURCE: &str = "may not specify more than 1 volume type";
const CONFLICTING_PATHS: &str = "conflicting duplicate paths";
const DAY: i64 = 86_400;
/// The longest life of a certificate, in seconds, of a foreign and of a built-in signer.
const CERTIFICATE_MAX: i64 = 91 * DAY;
const KUBERNETES_CERTIFICATE_MAX: i64 = DAY;

/// Every source in the order of checks: JSON name, and how upstream's error path spells it.
const SOURCES: [(&str, &str); 30] = [
    ("emptyDir", "emptyDir"),
    ("hostPath", "hostPath"),
    ("gitRepo", "gitRepo"),
    ("gcePersistentDisk", "gcePersistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore"),
    ("secret", "secret"),
    ("nfs", "nfs"),
    ("iscsi", "iscsi"),
    ("glusterfs", "glusterfs"),
    ("flocker", "flocker"),
    ("persistentVolumeClaim", "persistentVolumeClaim"),
    ("rbd", "rbd"),
    ("cinder", "cinder"),
    ("cephfs", "cephFS"),
    ("quobyte", "quobyte"),
    ("downwardAPI", "downwarAPI"),
    ("fc", "fc"),
    ("flexVolume", "flexVolume"),
    ("configMap", "configMap"),
    ("azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk"),
    ("storageos", "storageos"),
    ("projected", "projected"),
    ("scaleIO", "scaleIO"),
    ("csi", "csi"),
    ("ephemeral", "ephemeral"),
    ("image", "image"),
];

/// The volumes that containers may refer to: those without complaints.
pub struct Volumes<'a> {
    usable: Vec<(&'a str, &'a Value)>,
}

impl<'a> Volumes<'a> {
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.usable.iter().find(|(own, _)| *own == name).map(|(_, volume)| *volume)
    }
}

/// Checks all volumes of a pod or template. `pod_name` is empty in templates and while a name is not known.
pub fn volumes<'a>(
    errors: &mut ErrorList,
    volumes: &'a [Value],
    pod_name: &str,
    is_pod: bool,
    path: &Path<'_>,
) -> Volumes<'a> {
    let mut usable: Vec<(&str, &Value)> = Vec::with_capacity(volumes.len());
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let before = errors.len();
        let name = volume.text("name");
        source(errors, volume, name, pod_name, is_pod, &path);
        let name_path = path.child("name");
        if name.is_empty() {
            errors.push(Error::required(&name_path, ""));
        } else {
            invalid_each(errors, &name_path, name, text::dns1123_label(name));
        }
        if usable.iter().any(|(own, _)| *own == name) {
            errors.push(Error::duplicate(&name_path, name));
        }
        if errors.len() == before {
            usable.push((name, volume));
        }
        if let Some(claim) = volume.maybe("persistentVolumeClaim") {
            not_a_made_claim(errors, claim.text("claimName"), volumes, pod_name, &path);
        }
    }
    Volumes { usable }
}

/// A pod may not refer by name to a claim that is made for one of its own ephemeral volumes.
fn not_a_made_claim(errors: &mut ErrorList, claim: &str, volumes: &[Value], pod_name: &str, path: &Path<'_>) {
    let made = !pod_name.is_empty()
        && volumes.iter().any(|volume| {
            volume.has("ephemeral")
                && claim.strip_prefix(pod_name).and_then(|rest| rest.strip_prefix('-'))
                    == Some(volume.text("name"))
        });
    if made {
        errors.push(Error::invalid(
            &path.child("persistentVolumeClaim").child("claimName"),
            claim,
            "must not reference a PVC that gets created for an ephemeral volume",
        ));
    }
}

fn source(errors: &mut ErrorList, volume: &Value, name: &str, pod_name: &str, is_pod: bool, path: &Path<'_>) {
    let mut named =
        volume.as_object().into_iter().flatten().filter(|(key, value)| *key != "name" && !value.is_null());
    match (named.next(), named.next()) {
        (None, _) => errors.push(Error::required(path, "must specify a volume type")),
        // The usual case needs no look-up in the table.
        (Some((key, source)), None) => one_source(errors, key, source, (name, pod_name, is_pod), path),
        _ => {
            let mut first = true;
            for (key, spelled) in SOURCES {
                let Some(source) = volume.maybe(key) else { continue };
                if std::mem::take(&mut first) {
                    one_source(errors, key, source, (name, pod_name, is_pod), path);
                } else {
                    errors.push(Error::forbidden(&path.child(spelled), ONE_SOURCE));
                }
                if key == "iscsi" {
                    iscsi_name_length(errors, source, name, path);
                }
            }
        }
    }
}

/// Checks a source that persistent volumes have as well, at `path` of the volume.
pub fn shared_source(errors: &mut ErrorList, key: &str, source: &Value, path: &Path<'_>) {
    one_source(errors, key, source, ("", "", false), path);
}

fn one_source(
    errors: &mut ErrorList,
    key: &str,
    source: &Value,
    (name, pod_name, is_pod): (&str, &str, bool),
    path: &Path<'_>,
) {
    let own = path.child(key);
    match key {
        "emptyDir" => {
            if source.maybe("sizeLimit").is_some_and(resources::is_negative) {
                errors.push(Error::forbidden(
                    &own.child("sizeLimit"),
                    "SizeLimit field must be a valid resource quantity",
                ));
            }
        }
        "hostPath" => host_path(errors, source, &own),
        "gitRepo" => {
            require(errors, source, "repository", &own);
            local_descending_path(errors, source.text("directory"), &own.child("directory"));
        }
        "gcePersistentDisk" => disk(errors, source, "pdName", &path.child("persistentDisk")),
        "awsElasticBlockStore" => disk(errors, source, "volumeID", &own),
        "secret" => {
            require(errors, source, "secretName", &own);
            files_of_keys(errors, source, &own);
        }
        "configMap" => {
            require(errors, source, "name", &own);
            files_of_keys(errors, source, &own);
        }
        "nfs" => nfs(errors, source, &own),
        "iscsi" => {
            iscsi(errors, source, &own);
            iscsi_name_length(errors, source, name, path);
        }
        "glusterfs" => require_all(errors, source, &["endpoints", "path"], &own),
        "flocker" => flocker(errors, source, &own),
        "persistentVolumeClaim" => require_all(errors, source, &["claimName"], &own),
        "rbd" => {
            require_items(errors, source, "monitors", &own);
            require(errors, source, "image", &own);
        }
        "cinder" => {
            require(errors, source, "volumeID", &own);
            secret_ref_name(errors, source, "secretRef", &own);
        }
        "cephfs" => require_items(errors, source, "monitors", &own),
        "quobyte" => quobyte(errors, source, &own),
        "downwardAPI" => {
            mode(errors, source, "defaultMode", &own);
            for file in source.list("items") {
                downward_file(errors, file, &own);
            }
        }
        "fc" => fc(errors, source, &own),
        "flexVolume" => flex(errors, source, &own),
        "azureFile" => require_all(errors, source, &["secretName", "shareName"], &own),
        "vsphereVolume" => require_all(errors, source, &["volumePath"], &own),
        "photonPersistentDisk" => require_all(errors, source, &["pdID"], &own),
        "portworxVolume" => require_all(errors, source, &["volumeID"], &own),
        "azureDisk" => azure_disk(errors, source, &own),
        "storageos" => storage_os(errors, source, &own),
        "projected" => {
            mode(errors, source, "defaultMode", &own);
            projected(errors, source, &own);
        }
        "scaleIO" => require_all(errors, source, &["gateway", "system", "volumeName"], &own),
        "csi" => csi(errors, source, &own),
        "ephemeral" => ephemeral(errors, source, name, pod_name, path),
        "image" => {
            if is_pod {
                require(errors, source, "reference", &own);
            }
            one_of(
                errors,
                source.text("pullPolicy"),
                &own.child("pullPolicy"),
                &super::container::PULL_POLICIES,
            );
        }
        // The schema lets nothing else through.
        _ => errors.push(Error::required(path, "must specify a volume type")),
    }
}

fn require_all(errors: &mut ErrorList, source: &Value, keys: &[&str], path: &Path<'_>) {
    for key in keys {
        require(errors, source, key, path);
    }
}

fn require_items(errors: &mut ErrorList, source: &Value, key: &str, path: &Path<'_>) {
    if source.list(key).is_empty() {
        errors.push(Error::required(&path.child(key), ""));
    }
}

fn secret_ref_name(errors: &mut ErrorList, source: &Value, key: &str, path: &Path<'_>) {
    if let Some(reference) = source.maybe(key) {
        require(errors, reference, "name", &path.child(key));
    }
}

fn mode(errors: &mut ErrorList, source: &Value, key: &str, path: &Path<'_>) {
    if let Some(mode) = source.maybe_int(key)
        && !(0..=FILE_MODE_MAX).contains(&mode)
    {
        errors.push(Error::invalid(&path.child(key), mode, FILE_MODE));
    }
}

fn host_path(errors: &mut ErrorList, source: &Value, path: &Path<'_>) {
    if !require(errors, source, "path", path) {
        return;
    }
    no_backsteps(errors, source.text("path"), &path.child("path"));
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    supported(errors, source.text("type"), &path.child("type"), &TYPES);
}

fn disk(errors: &mut ErrorList, source: &Value, id: &str, path: &Path<'_>) {
    require(errors, source, id, path);
    let partition = source.int("partition");
    if !(0..=255).contains(&partition) {
        errors.push(Error::invalid(
            &path.child("partition"),
            partition,
            "must be between 1 and 255, inclusive",
        ));
    }
}

/// `items` and `defaultMode` of a volume made of a Secret or ConfigMap.
fn files_of_keys(errors: &mut ErrorList, source: &Value, path: &Path<'_>) {
    mode(errors, source, "defaultMode", path);
    let items = path.child("items");
    for (index, item) in source.list("items").iter().enumerate() {
        key_to_path(errors, item, &items.index(index));
    }
}

fn key_to_path(errors: &mut ErrorList, item: &Value, path: &Path<'_>) {
    require(errors, item, "key", path);
    require(errors, item, "path", path);
    local_non_reserved_path(errors, item.text("path"), &path.child("path"));
    mode(errors, item, "mode", path);
}

fn nfs(errors: &mut ErrorList, source: &Value, path: &Path<'_>) {
    require(errors, source, "server", path);
    require(errors, source, "path", path);
    let exported = source.text("path");
    if !exported.starts_with('/') {
        errors.push(Error::invalid(&path.child("path"), exported, "must be an absolute path"));
    }
}

fn iscsi(errors: &mut ErrorList, source: &Value, path: &Path<'_>) {
    const STARTS: &str = "must be valid format starting with iqn, eui, or naa";
    require(errors, source, "targetPortal", path);
    if require(errors, source, "iqn", path)
        && let Err(prefix_known) = iscsi_name(source.text("iqn"))
    {
        let detail = if prefix_known { "must be valid format" } else { STARTS };
        errors.push(Error::invalid(&path.child("iqn"), source.text("iqn"), detail));
    }
    lun(errors, source.int("lun"), path);
    if (source.truth("chapAuthDiscovery") || source.truth("chapAuthSession")) && !source.has("secretRef") {
        errors.push(Error::required(&path.child("secretRef"), ""));
    }
    if let Some(initiator) = source.maybe_text("initiatorName")
        && let Err(prefix_known) = iscsi_name(initiator)
    {
        let detail = if prefix_known { "must be valid format" } else { STARTS };
        errors.push(Error::invalid(&path.child("initiatorname"), initiator, detail));
    }
}

fn iscsi_name_length(errors: &mut ErrorList, source: &Value, name: &str, path: &Path<'_>) {
    if source.has("initiatorName") && name.len() + 1 + source.text("targetPortal").len() > 64 {
        errors.push(Error::invalid(
            &path.child("name"),
            name,
            "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.",
        ));
    }
}

/// An iSCSI qualified name. The error says whether at least its prefix is a known one.
fn iscsi_name(name: &str) -> Result<(), bool> {
    let fixed = |length: usize| {
        // A three-letter prefix, any character, then exactly `length` alphanumeric characters.
        name.chars().count() == 4 + length && name.chars().skip(4).all(|c| c.is_ascii_alphanumeric())
    };
    let good = if name.starts_with("iqn") {
        iqn(name)
    } else if name.starts_with("eui") {
        fixed(16)
    } else if name.starts_with("naa") {
        fixed(32)
    } else {
        return Err(false);
    };
    if good { Ok(()) } else { Err(true) }
}

/// `iqn.2024-01.domain[:unique]`; the part after the colon is required, as upstream's pattern has it.
fn iqn(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("iqn.") else { return false };
    let Some((date, rest)) = rest.split_once('.') else { return false };
    let date_ok = date.len() == 7
        && date
            .bytes()
            .enumerate()
            .all(|(at, byte)| if at == 4 { byte == b'-' } else { byte.is_ascii_digit() });
    let Some((domain, unique)) = rest.split_once(':') else { return false };
    date_ok
        && !domain.is_empty()
        && domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        && !unique.is_empty()
        && !unique.chars().any(|c| c.is_whitespace() || ",;*&$|".contains(c))
}

fn lun(errors: &mut ErrorList, lun: i64, path: &Path<'_>) {
    invalid_each(errors, &path.child("lun"), lun, text::in_range(lun, 0, 255));
}

fn flocker(errors: &mut ErrorList, source: &Value, path: &Path<'_>) {
    let (name, uuid) = (source.text("datasetName"), source.text("datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        errors.push(Error::required(path, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        errors.push(Error::invalid(
            path,
            "resource",
            "datasetName and datasetUUID can not be specified simultaneously",
        ));
    }
    if name.contains('/') {
        errors.push(Error::invalid(&path.child("datasetName"), name, "must not contain '/'"));
    }
}

fn quobyte(errors: &mut ErrorList, source: &Value, path: &Path<'_>) {
    const REGISTRY: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = source.text("registry");
    if registry.is_empty() {
        errors.push(Error::required(&path.child("registry"), REGISTRY));
    } else if source.text("tenant").len() > 64 {
        errors.push(Error::required(
            &path.child("tenant"),
            "must be a UUID and may not exceed a length of 64 characters",
        ));
    } else {
        for _ in registry.split(',').filter(|pair| !is_host_port(pair)) {
            errors.push(Error::invalid(&path.child("registry"), registry, REGISTRY));
        }
    }
    require(errors, source, "volume", path);
}

fn is_host_port(pair: &str) -> bool {
    match pair.rsplit_once(':') {
        Some((host, _)) => !host.contains(':') || (host.starts_with('[') && host.ends_with(']')),
        None => false,
    }
}

fn downward_file(errors: &mut ErrorList, file: &Value, path: &Path<'_>) {
    const FIELDS: [&str; 5] =
        ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
    require(errors, file, "path", path);
    local_non_reserved_path(errors, file.text("path"), &path.child("path"));
    if let Some(reference) = file.maybe("fieldRef") {
        super::env::field_ref(errors, reference, &FIELDS, &path.child("fieldRef"));
        if file.has("resourceFieldRef") {
            errors.push(Error::invalid(
                path,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            ));
        }
    } else if let Some(reference) = file.maybe("resourceFieldRef") {
        super::env::resource_field_ref(errors, reference, true, &path.child("resourceFieldRef"));
    } else {
        errors.push(Error::required(path, "one of fieldRef and resourceFieldRef is required"));
    }
    mode(errors, file, "mode", path);
}

fn fc(errors: &mut ErrorList, source: &Value, path: &Path<'_>) {
    let (names, ids) = (source.list("targetWWNs"), source.list("wwids"));
    let names_path = path.child("targetWWNs");
    if names.is_empty() && ids.is_empty() {
        errors.push(Error::required(&names_path, "must specify either targetWWNs or wwids, but not both"));
    }
    if !names.is_empty() && !ids.is_empty() {
        errors.push(Error::invalid(
            &names_path,
            &source["targetWWNs"],
            "targetWWNs and wwids can not be specified simultaneously",
        ));
    }
    if !names.is_empty() {
        match source.maybe_int("lun") {
            None => {
                errors
                    .push(Error::required(&path.child("lun"), "lun is required if targetWWNs is specified"));
            }
            Some(number) => lun(errors, number, path),
        }
    }
}

fn flex(errors: &mut ErrorList, source: &Value, path: &Path<'_>) {
    require(errors, source, "driver", path);
    for (key, _) in source.entries("options") {
        let namespace = key.split('/').next().unwrap_or(key).to_lowercase();
        let reserved = ["kubernetes.io", "k8s.io"]
            .iter()
            .any(|own| namespace == *own || namespace.ends_with(&format!(".{own}")));
        if reserved {
            errors.push(Error::invalid(
                &path.child("options").key(key),
                key,
                "kubernetes.io and k8s.io namespaces are reserved",
            ));
        }
    }
}

fn azure_disk(errors: &mut ErrorList, source: &Value, path: &Path<'_>) {
    require(errors, source, "diskName", path);
    require(errors, source, "diskURI", path);
    if let Some(mode) = source.maybe_text("cachingMode") {
        supported(errors, mode, &path.child("cachingMode"), &["None", "ReadOnly", "ReadWrite"]);
    }
    let Some(kind) = source.maybe_text("kind") else { return };
    supported(errors, kind, &path.child("kind"), &["Dedicated", "Managed", "Shared"]);
    let (prefix, form) = if kind == "Managed" {
        (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        )
    } else {
        ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd")
    };
    let uri = source.text("diskURI");
    if !uri.starts_with(prefix) {
        errors.push(Error::not_supported(&path.child("diskURI"), uri, &[form]));
    }
}

fn storage_os(errors: &mut ErrorList, source: &Value, path: &Path<'_>) {
    let name = source.text("volumeName");
    if require(errors, source, "volumeName", path) {
        invalid_each(errors, &path.child("volumeName"), name, text::dns1123_label(name));
    }
    let namespace = source.text("volumeNamespace");
    if !namespace.is_empty() {
        invalid_each(errors, &path.child("volumeNamespace"), namespace, text::dns1123_label(namespace));
    }
    secret_ref_name(errors, source, "secretRef", path);
}

fn csi(errors: &mut ErrorList, source: &Value, path: &Path<'_>) {
    csi_driver_name(errors, source.text("driver"), &path.child("driver"));
    let Some(reference) = source.maybe("nodePublishSecretRef") else { return };
    let name = reference.text("name");
    if require(errors, reference, "name", &path.child("nodePublishSecretRef")) {
        invalid_each(errors, &path.child("name"), name, text::dns1123_subdomain(name));
    }
}

/// The name of a CSI driver: a short subdomain in any case.
pub fn csi_driver_name(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    const MAX: usize = 63;
    if name.is_empty() {
        errors.push(Error::required(path, ""));
    }
    if name.len() > MAX {
        errors.push(Error::too_long(path, MAX));
    }
    invalid_each(errors, path, name, text::dns1123_subdomain(&name.to_lowercase()));
}

fn ephemeral(errors: &mut ErrorList, source: &Value, name: &str, pod_name: &str, volume_path: &Path<'_>) {
    let path = volume_path.child("ephemeral");
    let template_path = path.child("volumeClaimTemplate");
    match source.maybe("volumeClaimTemplate") {
        None => errors.push(Error::required(&template_path, "")),
        Some(template) => {
            template_object_meta(errors, &template["metadata"], &template_path.child("metadata"));
            persistent_volume_claim::spec(errors, &template["spec"], &template_path.child("spec"));
        }
    }
    if !pod_name.is_empty() && !name.is_empty() {
        let claim = format!("{pod_name}-{name}");
        for message in text::dns1123_subdomain(&claim) {
            errors.push(Error::invalid(
                &volume_path.child("name"),
                name,
                format!("PVC name \"{claim}\": {message}"),
            ));
        }
    }
}

/// The sources of a projected volume, which share one directory.
fn projected(errors: &mut ErrorList, volume: &Value, path: &Path<'_>) {
    let mut paths: Vec<&str> = Vec::new();
    let sources_path = path.child("sources");
    for (index, source) in volume.list("sources").iter().enumerate() {
        let own = sources_path.index(index);
        let mut kinds = 0;
        for key in ["secret", "configMap"] {
            let Some(source) = source.maybe(key) else { continue };
            kinds += 1;
            let own = own.child(key);
            require(errors, source, "name", &own);
            let items_path = own.child("items");
            for (index, item) in source.list("items").iter().enumerate() {
                key_to_path(errors, item, &items_path.index(index));
                claim_path(errors, &mut paths, item.text("path"), source.text("name"), path);
            }
        }
        if let Some(source) = source.maybe("downwardAPI") {
            kinds += 1;
            let own = own.child("downwardAPI");
            for file in source.list("items") {
                downward_file(errors, file, &own);
                claim_path(errors, &mut paths, file.text("path"), file.text("path"), path);
            }
        }
        if let Some(token) = source.maybe("serviceAccountToken") {
            kinds += 1;
            service_account_token(errors, token, &own.child("serviceAccountToken"), path);
        }
        if let Some(bundle) = source.maybe("clusterTrustBundle") {
            kinds += 1;
            trust_bundle(errors, bundle, &own.child("clusterTrustBundle"));
            // Upstream notes this path even when it is empty.
            let target = bundle.text("path");
            if paths.contains(&target) {
                errors.push(Error::invalid(path, target, CONFLICTING_PATHS));
            } else {
                paths.push(target);
            }
        }
        if let Some(certificate) = source.maybe("podCertificate") {
            kinds += 1;
            pod_certificate(errors, &mut paths, certificate, &own.child("podCertificate"), path);
        }
        if kinds > 1 {
            errors.push(Error::forbidden(&own, "may not specify more than 1 volume type per source"));
        }
    }
}

/// Notes that a file will stand at `target`; complains, showing `shown`, when another already does.
fn claim_path<'a>(
    errors: &mut ErrorList,
    paths: &mut Vec<&'a str>,
    target: &'a str,
    shown: &str,
    path: &Path<'_>,
) {
    if target.is_empty() {
        return;
    }
    if paths.contains(&target) {
        errors.push(Error::invalid(path, shown, CONFLICTING_PATHS));
    } else {
        paths.push(target);
    }
}

fn service_account_token(errors: &mut ErrorList, token: &Value, path: &Path<'_>, volume_path: &Path<'_>) {
    let seconds = token.int("expirationSeconds");
    let expiration = path.child("expirationSeconds");
    if seconds < 600 {
        errors.push(Error::invalid(&expiration, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > 1 << 32 {
        errors.push(Error::invalid(
            &expiration,
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        ));
    }
    // Upstream reports the token's path at the volume.
    if require(errors, token, "path", volume_path) {
        local_non_reserved_path(errors, token.text("path"), &volume_path.child("path"));
    }
}

fn trust_bundle(errors: &mut ErrorList, bundle: &Value, path: &Path<'_>) {
    match (bundle.maybe_text("name"), bundle.maybe_text("signerName")) {
        (Some(_), Some(_)) => {
            const LAYOUT: [(&str, &str, &str); 5] = [
                ("name", "Name", "null"),
                ("signerName", "SignerName", "null"),
                ("labelSelector", "LabelSelector", "null"),
                ("optional", "Optional", "null"),
                ("path", "Path", "\"\""),
            ];
            errors.push(Error::invalid(
                path,
                as_go_struct(bundle, &LAYOUT),
                "only one of name and signerName may be used",
            ));
        }
        (Some(name), None) => {
            if name.is_empty() {
                errors.push(Error::required(&path.child("name"), "must be a valid object name"));
            }
            // A bundle that belongs to a signer is named `signer:domain:path:name`.
            let own = name.rsplit(':').next().unwrap_or(name);
            for message in text::dns1123_subdomain(own) {
                errors.push(Error::invalid(
                    &path.child("name"),
                    name,
                    format!("not a valid clustertrustbundlename: {message}"),
                ));
            }
            if let Some(selector) = bundle.maybe("labelSelector") {
                errors.push(Error::invalid(
                    &path.child("labelSelector"),
                    selector::shown(selector),
                    "labelSelector must be unset if name is specified",
                ));
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.push(Error::required(&path.child("signerName"), "must be a valid signer name"));
            }
            signer_name(errors, signer, &path.child("signerName"));
            selector::label_selector(errors, bundle.maybe("labelSelector"), &path.child("labelSelector"));
        }
        (None, None) => {
            errors.push(Error::required(path, "either name or signerName must be specified"));
        }
    }
    require(errors, bundle, "path", path);
    local_non_reserved_path(errors, bundle.text("path"), &path.child("path"));
}

/// `domain/path`, as in certificate signing requests.
fn pod_certificate<'a>(
    errors: &mut ErrorList,
    paths: &mut Vec<&'a str>,
    certificate: &'a Value,
    path: &Path<'_>,
    volume_path: &Path<'_>,
) {
    let signer = certificate.text("signerName");
    signer_name(errors, signer, &path.child("signerName"));
    user_annotations(errors, certificate, &path.child("userAnnotations"));
    const KEY_TYPES: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
    supported(errors, certificate.text("keyType"), &path.child("keyType"), &KEY_TYPES);
    if let Some(seconds) = certificate.maybe_int("maxExpirationSeconds") {
        let max =
            if signer.starts_with("kubernetes.io/") { KUBERNETES_CERTIFICATE_MAX } else { CERTIFICATE_MAX };
        let path = path.child("maxExpirationSeconds");
        if seconds < 3600 {
            errors.push(Error::invalid(&path, seconds, "if provided, maxExpirationSeconds must be >= 3600"));
        }
        if seconds > max {
            errors.push(Error::invalid(
                &path,
                seconds,
                format!("if provided, maxExpirationSeconds must be <= {max}"),
            ));
        }
    }
    let mut files = 0;
    for key in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let target = certificate.text(key);
        if !target.is_empty() {
            files += 1;
            local_non_reserved_path(errors, target, &path.child(key));
            claim_path(errors, paths, target, target, volume_path);
        }
    }
    if files == 0 {
        errors.push(Error::required(
            path,
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
        ));
    }
}

fn user_annotations(errors: &mut ErrorList, certificate: &Value, path: &Path<'_>) {
    let mut size = 0;
    for (key, value) in certificate.entries("userAnnotations") {
        let key = key.to_lowercase();
        let messages = text::qualified_name(&key);
        if messages.is_empty() && !key.contains('/') {
            errors.push(Error::invalid(
                path,
                &key,
                "must be a domain-prefixed key (such as \"acme.io/foo\")",
            ));
        }
        invalid_each(errors, path, &key, messages);
        size += key.len() + item_text(value).len();
    }
    if size > ANNOTATIONS_MAX {
        errors.push(Error::too_long(path, ANNOTATIONS_MAX));
    }
}

/// A path without `..` steps.
pub fn no_backsteps(errors: &mut ErrorList, target: &str, path: &Path<'_>) {
    if has_backsteps(target) {
        errors.push(Error::invalid(path, target, "must not contain '..'"));
    }
}

pub fn has_backsteps(target: &str) -> bool {
    target.split('/').any(|step| step == "..")
}

/// A relative path that stays where it is.
pub fn local_descending_path(errors: &mut ErrorList, target: &str, path: &Path<'_>) {
    if target.starts_with('/') {
        errors.push(Error::invalid(path, target, "must be a relative path"));
    }
    no_backsteps(errors, target, path);
}

/// A relative path that stays where it is and does not begin with two dots, which the kubelet uses itself.
fn local_non_reserved_path(errors: &mut ErrorList, target: &str, path: &Path<'_>) {
    local_descending_path(errors, target, path);
    if target.starts_with("..") && !target.starts_with("../") {
        errors.push(Error::invalid(path, target, "must not start with '..'"));
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn complaints(volumes_of: Value) -> Vec<String> {
        let mut errors = ErrorList::new();
        let list = volumes_of.as_array().expect("a list").clone();
        volumes(&mut errors, &list, "pod", true, &Path::root("spec").child("volumes"));
        errors.into_iter().map(|error| error.to_string()).collect()
    }

    #[test]
    fn sources_have_their_rules() {
        let cases = [
            (json!({"emptyDir": {"sizeLimit": "1Gi"}}), vec![]),
            (json!({}), vec!["spec.volumes[0]: Required value: must specify a volume type"]),
            (
                json!({"nfs": {"server": "s", "path": "x"}}),
                vec!["spec.volumes[0].nfs.path: Invalid value: \"x\": must be an absolute path"],
            ),
            (
                json!({"secret": {"secretName": "s", "defaultMode": 512, "items": [{"key": "k", "path": "../x"}]}}),
                vec![
                    "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
                    "spec.volumes[0].secret.items[0].path: Invalid value: \"../x\": must not contain '..'",
                ],
            ),
            (
                json!({"projected": {"sources": [
                    {"secret": {"name": "a", "items": [{"key": "k", "path": "p"}]}},
                    {"configMap": {"name": "b", "items": [{"key": "k", "path": "p"}]}},
                ]}}),
                vec!["spec.volumes[0].projected: Invalid value: \"b\": conflicting duplicate paths"],
            ),
            (
                json!({"iscsi": {"targetPortal": "1", "iqn": "iqn.2024-01.com.example:x", "lun": 256}}),
                vec!["spec.volumes[0].iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive"],
            ),
            (json!({"persistentVolumeClaim": {"claimName": "pod-other"}}), vec![]),
        ];
        for (mut source, expected) in cases {
            source.set_at(&["name"], "v");
            assert_eq!(complaints(json!([source.clone()])), expected, "{source}");
        }
    }

    #[test]
    fn a_claim_made_for_the_pod_may_not_be_named() {
        let list = json!([
            {"name": "e", "ephemeral": {"volumeClaimTemplate": {"metadata": {}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}}}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "pod-e"}},
        ]);
        assert_eq!(complaints(list).len(), 1);
    }

    #[test]
    fn names_are_unique() {
        let twice = json!([{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]);
        assert_eq!(complaints(twice), ["spec.volumes[1].name: Duplicate value: \"v\""]);
    }

    #[test]
    fn iscsi_names_have_three_forms() {
        assert_eq!(iscsi_name("iqn.2024-01.com.example:disk"), Ok(()));
        assert_eq!(iscsi_name("eui.0123456789abcdef"), Ok(()));
        assert_eq!(iscsi_name("iqn.2024-1.com:x"), Err(true));
        assert_eq!(iscsi_name("other"), Err(false));
    }
}

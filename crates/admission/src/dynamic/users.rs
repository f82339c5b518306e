//! `WebhookAdmissionConfiguration`: who this server is towards the webhooks of a plugin.

use apimachinery::Value;
use apimachinery::field::{Error, Path};
use webhook::Users;

use crate::configuration::check_type;

const API_VERSIONS: [&str; 1] = ["apiserver.config.k8s.io/v1"];
const FIELDS: [&str; 4] = ["apiVersion", "kind", "kubeConfigFile", "staticManifestsDir"];

pub(super) fn parse(document: &Value) -> Result<Users, String> {
    check_type(document, "WebhookAdmissionConfiguration", &API_VERSIONS)?;
    let fields = document.as_object().into_iter().flatten();
    if let Some((unknown, _)) = fields.into_iter().find(|(name, _)| !FIELDS.contains(&name.as_str())) {
        return Err(format!("unknown field {unknown:?}"));
    }
    if !document.str_at(&["staticManifestsDir"]).is_empty() {
        let detail =
            "staticManifestsDir requires the ManifestBasedAdmissionControlConfig feature gate to be enabled";
        return Err(Error::forbidden(&Path::root("staticManifestsDir"), detail).to_string());
    }
    match document.str_at(&["kubeConfigFile"]) {
        "" => Ok(Users::default()),
        file if file.starts_with('/') => {
            Users::from_kubeconfig(file.as_ref()).map_err(|error| telemetry::chain(&error).to_string())
        }
        file => {
            let path = Path::root("kubeConfigFile");
            Err(Error::invalid(&path, file, "must be an absolute file path").to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn a_configuration_names_a_kubeconfig_by_its_whole_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("users.yaml");
        std::fs::write(&file, "users: []").expect("written");
        let parsed = |key: &str, value: &str| {
            let mut document =
                json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration"});
            document.set_at(&[key], value);
            parse(&document).map(drop)
        };
        assert_eq!(parsed("kubeConfigFile", file.to_str().expect("a text")), Ok(()));
        assert_eq!(parsed("kubeConfigFile", ""), Ok(()));
        for (key, value, complaint) in [
            (
                "kubeConfigFile",
                "users.yaml",
                "kubeConfigFile: Invalid value: \"users.yaml\": must be an absolute",
            ),
            ("kubeConfigFile", "/nowhere/users.yaml", "reading /nowhere/users.yaml: No such file"),
            (
                "staticManifestsDir",
                "/etc",
                "staticManifestsDir: Forbidden: staticManifestsDir requires the Manifest",
            ),
            ("kubeconfigFile", "/etc", "unknown field \"kubeconfigFile\""),
            (
                "kind",
                "WebhookAdmission",
                "must be apiserver.config.k8s.io/v1 and WebhookAdmissionConfiguration",
            ),
        ] {
            let error = parsed(key, value).expect_err(complaint);
            assert!(error.contains(complaint), "{error}");
        }
    }
}

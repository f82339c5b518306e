//! `ResourceQuotaConfiguration`: what nobody may consume where no quota allows it.

use api::quota::Requirement;
use apimachinery::Value;

use crate::configuration::check_type;

const API_VERSIONS: [&str; 4] = [
    "apiserver.config.k8s.io/v1",
    "resourcequota.admission.k8s.io/v1",
    "resourcequota.admission.k8s.io/v1beta1",
    "resourcequota.admission.k8s.io/v1alpha1",
];

/// Something that is limited to nothing unless a quota says more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limited {
    pub group: String,
    pub resource: String,
    /// Parts of the names of what is consumed.
    pub contains: Vec<String>,
    pub scopes: Vec<Requirement>,
}

pub fn parse(document: &Value) -> Result<Vec<Limited>, String> {
    let kind = match document.str_at(&["apiVersion"]) {
        "apiserver.config.k8s.io/v1" => "ResourceQuotaConfiguration",
        _ => "Configuration",
    };
    check_type(document, kind, &API_VERSIONS)?;
    document
        .array_at(&["limitedResources"])
        .iter()
        .enumerate()
        .map(|(index, entry)| limited(index, entry))
        .collect()
}

fn limited(index: usize, entry: &Value) -> Result<Limited, String> {
    let resource = entry.str_at(&["resource"]);
    if resource.is_empty() {
        return Err(format!("limitedResources[{index}].resource: a resource is required, such as pods"));
    }
    let contains = entry.array_at(&["matchContains"]).iter().filter_map(Value::as_str);
    Ok(Limited {
        group: entry.str_at(&["apiGroup"]).to_owned(),
        resource: resource.to_owned(),
        contains: contains.map(str::to_owned).collect(),
        scopes: entry.array_at(&["matchScopes"]).iter().map(Requirement::of).collect(),
    })
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn limited_resources_are_read() {
        let document = |entry: Value| {
            json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "ResourceQuotaConfiguration",
                "limitedResources": [entry]})
        };
        let limited = parse(&document(json!({"resource": "pods", "matchScopes": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["cluster-services"]}
        ]})))
        .expect("a good configuration");
        assert_eq!(limited[0].scopes[0].to_string(), "{PriorityClass In [cluster-services]}");
        let error = parse(&document(json!({"matchContains": ["x"]}))).expect_err("no resource");
        assert!(error.starts_with("limitedResources[0].resource"), "{error}");
        assert!(parse(&json!({"kind": "Configuration", "apiVersion": "v1"})).is_err());
    }
}

//! What is said of a resize, in upstream's words: a sentence, and the resources in question as JSON.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<&'a ResourceRequirements>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Asked<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Asked<'a>>,
    generation: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

#[derive(Serialize)]
struct Asked<'a> {
    name: &'a str,
    resources: ResourceRequirements,
}

fn asked(containers: &[Container]) -> Vec<Asked<'_>> {
    let each = containers.iter().map(|container| Asked {
        name: &container.name,
        resources: container.resources.clone().unwrap_or_default(),
    });
    each.collect()
}

/// `sentence: {"containers":[…],"generation":2}`
pub fn of(sentence: &str, pod: &Pod, generation: i64, error: &str) -> String {
    let Some(spec) = &pod.spec else { return sentence.to_owned() };
    let summary = Summary {
        resources: spec.resources.as_ref(),
        init_containers: asked(spec.init_containers.as_deref().unwrap_or_default()),
        containers: asked(&spec.containers),
        generation,
        error,
    };
    match serde_json::to_string(&summary) {
        Ok(summary) => format!("{sentence}: {summary}"),
        Err(_) => sentence.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::config::fixture;

    #[test]
    fn a_message_tells_every_container() {
        let pod = fixture::pod(serde_json::json!({
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}, {"name": "d"}],
        }));
        assert_eq!(
            of("Pod resize completed", &pod, 2, ""),
            "Pod resize completed: {\"containers\":[{\"name\":\"c\",\"resources\":{\"limits\":{\"cpu\":\"2\"},\
             \"requests\":{\"cpu\":\"1\"}}},{\"name\":\"d\",\"resources\":{}}],\"generation\":2}"
        );
        assert!(of("Pod resize error", &pod, 2, "no").ends_with(",\"generation\":2,\"error\":\"no\"}"));
    }
}

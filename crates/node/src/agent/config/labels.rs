//! Labels and annotations by which a node finds its containers again, in the kubelet's words.

use apimachinery::value;
use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::spec::{Labels, label};

use super::{name, namespace, uid};

pub const HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
pub const PORTS: &str = "io.kubernetes.container.ports";
pub const DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
pub const TERMINATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

pub const TERMINATION_MESSAGE_PATH_DEFAULT: &str = "/dev/termination-log";

fn of_pod(pod: &Pod) -> [(&'static str, &str); 3] {
    [(label::POD_NAME, name(pod)), (label::POD_NAMESPACE, namespace(pod)), (label::POD_UID, uid(pod))]
}

/// The pod's own, and its name.
pub fn sandbox_labels(pod: &Pod) -> Labels {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(of_pod(pod).map(|(key, value)| (key.to_owned(), value.to_owned())));
    labels
}

pub fn sandbox_annotations(pod: &Pod) -> Labels {
    pod.metadata.annotations.clone().unwrap_or_default()
}

pub fn container_labels(pod: &Pod, container: &Container) -> Labels {
    let mut labels: Labels = of_pod(pod).map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    labels.insert(label::CONTAINER_NAME.to_owned(), container.name.clone());
    labels
}

pub fn container_annotations(pod: &Pod, container: &Container, restart_count: i32) -> Labels {
    let mut annotations: Labels = [
        (HASH, format!("{:x}", hash(container))),
        (RESTART_COUNT, restart_count.to_string()),
        (TERMINATION_MESSAGE_PATH, container.termination_message_path.clone().unwrap_or_default()),
        (TERMINATION_MESSAGE_POLICY, container.termination_message_policy.clone().unwrap_or_default()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let spec = pod.spec.as_ref();
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            annotations.insert(key.to_owned(), value);
        }
    };
    add(DELETION_GRACE, pod.metadata.deletion_grace_period_seconds.map(|own| own.to_string()));
    add(
        TERMINATION_GRACE,
        spec.and_then(|spec| spec.termination_grace_period_seconds).map(|own| own.to_string()),
    );
    let json = |tree: Result<apimachinery::Value, _>| {
        let tree: Result<apimachinery::Value, value::DecodeError> = tree;
        tree.ok().map(|tree| tree.to_json_string())
    };
    let pre_stop = container.lifecycle.as_ref().and_then(|own| own.pre_stop.as_ref());
    add(PRE_STOP, pre_stop.and_then(|own| json(value::to_value(own))));
    let ports = container.ports.as_ref().filter(|ports| !ports.is_empty());
    add(PORTS, ports.and_then(|own| json(value::to_value(own))));
    annotations
}

/// Changes when the container has to be made anew: with its name or its image.
pub fn hash(container: &Container) -> u32 {
    // FNV-1a of the JSON that upstream takes it of.
    let quoted = |text: &str| apimachinery::Value::from(text.to_owned()).to_json_string();
    let image = container.image.as_deref().unwrap_or_default();
    let text = format!("{{\"image\":{},\"name\":{}}}", quoted(image), quoted(&container.name));
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn a_container_can_be_found_again() {
        let pod = fixture::pod(serde_json::json!({"terminationGracePeriodSeconds": 30, "containers": [
            {"name": "c", "image": "x", "ports": [{"containerPort": 80}], "terminationMessagePath": "/dev/t",
             "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}]}));
        let container = &pod.spec.as_ref().expect("it has one").containers[0];
        let lines = |labels: Labels| {
            labels.into_iter().map(|(key, value)| format!("{key}={value}\n")).collect::<String>()
        };
        expect_test::expect![[r#"
            io.kubernetes.container.name=c
            io.kubernetes.pod.name=web
            io.kubernetes.pod.namespace=ns
            io.kubernetes.pod.uid=u-1
        "#]]
        .assert_eq(&lines(container_labels(&pod, container)));
        let annotations = container_annotations(&pod, container, 2);
        assert_eq!(annotations[RESTART_COUNT], "2");
        assert_eq!(annotations[PORTS], "[{\"containerPort\":80}]");
        assert_eq!(annotations[PRE_STOP], "{\"sleep\":{\"seconds\":1}}");
        assert_eq!(annotations[TERMINATION_GRACE], "30");
        assert!(!annotations.contains_key(DELETION_GRACE));
        assert_eq!(sandbox_labels(&pod)["app"], "web");
    }

    #[test]
    fn the_hash_is_of_name_and_image_alone() {
        let of = |name: &str, image: &str, tty: bool| {
            hash(&Container {
                name: name.into(),
                image: Some(image.into()),
                tty: Some(tty),
                ..Container::default()
            })
        };
        assert_eq!(of("a", "x", false), of("a", "x", true));
        assert_ne!(of("a", "x", false), of("b", "x", false));
        assert_ne!(of("a", "x", false), of("a", "y", false));
    }
}

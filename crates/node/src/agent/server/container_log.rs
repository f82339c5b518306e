//! Which of a container's logs is meant, in upstream's words where there is none.

use k8s_openapi::api::core::v1::ContainerStateTerminated;

use super::pods::PodView;

/// The runtime's ID of the container whose log is to be shown.
pub(super) fn container_id(view: &PodView, container: &str, previous: bool) -> Result<String, String> {
    let pod = view.name();
    let Some(status) = view.container_status(container) else {
        return Err(format!("container {container:?} in pod {pod:?} is not available"));
    };
    let id_of = |terminated: Option<&ContainerStateTerminated>| {
        terminated.and_then(|terminated| terminated.container_id.clone()).filter(|id| !id.is_empty())
    };
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let state = status.state.as_ref();
    let terminated = state.and_then(|state| state.terminated.as_ref());
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let id = if previous {
        id_of(last)
            .ok_or_else(|| format!("previous terminated container {container:?} in pod {pod:?} not found"))?
    } else if state.is_some_and(|state| state.running.is_some()) {
        status.container_id.clone().unwrap_or_default()
    } else if terminated.is_some() || last.is_some() {
        // Where the next one did not start, the one before it is meant.
        id_of(terminated)
            .or_else(|| id_of(last))
            .ok_or_else(|| format!("container {container:?} in pod {pod:?} is terminated"))?
    } else if let Some(waiting) = waiting {
        let why = match waiting.reason.as_deref().unwrap_or_default() {
            "ErrImagePull" => "image can't be pulled",
            "ImagePullBackOff" => "trying and failing to pull image",
            reason => reason,
        };
        return Err(format!("container {container:?} in pod {pod:?} is waiting to start: {why}"));
    } else {
        return Err(format!("container {container:?} in pod {pod:?} is waiting to start - no logs yet"));
    };
    // `<runtime>://<id>`.
    Ok(id.split_once("://").map_or(id.clone(), |(_, id)| id.to_owned()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;

    fn found(state: Value, last: Value, previous: bool) -> Result<String, String> {
        let status = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "containerID": "pintle://now", "state": state, "lastState": last});
        let pod = json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [status]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        container_id(&PodView { pod: pod.into(), ..PodView::default() }, "c", previous)
    }

    #[test]
    fn the_log_of_the_container_that_is_or_was_is_meant() {
        let ended = |id: &str| json!({"terminated": {"exitCode": 1, "containerID": id}});
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let running = json!({"running": {}});
        let (now, before) = ("pintle://now", "pintle://before");
        let cases = [
            (running.clone(), json!({}), false, Ok("now")),
            (running.clone(), ended(before), false, Ok("now")),
            (running.clone(), ended(before), true, Ok("before")),
            (running, json!({}), true, Err("previous terminated container \"c\" in pod \"p\" not found")),
            (ended(now), json!({}), false, Ok("now")),
            (ended(""), ended(before), false, Ok("before")),
            (ended(""), json!({}), false, Err("container \"c\" in pod \"p\" is terminated")),
            (waiting("CrashLoopBackOff"), ended(before), false, Ok("before")),
            (
                waiting("ContainerCreating"),
                json!({}),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start: ContainerCreating"),
            ),
            (
                waiting("ImagePullBackOff"),
                json!({}),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image"),
            ),
            (
                json!({}),
                json!({}),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start - no logs yet"),
            ),
        ];
        for (state, last, previous, wanted) in cases {
            let wanted = wanted.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(found(state.clone(), last, previous), wanted, "{state}");
        }
        let unknown = container_id(&PodView::default(), "x", false).unwrap_err();
        assert_eq!(unknown, "container \"x\" in pod \"\" is not available");
    }
}

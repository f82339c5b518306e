//! What happens to containers without being asked for.
//!
//! Owns: the task that finds out. CRI-O and containerd from 1.7 on send events; of others all containers are listed
//! each second, as the kubelet does, which is the one place here that looks instead of waiting. A slow list makes sure
//! also where events are sent.

use std::collections::HashMap;
use std::time::Duration;

use grpc::{Client, Code, Options, Status};
use tokio::sync::broadcast;

use super::LIST_TIMEOUT;
use super::messages::{self, container_state, event_type};
use crate::{ContainerEvent, ContainerEventKind};

const GET_CONTAINER_EVENTS: &str = "/runtime.v1.RuntimeService/GetContainerEvents";
const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
const CONTAINER_STATUS: &str = "/runtime.v1.RuntimeService/ContainerStatus";

/// How often containers are listed where no events are sent.
const LIST_PERIOD: Duration = Duration::from_secs(1);

/// How often they are listed all the same.
const RESYNC_PERIOD: Duration = Duration::from_secs(60);

/// After a stream of events broke.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// What is said of containers that were out of memory.
const OUT_OF_MEMORY: &str = "OOMKilled";

/// A container as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    sandbox_id: String,
    state: i32,
}

/// All containers as they were last seen, and what was told of them.
#[derive(Debug, Default)]
struct Watch {
    /// `None` before the first list: what happened before nobody asked for.
    seen: Option<HashMap<String, Seen>>,
}

impl Watch {
    /// What a full list has of news.
    fn list(&mut self, containers: Vec<messages::Container>) -> Vec<ContainerEvent> {
        let now: HashMap<_, _> = containers
            .into_iter()
            .map(|container| {
                (container.id, Seen { sandbox_id: container.pod_sandbox_id, state: container.state })
            })
            .collect();
        let Some(former) = self.seen.replace(now) else { return vec![] };
        let now = self.seen.as_ref().expect("it was put there");
        let changed = now.iter().filter_map(|(id, seen)| {
            news(former.get(id).map(|former| former.state), Some(seen.state))
                .map(|kind| event(id, seen, kind))
        });
        let removed = former
            .iter()
            .filter(|(id, _)| !now.contains_key(*id))
            .filter_map(|(id, seen)| news(Some(seen.state), None).map(|kind| event(id, seen, kind)));
        changed.chain(removed).collect()
    }

    /// What an event has of news: the same may have been listed before.
    fn event(
        &mut self,
        container_id: &str,
        sandbox_id: String,
        state: Option<i32>,
    ) -> Option<ContainerEvent> {
        let seen = self.seen.get_or_insert_default();
        let former = seen.get(container_id).map(|former| former.state);
        let now = Seen { sandbox_id, state: state.unwrap_or(container_state::EXITED) };
        let event = news(former, state).map(|kind| event(container_id, &now, kind));
        match state {
            Some(_) => drop(seen.insert(container_id.to_owned(), now)),
            None => drop(seen.remove(container_id)),
        }
        event
    }
}

fn event(container_id: &str, seen: &Seen, kind: ContainerEventKind) -> ContainerEvent {
    ContainerEvent { sandbox_id: seen.sandbox_id.clone(), container_id: container_id.to_owned(), kind }
}

/// What a change of state is to others; `None` is a container that is not there.
fn news(former: Option<i32>, now: Option<i32>) -> Option<ContainerEventKind> {
    use container_state::{EXITED, RUNNING};
    match (former, now) {
        (former, now) if former == now => None,
        (_, Some(RUNNING)) => Some(ContainerEventKind::Started),
        (_, Some(EXITED)) | (Some(RUNNING), _) => Some(ContainerEventKind::Exited),
        _ => None,
    }
}

/// Tells `events` what happens, until it is dropped.
pub(super) async fn run(client: Client, events: broadcast::Sender<ContainerEvent>) {
    let mut watch = Watch::default();
    let mut served = true;
    loop {
        if served {
            served = follow(&client, &mut watch, &events).await;
        } else {
            list(&client, &mut watch, &events).await;
            rt::sleep(LIST_PERIOD).await;
        }
    }
}

/// Follows one stream of events to its end; false where the runtime sends none.
async fn follow(client: &Client, watch: &mut Watch, events: &broadcast::Sender<ContainerEvent>) -> bool {
    // A runtime answers at the first event only, so that is not waited for.
    let mut stream = None;
    let request = messages::GetEventsRequest {};
    let mut opening = std::pin::pin!(client.server_streaming::<_, messages::ContainerEventResponse>(
        GET_CONTAINER_EVENTS,
        &request,
        Options::default(),
    ));
    let mut lists = rt::interval(RESYNC_PERIOD);
    let ended = loop {
        let next = async {
            if stream.is_none() {
                stream = Some(opening.as_mut().await?);
            }
            let stream = stream.as_mut().expect("it was opened");
            stream.message().await
        };
        tokio::select! {
            message = next => match message {
                Ok(Some(message)) => take(message, watch, events),
                Ok(None) => break Status::new(Code::Unavailable, "it ended"),
                Err(status) => break status,
            },
            _ = lists.tick() => list(client, watch, events).await,
        }
    };
    if ended.code == Code::Unimplemented {
        tracing::info!("The container runtime sends no events; its containers are listed each second");
        return false;
    }
    tracing::debug!(error = %ended, "The container runtime's events ended");
    rt::sleep(RETRY_DELAY).await;
    true
}

fn take(
    message: messages::ContainerEventResponse,
    watch: &mut Watch,
    events: &broadcast::Sender<ContainerEvent>,
) {
    let state = match message.container_event_type {
        event_type::STARTED => Some(container_state::RUNNING),
        event_type::STOPPED => Some(container_state::EXITED),
        event_type::DELETED => None,
        _ => Some(container_state::CREATED),
    };
    let id = message.container_id;
    let sandbox_id = message.pod_sandbox_status.map(|status| status.id).unwrap_or_default();
    // A sandbox is a container too in some runtimes.
    if id == sandbox_id {
        return;
    }
    let out_of_memory =
        message.containers_statuses.iter().any(|status| status.id == id && status.reason == OUT_OF_MEMORY);
    if let Some(event) = watch.event(&id, sandbox_id, state) {
        tell(event, out_of_memory, events);
    }
}

fn tell(event: ContainerEvent, out_of_memory: bool, events: &broadcast::Sender<ContainerEvent>) {
    if out_of_memory && event.kind == ContainerEventKind::Exited {
        let _nobody_listens =
            events.send(ContainerEvent { kind: ContainerEventKind::OutOfMemory, ..event.clone() });
    }
    let _nobody_listens = events.send(event);
}

async fn list(client: &Client, watch: &mut Watch, events: &broadcast::Sender<ContainerEvent>) {
    let options = Options::timeout(LIST_TIMEOUT);
    let request = messages::ListContainersRequest { filter: None };
    let listed =
        client.unary::<_, messages::ListContainersResponse>(LIST_CONTAINERS, &request, options).await;
    let containers = match listed {
        Ok(listed) => listed.containers,
        Err(error) => return tracing::debug!(%error, "Cannot list containers"),
    };
    for event in watch.list(containers) {
        let mut out_of_memory = false;
        if event.kind == ContainerEventKind::Exited {
            let request =
                messages::ContainerStatusRequest { container_id: event.container_id.clone(), verbose: false };
            let status = client
                .unary::<_, messages::ContainerStatusResponse>(CONTAINER_STATUS, &request, options)
                .await;
            out_of_memory =
                status.is_ok_and(|status| status.status.is_some_and(|status| status.reason == OUT_OF_MEMORY));
        }
        tell(event, out_of_memory, events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, state: i32) -> messages::Container {
        messages::Container { id: id.to_owned(), pod_sandbox_id: "s".to_owned(), state }
    }

    fn print(mut events: Vec<ContainerEvent>) -> String {
        events.sort_by(|a, b| a.container_id.cmp(&b.container_id));
        let lines = events
            .iter()
            .map(|event| format!("{}:{}:{:?}", event.sandbox_id, event.container_id, event.kind));
        lines.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_list_tells_what_began_and_what_ended_since_the_last() {
        use container_state::{CREATED, EXITED, RUNNING};
        let mut watch = Watch::default();
        for (containers, expected) in [
            (vec![container("a", RUNNING), container("b", EXITED)], ""),
            (vec![container("a", RUNNING), container("b", EXITED), container("c", CREATED)], ""),
            (vec![container("a", EXITED), container("c", RUNNING)], "s:a:Exited s:c:Started"),
            // One ran and ended between two lists, one was removed while it ran.
            (vec![container("a", EXITED), container("d", EXITED)], "s:c:Exited s:d:Exited"),
            (vec![], ""),
        ] {
            assert_eq!(print(watch.list(containers)), expected);
        }
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        use container_state::{EXITED, RUNNING};
        let mut watch = Watch::default();
        watch.list(vec![]);
        let mut event = |state| print(watch.event("a", "s".to_owned(), state).into_iter().collect());
        assert_eq!(event(Some(RUNNING)), "s:a:Started");
        assert_eq!(event(Some(RUNNING)), "");
        assert_eq!(event(Some(EXITED)), "s:a:Exited");
        assert_eq!(event(None), "");
        assert_eq!(event(Some(RUNNING)), "s:a:Started");
        assert_eq!(print(watch.list(vec![container("a", RUNNING)])), "");
        assert_eq!(print(watch.list(vec![container("a", EXITED)])), "s:a:Exited");
    }
}

//! [`Recorder`]: tells users what a component did to an object, as `v1.Event`s.
//!
//! Owns: correlation (counts, combined events, a limit per object) and a bounded queue to one writing task.
//! Never blocks or fails its caller: events are best effort, upstream's too.

mod correlate;

use std::sync::Arc;

use apimachinery::{Object, Str, Value, json, time};
use futures::StreamExt;
use jiff::Timestamp;
use rt::Shutdown;
use tokio::sync::mpsc;
use tracing::debug;

use crate::{Api, Patch, WriteOptions};
use correlate::{Correlator, Verdict};

/// Occurrences that wait for the writer; more are dropped, as client-go's broadcaster does.
const QUEUE_MAX: usize = 1_000;

/// Events written at the same time.
const WRITES_MAX: usize = 16;

/// `Event.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    Normal,
    Warning,
}

/// `v1.ObjectReference`: what an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reference {
    pub api_version: Str,
    pub kind: Str,
    pub namespace: Str,
    pub name: Str,
    pub uid: Str,
    /// 0 leaves the field out.
    pub revision: u64,
    /// A part of the object, e.g. `spec.containers{web}`; usually empty.
    pub field_path: Str,
}

/// Records events of one component. Cloning shares the queue.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Occurrence>,
}

#[derive(Clone, Debug)]
struct Occurrence {
    regarding: Reference,
    severity: Severity,
    reason: Str,
    message: String,
    at: Timestamp,
}

struct Writer {
    api: Arc<dyn Api>,
    component: Str,
    correlator: Correlator,
}

// === impl Reference ===

impl Reference {
    pub fn of(object: &Object) -> Self {
        Self {
            api_version: object.api_version().into(),
            kind: object.kind().into(),
            namespace: object.namespace().into(),
            name: object.name().into(),
            uid: object.uid().into(),
            revision: object.revision(),
            field_path: Str::default(),
        }
    }

    fn without_revision(&self) -> Self {
        Self { revision: 0, ..self.clone() }
    }

    fn to_value(&self) -> Value {
        let revision = if self.revision > 0 { self.revision.to_string().into() } else { Str::default() };
        [
            ("apiVersion", &self.api_version),
            ("fieldPath", &self.field_path),
            ("kind", &self.kind),
            ("name", &self.name),
            ("namespace", &self.namespace),
            ("resourceVersion", &revision),
            ("uid", &self.uid),
        ]
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(key, text)| (Str::from(key), Value::from(text.clone())))
        .collect()
    }
}

// === impl Recorder ===

impl Recorder {
    /// Starts the writer of a component's events; `component` becomes `source.component`.
    pub fn new(api: Arc<dyn Api>, component: &str, shutdown: Shutdown) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE_MAX);
        let writer = Writer { api, component: component.into(), correlator: Correlator::default() };
        rt::spawn("event-recorder", async move {
            tokio::select! {
                () = writer.run(receiver) => {}
                () = shutdown.cancelled() => {}
            }
        });
        Self { queue }
    }

    /// A recorder without a writer: whatever it is told is dropped. For what has no API to write to.
    pub fn silent() -> Self {
        Self { queue: mpsc::channel(1).0 }
    }

    /// Queues an event with upstream's `reason`; dropped when the queue is full.
    pub fn event(&self, regarding: &Reference, severity: Severity, reason: &str, message: impl Into<String>) {
        let occurrence = Occurrence {
            regarding: regarding.clone(),
            severity,
            reason: reason.into(),
            message: message.into(),
            at: rt::now(),
        };
        if self.queue.try_send(occurrence).is_err() {
            telemetry::metrics().client.events_dropped.inc();
            debug!(name = %regarding.name, reason, "Dropped an event, the queue is full");
        }
    }

    pub fn normal(&self, regarding: &Reference, reason: &str, message: impl Into<String>) {
        self.event(regarding, Severity::Normal, reason, message);
    }

    pub fn warning(&self, regarding: &Reference, reason: &str, message: impl Into<String>) {
        self.event(regarding, Severity::Warning, reason, message);
    }
}

// === impl Writer ===

/// One write of a batch.
enum Write {
    Create { namespace: Str, name: Str, event: Value },
    Repeat { namespace: Str, name: Str, patch: Value },
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Occurrence>) {
        let mut batch = Vec::new();
        while queue.recv_many(&mut batch, QUEUE_MAX).await > 0 {
            let writes = self.correlate(std::mem::take(&mut batch));
            let api = &self.api;
            let gone: Vec<Str> = futures::stream::iter(writes)
                .map(|write| commit(&**api, write))
                .buffer_unordered(WRITES_MAX)
                .filter_map(std::future::ready)
                .collect()
                .await;
            gone.iter().for_each(|name| self.correlator.forget(name));
        }
    }

    /// Distinct writes for a batch: repeats of one event inside it become one patch with the final count.
    fn correlate(&mut self, batch: Vec<Occurrence>) -> Vec<Write> {
        let now = rt::instant();
        let mut writes: Vec<Write> = Vec::with_capacity(batch.len());
        for occurrence in batch {
            match self.correlator.judge(&occurrence, now) {
                Verdict::Drop => {}
                Verdict::Create { message } => {
                    let name = event_name(&occurrence);
                    self.correlator.record(&occurrence, &message, &name, now);
                    let event = self.event(&occurrence, &name, &message);
                    writes.push(Write::Create {
                        namespace: namespace_of(&occurrence),
                        name: name.into(),
                        event,
                    });
                }
                Verdict::Repeat { name, message, count } => {
                    let fields = json!({
                        "count": count, "message": message, "lastTimestamp": time::format_seconds(occurrence.at),
                    });
                    merge_repeat(&mut writes, namespace_of(&occurrence), name, fields);
                }
            }
        }
        writes
    }

    fn event(&self, occurrence: &Occurrence, name: &str, message: &str) -> Value {
        let at = time::format_seconds(occurrence.at);
        let mut event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace_of(occurrence).as_str()},
            "reason": occurrence.reason.as_str(), "message": message,
            "type": match occurrence.severity { Severity::Normal => "Normal", Severity::Warning => "Warning" },
            "source": {"component": self.component.as_str()}, "reportingComponent": self.component.as_str(),
            "reportingInstance": "", "firstTimestamp": at.as_str(), "lastTimestamp": at.as_str(),
            "eventTime": null, "count": 1,
        });
        event.set_at(&["involvedObject"], occurrence.regarding.to_value());
        event
    }
}

/// Writes one event. Returns its name when it turned out to be gone, so that it is made anew next time.
async fn commit(api: &dyn Api, write: Write) -> Option<Str> {
    let options = WriteOptions::default();
    let (name, result) = match write {
        Write::Create { namespace, name, event } => {
            (name, api.create(&api::gvr::EVENTS, &namespace, event, &options).await)
        }
        Write::Repeat { namespace, name, patch } => {
            let patch = Patch::Strategic(patch);
            (name.clone(), api.patch(&api::gvr::EVENTS, &namespace, &name, None, patch, &options).await)
        }
    };
    let status = result.err()?;
    // A namespace that is going away refuses new content; nobody misses the event.
    debug!(%name, error = %status, "Event was not written");
    Some(name)
}

fn merge_repeat(writes: &mut Vec<Write>, namespace: Str, name: Str, fields: Value) {
    for write in writes.iter_mut() {
        match write {
            Write::Create { name: own, event: target, .. }
            | Write::Repeat { name: own, patch: target, .. }
                if *own == name =>
            {
                for (key, field) in fields.as_object().into_iter().flatten() {
                    target.ensure_object().insert(key.clone(), field.clone());
                }
                return;
            }
            _ => {}
        }
    }
    writes.push(Write::Repeat { namespace, name, patch: fields });
}

/// Events about cluster-scoped objects live in `default`.
fn namespace_of(occurrence: &Occurrence) -> Str {
    match occurrence.regarding.namespace.as_str() {
        "" => Str::const_new("default"),
        _ => occurrence.regarding.namespace.clone(),
    }
}

/// `object.hex`: unique as long as no two events about an object fall in one nanosecond.
fn event_name(occurrence: &Occurrence) -> String {
    format!("{}.{:x}", occurrence.regarding.name, occurrence.at.as_nanosecond())
}

#[cfg(test)]
mod tests;

//! The body of a watch: one JSON event a line, as they happen, or frames of protobuf, or items of CBOR.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::protobuf;
use api::table::{self, IncludeObject, MetaVersion, TableOptions};
use apimachinery::object::Form;
use apimachinery::{Object, Status, Value, cbor, json};
use bytes::Bytes;
use futures::Stream;
use registry::{Endpoint, WatchEventKind, WatchStream};

use super::in_flight::Place;
use super::negotiate::{Accepted, Encoding, Shape};
use super::query::WatchOptions;

/// Between two bookmarks of a quiet watch; upstream's is about a minute.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// A watch without `timeoutSeconds` ends after this long plus up to as much again, so that clients spread out.
const TIMEOUT_MIN: Duration = Duration::from_secs(1800);
/// However long a client asks for; a watch is cheap to resume.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Events that are there already are put into one frame up to about this size.
const FRAME_BYTES: usize = 64 << 10;

/// Everything a watch needs to write itself.
pub struct WatchBody {
    endpoint: Endpoint,
    stream: WatchStream,
    encoding: Encoding,
    shape: Shape,
    bookmarks: bool,
    /// Still to be sent after the initial events.
    initial_end: bool,
    in_initial: bool,
    /// Kept while what there was is sent: that is a list, what comes after costs little.
    place: Option<Place>,
    include_object: IncludeObject,
    headers_sent: bool,
    deadline: rt::Instant,
    next_bookmark: rt::Instant,
    shutdown: rt::Shutdown,
    ended: bool,
    sent: Arc<telemetry::Counter>,
}

impl WatchBody {
    pub fn new(
        endpoint: &Endpoint,
        stream: WatchStream,
        options: &WatchOptions,
        accepted: Accepted,
        include_object: IncludeObject,
        shutdown: rt::Shutdown,
    ) -> Self {
        let timeout =
            options.timeout_seconds.map_or_else(|| rt::jittered(TIMEOUT_MIN, 1.0), Duration::from_secs);
        let timeout = timeout.min(TIMEOUT_MAX);
        let now = rt::instant();
        let resource = &endpoint.resource;
        Self {
            endpoint: endpoint.clone(),
            stream,
            encoding: accepted.encoding,
            shape: accepted.shape,
            bookmarks: options.bookmarks,
            initial_end: options.initial_events_end && options.bookmarks,
            in_initial: true,
            place: None,
            include_object,
            headers_sent: false,
            deadline: now + timeout,
            next_bookmark: now + BOOKMARK_INTERVAL,
            shutdown,
            ended: false,
            sent: telemetry::metrics().apiserver.watch_events(
                &resource.group,
                &resource.version,
                &resource.plural,
            ),
        }
    }

    /// Keeps a place among the requests in flight until the initial events are written.
    pub fn beginning_in(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }

    /// Frames of whole events, until the watch ends. `running` counts it until then.
    pub fn into_stream(self, running: telemetry::InFlight) -> Pin<Box<dyn Stream<Item = Bytes> + Send>> {
        Box::pin(futures::stream::unfold((self, running), |(mut body, running)| async move {
            let frame = body.next_frame().await?;
            Some((frame, (body, running)))
        }))
    }

    async fn next_frame(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut frame = Vec::new();
        if self.in_initial {
            self.write_initial(&mut frame);
            if !frame.is_empty() {
                return Some(frame.into());
            }
        }
        // The ends come first: on a busy resource the next event is always there already.
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return None,
            () = rt::sleep_until(self.deadline) => return None,
            next = self.stream.next() => {
                self.write(next, &mut frame);
                self.write_ready(&mut frame);
            }
            () = rt::sleep_until(self.next_bookmark), if self.bookmarks => {
                self.next_bookmark = rt::instant() + BOOKMARK_INTERVAL;
                self.write_bookmark(false, &mut frame);
            }
        }
        Some(frame.into())
    }

    fn write_initial(&mut self, frame: &mut Vec<u8>) {
        while frame.len() < FRAME_BYTES {
            let Some(object) = self.stream.next_initial() else {
                self.in_initial = false;
                self.place = None;
                if std::mem::take(&mut self.initial_end) {
                    self.write_bookmark(true, frame);
                }
                return;
            };
            self.write_event("ADDED", &object, frame);
        }
    }

    /// Adds what else has happened already.
    fn write_ready(&mut self, frame: &mut Vec<u8>) {
        while frame.len() < FRAME_BYTES && !self.ended {
            let Some(next) = self.stream.ready() else { return };
            self.write(next, frame);
        }
    }

    fn write(&mut self, next: Result<registry::WatchEvent, Status>, frame: &mut Vec<u8>) {
        match next {
            Ok(event) => {
                let kind = match event.kind {
                    WatchEventKind::Added => "ADDED",
                    WatchEventKind::Modified => "MODIFIED",
                    WatchEventKind::Deleted => "DELETED",
                };
                self.write_event(kind, &event.object, frame);
            }
            Err(status) => {
                self.ended = true;
                write_tree("ERROR", &status.to_value(), self.encoding, frame);
            }
        }
    }

    fn write_event(&mut self, kind: &str, object: &Object, frame: &mut Vec<u8>) {
        self.sent.inc();
        let (endpoint, shape) = (&self.endpoint, self.shape);
        let definitions = !std::mem::replace(&mut self.headers_sent, true);
        let include = self.include_object;
        let table = |version, out: &mut Vec<u8>| {
            let metadata = json!({ "resourceVersion": object.revision().to_string() });
            let options = TableOptions { version, include, definitions };
            table::write_table(&endpoint.resource, [object], &metadata, rt::now(), options, out);
        };
        if matches!(self.encoding, Encoding::Protobuf | Encoding::Cbor) {
            let tree = match shape {
                Shape::Metadata(version) => table::partial_value(&endpoint.resource, object, version),
                Shape::Table(version) => {
                    let mut written = Vec::new();
                    table(version, &mut written);
                    Value::parse(&written).unwrap_or_default()
                }
                Shape::Object => endpoint.served(object),
            };
            return write_tree(kind, &tree, self.encoding, frame);
        }
        write_line(kind, frame, |frame| match shape {
            Shape::Object if endpoint.needs_conversion() => endpoint.served(object).write_json(frame),
            Shape::Object => object.write(Form::As(&endpoint.resource.type_meta), frame),
            Shape::Metadata(version) => table::write_partial(&endpoint.resource, object, version, frame),
            Shape::Table(version) => table(version, frame),
        });
    }

    fn write_bookmark(&self, initial_end: bool, frame: &mut Vec<u8>) {
        let resource = &self.endpoint.resource;
        let revision = self.stream.progress().to_string();
        let mut metadata = json!({ "resourceVersion": revision });
        if initial_end {
            metadata.set_at(&["annotations", "k8s.io/initial-events-end"], "true");
        }
        let mut object = json!({"apiVersion": resource.api_version(), "kind": resource.kind.as_str()});
        match self.shape {
            Shape::Object => {}
            Shape::Metadata(version) => {
                object = json!({"apiVersion": version.api_version(), "kind": "PartialObjectMetadata"});
            }
            Shape::Table(version) => object = table_bookmark(version, &metadata),
        }
        object.set_at(&["metadata"], metadata);
        write_tree("BOOKMARK", &object, self.encoding, frame);
    }
}

fn table_bookmark(version: MetaVersion, metadata: &Value) -> Value {
    let mut table = json!({"apiVersion": version.api_version(), "kind": "Table", "columnDefinitions": []});
    let mut row = json!({"cells": [], "object": {"apiVersion": version.api_version(), "kind": "PartialObjectMetadata"}});
    row.set_at(&["object", "metadata"], metadata.clone());
    table.set_at(&["rows"], Value::Array(vec![row]));
    table
}

/// Adds an event whose object is a tree. One that has no protobuf ends as an error that the client can read.
pub(super) fn write_tree(kind: &str, object: &Value, encoding: Encoding, frame: &mut Vec<u8>) {
    match encoding {
        Encoding::Protobuf => {}
        Encoding::Cbor => {
            let mut event = json!({ "type": kind });
            event.set_at(&["object"], object.clone());
            return frame.extend_from_slice(&cbor::encode(&event));
        }
        _ => return write_line(kind, frame, |frame| object.write_json(frame)),
    }
    let written = protobuf::watch_frame(kind, object).or_else(|error| {
        let status = Status::internal(error);
        protobuf::watch_frame("ERROR", &status.to_value())
    });
    frame.extend_from_slice(&written.unwrap_or_default());
}

fn write_line(kind: &str, frame: &mut Vec<u8>, object: impl FnOnce(&mut Vec<u8>)) {
    frame.extend_from_slice(b"{\"type\":\"");
    frame.extend_from_slice(kind.as_bytes());
    frame.extend_from_slice(b"\",\"object\":");
    object(frame);
    frame.extend_from_slice(b"}\n");
}

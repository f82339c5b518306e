//! Every metric of the process: its name, labels, buckets, and the field that feeds it.
//!
//! Names, labels and buckets of metrics that Kubernetes' components have are theirs, so that existing dashboards and
//! alerts work; `storage_*` is ours, because upstream has no storage of its own.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::access::AccessMetrics;
use crate::admission::AdmissionMetrics;
use crate::audit::AuditMetrics;
use crate::autoscaler::AutoscalerMetrics;
use crate::flow_control::FlowControlMetrics;
use crate::health::HealthMetrics;
use crate::metric::{Counter, Encoder, Family, Gauge, Histogram, Unit, push_label};
use crate::process;

/// The metrics of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(Metrics::new)
}

/// All metrics, by the component that feeds them.
pub struct Metrics {
    pub apiserver: ApiserverMetrics,
    pub access: AccessMetrics,
    pub admission: AdmissionMetrics,
    pub health: HealthMetrics,
    pub flow_control: FlowControlMetrics,
    pub audit: AuditMetrics,
    pub workqueue: WorkqueueMetrics,
    pub controller: ControllerMetrics,
    pub autoscaler: AutoscalerMetrics,
    pub client: ClientMetrics,
    pub scheduler: SchedulerMetrics,
    pub storage: StorageMetrics,
    pub storage_requests: StorageRequestMetrics,
    features: Family<Gauge, 2>,
    build: OnceLock<String>,
}

/// What the API server does for its clients.
pub struct ApiserverMetrics {
    requests: Family<Counter, 9>,
    durations: Family<Histogram, 8>,
    response_sizes: Family<Histogram, 7>,
    inflight: Family<Gauge, 1>,
    long_running: Family<Gauge, 7>,
    watch_events: Family<Counter, 3>,
    caches: WatchCacheFamilies,
    tls_handshake_errors: Counter,
}

/// One series of each for a resource.
struct WatchCacheFamilies {
    objects: Family<Gauge, 2>,
    size: Family<Gauge, 2>,
    storage_objects: Family<Gauge, 1>,
    revision: Family<Gauge, 2>,
    events_received: Family<Counter, 2>,
    capacity: Family<Gauge, 2>,
    kept_events: Family<Gauge, 2>,
    superseded_bytes: Family<Gauge, 2>,
    terminated_watchers: Family<Counter, 2>,
}

/// The metrics of one resource's watch cache, looked up once.
#[derive(Clone, Debug)]
pub struct WatchCacheHandle {
    objects: Arc<Gauge>,
    size: Arc<Gauge>,
    storage_objects: Arc<Gauge>,
    revision: Arc<Gauge>,
    /// Events that came from the store.
    pub events_received: Arc<Counter>,
    /// Events that are kept at most; the bound of `kept_events`.
    pub capacity: Arc<Gauge>,
    kept_events: Arc<Gauge>,
    superseded_bytes: Arc<Gauge>,
    /// Watchers that fell further behind than events are kept.
    pub terminated_watchers: Arc<Counter>,
}

/// What a request was about; all that upstream's request metrics are labelled with, save the status code.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestLabels<'a> {
    /// In capitals as upstream writes it: `GET`, `LIST`, `WATCH`, `POST`, `PUT`, `PATCH`, `APPLY`, `DELETE`, …
    pub verb: &'a str,
    pub dry_run: bool,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    /// `resource`, `namespace` or `cluster`.
    pub scope: &'a str,
}

/// Work queues, by name.
pub struct WorkqueueMetrics {
    depth: Family<Gauge, 1>,
    adds: Family<Counter, 1>,
    retries: Family<Counter, 1>,
    queue_durations: Family<Histogram, 1>,
    work_durations: Family<Histogram, 1>,
}

/// The metrics of one work queue, looked up once.
#[derive(Clone, Debug)]
pub struct WorkqueueHandle {
    /// Keys waiting.
    pub depth: Arc<Gauge>,
    pub adds: Arc<Counter>,
    pub retries: Arc<Counter>,
    /// From being added to being taken.
    pub queue_duration: Arc<Histogram>,
    /// From being taken to being done.
    pub work_duration: Arc<Histogram>,
}

/// Reconciles, by controller.
pub struct ControllerMetrics {
    reconciles: Family<Counter, 2>,
    panics: Family<Counter, 1>,
    durations: Family<Histogram, 1>,
    workers: Family<Gauge, 1>,
    active_workers: Family<Gauge, 1>,
}

/// The metrics of one controller, looked up once.
#[derive(Clone, Debug)]
pub struct ControllerHandle {
    pub success: Arc<Counter>,
    /// Comes back after a back-off without having failed: somebody else's write was in between.
    pub requeue: Arc<Counter>,
    /// Comes back after a time that the reconcile chose.
    pub requeue_after: Arc<Counter>,
    /// Failed, panics included.
    pub error: Arc<Counter>,
    pub panics: Arc<Counter>,
    pub duration: Arc<Histogram>,
    /// Reconciles that may run at a time.
    pub workers: Arc<Gauge>,
    /// Reconciles that run now.
    pub active_workers: Arc<Gauge>,
}

/// What components lose when they are slower than the cluster changes. Bounded queues make room by dropping.
#[derive(Default)]
pub struct ClientMetrics {
    /// Times that the queue between an informer and a subscriber was full, so that the subscriber reads all anew.
    pub informer_overflows: Counter,
    /// `Event` objects that were not written because their queue was full.
    pub events_dropped: Counter,
}

/// What the scheduler decides and what waits for it.
pub struct SchedulerMetrics {
    attempts: Family<Counter, 2>,
    attempt_durations: Family<Histogram, 2>,
    pending: Family<Gauge, 1>,
    incoming: Family<Counter, 2>,
    goroutines: Family<Gauge, 1>,
}

/// Attempts of one result, looked up once.
#[derive(Clone, Debug)]
pub struct AttemptHandle {
    attempts: Arc<Counter>,
    duration: Arc<Histogram>,
}

/// What the API server asks of the store, by resource. The names are upstream's, whose store is etcd.
pub struct StorageRequestMetrics {
    requests: Family<Counter, 3>,
    durations: Family<Histogram, 3>,
}

/// The embedded store's writer.
pub struct StorageMetrics {
    /// Writes that shared one sync.
    pub batch_writes: Histogram,
    /// Time to make one batch durable.
    pub sync_duration: Histogram,
    /// Time from a write being handed in to its answer.
    pub commit_duration: Histogram,
    /// Commits that wait for the writer.
    pub waiting_commits: Gauge,
    /// Times that the writer had to wait for full journal files to be taken over.
    pub write_stalls: Counter,
    /// Changes that are kept only for readers of the past.
    pub history: Gauge,
    /// Bytes on disk.
    pub size_bytes: Gauge,
    /// The revision of the last write.
    pub revision: Gauge,
}

// Bounds are upstream's; the first two of requests are ours, since most of our answers fall below upstream's first.
const REQUEST_SECONDS: &[f64] = &[
    0.000_5, 0.001, 0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0,
    8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
const RESPONSE_BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const STORAGE_REQUEST_SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
const WORKQUEUE_SECONDS: &[f64] = &[1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0];
const RECONCILE_SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const ATTEMPT_SECONDS: &[f64] = &[
    0.000_01, 0.000_1, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048,
    4.096, 8.192, 16.384,
];
const BATCH_WRITES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
const SYNC_SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024,
];

const RESOURCE_LABELS: [&str; 7] =
    ["verb", "group", "version", "resource", "subresource", "scope", "component"];
const COMPONENT: &str = "apiserver";

impl Metrics {
    fn new() -> Self {
        Self {
            apiserver: ApiserverMetrics::new(),
            access: AccessMetrics::new(),
            admission: AdmissionMetrics::new(),
            health: HealthMetrics::new(),
            flow_control: FlowControlMetrics::new(),
            audit: AuditMetrics::new(),
            workqueue: WorkqueueMetrics::new(),
            controller: ControllerMetrics::new(),
            autoscaler: AutoscalerMetrics::new(),
            client: ClientMetrics::default(),
            scheduler: SchedulerMetrics::new(),
            storage: StorageMetrics::new(),
            storage_requests: StorageRequestMetrics::new(),
            features: Family::new(["name", "stage"], Gauge::default),
            build: OnceLock::new(),
        }
    }

    /// Says of a feature gate whether it is on. `stage` is upstream's word: `ALPHA`, `BETA`, `DEPRECATED`, or nothing.
    pub fn set_feature(&self, name: &str, stage: &str, enabled: bool) {
        self.features.on([name, stage], |gauge| gauge.set(i64::from(enabled)));
    }

    /// Sets the labels of `kubernetes_build_info`; the first call counts.
    pub fn set_build_info(&self, major: &str, minor: &str, git_version: &str, git_commit: &str) {
        let mut labels = String::new();
        for (name, value) in
            [("major", major), ("minor", minor), ("git_version", git_version), ("git_commit", git_commit)]
        {
            push_label(&mut labels, name, value);
        }
        // A second server in one process (tests) is the same build.
        let _ = self.build.set(labels);
    }

    /// Everything in the Prometheus text format; see [`crate::METRICS_CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        self.encoded().finish()
    }

    /// The names of all metrics, also of families that nothing has fed yet and that are therefore not served. For
    /// tests: a name that is never served is one that nothing feeds.
    pub fn names(&self) -> Vec<&'static str> {
        self.encoded().names()
    }

    fn encoded(&self) -> Encoder {
        let mut encoder = Encoder::new();
        self.apiserver.encode(&mut encoder);
        self.access.encode(&mut encoder);
        self.admission.encode(&mut encoder);
        self.flow_control.encode(&mut encoder);
        self.audit.encode(&mut encoder);
        self.workqueue.encode(&mut encoder);
        self.controller.encode(&mut encoder);
        self.autoscaler.encode(&mut encoder);
        self.client.encode(&mut encoder);
        self.scheduler.encode(&mut encoder);
        self.storage.encode(&mut encoder);
        self.storage_requests.encode(&mut encoder);
        encoder.family("kubernetes_feature_enabled", "Whether a feature gate is on.", &self.features);
        if let Some(labels) = self.build.get() {
            let help = "Always 1; the labels say which build serves.";
            encoder.value("kubernetes_build_info", help, "gauge", labels, 1.0);
        }
        process::encode(&mut encoder);
        encoder
    }
}

// === impl ApiserverMetrics ===

impl ApiserverMetrics {
    fn new() -> Self {
        Self {
            requests: Family::new(
                [
                    "verb",
                    "dry_run",
                    "group",
                    "version",
                    "resource",
                    "subresource",
                    "scope",
                    "component",
                    "code",
                ],
                Counter::default,
            ),
            durations: Family::new(
                ["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"],
                || Histogram::new(Unit::Seconds, REQUEST_SECONDS),
            ),
            response_sizes: Family::new(RESOURCE_LABELS, || Histogram::new(Unit::Plain, RESPONSE_BYTES)),
            inflight: Family::new(["request_kind"], Gauge::default),
            long_running: Family::new(RESOURCE_LABELS, Gauge::default),
            watch_events: Family::new(["group", "version", "resource"], Counter::default),
            caches: WatchCacheFamilies::new(),
            tls_handshake_errors: Counter::default(),
        }
    }

    /// Counts a finished request. `elapsed` of a long-running one (a watch) is not recorded, as upstream does;
    /// `response_bytes` is `None` where the length is not known when the answer starts.
    pub fn finished(
        &self,
        labels: &RequestLabels<'_>,
        code: u16,
        elapsed: Duration,
        response_bytes: Option<u64>,
    ) {
        let &RequestLabels { verb, group, version, resource, subresource, scope, .. } = labels;
        let dry_run = if labels.dry_run { "All" } else { "" };
        let code = CodeText::new(code);
        let series = [verb, dry_run, group, version, resource, subresource, scope, COMPONENT, code.as_str()];
        self.requests.on(series, Counter::inc);
        if !matches!(verb, "WATCH" | "CONNECT") {
            let series = [verb, dry_run, group, version, resource, subresource, scope, COMPONENT];
            self.durations.on(series, |durations| durations.observe(elapsed));
        }
        if let Some(bytes) = response_bytes {
            self.response_sizes.on(labels.of_resource(), |sizes| sizes.observe_count(bytes));
        }
    }

    /// Short requests in progress. Keep the gauge and [`Gauge::track`] each.
    pub fn inflight(&self, mutating: bool) -> Arc<Gauge> {
        self.inflight.with([if mutating { "mutating" } else { "readOnly" }])
    }

    /// Watches and other long requests in progress.
    pub fn long_running(&self, labels: &RequestLabels<'_>) -> Arc<Gauge> {
        self.long_running.with(labels.of_resource())
    }

    /// Events sent to watchers of a resource. A watch keeps the counter.
    pub fn watch_events(&self, group: &str, version: &str, resource: &str) -> Arc<Counter> {
        self.watch_events.with([group, version, resource])
    }

    /// The metrics of a resource's watch cache.
    pub fn watch_cache(&self, group: &str, resource: &str) -> WatchCacheHandle {
        self.caches.of(group, resource)
    }

    pub fn tls_handshake_failed(&self) {
        self.tls_handshake_errors.inc();
    }

    fn encode(&self, encoder: &mut Encoder) {
        encoder.family(
            "apiserver_request_total",
            "Requests answered, by what they were about and the status code.",
            &self.requests,
        );
        encoder.family(
            "apiserver_request_duration_seconds",
            "Time to answer a request, watches left out.",
            &self.durations,
        );
        encoder.family(
            "apiserver_response_sizes",
            "Length of response bodies in bytes.",
            &self.response_sizes,
        );
        encoder.family(
            "apiserver_current_inflight_requests",
            "Short requests in progress, by whether they write.",
            &self.inflight,
        );
        encoder.family(
            "apiserver_longrunning_requests",
            "Watches and other long requests in progress.",
            &self.long_running,
        );
        encoder.family("apiserver_watch_events_total", "Events sent to watchers.", &self.watch_events);
        self.caches.encode(encoder);
        encoder.single(
            "apiserver_tls_handshake_errors_total",
            "Connections that did not get through the TLS handshake.",
            &self.tls_handshake_errors,
        );
    }
}

impl WatchCacheFamilies {
    fn new() -> Self {
        const RESOURCE: [&str; 2] = ["group", "resource"];
        Self {
            objects: Family::new(RESOURCE, Gauge::default),
            size: Family::new(RESOURCE, Gauge::default),
            storage_objects: Family::new(["resource"], Gauge::default),
            revision: Family::new(RESOURCE, Gauge::default),
            events_received: Family::new(RESOURCE, Counter::default),
            capacity: Family::new(RESOURCE, Gauge::default),
            kept_events: Family::new(RESOURCE, Gauge::default),
            superseded_bytes: Family::new(RESOURCE, Gauge::default),
            terminated_watchers: Family::new(RESOURCE, Counter::default),
        }
    }

    fn of(&self, group: &str, resource: &str) -> WatchCacheHandle {
        let labels = [group, resource];
        let qualified = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        WatchCacheHandle {
            objects: self.objects.with(labels),
            size: self.size.with(labels),
            storage_objects: self.storage_objects.with([&qualified]),
            revision: self.revision.with(labels),
            events_received: self.events_received.with(labels),
            capacity: self.capacity.with(labels),
            kept_events: self.kept_events.with(labels),
            superseded_bytes: self.superseded_bytes.with(labels),
            terminated_watchers: self.terminated_watchers.with(labels),
        }
    }

    fn encode(&self, encoder: &mut Encoder) {
        encoder.family("apiserver_resource_objects", "Objects stored, by resource.", &self.objects);
        encoder.family(
            "apiserver_resource_size_estimate_bytes",
            "Size of the stored objects in bytes, by resource.",
            &self.size,
        );
        encoder.family(
            "apiserver_storage_objects",
            "As apiserver_resource_objects, under the name and label it had before 1.34.",
            &self.storage_objects,
        );
        encoder.family(
            "apiserver_watch_cache_resource_version",
            "Revision of a resource's last change that the watch cache knows.",
            &self.revision,
        );
        encoder.family(
            "apiserver_watch_cache_events_received_total",
            "Changes that the watch cache got from the store.",
            &self.events_received,
        );
        encoder.family(
            "apiserver_watch_cache_capacity",
            "Events that the watch cache keeps at most.",
            &self.capacity,
        );
        encoder.family(
            "watch_cache_kept_events",
            "Events that watchers may be behind now; grows to apiserver_watch_cache_capacity.",
            &self.kept_events,
        );
        encoder.family(
            "watch_cache_superseded_bytes",
            "Size of old states that only the kept events hold.",
            &self.superseded_bytes,
        );
        encoder.family(
            "apiserver_terminated_watchers_total",
            "Watches ended because they fell too far behind.",
            &self.terminated_watchers,
        );
    }
}

impl WatchCacheHandle {
    /// Says what a cache holds now: objects at a revision, and recent events with the old states they keep alive.
    pub fn holds(&self, objects: usize, bytes: usize, revision: u64, events: usize, superseded_bytes: usize) {
        self.objects.set(gauge_value(objects));
        self.storage_objects.set(gauge_value(objects));
        self.size.set(gauge_value(bytes));
        self.revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
        self.kept_events.set(gauge_value(events));
        self.superseded_bytes.set(gauge_value(superseded_bytes));
    }
}

fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl<'a> RequestLabels<'a> {
    fn of_resource(&self) -> [&'a str; 7] {
        [self.verb, self.group, self.version, self.resource, self.subresource, self.scope, COMPONENT]
    }
}

/// A status code in decimal without allocation.
struct CodeText([u8; 3]);

impl CodeText {
    fn new(code: u16) -> Self {
        let digit = |of: u16| b'0' + (of % 10) as u8;
        Self([digit(code / 100), digit(code / 10), digit(code)])
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits are ASCII")
    }
}

// === impl WorkqueueMetrics ===

impl WorkqueueMetrics {
    fn new() -> Self {
        Self {
            depth: Family::new(["name"], Gauge::default),
            adds: Family::new(["name"], Counter::default),
            retries: Family::new(["name"], Counter::default),
            queue_durations: Family::new(["name"], || Histogram::new(Unit::Seconds, WORKQUEUE_SECONDS)),
            work_durations: Family::new(["name"], || Histogram::new(Unit::Seconds, WORKQUEUE_SECONDS)),
        }
    }

    /// The metrics of the queue with this name.
    pub fn queue(&self, name: &str) -> WorkqueueHandle {
        WorkqueueHandle {
            depth: self.depth.with([name]),
            adds: self.adds.with([name]),
            retries: self.retries.with([name]),
            queue_duration: self.queue_durations.with([name]),
            work_duration: self.work_durations.with([name]),
        }
    }

    fn encode(&self, encoder: &mut Encoder) {
        encoder.family("workqueue_depth", "Keys waiting in a work queue.", &self.depth);
        encoder.family("workqueue_adds_total", "Keys added to a work queue.", &self.adds);
        encoder.family("workqueue_retries_total", "Keys that came back after an error.", &self.retries);
        encoder.family(
            "workqueue_queue_duration_seconds",
            "Time a key waited before it was taken.",
            &self.queue_durations,
        );
        encoder.family("workqueue_work_duration_seconds", "Time a key was worked on.", &self.work_durations);
    }
}

// === impl ControllerMetrics ===

impl ControllerMetrics {
    fn new() -> Self {
        Self {
            reconciles: Family::new(["controller", "result"], Counter::default),
            panics: Family::new(["controller"], Counter::default),
            durations: Family::new(["controller"], || Histogram::new(Unit::Seconds, RECONCILE_SECONDS)),
            workers: Family::new(["controller"], Gauge::default),
            active_workers: Family::new(["controller"], Gauge::default),
        }
    }

    /// The metrics of the controller with this name.
    pub fn of(&self, controller: &str) -> ControllerHandle {
        ControllerHandle {
            success: self.reconciles.with([controller, "success"]),
            requeue: self.reconciles.with([controller, "requeue"]),
            requeue_after: self.reconciles.with([controller, "requeue_after"]),
            error: self.reconciles.with([controller, "error"]),
            panics: self.panics.with([controller]),
            duration: self.durations.with([controller]),
            workers: self.workers.with([controller]),
            active_workers: self.active_workers.with([controller]),
        }
    }

    fn encode(&self, encoder: &mut Encoder) {
        encoder.family(
            "controller_runtime_reconcile_total",
            "Reconciles, by controller and how they ended.",
            &self.reconciles,
        );
        encoder.family(
            "controller_runtime_reconcile_panics_total",
            "Reconciles that panicked.",
            &self.panics,
        );
        encoder.family(
            "controller_runtime_reconcile_time_seconds",
            "Time of one reconcile, by controller.",
            &self.durations,
        );
        encoder.family(
            "controller_runtime_max_concurrent_reconciles",
            "Reconciles that a controller may run at a time.",
            &self.workers,
        );
        encoder.family(
            "controller_runtime_active_workers",
            "Reconciles that a controller runs now.",
            &self.active_workers,
        );
    }
}

// === impl ClientMetrics ===

impl ClientMetrics {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.single(
            "client_informer_overflows_total",
            "Times that a subscriber of an informer fell so far behind that it read all objects anew.",
            &self.informer_overflows,
        );
        encoder.single(
            "client_events_dropped_total",
            "Event objects not written because too many waited.",
            &self.events_dropped,
        );
    }
}

// === impl SchedulerMetrics ===

impl SchedulerMetrics {
    fn new() -> Self {
        Self {
            attempts: Family::new(["result", "profile"], Counter::default),
            attempt_durations: Family::new(["result", "profile"], || {
                Histogram::new(Unit::Seconds, ATTEMPT_SECONDS)
            }),
            pending: Family::new(["queue"], Gauge::default),
            incoming: Family::new(["queue", "event"], Counter::default),
            goroutines: Family::new(["operation"], Gauge::default),
        }
    }

    /// Attempts to place a pod; `result` is `scheduled`, `unschedulable` or `error`, `profile` the scheduler name.
    pub fn attempts(&self, result: &str, profile: &str) -> AttemptHandle {
        AttemptHandle {
            attempts: self.attempts.with([result, profile]),
            duration: self.attempt_durations.with([result, profile]),
        }
    }

    /// Pods waiting in `active`, `backoff`, `unschedulable` or `gated`. The queue keeps the gauge.
    pub fn pending_pods(&self, queue: &str) -> Arc<Gauge> {
        self.pending.with([queue])
    }

    /// Counts pods put into a queue, by the event that moved them there.
    pub fn incoming_pods(&self, queue: &str, event: &str) {
        self.incoming.on([queue, event], Counter::inc);
    }

    /// Writes under way. Upstream's name for it says how it is built there.
    pub fn goroutines(&self, operation: &str) -> Arc<Gauge> {
        self.goroutines.with([operation])
    }

    fn encode(&self, encoder: &mut Encoder) {
        encoder.family(
            "scheduler_schedule_attempts_total",
            "Attempts to place a pod, by result and profile.",
            &self.attempts,
        );
        encoder.family(
            "scheduler_scheduling_attempt_duration_seconds",
            "Time of one attempt to place a pod, binding included.",
            &self.attempt_durations,
        );
        encoder.family("scheduler_pending_pods", "Pods waiting to be placed, by queue.", &self.pending);
        encoder.family(
            "scheduler_queue_incoming_pods_total",
            "Pods added to a scheduling queue, by event.",
            &self.incoming,
        );
        encoder.family(
            "scheduler_goroutines",
            "Bindings and status patches under way, by operation.",
            &self.goroutines,
        );
    }
}

impl AttemptHandle {
    /// Counts one attempt.
    pub fn took(&self, elapsed: Duration) {
        self.attempts.inc();
        self.duration.observe(elapsed);
    }
}

// === impl StorageRequestMetrics ===

impl StorageRequestMetrics {
    fn new() -> Self {
        const LABELS: [&str; 3] = ["operation", "group", "resource"];
        Self {
            requests: Family::new(LABELS, Counter::default),
            durations: Family::new(LABELS, || Histogram::new(Unit::Seconds, STORAGE_REQUEST_SECONDS)),
        }
    }

    /// Counts a request; `operation` is `create`, `update` or `delete`.
    pub fn request(&self, operation: &str, group: &str, resource: &str, elapsed: Duration) {
        let labels = [operation, group, resource];
        self.requests.on(labels, Counter::inc);
        self.durations.on(labels, |durations| durations.observe(elapsed));
    }

    fn encode(&self, encoder: &mut Encoder) {
        encoder.family("etcd_requests_total", "Requests to the store, by resource.", &self.requests);
        encoder.family(
            "etcd_request_duration_seconds",
            "Time of a request to the store, by resource.",
            &self.durations,
        );
    }
}

// === impl StorageMetrics ===

impl StorageMetrics {
    fn new() -> Self {
        Self {
            batch_writes: Histogram::new(Unit::Plain, BATCH_WRITES),
            sync_duration: Histogram::new(Unit::Seconds, SYNC_SECONDS),
            commit_duration: Histogram::new(Unit::Seconds, SYNC_SECONDS),
            waiting_commits: Gauge::default(),
            write_stalls: Counter::default(),
            history: Gauge::default(),
            size_bytes: Gauge::default(),
            revision: Gauge::default(),
        }
    }

    fn encode(&self, encoder: &mut Encoder) {
        encoder.single("storage_commit_batch_writes", "Writes that shared one sync.", &self.batch_writes);
        encoder.single(
            "storage_sync_duration_seconds",
            "Time to make one batch durable.",
            &self.sync_duration,
        );
        encoder.single(
            "storage_commit_duration_seconds",
            "Time from a write being handed in to its answer.",
            &self.commit_duration,
        );
        encoder.single("storage_waiting_commits", "Commits that wait for the writer.", &self.waiting_commits);
        encoder.single(
            "storage_write_stalls_total",
            "Times that commits waited for full journal files to be taken over.",
            &self.write_stalls,
        );
        encoder.single(
            "storage_history_changes",
            "Changes kept only for readers of the past.",
            &self.history,
        );
        encoder.single(
            "apiserver_storage_size_bytes",
            "Size of the store on disk in bytes.",
            &self.size_bytes,
        );
        encoder.single("storage_revision", "Revision of the last write.", &self.revision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AdmissionOperation, MatchConditionLabels, WebhookLabels, WebhookOutcome};

    #[test]
    fn a_request_shows_under_upstreams_names_and_labels() {
        let metrics = Metrics::new();
        let labels = RequestLabels {
            verb: "POST",
            version: "v1",
            resource: "pods",
            scope: "namespace",
            ..RequestLabels::default()
        };
        metrics.apiserver.finished(&labels, 201, Duration::from_millis(3), Some(1234));
        let text = metrics.encode();
        let series = r#"verb="POST",dry_run="",group="",version="v1",resource="pods",subresource="",scope="namespace",component="apiserver""#;
        for line in [
            format!("apiserver_request_total{{{series},code=\"201\"}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{series},le=\"0.001\"}} 0"),
            format!("apiserver_request_duration_seconds_bucket{{{series},le=\"0.005\"}} 1"),
            "# TYPE apiserver_request_total counter".to_owned(),
        ] {
            assert!(text.lines().any(|own| own == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_watch_is_counted_but_not_timed() {
        let metrics = Metrics::new();
        let labels = RequestLabels { verb: "WATCH", resource: "pods", ..RequestLabels::default() };
        metrics.apiserver.finished(&labels, 200, Duration::from_secs(600), None);
        let text = metrics.encode();
        assert!(text.contains("apiserver_request_total{verb=\"WATCH\""), "{text}");
        assert!(!text.contains("apiserver_request_duration_seconds"), "{text}");
    }

    #[test]
    fn a_family_that_nothing_feeds_is_named_and_not_served() {
        let metrics = Metrics::new();
        assert!(metrics.names().contains(&"scheduler_pending_pods"));
        assert!(!metrics.encode().contains("scheduler_pending_pods"));
    }

    #[test]
    fn every_metric_shows_once_it_is_fed_and_every_line_is_well_formed() {
        let metrics = Metrics::new();
        let labels = RequestLabels { verb: "GET", resource: "pods", ..RequestLabels::default() };
        metrics.set_build_info("1", "36", "v1.36.2+pintle", "");
        metrics.apiserver.finished(&labels, 200, Duration::ZERO, Some(1));
        drop(metrics.apiserver.inflight(true).track());
        metrics.apiserver.long_running(&labels).inc();
        metrics.apiserver.watch_events("", "v1", "pods").inc();
        metrics.apiserver.watch_cache("apps", "deployments").holds(3, 700, 9, 5, 100);
        metrics.access.authenticated("jane", Duration::ZERO);
        metrics.access.authorized("allowed", Duration::ZERO);
        metrics.access.decisions("RBAC", "rbac").allowed.inc();
        metrics.set_feature("WatchList", "BETA", true);
        metrics.storage_requests.request("create", "", "pods", Duration::ZERO);
        let metrics: &'static Metrics = Box::leak(Box::new(metrics));
        let create = AdmissionOperation::named("CREATE");
        metrics.admission.step("admit").observe(create, false, Duration::ZERO);
        metrics.admission.plugin("Priority", "admit").observe(create, true, Duration::ZERO);
        let webhook = WebhookLabels { name: "h", kind: "admit", operation: "CREATE" };
        for fails_open in [true, false] {
            let outcome = WebhookOutcome::NotAsked { fails_open };
            metrics.admission.webhook(&webhook, Duration::ZERO, outcome);
        }
        metrics.admission.validated("p", "b", "no_error", "deny", Duration::ZERO);
        metrics.admission.mutated("p", "b", "no_error", Duration::ZERO);
        let conditions =
            MatchConditionLabels { name: "h", kind: "webhook", step: "admit", operation: "CREATE" };
        metrics.admission.conditions_failed(&conditions, Duration::ZERO, 1);
        metrics.admission.conditions_excluded(&conditions);
        metrics.flow_control.flow("global-default", "global-default").not_accommodated.inc();
        metrics.flow_control.limits("global-default", 3, 2, 4);
        metrics.flow_control.current_limit("global-default", 3);
        metrics.flow_control.demand("global-default", 3, 1.5, 0.5, 2.0);
        metrics.flow_control.target("global-default", 2.5);
        metrics.audit.level("Metadata");
        metrics.audit.failed("log");
        metrics.workqueue.queue("deployment").queue_duration.observe(Duration::from_millis(1));
        metrics.controller.of("deployment").duration.observe(Duration::from_millis(1));
        use crate::AutoscalerAction;
        metrics.autoscaler.reconciled(AutoscalerAction::ScaleUp, None, Duration::ZERO);
        metrics.autoscaler.computed(AutoscalerAction::None, Some("internal"), "Resource", Duration::ZERO);
        metrics.autoscaler.desired("ns", "web", 3);
        metrics.scheduler.attempts("scheduled", "default-scheduler").took(Duration::from_millis(1));
        metrics.scheduler.pending_pods("active").set(1);
        metrics.scheduler.incoming_pods("active", "PodAdd");
        metrics.scheduler.goroutines("binding").inc();
        let text = metrics.encode();
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len(), "a name is written once: {names:?}");
        assert_eq!(names, metrics.names(), "every name is served");
        assert!(text.contains("apiserver_storage_objects{resource=\"deployments.apps\"} 3"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
            assert!(value.parse::<f64>().is_ok() && !name.is_empty(), "{line}");
        }
    }
}

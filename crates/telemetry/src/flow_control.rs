//! What API Priority and Fairness does, under upstream's names.

use std::sync::Arc;

use crate::metric::{Counter, Encoder, Family, FloatGauge, Gauge, Histogram, Unit};

/// Requests by priority level and FlowSchema, limits and demand by priority level.
pub struct FlowControlMetrics {
    rejected: Family<Counter, 3>,
    dispatched: Family<Counter, 2>,
    inqueue_requests: Family<Gauge, 2>,
    inqueue_seats: Family<Gauge, 2>,
    queue_lengths: Family<Histogram, 2>,
    executing_requests: Family<Gauge, 2>,
    executing_seats: Family<Gauge, 2>,
    waits: Family<Histogram, 3>,
    executions: Family<Histogram, 3>,
    estimated_seats: Family<Histogram, 2>,
    watch_counts: Family<Histogram, 2>,
    not_accommodated: Family<Counter, 2>,
    nominal_limit: Family<Gauge, 1>,
    lower_limit: Family<Gauge, 1>,
    upper_limit: Family<Gauge, 1>,
    current_limit: Family<Gauge, 1>,
    demand_highest: Family<Gauge, 1>,
    demand_average: Family<FloatGauge, 1>,
    demand_deviation: Family<FloatGauge, 1>,
    demand_smoothed: Family<FloatGauge, 1>,
    target: Family<FloatGauge, 1>,
}

/// The metrics of one FlowSchema and its priority level, looked up once.
#[derive(Clone, Debug)]
pub struct FlowHandle {
    /// Refused because its queue was full.
    pub rejected_queue_full: Arc<Counter>,
    /// Refused because no seat was free and the level has no queues.
    pub rejected_concurrency_limit: Arc<Counter>,
    /// Refused because it waited too long.
    pub rejected_time_out: Arc<Counter>,
    pub dispatched: Arc<Counter>,
    pub executing_requests: Arc<Gauge>,
    pub executing_seats: Arc<Gauge>,
    pub queue_length: Arc<Histogram>,
    /// Time in a queue of what was served then.
    pub wait_executed: Arc<Histogram>,
    /// Time in a queue of what was refused then.
    pub wait_rejected: Arc<Histogram>,
    pub execution_regular: Arc<Histogram>,
    /// Of a watch only how long it took to begin.
    pub execution_watch: Arc<Histogram>,
    pub estimated_seats: Arc<Histogram>,
    /// How many watch what a write changes.
    pub watch_count: Arc<Histogram>,
    /// It was next and found too few free seats.
    pub not_accommodated: Arc<Counter>,
    inqueue_requests: Arc<Gauge>,
    inqueue_seats: Arc<Gauge>,
}

const FLOW: [&str; 2] = ["priority_level", "flow_schema"];
const LEVEL: [&str; 1] = ["priority_level"];
const SECONDS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const LENGTHS: &[f64] = &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const WATCHERS: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0];
const SEATS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];

impl FlowControlMetrics {
    pub(crate) fn new() -> Self {
        let seconds = || Histogram::new(Unit::Seconds, SECONDS);
        Self {
            rejected: Family::new([FLOW[0], FLOW[1], "reason"], Counter::default),
            dispatched: Family::new(FLOW, Counter::default),
            inqueue_requests: Family::new(FLOW, Gauge::default),
            inqueue_seats: Family::new(FLOW, Gauge::default),
            queue_lengths: Family::new(FLOW, || Histogram::new(Unit::Plain, LENGTHS)),
            executing_requests: Family::new(FLOW, Gauge::default),
            executing_seats: Family::new(FLOW, Gauge::default),
            waits: Family::new([FLOW[0], FLOW[1], "execute"], seconds),
            executions: Family::new([FLOW[0], FLOW[1], "type"], seconds),
            estimated_seats: Family::new(FLOW, || Histogram::new(Unit::Plain, SEATS)),
            watch_counts: Family::new(FLOW, || Histogram::new(Unit::Plain, WATCHERS)),
            not_accommodated: Family::new(FLOW, Counter::default),
            nominal_limit: Family::new(LEVEL, Gauge::default),
            lower_limit: Family::new(LEVEL, Gauge::default),
            upper_limit: Family::new(LEVEL, Gauge::default),
            current_limit: Family::new(LEVEL, Gauge::default),
            demand_highest: Family::new(LEVEL, Gauge::default),
            demand_average: Family::new(LEVEL, FloatGauge::default),
            demand_deviation: Family::new(LEVEL, FloatGauge::default),
            demand_smoothed: Family::new(LEVEL, FloatGauge::default),
            target: Family::new(LEVEL, FloatGauge::default),
        }
    }

    /// The metrics of requests of a FlowSchema.
    pub fn flow(&self, level: &str, schema: &str) -> FlowHandle {
        let labels = [level, schema];
        FlowHandle {
            rejected_queue_full: self.rejected.with([level, schema, "queue-full"]),
            rejected_concurrency_limit: self.rejected.with([level, schema, "concurrency-limit"]),
            rejected_time_out: self.rejected.with([level, schema, "time-out"]),
            dispatched: self.dispatched.with(labels),
            executing_requests: self.executing_requests.with(labels),
            executing_seats: self.executing_seats.with(labels),
            queue_length: self.queue_lengths.with(labels),
            wait_executed: self.waits.with([level, schema, "true"]),
            wait_rejected: self.waits.with([level, schema, "false"]),
            execution_regular: self.executions.with([level, schema, "regular"]),
            execution_watch: self.executions.with([level, schema, "watch"]),
            estimated_seats: self.estimated_seats.with(labels),
            watch_count: self.watch_counts.with(labels),
            not_accommodated: self.not_accommodated.with(labels),
            inqueue_requests: self.inqueue_requests.with(labels),
            inqueue_seats: self.inqueue_seats.with(labels),
        }
    }

    /// What the configuration makes of the server's seats.
    pub fn limits(&self, level: &str, nominal: u32, lower: u32, upper: u32) {
        for (family, seats) in
            [(&self.nominal_limit, nominal), (&self.lower_limit, lower), (&self.upper_limit, upper)]
        {
            family.on([level], |gauge| gauge.set(i64::from(seats)));
        }
    }

    /// What the level may use until the next adjustment.
    pub fn current_limit(&self, level: &str, seats: u32) {
        self.current_limit.on([level], |gauge| gauge.set(i64::from(seats)));
    }

    /// What the level needed in the last period.
    pub fn demand(&self, level: &str, highest: u32, average: f64, deviation: f64, smoothed: f64) {
        self.demand_highest.on([level], |gauge| gauge.set(i64::from(highest)));
        self.demand_average.on([level], |gauge| gauge.set(average));
        self.demand_deviation.on([level], |gauge| gauge.set(deviation));
        self.demand_smoothed.on([level], |gauge| gauge.set(smoothed));
    }

    pub fn target(&self, level: &str, seats: f64) {
        self.target.on([level], |gauge| gauge.set(seats));
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder.family(
            "apiserver_flowcontrol_rejected_requests_total",
            "Requests refused, by reason.",
            &self.rejected,
        );
        encoder.family(
            "apiserver_flowcontrol_dispatched_requests_total",
            "Requests served.",
            &self.dispatched,
        );
        encoder.family(
            "apiserver_flowcontrol_current_inqueue_requests",
            "Requests that wait.",
            &self.inqueue_requests,
        );
        encoder.family(
            "apiserver_flowcontrol_current_inqueue_seats",
            "Seats that requests wait for.",
            &self.inqueue_seats,
        );
        encoder.family(
            "apiserver_flowcontrol_request_queue_length_after_enqueue",
            "Length of the queue that a request was put into.",
            &self.queue_lengths,
        );
        encoder.family(
            "apiserver_flowcontrol_current_executing_requests",
            "Requests being served.",
            &self.executing_requests,
        );
        encoder.family(
            "apiserver_flowcontrol_current_executing_seats",
            "Seats of requests being served.",
            &self.executing_seats,
        );
        encoder.family(
            "apiserver_flowcontrol_request_wait_duration_seconds",
            "Time that a request waited, by whether it was served then.",
            &self.waits,
        );
        encoder.family(
            "apiserver_flowcontrol_request_execution_seconds",
            "Time that a request was served; of a watch, that it took to begin.",
            &self.executions,
        );
        encoder.family(
            "apiserver_flowcontrol_work_estimated_seats",
            "Seats that requests were estimated to need.",
            &self.estimated_seats,
        );
        encoder.family(
            "apiserver_flowcontrol_watch_count_samples",
            "Watchers of what a write changes.",
            &self.watch_counts,
        );
        encoder.family(
            "apiserver_flowcontrol_request_dispatch_no_accommodation_total",
            "Times that the next request found too few free seats.",
            &self.not_accommodated,
        );
        self.encode_levels(encoder);
    }

    fn encode_levels(&self, encoder: &mut Encoder) {
        encoder.family(
            "apiserver_flowcontrol_nominal_limit_seats",
            "Seats that a priority level has by configuration.",
            &self.nominal_limit,
        );
        encoder.family(
            "apiserver_flowcontrol_lower_limit_seats",
            "Seats that a priority level keeps when it lends.",
            &self.lower_limit,
        );
        encoder.family(
            "apiserver_flowcontrol_upper_limit_seats",
            "Seats that a priority level may have when it borrows.",
            &self.upper_limit,
        );
        encoder.family(
            "apiserver_flowcontrol_current_limit_seats",
            "Seats that a priority level may use now.",
            &self.current_limit,
        );
        encoder.family(
            "apiserver_flowcontrol_demand_seats_high_watermark",
            "Most seats that a priority level could have used in the last period.",
            &self.demand_highest,
        );
        encoder.family(
            "apiserver_flowcontrol_demand_seats_average",
            "Seats that a priority level could have used on average in the last period.",
            &self.demand_average,
        );
        encoder.family(
            "apiserver_flowcontrol_demand_seats_stdev",
            "Standard deviation of the seats that a priority level could have used.",
            &self.demand_deviation,
        );
        encoder.family(
            "apiserver_flowcontrol_demand_seats_smoothed",
            "Demand as limits are derived from it.",
            &self.demand_smoothed,
        );
        encoder.family(
            "apiserver_flowcontrol_target_seats",
            "Seats that a priority level would get without limits.",
            &self.target,
        );
    }
}

impl FlowHandle {
    /// A request begins to wait for so many seats.
    pub fn waits(&self, seats: u32) {
        self.inqueue_requests.inc();
        self.inqueue_seats.add(i64::from(seats));
    }

    /// It waits no more.
    pub fn waits_no_more(&self, seats: u32) {
        self.inqueue_requests.dec();
        self.inqueue_seats.add(-i64::from(seats));
    }
}

//! Hot path: counters, gauges and histograms on plain atomics, and families of them by label.
//!
//! Counting is one or two relaxed atomic additions. A family finds its series by binary search under a read lock
//! without allocating; who counts the same series often keeps the `Arc` that [`Family::with`] returns.
//!
//! Why not a metrics library? The kept ones write OpenMetrics, which names counters differently from the Prometheus
//! text format that Kubernetes' components serve and its tools read; their histograms take a lock.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;

/// Series in one family. Labels come from descriptors and enums, so only a bug or a flood of custom resources gets
/// here; beyond it observations go to one series whose labels are all `other`.
const SERIES_MAX: usize = 4096;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    pub fn add(&self, delta: i64) {
        self.0.fetch_add(delta, Relaxed);
    }

    pub fn inc(&self) {
        self.add(1);
    }

    pub fn dec(&self) {
        self.add(-1);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }

    /// Counts one up until the returned guard is dropped.
    pub fn track(self: &Arc<Self>) -> InFlight {
        self.inc();
        InFlight(self.clone())
    }
}

/// A number with a fraction that goes up and down.
#[derive(Debug, Default)]
pub struct FloatGauge(AtomicU64);

impl FloatGauge {
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

/// One thing in progress; see [`Gauge::track`].
#[derive(Debug)]
pub struct InFlight(Arc<Gauge>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What a histogram's numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Observed as [`Duration`], shown in seconds.
    Seconds,
    /// Observed and shown as a plain number (bytes, items).
    Plain,
}

impl Unit {
    /// Base units in one shown unit: durations are summed as nanoseconds, so a sum is one atomic addition.
    fn per_shown(self) -> f64 {
        match self {
            Self::Seconds => 1e9,
            Self::Plain => 1.0,
        }
    }
}

/// How often values fell below each of a list of bounds.
#[derive(Debug)]
pub struct Histogram {
    unit: Unit,
    bounds: &'static [f64],
    /// One per bound and one for what is above all of them; not cumulative.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// `bounds` strictly increase and are in shown units.
    pub fn new(unit: Unit, bounds: &'static [f64]) -> Self {
        debug_assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]), "bounds increase");
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { unit, bounds, counts, sum: AtomicU64::new(0) }
    }

    /// For histograms of [`Unit::Seconds`].
    pub fn observe(&self, elapsed: Duration) {
        debug_assert_eq!(self.unit, Unit::Seconds);
        self.record(elapsed.as_secs_f64(), u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
    }

    /// For histograms of [`Unit::Plain`].
    pub fn observe_count(&self, count: u64) {
        debug_assert_eq!(self.unit, Unit::Plain);
        self.record(count as f64, count);
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    fn record(&self, shown: f64, base: u64) {
        let at = self.bounds.partition_point(|&bound| bound < shown);
        self.counts[at].fetch_add(1, Relaxed);
        self.sum.fetch_add(base, Relaxed);
    }
}

/// Label values and the metric they name.
type Series<M, const N: usize> = ([Box<str>; N], Arc<M>);

/// Metrics of one name that differ in label values.
#[derive(Debug)]
pub struct Family<M, const N: usize> {
    names: [&'static str; N],
    make: fn() -> M,
    /// Sorted by label values.
    series: RwLock<Vec<Series<M, N>>>,
}

impl<M, const N: usize> Family<M, N> {
    pub(crate) fn new(names: [&'static str; N], make: fn() -> M) -> Self {
        Self { names, make, series: RwLock::default() }
    }

    /// The series with these label values, made on first use.
    pub fn with(&self, values: [&str; N]) -> Arc<M> {
        {
            let series = self.series.read();
            if let Ok(at) = self.find(&series, &values) {
                return series[at].1.clone();
            }
        }
        let mut series = self.series.write();
        let values = if series.len() < SERIES_MAX { values } else { ["other"; N] };
        match self.find(&series, &values) {
            Ok(at) => series[at].1.clone(),
            Err(at) => {
                let made = Arc::new((self.make)());
                series.insert(at, (values.map(Into::into), made.clone()));
                made
            }
        }
    }

    /// Runs `count` on the series with these label values without taking a share of it.
    pub fn on(&self, values: [&str; N], count: impl FnOnce(&M)) {
        {
            let series = self.series.read();
            if let Ok(at) = self.find(&series, &values) {
                return count(&series[at].1);
            }
        }
        count(&self.with(values));
    }

    fn find(&self, series: &[Series<M, N>], values: &[&str; N]) -> Result<usize, usize> {
        series.binary_search_by(|(own, _)| own.iter().map(|text| &**text).cmp(values.iter().copied()))
    }
}

/// A family of which the usual values of its one label are known, so that they are found without a lock.
#[derive(Debug)]
pub(crate) struct Known<M, const K: usize> {
    family: Family<M, 1>,
    known: [(&'static str, OnceLock<Arc<M>>); K],
}

impl<M, const K: usize> Known<M, K> {
    pub(crate) fn new(name: &'static str, known: [&'static str; K], make: fn() -> M) -> Self {
        Self { family: Family::new([name], make), known: known.map(|value| (value, OnceLock::new())) }
    }

    /// As [`Family::on`]. Hot path.
    pub(crate) fn on(&self, value: &str, count: impl FnOnce(&M)) {
        match self.known.iter().find(|(own, _)| *own == value) {
            Some((_, series)) => count(series.get_or_init(|| self.family.with([value]))),
            None => self.family.on([value], count),
        }
    }

    pub(crate) fn family(&self) -> &Family<M, 1> {
        &self.family
    }
}

// === the Prometheus text format ===

/// Writes metrics in the Prometheus text format, version 0.0.4.
pub(crate) struct Encoder {
    out: String,
    /// Of everything that was offered, also families without a series.
    names: Vec<&'static str>,
}

/// A metric that can write its samples.
pub(crate) trait Samples {
    const TYPE: &'static str;
    fn write_samples(&self, name: &str, labels: &str, out: &mut String);
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { out: String::with_capacity(64 * 1024), names: Vec::new() }
    }

    pub(crate) fn finish(self) -> String {
        self.out
    }

    pub(crate) fn names(self) -> Vec<&'static str> {
        self.names
    }

    pub(crate) fn single<M: Samples>(&mut self, name: &'static str, help: &str, metric: &M) {
        self.names.push(name);
        self.head(name, help, M::TYPE);
        metric.write_samples(name, "", &mut self.out);
    }

    pub(crate) fn family<M: Samples, const N: usize>(
        &mut self,
        name: &'static str,
        help: &str,
        family: &Family<M, N>,
    ) {
        self.names.push(name);
        let series = family.series.read();
        if series.is_empty() {
            return;
        }
        self.head(name, help, M::TYPE);
        for (values, metric) in series.iter() {
            let labels = label_list(&family.names, values);
            metric.write_samples(name, &labels, &mut self.out);
        }
    }

    /// A sample read from elsewhere.
    pub(crate) fn value(&mut self, name: &'static str, help: &str, kind: &str, labels: &str, value: f64) {
        self.names.push(name);
        self.head(name, help, kind);
        sample(&mut self.out, name, "", labels, value);
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }
}

fn label_list<const N: usize>(names: &[&str; N], values: &[Box<str>; N]) -> String {
    let mut list = String::new();
    for (name, value) in names.iter().zip(values) {
        push_label(&mut list, name, value);
    }
    list
}

/// Appends `name="value"`, escaped as the format asks.
pub(crate) fn push_label(list: &mut String, name: &str, value: &str) {
    if !list.is_empty() {
        list.push(',');
    }
    list.push_str(name);
    list.push_str("=\"");
    for letter in value.chars() {
        match letter {
            '\\' => list.push_str("\\\\"),
            '"' => list.push_str("\\\""),
            '\n' => list.push_str("\\n"),
            other => list.push(other),
        }
    }
    list.push('"');
}

fn sample(out: &mut String, name: &str, suffix: &str, labels: &str, value: f64) {
    out.push_str(name);
    out.push_str(suffix);
    if !labels.is_empty() {
        let _ = write!(out, "{{{labels}}}");
    }
    let _ = writeln!(out, " {value}");
}

impl Samples for Counter {
    const TYPE: &'static str = "counter";

    fn write_samples(&self, name: &str, labels: &str, out: &mut String) {
        sample(out, name, "", labels, self.get() as f64);
    }
}

impl Samples for Gauge {
    const TYPE: &'static str = "gauge";

    fn write_samples(&self, name: &str, labels: &str, out: &mut String) {
        sample(out, name, "", labels, self.get() as f64);
    }
}

impl Samples for FloatGauge {
    const TYPE: &'static str = "gauge";

    fn write_samples(&self, name: &str, labels: &str, out: &mut String) {
        sample(out, name, "", labels, self.get());
    }
}

impl Samples for Histogram {
    const TYPE: &'static str = "histogram";

    fn write_samples(&self, name: &str, labels: &str, out: &mut String) {
        let mut below = 0;
        for (at, count) in self.counts.iter().enumerate() {
            below += count.load(Relaxed);
            let bound = self.bounds.get(at).map_or("+Inf".to_owned(), f64::to_string);
            let mut labels = labels.to_owned();
            push_label(&mut labels, "le", &bound);
            sample(out, name, "_bucket", &labels, below as f64);
        }
        sample(out, name, "_sum", labels, self.sum.load(Relaxed) as f64 / self.unit.per_shown());
        // The same number as in the last bucket, also while others count on.
        sample(out, name, "_count", labels, below as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded<M: Samples>(metric: &M) -> String {
        let mut encoder = Encoder::new();
        encoder.single("m", "Help.", metric);
        encoder.finish()
    }

    #[test]
    fn a_histogram_is_cumulative_and_a_value_on_a_bound_belongs_below_it() {
        let histogram = Histogram::new(Unit::Seconds, &[0.1, 1.0]);
        for millis in [50, 100, 101, 1000, 5000] {
            histogram.observe(Duration::from_millis(millis));
        }
        assert_eq!(
            encoded(&histogram),
            "# HELP m Help.\n# TYPE m histogram\nm_bucket{le=\"0.1\"} 2\nm_bucket{le=\"1\"} 4\n\
             m_bucket{le=\"+Inf\"} 5\nm_sum 6.251\nm_count 5\n"
        );
    }

    #[test]
    fn a_family_keeps_one_series_per_label_values_sorted_and_escaped() {
        let family = Family::new(["verb", "resource"], Counter::default);
        family.with(["LIST", "pods"]).inc();
        family.with(["GET", "a\"b\\c\n"]).add(2);
        family.on(["LIST", "pods"], Counter::inc);
        let mut encoder = Encoder::new();
        encoder.family("m", "Help.", &family);
        assert_eq!(
            encoder.finish(),
            "# HELP m Help.\n# TYPE m counter\nm{verb=\"GET\",resource=\"a\\\"b\\\\c\\n\"} 2\n\
             m{verb=\"LIST\",resource=\"pods\"} 2\n"
        );
    }

    #[test]
    fn known_values_are_series_of_their_family_as_others_are() {
        let known = Known::new("result", ["yes", "no"], Counter::default);
        known.on("yes", Counter::inc);
        known.on("yes", Counter::inc);
        known.on("perhaps", Counter::inc);
        let mut encoder = Encoder::new();
        encoder.family("m", "Help.", known.family());
        assert_eq!(
            encoder.finish(),
            "# HELP m Help.\n# TYPE m counter\nm{result=\"perhaps\"} 1\nm{result=\"yes\"} 2\n"
        );
    }

    #[test]
    fn a_family_without_series_is_silent() {
        let mut encoder = Encoder::new();
        encoder.family("m", "Help.", &Family::new(["verb"], Gauge::default));
        assert_eq!(encoder.finish(), "");
    }

    #[test]
    fn beyond_the_limit_observations_share_one_series() {
        let family = Family::new(["name"], Counter::default);
        for number in 0..SERIES_MAX + 10 {
            family.with([&number.to_string()]).inc();
        }
        assert_eq!(family.series.read().len(), SERIES_MAX + 1);
        assert_eq!(family.with(["other"]).get(), 10);
    }

    #[test]
    fn what_is_tracked_counts_until_it_is_dropped() {
        let gauge = Arc::new(Gauge::default());
        let guards = [gauge.track(), gauge.track()];
        assert_eq!(gauge.get(), 2);
        drop(guards);
        assert_eq!(gauge.get(), 0);
    }
}

//! What real nodes measure: their kubelets are asked as metrics-server asks them.
//!
//! Owns: asking ([`run`]), reading the text of `/metrics/resource` ([`Scrape::parse`]), and the two latest readings of
//! each node ([`Measured`]), of which use is the difference. Never touches: how a kubelet is reached (`connect`), nor
//! the objects that are made of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, Quantity, Str};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use registry::Endpoint;

use super::{Usage, is_simulated};
use crate::connect;
use crate::http::proxy::Backends;

/// From one reading of a node to the next: the shortest that metrics-server recommends.
const PERIOD: Duration = Duration::from_secs(15);
/// A kubelet that takes longer is left out this time.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Kubelets that are asked at once.
const SCRAPES_MAX: usize = 16;
/// Readings that are older say nothing of now.
const AGE_MAX: SignedDuration = SignedDuration::from_secs(60);

/// A counter of processor time, and memory, at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Point {
    /// Milliseconds since the epoch.
    at: i64,
    cpu_seconds: f64,
    memory_bytes: f64,
    /// Seconds since the epoch; when the counter was nothing.
    started: Option<f64>,
}

/// Namespace, pod, container.
type ContainerKey = (Str, Str, Str);

/// One answer of a kubelet.
#[derive(Debug, Default, PartialEq)]
struct Scrape {
    node: Point,
    containers: HashMap<ContainerKey, Point>,
}

impl Scrape {
    /// Reads the text form of Prometheus, of which only whole lines count.
    fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for sample in text.lines().filter_map(Sample::parse) {
            let Some(field) = sample.name.strip_prefix("node_") else {
                let Some(field) = sample.name.strip_prefix("container_") else { continue };
                let key = (sample.label("namespace"), sample.label("pod"), sample.label("container"));
                scrape.containers.entry(key).or_default().set(field, &sample);
                continue;
            };
            scrape.node.set(field, &sample);
        }
        scrape
    }
}

impl Point {
    fn set(&mut self, field: &str, sample: &Sample<'_>) {
        match field {
            "cpu_usage_seconds_total" => {
                self.cpu_seconds = sample.value;
                self.at = sample.at.unwrap_or(self.at);
            }
            "memory_working_set_bytes" => self.memory_bytes = sample.value,
            "start_time_seconds" => self.started = Some(sample.value),
            _ => {}
        }
    }

    /// The use from a point to this one; from the start where the counter began anew meanwhile, or was never read.
    fn since(&self, before: Option<&Self>) -> Option<Measurement> {
        let from = before.filter(|before| before.cpu_seconds <= self.cpu_seconds && before.at < self.at);
        let (began, counted) = match (from, self.started) {
            (Some(before), _) => (before.at, before.cpu_seconds),
            (None, Some(started)) => ((started * 1e3) as i64, 0.0),
            (None, None) => return None,
        };
        let window = u64::try_from(self.at - began).ok().filter(|window| *window > 0)?;
        let nanocores = (self.cpu_seconds - counted) / (window as f64 / 1e3) * 1e9;
        Some(Measurement {
            usage: Usage {
                cpu: Quantity::parse(&format!("{}n", nanocores.round() as u64)).ok()?,
                memory: Quantity::parse(&format!("{}Ki", self.memory_bytes as u64 / 1024)).ok()?,
            },
            at: Timestamp::from_millisecond(self.at).ok()?,
            window: Duration::from_millis(window),
        })
    }
}

/// `name{label="value",…} value time`.
struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
    /// Milliseconds since the epoch.
    at: Option<i64>,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (series, rest) = match line.split_once('}') {
            Some((series, rest)) => (series, rest.trim()),
            None => line.split_once(' ')?,
        };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let mut words = rest.split_whitespace();
        let value = words.next()?.parse().ok()?;
        let at = words.next().and_then(|time| time.parse().ok());
        (!name.starts_with('#')).then_some(Self { name, labels, value, at })
    }

    /// Names of objects have nothing in them that would be escaped.
    fn label(&self, name: &str) -> Str {
        let mut pairs = self.labels.split(',').filter_map(|pair| pair.split_once('='));
        let value = pairs.find(|(own, _)| *own == name).map(|(_, value)| value.trim_matches('"'));
        value.unwrap_or_default().into()
    }
}

/// Use over a while.
#[derive(Clone)]
pub struct Measurement {
    pub usage: Usage,
    pub at: Timestamp,
    pub window: Duration,
}

/// The last reading of a node and the one before.
#[derive(Default)]
struct Readings {
    before: Scrape,
    last: Scrape,
}

/// What is known of real nodes.
#[derive(Default)]
pub struct Measured {
    nodes: Mutex<HashMap<Str, Readings>>,
}

impl Measured {
    fn add(&self, node: &str, scrape: Scrape) {
        let mut nodes = self.nodes.lock();
        let readings = nodes.entry(node.into()).or_default();
        // A kubelet answers from the same look at its containers for a while.
        if scrape.node.at != readings.last.node.at {
            readings.before = std::mem::replace(&mut readings.last, scrape);
        }
    }

    fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.nodes.lock().retain(|node, _| is_there(node));
    }

    /// What a node uses as a whole.
    pub fn node(&self, name: &str) -> Option<Measurement> {
        let nodes = self.nodes.lock();
        let readings = nodes.get(name)?;
        let before = (readings.before.node.at > 0).then_some(&readings.before.node);
        readings.last.node.since(before).filter(is_recent)
    }

    /// What a container uses.
    pub fn container(&self, node: &str, namespace: &str, pod: &str, container: &str) -> Option<Measurement> {
        let key = (namespace.into(), pod.into(), container.into());
        let nodes = self.nodes.lock();
        let readings = nodes.get(node)?;
        readings.last.containers.get(&key)?.since(readings.before.containers.get(&key)).filter(is_recent)
    }
}

fn is_recent(measurement: &Measurement) -> bool {
    rt::now().duration_since(measurement.at) < AGE_MAX
}

/// Reads every real node again and again, until `shutdown`.
pub async fn run(measured: Arc<Measured>, nodes: Endpoint, backends: Arc<Backends>, shutdown: rt::Shutdown) {
    let reads = async {
        loop {
            let prefix = nodes.resource.key_prefix("");
            let snapshot = nodes.cache.snapshot();
            let real: Vec<Arc<Object>> = snapshot
                .range(&prefix, None)
                .map(|(_, object)| object.clone())
                .filter(|object| !is_simulated(object))
                .collect();
            drop(snapshot);
            measured.retain(|name| real.iter().any(|node| node.name() == name));
            futures::stream::iter(&real)
                .for_each_concurrent(SCRAPES_MAX, |node| read(&measured, node, &backends))
                .await;
            rt::sleep(PERIOD).await;
        }
    };
    tokio::select! {
        () = reads => {}
        () = shutdown.cancelled() => {}
    }
}

async fn read(measured: &Measured, node: &Object, backends: &Backends) {
    let asked = async {
        let location = connect::kubelet_location(node, backends.options(), "/metrics/resource")?;
        backends.text(&location).await
    };
    match rt::timeout(TIMEOUT, asked).await {
        Ok(Ok(text)) => measured.add(node.name(), Scrape::parse(&text)),
        Ok(Err(status)) => tracing::debug!(node = node.name(), %status, "Read no use of a node"),
        Err(_) => tracing::debug!(node = node.name(), "A node took too long to say what it uses"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP node_cpu_usage_seconds_total [STABLE] Cumulative cpu time\n\
        # TYPE node_cpu_usage_seconds_total counter\n\
        node_cpu_usage_seconds_total 100.5 1700000000000\n\
        node_memory_working_set_bytes 1.048576e+06 1700000000000\n\
        container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 2 1700000000000\n\
        container_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 2048 1700000000000\n\
        container_start_time_seconds{container=\"c\",namespace=\"n\",pod=\"p\"} 1.69999999e+09\n\
        pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 3 1700000000000\n\
        resource_scrape_error 0\nhalf{a=";

    fn key() -> ContainerKey {
        ("n".into(), "p".into(), "c".into())
    }

    #[test]
    fn the_text_of_a_kubelet_is_read() {
        let scrape = Scrape::parse(TEXT);
        let node =
            Point { at: 1_700_000_000_000, cpu_seconds: 100.5, memory_bytes: 1_048_576.0, started: None };
        assert_eq!(scrape.node, node);
        let container = Point {
            at: 1_700_000_000_000,
            cpu_seconds: 2.0,
            memory_bytes: 2048.0,
            started: Some(1_699_999_990.0),
        };
        assert_eq!(scrape.containers, HashMap::from([(key(), container)]));
    }

    #[test]
    fn use_is_the_difference_of_two_readings_or_counts_from_the_start() {
        let point =
            |at: i64, cpu_seconds: f64| Point { at, cpu_seconds, memory_bytes: 4096.0, started: Some(1.0) };
        let said = |last: Point, before: Option<Point>| {
            let measured = last.since(before.as_ref())?;
            Some((
                measured.usage.cpu.to_string(),
                measured.usage.memory.to_string(),
                measured.window.as_millis(),
            ))
        };
        let row = |cpu: &str, window: u128| Some((cpu.to_owned(), "4Ki".to_owned(), window));
        assert_eq!(said(point(20_000, 3.0), Some(point(10_000, 1.0))), row("200m", 10_000));
        assert_eq!(said(point(20_000, 1.9), None), row("100m", 19_000), "from the start");
        assert_eq!(
            said(point(20_000, 1.9), Some(point(10_000, 9.0))),
            row("100m", 19_000),
            "it started again"
        );
        assert_eq!(said(Point { started: None, ..point(20_000, 1.9) }, None), None);
        assert_eq!(said(point(1_000, 0.0), None), None, "no time has passed");
    }

    #[test]
    fn the_same_look_is_read_once_and_old_ones_say_nothing() {
        let measured = Measured::default();
        let now = rt::now().as_millisecond();
        let scrape = |at: i64, cpu_seconds: f64| Scrape {
            node: Point { at, cpu_seconds, memory_bytes: 1024.0, started: None },
            ..Scrape::default()
        };
        measured.add("a", scrape(now - 2_000, 1.0));
        assert!(measured.node("a").is_none(), "there is nothing to compare it with");
        measured.add("a", scrape(now, 2.0));
        measured.add("a", scrape(now, 2.0));
        assert_eq!(measured.node("a").map(|own| own.usage.cpu.to_string()), Some("500m".to_owned()));
        measured.retain(|name| name != "a");
        assert!(measured.node("a").is_none());
        measured.add("b", scrape(now - 90_000, 1.0));
        measured.add("b", scrape(now - 80_000, 2.0));
        assert!(measured.node("b").is_none(), "it is too old");
    }
}

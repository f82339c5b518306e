//! The suite `scheduler`: upstream's `scheduler_perf`, through this server.
//!
//! Measured as upstream measures: API server, store and scheduler together. A harness on the same machine creates all
//! measured pods at once, each with a request of its own, over loopback HTTPS as upstream's does, while a watch tells
//! which are scheduled. Throughput is pods divided by the time from the first create to the last pod seen scheduled;
//! its quantiles are over windows of that time. Nodes are objects that nobody simulates. As in upstream's harness there
//! are no controllers but those of claims, and the admission plugins are off that would need others.
//!
//! [`workloads`] is the table; a row that cannot be set up or does not end is reported with what it reached.

mod batch;
mod cluster;
mod shapes;
mod workloads;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hyper::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::report::Measurement;
use super::scenarios::Folder;
use super::suite::{Measured, Scenario, World};
use batch::{Batch, Request};
use cluster::Cluster;
use workloads::{Goal, Params, RESOURCE_API, Step, Until, Workload};

/// Admission plugins that upstream's harness has off, too: they need controllers, or refuse a bare `priority`.
const NO_PLUGINS: &str = "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition,Priority";
/// Nothing takes pods away because nobody reports for the nodes, or does work that upstream's figures have not in them.
const FEW_CONTROLLERS: &str =
    "--controllers=namespace-controller,garbage-collector-controller,resourceclaim-controller";
/// When for so long nothing was scheduled, nothing will be.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_OF_SMOKE: Duration = Duration::from_secs(10);
/// Upstream's windows are of a second; what takes less than some of these gets shorter ones.
const WINDOW: Duration = Duration::from_secs(1);
const SHORT_WINDOW: Duration = Duration::from_millis(100);
/// What comes so soon after a watch began may have been there before.
const BURST: Duration = Duration::from_millis(20);
/// A configuration by which no pod of these workloads is anybody's business.
const OTHERS_SCHEDULER: &str = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
                                profiles: [{schedulerName: nobody}]\n";

pub(super) fn all() -> Vec<Scenario> {
    let scenario = |workload: &'static Workload| Scenario {
        name: workload.name.to_owned(),
        about: match workload.threshold {
            Some(threshold) => format!("upstream's threshold is {threshold} pods/s"),
            None => "not in upstream's suite".to_owned(),
        },
        run: Box::new(move |world| Box::pin(run(workload, world))),
    };
    workloads::ALL.iter().map(scenario).collect()
}

/// One row, also of a workload that needs what this server has not.
async fn run(workload: &'static Workload, world: World) -> Measured {
    let row = match Run::new(workload, &world).measure().await {
        Ok(throughput) => throughput.row(workload),
        Err(error) => {
            let (value, unit) = match workload.goal {
                Goal::Seconds(_) => (f64::INFINITY, "s"),
                _ => (0.0, "pods/s"),
            };
            Measurement::new(workload.name, value, unit).note(format!("**could not run**: {error:#}"))
        }
    };
    Ok(vec![workload.goal.on(row, workload.threshold)])
}

impl Goal {
    fn on(self, row: Measurement, threshold: Option<f64>) -> Measurement {
        match self {
            Self::Times(times) => row.at_least(threshold.unwrap_or_default() * times),
            Self::PodsPerSecond(rate) => row.at_least(rate),
            Self::Seconds(seconds) => row.at_most(seconds),
        }
    }
}

/// A workload on its way.
struct Run<'a> {
    workload: &'static Workload,
    world: &'a World,
    params: &'a Params,
    patience: Duration,
}

/// What was reached.
struct Throughput {
    wanted: usize,
    /// When each pod was scheduled, since the first was asked for.
    scheduled: Vec<Duration>,
    /// Until all were created; zero where that was before.
    created: Duration,
    /// CPU time of the server meanwhile.
    cpu: Duration,
}

impl<'a> Run<'a> {
    fn new(workload: &'static Workload, world: &'a World) -> Self {
        let params = if world.smoke { &workload.smoke } else { &workload.full };
        let patience = if world.smoke { PATIENCE_OF_SMOKE } else { PATIENCE };
        Self { workload, world, params, patience }
    }

    async fn measure(&self) -> anyhow::Result<Throughput> {
        let folder = Folder::new()?;
        let mut steps = (self.workload.steps)(self.params);
        let last = steps.pop().context("a workload has steps")?;
        let mut cluster = self.start(&folder, &[]).await?;
        for step in steps {
            self.prepare(&mut cluster, step).await?;
        }
        match last {
            Step::Pods { namespace, batch, .. } if self.workload.from_backlog => {
                cluster.stop().await?;
                self.work_off(&folder, &namespace, &batch).await
            }
            Step::Pods { namespace, batch, .. } => {
                let throughput = self.create_and_wait(&mut cluster, &namespace, &batch).await?;
                cluster.stop().await?;
                Ok(throughput)
            }
            Step::Steady { namespace, at_once, batch, duration } => {
                let throughput = self.keep_up(&mut cluster, &namespace, &batch, at_once, duration).await?;
                cluster.stop().await?;
                Ok(throughput)
            }
            _ => bail!("the last step measures nothing"),
        }
    }

    async fn start(&self, folder: &Folder, flags: &[&str]) -> anyhow::Result<Cluster> {
        let flags = [&[NO_PLUGINS, FEW_CONTROLLERS], self.workload.flags, flags].concat();
        Cluster::new(self.world.start_with(folder, 0, &flags).await?).await
    }

    /// A step before the one that is measured.
    async fn prepare(&self, cluster: &mut Cluster, step: Step) -> anyhow::Result<()> {
        match step {
            Step::Create(batch) => cluster.send(&batch).await,
            Step::Pods { batch, until: Until::Created, .. } => cluster.send(&batch).await,
            Step::Pods { namespace, batch, .. } => {
                let patience = self.patience;
                let wanted = cluster.scheduled(&namespace).await?.count() + batch.count as usize;
                cluster.send(&batch).await?;
                let scheduled = cluster.scheduled(&namespace).await?.wait(wanted, patience).await;
                if scheduled < wanted {
                    bail!(
                        "only {scheduled} of {wanted} pods in {namespace} were scheduled, which are to be there first"
                    );
                }
                Ok(())
            }
            Step::Churn { interval, batches, again: false } => {
                let one_of_each = move |tick| batches.iter().flat_map(|batch| batch.requests(tick)).collect();
                cluster.keep_sending(interval, move |tick| Some(one_of_each(tick))).await
            }
            Step::Churn { interval, batches, again: true } => {
                cluster.keep_sending(interval, move |tick| Some(created_or_deleted(&batches, tick))).await
            }
            Step::Delete { namespace, prefix, count, per_second } => {
                let interval = Duration::from_secs(1) / u32::try_from(per_second)?;
                let pod = move |number: u64| format!("/api/v1/namespaces/{namespace}/pods/{prefix}-{number}");
                let delete = move |tick| (tick < count).then(|| vec![Request::delete(pod(tick))]);
                cluster.keep_sending(interval, delete).await
            }
            Step::Steady { .. } => bail!("pods are created over and over only in the end"),
        }
    }

    async fn create_and_wait(
        &self,
        cluster: &mut Cluster,
        namespace: &str,
        batch: &Batch,
    ) -> anyhow::Result<Throughput> {
        let before = cluster.scheduled(namespace).await?.count();
        let wanted = batch.count as usize;
        let cpu_before = cluster.server.cpu()?;
        let started = Instant::now();
        cluster.send(batch).await?;
        let created = started.elapsed();
        let scheduled = cluster.scheduled(namespace).await?;
        scheduled.wait(before + wanted, self.patience).await;
        let times = scheduled.times(before);
        let cpu = cluster.server.cpu()? - cpu_before;
        if times.len() == wanted {
            self.prove(cluster).await?;
        }
        let since = |time: Instant| time.saturating_duration_since(started);
        Ok(Throughput { wanted, scheduled: times.into_iter().map(since).collect(), created, cpu })
    }

    /// The pods are created while a scheduler runs that they do not name. What is measured begins a moment after the
    /// server with theirs is ready, with the pods that are not scheduled by then.
    async fn work_off(&self, folder: &Folder, namespace: &str, batch: &Batch) -> anyhow::Result<Throughput> {
        let file = folder.beside("scheduler.yaml");
        fs::write(&file, OTHERS_SCHEDULER).with_context(|| format!("writing {file}"))?;
        let mut cluster = self.start(folder, &["--scheduler-config", file.as_str()]).await?;
        cluster.send(batch).await?;
        cluster.stop().await?;

        let mut cluster = self.start(folder, &[]).await?;
        let cpu_before = cluster.server.cpu()?;
        let scheduled = cluster.scheduled(namespace).await?;
        let began = Instant::now() + BURST;
        scheduled.wait(batch.count as usize, self.patience).await;
        let times = scheduled.times(0);
        let cpu = cluster.server.cpu()? - cpu_before;
        cluster.stop().await?;
        let later: Vec<_> = times.iter().filter_map(|time| time.checked_duration_since(began)).collect();
        let wanted = batch.count as usize - (times.len() - later.len());
        Ok(Throughput { wanted, scheduled: later, created: Duration::ZERO, cpu })
    }

    /// Makes sure that what was scheduled got what it asked for.
    async fn prove(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let Some(namespace) = self.workload.claims_in else { return Ok(()) };
        let path = format!("{RESOURCE_API}/namespaces/{namespace}/resourceclaims");
        let answer =
            cluster.server.endpoint.connect().await?.get(&path).await?.expect(&path, StatusCode::OK)?;
        let claims: ClaimList = serde_json::from_slice(&answer.body).context("reading claims")?;
        let without = claims.items.iter().filter(|claim| claim.status.allocation.is_none()).count();
        if claims.items.is_empty() || without > 0 {
            bail!(
                "{without} of {} claims have no devices, but their pods were scheduled",
                claims.items.len()
            );
        }
        Ok(())
    }

    async fn keep_up(
        &self,
        cluster: &mut Cluster,
        namespace: &str,
        batch: &Batch,
        at_once: u64,
        duration: Duration,
    ) -> anyhow::Result<Throughput> {
        cluster.scheduled(namespace).await?;
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        let delete = Batch::new(u64::MAX, move |number| {
            vec![Request::delete(format!("{pods}/measured-{number}?gracePeriodSeconds=0"))]
        });
        let cpu_before = cluster.server.cpu()?;
        let started = Instant::now();
        let mut asked = 0;
        while started.elapsed() < duration {
            let numbers = asked..asked + at_once;
            asked = numbers.end;
            cluster.send_some(batch, numbers.clone()).await?;
            let scheduled = cluster.scheduled(namespace).await?.wait(asked as usize, self.patience).await;
            if scheduled < asked as usize {
                break;
            }
            if numbers.start == 0 {
                self.prove(cluster).await?;
            }
            cluster.send_some(&delete, numbers).await?;
        }
        let cpu = cluster.server.cpu()? - cpu_before;
        let since = |time: Instant| time.saturating_duration_since(started);
        let times = cluster.scheduled(namespace).await?.times(0).into_iter().map(since).collect();
        Ok(Throughput { wanted: asked as usize, scheduled: times, created: Duration::ZERO, cpu })
    }
}

#[derive(Deserialize)]
struct ClaimList {
    items: Vec<Claim>,
}

#[derive(Deserialize)]
struct Claim {
    #[serde(default)]
    status: ClaimStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ClaimStatus {
    allocation: Option<IgnoredAny>,
}

/// One of each batch, created and deleted in turn.
fn created_or_deleted(batches: &[Batch], tick: u64) -> Vec<Request> {
    let (number, creates) = (tick / 2, tick.is_multiple_of(2));
    let create = batches.iter().flat_map(|batch| batch.requests(number));
    if creates { create.collect() } else { create.map(|request| request.undone()).collect() }
}

impl Throughput {
    fn elapsed(&self) -> Duration {
        self.scheduled.last().copied().unwrap_or_default()
    }

    fn per_second(&self) -> f64 {
        let seconds = self.elapsed().as_secs_f64();
        if seconds > 0.0 { self.scheduled.len() as f64 / seconds } else { 0.0 }
    }

    fn row(&self, workload: &Workload) -> Measurement {
        let elapsed = self.elapsed().as_secs_f64();
        let mut row = match workload.goal {
            Goal::Seconds(_) => Measurement::new(workload.name, elapsed, "s"),
            _ => Measurement::new(workload.name, self.per_second(), "pods/s"),
        };
        if self.scheduled.len() < self.wanted {
            // What is never reached is no time.
            if matches!(workload.goal, Goal::Seconds(_)) {
                row = Measurement::new(workload.name, f64::INFINITY, "s");
            }
            return row.note(format!(
                "**did not end**: {} of {} scheduled",
                self.scheduled.len(),
                self.wanted
            ));
        }
        row.note(self.note(workload.threshold))
    }

    fn note(&self, threshold: Option<f64>) -> String {
        let mut parts = Vec::new();
        if let Some(threshold) = threshold {
            parts.push(format!("{:.1} × the threshold of {threshold}", self.per_second() / threshold));
        }
        let window = self.window();
        let rates = self.rates(window);
        let at = |quantile: f64| quantile_of(&rates, quantile);
        parts.push(format!(
            "p50 {:.0}, p90 {:.0}, p99 {:.0} in windows of {:.1} s",
            at(0.5),
            at(0.9),
            at(0.99),
            window.as_secs_f64()
        ));
        parts.push(format!("{} pods in {:.2} s", self.scheduled.len(), self.elapsed().as_secs_f64()));
        if !self.created.is_zero() {
            parts.push(format!("created within {:.2} s", self.created.as_secs_f64()));
        }
        let each = self.cpu.as_secs_f64() * 1e3 / self.scheduled.len().max(1) as f64;
        parts.push(format!("server CPU {each:.3} ms each"));
        parts.join("; ")
    }

    fn window(&self) -> Duration {
        if self.elapsed() > 5 * WINDOW { WINDOW } else { SHORT_WINDOW }
    }

    /// Pods a second in each window, sorted; the last is as long as what is left of the time.
    fn rates(&self, window: Duration) -> Vec<f64> {
        let mut rates = Vec::new();
        let (mut rest, mut begin) = (self.scheduled.as_slice(), Duration::ZERO);
        while !rest.is_empty() {
            let end = (begin + window).min(self.elapsed());
            let count = rest.partition_point(|time| *time <= end);
            if let Some(length) = end.checked_sub(begin).filter(|length| !length.is_zero()) {
                rates.push(count as f64 / length.as_secs_f64());
            }
            rest = &rest[count..];
            begin = end;
        }
        rates.sort_unstable_by(f64::total_cmp);
        rates
    }
}

/// The value that this share of sorted values does not exceed; zero when there are none.
fn quantile_of(sorted: &[f64], quantile: f64) -> f64 {
    let rank = (sorted.len() as f64 * quantile).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throughput(millis: &[u64], wanted: usize) -> Throughput {
        let scheduled = millis.iter().copied().map(Duration::from_millis).collect();
        Throughput { wanted, scheduled, created: Duration::ZERO, cpu: Duration::ZERO }
    }

    #[test]
    fn throughput_is_over_the_whole_time_and_its_quantiles_over_windows() {
        // Nothing for two windows, then three in one, then one in half of one.
        let reached = throughput(&[210, 220, 230, 350], 4);
        assert_eq!(reached.per_second().round(), 11.0);
        let rates: Vec<_> = reached.rates(SHORT_WINDOW).into_iter().map(f64::round).collect();
        assert_eq!(rates, [0.0, 0.0, 20.0, 30.0]);
        assert_eq!(quantile_of(&[], 0.5), 0.0);
    }

    #[test]
    fn what_did_not_end_is_said_with_what_it_reached() {
        let row = throughput(&[500], 2).row(&workloads::ALL[0]);
        assert_eq!((row.value, row.note.as_str()), (2.0, "**did not end**: 1 of 2 scheduled"));
        let gang =
            workloads::ALL.iter().find(|row| matches!(row.goal, Goal::Seconds(_))).expect("there is one");
        assert!(throughput(&[500], 2).row(gang).value.is_infinite(), "half a gang has no time");
        assert_eq!(throughput(&[500], 1).row(gang).value, 0.5);
    }
}

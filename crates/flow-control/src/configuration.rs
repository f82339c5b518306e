//! The configuration in force: FlowSchemas in the order they are tried, priority levels with their limits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use auth::Attributes;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rt::Instant;
use serde::Deserialize;
use tokio::sync::Notify;

use crate::allocation::{self, Claim};
use crate::defaults;
use crate::demand::Smoothed;
use crate::level::{EXEMPT, Level, Rejected, Seats, Told};
use crate::queues::{Settings, Shown};
use crate::schema;
use crate::width::Width;

/// Limits follow the demand this often while somebody waits; upstream's period.
const ADJUSTMENT_PERIOD: Duration = Duration::from_secs(10);
/// No request takes more of its level than this fraction of the nominal seats.
const WIDEST: f64 = 0.15;

/// What an administrator may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Seats of all levels together: upstream's two limits on requests in flight, added.
    pub seats: u32,
    /// How long a request may wait for its turn.
    pub wait_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { seats: 600, wait_max: Duration::from_secs(15) }
    }
}

/// Decides about every request. Cheap to ask, and fed from outside with the stored configuration.
#[derive(Debug)]
pub struct FlowControl {
    options: Options,
    current: RwLock<Arc<Configuration>>,
    /// One change at a time.
    changing: Mutex<Changing>,
    contended: Arc<Notify>,
    drained: Arc<Notify>,
}

#[derive(Debug)]
struct Changing {
    /// Since when demand is gathered.
    period_began: Instant,
    smoothed: BTreeMap<Arc<str>, Smoothed>,
}

#[derive(Debug, Default)]
pub(crate) struct Configuration {
    /// In the order they are tried.
    schemas: Vec<Arc<Schema>>,
    pub levels: BTreeMap<Arc<str>, ActiveLevel>,
}

/// A priority level and what its configuration makes of the server's seats.
#[derive(Clone, Debug)]
pub(crate) struct ActiveLevel {
    pub level: Arc<Level>,
    spec: LevelSpec,
    /// It is no longer configured, and drains.
    pub quiescing: bool,
    nominal: u32,
    lowest: u32,
    highest: u32,
}

/// A FlowSchema that refers to a level that is there.
#[derive(Debug)]
pub(crate) struct Schema {
    pub name: Arc<str>,
    uid: Bytes,
    level_uid: Bytes,
    spec: schema::Spec,
    pub level: Arc<Level>,
    seats_max: u32,
    pub metrics: telemetry::FlowHandle,
}

/// Whether the level that a FlowSchema refers to is missing, as its condition `Dangling` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dangling {
    pub schema: String,
    pub level: String,
    pub is_dangling: bool,
}

/// `spec` of a PriorityLevelConfiguration.
#[derive(Clone, Debug, Deserialize)]
struct LevelSpec {
    #[serde(rename = "type")]
    kind: LevelKind,
    limited: Option<Limited>,
    exempt: Option<Exempt>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
enum LevelKind {
    Limited,
    Exempt,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Limited {
    nominal_concurrency_shares: Option<u32>,
    lendable_percent: Option<u32>,
    borrowing_limit_percent: Option<u32>,
    limit_response: LimitResponse,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exempt {
    nominal_concurrency_shares: Option<u32>,
    lendable_percent: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
struct LimitResponse {
    queuing: Option<Queuing>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Queuing {
    queues: usize,
    hand_size: usize,
    queue_length_limit: usize,
}

/// An object of either kind, as far as it is read here.
#[derive(Deserialize)]
struct Stored<S> {
    metadata: Metadata,
    spec: S,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    uid: String,
}

/// Shares of a level whose configuration names none.
const DEFAULT_SHARES: u32 = 30;

impl LevelSpec {
    fn shares(&self) -> u32 {
        match (&self.limited, &self.exempt) {
            (Some(limited), _) => limited.nominal_concurrency_shares.unwrap_or(DEFAULT_SHARES),
            (None, exempt) => {
                exempt.as_ref().and_then(|exempt| exempt.nominal_concurrency_shares).unwrap_or(0)
            }
        }
    }

    fn lendable_percent(&self) -> u32 {
        let exempt = || self.exempt.as_ref().and_then(|exempt| exempt.lendable_percent);
        self.limited.as_ref().map_or_else(exempt, |limited| limited.lendable_percent).unwrap_or(0)
    }

    fn queuing(&self) -> Option<&Queuing> {
        self.limited.as_ref()?.limit_response.queuing.as_ref()
    }

    fn settings(&self) -> Settings {
        self.queuing().map_or(Settings { queues: 0, hand_size: 0, length_max: 0 }, |queuing| Settings {
            queues: queuing.queues,
            hand_size: queuing.hand_size,
            length_max: queuing.queue_length_limit,
        })
    }
}

impl FlowControl {
    /// With the mandatory configuration, until the stored one is given.
    pub fn new(options: Options) -> Self {
        let changing = Changing { period_began: rt::instant(), smoothed: BTreeMap::new() };
        let control = Self {
            options,
            current: RwLock::default(),
            changing: Mutex::new(changing),
            contended: Arc::new(Notify::new()),
            drained: Arc::new(Notify::new()),
        };
        control.configure::<&[u8]>([], []);
        control
    }

    pub(crate) fn current(&self) -> Arc<Configuration> {
        self.current.read().clone()
    }

    /// Seats for a request. `width` says how many, given the most that the level allows to one request.
    pub async fn admit(
        &self,
        request: &Attributes<'_>,
        width: impl FnOnce(u32) -> Width,
    ) -> (Classified, Result<Seats, Rejected>) {
        let schema = self.current.read().classify(request);
        let shown = || {
            let distinguisher = schema.spec.distinguisher_method.map_or("", |method| method.of(request));
            (hash(&schema.name, distinguisher), shown(&schema.name, distinguisher, request))
        };
        let is_watch = request.verb == "watch";
        let width = width(schema.seats_max);
        let outcome = schema.level.admit(&schema, width, is_watch, shown, self.options.wait_max).await;
        let (schema, level) = (schema.uid.clone(), schema.level_uid.clone());
        (Classified { schema, level }, outcome)
    }

    /// Takes the stored objects as the new configuration, as JSON. What cannot be used is left out; what must be there
    /// is added. Answers which schemas refer to nothing.
    pub fn configure<J: AsRef<[u8]>>(
        &self,
        levels: impl IntoIterator<Item = J>,
        schemas: impl IntoIterator<Item = J>,
    ) -> Vec<Dangling> {
        let mut changing = self.changing.lock();
        let before = self.current();
        let (levels, uids) = self.level_changes(&before, levels);
        let levels = self.with_limits(levels);
        let mut schemas: Vec<Stored<schema::Spec>> = schemas.into_iter().filter_map(read).collect();
        let dangling = schemas.iter().map(|schema| schema.dangling(&levels)).collect();
        for mandatory in defaults::mandatory_schemas() {
            let name = mandatory.str_at(&["metadata", "name"]).to_owned();
            if !schemas.iter().any(|schema| schema.metadata.name == name) {
                schemas.extend(read(mandatory.to_json()));
            }
        }
        schemas.sort_by(|a, b| a.place().cmp(&b.place()));
        let active = |schema| Schema::new(schema, &levels, &uids).map(Arc::new);
        let schemas = schemas.into_iter().filter_map(active).collect();
        let next = Arc::new(Configuration { schemas, levels });
        for (name, level) in &next.levels {
            telemetry::metrics().flow_control.limits(name, level.nominal, level.lowest, level.highest);
        }
        self.adjust(&mut changing, &next, Duration::ZERO);
        *self.current.write() = next;
        dangling
    }

    /// The configured levels, those that still drain, and the mandatory ones.
    fn level_changes<J: AsRef<[u8]>>(
        &self,
        before: &Configuration,
        stored: impl IntoIterator<Item = J>,
    ) -> (BTreeMap<Arc<str>, ActiveLevel>, BTreeMap<Arc<str>, Bytes>) {
        let mut wanted: Vec<Stored<LevelSpec>> = stored.into_iter().filter_map(read).collect();
        for mandatory in defaults::mandatory_levels() {
            let name = mandatory.str_at(&["metadata", "name"]);
            if !wanted.iter().any(|level| level.metadata.name == name) {
                wanted.extend(read(mandatory.to_json()));
            }
        }
        let mut levels = BTreeMap::new();
        let mut uids = BTreeMap::new();
        for Stored { metadata, spec } in wanted {
            let name: Arc<str> = metadata.name.into();
            let level = match before.levels.get(&name) {
                Some(known) => {
                    known.level.configure(spec.settings());
                    known.level.clone()
                }
                None => {
                    let limit = if spec.kind == LevelKind::Exempt { EXEMPT } else { 0 };
                    let told = Told { contended: self.contended.clone(), drained: self.drained.clone() };
                    Arc::new(Level::new(&name, limit, spec.settings(), told))
                }
            };
            uids.insert(name.clone(), Bytes::from(metadata.uid));
            let active = ActiveLevel { level, spec, quiescing: false, nominal: 0, lowest: 0, highest: 0 };
            levels.insert(name, active);
        }
        for (name, known) in &before.levels {
            if levels.contains_key(name) {
                continue;
            }
            known.level.quiesce();
            if !known.level.is_idle() {
                levels.insert(name.clone(), ActiveLevel { quiescing: true, ..known.clone() });
            }
        }
        (levels, uids)
    }

    fn with_limits(&self, mut levels: BTreeMap<Arc<str>, ActiveLevel>) -> BTreeMap<Arc<str>, ActiveLevel> {
        let shares: f64 = levels.values().map(|level| f64::from(level.spec.shares())).sum();
        let seats = f64::from(self.options.seats);
        for level in levels.values_mut() {
            let nominal = (seats * f64::from(level.spec.shares()) / shares.max(1.0)).ceil();
            let percent = |percent: u32| (nominal * f64::from(percent) / 100.0).round();
            let borrowing = level.spec.limited.as_ref().and_then(|limited| limited.borrowing_limit_percent);
            level.nominal = nominal as u32;
            level.lowest = (nominal - percent(level.spec.lendable_percent())) as u32;
            level.highest = (nominal + borrowing.map_or(seats, percent)) as u32;
        }
        levels
    }

    /// Waits until a priority level that is no longer configured has served its last request. It keeps its share of the
    /// seats until the next [`FlowControl::configure`].
    pub async fn drained(&self) {
        self.drained.notified().await;
    }

    /// Lets limits follow the demand while there is contention. Ends with `shutdown`.
    pub async fn run(&self, shutdown: rt::Shutdown) {
        while shutdown.run_until_cancelled(self.contended.notified()).await.is_some() {
            loop {
                let contended = self.adjust_now();
                let period = rt::sleep(ADJUSTMENT_PERIOD);
                if shutdown.run_until_cancelled(period).await.is_none() || !contended {
                    break;
                }
            }
        }
    }

    /// One adjustment; says whether anybody waits.
    fn adjust_now(&self) -> bool {
        let mut changing = self.changing.lock();
        let current = self.current();
        let period = changing.period_began.elapsed();
        self.adjust(&mut changing, &current, period);
        current.levels.values().any(|level| level.level.state().waiting > 0)
    }

    /// Divides the seats between levels by what each needs and may have. Without a `period`, by what was known.
    fn adjust(&self, changing: &mut Changing, configuration: &Configuration, period: Duration) {
        let metrics = &telemetry::metrics().flow_control;
        let mut claims = Vec::new();
        let mut seats = configuration.levels.values().map(|level| level.nominal).sum::<u32>();
        changing.smoothed.retain(|name, _| configuration.levels.contains_key(name));
        for (name, active) in &configuration.levels {
            let smoothed = changing.smoothed.entry(name.clone()).or_default();
            if !period.is_zero() {
                smoothed.update(active.level.demand.take(period, active.level.wanted()));
            }
            let (highest, value) = (smoothed.last.highest, smoothed.value);
            if active.spec.kind == LevelKind::Exempt {
                seats = seats.saturating_sub(active.lowest.max(highest));
                metrics.demand(name, highest, smoothed.last.average, smoothed.last.deviation, value);
                continue;
            }
            let lowest = f64::from(active.lowest.max(active.nominal.min(highest)));
            let claim = Claim { lowest, highest: f64::from(active.highest), target: value.max(lowest) };
            metrics.demand(name, highest, smoothed.last.average, smoothed.last.deviation, value);
            metrics.target(name, claim.target);
            claims.push((active, claim));
        }
        if !period.is_zero() {
            changing.period_began = rt::instant();
        }
        let kept: f64 = claims.iter().map(|(_, claim)| claim.lowest).sum();
        let is_tight = kept > f64::from(seats);
        let bounds: Vec<Claim> = claims
            .iter()
            .map(|(active, claim)| match is_tight {
                // Exempt requests took so much that not everyone can keep what they need.
                true => {
                    Claim { lowest: f64::from(active.lowest), highest: claim.lowest, target: claim.lowest }
                }
                false => *claim,
            })
            .collect();
        let shares = allocation::divide(f64::from(seats), &bounds);
        for ((active, _), share) in claims.iter().zip(shares) {
            let limit = share.round() as u32;
            metrics.current_limit(&active.level.name, limit);
            active.level.set_limit(limit);
        }
    }
}

impl Configuration {
    /// The first schema that matches. The mandatory catch-all is always there and matches everybody.
    fn classify(&self, request: &Attributes<'_>) -> Arc<Schema> {
        let found = self.schemas.iter().find(|schema| schema.spec.matches(request));
        let found = found.or_else(|| self.schemas.iter().find(|schema| &*schema.name == defaults::CATCH_ALL));
        found.or(self.schemas.last()).cloned().expect("the mandatory schemas are always there")
    }
}

/// What a request was classified as: the uids that its answer names.
#[derive(Clone, Debug)]
pub struct Classified {
    pub schema: Bytes,
    pub level: Bytes,
}

impl Stored<schema::Spec> {
    /// Schemas are tried by precedence, then by name.
    fn place(&self) -> (i32, &str) {
        (self.spec.matching_precedence, &self.metadata.name)
    }

    fn dangling(&self, levels: &BTreeMap<Arc<str>, ActiveLevel>) -> Dangling {
        let level = &self.spec.priority_level_configuration.name;
        let is_dangling = levels.get(level.as_str()).is_none_or(|level| level.quiescing);
        Dangling { schema: self.metadata.name.clone(), level: level.clone(), is_dangling }
    }
}

impl Schema {
    fn new(
        stored: Stored<schema::Spec>,
        levels: &BTreeMap<Arc<str>, ActiveLevel>,
        level_uids: &BTreeMap<Arc<str>, Bytes>,
    ) -> Option<Self> {
        let Stored { metadata, spec } = stored;
        let active =
            levels.get(spec.priority_level_configuration.name.as_str()).filter(|level| !level.quiescing)?;
        let level = active.level.clone();
        let name: Arc<str> = metadata.name.into();
        Some(Self {
            metrics: telemetry::metrics().flow_control.flow(&level.name, &name),
            seats_max: active.spec.queuing().map_or(0, |queuing| widest(active.nominal, queuing.hand_size)),
            level_uid: level_uids.get(&level.name).cloned().unwrap_or_default(),
            uid: metadata.uid.into(),
            name,
            spec,
            level,
        })
    }
}

/// The most seats that one request may take of a level.
fn widest(nominal: u32, hand_size: usize) -> u32 {
    let fraction = (f64::from(nominal) * WIDEST).ceil() as u32;
    fraction.min(nominal / (hand_size as u32).max(1)).max(1)
}

/// An object that cannot be read is as if it were not there.
fn read<S: serde::de::DeserializeOwned>(json: impl AsRef<[u8]>) -> Option<Stored<S>> {
    serde_json::from_slice(json.as_ref())
        .inspect_err(|error| tracing::warn!(%error, "Left out an object of flow control that cannot be used"))
        .ok()
}

/// What deals a flow its queues.
fn hash(schema: &str, distinguisher: &str) -> u64 {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in [schema.as_bytes(), &[0], distinguisher.as_bytes()] {
        context.update(part);
    }
    let digest = context.finish();
    digest.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn shown(schema: &Arc<str>, distinguisher: &str, request: &Attributes<'_>) -> Shown {
    let version = [request.api_group, request.api_version];
    Shown {
        schema: schema.clone(),
        distinguisher: distinguisher.to_owned(),
        arrived: rt::now().into(),
        user: request.user.name().to_owned(),
        verb: request.verb.to_owned(),
        path: request.path.to_owned(),
        namespace: request.namespace.to_owned(),
        name: request.name.to_owned(),
        api_version: if version[0].is_empty() { version[1].to_owned() } else { version.join("/") },
        resource: request.resource.to_owned(),
        subresource: request.subresource.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use auth::UserInfo;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_calm_does_not_count_as_demand() {
        let control = FlowControl::new(Options::default());
        let jane = UserInfo::new("jane");
        let request = Attributes::resource(&jane, "get", "pods");
        let held = control.admit(&request, |_| Width::ONE).await.1;
        // Ten times as long as limits are adjusted while somebody waits; nobody does.
        rt::sleep(10 * ADJUSTMENT_PERIOD).await;
        drop(held);
        control.adjust_now();
        let average = control.changing.lock().smoothed[defaults::CATCH_ALL].last.average;
        assert!((average - 1.0).abs() < 1e-3, "one seat was needed all the time, not {average}");
    }

    #[test]
    fn shares_may_be_as_many_as_their_type_allows() {
        let control = FlowControl::new(Options { seats: 600, wait_max: Duration::from_secs(15) });
        let level = |name: &str| {
            let limited = apimachinery::json!({"nominalConcurrencyShares": i32::MAX, "limitResponse": {"type": "Reject"}});
            let mut level = apimachinery::json!({"metadata": {"name": name}, "spec": {"type": "Limited"}});
            level.set_at(&["spec", "limited"], limited);
            level.to_json()
        };
        control.configure([level("a"), level("b"), level("c")], vec![]);
        assert_eq!(control.current().levels["a"].nominal, 200);
    }
}

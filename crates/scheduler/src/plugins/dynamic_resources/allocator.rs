//! The allocator: finds devices on one node for everything that claims ask for. Pure.
//!
//! Hot path: called for every node for every pod with claims; what does not depend on the pod is kept elsewhere
//! (`inventory`, `allocated`, `selectors`).
//!
//! A depth-first search in upstream's order: claim by claim, request by request, device by device; of a list of
//! alternatives the first with which all that follows works out, too. Devices are tried in the order of pools, slices
//! and devices in them, so drivers can say by names which are to be taken first.
//!
//! Start at [`allocate`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::devices::{ALLOCATION_RESULTS_MAX, tolerates};
use api::view::{Device, ExactDeviceRequest, Node};
use apimachinery::{Quantity, Str};
use rt::Instant;

use super::allocated::{Allocated, Taken, TakenDevices};
use super::capacity;
use super::constraint::Constraint;
use super::inventory::{Counters, Pool, PoolState, Slice};
use super::selectors::Selectors;
use super::wanted::{Chooser, Wanted, WantedClaim, key};

/// Steps of a search between two looks at the clock.
const STEPS_PER_LOOK: usize = 4096;

/// The devices for one claim.
#[derive(Clone, Debug)]
pub struct Allocation {
    pub devices: Vec<Pick>,
    /// By request, the alternative that was taken.
    pub chosen: Vec<usize>,
}

/// One device for a request.
#[derive(Clone, Debug)]
pub struct Pick {
    pub request: usize,
    pub alternative: usize,
    pub slice: Arc<Slice>,
    /// Position in the slice.
    pub device: usize,
    /// What a share takes; `None` when the device is taken as a whole.
    pub share: Option<BTreeMap<Str, Quantity>>,
}

/// Why it could not be found out whether there are devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Somebody has to mend something; other nodes need not be asked.
    Fatal(String),
    /// The node's devices are published wrongly.
    OnNode(String),
}

/// What a search reads.
pub struct Situation<'a> {
    pub node: &'a Node,
    pub pools: &'a [Pool],
    pub allocated: &'a Allocated,
    /// How long to look at most; zero is as long as it takes.
    pub timeout: Duration,
}

/// Devices for all claims, or `None` if the node does not have them.
pub fn allocate<'a>(
    wanted: &'a Wanted,
    situation: &'a Situation<'a>,
    selectors: &'a mut Selectors,
) -> Result<Option<Vec<Allocation>>, Failure> {
    let mut search = Search::new(wanted, situation, selectors);
    search.prepare()?;
    match search.claim(0)? {
        Outcome::Found => Ok(Some(search.result())),
        Outcome::TooMany => Err(Failure::Fatal("allocation max size exceeded".to_owned())),
        Outcome::NotFound if situation.pools.iter().any(|pool| pool.state == PoolState::Invalid) => {
            Err(Failure::OnNode("invalid resource pools were encountered".to_owned()))
        }
        Outcome::NotFound => Ok(None),
    }
}

/// How a branch of the search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Found,
    NotFound,
    /// The claim would get more devices than a claim can have.
    TooMany,
}

/// Where a device is: pool, slice and position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Location {
    pool: usize,
    slice: usize,
    device: usize,
}

/// What is looked for next.
#[derive(Clone, Copy, Debug)]
struct Position {
    claim: usize,
    request: usize,
    alternative: usize,
    /// How many devices of the alternative there are already.
    device: usize,
}

/// How many devices an alternative needs.
#[derive(Debug)]
struct Need {
    count: usize,
    /// For `All`: which.
    all: Option<Vec<Location>>,
}

/// A device that the search has taken.
#[derive(Debug)]
struct Held {
    at: Location,
    claim: usize,
    is_share: bool,
    capacity: BTreeMap<Str, Quantity>,
    /// It draws on counters by its own: the first share does so for all.
    counts: bool,
}

struct Search<'a> {
    wanted: &'a Wanted,
    node: &'a Node,
    pools: &'a [Pool],
    /// By pool, what claims of others have of it.
    taken: Vec<Option<&'a TakenDevices>>,
    selectors: &'a mut Selectors,
    /// By claim, request and alternative.
    needs: Vec<Vec<Vec<Need>>>,
    /// By claim.
    constraints: Vec<Vec<Constraint<'a>>>,
    chosen: Vec<Vec<usize>>,
    picks: Vec<Vec<Pick>>,
    held: Vec<Held>,
    /// By pool, what is left of its counters; made when first needed.
    counters: Vec<Option<Counters>>,
    steps: usize,
    timeout: Duration,
    deadline: Option<Instant>,
}

impl<'a> Search<'a> {
    fn new(wanted: &'a Wanted, situation: &'a Situation<'a>, selectors: &'a mut Selectors) -> Self {
        let Situation { node, pools, allocated, timeout } = *situation;
        let constraints = wanted
            .claims
            .iter()
            .map(|claim| claim.claim.spec.devices.constraints.iter().filter_map(Constraint::new).collect());
        Self {
            wanted,
            node,
            pools,
            taken: pools.iter().map(|pool| allocated.of_pool(&pool.id)).collect(),
            selectors,
            needs: Vec::with_capacity(wanted.claims.len()),
            constraints: constraints.collect(),
            chosen: wanted.claims.iter().map(|claim| vec![0; claim.requests.len()]).collect(),
            picks: wanted.claims.iter().map(|_| Vec::new()).collect(),
            held: Vec::new(),
            counters: pools.iter().map(|_| None).collect(),
            steps: 0,
            timeout,
            deadline: None,
        }
    }

    fn result(self) -> Vec<Allocation> {
        let all = self.picks.into_iter().zip(self.chosen);
        all.map(|(devices, chosen)| Allocation { devices, chosen }).collect()
    }
}

/// Before the search.
impl<'a> Search<'a> {
    /// How many devices each alternative needs.
    fn prepare(&mut self) -> Result<(), Failure> {
        let wanted = self.wanted;
        for (index, claim) in wanted.claims.iter().enumerate() {
            let mut needs = Vec::with_capacity(claim.requests.len());
            for (request, alternatives) in claim.requests.iter().enumerate() {
                let each = 0..alternatives.alternatives.len();
                let each = each
                    .map(|alternative| self.need(Position { claim: index, request, alternative, device: 0 }));
                needs.push(each.collect::<Result<Vec<_>, _>>()?);
            }
            let least = |needs: &Vec<Need>| needs.iter().map(|need| need.count).min().unwrap_or(0);
            let total = needs.iter().map(least).fold(0, usize::saturating_add);
            self.needs.push(needs);
            if total > ALLOCATION_RESULTS_MAX {
                return Err(Failure::Fatal(format!(
                    "claim {}: number of requested devices {total} exceeds the claim limit of {ALLOCATION_RESULTS_MAX}",
                    key(&claim.claim)
                )));
            }
            if self.constraints[index].len() < claim.claim.spec.devices.constraints.len() {
                let constraints = &claim.claim.spec.devices.constraints;
                let at = constraints.iter().position(|own| Constraint::new(own).is_none()).unwrap_or(0);
                return Err(Failure::Fatal(format!(
                    "claim {}, constraint #{at}: empty constraint (unsupported constraint type?)",
                    key(&claim.claim)
                )));
            }
        }
        Ok(())
    }

    fn need(&mut self, at: Position) -> Result<Need, Failure> {
        let exact = self.exact(at);
        match exact.allocation_mode.as_str() {
            "ExactCount" => Ok(Need { count: usize::try_from(exact.count).unwrap_or(0), all: None }),
            "All" => {
                let all = self.all_devices(at)?;
                Ok(Need { count: all.len(), all: Some(all) })
            }
            other => Err(self.refused(at, &format!("unsupported count mode {other}"))),
        }
    }

    fn all_devices(&mut self, at: Position) -> Result<Vec<Location>, Failure> {
        let mut all = Vec::new();
        for (pool, own) in self.pools.iter().enumerate() {
            let why = match own.state {
                PoolState::Usable => None,
                PoolState::Incomplete => Some("being updated"),
                PoolState::Invalid => Some("invalid"),
            };
            if let Some(why) = why {
                let what = format!("asks for all devices, but resource pool {} is currently {why}", own.id);
                return Err(self.refused(at, &what));
            }
            for (slice, own) in own.slices.iter().enumerate() {
                for device in 0..own.devices().len() {
                    let location = Location { pool, slice, device };
                    if self.will_do(at, location)? {
                        all.push(location);
                    }
                }
            }
        }
        Ok(all)
    }

    fn refused(&self, at: Position, why: &str) -> Failure {
        let claim = self.wanted_claim(at);
        let name = claim.short_name(at.request, at.alternative);
        Failure::Fatal(format!("claim {}, request {name}: {why}", key(&claim.claim)))
    }
}

/// The search.
impl<'a> Search<'a> {
    fn claim(&mut self, claim: usize) -> Result<Outcome, Failure> {
        if claim == self.wanted.claims.len() {
            return Ok(Outcome::Found);
        }
        self.request(claim, 0)
    }

    fn request(&mut self, claim: usize, request: usize) -> Result<Outcome, Failure> {
        let Some(wanted) = self.wanted.claims[claim].requests.get(request) else {
            // Fewer devices for this claim make no room in another.
            let outcome = self.claim(claim + 1)?;
            return Ok(if outcome == Outcome::TooMany { Outcome::NotFound } else { outcome });
        };
        let mut all_too_many = true;
        for alternative in 0..wanted.alternatives.len() {
            self.chosen[claim][request] = alternative;
            let at = Position { claim, request, alternative, device: 0 };
            match self.device(at, Location::default())? {
                Outcome::Found => return Ok(Outcome::Found),
                Outcome::TooMany => {}
                Outcome::NotFound => all_too_many = false,
            }
        }
        Ok(if all_too_many { Outcome::TooMany } else { Outcome::NotFound })
    }

    fn device(&mut self, at: Position, from: Location) -> Result<Outcome, Failure> {
        self.look_at_the_clock()?;
        let need = &self.needs[at.claim][at.request][at.alternative];
        if need.all.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Outcome::NotFound);
        }
        if at.device >= need.count {
            return self.request(at.claim, at.request + 1);
        }
        if self.picks[at.claim].len() + need.count - at.device > ALLOCATION_RESULTS_MAX {
            return Ok(Outcome::TooMany);
        }
        match need.all.as_ref().map(|all| all[at.device]) {
            Some(location) => self.the_device(at, location),
            None => self.some_device(at, from),
        }
    }

    /// This very device, as all are asked for.
    fn the_device(&mut self, at: Position, location: Location) -> Result<Outcome, Failure> {
        if !self.is_free(at, location) || !self.may_take(at, location) {
            return Ok(Outcome::NotFound);
        }
        if !self.constrain(at, location) {
            let id = self.device_id(location);
            let why = format!("cannot add device {id} because a claim constraint would not be satisfied");
            return Err(self.refused(at, &why));
        }
        self.take(at, location);
        let outcome = self.device(Position { device: at.device + 1, ..at }, Location::default());
        self.give_back_unless_found(at, outcome)
    }

    /// The first device from there on with which the rest works out.
    fn some_device(&mut self, at: Position, from: Location) -> Result<Outcome, Failure> {
        for pool in from.pool..self.pools.len() {
            if self.pools[pool].state != PoolState::Usable {
                continue;
            }
            let first_slice = if pool == from.pool { from.slice } else { 0 };
            for slice in first_slice..self.pools[pool].slices.len() {
                let here = (pool, slice) == (from.pool, from.slice);
                let first = if here { from.device } else { 0 };
                for device in first..self.pools[pool].slices[slice].devices().len() {
                    match self.try_device(at, Location { pool, slice, device })? {
                        Outcome::NotFound => {}
                        outcome => return Ok(outcome),
                    }
                }
            }
        }
        Ok(Outcome::NotFound)
    }

    fn try_device(&mut self, at: Position, location: Location) -> Result<Outcome, Failure> {
        if !self.is_free(at, location)
            || !self.will_do(at, location)?
            || !self.may_take(at, location)
            || !self.constrain(at, location)
        {
            return Ok(Outcome::NotFound);
        }
        self.take(at, location);
        let next = Location { device: location.device + 1, ..location };
        let outcome = self.device(Position { device: at.device + 1, ..at }, next);
        self.give_back_unless_found(at, outcome)
    }

    fn give_back_unless_found(
        &mut self,
        at: Position,
        outcome: Result<Outcome, Failure>,
    ) -> Result<Outcome, Failure> {
        if !matches!(outcome, Ok(Outcome::Found)) {
            self.give_back(at);
        }
        outcome
    }

    fn look_at_the_clock(&mut self) -> Result<(), Failure> {
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_PER_LOOK) && !self.timeout.is_zero() {
            let now = rt::instant();
            if now > *self.deadline.get_or_insert(now + self.timeout) {
                let name = &self.node.metadata.name;
                return Err(Failure::Fatal(format!("node {name}: timed out trying to allocate devices")));
            }
        }
        Ok(())
    }
}

/// One device.
impl<'a> Search<'a> {
    fn wanted_claim(&self, at: Position) -> &'a WantedClaim {
        &self.wanted.claims[at.claim]
    }

    fn exact(&self, at: Position) -> &'a ExactDeviceRequest {
        self.wanted_claim(at).exact(at.request, at.alternative)
    }

    fn slice(&self, at: Location) -> &'a Arc<Slice> {
        &self.pools[at.pool].slices[at.slice]
    }

    fn device_at(&self, at: Location) -> &'a Device {
        &self.slice(at).devices()[at.device]
    }

    fn device_id(&self, at: Location) -> String {
        format!("{}/{}", self.pools[at.pool].id, self.device_at(at).name)
    }

    fn taken(&self, at: Location) -> Option<&'a Taken> {
        self.taken[at.pool]?.get(&self.device_at(at).name)
    }

    /// Nobody has it, or the request only wants to look at it.
    fn is_free(&self, at: Position, location: Location) -> bool {
        let mut holders = self.held.iter().filter(|held| held.at == location && !held.is_share);
        if self.exact(at).admin_access {
            return !holders.any(|held| held.claim == at.claim);
        }
        holders.next().is_none() && self.taken(location).is_none_or(|taken| taken.whole == 0)
    }

    /// Chosen by the class and the request, reachable, and large enough.
    fn will_do(&mut self, at: Position, location: Location) -> Result<bool, Failure> {
        let (slice, device) = (self.slice(location), self.device_at(location));
        Ok(self.is_chosen(at, location)? && slice.reaches(device, self.node) && self.has_room(at, location))
    }

    fn is_chosen(&mut self, at: Position, location: Location) -> Result<bool, Failure> {
        let claim = self.wanted_claim(at);
        let alternative = &claim.requests[at.request].alternatives[at.alternative];
        for (whose, number, expression) in alternative.expressions() {
            let chosen = self.selectors.chooses(expression, self.slice(location), location.device);
            match chosen {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(why) => {
                    let whose = match whose {
                        Chooser::Class => format!("class {}", alternative.class.metadata.name),
                        Chooser::Claim => format!("claim {}", key(&claim.claim)),
                    };
                    return Err(Failure::Fatal(format!("{whose}: selector #{number}: {}", why.0)));
                }
            }
        }
        Ok(true)
    }

    fn has_room(&self, at: Position, location: Location) -> bool {
        let device = self.device_at(location);
        if device.capacity.is_empty() && self.exact(at).capacity.requests.is_empty() {
            return true;
        }
        let held = self.held.iter().filter(|held| held.at == location).map(|held| &held.capacity);
        let taken: Vec<_> =
            self.taken(location).map(|taken| &taken.capacity).into_iter().chain(held).collect();
        capacity::fits(&self.exact(at).capacity.requests, device, &taken)
    }

    /// Its taints are tolerated, and there is enough of what it draws on.
    fn may_take(&mut self, at: Position, location: Location) -> bool {
        let device = self.device_at(location);
        let tolerations = &self.exact(at).tolerations;
        let mut hard =
            device.taints.iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
        hard.all(|taint| tolerations.iter().any(|own| tolerates(own, taint)))
            && self.has_room(at, location)
            && (!self.draws(location) || self.has_counters(location))
    }

    /// Whether taking it draws on counters. A shared device does so once.
    fn draws(&self, location: Location) -> bool {
        let device = self.device_at(location);
        let is_shared_already = device.allow_multiple_allocations
            && (self.taken(location).is_some_and(|taken| taken.shares > 0)
                || self.held.iter().any(|held| held.at == location));
        !device.consumes_counters.is_empty() && !is_shared_already
    }

    fn has_counters(&mut self, location: Location) -> bool {
        let device = self.device_at(location);
        let left = self.counters_left(location.pool);
        let wanted = device.consumes_counters.iter();
        let enough =
            wanted.flat_map(|from| from.counters.iter().map(move |(name, counter)| (from, name, counter)));
        let mut needs: BTreeMap<(&Str, &Str), Quantity> = BTreeMap::new();
        for (from, name, counter) in enough {
            let sum = needs.entry((&from.counter_set, name)).or_default();
            *sum = sum.add(counter.value);
        }
        // A pool that is overdrawn, however that came, gives nothing.
        left.values().flat_map(BTreeMap::values).all(|amount| amount.sign() >= 0)
            && needs.into_iter().all(|((set, name), needed)| {
                left.get(set).and_then(|set| set.get(name)).is_some_and(|left| needed <= *left)
            })
    }

    fn counters_left(&mut self, pool: usize) -> &mut Counters {
        let (own, taken) = (&self.pools[pool], self.taken[pool]);
        self.counters[pool].get_or_insert_with(|| {
            let mut left = own.counters.clone();
            let devices = own.slices.iter().chain(&own.elsewhere).flat_map(|slice| slice.devices());
            for device in devices.filter(|device| taken.is_some_and(|taken| taken.contains_key(&device.name)))
            {
                draw(&mut left, device, Quantity::sub);
            }
            left
        })
    }

    /// Adds it to the claim's constraints, if they hold with it.
    fn constrain(&mut self, at: Position, location: Location) -> bool {
        let name = self.wanted_claim(at).name(at.request, at.alternative);
        let (slice, device) = (self.slice(location), self.device_at(location));
        let constraints = &mut self.constraints[at.claim];
        let failing =
            constraints.iter_mut().position(|constraint| !constraint.add(name, slice.driver(), device));
        if let Some(failing) = failing {
            constraints[..failing].iter_mut().for_each(|constraint| constraint.remove(name));
        }
        failing.is_none()
    }

    fn take(&mut self, at: Position, location: Location) {
        let (device, slice) = (self.device_at(location), self.slice(location).clone());
        let counts = self.draws(location);
        if counts {
            draw(self.counters_left(location.pool), device, Quantity::sub);
        }
        let is_share = device.allow_multiple_allocations;
        let share = is_share.then(|| capacity::consumed(&self.exact(at).capacity.requests, device));
        self.held.push(Held {
            at: location,
            claim: at.claim,
            is_share,
            capacity: share.clone().unwrap_or_default(),
            counts,
        });
        let Position { request, alternative, .. } = at;
        self.picks[at.claim].push(Pick { request, alternative, slice, device: location.device, share });
    }

    /// Takes back what was taken last.
    fn give_back(&mut self, at: Position) {
        self.picks[at.claim].pop();
        let Some(held) = self.held.pop() else { return };
        let name = self.wanted_claim(at).name(at.request, at.alternative);
        self.constraints[at.claim].iter_mut().for_each(|constraint| constraint.remove(name));
        if held.counts {
            let device = self.device_at(held.at);
            draw(self.counters_left(held.at.pool), device, Quantity::add);
        }
    }
}

fn draw(left: &mut Counters, device: &Device, change: fn(Quantity, Quantity) -> Quantity) {
    for from in &device.consumes_counters {
        let Some(set) = left.get_mut(&from.counter_set) else { continue };
        for (name, counter) in &from.counters {
            if let Some(amount) = set.get_mut(name) {
                *amount = change(*amount, counter.value);
            }
        }
    }
}

//! The allocator against a search that tries everything and looks only at whole results.

use proptest::prelude::*;

use super::*;

/// Small numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % count
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// A device of the only driver, as the judge knows it.
#[derive(Debug)]
struct Thing {
    pool: usize,
    name: String,
    kind: Option<u64>,
    tainted: bool,
    /// What it draws on the counter of its pool.
    draws: u64,
    /// Of a device that is shared out.
    capacity: Option<u64>,
    taken: bool,
}

#[derive(Debug)]
struct Demand {
    /// Alternatives: how many, of which kind, tolerating, taking how much of a shared device.
    alternatives: Vec<(usize, Option<u64>, bool, u64)>,
    is_list: bool,
}

#[derive(Debug)]
struct Case {
    counters: [u64; 2],
    things: Vec<Thing>,
    /// By claim: requests, and whether all kinds have to be equal or different.
    claims: Vec<(Vec<Demand>, Option<bool>)>,
}

/// A device for a request of a claim, by an alternative.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Choice {
    claim: usize,
    request: usize,
    alternative: usize,
    thing: usize,
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let counters = [dice.below(4), dice.below(4)];
        let mut things = Vec::new();
        for pool in 0..2 {
            for at in 0..dice.below(4) {
                let shared = dice.one_in(4);
                things.push(Thing {
                    pool,
                    name: format!("d{at}"),
                    kind: (!dice.one_in(4)).then(|| dice.below(2)),
                    tainted: dice.one_in(5),
                    draws: if dice.one_in(3) { 1 + dice.below(2) } else { 0 },
                    capacity: shared.then(|| 1 + dice.below(4)),
                    taken: dice.one_in(6) && !shared,
                });
            }
        }
        let mut claims = Vec::new();
        for _ in 0..1 + dice.below(2) {
            let mut demands = Vec::new();
            for _ in 0..1 + dice.below(2) {
                let is_list = dice.one_in(3);
                let alternatives = (0..if is_list { 1 + dice.below(2) } else { 1 }).map(|_| {
                    let kind = dice.one_in(3).then(|| dice.below(2));
                    (1 + dice.below(2) as usize, kind, dice.one_in(2), 1 + dice.below(2))
                });
                let alternatives = alternatives.collect();
                demands.push(Demand { alternatives, is_list });
            }
            claims.push((demands, dice.one_in(3).then(|| dice.one_in(2))));
        }
        Self { counters, things, claims }
    }

    fn slices(&self) -> Vec<Value> {
        let mut slices = Vec::new();
        for pool in 0..2 {
            let devices = self.things.iter().filter(|thing| thing.pool == pool).map(|thing| {
                let kind = thing.kind.map(|kind| format!(r#","attributes":{{"kind":{{"int":{kind}}}}}"#));
                let taint = thing.tainted.then_some(r#","taints":[{"key":"k","effect":"NoSchedule"}]"#);
                let draws = (thing.draws > 0).then(|| {
                    let amount = thing.draws;
                    format!(r#","consumesCounters":[{{"counterSet":"s","counters":{{"c":{{"value":"{amount}"}}}}}}]"#)
                });
                let shared = thing.capacity.map(|capacity| {
                    format!(r#","allowMultipleAllocations":true,"capacity":{{"m":{{"value":"{capacity}","requestPolicy":{{"default":"1"}}}}}}"#)
                });
                let fields = [kind, taint.map(str::to_owned), draws, shared].into_iter().flatten();
                format!(r#"{{"name":"{}"{}}}"#, thing.name, fields.collect::<String>())
            });
            let devices: Vec<String> = devices.collect();
            let head = format!(
                r#""nodeName":"n","pool":{{"name":"p{pool}","generation":1,"resourceSliceCount":2}}"#
            );
            slices.push(slice(
                &format!("p{pool}-d"),
                &format!(r#"{{{head},"devices":[{}]}}"#, devices.join(",")),
            ));
            let counters = format!(
                r#"{{{head},"sharedCounters":[{{"name":"s","counters":{{"c":{{"value":"{}"}}}}}}]}}"#,
                self.counters[pool]
            );
            slices.push(slice(&format!("p{pool}-c"), &counters));
        }
        slices
    }

    fn trees(&self) -> Vec<Value> {
        let claims = self.claims.iter().enumerate().map(|(at, (demands, constraint))| {
            let requests = demands.iter().enumerate().map(|(at, demand)| {
                let alternatives = demand.alternatives.iter().enumerate();
                let alternatives: Vec<String> = alternatives
                    .map(|(at, (count, kind, tolerates, _))| {
                        let kind = kind.map(|kind| {
                            format!(r#","selectors":[{{"cel":{{"expression":"has(device.attributes['d.io'].kind) && device.attributes['d.io'].kind == {kind}"}}}}]"#)
                        });
                        let tolerations = tolerates.then_some(r#","tolerations":[{"operator":"Exists"}]"#);
                        let name = if demand.is_list { format!(r#""name":"a{at}","#) } else { String::new() };
                        format!(
                            r#"{{{name}"count":{count}{}{}}}"#,
                            kind.unwrap_or_default(),
                            tolerations.unwrap_or_default()
                        )
                    })
                    .collect();
                match demand.is_list {
                    true => format!(r#"{{"name":"r{at}","firstAvailable":[{}]}}"#, alternatives.join(",")),
                    false => format!(r#"{{"name":"r{at}","exactly":{}}}"#, alternatives[0]),
                }
            });
            let constraint = constraint.map(|same| {
                let field = if same { "matchAttribute" } else { "distinctAttribute" };
                format!(r#","constraints":[{{"{field}":"d.io/kind"}}]"#)
            });
            let requests: Vec<String> = requests.collect();
            let devices = format!(
                r#"{{"requests":[{}]{}}}"#,
                requests.join(","),
                constraint.unwrap_or_default()
            );
            claim(&format!("c{at}"), &devices)
        });
        claims.collect()
    }

    /// The first whole result, in the order in which they are tried, that the judge accepts.
    fn first(&self) -> Option<Vec<Choice>> {
        self.fill(0, 0, &mut Vec::new())
    }

    fn fill(&self, claim: usize, request: usize, choices: &mut Vec<Choice>) -> Option<Vec<Choice>> {
        let Some((demands, _)) = self.claims.get(claim) else {
            return self.is_right(choices).then(|| choices.clone());
        };
        let Some(demand) = demands.get(request) else { return self.fill(claim + 1, 0, choices) };
        (0..demand.alternatives.len()).find_map(|alternative| {
            let next = Choice { claim, request, alternative, thing: 0 };
            self.pick(next, demand.alternatives[alternative].0, choices)
        })
    }

    fn pick(&self, next: Choice, missing: usize, choices: &mut Vec<Choice>) -> Option<Vec<Choice>> {
        if missing == 0 {
            return self.fill(next.claim, next.request + 1, choices);
        }
        (next.thing..self.things.len()).find_map(|thing| {
            choices.push(Choice { thing, ..next });
            let found = self.pick(Choice { thing: thing + 1, ..next }, missing - 1, choices);
            choices.pop();
            found
        })
    }

    fn is_right(&self, choices: &[Choice]) -> bool {
        let users = |thing: usize| choices.iter().filter(move |choice| choice.thing == thing).count();
        let fits = self.things.iter().enumerate().all(|(at, thing)| match thing.capacity {
            // Every share takes the default.
            Some(capacity) => users(at) as u64 <= capacity,
            None => users(at) + usize::from(thing.taken) <= 1 || users(at) == 0,
        });
        let drawn = |pool: usize| -> u64 {
            let used = self.things.iter().enumerate().filter(|(at, thing)| thing.taken || users(*at) > 0);
            used.filter(|(_, thing)| thing.pool == pool).map(|(_, thing)| thing.draws).sum()
        };
        // Only devices that draw are kept from a pool that is overdrawn.
        let draws_new = |pool: usize| {
            choices.iter().any(|own| self.things[own.thing].pool == pool && self.things[own.thing].draws > 0)
        };
        let counted = (0..2).all(|pool| drawn(pool) <= self.counters[pool] || !draws_new(pool));
        let chosen = choices.iter().all(|choice| {
            let thing = &self.things[choice.thing];
            let demand = &self.claims[choice.claim].0[choice.request];
            let (_, kind, tolerates, _) = demand.alternatives[choice.alternative];
            (kind.is_none() || thing.kind == kind) && (!thing.tainted || tolerates)
        });
        let constrained = self.claims.iter().enumerate().all(|(claim, (_, constraint))| {
            let Some(same) = constraint else { return true };
            let own = choices.iter().filter(|choice| choice.claim == claim);
            let kinds: Vec<_> = own.map(|choice| self.things[choice.thing].kind).collect();
            let distinct: std::collections::BTreeSet<_> = kinds.iter().collect();
            let holds = if *same { distinct.len() <= 1 } else { distinct.len() == kinds.len() };
            holds && kinds.iter().all(Option::is_some)
        });
        fits && counted && chosen && constrained
    }
}

fn compare(seed: u64) {
    let case = Case::new(seed);
    let mut cluster = cluster(&case.slices());
    let names = |thing: &Thing| format!("p{}/{}", thing.pool, thing.name);
    let all_taken: Vec<String> = case.things.iter().filter(|thing| thing.taken).map(names).collect();
    taken(&mut cluster, &all_taken.iter().map(String::as_str).collect::<Vec<_>>());
    let result = search(&mut cluster, &node("n"), &case.trees()).unwrap();
    let chosen = result.map(|found| {
        let all = found.iter().enumerate().flat_map(|(claim, found)| {
            found.devices.iter().map(move |pick| {
                let name =
                    format!("{}/{}", pick.slice.view.spec.pool.name, pick.slice.devices()[pick.device].name);
                (claim, pick.request, pick.alternative, name)
            })
        });
        all.collect::<Vec<_>>()
    });
    let wanted = case.first().map(|choices| {
        let all = choices.iter().map(|choice| {
            (choice.claim, choice.request, choice.alternative, names(&case.things[choice.thing]))
        });
        all.collect::<Vec<_>>()
    });
    assert_eq!(chosen, wanted, "seed {seed}: {case:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_found_is_the_first_of_all_results_that_are_right(seed: u64) {
        compare(seed);
    }
}

//! Suites: scenarios that are measured together.

use std::future::Future;
use std::pin::Pin;

use anyhow::{Context, bail};
use camino::Utf8PathBuf;

use super::report::Measurement;
use super::{node, scenarios, scheduler, services, sim};

pub(super) type Measured = anyhow::Result<Vec<Measurement>>;

/// Something to measure.
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) about: String,
    pub(super) run: Run,
}

type Run = Box<dyn Fn(World) -> Pin<Box<dyn Future<Output = Measured>>>>;

/// What a scenario starts from.
#[derive(Clone)]
pub(super) struct World {
    pub(super) binary: Utf8PathBuf,
    /// Small numbers, to see that everything works.
    pub(super) smoke: bool,
    /// Sizes of the large cluster of the suite `sim`, if they were asked for.
    pub(super) nodes: Option<u32>,
    pub(super) pods: Option<u64>,
    /// Who runs containers; `None` for the server itself.
    pub(super) container_runtime_endpoint: Option<String>,
}

/// A suite's name on the command line, and its scenarios.
type Suite = (&'static str, fn() -> Vec<Scenario>);

/// The first is meant where none is named.
const SUITES: [Suite; 5] = [
    ("server", scenarios::all),
    ("scheduler", scheduler::all),
    ("sim", sim::all),
    ("node", node::all),
    ("services", services::all),
];

/// The scenarios that these words choose: perhaps a suite, then names. A name that no scenario has chooses all that
/// contain it; without names it is the whole suite.
pub(super) fn choose(words: &[String]) -> anyhow::Result<Vec<Scenario>> {
    let suite = |word: &String| SUITES.iter().find(|(name, _)| name == word);
    let (all, names) = match words.split_first() {
        Some((first, rest)) if suite(first).is_some() => {
            (suite(first).map_or(SUITES[0].1, |(_, all)| *all)(), rest)
        }
        _ => (SUITES[0].1(), words),
    };
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|scenario| scenario.name.contains(*name)))
    {
        let known: Vec<_> = all.iter().map(|scenario| scenario.name.as_str()).collect();
        bail!("no scenario is called {unknown}; there are {}", known.join(", "));
    }
    let is_exact = |name: &String| all.iter().any(|scenario| scenario.name == *name);
    let exact: Vec<bool> = names.iter().map(is_exact).collect();
    let wanted = |scenario: &Scenario| {
        names.is_empty()
            || names.iter().zip(&exact).any(|(name, exact)| match exact {
                true => scenario.name == *name,
                false => scenario.name.contains(name),
            })
    };
    Ok(all.into_iter().filter(wanted).collect())
}

/// Suite, name and description of every scenario, in the order they run.
pub fn list() -> Vec<(&'static str, String, String)> {
    let of_suite = |(suite, all): &Suite| {
        let suite = *suite;
        all().into_iter().map(move |scenario| (suite, scenario.name, scenario.about))
    };
    SUITES.iter().flat_map(of_suite).collect()
}

/// Runs a future of the scenario's own choice with a name on its errors.
pub(super) async fn named(scenario: &Scenario, world: World) -> Measured {
    (scenario.run)(world).await.with_context(|| format!("scenario {}", scenario.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        choose(&words).expect("they are known").into_iter().map(|scenario| scenario.name).collect()
    }

    #[test]
    fn every_scenario_of_a_suite_has_a_name_of_its_own() {
        for (_, all) in SUITES {
            let mut names: Vec<_> = all().into_iter().map(|scenario| scenario.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count);
        }
    }

    #[test]
    fn words_choose_a_suite_and_scenarios_of_it() {
        assert_eq!(chosen(&["start"]), ["start"], "an exact name is only itself");
        assert_eq!(chosen(&["server", "gets"]), ["gets"]);
        assert_eq!(chosen(&[]).len(), scenarios::all().len());
        assert_eq!(chosen(&["scheduler"]).len(), scheduler::all().len());
        assert!(chosen(&["scheduler", "Affinity"]).len() > 5);
        assert!(choose(&["no-such".to_owned()]).is_err());
        assert!(choose(&["scheduler".to_owned(), "gets".to_owned()]).is_err(), "it is in another suite");
    }
}

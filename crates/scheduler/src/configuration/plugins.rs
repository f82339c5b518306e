//! Which plugins of a profile run where: the default set with the file's changes, by upstream's rules of precedence.
//!
//! ```text
//!     default multiPoint ── less what multiPoint disables, what it enables in its place or after ──> multiPoint
//!     each point         ── its own, where multiPoint has them too │ those of multiPoint │ the rest of its own
//! ```
//!
//! What a point disables is not taken from `multiPoint`; `*` disables all of it.

use apimachinery::field::{self, ErrorList, Path};

use super::document::{Plugin, PluginSet, Plugins};
use crate::framework::{Arrangement, Point, Registration};
use crate::plugins::Row;

const ALL: &str = "*";

/// A point of the file with its name and, if plugins can run there, the point itself.
type Named<'a> = (&'static str, Option<Point>, &'a PluginSet);

impl Plugins {
    /// Every set of the file but `multiPoint`.
    pub fn points(&self) -> impl Iterator<Item = Named<'_>> {
        let sets = [
            &self.pre_enqueue,
            &self.queue_sort,
            &self.pre_filter,
            &self.filter,
            &self.post_filter,
            &self.pre_score,
            &self.score,
            &self.reserve,
            &self.permit,
            &self.pre_bind,
            &self.bind,
        ];
        let known = Point::ALL.into_iter().zip(sets).map(|(point, set)| (point.field(), Some(point), set));
        // Nothing here runs at these.
        let others = [
            ("postBind", None, &self.post_bind),
            ("placementGenerate", None, &self.placement_generate),
            ("placementScore", None, &self.placement_score),
        ];
        known.chain(others)
    }

    /// The plugins to make, each once: those that are enabled anywhere.
    pub fn needed<'a>(&'a self, multi_point: &'a [Plugin]) -> Vec<&'a str> {
        let mut names: Vec<&str> = Vec::new();
        let enabled = self.points().flat_map(|(_, _, set)| &set.enabled);
        for plugin in multi_point.iter().chain(enabled) {
            if !names.contains(&plugin.name.as_str()) {
                names.push(&plugin.name);
            }
        }
        names
    }
}

/// The default plugins with what the file says about `multiPoint`.
pub fn multi_point(rows: &[Row], custom: &PluginSet) -> Vec<Plugin> {
    let disabled = |name: &str| custom.disabled.iter().any(|own| own.name == name);
    let mut merged = Vec::new();
    let mut replacing = vec![false; custom.enabled.len()];
    for row in rows.iter().filter(|row| row.default && !disabled(ALL) && !disabled(row.name)) {
        // The last one of a name, as upstream; the first is then a second registration, and an error.
        let custom_at = custom.enabled.iter().rposition(|own| own.name == row.name);
        if let Some(at) = custom_at {
            replacing[at] = true;
        }
        let default = || Plugin { name: row.name.to_owned(), weight: row.weight as i32 };
        merged.push(custom_at.map_or_else(default, |at| custom.enabled[at].clone()));
    }
    let added = custom.enabled.iter().zip(replacing).filter(|(_, replacing)| !replacing);
    merged.extend(added.map(|(plugin, _)| plugin.clone()));
    merged
}

/// Where the plugins run. `path` is that of the sets.
pub fn arrange(
    plugins: &Plugins,
    multi_point: &[Plugin],
    made: &[Registration],
    path: &Path<'_>,
) -> Result<Arrangement, ErrorList> {
    let mut errors = ErrorList::new();
    let mut arrangement = Arrangement::default();
    let position = |name: &str| made.iter().position(|plugin| plugin.name() == name);
    for (field, point, set) in plugins.points() {
        let path = path.child(field);
        check_enabled(&mut errors, set, point, made, &path);
        let Some(point) = point else { continue };
        let order =
            order(set, multi_point, |name| position(name).filter(|&at| made[at].serves(point)).is_some());
        match order {
            Ok(names) => arrangement.set(point, names.into_iter().filter_map(position).collect()),
            Err(twice) => {
                let problem = format!("plugin {twice:?} already registered as {:?}", point.interface());
                errors.push(field::Error::invalid(&path.child("multiPoint"), twice, problem));
            }
        }
    }
    if errors.is_empty() { Ok(arrangement) } else { Err(errors) }
}

/// The names of a point in order; an error for one that `multiPoint` has twice.
fn order<'a>(
    set: &'a PluginSet,
    multi_point: &'a [Plugin],
    serves: impl Fn(&str) -> bool,
) -> Result<Vec<&'a str>, &'a str> {
    let own = || set.enabled.iter().map(|plugin| plugin.name.as_str());
    let disabled = |name: &str| set.disabled.iter().any(|plugin| plugin.name == name);
    if disabled(ALL) {
        return Ok(own().collect());
    }
    let mut expanded: Vec<&str> = Vec::new();
    let mut overriding: Vec<&str> = Vec::new();
    for name in multi_point.iter().map(|plugin| plugin.name.as_str()) {
        if !serves(name) || disabled(name) {
            continue;
        }
        if own().any(|own| own == name) {
            overriding.push(name);
        } else if expanded.contains(&name) {
            return Err(name);
        } else {
            expanded.push(name);
        }
    }
    let (first, last): (Vec<&str>, Vec<&str>) = own().partition(|name| overriding.contains(name));
    Ok(first.into_iter().chain(expanded).chain(last).collect())
}

fn check_enabled(
    errors: &mut ErrorList,
    set: &PluginSet,
    point: Option<Point>,
    made: &[Registration],
    path: &Path<'_>,
) {
    let path = path.child("enabled");
    for (index, Plugin { name, .. }) in set.enabled.iter().enumerate() {
        let path = path.index(index);
        // One that was not made is told as such.
        let Some(plugin) = made.iter().find(|plugin| plugin.name() == name) else { continue };
        if !point.is_some_and(|point| plugin.serves(point)) {
            let serving = made.iter().filter(|plugin| point.is_some_and(|point| plugin.serves(point)));
            let serving: Vec<&str> = serving.map(Registration::name).collect();
            let interface = point.map_or("such a", Point::interface);
            let problem = format!(
                "plugin {name:?} does not extend {interface} plugin; plugins that do: {}",
                if serving.is_empty() { "none".to_owned() } else { serving.join(", ") }
            );
            errors.push(field::Error::invalid(&path, name, problem));
        } else if set.enabled[..index].iter().any(|earlier| earlier.name == *name) {
            errors.push(field::Error::duplicate(&path, name));
        }
    }
}

/// How much a plugin's score counts: what `score` says, else `multiPoint`; none stands for 1.
pub fn weight(name: &str, plugins: &Plugins, multi_point: &[Plugin]) -> i64 {
    let said = plugins.score.enabled.iter().chain(multi_point).find(|plugin| plugin.name == name);
    said.map_or(0, |plugin| i64::from(plugin.weight)).max(1)
}

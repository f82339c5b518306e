//! Events of both APIs: `v1.Event`, which takes nearly everything, and `events.k8s.io/v1.Event`, which is strict.
//!
//! Both are one collection, so that an event may arrive here under the field names of either.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, IMMUTABLE, invalid_each, same};
use crate::validation::text;

const SHORT_MAX: usize = 128;
const NOTE_MAX: usize = 1024;

/// Through which API an event is written.
pub enum Event {
    Core,
    Events,
}

/// The field under the name of `v1`, or else of `events.k8s.io/v1`.
fn either<'a>(event: &'a Value, names: (&str, &str)) -> &'a Value {
    if event.has(names.0) { &event[names.0] } else { &event[names.1] }
}

const ABOUT: (&str, &str) = ("involvedObject", "regarding");
const NOTE: (&str, &str) = ("message", "note");
const SOURCE: (&str, &str) = ("source", "deprecatedSource");
const FIRST: (&str, &str) = ("firstTimestamp", "deprecatedFirstTimestamp");
const LAST: (&str, &str) = ("lastTimestamp", "deprecatedLastTimestamp");
const COUNT: (&str, &str) = ("count", "deprecatedCount");
const CONTROLLER: (&str, &str) = ("reportingComponent", "reportingController");

impl Strategy for Event {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        self.both(&mut errors, object);
        if matches!(self, Self::Events) {
            series(&mut errors, object);
            new_style(&mut errors, object);
        }
        errors
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        self.both(&mut errors, new);
        if matches!(self, Self::Events) {
            if !same(&new["series"], &old["series"]) {
                series(&mut errors, new);
            }
            unchanged(&mut errors, new, old);
        }
        errors
    }

    fn relaxed_durability(&self) -> bool {
        true
    }
}

impl Event {
    /// Rules of both APIs; events with an `eventTime` are of the new style and have more of them.
    fn both(&self, errors: &mut ErrorList, event: &Value) {
        let namespace = event["metadata"].text("namespace");
        let about = either(event, ABOUT).text("namespace");
        let mismatch = |errors: &mut ErrorList| {
            errors.push(Error::invalid(
                &Path::root("involvedObject").child("namespace"),
                about,
                "does not match event.namespace",
            ));
        };
        if event.text("eventTime").is_empty() {
            let matches =
                if about.is_empty() { matches!(namespace, "" | "default") } else { namespace == about };
            if !matches {
                mismatch(errors);
            }
        } else {
            if about.is_empty() && !matches!(namespace, "default" | "kube-system") {
                mismatch(errors);
            }
            self.reporter(errors, event);
        }
        invalid_each(errors, &Path::root("namespace"), namespace, text::dns1123_subdomain(namespace));
    }

    fn reporter(&self, errors: &mut ErrorList, event: &Value) {
        let path = Path::root(match self {
            Self::Core => "reportingComponent",
            Self::Events => "reportingController",
        });
        let controller = either(event, CONTROLLER).as_str().unwrap_or_default();
        if controller.is_empty() {
            errors.push(Error::required(&path, ""));
        }
        invalid_each(errors, &path, controller, text::qualified_name(controller));
        for (key, required, max) in
            [("reportingInstance", true, SHORT_MAX), ("action", true, SHORT_MAX), ("reason", true, SHORT_MAX)]
        {
            let value = event.text(key);
            if required && value.is_empty() {
                errors.push(Error::required(&Path::root(key), ""));
            }
            too_long(errors, key, value, max);
        }
        too_long(errors, "message", either(event, NOTE).as_str().unwrap_or_default(), NOTE_MAX);
    }
}

fn too_long(errors: &mut ErrorList, key: &str, value: &str, max: usize) {
    if value.len() > max {
        errors.push(Error::invalid(&Path::root(key), "", format!("can have at most {max} characters")));
    }
}

fn series(errors: &mut ErrorList, event: &Value) {
    let Some(series) = event.maybe("series") else { return };
    if series.int("count") < 2 {
        errors.push(Error::invalid(&Path::root("series.count"), "", "should be at least 2"));
    }
    if series.text("lastObservedTime").is_empty() {
        errors.push(Error::required(&Path::root("series.lastObservedTime"), ""));
    }
}

/// The fields of the old style are unset.
fn new_style(errors: &mut ErrorList, event: &Value) {
    const UNSET: &str = "needs to be unset";
    if event.text("eventTime").is_empty() {
        errors.push(Error::required(&Path::root("eventTime"), ""));
    }
    let kind = event.text("type");
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(Error::invalid(&Path::root("type"), "", format!("has invalid value: {kind}")));
    }
    for names in [FIRST, LAST] {
        if !either(event, names).is_null() {
            errors.push(Error::invalid(&Path::root(names.0), "", UNSET));
        }
    }
    if either(event, COUNT).as_i64().unwrap_or_default() != 0 {
        errors.push(Error::invalid(&Path::root(COUNT.0), "", UNSET));
    }
    let source = either(event, SOURCE);
    if !source.text("component").is_empty() || !source.text("host").is_empty() {
        errors.push(Error::invalid(&Path::root(SOURCE.0), "", UNSET));
    }
}

/// Only the series of an event may grow.
fn unchanged(errors: &mut ErrorList, new: &Value, old: &Value) {
    const FIXED: [(&str, &str); 14] = [
        ABOUT,
        ("reason", "reason"),
        NOTE,
        SOURCE,
        FIRST,
        LAST,
        COUNT,
        ("reason", "reason"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingController", "reportingComponent"),
        ("reportingInstance", "reportingInstance"),
    ];
    for names in FIXED {
        let (new, old) = (either(new, names), either(old, names));
        if !same(new, old) {
            errors.push(Error::invalid(&Path::root(names.0), new, IMMUTABLE));
        }
    }
}

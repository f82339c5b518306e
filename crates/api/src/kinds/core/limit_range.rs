//! `v1.LimitRange`.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Quantity, Value};

use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, invalid_each};
use crate::validation::{resources, text};

pub struct LimitRange;

impl Strategy for LimitRange {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let limits = object["spec"].list("limits");
        let path = Path::root("spec");
        let path = path.child("limits");
        for (index, limit) in limits.iter().enumerate() {
            let path = path.index(index);
            let kind = limit.text("type");
            limit_type(&mut errors, kind, &path.child("type"));
            if limits[..index].iter().any(|other| other.text("type") == kind) {
                errors.push(Error::duplicate(&path.child("type"), kind));
            }
            names(&mut errors, limit, kind, &path);
            amounts(&mut errors, limit, &path);
        }
        errors
    }
}

fn limit_type(errors: &mut ErrorList, kind: &str, path: &Path<'_>) {
    let messages = text::qualified_name(kind);
    if !messages.is_empty() {
        invalid_each(errors, path, kind, messages);
    } else if !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
        errors.push(Error::invalid(path, kind, "must be a standard limit type or fully qualified"));
    }
}

fn names(errors: &mut ErrorList, limit: &Value, kind: &str, limit_path: &Path<'_>) {
    let owner = if matches!(kind, "Pod" | "Container") {
        resources::Owner::Container
    } else {
        resources::Owner::Other
    };
    for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let path = limit_path.child(list);
        if kind == "Pod" && matches!(list, "default" | "defaultRequest") {
            if limit.map(list).is_some_and(|map| !map.is_empty()) {
                errors.push(Error::forbidden(&path, "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        if list == "maxLimitRequestRatio"
            && kind == "PersistentVolumeClaim"
            && !["min", "max"].into_iter().any(|list| limit[list].has("storage"))
        {
            errors.push(Error::required(
                &limit_path.child("limits"),
                "either minimum or maximum storage value is required, but neither was provided",
            ));
        }
        for (name, _) in limit.entries(list) {
            resources::name(errors, name, owner, &path.key(name));
        }
    }
}

/// The five amounts of a resource must be possible together.
fn amounts(errors: &mut ErrorList, limit: &Value, path: &Path<'_>) {
    let lists = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
    let mut names: Vec<&str> =
        lists.iter().flat_map(|list| limit.entries(list)).map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let of = |list: &str| limit.map(list).and_then(|map| map.get(name)).and_then(resources::quantity);
        let [max, min, default, request, ratio] = lists.map(of);
        let mut greater = |a: Option<Quantity>,
                           b: Option<Quantity>,
                           list: &str,
                           shown: Option<Quantity>,
                           words: [&str; 2]| {
            if let (Some(a), Some(b), Some(shown)) = (a, b, shown)
                && a > b
            {
                errors.push(Error::invalid(
                    &path.child(list).key(name),
                    shown.to_string(),
                    format!("{} value {a} is greater than {} value {b}", words[0], words[1]),
                ));
            }
        };
        greater(min, max, "min", min, ["min", "max"]);
        greater(min, request, "defaultRequest", request, ["min", "default request"]);
        greater(request, max, "defaultRequest", request, ["default request", "max"]);
        greater(request, default, "defaultRequest", request, ["default request", "default limit"]);
        greater(min, default, "default", min, ["min", "default"]);
        greater(default, max, "default", max, ["default", "max"]);
        if let Some(ratio) = ratio {
            self::ratio(errors, ratio, min, max, &path.child("maxLimitRequestRatio").key(name));
        }
        if let (Some(default), Some(request)) = (default, request)
            && !resources::is_overcommittable(name)
            && default != request
        {
            errors.push(Error::invalid(
                &path.child("defaultRequest").key(name),
                request.to_string(),
                format!("default value {default} must equal to defaultRequest value {request} in {name}"),
            ));
        }
    }
}

fn ratio(
    errors: &mut ErrorList,
    ratio: Quantity,
    min: Option<Quantity>,
    max: Option<Quantity>,
    path: &Path<'_>,
) {
    if ratio.milli_value() < 1000 {
        errors.push(Error::invalid(path, ratio.to_string(), format!("ratio {ratio} is less than 1")));
    }
    if let (Some(min), Some(max)) = (min, max) {
        let most = max.milli_value() as f64 / min.milli_value() as f64;
        if ratio.milli_value() as f64 / 1000.0 > most {
            errors.push(Error::invalid(
                path,
                ratio.to_string(),
                format!("ratio {ratio} is greater than max/min = {most:.6}"),
            ));
        }
    }
}

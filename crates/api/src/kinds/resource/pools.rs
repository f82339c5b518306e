//! Questions about pools of devices, and their answers.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::POOL_NAME_MAX;
use crate::validation::fields::{Fields, invalid_each};
use crate::validation::text;

/// How many pools may be asked for, and answered.
const POOLS_MAX: usize = 1000;
const ANSWER_CONDITIONS_MAX: usize = 10;
const VALIDATION_ERROR_BYTES_MAX: usize = 256;
const CASELESS_SUBDOMAIN: &str = "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";

pub(super) fn spec(spec: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::root("spec");
    driver(&mut errors, spec.text("driver"), &path.child("driver"));
    if let Some(name) = spec.maybe_text("poolName") {
        pool_name(&mut errors, name, &path.child("poolName"));
    }
    let limit_path = path.child("limit");
    match spec.maybe_int("limit") {
        None => errors.push(Error::required(&limit_path, "")),
        Some(limit) if limit > POOLS_MAX as i64 => {
            let detail = format!("must be less than or equal to {POOLS_MAX}");
            errors.push(Error::invalid(&limit_path, limit, detail));
        }
        Some(_) => at_least(&mut errors, spec, "limit", 1, &path),
    }
    errors
}

/// The first answer; there is no second one.
pub(super) fn status(status: &Value, path: &Path<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let (pools, conditions) = (status.list("pools"), status.list("conditions"));
    crate::validation::conditions::check(&mut errors, conditions, &path.child("conditions"));
    if status.maybe("poolCount").is_none() {
        errors.push(Error::required(&path.child("poolCount"), ""));
    }
    at_least(&mut errors, status, "poolCount", 0, path);
    let pools_path = path.child("pools");
    if pools.len() > POOLS_MAX {
        errors.push(Error::too_many(&pools_path, pools.len(), POOLS_MAX));
    } else {
        for (index, own) in pools.iter().enumerate() {
            pool(&mut errors, own, &pools_path.index(index));
        }
    }
    if conditions.len() > ANSWER_CONDITIONS_MAX {
        errors.push(Error::too_many(&path.child("conditions"), conditions.len(), ANSWER_CONDITIONS_MAX));
    }
    errors
}

fn pool(errors: &mut ErrorList, pool: &Value, path: &Path<'_>) {
    driver(errors, pool.text("driver"), &path.child("driver"));
    let name = pool.text("poolName");
    if name.is_empty() {
        errors.push(Error::required(&path.child("poolName"), ""));
    } else {
        pool_name(errors, name, &path.child("poolName"));
    }
    if pool.int("generation") == 0 {
        errors.push(Error::required(&path.child("generation"), ""));
    }
    at_least(errors, pool, "generation", 0, path);
    at_least(errors, pool, "resourceSliceCount", 1, path);
    for key in ["totalDevices", "allocatedDevices", "availableDevices", "unavailableDevices"] {
        at_least(errors, pool, key, 0, path);
    }
    if let Some(node) = pool.maybe_text("nodeName") {
        invalid_each(errors, &path.child("nodeName"), node, text::dns1123_subdomain(node));
    }
    if pool.text("validationError").len() > VALIDATION_ERROR_BYTES_MAX {
        errors.push(Error::too_long(&path.child("validationError"), VALIDATION_ERROR_BYTES_MAX));
    }
}

fn at_least(errors: &mut ErrorList, object: &Value, key: &str, min: i64, path: &Path<'_>) {
    if let Some(number) = object.maybe_int(key).filter(|number| *number < min) {
        let detail = format!("must be greater than or equal to {min}");
        errors.push(Error::invalid(&path.child(key), number, detail));
    }
}

/// A subdomain in any case.
fn driver(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    if name.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    for message in text::dns1123_subdomain(&name.to_ascii_lowercase()) {
        let is_form = message.starts_with("a lowercase");
        let message = if is_form { CASELESS_SUBDOMAIN } else { &message };
        errors.push(Error::invalid(path, name, message));
    }
}

/// Subdomains with slashes between them.
fn pool_name(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    if name.len() > POOL_NAME_MAX {
        errors.push(Error::too_long(path, POOL_NAME_MAX));
    }
    for (index, segment) in name.split('/').enumerate() {
        if segment.is_empty() {
            errors.push(Error::invalid(path, name, format!("segment {index}: must not be empty")));
        } else {
            for message in text::dns1123_subdomain(segment) {
                errors.push(Error::invalid(path, segment, format!("segment {index}: {message}")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    /// Places and the begins of complaints.
    fn complaints(errors: &ErrorList) -> Vec<String> {
        errors.iter().map(|error| format!("{}: {}", error.path, error.body())).collect()
    }

    #[test]
    fn a_question_names_a_driver_and_how_much_it_wants_to_know() {
        let check = |own: Value| complaints(&spec(&own));
        let none: [&str; 0] = [];
        assert_eq!(check(json!({"driver": "GPU.example.com", "poolName": "a/b.c", "limit": 1000})), none);
        assert_eq!(
            check(json!({"limit": 1001, "poolName": "a//B"})),
            [
                "spec.driver: Required value",
                "spec.poolName: Invalid value: \"a//B\": segment 1: must not be empty",
                &format!(
                    "spec.poolName: Invalid value: \"B\": segment 2: {}",
                    text::dns1123_subdomain("B")[0]
                ),
                "spec.limit: Invalid value: 1001: must be less than or equal to 1000",
            ]
        );
        assert_eq!(
            check(json!({"driver": "a_b", "limit": 0})),
            [
                format!("spec.driver: Invalid value: \"a_b\": {CASELESS_SUBDOMAIN}"),
                "spec.limit: Invalid value: 0: must be greater than or equal to 1".to_owned(),
            ]
        );
    }

    #[test]
    fn an_answer_counts_and_describes_pools() {
        let check = |own: Value| complaints(&status(&own, &Path::root("status")));
        let pool = json!({"driver": "d", "poolName": "p", "generation": 1, "totalDevices": 0});
        assert_eq!(check(json!({"poolCount": 1, "pools": [pool]})), Vec::<String>::new());
        let long = "x".repeat(257);
        let bad =
            json!({"generation": -1, "resourceSliceCount": 0, "nodeName": "n", "validationError": long});
        assert_eq!(
            check(json!({"pools": [bad]})),
            [
                "status.poolCount: Required value",
                "status.pools[0].driver: Required value",
                "status.pools[0].poolName: Required value",
                "status.pools[0].generation: Invalid value: -1: must be greater than or equal to 0",
                "status.pools[0].resourceSliceCount: Invalid value: 0: must be greater than or equal to 1",
                "status.pools[0].validationError: Too long: may not be more than 256 bytes",
            ]
        );
        let many = json!({"poolCount": -1, "pools": vec![Value::object(); 1001]});
        assert_eq!(
            check(many),
            [
                "status.poolCount: Invalid value: -1: must be greater than or equal to 0",
                "status.pools: Too many: 1001: must have at most 1000 items",
            ]
        );
    }
}

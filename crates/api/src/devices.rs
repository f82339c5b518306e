//! Which devices a request may be given: the expressions that choose devices, and taints with their tolerations.

use std::sync::{Arc, LazyLock};

use cel::{
    Activation, Budget, Decl, Environment, EvalError, Field, ObjectType, Opaque, Program, Refusal, Text,
    Type, Value,
};

use crate::view::{Device, DeviceAttribute, DeviceTaint, DeviceToleration};

/// The longest domain of a name, and the longest name of a driver.
pub(crate) const DOMAIN_MAX: usize = 63;
/// The longest name of an attribute or a capacity within its domain.
pub(crate) const IDENTIFIER_MAX: usize = 32;
/// The longest value of an attribute.
pub(crate) const VALUE_MAX: usize = 64;
/// The most attributes and capacities of a device.
pub(crate) const ENTRIES_MAX: usize = 32;
/// What an expression may cost for one device, estimated and in fact.
pub(crate) const EXPRESSION_COST_MAX: u64 = 1_000_000;
/// The most devices that one claim can be given; upstream's `AllocationResultsMaxSize`.
pub const ALLOCATION_RESULTS_MAX: usize = 32;
/// The most alternatives of one request.
pub const FIRST_AVAILABLE_MAX: usize = 8;

/// The number of the variable `device`.
const DEVICE: usize = 0;

/// `device`: its driver, and by domain and name its attributes and capacities.
pub(crate) static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    let text = |length: usize| Decl::string().with_elements_max(length as u64);
    let by_name = |value: Decl| {
        let names = Decl::map(text(IDENTIFIER_MAX), value, ENTRIES_MAX as u64).with_named_entries();
        Decl::map(text(DOMAIN_MAX), names, ENTRIES_MAX as u64)
    };
    let attribute = Decl::plain(Type::Any, 1).with_elements_max(VALUE_MAX as u64);
    let capacity = Decl::plain(Type::Opaque(Opaque::Quantity), 8);
    let fields = vec![
        Field::new("driver", text(DOMAIN_MAX)),
        Field::new("allowMultipleAllocations", Decl::bool().with_elements_max(1)),
        Field::new("attributes", by_name(attribute)),
        Field::new("capacity", by_name(capacity)),
    ];
    let device = Decl::object(Arc::new(ObjectType::new("kubernetes.DRADevice", fields)));
    Environment::new().variable("device", device).bindings()
});

/// A compiled expression that chooses devices.
#[derive(Debug)]
pub struct Selector(Program);

/// Why an expression chooses no devices.
#[derive(Debug, thiserror::Error)]
pub enum SelectorError {
    #[error("{0}")]
    Refused(Refusal),
    #[error("must evaluate to bool or the unknown type, not {0}")]
    Output(String),
}

// === impl Selector ===

impl Selector {
    pub fn compile(expression: &str) -> Result<Self, SelectorError> {
        let program = ENVIRONMENT.compile_as(expression, &[]).map_err(SelectorError::Refused)?;
        match program.output() {
            Type::Bool | Type::Any => Ok(Self(program)),
            other => Err(SelectorError::Output(other.declared().to_string())),
        }
    }

    /// Whether it estimates to more than it may cost.
    pub(crate) fn is_too_complex(&self) -> bool {
        self.0.estimate().max > EXPRESSION_COST_MAX
    }

    /// Whether a driver's device is chosen. Errors have upstream's words.
    pub fn matches(&self, driver: &str, device: &Device) -> Result<bool, String> {
        let mut activation = Activation::new(&ENVIRONMENT);
        activation.bind(DEVICE, device_value(driver, device)?);
        // An evaluation ends by itself when it costs this much.
        let result = self.0.eval(&activation, &mut Budget::new(u64::MAX));
        match result.map_err(|error: EvalError| error.to_string())? {
            Value::Bool(chosen) => Ok(chosen),
            other => {
                let name = other.type_of().declared().to_string();
                Err(format!("CEL result of type {name} could not be converted to bool: {}", no_bool(&other)))
            }
        }
    }
}

/// What the language says about a value that should be a `bool`.
fn no_bool(value: &Value<'_>) -> String {
    match value {
        Value::Int(_) => "unsupported type conversion from 'int' to bool".to_owned(),
        Value::String(_) => "unsupported native conversion from string to 'bool'".to_owned(),
        Value::Map(_) => "type conversion error from map to 'bool'".to_owned(),
        other => format!("type conversion error from '{}' to 'bool'", other.type_of().declared()),
    }
}

fn device_value<'a>(driver: &'a str, device: &'a Device) -> Result<Value<'a>, String> {
    let mut attributes = ByDomain::default();
    for (name, attribute) in &device.attributes {
        let value = attribute_value(attribute).map_err(|why| format!("attribute {name}: {why}"))?;
        attributes.add(name, driver, value);
    }
    let mut capacity = ByDomain::default();
    for (name, amount) in &device.capacity {
        capacity.add(name, driver, Value::quantity(amount.value));
    }
    let fields = [
        ("driver", Value::borrowed(driver)),
        ("allowMultipleAllocations", Value::Bool(device.allow_multiple_allocations)),
        ("attributes", attributes.value()),
        ("capacity", capacity.value()),
    ];
    Ok(Value::map(fields.map(|(name, value)| (Text::Borrowed(name), value)), None))
}

fn attribute_value(attribute: &DeviceAttribute) -> Result<Value<'_>, String> {
    match attribute {
        DeviceAttribute { int: Some(number), .. } => Ok(Value::Int(*number)),
        DeviceAttribute { bool: Some(flag), .. } => Ok(Value::Bool(*flag)),
        DeviceAttribute { string: Some(text), .. } => Ok(Value::borrowed(text)),
        DeviceAttribute { version: Some(text), .. } => {
            Value::semver(text).map_err(|why| format!("parse semantic version: {why}"))
        }
        // Lists are behind a gate that is off.
        _ => Err("unsupported attribute value".to_owned()),
    }
}

/// Values by domain and name within it.
#[derive(Default)]
struct ByDomain<'a>(Vec<(&'a str, Vec<(&'a str, Value<'a>)>)>);

impl<'a> ByDomain<'a> {
    fn add(&mut self, name: &'a str, driver: &'a str, value: Value<'a>) {
        let (domain, name) = name.split_once('/').unwrap_or((driver, name));
        match self.0.iter_mut().find(|(own, _)| *own == domain) {
            Some((_, values)) => values.push((name, value)),
            None => self.0.push((domain, vec![(name, value)])),
        }
    }

    /// A domain that nobody uses reads as an empty one.
    fn value(self) -> Value<'a> {
        let named = |(name, value): (&'a str, Value<'a>)| (Text::Borrowed(name), value);
        let domains = self
            .0
            .into_iter()
            .map(|(domain, values)| named((domain, Value::map(values.into_iter().map(named), None))));
        Value::map(domains.collect::<Vec<_>>(), Some(Value::map([], None)))
    }
}

/// Ignores for how long. Callers look at the effect themselves.
pub fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    (toleration.effect.is_empty() || toleration.effect == taint.effect)
        && (toleration.key.is_empty() || toleration.key == taint.key)
        && match toleration.operator.as_str() {
            "" | "Equal" => toleration.value == taint.value,
            "Exists" => true,
            _ => false,
        }
}

/// An attribute by its full name. A driver may leave its own domain out.
pub fn attribute<'a>(device: &'a Device, driver: &str, full_name: &str) -> Option<&'a DeviceAttribute> {
    device.attributes.get(full_name).or_else(|| {
        let (domain, name) = full_name.split_once('/')?;
        if domain == driver { device.attributes.get(name) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(text: &str) -> Device {
        serde_json::from_str(text).expect("test data is a device")
    }

    fn chosen(expression: &str) -> Result<bool, String> {
        let device = device(
            r#"{"name":"d","allowMultipleAllocations":true,
                "attributes":{"model":{"string":"a"},"other.io/cores":{"int":8},"fast":{"bool":true},
                              "v":{"version":"1.2.3"}},
                "capacity":{"memory":{"value":"2Gi"}}}"#,
        );
        Selector::compile(expression).map_err(|error| error.to_string())?.matches("dra.io", &device)
    }

    #[test]
    fn expressions_see_attributes_by_domain_and_a_domain_that_is_not_there_as_empty() {
        for (expression, wanted) in [
            ("device.driver == 'dra.io' && device.allowMultipleAllocations", true),
            ("device.attributes['dra.io'].model == 'a'", true),
            ("device.attributes['other.io'].cores > 4", true),
            ("device.attributes['dra.io'].fast", true),
            ("device.attributes['dra.io'].v.isGreaterThan(semver('1.3.0'))", false),
            ("device.capacity['dra.io'].memory.compareTo(quantity('1Gi')) > 0", true),
            ("'nobody.io' in device.attributes", false),
            ("has(device.attributes['nobody.io'].x)", false),
            ("'model' in device.attributes['dra.io']", true),
            ("cel.bind(own, device.attributes['dra.io'], own.fast && own.model == 'b')", false),
        ] {
            assert_eq!(chosen(expression), Ok(wanted), "{expression}");
        }
    }

    #[test]
    fn errors_have_upstreams_words() {
        for (expression, wanted) in [
            ("device.attributes['nobody.io'].x", "no such key: x"),
            (
                "device.attributes['dra.io'].model",
                "CEL result of type string could not be converted to bool: unsupported native conversion from string to 'bool'",
            ),
            ("1", "must evaluate to bool or the unknown type, not int"),
        ] {
            assert_eq!(chosen(expression), Err(wanted.to_owned()), "{expression}");
        }
        let odd = device(r#"{"name":"d","attributes":{"a":{"strings":["x"]}}}"#);
        let refused = Selector::compile("true").unwrap().matches("dra.io", &odd);
        assert_eq!(refused, Err("attribute a: unsupported attribute value".to_owned()));
    }

    #[test]
    fn a_toleration_says_which_taints_it_means() {
        let taint =
            DeviceTaint { key: "k".into(), value: "v".into(), effect: "NoExecute".into(), time_added: None };
        for (toleration, wanted) in [
            (r#"{"operator":"Exists"}"#, true),
            (r#"{"key":"k","operator":"Equal","value":"v"}"#, true),
            (r#"{"key":"k","value":"w"}"#, false),
            (r#"{"key":"other","operator":"Exists"}"#, false),
            (r#"{"key":"k","operator":"Exists","effect":"NoSchedule"}"#, false),
            (r#"{"key":"k","operator":"Unknown"}"#, false),
        ] {
            let read: DeviceToleration = serde_json::from_str(toleration).unwrap();
            assert_eq!(tolerates(&read, &taint), wanted, "{toleration}");
        }
    }
}

//! Objects of a kind, made from bytes.
//!
//! Random JSON hardly ever names a field that its kind has. These objects have nothing but such fields; their values
//! are mostly of the right type, and of the words that rules look at.

use api::Resource;
use apimachinery::decode::FieldValidation;
use apimachinery::schema::{NodeKind, Scalar, SchemaRef};
use apimachinery::{Number, Str, Value};
use libfuzzer_sys::arbitrary::{Result, Unstructured};

const DEPTH_MAX: usize = 14;
const ITEMS_MAX: usize = 3;
/// One value in this many is of a type that its field does not have.
const MISTYPED_ONE_IN: u8 = 32;

/// What a text may be besides anything.
#[rustfmt::skip]
const WORDS: [&str; 111] = [
    "", "a", "b", "web", "default", "kube-system", "*", ".", "..", "/", "-", "/var/run", "a/b", "example.com/name",
    "kubernetes.io/os", "kubernetes.io/service-account-token", "kubernetes.io/tls", "system:node:a", "system:masters",
    "0", "1", "-1", "80", "65536", "50%", "100%", "1Gi", "500m", "1e400", "9223372036854775808", "0x10", "5m", "-5s",
    "10.0.0.1", "10.0.0.0/24", "::1", "fd00::/64", "256.0.0.1", "http", "HTTP", "https", "TCP", "UDP", "SCTP",
    "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456Z", "0 * * * *", "Europe/Berlin", "@daily", "é", "\u{0}",
    "v1", "apps", "apps/v1", "batch/v1", "Pod", "pods", "Node", "Deployment", "Service", "Secret", "ConfigMap",
    "True", "False", "Unknown", "Ready", "Running", "Pending", "Succeeded", "Failed", "Complete", "Terminating",
    "Always", "Never", "OnFailure", "IfNotPresent", "ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "None",
    "IPv4", "IPv6", "Cluster", "Local", "RollingUpdate", "Recreate", "OnDelete", "Exists", "In", "NotIn",
    "DoesNotExist", "Gt", "Equal", "NoSchedule", "NoExecute", "User", "Group", "ServiceAccount", "Resource", "Pods",
    "Utilization", "AverageValue", "Namespaced", "object", "string", "array", "integer", "self.a > 0", "cpu", "memory",
];

/// An object as a client might send it.
pub fn sent(resource: &Resource, bytes: &mut Unstructured<'_>) -> Result<Value> {
    let mut object = shaped(resource.schema.root(), bytes, DEPTH_MAX)?;
    object.set_at(&["apiVersion"], resource.api_version());
    object.set_at(&["kind"], resource.kind.clone());
    if bytes.arbitrary()? {
        object.set_at(&["metadata", "name"], "a");
    }
    Ok(object)
}

/// An object as the registry has it, decoded and with its defaults. `None` for one that is refused.
pub fn accepted(resource: &Resource, bytes: &mut Unstructured<'_>) -> Result<Option<Value>> {
    let mut object = sent(resource, bytes)?;
    let decoded = resource.strategy.decode(&mut object, resource.schema.root(), FieldValidation::Ignore, &[]);
    resource.strategy.default(&mut object);
    Ok(decoded.is_ok().then_some(object))
}

fn shaped(schema: SchemaRef<'_>, bytes: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    if depth == 0 || bytes.ratio(1, MISTYPED_ONE_IN)? {
        return any(bytes, 2);
    }
    Ok(match schema.kind() {
        NodeKind::Any | NodeKind::Holding(_) => any(bytes, 3)?,
        NodeKind::Scalar(scalar) => of_scalar(*scalar, bytes)?,
        NodeKind::Struct(object) if object.fields.is_empty() => any(bytes, 2)?,
        NodeKind::Struct(object) => {
            let mut value = Value::object();
            for _ in 0..bytes.int_in_range(0..=object.fields.len().min(6))? {
                let field = bytes.choose(&object.fields)?;
                let of = shaped(schema.schemas.at(field.node), bytes, depth - 1)?;
                value.ensure_object().insert(&*field.name, of);
            }
            value
        }
        NodeKind::Map { values, .. } => (0..bytes.int_in_range(0..=ITEMS_MAX)?)
            .map(|_| Ok((text(bytes)?, shaped(schema.schemas.at(*values), bytes, depth - 1)?)))
            .collect::<Result<_>>()?,
        NodeKind::List { items, .. } => Value::Array(
            (0..bytes.int_in_range(0..=ITEMS_MAX)?)
                .map(|_| shaped(schema.schemas.at(*items), bytes, depth - 1))
                .collect::<Result<_>>()?,
        ),
    })
}

fn of_scalar(scalar: Scalar, bytes: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match scalar {
        Scalar::Boolean => bytes.arbitrary::<bool>()?.into(),
        Scalar::Int32 => integer(bytes)?.clamp(i32::MIN.into(), i32::MAX.into()).into(),
        Scalar::Int64 => integer(bytes)?.into(),
        Scalar::Double => Value::Number(Number::Float(integer(bytes)? as f64 / 8.0)),
        Scalar::IntOrString if bytes.arbitrary()? => integer(bytes)?.into(),
        Scalar::Bytes => (*bytes.choose(&["", "YQ==", "e30=", "/////w==", "a"])?).into(),
        _ => text(bytes)?.into(),
    })
}

/// Small ones mostly, and those at which arithmetic ends.
fn integer(bytes: &mut Unstructured<'_>) -> Result<i64> {
    const ENDS: [i64; 8] =
        [i64::MIN, i64::MAX, i32::MIN as i64, i32::MAX as i64, 65_536, 1 << 32, i64::MAX - 1, -1];
    Ok(match bytes.arbitrary::<u8>()? {
        choice @ 0..=239 => i64::from(choice / 2) - 8,
        choice => ENDS[usize::from(choice) % ENDS.len()],
    })
}

fn text(bytes: &mut Unstructured<'_>) -> Result<Str> {
    Ok(match bytes.int_in_range(0..=15)? {
        0 => bytes.arbitrary::<&str>()?.into(),
        1 => format!("{}{}", bytes.choose(&WORDS)?, bytes.choose(&WORDS)?).into(),
        _ => (*bytes.choose(&WORDS)?).into(),
    })
}

/// Any JSON.
fn any(bytes: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    Ok(match bytes.int_in_range(0..=if depth == 0 { 4 } else { 6 })? {
        0 => Value::Null,
        1 => bytes.arbitrary::<bool>()?.into(),
        2 => integer(bytes)?.into(),
        3 => Value::Number(Number::Float(integer(bytes)? as f64 / 3.0)),
        4 => text(bytes)?.into(),
        5 => Value::Array(
            (0..bytes.int_in_range(0..=2)?).map(|_| any(bytes, depth - 1)).collect::<Result<_>>()?,
        ),
        _ => (0..bytes.int_in_range(0..=2)?)
            .map(|_| Ok((text(bytes)?, any(bytes, depth - 1)?)))
            .collect::<Result<_>>()?,
    })
}

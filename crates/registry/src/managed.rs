use apimachinery::Value;
use crate::{Endpoint, WriteContext};
pub(crate) fn track_create(_: &Endpoint, _: &WriteContext<'_>, _: &mut Value) {}
pub(crate) fn track_update(_: &Endpoint, _: &WriteContext<'_>, _: &mut Value, _: &Value) {}

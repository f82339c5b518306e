//! (to be written)

use interop::Checks;

use crate::world::Inputs;

pub fn run(_inputs: &Inputs, _checks: &mut Checks) {}

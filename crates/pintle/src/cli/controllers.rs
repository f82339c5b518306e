//! Which controllers run.

use clap::Args;
use controllers::Selection;

#[derive(Args)]
pub struct ControllerArguments {
    /// Controllers to run, joined by commas: `*` are all that are on by default, `foo` is one, `-foo` leaves one out
    #[arg(long, value_name = "NAME,...", default_value = "*", allow_hyphen_values = true)]
    pub controllers: Selection,
}

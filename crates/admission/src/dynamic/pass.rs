//! Looking again: what was changed late is shown once more to those who looked early.

use std::collections::HashSet;

use apimachinery::Value;

/// One write on its way through the mutating plugins, which it passes once or twice.
#[derive(Default)]
pub struct Pass {
    is_second: bool,
    wants_second: bool,
    pub(crate) policies: Revisits,
    pub(crate) webhooks: Revisits,
}

/// Who of one plugin's hooks is asked again in the second pass.
#[derive(Default)]
pub(crate) struct Revisits {
    /// Asked in this pass, and willing to be asked again.
    asked: HashSet<String>,
    /// To be asked in the second pass.
    again: HashSet<String>,
    /// The object as the plugin left it, while somebody may want to know whether it changed since.
    left: Option<Value>,
}

impl Pass {
    pub fn is_second(&self) -> bool {
        self.is_second
    }

    /// Something was changed that earlier plugins have not seen.
    pub fn want_second(&mut self) {
        self.wants_second = true;
    }

    /// Whether there has to be another pass, which begins.
    pub fn begin_second(&mut self) -> bool {
        self.is_second = self.wants_second && !self.is_second;
        self.is_second
    }
}

impl Revisits {
    /// At the begin of the plugin's turn. What others changed since its last one counts as a change.
    pub fn begin(&mut self, is_second: bool, object: Option<&Value>) {
        let left = self.left.take();
        if is_second && left.as_ref() != object {
            self.ask_again();
        }
    }

    /// Everybody who has been asked has to be asked again.
    pub fn ask_again(&mut self) {
        self.again.extend(self.asked.drain());
    }

    pub fn is_to_ask(&self, key: &str) -> bool {
        self.again.contains(key)
    }

    pub fn asked(&mut self, key: &str) {
        self.asked.insert(key.to_owned());
    }

    /// At the end of the plugin's turn.
    pub fn end(&mut self, object: Option<&Value>) {
        // Nobody who could be asked again: then nobody needs to know what it looked like.
        self.left = if self.asked.is_empty() { None } else { object.cloned() };
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn there_are_two_passes_at_most() {
        let mut pass = Pass::default();
        assert!(!pass.begin_second(), "nothing changed");
        pass.want_second();
        assert!(pass.begin_second() && pass.is_second());
        pass.want_second();
        assert!(!pass.begin_second());
    }

    #[test]
    fn those_who_looked_before_a_change_look_again() {
        let mut revisits = Revisits::default();
        revisits.begin(false, Some(&json!(1)));
        revisits.asked("early");
        revisits.ask_again();
        revisits.asked("late");
        revisits.end(Some(&json!(2)));
        revisits.begin(true, Some(&json!(2)));
        assert!(revisits.is_to_ask("early") && !revisits.is_to_ask("late"));
    }

    #[test]
    fn a_change_by_others_concerns_all() {
        let mut revisits = Revisits::default();
        revisits.begin(false, Some(&json!(1)));
        revisits.asked("late");
        revisits.end(Some(&json!(2)));
        revisits.begin(true, Some(&json!(3)));
        assert!(revisits.is_to_ask("late") && !revisits.is_to_ask("never asked"));
    }
}

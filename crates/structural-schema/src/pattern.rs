//! Patterns of schemas: Go's regular expressions (see [`cel::regex`]), compiled on first use and once per text.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use regex::Regex;

/// A pattern of a schema; equal ones are shared by all schemas.
#[derive(Debug)]
pub struct Pattern {
    text: Box<str>,
    compiled: OnceLock<Result<Regex, String>>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

type Shared = Mutex<HashMap<Box<str>, Weak<Pattern>>>;

impl Pattern {
    /// The pattern of this text; the quantity pattern alone stands in a usual cluster's schemas a thousand times.
    pub fn shared(text: &str) -> Arc<Self> {
        static ALL: OnceLock<Shared> = OnceLock::new();
        let mut all = ALL.get_or_init(Shared::default).lock();
        if let Some(own) = all.get(text).and_then(Weak::upgrade) {
            return own;
        }
        if all.len() == all.capacity() {
            all.retain(|_, pattern| pattern.strong_count() > 0);
        }
        let pattern = Arc::new(Self { text: text.into(), compiled: OnceLock::new() });
        all.insert(text.into(), Arc::downgrade(&pattern));
        pattern
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the pattern occurs in `value`; why not, when it is no pattern at all.
    pub fn is_match(&self, value: &str) -> Result<bool, &str> {
        match self.compiled.get_or_init(|| cel::regex::compile(&self.text)) {
            Ok(regex) => Ok(regex.is_match(value)),
            Err(why) => Err(why),
        }
    }

    /// Go's complaint about the pattern.
    pub fn error(&self) -> Option<&str> {
        self.is_match("").err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_searched_for_or_says_why_not() {
        let own = Pattern::shared(r"\d{2}");
        assert_eq!(own.is_match("a 12"), Ok(true));
        assert_eq!(own.is_match("a 1"), Ok(false));
        assert_eq!(Pattern::shared("(a").error(), Some("error parsing regexp: missing closing ): `(a`"));
    }

    #[test]
    fn equal_patterns_are_compiled_once() {
        let (one, two) = (Pattern::shared("^a+$"), Pattern::shared("^a+$"));
        assert!(Arc::ptr_eq(&one, &two));
    }
}

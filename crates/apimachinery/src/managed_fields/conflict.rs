//! What stands in the way of an apply, and the answers that come of it.

use std::fmt;

use super::entry::{Entry, describe};
use super::set::Set;
use crate::status::{Cause, Details};
use crate::{Status, Value};

/// Fields that an apply would change and that another manager owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// As messages name it: `"kubectl"`, or `"scaler" with subresource "scale" using apps/v1`.
    pub manager: String,
    pub fields: Set,
}

impl Conflict {
    pub(super) fn between(entry: &Entry, changed: &Set) -> Option<Self> {
        let fields = entry.set().intersection(changed);
        (!fields.is_empty()).then(|| Self { manager: describe(entry), fields })
    }
}

/// In the order messages list them.
pub(super) fn sorted(mut conflicts: Vec<Conflict>) -> Vec<Conflict> {
    conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
    conflicts
}

/// An apply that did not happen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApplyError {
    #[error("{}", Message(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration cannot be applied to this object.
    #[error("{0}")]
    BadRequest(String),
    /// Upstream answers with status 500 and this text, also where the configuration is to blame.
    #[error("{0}")]
    Internal(String),
}

impl ApplyError {
    pub(super) fn undecodable_entries(entries: &Value) -> Self {
        Self::Internal(format!("failed to decode managed fields: {}", crate::patch::go_print(entries)))
    }

    /// The answer upstream gives.
    pub fn into_status(self) -> Status {
        let message = self.to_string();
        match self {
            Self::BadRequest(_) => Status::bad_request(message),
            Self::Internal(_) => Status::new(500, "", message),
            Self::Conflicts(conflicts) => {
                let causes = conflicts
                    .iter()
                    .flat_map(|conflict| {
                        conflict.fields.paths().into_iter().map(|path| (&conflict.manager, path))
                    })
                    .map(|(manager, field)| Cause {
                        reason: "FieldManagerConflict".into(),
                        message: format!("conflict with {manager}"),
                        field,
                    })
                    .collect();
                Status::new(409, "Conflict", message).with_details(Details { causes, ..Details::default() })
            }
        }
    }
}

/// `Apply failed with 2 conflicts: conflicts with "one":` and the fields, a line each.
struct Message<'a>(&'a [Conflict]);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<(&str, Vec<String>)> =
            self.0.iter().map(|conflict| (conflict.manager.as_str(), conflict.fields.paths())).collect();
        let count: usize = paths.iter().map(|(_, paths)| paths.len()).sum();
        if let ([(manager, one)], 1) = (paths.as_slice(), count) {
            return write!(f, "Apply failed with 1 conflict: conflict with {manager}: {}", one.join(""));
        }
        write!(f, "Apply failed with {count} conflicts: ")?;
        for (index, (manager, paths)) in paths.iter().enumerate() {
            let newline = if index > 0 { "\n" } else { "" };
            write!(f, "{newline}conflicts with {manager}:")?;
            paths.iter().try_for_each(|path| write!(f, "\n- {path}"))?;
        }
        Ok(())
    }
}

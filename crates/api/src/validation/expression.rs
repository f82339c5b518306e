//! Expressions that are refused, in upstream's words.

use apimachinery::field::{Error, ErrorKind, ErrorList, Path};
use cel::Refusal;

/// Complains about the expression of this text.
pub fn refused(errors: &mut ErrorList, refusal: Refusal, text: &str, path: &Path<'_>) {
    errors.push(match refusal {
        Refusal::Invalid(detail) => Error::invalid(path, text, detail),
        Refusal::Internal(detail) => {
            Error { kind: ErrorKind::Internal, path: path.to_string(), shown: None, detail }
        }
    });
}

//! What can go wrong with an image, in the classes that a node reacts to differently.

use std::io;

use camino::Utf8Path;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an image's name: upstream's `InvalidImageName`.
    #[error("couldn't parse image name {name:?}: {problem}")]
    InvalidName { name: String, problem: String },
    /// No such image here, or none in the registry.
    #[error("{0}")]
    NotFound(String),
    /// The registry wants other credentials.
    #[error("{0}")]
    Unauthorized(String),
    /// An image, layer or archive that is not what it has to be; it stays so.
    #[error("{0}")]
    Invalid(String),
    /// Bytes that are not what their digest says, on the way here or on disk.
    #[error("{0}")]
    Corrupt(String),
    /// No progress for as long as that may last.
    #[error("{0}")]
    Stalled(String),
    /// The registry cannot be reached, or says that it has a problem.
    #[error("{0}")]
    Unavailable(String),
    /// The disk is full.
    #[error("{0}")]
    NoSpace(String),
    /// A container is made from it.
    #[error("{0}")]
    InUse(String),
    /// The machine did not do it.
    #[error("{operation}")]
    Io { operation: String, source: io::Error },
}

impl Error {
    pub(crate) fn io(operation: &str, path: &Utf8Path, source: impl Into<io::Error>) -> Self {
        Self::of_io(format!("{operation} {path}"), source.into())
    }

    pub(crate) fn of_io(operation: String, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace(format!("{operation}: no space left on device"))
            }
            _ => Self::Io { operation, source },
        }
    }

    /// Whether trying again at once may help.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

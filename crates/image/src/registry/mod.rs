//! Registries.
use camino::Utf8PathBuf;

/// As whom a registry is asked.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Credential {
    pub username: String,
    pub password: String,
    /// An identity token that the registry's token server exchanges, or else is shown to the registry itself; then
    /// the others are empty.
    pub token: String,
}

pub struct Registries {
    _folder: Option<Utf8PathBuf>,
}
impl Registries {
    pub fn new(folder: Option<Utf8PathBuf>) -> Self {
        Self { _folder: folder }
    }
}

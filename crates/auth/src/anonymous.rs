//! Who may come without showing anything.

/// Which requests that show nothing are taken, as `system:anonymous`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    #[default]
    Everywhere,
    Nowhere,
    /// On these paths alone, exactly as they stand here.
    Paths(Vec<String>),
}

impl Anonymous {
    pub(crate) fn takes(&self, path: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Nowhere => false,
            Self::Paths(paths) => paths.iter().any(|own| own == path),
        }
    }
}

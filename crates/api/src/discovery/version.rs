//! The order of API versions: stable before beta before alpha, higher before lower, anything else last.

use std::cmp::Reverse;

/// Sorts versions so that the preferred one is greatest. Names that are not of the form `v1beta2` come below all that
/// are, the first in the alphabet above the others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Other(Reverse<String>),
    Known(Stage, u32, u32),
}

/// How far a version has come; later variants are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Alpha,
    Beta,
    Stable,
}

pub fn rank(version: &str) -> Rank {
    parse(version).unwrap_or_else(|| Rank::Other(Reverse(version.to_owned())))
}

fn parse(version: &str) -> Option<Rank> {
    let rest = version.strip_prefix('v')?;
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    let (major, suffix) = rest.split_at(end);
    let (stage, minor) = match (suffix.strip_prefix("alpha"), suffix.strip_prefix("beta")) {
        _ if suffix.is_empty() => (Stage::Stable, "0"),
        (Some(minor), _) => (Stage::Alpha, minor),
        (_, Some(minor)) => (Stage::Beta, minor),
        _ => return None,
    };
    Some(Rank::Known(stage, major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_version_sorts_highest() {
        let mut versions =
            ["v1alpha1", "v2beta1", "foo", "v10", "v1", "v1beta2", "v11alpha2", "v1beta10", "bar", "v2"];
        versions.sort_by_key(|version| Reverse(rank(version)));
        let expected =
            ["v10", "v2", "v1", "v2beta1", "v1beta10", "v1beta2", "v11alpha2", "v1alpha1", "bar", "foo"];
        assert_eq!(versions, expected);
    }
}

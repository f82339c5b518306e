//! What a registry wants to see of who asks: `WWW-Authenticate`, read.

use std::collections::BTreeMap;

/// A way to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// Tokens are to be had there.
    Bearer {
        realm: String,
        service: String,
        scope: String,
        error: String,
    },
}

/// All ways that are understood, from all headers of that name. What is not understood is left out.
pub(super) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    headers.flat_map(parse_one).collect()
}

fn parse_one(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',', '\t']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            break;
        }
        if let Some(value) = after.trim_start().strip_prefix('=') {
            let (value, after) = value_of(value.trim_start());
            if let Some((_, parameters)) = found.last_mut() {
                parameters.insert(word.to_ascii_lowercase(), value);
            }
            rest = after;
        } else {
            found.push((word.to_ascii_lowercase(), BTreeMap::new()));
            rest = after;
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    found
        .into_iter()
        .filter_map(|(scheme, mut parameters)| {
            let mut take = |name: &str| parameters.remove(name).unwrap_or_default();
            match scheme.as_str() {
                "basic" => Some(Challenge::Basic),
                "bearer" => Some(Challenge::Bearer {
                    realm: take("realm"),
                    service: take("service"),
                    scope: take("scope"),
                    error: take("error"),
                }),
                _ => None,
            }
        })
        .collect()
}

/// A word, or anything in quotes, and what follows.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[index + 1..]),
            '\\' => value.extend(characters.next().map(|(_, character)| character)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str, error: &str) -> Challenge {
        let own = str::to_owned;
        Challenge::Bearer { realm: own(realm), service: own(service), scope: own(scope), error: own(error) }
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        for (header, wanted) in [
            ("Basic realm=\"x\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\"",
                vec![bearer(
                    "https://auth.docker.io/token",
                    "registry.docker.io",
                    "repository:a/b:pull,push",
                    "",
                )],
            ),
            (
                "Bearer realm = \"https://a/t\" , service=s, error=\"insufficient_scope\"",
                vec![bearer("https://a/t", "s", "", "insufficient_scope")],
            ),
            (
                "Basic realm=\"a\", Bearer realm=\"https://b\"",
                vec![Challenge::Basic, bearer("https://b", "", "", "")],
            ),
            ("Negotiate, Basic", vec![Challenge::Basic]),
            ("Bearer realm=\"a\\\"b\"", vec![bearer("a\"b", "", "", "")]),
            ("Bearer realm=\"open", vec![bearer("open", "", "", "")]),
            ("", vec![]),
            (",,=,", vec![]),
            ("é=\"ü\" Basic", vec![Challenge::Basic]),
        ] {
            assert_eq!(parse([header].into_iter()), wanted, "{header}");
        }
    }
}

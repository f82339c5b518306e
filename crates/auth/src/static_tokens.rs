//! Tokens in a file (`--token-auth-file`), read once: `token,user,uid` and, in quotes, `"group,group"`.

use std::collections::HashMap;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::authenticator::{Recognized, TokenSource};
use crate::secret::fingerprint;
use crate::user::UserInfo;

/// Takes the tokens of a file.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StaticTokens {
    /// By the SHA-256 of the token, so that a look-up tells nothing about it.
    users: HashMap<[u8; 32], UserInfo>,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StaticTokensError {
    #[error("line {line}: it must have at least 3 columns (token, user name, user uid), found {found}")]
    Columns { line: usize, found: usize },
    #[error("line {line}: a quote is not closed, or stands within a column that does not begin with one")]
    Quotes { line: usize },
}

impl StaticTokens {
    /// Reads comma-separated values. Of two lines with one token the later counts; one without a token is skipped.
    pub fn parse(text: &str) -> Result<Self, StaticTokensError> {
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let line_number = index + 1;
            let columns = columns(line).ok_or(StaticTokensError::Quotes { line: line_number })?;
            let [token, name, uid, more @ ..] = columns.as_slice() else {
                return Err(StaticTokensError::Columns { line: line_number, found: columns.len() });
            };
            if token.is_empty() {
                tracing::warn!(line = line_number, "Skipped an empty token of the token file");
                continue;
            }
            let mut user = UserInfo::new(name.as_str()).with_uid(uid.as_str());
            if let Some(groups) = more.first() {
                user = user.with_groups(groups.split(','));
            }
            if users.insert(fingerprint(token.as_bytes()), user).is_some() {
                tracing::warn!(line = line_number, "The token file has a token twice");
            }
        }
        Ok(Self { users })
    }
}

// Users are no secret, but what stands beside them is.
impl std::fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticTokens").field("count", &self.users.len()).finish()
    }
}

#[async_trait]
impl TokenSource for StaticTokens {
    async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        _: SystemTime,
    ) -> Result<Option<Recognized>, String> {
        let user = self.users.get(&fingerprint(token.as_bytes()));
        Ok(user.map(|user| Recognized::new(user.clone(), audiences)))
    }
}

/// The columns of a line; in quotes a comma is text and two quotes are one. `None` if the quotes do not pair.
fn columns(line: &str) -> Option<Vec<String>> {
    let mut columns = Vec::new();
    let mut rest = line;
    loop {
        let (column, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_column(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (column, after) = rest.split_at(end);
                (!column.contains('"')).then(|| (column.to_owned(), after))?
            }
        };
        columns.push(column);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None if after.is_empty() => return Some(columns),
            None => return None,
        }
    }
}

fn quoted_column(mut rest: &str) -> Option<(String, &str)> {
    let mut column = String::new();
    loop {
        let (text, after) = rest.split_once('"')?;
        column.push_str(text);
        match after.strip_prefix('"') {
            Some(more) => {
                column.push('"');
                rest = more;
            }
            None => return Some((column, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_comma_separated_values() {
        let cases = [
            ("t,jane,1", "jane/1/"),
            ("t,jane,1,dev", "jane/1/dev"),
            ("t,jane,1,\"dev,ops\",ignored", "jane/1/dev,ops"),
            ("t,\"ja\"\"ne\",1", "ja\"ne/1/"),
            ("t,first,1\nt,second,2", "second/2/"),
            (",nobody,1\n\nt,jane,1", "jane/1/"),
            ("t,jane", "line 1: it must have at least 3 columns (token, user name, user uid), found 2"),
            (
                "x,y,z\nt,\"jane,1",
                "line 2: a quote is not closed, or stands within a column that does not begin with one",
            ),
        ];
        for (text, expected) in cases {
            let outcome = match StaticTokens::parse(text) {
                Ok(tokens) => {
                    let user = &tokens.users[&fingerprint(b"t")];
                    format!("{}/{}/{}", user.name(), user.uid(), user.groups().join(","))
                }
                Err(error) => error.to_string(),
            };
            assert_eq!(outcome, expected, "{text}");
        }
    }
}

//! [`Token`]: a bootstrap token.

use std::fmt;
use std::str::FromStr;

/// Id and secret. The id is no secret: it is in the name of the token's Secret, and in that of the user that comes with
/// it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    pub secret: String,
}

const ID_LEN: usize = 6;
const SECRET_LEN: usize = 16;

impl Token {
    /// # Errors
    /// Where the machine gives no random bytes.
    pub fn random() -> Result<Self, pki::Error> {
        Ok(Self { id: pki::random_text(ID_LEN)?, secret: pki::random_text(SECRET_LEN)? })
    }

    /// Whether this is a token's id.
    pub fn is_id(text: &str) -> bool {
        is_part(text, ID_LEN)
    }
}

fn is_part(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('.')
            .filter(|(id, secret)| is_part(id, ID_LEN) && is_part(secret, SECRET_LEN))
            .map(|(id, secret)| Self { id: id.to_owned(), secret: secret.to_owned() })
            .ok_or_else(|| {
                "a token has the form abcdef.0123456789abcdef: lower-case letters and digits".to_owned()
            })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

// The secret stays out of logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.…", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_an_id_and_a_secret() {
        let token: Token = "abcdef.0123456789abcdef".parse().expect("it is one");
        assert_eq!((token.id.as_str(), token.secret.as_str()), ("abcdef", "0123456789abcdef"));
        assert_eq!(format!("{token} {token:?}"), "abcdef.0123456789abcdef abcdef.…");
        for wrong in
            ["", "abcdef", "abcdef.0123456789abcde", "ABCDEF.0123456789abcdef", "abcde-.0123456789abcdef"]
        {
            assert!(wrong.parse::<Token>().is_err(), "{wrong}");
        }
        let random = Token::random().expect("random bytes");
        assert_eq!(random.to_string().parse(), Ok(random.clone()));
        assert_ne!(Token::random().expect("random bytes"), random);
    }
}

//! The query-string grammar of label selectors.
//!
//! Tokens are read one ahead; `in` and `notin` are words of the grammar only where an operator may stand, so labels
//! may carry those names.

use std::collections::BTreeSet;

use super::{Operator, Requirement, Selector, SelectorError, check_key};
use crate::Str;
use crate::field::{self, Path};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Error,
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

/// Where a token is read decides whether `in` is a word or a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Operator,
    Value,
}

type Result<T> = std::result::Result<T, SelectorError>;

pub(super) fn selector(text: &str) -> Result<Selector> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    parser.selector().map(Selector::of)
}

fn keyword(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "in" => Token::In,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "notin" => Token::NotIn,
        "(" => Token::Open,
        _ => return None,
    })
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// All tokens with their text; the last is always [`Token::End`].
fn tokens(text: &str) -> Vec<(Token, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(&first) = rest.as_bytes().first().filter(|&&byte| byte != 0) else {
            found.push((Token::End, String::new()));
            return found;
        };
        let (token, literal, length) = if is_special(first) { special(rest) } else { word(rest) };
        found.push((token, literal));
        rest = &rest[length..];
    }
}

fn word(rest: &str) -> (Token, String, usize) {
    let end =
        rest.bytes().position(|byte| is_special(byte) || is_space(byte) || byte == 0).unwrap_or(rest.len());
    let literal = &rest[..end];
    (keyword(literal).unwrap_or(Token::Identifier), literal.to_owned(), end)
}

/// The longest run of special bytes that is a symbol. A run without one, such as `!!`, is read whole up to where it
/// first becomes one.
fn special(rest: &str) -> (Token, String, usize) {
    let run = rest.bytes().position(|byte| !is_special(byte)).unwrap_or(rest.len());
    let mut last = None;
    for end in 1..=run {
        match keyword(&rest[..end]) {
            Some(token) => last = Some((token, end)),
            None if last.is_some() => break,
            None => {}
        }
    }
    match last {
        Some((token, end)) => (token, rest[..end].to_owned(), end),
        None => (Token::Error, format!("error expected: keyword found '{}'", &rest[..run]), run),
    }
}

struct Parser {
    tokens: Vec<(Token, String)>,
    at: usize,
}

fn fail<T>(text: String) -> Result<T> {
    Err(SelectorError(text))
}

impl Parser {
    fn peek(&self, context: Context) -> (Token, &str) {
        // Reading on past the end stays there.
        let (token, literal) =
            self.tokens.get(self.at).unwrap_or_else(|| &self.tokens[self.tokens.len() - 1]);
        let token = match token {
            Token::In | Token::NotIn if context == Context::Value => Token::Identifier,
            other => *other,
        };
        (token, literal)
    }

    fn take(&mut self, context: Context) -> (Token, String) {
        let (token, literal) = self.peek(context);
        let taken = (token, literal.to_owned());
        self.at += 1;
        taken
    }

    fn selector(&mut self) -> Result<Vec<Requirement>> {
        let mut requirements = Vec::new();
        loop {
            match self.peek(Context::Value) {
                (Token::Identifier | Token::Not, _) => {
                    let requirement = self
                        .requirement()
                        .map_err(|error| SelectorError(format!("unable to parse requirement: {error}")))?;
                    requirements.push(requirement);
                    match self.take(Context::Value) {
                        (Token::End, _) => return Ok(requirements),
                        (Token::Comma, _) => match self.peek(Context::Value) {
                            (Token::Identifier | Token::Not, _) => {}
                            (_, literal) => {
                                return fail(format!("found '{literal}', expected: identifier after ','"));
                            }
                        },
                        (_, literal) => {
                            return fail(format!("found '{literal}', expected: ',' or 'end of string'"));
                        }
                    }
                }
                (Token::End, _) => return Ok(requirements),
                (_, literal) => {
                    return fail(format!("found '{literal}', expected: !, identifier, or 'end of string'"));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement> {
        let (mut token, mut key) = self.take(Context::Value);
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.take(Context::Value);
        }
        if token != Token::Identifier {
            return fail(format!("found '{key}', expected: identifier"));
        }
        // Upstream has no path here, and prints that it has none.
        let mut errors = field::ErrorList::new();
        check_key(&key, &Path::root("<nil>"), &mut errors);
        super::aggregate(&errors)?;
        if negated {
            return Requirement::new(&key, Operator::DoesNotExist, [].into_iter().collect());
        }
        if matches!(self.peek(Context::Value).0, Token::End | Token::Comma) {
            return Requirement::new(&key, Operator::Exists, [].into_iter().collect());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => [self.exact_value()?].into(),
        };
        Requirement::new(&key, operator, values.into_iter().collect())
    }

    fn operator(&mut self) -> Result<Operator> {
        Ok(match self.take(Context::Operator) {
            (Token::In, _) => Operator::In,
            (Token::NotIn, _) => Operator::NotIn,
            (Token::Equals, _) => Operator::Equals,
            (Token::DoubleEquals, _) => Operator::DoubleEquals,
            (Token::NotEquals, _) => Operator::NotEquals,
            (Token::Greater, _) => Operator::GreaterThan,
            (Token::Less, _) => Operator::LessThan,
            (_, literal) => {
                return fail(format!("found '{literal}', expected: in, notin, =, ==, !=, gt, lt"));
            }
        })
    }

    fn values(&mut self) -> Result<BTreeSet<Str>> {
        match self.take(Context::Value) {
            (Token::Open, _) => {}
            (_, literal) => return fail(format!("found '{literal}' expected: '('")),
        }
        match self.peek(Context::Value) {
            (Token::Identifier | Token::Comma, literal) => {
                let first = literal.to_owned();
                let values = self.value_list()?;
                match self.take(Context::Value) {
                    (Token::Close, _) => Ok(values),
                    _ => fail(format!("found '{first}', expected: ')'")),
                }
            }
            (Token::Close, _) => {
                self.at += 1;
                Ok([Str::default()].into())
            }
            (_, literal) => fail(format!("found '{literal}', expected: ',', ')' or identifier")),
        }
    }

    /// Values between parentheses; a missing value between commas is the empty string.
    fn value_list(&mut self) -> Result<BTreeSet<Str>> {
        let mut values = BTreeSet::new();
        loop {
            match self.take(Context::Value) {
                (Token::Identifier, literal) => {
                    values.insert(literal.into());
                    match self.peek(Context::Value) {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, literal) => return fail(format!("found '{literal}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.insert(Str::default());
                    }
                    match self.peek(Context::Value).0 {
                        Token::Close => {
                            values.insert(Str::default());
                            return Ok(values);
                        }
                        Token::Comma => {
                            values.insert(Str::default());
                        }
                        _ => {}
                    }
                }
                (_, literal) => return fail(format!("found '{literal}', expected: ',', or identifier")),
            }
        }
    }

    fn exact_value(&mut self) -> Result<Str> {
        if matches!(self.peek(Context::Value).0, Token::End | Token::Comma) {
            return Ok(Str::default());
        }
        match self.take(Context::Value) {
            (Token::Identifier, literal) => Ok(literal.into()),
            (_, literal) => fail(format!("found '{literal}', expected: identifier")),
        }
    }
}

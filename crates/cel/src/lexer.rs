//! Text into tokens, with the complaints upstream's generated lexer makes about what is no token.

use std::fmt::Write as _;

/// In upstream's numbering order, which is the order of lists of expected tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Token {
    Equals,
    NotEquals,
    In,
    Less,
    LessEquals,
    GreaterEquals,
    Greater,
    And,
    Or,
    LeftBracket,
    RightBracket,
    LeftBrace,
    RightBrace,
    LeftParen,
    RightParen,
    Dot,
    Comma,
    Minus,
    Exclamation,
    Question,
    Colon,
    Plus,
    Star,
    Slash,
    Percent,
    True,
    False,
    Null,
    Float,
    Int,
    Uint,
    String,
    Bytes,
    Ident,
    EscapedIdent,
    End,
}

impl Token {
    /// As it is named in "expecting …".
    pub fn name(self) -> &'static str {
        match self {
            Self::Equals => "'=='",
            Self::NotEquals => "'!='",
            Self::In => "'in'",
            Self::Less => "'<'",
            Self::LessEquals => "'<='",
            Self::GreaterEquals => "'>='",
            Self::Greater => "'>'",
            Self::And => "'&&'",
            Self::Or => "'||'",
            Self::LeftBracket => "'['",
            Self::RightBracket => "']'",
            Self::LeftBrace => "'{'",
            Self::RightBrace => "'}'",
            Self::LeftParen => "'('",
            Self::RightParen => "')'",
            Self::Dot => "'.'",
            Self::Comma => "','",
            Self::Minus => "'-'",
            Self::Exclamation => "'!'",
            Self::Question => "'?'",
            Self::Colon => "':'",
            Self::Plus => "'+'",
            Self::Star => "'*'",
            Self::Slash => "'/'",
            Self::Percent => "'%'",
            Self::True => "'true'",
            Self::False => "'false'",
            Self::Null => "'null'",
            Self::Float => "NUM_FLOAT",
            Self::Int => "NUM_INT",
            Self::Uint => "NUM_UINT",
            Self::String => "STRING",
            Self::Bytes => "BYTES",
            Self::Ident => "IDENTIFIER",
            Self::EscapedIdent => "ESC_IDENTIFIER",
            Self::End => "<EOF>",
        }
    }
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lexeme<'s> {
    pub token: Token,
    pub text: &'s str,
    /// In code points.
    pub offset: u32,
    /// In bytes.
    pub start: usize,
}

/// Text that is no token: where it begins and how upstream words it.
#[derive(Debug)]
pub(crate) struct LexError {
    pub offset: u32,
    pub message: String,
}

/// All tokens, the last one being [`Token::End`], and what was skipped.
pub(crate) fn tokenize(text: &str) -> (Vec<Lexeme<'_>>, Vec<LexError>) {
    let mut lexer = Lexer { text, at: 0, offset: 0, errors: Vec::new() };
    let mut lexemes = Vec::with_capacity(text.len() / 3 + 1);
    while let Some(lexeme) = lexer.next() {
        lexemes.push(lexeme);
    }
    lexemes.push(Lexeme { token: Token::End, text: "<EOF>", offset: lexer.offset, start: text.len() });
    (lexemes, lexer.errors)
}

struct Lexer<'s> {
    text: &'s str,
    at: usize,
    offset: u32,
    errors: Vec<LexError>,
}

impl<'s> Lexer<'s> {
    fn next(&mut self) -> Option<Lexeme<'s>> {
        loop {
            self.skip_blank();
            let rest = &self.text[self.at..];
            if rest.is_empty() {
                return None;
            }
            match scan(rest) {
                Ok((token, length)) => {
                    let lexeme = Lexeme { token, text: &rest[..length], offset: self.offset, start: self.at };
                    self.advance(length);
                    return Some(lexeme);
                }
                Err(length) => {
                    self.errors.push(LexError {
                        offset: self.offset,
                        message: format!("token recognition error at: '{}'", &rest[..length]),
                    });
                    self.advance(length);
                }
            }
        }
    }

    fn advance(&mut self, bytes: usize) {
        let passed = &self.text[self.at..self.at + bytes];
        self.offset += u32::try_from(passed.chars().count()).expect("expressions are far shorter than 4 GiB");
        self.at += bytes;
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let length = match rest {
                [b'\t' | b' ' | b'\r' | b'\n' | 0x0c, ..] => 1,
                [b'/', b'/', ..] => rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()),
                _ => return,
            };
            self.advance(length);
        }
    }
}

/// The longest token at the beginning of `text` and its length, or the length of what cannot be one: up to and
/// including the character at which no token can go on.
fn scan(text: &str) -> Result<(Token, usize), usize> {
    let bytes = text.as_bytes();
    let second = bytes.get(1).copied();
    let pair = |wanted: u8, token: Token| {
        if second == Some(wanted) { Ok((token, 2)) } else { Err(through(text, 1)) }
    };
    let either = |wanted: u8, long: Token, short: Token| {
        if second == Some(wanted) { Ok((long, 2)) } else { Ok((short, 1)) }
    };
    match bytes[0] {
        b'=' => pair(b'=', Token::Equals),
        b'&' => pair(b'&', Token::And),
        b'|' => pair(b'|', Token::Or),
        b'!' => either(b'=', Token::NotEquals, Token::Exclamation),
        b'<' => either(b'=', Token::LessEquals, Token::Less),
        b'>' => either(b'=', Token::GreaterEquals, Token::Greater),
        b'[' => Ok((Token::LeftBracket, 1)),
        b']' => Ok((Token::RightBracket, 1)),
        b'{' => Ok((Token::LeftBrace, 1)),
        b'}' => Ok((Token::RightBrace, 1)),
        b'(' => Ok((Token::LeftParen, 1)),
        b')' => Ok((Token::RightParen, 1)),
        b',' => Ok((Token::Comma, 1)),
        b'-' => Ok((Token::Minus, 1)),
        b'?' => Ok((Token::Question, 1)),
        b':' => Ok((Token::Colon, 1)),
        b'+' => Ok((Token::Plus, 1)),
        b'*' => Ok((Token::Star, 1)),
        b'/' => Ok((Token::Slash, 1)),
        b'%' => Ok((Token::Percent, 1)),
        b'.' if second.is_some_and(|byte| byte.is_ascii_digit()) => Ok(number(text)),
        b'.' => Ok((Token::Dot, 1)),
        b'0'..=b'9' => Ok(number(text)),
        b'"' | b'\'' => quoted(text, 0).map(|length| (Token::String, length)),
        b'`' => escaped_ident(text),
        b'_' | b'a'..=b'z' | b'A'..=b'Z' => Ok(word(text)),
        _ => Err(through(text, 0)),
    }
}

/// The length of `text` through the character at byte `at`.
fn through(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(text.len(), |character| at + character.len_utf8())
}

fn number(text: &str) -> (Token, usize) {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let unsigned = |at: usize| matches!(bytes.get(at), Some(b'u' | b'U'));
    if text.starts_with("0x") {
        let hex = bytes[2..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if hex > 0 {
            let end = 2 + hex;
            return if unsigned(end) { (Token::Uint, end + 1) } else { (Token::Int, end) };
        }
    }
    let mut end = digits(0);
    let mut float = false;
    if bytes.get(end) == Some(&b'.') && digits(end + 1) > 0 {
        end += 1 + digits(end + 1);
        float = true;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = bytes.get(end + 1 + sign).map_or(0, |_| digits(end + 1 + sign));
        if exponent > 0 {
            end += 1 + sign + exponent;
            float = true;
        }
    }
    if float {
        (Token::Float, end)
    } else if unsigned(end) {
        (Token::Uint, end + 1)
    } else {
        (Token::Int, end)
    }
}

fn word(text: &str) -> (Token, usize) {
    if let Some(literal) = prefixed_literal(text) {
        return literal;
    }
    let length = text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    let token = match &text[..length] {
        "in" => Token::In,
        "true" => Token::True,
        "false" => Token::False,
        "null" => Token::Null,
        _ => Token::Ident,
    };
    (token, length)
}

/// `r"…"`, `b"…"` and `br"…"`; anything else that begins so is a word.
fn prefixed_literal(text: &str) -> Option<(Token, usize)> {
    let bytes = text.as_bytes();
    let is_bytes = matches!(bytes[0], b'b' | b'B');
    let at = usize::from(is_bytes);
    let raw = matches!(bytes.get(at), Some(b'r' | b'R'));
    let quote = at + usize::from(raw);
    if quote == 0 || !matches!(bytes.get(quote), Some(b'"' | b'\'')) {
        return None;
    }
    let length = if raw { raw_quoted(text, quote) } else { quoted(text, quote).ok() }?;
    Some((if is_bytes { Token::Bytes } else { Token::String }, length))
}

/// The end of the string whose opening quote is at `from`, or the end of what makes it none.
fn quoted(text: &str, from: usize) -> Result<usize, usize> {
    let quote = &text[from..=from];
    let triple = quote.repeat(3);
    if text[from..].starts_with(&triple)
        && let Ok(end) = quoted_until(text, from + 3, &triple, true)
    {
        return Ok(end);
    }
    quoted_until(text, from + 1, quote, false)
}

fn quoted_until(text: &str, from: usize, close: &str, lines: bool) -> Result<usize, usize> {
    let mut at = from;
    loop {
        let rest = &text[at..];
        if rest.starts_with(close) {
            return Ok(at + close.len());
        }
        match rest.chars().next() {
            None => return Err(text.len()),
            Some('\n' | '\r') if !lines => return Err(at + 1),
            Some('\\') => at = escape(text, at)?,
            Some(other) => at += other.len_utf8(),
        }
    }
}

/// The end of the escape sequence at `at`, or the end of the character that makes it none.
fn escape(text: &str, at: usize) -> Result<usize, usize> {
    let bytes = text.as_bytes();
    let hex = |count: usize| (at + 2, count, u8::is_ascii_hexdigit as fn(&u8) -> bool);
    let (from, count, allowed) = match bytes.get(at + 1) {
        Some(b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`') => {
            return Ok(at + 2);
        }
        Some(b'x' | b'X') => hex(2),
        Some(b'u') => hex(4),
        Some(b'U') => hex(8),
        Some(b'0'..=b'3') => (at + 2, 2, (|byte: &u8| matches!(byte, b'0'..=b'7')) as fn(&u8) -> bool),
        _ => return Err(through(text, (at + 1).min(text.len()))),
    };
    for position in from..from + count {
        if !bytes.get(position).is_some_and(allowed) {
            return Err(through(text, position.min(text.len())));
        }
    }
    Ok(from + count)
}

fn raw_quoted(text: &str, from: usize) -> Option<usize> {
    let quote = &text[from..=from];
    let triple = quote.repeat(3);
    if text[from..].starts_with(&triple)
        && let Some(end) = text[from + 3..].find(&triple)
    {
        return Some(from + 3 + end + 3);
    }
    let stops = |character: char| matches!(character, '\n' | '\r') || quote.starts_with(character);
    let end = from + 1 + text[from + 1..].find(stops)?;
    text[end..].starts_with(quote).then_some(end + 1)
}

fn escaped_ident(text: &str) -> Result<(Token, usize), usize> {
    let inner = text
        .bytes()
        .skip(1)
        .take_while(|byte| matches!(byte, b'_' | b'.' | b'-' | b'/' | b' ') || byte.is_ascii_alphanumeric());
    let end = 1 + inner.count();
    if end > 1 && text.as_bytes().get(end) == Some(&b'`') {
        Ok((Token::EscapedIdent, end + 1))
    } else {
        Err(through(text, end))
    }
}

/// Why a quoted literal has no value.
pub(crate) type UnescapeError = &'static str;

/// The value of a string literal, quotes and escapes resolved.
pub(crate) fn unescape(literal: &str) -> Result<String, UnescapeError> {
    let bytes = unescape_bytes(literal, false)?;
    String::from_utf8(bytes).map_err(|_| "unable to unescape string")
}

/// The value of a bytes literal without its `b`; here `\x` and octal escapes are bytes and not characters.
pub(crate) fn unescape_bytes(literal: &str, as_bytes: bool) -> Result<Vec<u8>, UnescapeError> {
    let normalized = literal.replace("\r\n", "\n").replace('\r', "\n");
    let (raw, quoted) = match normalized.strip_prefix(['r', 'R']) {
        Some(rest) => (true, rest),
        None => (false, &*normalized),
    };
    let width =
        if quoted.len() >= 6 && (quoted.starts_with("'''") || quoted.starts_with("\"\"\"")) { 3 } else { 1 };
    let inner = quoted.get(width..quoted.len().saturating_sub(width)).ok_or("unable to unescape string")?;
    if raw || !inner.contains('\\') {
        return Ok(inner.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        if character == '\\' {
            rest = unescape_one(rest, as_bytes, &mut out)?;
        } else {
            push_char(&mut out, character);
        }
    }
    Ok(out)
}

fn push_char(out: &mut Vec<u8>, character: char) {
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Resolves what follows a backslash and returns the rest.
fn unescape_one<'s>(text: &'s str, as_bytes: bool, out: &mut Vec<u8>) -> Result<&'s str, UnescapeError> {
    let code = text.chars().next().ok_or("unable to unescape string, found '\\' as last character")?;
    let rest = &text[code.len_utf8()..];
    let plain = match code {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' | '\'' | '"' | '`' | '?' => code as u8,
        'x' | 'X' => return numeric(rest, 2, 16, as_bytes, "unable to unescape string", out),
        'u' if !as_bytes => return numeric(rest, 4, 16, false, "unable to unescape string", out),
        'U' if !as_bytes => return numeric(rest, 8, 16, false, "unable to unescape string", out),
        '0'..='3' => {
            return numeric(text, 3, 8, as_bytes, "unable to unescape octal sequence in string", out);
        }
        _ => return Err("unable to unescape string"),
    };
    out.push(plain);
    Ok(rest)
}

fn numeric<'s>(
    text: &'s str,
    digits: usize,
    radix: u32,
    as_byte: bool,
    complaint: UnescapeError,
    out: &mut Vec<u8>,
) -> Result<&'s str, UnescapeError> {
    let value =
        text.get(..digits).and_then(|digits| u32::from_str_radix(digits, radix).ok()).ok_or(complaint)?;
    if as_byte {
        out.push(u8::try_from(value).map_err(|_| complaint)?);
    } else {
        push_char(out, char::from_u32(value).ok_or("invalid unicode code point")?);
    }
    Ok(&text[digits..])
}

/// `{'[', '{'}` or, of one token, `'['`.
pub(crate) fn expectation(tokens: &[Token]) -> String {
    let mut sorted = tokens.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    match *sorted {
        [only] => only.name().into(),
        _ => {
            let mut out = String::from("{");
            for (at, token) in sorted.iter().enumerate() {
                let separator = if at > 0 { ", " } else { "" };
                let _ = write!(out, "{separator}{}", token.name());
            }
            out.push('}');
            out
        }
    }
}

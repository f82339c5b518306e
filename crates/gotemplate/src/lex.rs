//! From a text to tokens, as Go's lexer cuts it.

/// A token; its text is the part of the template that it was made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Token<'t> {
    pub kind: Kind,
    pub position: usize,
    pub line: usize,
    pub text: &'t str,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Text,
    LeftDelimiter,
    RightDelimiter,
    Space,
    Bool,
    /// `,` and what else has no meaning of its own.
    Punctuation,
    /// `'a'`
    Character,
    Number,
    Declare,
    Assign,
    Pipe,
    LeftParenthesis,
    RightParenthesis,
    String,
    RawString,
    Dot,
    Field,
    Variable,
    Identifier,
    Nil,
    /// Of the language: `if`, `end`, …
    Keyword,
    Error(String),
    End,
}

const LEFT: &str = "{{";
const RIGHT: &str = "}}";
const KEYWORDS: [&str; 10] =
    ["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];

impl Token<'_> {
    /// As complaints show it.
    pub fn shown(&self) -> String {
        match &self.kind {
            Kind::End => "EOF".into(),
            Kind::Error(message) => message.clone(),
            Kind::Keyword => format!("<{}>", self.text),
            Kind::Nil => "<nil>".into(),
            Kind::Dot => "<.>".into(),
            _ if self.text.chars().count() > 10 => {
                let start: String = self.text.chars().take(10).collect();
                format!("{}...", crate::format::quote(&start))
            }
            _ => crate::format::quote(self.text),
        }
    }
}

/// All tokens; the last is [`Kind::End`] or [`Kind::Error`].
pub fn lex(text: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { text, start: 0, at: 0, line: 1, parentheses: 0, tokens: Vec::new() };
    if let Err(message) = lexer.run() {
        lexer.emit(Kind::Error(message));
    }
    lexer.tokens
}

struct Lexer<'t> {
    text: &'t str,
    /// Where the token begins, and its line.
    start: usize,
    at: usize,
    line: usize,
    parentheses: usize,
    tokens: Vec<Token<'t>>,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn emit(&mut self, kind: Kind) {
        let text = &self.text[self.start..self.at];
        self.tokens.push(Token { kind, position: self.start, line: self.line, text });
        self.skip();
    }

    /// The next token begins here.
    fn skip(&mut self) {
        self.line += self.text[self.start..self.at].matches('\n').count();
        self.start = self.at;
    }

    fn advance_while(&mut self, accepted: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.at += rest.find(|letter| !accepted(letter)).unwrap_or(rest.len());
    }

    fn run(&mut self) -> Result<(), String> {
        let mut trim_start = false;
        loop {
            if trim_start {
                self.advance_while(is_space);
                self.skip();
            }
            let Some(left) = self.rest().find(LEFT) else {
                self.at = self.text.len();
                self.emit_text(self.at);
                self.emit(Kind::End);
                return Ok(());
            };
            let action = self.at + left;
            self.at = action + LEFT.len();
            let trims = trims_left(self.rest());
            self.at = action;
            let end = if trims {
                self.start + self.text[self.start..action].trim_end_matches(is_space).len()
            } else {
                action
            };
            self.emit_text(end);
            self.at = action;
            self.skip();
            trim_start = self.action(trims)?;
        }
    }

    fn emit_text(&mut self, end: usize) {
        self.at = end;
        if self.at > self.start {
            self.emit(Kind::Text);
        }
    }

    /// From `{{` to `}}`; returns whether the space behind it goes.
    fn action(&mut self, trims: bool) -> Result<bool, String> {
        let marker = if trims { 2 } else { 0 };
        if self.text[self.at + LEFT.len() + marker..].starts_with("/*") {
            return self.comment(LEFT.len() + marker);
        }
        self.at += LEFT.len();
        self.emit(Kind::LeftDelimiter);
        self.at += marker;
        self.skip();
        self.parentheses = 0;
        loop {
            if let Some(marker) = closes(self.rest()) {
                if self.parentheses > 0 {
                    return Err("unclosed left paren".into());
                }
                self.at += marker;
                self.skip();
                self.at += RIGHT.len();
                self.emit(Kind::RightDelimiter);
                return Ok(marker > 0);
            }
            self.inside()?;
        }
    }

    fn comment(&mut self, opening: usize) -> Result<bool, String> {
        let body = self.at + opening;
        let end = self.text[body..].find("*/").ok_or("unclosed comment")?;
        self.at = body + end + 2;
        let marker = closes(self.rest()).ok_or("comment ends before closing delimiter")?;
        self.at += marker + RIGHT.len();
        self.skip();
        Ok(marker > 0)
    }

    /// One token of an action.
    fn inside(&mut self) -> Result<(), String> {
        let Some(letter) = self.peek() else { return Err("unclosed action".into()) };
        self.at += letter.len_utf8();
        match letter {
            letter if is_space(letter) => {
                // A space may belong to the closing delimiter.
                while self.peek().is_some_and(is_space) && closes(self.rest()).is_none() {
                    self.at += 1;
                }
                self.emit(Kind::Space);
            }
            '=' => self.emit(Kind::Assign),
            ':' if self.peek() == Some('=') => {
                self.at += 1;
                self.emit(Kind::Declare);
            }
            ':' => return Err("expected :=".into()),
            '|' => self.emit(Kind::Pipe),
            '"' => self.quoted('"', Kind::String, "unterminated quoted string")?,
            '\'' => self.quoted('\'', Kind::Character, "unterminated character constant")?,
            '`' => {
                let end = self.rest().find('`').ok_or("unterminated raw quoted string")?;
                self.at += end + 1;
                self.emit(Kind::RawString);
            }
            '$' => self.named(Kind::Variable)?,
            '.' if !self.peek().is_some_and(|next| next.is_ascii_digit()) => {
                if self.ends_here() {
                    self.emit(Kind::Dot);
                } else {
                    self.named(Kind::Field)?;
                }
            }
            '.' | '+' | '-' | '0'..='9' => self.number()?,
            letter if is_word(letter) => self.word()?,
            '(' => {
                self.parentheses += 1;
                self.emit(Kind::LeftParenthesis);
            }
            ')' => {
                self.parentheses = self.parentheses.checked_sub(1).ok_or("unexpected right paren")?;
                self.emit(Kind::RightParenthesis);
            }
            letter if letter.is_ascii_graphic() => self.emit(Kind::Punctuation),
            letter => return Err(format!("unrecognized character in action: {}", code_point(letter))),
        }
        Ok(())
    }

    fn quoted(&mut self, quote: char, kind: Kind, unterminated: &str) -> Result<(), String> {
        loop {
            let letter = self.peek().filter(|letter| *letter != '\n').ok_or(unterminated)?;
            self.at += letter.len_utf8();
            if letter == quote {
                break;
            }
            if letter == '\\' {
                let escaped = self.peek().filter(|letter| *letter != '\n').ok_or(unterminated)?;
                self.at += escaped.len_utf8();
            }
        }
        self.emit(kind);
        Ok(())
    }

    /// `$name` or `.name`, of which the first letter is taken; `$` may be alone.
    fn named(&mut self, kind: Kind) -> Result<(), String> {
        self.advance_while(is_word);
        self.expect_end()?;
        self.emit(kind);
        Ok(())
    }

    fn word(&mut self) -> Result<(), String> {
        self.advance_while(is_word);
        self.expect_end()?;
        let kind = match &self.text[self.start..self.at] {
            "true" | "false" => Kind::Bool,
            "nil" => Kind::Nil,
            word if KEYWORDS.contains(&word) => Kind::Keyword,
            _ => Kind::Identifier,
        };
        self.emit(kind);
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        self.at = self.start;
        if self.peek().is_some_and(|sign| matches!(sign, '+' | '-')) {
            self.at += 1;
        }
        let prefix = self.rest().get(..2).unwrap_or_default().to_ascii_lowercase();
        if matches!(prefix.as_str(), "0x" | "0o" | "0b") {
            self.at += 2;
            self.advance_while(|letter| letter.is_ascii_hexdigit() || letter == '_');
        } else {
            self.advance_while(|letter| letter.is_ascii_digit() || letter == '_');
            if self.peek() == Some('.') {
                self.at += 1;
                self.advance_while(|letter| letter.is_ascii_digit() || letter == '_');
            }
            if self.peek().is_some_and(|letter| matches!(letter, 'e' | 'E')) {
                self.at += 1;
                self.at += usize::from(self.peek().is_some_and(|sign| matches!(sign, '+' | '-')));
                self.advance_while(|letter| letter.is_ascii_digit());
            }
        }
        if self.peek().is_some_and(is_word) || self.at == self.start {
            self.at += self.peek().map_or(0, char::len_utf8);
            let text = &self.text[self.start..self.at];
            return Err(format!("bad number syntax: {}", crate::format::quote(text)));
        }
        self.emit(Kind::Number);
        Ok(())
    }

    fn expect_end(&self) -> Result<(), String> {
        match self.peek() {
            Some(letter) if !self.ends_here() => Err(format!("bad character {}", code_point(letter))),
            _ => Ok(()),
        }
    }

    /// Whether a name may end here.
    fn ends_here(&self) -> bool {
        self.rest().starts_with(RIGHT)
            || self.peek().is_none_or(|letter| is_space(letter) || ".,|:()".contains(letter))
    }
}

/// The length of the trim marker before `}}`, if an action ends here.
fn closes(rest: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    if rest.starts_with(RIGHT) {
        return Some(0);
    }
    let marked =
        bytes.len() > 2 && is_space(bytes[0].into()) && bytes[1] == b'-' && rest[2..].starts_with(RIGHT);
    marked.then_some(2)
}

fn trims_left(after: &str) -> bool {
    let bytes = after.as_bytes();
    bytes.len() > 1 && bytes[0] == b'-' && is_space(bytes[1].into())
}

fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\r' | '\n')
}

fn is_word(letter: char) -> bool {
    letter == '_' || letter.is_alphanumeric()
}

/// `U+0023 '#'`
fn code_point(letter: char) -> String {
    let number = u32::from(letter);
    if letter.is_control() { format!("U+{number:04X}") } else { format!("U+{number:04X} '{letter}'") }
}

//! Text into a tree, by recursive descent; macros are expanded on the way.
//!
//! Owns: the grammar, and syntax errors in the words of upstream's generated parser (ANTLR): what was unexpected,
//! what could have stood there, and the same attempts to go on (skip one token, suppose one, skip to a token that
//! somebody waits for), so that the first errors of a text are the same ones.
//!
//! **Bounded**: nesting and chains of one operator at [`DEPTH_MAX`], text at [`CODE_POINTS_MAX`], recoveries at
//! [`RECOVERIES_MAX`].

use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Ast, Element, Entry, Expr, Id, Init, Kind, Literal, operator};
use crate::error::{CompileError, Issue, Location, Source};
use crate::lexer::{Lexeme, Token, expectation, tokenize, unescape, unescape_bytes};
use crate::macros::{self, MacroError};

/// Nesting of any one grammar rule.
const DEPTH_MAX: usize = 250;
/// Length of an expression.
const CODE_POINTS_MAX: usize = 100_000;
/// Attempts to go on after a syntax error.
const RECOVERIES_MAX: usize = 30;
/// Height of a tree after macros; what the checker and the evaluator may recurse into.
const HEIGHT_MAX: usize = 1_000;
/// Nodes of a tree after macros; a chain of `optMap` doubles it with every link.
const NODES_MAX: usize = 500_000;

/// What an expression can begin with.
const FIRST: [Token; 15] = [
    Token::LeftBracket,
    Token::LeftBrace,
    Token::LeftParen,
    Token::Dot,
    Token::Minus,
    Token::Exclamation,
    Token::True,
    Token::False,
    Token::Null,
    Token::Float,
    Token::Int,
    Token::Uint,
    Token::String,
    Token::Bytes,
    Token::Ident,
];

/// What can go on after any operand.
const CONTINUATIONS: [Token; 17] = [
    Token::Equals,
    Token::NotEquals,
    Token::In,
    Token::Less,
    Token::LessEquals,
    Token::GreaterEquals,
    Token::Greater,
    Token::And,
    Token::Or,
    Token::Question,
    Token::Minus,
    Token::Plus,
    Token::Star,
    Token::Slash,
    Token::Percent,
    Token::Dot,
    Token::LeftBracket,
];

/// Words that cannot name a variable or a function, in no expression and in no schema.
pub(crate) const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "null",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// Parsing cannot go on; why is already noted.
struct Abort;

type Parsed<T> = Result<T, Abort>;

/// Parses `text` and expands macros, `cel.bind` only with `bindings`.
pub(crate) fn parse(text: &str, bindings: bool) -> Result<Ast, CompileError> {
    let code_points = text.chars().count();
    if code_points > CODE_POINTS_MAX {
        let message =
            format!("expression code point size exceeds limit: size: {code_points}, limit {CODE_POINTS_MAX}");
        return Err(Source::new(text).error(vec![Issue { location: Location::NONE, message }]));
    }
    let (lexemes, lex_errors) = tokenize(text);
    let mut parser = Parser {
        text,
        lexemes,
        at: 0,
        issues: lex_errors
            .into_iter()
            .map(|error| (Some(error.offset), format!("Syntax error: {}", error.message)))
            .collect(),
        offsets: vec![0],
        recovering: false,
        recoveries: 0,
        waiting: Vec::new(),
        depths: Depths::default(),
        bindings,
    };
    let root = parser.start();
    if let Ok(root) = &root
        && parser.issues.is_empty()
        && (parser.exhausted() || taller_than(root, HEIGHT_MAX))
    {
        parser.issues.push((None, "max recursion depth exceeded".into()));
    }
    match root {
        Ok(root) if parser.issues.is_empty() => Ok(Ast { root, offsets: parser.offsets }),
        _ => {
            let source = Source::new(text);
            let issues = parser
                .issues
                .into_iter()
                .map(|(offset, message)| Issue {
                    location: offset.map_or(Location::NONE, |offset| source.locate(offset)),
                    message,
                })
                .collect();
            Err(source.error(issues))
        }
    }
}

/// How deep each recursive rule is right now.
#[derive(Default)]
struct Depths {
    expressions: usize,
    relations: usize,
    calculations: usize,
    members: usize,
}

pub(crate) struct Parser<'s> {
    text: &'s str,
    lexemes: Vec<Lexeme<'s>>,
    at: usize,
    /// Offset and message.
    issues: Vec<(Option<u32>, String)>,
    offsets: Vec<u32>,
    /// After an error nothing more is reported until a token matches.
    recovering: bool,
    recoveries: usize,
    /// What each construct around the current token waits for.
    waiting: Vec<&'static [Token]>,
    depths: Depths,
    /// `cel.bind` is a macro.
    pub(crate) bindings: bool,
}

impl<'s> Parser<'s> {
    pub(crate) fn node(&mut self, offset: u32, kind: Kind) -> Expr {
        Expr { id: self.id(offset), kind }
    }

    pub(crate) fn id(&mut self, offset: u32) -> Id {
        self.offsets.push(offset);
        Id::try_from(self.offsets.len() - 1).expect("an expression has fewer nodes than 2^32")
    }

    /// Whether macros have made more of the text than it may become.
    pub(crate) fn exhausted(&self) -> bool {
        self.offsets.len() > NODES_MAX
    }

    pub(crate) fn offset(&self, id: Id) -> u32 {
        self.offsets[id as usize]
    }

    fn peek(&self) -> Token {
        self.lexemes[self.at].token
    }

    fn peek_after(&self) -> Token {
        self.lexemes.get(self.at + 1).map_or(Token::End, |lexeme| lexeme.token)
    }

    fn lexeme(&self) -> Lexeme<'s> {
        self.lexemes[self.at]
    }

    /// Takes the current token, which is one that may stand here.
    fn take(&mut self) -> Lexeme<'s> {
        self.recovering = false;
        self.skip()
    }

    fn skip(&mut self) -> Lexeme<'s> {
        let lexeme = self.lexeme();
        self.at = (self.at + 1).min(self.lexemes.len() - 1);
        lexeme
    }

    fn complain(&mut self, message: String) {
        self.complain_at(self.at, message);
    }

    fn complain_at(&mut self, at: usize, message: String) {
        if !self.recovering {
            self.recovering = true;
            self.issues.push((Some(self.lexemes[at].offset), format!("Syntax error: {message}")));
        }
    }

    fn attempt(&mut self) -> Parsed<()> {
        self.recoveries += 1;
        if self.recoveries <= RECOVERIES_MAX {
            return Ok(());
        }
        let message = format!("Syntax error: error recovery attempt limit exceeded: {RECOVERIES_MAX}");
        self.issues.push((Some(self.lexeme().offset), message));
        Err(Abort)
    }

    /// Before a choice between `expected`: skips one token if that helps. False when nothing does.
    fn sync(&mut self, expected: &[Token]) -> bool {
        if expected.contains(&self.peek()) {
            return true;
        }
        if expected.contains(&self.peek_after()) && self.peek() != Token::End {
            self.complain(format!(
                "extraneous input '{}' expecting {}",
                self.lexeme().text,
                expectation(expected)
            ));
            self.skip();
            self.recovering = false;
            return true;
        }
        self.complain(format!(
            "mismatched input '{}' expecting {}",
            self.lexeme().text,
            expectation(expected)
        ));
        false
    }

    /// Skips to what somebody around waits for; stands in for the construct that is broken.
    fn recover(&mut self) -> Parsed<Expr> {
        self.attempt()?;
        let offset = self.lexeme().offset;
        while self.peek() != Token::End
            && !CONTINUATIONS.contains(&self.peek())
            && !self.waiting.iter().any(|tokens| tokens.contains(&self.peek()))
        {
            self.skip();
        }
        Ok(self.node(offset, Kind::Unspecified))
    }

    /// Takes `token`, or supposes that it stands here when what follows it does. False when neither will do.
    fn expect(&mut self, token: Token, followers: &[Token]) -> Parsed<bool> {
        if self.peek() == token {
            self.take();
            return Ok(true);
        }
        self.attempt()?;
        if self.peek_after() == token && self.peek() != Token::End {
            self.complain(format!("extraneous input '{}' expecting {}", self.lexeme().text, token.name()));
            self.skip();
            self.take();
            return Ok(true);
        }
        if followers.contains(&self.peek()) {
            self.complain(format!("missing {} at '{}'", token.name(), self.lexeme().text));
            return Ok(true);
        }
        self.complain(format!("mismatched input '{}' expecting {}", self.lexeme().text, token.name()));
        Ok(false)
    }

    /// What can stand after a closed bracket here.
    fn followers(&self) -> Vec<Token> {
        let around = self.waiting.last().copied().unwrap_or(&[Token::End]);
        CONTINUATIONS.iter().chain(around).copied().collect()
    }

    fn start(&mut self) -> Parsed<Expr> {
        let expr = self.expr()?;
        self.expect(Token::End, &[])?;
        Ok(expr)
    }

    fn too_deep<T>(&mut self) -> Parsed<T> {
        self.issues.push((None, format!("expression recursion limit exceeded: {DEPTH_MAX}")));
        Err(Abort)
    }

    fn expr(&mut self) -> Parsed<Expr> {
        self.depths.expressions += 1;
        if self.depths.expressions > DEPTH_MAX {
            return self.too_deep();
        }
        let mut expr = self.or()?;
        if self.peek() == Token::Question {
            expr = match self.conditional(expr)? {
                Some(expr) => expr,
                None => return self.recover(),
            };
        }
        self.depths.expressions -= 1;
        Ok(expr)
    }

    /// The rest of `condition ? then : otherwise`; nothing when the colon is missing.
    fn conditional(&mut self, condition: Expr) -> Parsed<Option<Expr>> {
        let offset = self.take().offset;
        let id = self.id(offset);
        self.waiting.push(&[Token::Colon]);
        let then = self.or()?;
        self.waiting.pop();
        if !self.expect(Token::Colon, &FIRST)? {
            return Ok(None);
        }
        let otherwise = self.expr()?;
        Ok(Some(self.call(id, operator::CONDITIONAL, vec![condition, then, otherwise])))
    }

    fn or(&mut self) -> Parsed<Expr> {
        let first = self.and()?;
        if self.peek() == Token::Or { self.terms(first, operator::OR, Self::and) } else { Ok(first) }
    }

    fn and(&mut self) -> Parsed<Expr> {
        let first = self.relation()?;
        if self.peek() == Token::And { self.terms(first, operator::AND, Self::relation) } else { Ok(first) }
    }

    /// The terms after the first, of an operator that is the current token.
    fn terms(&mut self, first: Expr, function: &str, term: fn(&mut Self) -> Parsed<Expr>) -> Parsed<Expr> {
        let token = self.peek();
        let (mut terms, mut operators) = (vec![first], Vec::new());
        while self.peek() == token {
            let offset = self.take().offset;
            terms.push(term(self)?);
            operators.push(self.id(offset));
        }
        Ok(balanced(function, terms, &operators))
    }

    fn relation(&mut self) -> Parsed<Expr> {
        let before = self.depths.relations;
        self.depths.relations += 1;
        let mut left = self.calculation(0)?;
        while let Some(function) = relation(self.peek()) {
            self.depths.relations += 1;
            if self.depths.relations > DEPTH_MAX {
                return self.too_deep();
            }
            let offset = self.take().offset;
            let id = self.id(offset);
            let right = self.calculation(0)?;
            left = self.call(id, function, vec![left, right]);
        }
        self.depths.relations = before;
        Ok(left)
    }

    /// Sums of products; `level` 0 is sums.
    fn calculation(&mut self, level: u8) -> Parsed<Expr> {
        let before = self.depths.calculations;
        self.depths.calculations += 1;
        let mut left = self.unary()?;
        while let Some((function, strength)) =
            calculation(self.peek()).filter(|&(_, strength)| strength >= level)
        {
            self.depths.calculations += 1;
            if self.depths.calculations > DEPTH_MAX {
                return self.too_deep();
            }
            let offset = self.take().offset;
            let id = self.id(offset);
            let right = self.calculation(strength + 1)?;
            left = self.call(id, function, vec![left, right]);
        }
        self.depths.calculations = before;
        Ok(left)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        if !self.sync(&FIRST) {
            return self.recover();
        }
        match self.peek() {
            Token::Exclamation => self.prefixed(Token::Exclamation, operator::NOT),
            Token::Minus if !matches!(self.peek_after(), Token::Int | Token::Float) => {
                self.prefixed(Token::Minus, operator::NEGATE)
            }
            _ => self.member(),
        }
    }

    /// An operand after any number of a sign.
    fn prefixed(&mut self, token: Token, function: &str) -> Parsed<Expr> {
        let offset = self.lexeme().offset;
        let operators = self.lexemes[self.at..].iter().take_while(|lexeme| lexeme.token == token).count();
        let operand_at = self.at + operators;
        let begins = FIRST.contains(&self.lexemes[operand_at].token)
            && self.lexemes[operand_at].token != Token::Exclamation;
        if token == Token::Minus && !begins {
            self.no_alternative(self.at, operand_at);
            return self.recover();
        }
        for _ in 0..operators {
            self.take();
        }
        if !begins {
            self.complain(format!(
                "extraneous input '{}' expecting {}",
                self.lexeme().text,
                expectation(&FIRST)
            ));
            return self.recover();
        }
        let count = operators;
        let operand = self.member()?;
        if count % 2 == 0 {
            return Ok(operand);
        }
        let id = self.id(offset);
        Ok(self.call(id, function, vec![operand]))
    }

    fn member(&mut self) -> Parsed<Expr> {
        let before = self.depths.members;
        self.depths.members += 1;
        let mut operand = self.primary()?;
        loop {
            match self.peek() {
                Token::Dot => operand = self.select(operand)?,
                Token::LeftBracket => operand = self.index(operand)?,
                _ => break,
            }
            self.depths.members += 1;
            if self.depths.members > DEPTH_MAX {
                return self.too_deep();
            }
        }
        self.depths.members = before;
        Ok(operand)
    }

    fn select(&mut self, operand: Expr) -> Parsed<Expr> {
        let optional = self.peek_after() == Token::Question;
        let name_at = self.at + if optional { 2 } else { 1 };
        let name = self.lexemes[name_at.min(self.lexemes.len() - 1)];
        if !matches!(name.token, Token::Ident | Token::EscapedIdent) {
            self.no_alternative(self.at, name_at);
            self.skip();
            return self.recover();
        }
        let dot = self.take().offset;
        while self.take().offset != name.offset {}
        if name.token == Token::EscapedIdent {
            self.refuse_escaped(name);
            return Ok(self.field(operand, dot, name.offset, name.text.into(), optional));
        }
        if !optional && self.peek() == Token::LeftParen {
            let open = self.take().offset;
            let id = self.id(open);
            let args = self.arguments()?;
            return Ok(self.member_call(id, name.text, operand, args));
        }
        Ok(self.field(operand, dot, name.offset, name.text.into(), optional))
    }

    /// Names in backquotes are syntax that Kubernetes does not enable.
    fn refuse_escaped(&mut self, name: Lexeme<'_>) {
        self.issues.push((Some(name.offset), "unsupported syntax: '`'".into()));
    }

    fn field(&mut self, operand: Expr, dot: u32, name: u32, field: Arc<str>, optional: bool) -> Expr {
        if optional {
            let id = self.id(dot);
            let field = self.node(name, Kind::Literal(Literal::String(field)));
            self.call(id, operator::OPTIONAL_SELECT, vec![operand, field])
        } else {
            self.node(dot, Kind::Select { operand: Box::new(operand), field, test_only: false })
        }
    }

    /// "no viable alternative", from one token through another, which is the one that does not fit.
    fn no_alternative(&mut self, from: usize, to: usize) {
        let to = to.min(self.lexemes.len() - 1);
        let last = if self.lexemes[to].token == Token::End { to - 1 } else { to };
        let end = self.lexemes[last].start + self.lexemes[last].text.len();
        let input = &self.text[self.lexemes[from].start..end];
        let message = match input.strip_prefix('.') {
            Some(word @ ("true" | "false" | "null")) => {
                format!("mismatched input '{word}' expecting IDENTIFIER")
            }
            _ => format!("no viable alternative at input '{input}'"),
        };
        self.complain_at(to, message);
    }

    fn index(&mut self, operand: Expr) -> Parsed<Expr> {
        let offset = self.take().offset;
        let id = self.id(offset);
        let optional = self.optional_mark(&[])?;
        self.waiting.push(&[Token::RightBracket]);
        let index = self.expr()?;
        self.waiting.pop();
        if !self.expect(Token::RightBracket, &self.followers())? {
            return self.recover();
        }
        let function = if optional { operator::OPTIONAL_INDEX } else { operator::INDEX };
        Ok(self.call(id, function, vec![operand, index]))
    }

    /// An optional `?` where, beside an expression, `others` may stand.
    fn optional_mark(&mut self, others: &[Token]) -> Parsed<bool> {
        let expected: Vec<Token> = FIRST.iter().chain(&[Token::Question]).chain(others).copied().collect();
        if !self.sync(&expected) {
            self.recover()?;
        }
        let optional = self.peek() == Token::Question;
        if optional {
            self.take();
        }
        Ok(optional)
    }

    fn primary(&mut self) -> Parsed<Expr> {
        match self.peek() {
            Token::LeftParen => {
                self.take();
                self.waiting.push(&[Token::RightParen]);
                let expr = self.expr()?;
                self.waiting.pop();
                if self.expect(Token::RightParen, &self.followers())? { Ok(expr) } else { self.recover() }
            }
            Token::LeftBracket => self.list(),
            Token::LeftBrace => self.map(),
            Token::Dot | Token::Ident => self.name(),
            _ => self.literal(),
        }
    }

    fn name(&mut self) -> Parsed<Expr> {
        let start = self.lexeme();
        let dotted = self.peek() == Token::Dot;
        if dotted {
            if self.peek_after() != Token::Ident {
                self.no_alternative(self.at, self.at + 1);
                self.skip();
                return self.recover();
            }
            self.take();
        }
        if let Some(length) = self.message_name_length() {
            return self.message(dotted, length);
        }
        let name = self.take();
        let call = self.peek() == Token::LeftParen;
        if RESERVED.contains(&name.text) {
            self.issues.push((Some(start.offset), format!("reserved identifier: {}", name.text)));
        }
        let text: Arc<str> = if dotted { format!(".{}", name.text).into() } else { name.text.into() };
        if !call {
            let kind = if RESERVED.contains(&name.text) { Kind::Unspecified } else { Kind::Ident(text) };
            return Ok(self.node(name.offset, kind));
        }
        let open = self.take().offset;
        let id = self.id(open);
        let args = self.arguments()?;
        Ok(self.call(id, &text, args))
    }

    /// How many tokens the name of a message literal has, if one begins here: `a.b.C{`.
    fn message_name_length(&self) -> Option<usize> {
        let token = |at: usize| self.lexemes.get(self.at + at).map(|lexeme| lexeme.token);
        let mut length = 1;
        while token(length) == Some(Token::Dot) && token(length + 1) == Some(Token::Ident) {
            length += 2;
        }
        (token(length) == Some(Token::LeftBrace)).then_some(length)
    }

    fn message(&mut self, dotted: bool, length: usize) -> Parsed<Expr> {
        let mut name = String::from(if dotted { "." } else { "" });
        for _ in 0..length {
            name.push_str(self.take().text);
        }
        let offset = self.take().offset;
        let id = self.id(offset);
        self.waiting.push(&[Token::Comma, Token::RightBrace]);
        let mut fields = Vec::new();
        const START: [Token; 5] =
            [Token::RightBrace, Token::Comma, Token::Question, Token::Ident, Token::EscapedIdent];
        if !self.sync(&START) {
            self.recover()?;
        }
        while matches!(self.peek(), Token::Question | Token::Ident | Token::EscapedIdent) {
            let optional = self.peek() == Token::Question;
            if optional {
                self.take();
            }
            if !self.sync(&[Token::Ident, Token::EscapedIdent]) {
                self.recover()?;
                break;
            }
            let name = self.take();
            if name.token == Token::EscapedIdent {
                self.refuse_escaped(name);
            }
            let field = name.text.into();
            let colon = self.lexeme().offset;
            if !self.expect(Token::Colon, &FIRST)? {
                self.recover()?;
                break;
            }
            let id = self.id(colon);
            let value = self.expr()?;
            fields.push(Init { id, field, value, optional });
            if !self.comma_then(|token| matches!(token, Token::Question | Token::Ident | Token::EscapedIdent))
            {
                break;
            }
        }
        self.close(Token::RightBrace)?;
        Ok(Expr { id, kind: Kind::Struct { name: name.into(), fields } })
    }

    /// Takes a comma when another item follows it.
    fn comma_then(&mut self, item: impl Fn(Token) -> bool) -> bool {
        let more = self.peek() == Token::Comma && item(self.peek_after());
        if more {
            self.take();
        }
        more
    }

    /// The end of a literal: a trailing comma, then `token`.
    fn close(&mut self, token: Token) -> Parsed<()> {
        if !self.recovering && !self.sync(&[Token::Comma, token]) {
            self.recover()?;
        }
        if self.peek() == Token::Comma {
            self.take();
        }
        self.waiting.pop();
        if !self.expect(token, &self.followers())? {
            self.recover()?;
        }
        Ok(())
    }

    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        self.waiting.push(&[Token::Comma, Token::RightParen]);
        let expected: Vec<Token> = FIRST.iter().chain(&[Token::RightParen]).copied().collect();
        let mut args = Vec::new();
        if !self.sync(&expected) {
            self.recover()?;
        } else if self.peek() != Token::RightParen {
            args.push(self.expr()?);
            while self.peek() == Token::Comma {
                self.take();
                args.push(self.expr()?);
            }
        }
        self.waiting.pop();
        if !self.expect(Token::RightParen, &self.followers())? {
            self.recover()?;
        }
        Ok(args)
    }

    fn list(&mut self) -> Parsed<Expr> {
        let offset = self.take().offset;
        let id = self.id(offset);
        self.waiting.push(&[Token::Comma, Token::RightBracket]);
        let mut elements = Vec::new();
        let mut optional = self.optional_mark(&[Token::RightBracket, Token::Comma])?;
        while optional || FIRST.contains(&self.peek()) {
            let value = self.expr()?;
            elements.push(Element { value, optional });
            if !self.comma_then(|token| token == Token::Question || FIRST.contains(&token)) {
                break;
            }
            optional = self.optional_mark(&[])?;
        }
        self.close(Token::RightBracket)?;
        Ok(Expr { id, kind: Kind::List { elements } })
    }

    fn map(&mut self) -> Parsed<Expr> {
        let offset = self.take().offset;
        let id = self.id(offset);
        self.waiting.push(&[Token::Comma, Token::RightBrace]);
        let mut entries = Vec::new();
        let mut optional = self.optional_mark(&[Token::RightBrace, Token::Comma])?;
        while optional || FIRST.contains(&self.peek()) {
            self.waiting.push(&[Token::Colon]);
            let key = self.expr()?;
            self.waiting.pop();
            if !self.expect(Token::Colon, &FIRST)? {
                self.recover()?;
                break;
            }
            let value = self.expr()?;
            entries.push(Entry { key, value, optional });
            if !self.comma_then(|token| token == Token::Question || FIRST.contains(&token)) {
                break;
            }
            optional = self.optional_mark(&[])?;
        }
        self.close(Token::RightBrace)?;
        Ok(Expr { id, kind: Kind::Map { entries } })
    }

    fn literal(&mut self) -> Parsed<Expr> {
        let start = self.lexeme();
        let negative = start.token == Token::Minus;
        if negative {
            self.take();
        }
        let lexeme = self.take();
        let literal = match literal(lexeme, negative) {
            Ok(literal) => literal,
            Err(message) => {
                self.issues.push((Some(start.offset), message.into()));
                return Ok(self.node(start.offset, Kind::Unspecified));
            }
        };
        Ok(self.node(start.offset, Kind::Literal(literal)))
    }

    /// A call of a global function, or what its macro makes of it.
    fn call(&mut self, id: Id, function: &str, args: Vec<Expr>) -> Expr {
        match macros::expand(self, id, function, None, args) {
            Ok(expanded) => expanded,
            Err(error) => self.macro_error(id, error),
        }
    }

    fn member_call(&mut self, id: Id, function: &str, target: Expr, args: Vec<Expr>) -> Expr {
        match macros::expand(self, id, function, Some(target), args) {
            Ok(expanded) => expanded,
            Err(error) => self.macro_error(id, error),
        }
    }

    fn macro_error(&mut self, id: Id, error: MacroError) -> Expr {
        self.issues.push((Some(self.offset(error.at)), error.message));
        Expr { id, kind: Kind::Unspecified }
    }

    pub(crate) fn accumulator(&mut self, offset: u32) -> Expr {
        self.node(offset, Kind::Ident(ACCUMULATOR.into()))
    }
}

fn literal(lexeme: Lexeme<'_>, negative: bool) -> Result<Literal, &'static str> {
    let sign = if negative { "-" } else { "" };
    let integer = |text: &str, complaint: &'static str| {
        match text.strip_prefix("0x") {
            Some(hex) => i128::from_str_radix(&format!("{sign}{hex}"), 16),
            None => format!("{sign}{text}").parse::<i128>(),
        }
        .map_err(|_| complaint)
    };
    Ok(match lexeme.token {
        Token::Int => Literal::Int(
            integer(lexeme.text, "invalid int literal")?.try_into().map_err(|_| "invalid int literal")?,
        ),
        Token::Uint => Literal::Uint(
            integer(&lexeme.text[..lexeme.text.len() - 1], "invalid uint literal")?
                .try_into()
                .map_err(|_| "invalid uint literal")?,
        ),
        Token::Float => {
            let value: f64 =
                format!("{sign}{}", lexeme.text).parse().map_err(|_| "invalid double literal")?;
            if !value.is_finite() {
                return Err("invalid double literal");
            }
            Literal::Double(value)
        }
        Token::String => Literal::String(unescape(lexeme.text)?.into()),
        Token::Bytes => Literal::Bytes(unescape_bytes(&lexeme.text[1..], true)?.into()),
        Token::True => Literal::Bool(true),
        Token::False => Literal::Bool(false),
        _ => Literal::Null,
    })
}

fn relation(token: Token) -> Option<&'static str> {
    Some(match token {
        Token::Equals => operator::EQUALS,
        Token::NotEquals => operator::NOT_EQUALS,
        Token::In => operator::IN,
        Token::Less => operator::LESS,
        Token::LessEquals => operator::LESS_EQUALS,
        Token::GreaterEquals => operator::GREATER_EQUALS,
        Token::Greater => operator::GREATER,
        _ => return None,
    })
}

fn calculation(token: Token) -> Option<(&'static str, u8)> {
    Some(match token {
        Token::Plus => (operator::ADD, 0),
        Token::Minus => (operator::SUBTRACT, 0),
        Token::Star => (operator::MULTIPLY, 1),
        Token::Slash => (operator::DIVIDE, 1),
        Token::Percent => (operator::MODULO, 1),
        _ => return None,
    })
}

/// A chain of one logical operator as a balanced tree, so that long chains are not deep.
fn balanced(function: &str, terms: Vec<Expr>, operators: &[Id]) -> Expr {
    fn build(function: &Arc<str>, terms: &mut impl Iterator<Item = Expr>, operators: &[Id]) -> Expr {
        if operators.is_empty() {
            return terms.next().expect("one term more than operators");
        }
        let middle = operators.len() / 2;
        let left = build(function, terms, &operators[..middle]);
        let right = build(function, terms, &operators[middle + 1..]);
        let kind = Kind::Call { function: function.clone(), target: None, args: vec![left, right] };
        Expr { id: operators[middle], kind }
    }
    build(&function.into(), &mut terms.into_iter(), operators)
}

/// Whether a path from `expr` downwards is longer than `limit`.
fn taller_than(expr: &Expr, limit: usize) -> bool {
    let Some(limit) = limit.checked_sub(1) else { return true };
    let tall = |child: &Expr| taller_than(child, limit);
    match &expr.kind {
        Kind::Unspecified | Kind::Literal(_) | Kind::Ident(_) => false,
        Kind::Select { operand, .. } => tall(operand),
        Kind::Call { target, args, .. } => target.as_deref().is_some_and(tall) || args.iter().any(tall),
        Kind::List { elements } => elements.iter().any(|element| tall(&element.value)),
        Kind::Map { entries } => entries.iter().any(|entry| tall(&entry.key) || tall(&entry.value)),
        Kind::Struct { fields, .. } => fields.iter().any(|field| tall(&field.value)),
        Kind::Comprehension(fold) => {
            [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result].into_iter().any(tall)
        }
    }
}

#[cfg(test)]
mod tests;

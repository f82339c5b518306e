//! From tokens to templates, as Go's parser builds them.

use std::collections::HashMap;

use crate::ast::{Branch, Callee, Code, Command, Node, Operand, Pipe, Term};
use crate::lex::{Kind, Token, lex};
use crate::{DEPTH_MAX, Functions, ParseError, builtin, format};

/// The templates of a text by name; its own name is that of the text outside of all definitions.
pub fn parse(
    name: &str,
    text: &str,
    functions: &dyn Functions,
) -> Result<HashMap<String, Vec<Node>>, ParseError> {
    let mut parser = Parser {
        tokens: lex(text),
        at: 0,
        functions,
        variables: vec!["$".into()],
        loops: 0,
        depth: 0,
        defined: HashMap::new(),
    };
    match parser.root() {
        Ok(root) => {
            parser.defined.insert(name.to_owned(), root);
            Ok(parser.defined)
        }
        Err(message) => {
            let line = parser.tokens[parser.at.saturating_sub(1).min(parser.tokens.len() - 1)].line;
            Err(ParseError { name: name.to_owned(), line, message })
        }
    }
}

type Parsed<T> = Result<T, String>;

struct Parser<'p> {
    tokens: Vec<Token<'p>>,
    at: usize,
    functions: &'p dyn Functions,
    /// Those that can be named here.
    variables: Vec<String>,
    /// `range`s around.
    loops: usize,
    depth: usize,
    defined: HashMap<String, Vec<Node>>,
}

/// What ends a list of nodes.
#[derive(Clone, Copy, PartialEq)]
enum Closing {
    End,
    Else,
}

impl Closing {
    fn shown(self) -> &'static str {
        match self {
            Self::End => "{{end}}",
            Self::Else => "{{else}}",
        }
    }
}

/// A node, or the end of the list that it would be in.
enum Item {
    Node(Option<Node>),
    Closing(Closing),
}

impl<'p> Parser<'p> {
    /// The last token is never passed.
    fn next(&mut self) -> Token<'p> {
        let token = self.tokens[self.at.min(self.tokens.len() - 1)].clone();
        self.at += 1;
        token
    }

    fn peek(&self) -> &Token<'p> {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn next_non_space(&mut self) -> Token<'p> {
        self.skip_space();
        self.next()
    }

    fn peek_non_space(&mut self) -> &Token<'p> {
        self.skip_space();
        self.peek()
    }

    fn skip_space(&mut self) {
        while self.peek().kind == Kind::Space {
            self.at += 1;
        }
    }

    fn expect(&mut self, kind: &Kind, context: &str) -> Parsed<Token<'p>> {
        let token = self.next_non_space();
        if token.kind == *kind { Ok(token) } else { Err(unexpected(&token, context)) }
    }

    fn keyword(&mut self) -> Option<&'p str> {
        let token = self.peek_non_space();
        (token.kind == Kind::Keyword).then_some(token.text)
    }

    fn root(&mut self) -> Parsed<Vec<Node>> {
        let mut nodes = Vec::new();
        while self.peek().kind != Kind::End {
            if self.peek().kind == Kind::LeftDelimiter {
                let start = self.at;
                self.next();
                if self.keyword() == Some("define") {
                    self.next();
                    self.definition()?;
                    continue;
                }
                self.at = start;
            }
            match self.item()? {
                Item::Node(node) => nodes.extend(node),
                Item::Closing(closing) => return Err(format!("unexpected {}", closing.shown())),
            }
        }
        Ok(nodes)
    }

    fn definition(&mut self) -> Parsed<()> {
        const CONTEXT: &str = "define clause";
        let (_, name) = self.template_name(CONTEXT)?;
        self.expect(&Kind::RightDelimiter, CONTEXT)?;
        let outer =
            (std::mem::replace(&mut self.variables, vec!["$".into()]), std::mem::take(&mut self.loops));
        let (body, closing) = self.list()?;
        (self.variables, self.loops) = outer;
        if closing != Closing::End {
            return Err(format!("unexpected {} in {CONTEXT}", closing.shown()));
        }
        self.define(name, body)
    }

    /// A definition with content replaces one of nothing but space; two with content are a mistake.
    fn define(&mut self, name: String, body: Vec<Node>) -> Parsed<()> {
        let is_empty = |body: &[Node]| {
            body.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
        };
        match self.defined.get(&name) {
            Some(old) if !is_empty(old) && !is_empty(&body) => {
                Err(format!("template: multiple definition of template {}", format::quote(&name)))
            }
            Some(old) if !is_empty(old) => Ok(()),
            _ => {
                self.defined.insert(name, body);
                Ok(())
            }
        }
    }

    /// With its position.
    fn template_name(&mut self, context: &str) -> Parsed<(usize, String)> {
        let token = self.next_non_space();
        match token.kind {
            Kind::String | Kind::RawString => Ok((token.position, unquote(&token)?)),
            _ => Err(unexpected(&token, context)),
        }
    }

    fn list(&mut self) -> Parsed<(Vec<Node>, Closing)> {
        let mut nodes = Vec::new();
        while self.peek_non_space().kind != Kind::End {
            match self.item()? {
                Item::Node(node) => nodes.extend(node),
                Item::Closing(closing) => return Ok((nodes, closing)),
            }
        }
        self.at += 1;
        Err("unexpected EOF".into())
    }

    fn item(&mut self) -> Parsed<Item> {
        let token = self.next_non_space();
        match token.kind {
            Kind::Text => Ok(Item::Node(Some(Node::Text(token.text.to_owned())))),
            Kind::LeftDelimiter => self.nested(Self::action),
            _ => Err(unexpected(&token, "input")),
        }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEPTH_MAX {
            return Err("max expression depth exceeded".into());
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn action(&mut self) -> Parsed<Item> {
        let Some(keyword) = self.keyword() else {
            let pipe = self.pipeline("command", &Kind::RightDelimiter)?;
            return Ok(Item::Node(Some(Node::Action(pipe))));
        };
        let token = self.next();
        let node = match keyword {
            "end" => {
                self.expect(&Kind::RightDelimiter, "end")?;
                return Ok(Item::Closing(Closing::End));
            }
            "else" => {
                // What follows `else if` and `else with` is read by the branch.
                if !matches!(self.keyword(), Some("if" | "with")) {
                    self.expect(&Kind::RightDelimiter, "else")?;
                }
                return Ok(Item::Closing(Closing::Else));
            }
            "if" => Node::If(self.branch("if")?),
            "with" => Node::With(self.branch("with")?),
            "range" => Node::Range(self.branch("range")?),
            "template" => self.template()?,
            "block" => self.block()?,
            "break" | "continue" => self.jump(keyword)?,
            _ => return Err(unexpected(&token, "command")),
        };
        Ok(Item::Node(Some(node)))
    }

    fn branch(&mut self, context: &'static str) -> Parsed<Branch> {
        let variables = self.variables.len();
        let pipe = self.pipeline(context, &Kind::RightDelimiter)?;
        self.loops += usize::from(context == "range");
        let (body, closing) = self.list()?;
        self.loops -= usize::from(context == "range");
        let mut otherwise = Vec::new();
        if closing == Closing::Else {
            let chained = self.keyword();
            if context != "range" && chained == Some(context) {
                self.next();
                let branch = self.nested(|parser| parser.branch(context))?;
                otherwise.push(if context == "if" { Node::If(branch) } else { Node::With(branch) });
            } else {
                if chained.is_some() {
                    return Err(unexpected(&self.next(), "else"));
                }
                let (nodes, closing) = self.list()?;
                if closing != Closing::End {
                    return Err(format!("expected end; found {}", closing.shown()));
                }
                otherwise = nodes;
            }
        }
        self.variables.truncate(variables);
        Ok(Branch { pipe, body, otherwise })
    }

    fn template(&mut self) -> Parsed<Node> {
        const CONTEXT: &str = "template clause";
        let (position, name) = self.template_name(CONTEXT)?;
        let argument = match self.peek_non_space().kind {
            Kind::RightDelimiter => {
                self.next();
                None
            }
            _ => Some(self.pipeline(CONTEXT, &Kind::RightDelimiter)?),
        };
        Ok(Node::Template { position, name, argument })
    }

    fn block(&mut self) -> Parsed<Node> {
        const CONTEXT: &str = "block clause";
        let (position, name) = self.template_name(CONTEXT)?;
        let argument = self.pipeline(CONTEXT, &Kind::RightDelimiter)?;
        let outer =
            (std::mem::replace(&mut self.variables, vec!["$".into()]), std::mem::take(&mut self.loops));
        let (body, closing) = self.list()?;
        (self.variables, self.loops) = outer;
        if closing != Closing::End {
            return Err(format!("unexpected {} in {CONTEXT}", closing.shown()));
        }
        self.define(name.clone(), body)?;
        Ok(Node::Template { position, name, argument: Some(argument) })
    }

    fn jump(&mut self, keyword: &str) -> Parsed<Node> {
        let token = self.next_non_space();
        if token.kind != Kind::RightDelimiter {
            return Err(unexpected(&token, &format!("{{{{{keyword}}}}}")));
        }
        if self.loops == 0 {
            return Err(format!("{{{{{keyword}}}}} outside {{{{range}}}}"));
        }
        Ok(if keyword == "break" { Node::Break } else { Node::Continue })
    }

    fn pipeline(&mut self, context: &str, end: &Kind) -> Parsed<Pipe> {
        let position = self.peek_non_space().position;
        let (variables, assigns) = self.declarations(context)?;
        let mut pipe = Pipe { position, variables, assigns, commands: Vec::new() };
        loop {
            let token = self.peek_non_space().clone();
            if token.kind == *end {
                self.next();
                break;
            }
            if !starts_operand(&token.kind) {
                self.next();
                return Err(unexpected(&token, context));
            }
            pipe.commands.push(self.command()?);
        }
        if pipe.commands.is_empty() {
            return Err(format!("missing value for {context}"));
        }
        for (index, command) in pipe.commands.iter().enumerate().skip(1) {
            if command.operands[0].term.is_constant() {
                return Err(format!("non executable command in pipeline stage {}", index + 1));
            }
        }
        Ok(pipe)
    }

    /// `$x :=`, `$x =`, and in a `range` also two variables.
    fn declarations(&mut self, context: &str) -> Parsed<(Vec<String>, bool)> {
        let mut declared: Vec<String> = Vec::new();
        loop {
            let start = self.at;
            if self.peek_non_space().kind != Kind::Variable {
                return Ok((declared, false));
            }
            let variable = self.next().text.to_owned();
            let next = self.next_non_space();
            match next.kind {
                Kind::Assign | Kind::Declare => {
                    self.declare(&mut declared, variable);
                    return Ok((declared, next.kind == Kind::Assign));
                }
                Kind::Punctuation if next.text == "," => {
                    self.declare(&mut declared, variable);
                    if context != "range" || declared.len() > 1 {
                        return Err(format!("too many declarations in {context}"));
                    }
                    let follows = &self.peek_non_space().kind;
                    if !matches!(follows, Kind::Variable | Kind::RightDelimiter | Kind::RightParenthesis) {
                        return Err("range can only initialize variables".into());
                    }
                }
                _ => {
                    self.at = start;
                    return Ok((declared, false));
                }
            }
        }
    }

    fn declare(&mut self, declared: &mut Vec<String>, variable: String) {
        self.variables.push(variable.clone());
        declared.push(variable);
    }

    fn command(&mut self) -> Parsed<Command> {
        let position = self.peek_non_space().position;
        let mut operands = Vec::new();
        loop {
            self.skip_space();
            if let Some(operand) = self.operand()? {
                operands.push(operand);
            }
            let token = self.next();
            match token.kind {
                Kind::Space => continue,
                Kind::RightDelimiter | Kind::RightParenthesis => self.at -= 1,
                Kind::Pipe => {}
                _ => return Err(unexpected(&token, "operand")),
            }
            break;
        }
        if operands.is_empty() {
            return Err("empty command".into());
        }
        Ok(Command { position, operands })
    }

    /// A term, and the fields behind it.
    fn operand(&mut self) -> Parsed<Option<Operand>> {
        let Some(mut operand) = self.term()? else { return Ok(None) };
        if self.peek().kind != Kind::Field {
            return Ok(Some(operand));
        }
        let position = self.peek().position;
        let mut names = Vec::new();
        while self.peek().kind == Kind::Field {
            names.push(self.next().text[1..].to_owned());
        }
        match &mut operand.term {
            Term::Field(fields) | Term::Variable(_, fields) => {
                fields.append(&mut names);
                operand.position = position;
            }
            Term::Function(_) | Term::Pipe(_) => {
                operand = Operand { position, term: Term::Chain(Box::new(operand), names) };
            }
            _ => return Err(format!("unexpected . after term {}", format::quote(&operand.to_string()))),
        }
        Ok(Some(operand))
    }

    fn term(&mut self) -> Parsed<Option<Operand>> {
        let token = self.next_non_space();
        let term = match token.kind {
            Kind::Identifier => Term::Function(self.callee(token.text)?),
            Kind::Dot => Term::Dot,
            Kind::Nil => Term::Nil,
            Kind::Bool => Term::Bool(token.text == "true"),
            Kind::Variable => {
                if !self.variables.iter().any(|known| known == token.text) {
                    return Err(format!("undefined variable {}", format::quote(token.text)));
                }
                Term::Variable(token.text.to_owned(), Vec::new())
            }
            Kind::Field => Term::Field(vec![token.text[1..].to_owned()]),
            Kind::Number => number(token.text)?,
            Kind::Character => character(token.text)?,
            Kind::String | Kind::RawString => {
                Term::Text { value: unquote(&token)?, quoted: token.text.to_owned() }
            }
            Kind::LeftParenthesis => {
                let parse =
                    |parser: &mut Self| parser.pipeline("parenthesized pipeline", &Kind::RightParenthesis);
                Term::Pipe(Box::new(self.nested(parse)?))
            }
            _ => {
                self.at -= 1;
                return Ok(None);
            }
        };
        Ok(Some(Operand { position: token.position, term }))
    }

    fn callee(&self, name: &str) -> Parsed<Callee> {
        let code = match (self.functions.signature(name), name, builtin::find(name)) {
            (Some(signature), ..) => Code::Host(signature),
            (None, "and", _) => Code::And,
            (None, "or", _) => Code::Or,
            (None, _, Some(native)) => Code::Native(native),
            (None, _, None) => return Err(format!("function {} not defined", format::quote(name))),
        };
        Ok(Callee { name: name.to_owned(), code })
    }
}

fn starts_operand(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Bool
            | Kind::Character
            | Kind::Dot
            | Kind::Field
            | Kind::Identifier
            | Kind::Number
            | Kind::Nil
            | Kind::RawString
            | Kind::String
            | Kind::Variable
            | Kind::LeftParenthesis
    )
}

fn unexpected(token: &Token<'_>, context: &str) -> String {
    match &token.kind {
        Kind::Error(message) => message.clone(),
        _ => format!("unexpected {} in {context}", token.shown()),
    }
}

fn number(text: &str) -> Parsed<Term> {
    let bad = || format!("bad number syntax: {}", format::quote(text));
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let radix = match digits.get(..2).unwrap_or_default() {
        "0x" | "0X" => Some((16, &digits[2..])),
        "0o" | "0O" => Some((8, &digits[2..])),
        "0b" | "0B" => Some((2, &digits[2..])),
        _ => None,
    };
    let text = text.to_owned();
    if let Some((radix, digits)) = radix {
        let value = i64::from_str_radix(digits, radix).map_err(|_| bad())?;
        return Ok(Term::Int { text, value: sign * value });
    }
    if digits.contains(['.', 'e', 'E']) {
        return plain.parse().map(|value| Term::Float { text, value }).map_err(|_| bad());
    }
    let octal = digits.len() > 1 && digits.starts_with('0');
    let value = i64::from_str_radix(digits, if octal { 8 } else { 10 }).map_err(|_| bad())?;
    Ok(Term::Int { text, value: sign * value })
}

/// A letter is its code point.
fn character(text: &str) -> Parsed<Term> {
    let malformed = || format!("malformed character constant: {text}");
    let letters = unescape(&text[1..text.len() - 1]).ok_or_else(malformed)?;
    let mut letters = letters.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) => Ok(Term::Int { text: text.to_owned(), value: u32::from(letter).into() }),
        _ => Err(malformed()),
    }
}

fn unquote(token: &Token<'_>) -> Parsed<String> {
    let inner = &token.text[1..token.text.len() - 1];
    match token.kind {
        // Go drops carriage returns in raw texts.
        Kind::RawString => Ok(inner.replace('\r', "")),
        _ => unescape(inner).ok_or_else(|| "invalid syntax".to_owned()),
    }
}

/// Reads Go's escapes.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = letters.next()?;
        let mut digits = |count: usize, radix: u32| {
            let digits: String = letters.by_ref().take(count).collect();
            (digits.chars().count() == count).then(|| u32::from_str_radix(&digits, radix).ok()).flatten()
        };
        match escape {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            '\\' | '"' | '\'' => bytes.push(escape as u8),
            'x' => bytes.push(u8::try_from(digits(2, 16)?).ok()?),
            'u' | 'U' => {
                let letter = char::from_u32(digits(if escape == 'u' { 4 } else { 8 }, 16)?)?;
                bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
            '0'..='7' => {
                let rest = digits(2, 8)?;
                bytes.push(u8::try_from(escape.to_digit(8)? * 64 + rest).ok()?);
            }
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

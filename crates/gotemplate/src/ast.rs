//! Parsed templates. What is printed is what Go prints, in complaints.

use std::fmt;

use crate::Signature;
use crate::builtin::Native;

/// A piece of a template; positions are bytes of the text.
#[derive(Clone, Debug)]
pub enum Node {
    Text(String),
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template { position: usize, name: String, argument: Option<Pipe> },
    Break,
    Continue,
}

/// `{{if pipe}} body {{else}} otherwise {{end}}`
#[derive(Clone, Debug)]
pub struct Branch {
    pub pipe: Pipe,
    pub body: Vec<Node>,
    pub otherwise: Vec<Node>,
}

/// `$a, $b := command | command`
#[derive(Clone, Debug)]
pub struct Pipe {
    pub position: usize,
    pub variables: Vec<String>,
    /// `=`, not `:=`.
    pub assigns: bool,
    pub commands: Vec<Command>,
}

#[derive(Clone, Debug)]
pub struct Command {
    pub position: usize,
    /// At least one.
    pub operands: Vec<Operand>,
}

#[derive(Clone, Debug)]
pub struct Operand {
    pub position: usize,
    pub term: Term,
}

#[derive(Clone, Debug)]
pub enum Term {
    Dot,
    Nil,
    Bool(bool),
    Int {
        text: String,
        value: i64,
    },
    Float {
        text: String,
        value: f64,
    },
    Text {
        quoted: String,
        value: String,
    },
    /// `.a.b`
    Field(Vec<String>),
    /// `$x.a.b`
    Variable(String, Vec<String>),
    /// `(pipe).a.b`, `function.a`
    Chain(Box<Operand>, Vec<String>),
    Pipe(Box<Pipe>),
    Function(Callee),
}

/// A function by its name, looked up when the template was parsed.
#[derive(Clone, Debug)]
pub struct Callee {
    pub name: String,
    pub code: Code,
}

#[derive(Clone, Copy, Debug)]
pub enum Code {
    /// `and`, `or`: the rest is evaluated only where it decides.
    And,
    Or,
    Native(&'static Native),
    Host(Signature),
}

impl Term {
    /// Whether it can stand only at the beginning of a pipeline.
    pub fn is_constant(&self) -> bool {
        matches!(
            self,
            Self::Bool(_) | Self::Dot | Self::Nil | Self::Int { .. } | Self::Float { .. } | Self::Text { .. }
        )
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            write!(f, "{} {} ", self.variables.join(", "), if self.assigns { "=" } else { ":=" })?;
        }
        join(f, &self.commands, " | ")
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, &self.operands, " ")
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = |f: &mut fmt::Formatter<'_>, names: &[String]| {
            names.iter().try_for_each(|name| write!(f, ".{name}"))
        };
        match &self.term {
            Term::Dot => f.write_str("."),
            Term::Nil => f.write_str("nil"),
            Term::Bool(value) => write!(f, "{value}"),
            Term::Int { text, .. } | Term::Float { text, .. } => f.write_str(text),
            Term::Text { quoted, .. } => f.write_str(quoted),
            Term::Field(names) => fields(f, names),
            Term::Variable(variable, names) => {
                f.write_str(variable)?;
                fields(f, names)
            }
            Term::Chain(operand, names) => {
                write!(f, "{operand}")?;
                fields(f, names)
            }
            Term::Pipe(pipe) => write!(f, "({pipe})"),
            Term::Function(callee) => f.write_str(&callee.name),
        }
    }
}

fn join(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display], separator: &str) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        f.write_str(if index > 0 { separator } else { "" })?;
        write!(f, "{item}")?;
    }
    Ok(())
}

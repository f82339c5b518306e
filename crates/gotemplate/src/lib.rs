//! Go's `text/template`, as Kubernetes' tools use it: KWOK's Stages, charts, printers.
//!
//! Owns: the language (`lex`, `parse`, `execute`), values ([`Datum`]), the functions of the language (`builtin`), those
//! of sprig that manifests use (`sprig`), and Go's formatting (`format`). Never touches: files, the network, the
//! environment. Functions beyond these are the caller's: [`Functions`].
//!
//! Start at [`Template::parse`]: a text is parsed once and rendered any number of times. Complaints are worded and
//! located as Go's, because people search for them.
//!
//! Trees come from JSON. A number of theirs is a text that looks like a number, as Go's `json.Number` is: it is never
//! empty, it equals texts and no integer, and arithmetic reads it.
//!
//! **Invariant (template-bounded):** a rendering ends: after so many steps, so much output and so many templates in
//! one another ([`STEPS_MAX`], [`OUTPUT_BYTES_MAX`], [`DEPTH_MAX`]) it fails.

mod ast;
mod builtin;
mod datum;
mod execute;
mod format;
mod lex;
mod parse;
mod sprig;

use std::collections::HashMap;

pub use datum::Datum;

/// Actions, and rounds of loops, of one rendering.
pub const STEPS_MAX: usize = 1_000_000;
/// Bytes of one rendering, and of a text that a function makes.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Templates that call one another, parentheses in one another, and values in values.
pub const DEPTH_MAX: usize = 64;

/// A text that is no template; worded as Go does, with the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template: {name}:{line}: {message}")]
pub struct ParseError {
    name: String,
    line: usize,
    message: String,
}

/// A template that could not be rendered; worded as Go does, with line and column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RenderError(String);

/// What a function's parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    Any,
    /// Also takes what is missing, and sees that it is.
    Raw,
    Text,
    Int,
    Bool,
    Map,
}

/// The parameters of a function; a variadic one takes the last any number of times.
#[derive(Clone, Copy, Debug)]
pub struct Signature {
    pub parameters: &'static [Parameter],
    pub variadic: bool,
}

/// Functions that the caller adds; they hide those of the language and of sprig.
pub trait Functions {
    fn signature(&self, name: &str) -> Option<Signature>;

    /// Called with as many arguments, of such kinds, as the signature says. An error is worded as Go's.
    fn call(&self, name: &str, arguments: &[Datum]) -> Result<Datum, String>;
}

/// No functions beyond those of the language and of sprig.
pub struct NoFunctions;

impl Functions for NoFunctions {
    fn signature(&self, _: &str) -> Option<Signature> {
        None
    }

    fn call(&self, name: &str, _: &[Datum]) -> Result<Datum, String> {
        Err(format!("{name:?} is not a defined function"))
    }
}

/// A parsed template with the templates that it defines.
#[derive(Debug)]
pub struct Template {
    name: String,
    text: String,
    defined: HashMap<String, Vec<ast::Node>>,
}

impl Template {
    /// Parses a text. `name` is what complaints call it; `functions` may be another at each rendering, but has to know
    /// the same names.
    pub fn parse(name: &str, text: &str, functions: &dyn Functions) -> Result<Self, ParseError> {
        let defined = parse::parse(name, text, functions)?;
        Ok(Self { name: name.to_owned(), text: text.to_owned(), defined })
    }

    /// Renders a tree.
    pub fn render(&self, data: Datum, functions: &dyn Functions) -> Result<String, RenderError> {
        execute::render(self, data, functions)
    }
}

#[cfg(test)]
mod tests;

//! Constants that cannot be what they are used as: `duration('soon')`, `x.matches('(')`.

use crate::ast::{Expr, Kind, Literal};
use crate::checker::Checked;
use crate::error::{CompileError, Issue, Source};
use crate::library::re2;
use crate::time;

pub(crate) fn validate(text: &str, checked: &Checked) -> Result<(), CompileError> {
    let mut bad = Vec::new();
    find(&checked.ast.root, &mut bad);
    if bad.is_empty() {
        return Ok(());
    }
    let source = Source::new(text);
    let issues = bad
        .into_iter()
        .map(|(id, function)| Issue {
            location: source.locate(checked.ast.offset(id)),
            message: format!("invalid {function} argument"),
        })
        .collect();
    Err(source.error(issues))
}

fn find(expr: &Expr, bad: &mut Vec<(crate::ast::Id, &'static str)>) {
    match &expr.kind {
        Kind::Unspecified | Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select { operand, .. } => find(operand, bad),
        Kind::Call { function, target, args } => {
            if let Some(name) = invalid(function, target.as_deref(), args) {
                bad.push((args.last().map_or(expr.id, |arg| arg.id), name));
            }
            for part in target.as_deref().into_iter().chain(args) {
                find(part, bad);
            }
        }
        Kind::List { elements } => elements.iter().for_each(|element| find(&element.value, bad)),
        Kind::Map { entries } => {
            for entry in entries {
                find(&entry.key, bad);
                find(&entry.value, bad);
            }
        }
        Kind::Struct { fields, .. } => fields.iter().for_each(|field| find(&field.value, bad)),
        Kind::Comprehension(fold) => {
            for part in [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result] {
                find(part, bad);
            }
        }
    }
}

/// The function, if its constant argument cannot be read.
fn invalid(function: &str, target: Option<&Expr>, args: &[Expr]) -> Option<&'static str> {
    let Kind::Literal(Literal::String(text)) = &args.last()?.kind else { return None };
    match (function, target.is_some(), args.len()) {
        ("duration", false, 1) => time::parse_duration(text).is_none().then_some("duration"),
        ("timestamp", false, 1) => time::parse_timestamp(text).is_none().then_some("timestamp"),
        ("matches", true, 1) | ("matches", false, 2) => re2::compile(text).is_err().then_some("matches"),
        _ => None,
    }
}

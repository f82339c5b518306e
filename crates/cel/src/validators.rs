//! What a well-typed expression may still not say: constants that cannot be what they are used as
//! (`duration('soon')`), literals of several types, formats that do not fit their arguments.

use apimachinery::duration;

use crate::ast::{Expr, Id, Kind, Literal};
use crate::checker::Checked;
use crate::error::{CompileError, Issue, Source};
use crate::library::string_format;
use crate::time;
use crate::types::Type;

pub(crate) fn validate(text: &str, checked: &Checked) -> Result<(), CompileError> {
    let mut validator = Validator { checked, issues: Vec::new() };
    validator.visit(&checked.ast.root, false);
    if validator.issues.is_empty() {
        return Ok(());
    }
    let source = Source::new(text);
    let issues = validator
        .issues
        .into_iter()
        .map(|(id, message)| Issue { location: source.locate(checked.ast.offset(id)), message })
        .collect();
    Err(source.error(issues))
}

struct Validator<'c> {
    checked: &'c Checked,
    issues: Vec<(Id, String)>,
}

impl Validator<'_> {
    /// `formatted` says that this is an argument of `format`, where literals may mix types.
    fn visit(&mut self, expr: &Expr, formatted: bool) {
        match &expr.kind {
            Kind::Unspecified | Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } => self.visit(operand, formatted),
            Kind::Call { function, target, args } => {
                if let Some(name) = invalid(function, target.as_deref(), args) {
                    let id = args.last().map_or(expr.id, |arg| arg.id);
                    self.issues.push((id, format!("invalid {name} argument")));
                }
                if &**function == "format"
                    && let Some(Expr { kind: Kind::Literal(Literal::String(template)), .. }) =
                        target.as_deref()
                    && let [Expr { kind: Kind::List { elements }, .. }] = &args[..]
                {
                    let args: Vec<&Expr> = elements.iter().map(|element| &element.value).collect();
                    self.check_format(expr.id, template, &args);
                }
                let formatted = formatted || &**function == "format";
                for part in target.as_deref().into_iter().chain(args) {
                    self.visit(part, formatted);
                }
            }
            Kind::List { elements } => {
                if !formatted {
                    self.same_types(elements.iter().map(|element| (&element.value, element.optional)), true);
                }
                elements.iter().for_each(|element| self.visit(&element.value, formatted));
            }
            Kind::Map { entries } => {
                if !formatted {
                    self.same_types(entries.iter().map(|entry| (&entry.key, false)), false);
                    self.same_types(entries.iter().map(|entry| (&entry.value, entry.optional)), false);
                }
                for entry in entries {
                    self.visit(&entry.key, formatted);
                    self.visit(&entry.value, formatted);
                }
            }
            Kind::Struct { fields, .. } => {
                fields.iter().for_each(|field| self.visit(&field.value, formatted))
            }
            Kind::Comprehension(fold) => {
                for part in [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result] {
                    self.visit(part, formatted);
                }
            }
        }
    }

    /// Complains about values of another type than the first has.
    fn same_types<'x>(&mut self, values: impl Iterator<Item = (&'x Expr, bool)>, once: bool) {
        let checked = self.checked;
        let ty = |(value, optional): (&'x Expr, bool)| match checked.type_of(value.id) {
            Type::Optional(inner) if optional => &**inner,
            ty => ty,
        };
        let mut first = None;
        for value in values {
            let found = ty(value);
            let expected = *first.get_or_insert(found);
            if expected != found {
                self.issues.push((value.0.id, format!("expected type '{expected}' but found '{found}'")));
                if once {
                    return;
                }
            }
        }
    }

    fn check_format(&mut self, call: Id, template: &str, args: &[&Expr]) {
        let mut bad = None;
        let used = string_format::scan(template, args.len(), &mut |index, verb, _| {
            let id = args[index].id;
            string_format::check(verb, self.checked.type_of(id)).inspect_err(|_| bad = Some(id))
        });
        match used {
            Err(message) => self.issues.push((bad.unwrap_or(call), message)),
            Ok(used) if used < args.len() => self.issues.push((
                call,
                format!("too many arguments supplied to string.format (expected {used}, got {})", args.len()),
            )),
            Ok(_) => {}
        }
    }
}

/// The function, if its constant argument cannot be read.
fn invalid(function: &str, target: Option<&Expr>, args: &[Expr]) -> Option<&'static str> {
    let text = match &args.last()?.kind {
        Kind::Literal(Literal::String(text)) => text,
        Kind::Literal(Literal::Int(seconds)) if function == "timestamp" => {
            return time::from_seconds(*seconds).is_none().then_some("timestamp");
        }
        _ => return None,
    };
    match (function, target.is_some(), args.len()) {
        ("duration", false, 1) => duration::parse(text).is_err().then_some("duration"),
        ("timestamp", false, 1) => time::parse_timestamp(text).is_none().then_some("timestamp"),
        ("matches", true, 1) => crate::regex::compile(text).is_err().then_some("matches"),
        _ => None,
    }
}

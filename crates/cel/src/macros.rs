//! Calls that are syntax: `has`, the comprehensions, `optMap`, `sortBy`.
//!
//! A macro matches on name, style and number of arguments; anything else of the same name stays a call.

use std::sync::Arc;

use crate::ast::{
    ACCUMULATOR, Comprehension, Element, Entry, Expr, Id, Init, Kind, Literal, OLD_ACCUMULATOR, operator,
};
use crate::parser::Parser;

/// A macro called with arguments it cannot work with.
pub(crate) struct MacroError {
    pub at: Id,
    pub message: String,
}

fn refuse<T>(at: Id, message: impl Into<String>) -> Result<T, MacroError> {
    Err(MacroError { at, message: message.into() })
}

/// The variable of a fold that binds a name and iterates over nothing.
const UNUSED: &str = "#unused";
/// What `sortBy` calls the list it sorts.
const SORT_INPUT: &str = "@__sortBy_input__";

/// The call `function(args…)` or `target.function(args…)`, expanded if it is a macro.
pub(crate) fn expand(
    parser: &mut Parser<'_>,
    id: Id,
    function: &str,
    target: Option<Expr>,
    mut args: Vec<Expr>,
) -> Result<Expr, MacroError> {
    let (offset, bindings) = (parser.offset(id), parser.bindings);
    let mut macros = Expander { offset, parser };
    let Some(target) = target else {
        if function == "has" && args.len() == 1 {
            return macros.has(args.remove(0));
        }
        return Ok(Expr { id, kind: Kind::Call { function: function.into(), target: None, args } });
    };
    match (function, args.len()) {
        ("all", 2 | 3) => macros.quantifier(target, args, Quantifier::All),
        ("exists", 2 | 3) => macros.quantifier(target, args, Quantifier::Exists),
        ("exists_one", 2 | 3) | ("existsOne", 3) => macros.quantifier(target, args, Quantifier::ExistsOne),
        ("map", 2 | 3) => macros.map(target, args),
        ("filter", 2) => macros.filter(target, args),
        ("transformList", 3 | 4) => macros.transform_list(target, args),
        ("transformMap", 3 | 4) => macros.transform_map(target, args, true),
        ("transformMapEntry", 3 | 4) => macros.transform_map(target, args, false),
        ("optMap", 2) => macros.optional_map(target, args, false),
        ("optFlatMap", 2) => macros.optional_map(target, args, true),
        ("sortBy", 2) => macros.sort_by(target, args),
        ("bind", 3) if bindings && is_namespace(&target) => macros.bind_name(args),
        _ => {
            let kind = Kind::Call { function: function.into(), target: Some(Box::new(target)), args };
            Ok(Expr { id, kind })
        }
    }
}

/// The `cel` of `cel.bind`.
fn is_namespace(target: &Expr) -> bool {
    matches!(&target.kind, Kind::Ident(name) if &**name == "cel")
}

enum Quantifier {
    All,
    Exists,
    ExistsOne,
}

/// The variables of a comprehension.
struct Variables {
    first: Arc<str>,
    second: Option<Arc<str>>,
}

struct Expander<'p, 's> {
    parser: &'p mut Parser<'s>,
    /// Where the macro was called; all that it makes stands there.
    offset: u32,
}

impl Expander<'_, '_> {
    fn node(&mut self, kind: Kind) -> Expr {
        self.parser.node(self.offset, kind)
    }

    fn literal(&mut self, literal: Literal) -> Expr {
        self.node(Kind::Literal(literal))
    }

    fn ident(&mut self, name: &str) -> Expr {
        self.node(Kind::Ident(name.into()))
    }

    fn accumulator(&mut self) -> Expr {
        self.parser.accumulator(self.offset)
    }

    fn list(&mut self, elements: Vec<Expr>) -> Expr {
        let elements = elements.into_iter().map(|value| Element { value, optional: false }).collect();
        self.node(Kind::List { elements })
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.node(Kind::Call { function: function.into(), target: None, args })
    }

    fn member_call(&mut self, function: &str, target: Expr, args: Vec<Expr>) -> Expr {
        self.node(Kind::Call { function: function.into(), target: Some(Box::new(target)), args })
    }

    fn fold(
        &mut self,
        range: Expr,
        variables: Variables,
        init: Expr,
        condition: Expr,
        step: Expr,
        result: Expr,
    ) -> Expr {
        self.node(Kind::Comprehension(Box::new(Comprehension {
            range,
            var: variables.first,
            second_var: variables.second,
            accumulator: ACCUMULATOR.into(),
            init,
            condition,
            step,
            result,
        })))
    }

    /// `body` with `name` standing for `value`.
    fn bind(&mut self, name: &Arc<str>, value: Expr, body: Expr) -> Expr {
        let range = self.list(Vec::new());
        let condition = self.literal(Literal::Bool(false));
        let step = self.ident(name);
        self.node(Kind::Comprehension(Box::new(Comprehension {
            range,
            var: UNUSED.into(),
            second_var: None,
            accumulator: name.clone(),
            init: value,
            condition,
            step,
            result: body,
        })))
    }

    /// `cel.bind(name, value, body)`
    fn bind_name(&mut self, args: Vec<Expr>) -> Result<Expr, MacroError> {
        let [name, value, body] = <[Expr; 3]>::try_from(args).expect("matched by number of arguments");
        let Kind::Ident(variable) = &name.kind else {
            return refuse(name.id, "cel.bind() variable names must be simple identifiers");
        };
        Ok(self.bind(variable, value, body))
    }

    fn has(&mut self, argument: Expr) -> Result<Expr, MacroError> {
        match argument.kind {
            Kind::Select { operand, field, .. } => {
                Ok(self.node(Kind::Select { operand, field, test_only: true }))
            }
            _ => refuse(argument.id, "invalid argument to has() macro"),
        }
    }

    fn quantifier(
        &mut self,
        range: Expr,
        mut args: Vec<Expr>,
        quantifier: Quantifier,
    ) -> Result<Expr, MacroError> {
        let predicate = args.pop().expect("matched by number of arguments");
        let variables = variables(&args, "argument must be a simple name")?;
        let (init, condition, step, result);
        match quantifier {
            Quantifier::All => {
                init = self.literal(Literal::Bool(true));
                let accumulator = self.accumulator();
                condition = self.call(operator::NOT_STRICTLY_FALSE, vec![accumulator]);
                let accumulator = self.accumulator();
                step = self.call(operator::AND, vec![accumulator, predicate]);
                result = self.accumulator();
            }
            Quantifier::Exists => {
                init = self.literal(Literal::Bool(false));
                let accumulator = self.accumulator();
                let negated = self.call(operator::NOT, vec![accumulator]);
                condition = self.call(operator::NOT_STRICTLY_FALSE, vec![negated]);
                let accumulator = self.accumulator();
                step = self.call(operator::OR, vec![accumulator, predicate]);
                result = self.accumulator();
            }
            Quantifier::ExistsOne => {
                init = self.literal(Literal::Int(0));
                condition = self.literal(Literal::Bool(true));
                let accumulator = self.accumulator();
                let one = self.literal(Literal::Int(1));
                let more = self.call(operator::ADD, vec![accumulator, one]);
                let accumulator = self.accumulator();
                step = self.call(operator::CONDITIONAL, vec![predicate, more, accumulator]);
                let accumulator = self.accumulator();
                let one = self.literal(Literal::Int(1));
                result = self.call(operator::EQUALS, vec![accumulator, one]);
            }
        }
        Ok(self.fold(range, variables, init, condition, step, result))
    }

    /// A fold that collects: `add` makes the step that takes an element in, `filter` says which.
    fn collect(
        &mut self,
        range: Expr,
        variables: Variables,
        init: Expr,
        filter: Option<Expr>,
        add: Expr,
    ) -> Expr {
        let condition = self.literal(Literal::Bool(true));
        let step = match filter {
            Some(filter) => {
                let accumulator = self.accumulator();
                self.call(operator::CONDITIONAL, vec![filter, add, accumulator])
            }
            None => add,
        };
        let result = self.accumulator();
        self.fold(range, variables, init, condition, step, result)
    }

    fn append(&mut self, element: Expr) -> Expr {
        let accumulator = self.accumulator();
        let list = self.list(vec![element]);
        self.call(operator::ADD, vec![accumulator, list])
    }

    fn map(&mut self, range: Expr, mut args: Vec<Expr>) -> Result<Expr, MacroError> {
        let transform = args.pop().expect("matched by number of arguments");
        let filter = (args.len() == 2).then(|| args.remove(1));
        let variables = variables(&args, "argument is not an identifier")?;
        let init = self.list(Vec::new());
        let add = self.append(transform);
        Ok(self.collect(range, variables, init, filter, add))
    }

    fn filter(&mut self, range: Expr, mut args: Vec<Expr>) -> Result<Expr, MacroError> {
        let filter = args.pop();
        let variables = variables(&args, "argument is not an identifier")?;
        let init = self.list(Vec::new());
        let element = args.remove(0);
        let add = self.append(element);
        Ok(self.collect(range, variables, init, filter, add))
    }

    fn transform_list(&mut self, range: Expr, mut args: Vec<Expr>) -> Result<Expr, MacroError> {
        let transform = args.pop().expect("matched by number of arguments");
        let filter = (args.len() == 3).then(|| args.remove(2));
        let variables = variables(&args, "argument must be a simple name")?;
        let init = self.list(Vec::new());
        let add = self.append(transform);
        Ok(self.collect(range, variables, init, filter, add))
    }

    /// Collects into a map, by the key of the range or by an entry that the transformation makes.
    fn transform_map(&mut self, range: Expr, mut args: Vec<Expr>, keyed: bool) -> Result<Expr, MacroError> {
        let transform = args.pop().expect("matched by number of arguments");
        let filter = (args.len() == 3).then(|| args.remove(2));
        let variables = variables(&args, "argument must be a simple name")?;
        let init = self.node(Kind::Map { entries: Vec::new() });
        let mut inserted = vec![self.accumulator()];
        if keyed {
            inserted.push(self.ident(&variables.first));
        }
        inserted.push(transform);
        let add = self.call("cel.@mapInsert", inserted);
        Ok(self.collect(range, variables, init, filter, add))
    }

    fn optional_map(&mut self, target: Expr, mut args: Vec<Expr>, flat: bool) -> Result<Expr, MacroError> {
        let name = if flat { "optFlatMap" } else { "optMap" };
        let body = args.pop().expect("matched by number of arguments");
        let Kind::Ident(variable) = &args[0].kind else {
            return refuse(args[0].id, format!("{name}() variable name must be a simple identifier"));
        };
        let copy = self.copy(&target);
        let has_value = self.member_call("hasValue", target, Vec::new());
        let value = self.member_call("value", copy, Vec::new());
        let bound = self.bind(variable, value, body);
        let mapped = if flat { bound } else { self.call("optional.of", vec![bound]) };
        let none = self.call("optional.none", Vec::new());
        Ok(self.call(operator::CONDITIONAL, vec![has_value, mapped, none]))
    }

    fn sort_by(&mut self, target: Expr, args: Vec<Expr>) -> Result<Expr, MacroError> {
        if matches!(target.kind, Kind::Literal(_) | Kind::Map { .. } | Kind::Struct { .. }) {
            return refuse(
                target.id,
                "sortBy can only be applied to a list, identifier, comprehension, call or select expression",
            );
        }
        let input: Arc<str> = SORT_INPUT.into();
        let range = self.ident(&input);
        let keys = self.map(range, args)?;
        let list = self.ident(&input);
        let sorted = self.member_call("@sortByAssociatedKeys", list, vec![keys]);
        Ok(self.bind(&input, target, sorted))
    }

    /// The same expression under new ids, so that both copies can have their own types.
    fn copy(&mut self, expr: &Expr) -> Expr {
        let offset = self.parser.offset(expr.id);
        let kind = match &expr.kind {
            _ if self.parser.exhausted() => Kind::Unspecified,
            kind @ (Kind::Unspecified | Kind::Literal(_) | Kind::Ident(_)) => kind.clone(),
            Kind::Select { operand, field, test_only } => Kind::Select {
                operand: Box::new(self.copy(operand)),
                field: field.clone(),
                test_only: *test_only,
            },
            Kind::Call { function, target, args } => Kind::Call {
                function: function.clone(),
                target: target.as_deref().map(|target| Box::new(self.copy(target))),
                args: args.iter().map(|arg| self.copy(arg)).collect(),
            },
            Kind::List { elements } => Kind::List {
                elements: elements
                    .iter()
                    .map(|element| Element { value: self.copy(&element.value), optional: element.optional })
                    .collect(),
            },
            Kind::Map { entries } => Kind::Map {
                entries: entries
                    .iter()
                    .map(|entry| Entry {
                        key: self.copy(&entry.key),
                        value: self.copy(&entry.value),
                        optional: entry.optional,
                    })
                    .collect(),
            },
            Kind::Struct { name, fields } => Kind::Struct {
                name: name.clone(),
                fields: fields
                    .iter()
                    .map(|field| Init {
                        id: self.parser.id(self.offset),
                        field: field.field.clone(),
                        value: self.copy(&field.value),
                        optional: field.optional,
                    })
                    .collect(),
            },
            Kind::Comprehension(fold) => Kind::Comprehension(Box::new(Comprehension {
                range: self.copy(&fold.range),
                var: fold.var.clone(),
                second_var: fold.second_var.clone(),
                accumulator: fold.accumulator.clone(),
                init: self.copy(&fold.init),
                condition: self.copy(&fold.condition),
                step: self.copy(&fold.step),
                result: self.copy(&fold.result),
            })),
        };
        self.parser.node(offset, kind)
    }
}

/// The names that `args` introduce, one or two.
fn variables(args: &[Expr], complaint: &str) -> Result<Variables, MacroError> {
    let mut names = Vec::with_capacity(2);
    for arg in args {
        let Kind::Ident(name) = &arg.kind else { return refuse(arg.id, complaint) };
        names.push(name.clone());
    }
    if let [first, second] = &names[..]
        && first == second
    {
        return refuse(args[1].id, format!("duplicate variable name: {first}"));
    }
    for (name, arg) in names.iter().zip(args) {
        if matches!(&**name, ACCUMULATOR | OLD_ACCUMULATOR) {
            return refuse(arg.id, "iteration variable overwrites accumulator variable");
        }
    }
    let mut names = names.into_iter();
    let first = names.next().expect("a comprehension has a variable");
    Ok(Variables { first, second: names.next() })
}

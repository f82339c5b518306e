//! Static types: every node gets one, every name and call gets what it refers to, or there is a complaint.
//!
//! The rules, their order and the words are those of cel-go's checker: unification of type parameters, `dyn` as
//! the type that fits everywhere, homogeneous literals, the most general of two types that unify.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::ast::{Ast, Comprehension, Element, Entry, Expr, Id, Init, Kind, Literal, operator};
use crate::environment::Environment;
use crate::error::{CompileError, Issue, Source};
use crate::library::Function;
use crate::types::Type;

/// What a name or a call turned out to mean.
#[derive(Clone, Debug)]
pub(crate) enum Reference {
    /// Index into the variables of the environment.
    Variable(usize),
    /// A variable of a comprehension.
    Local,
    TypeValue(Type),
    Overloads(SmallVec<[&'static str; 2]>),
}

/// A tree with types.
#[derive(Debug)]
pub(crate) struct Checked {
    pub ast: Ast,
    types: Vec<Option<Type>>,
    references: Vec<Option<Reference>>,
}

impl Checked {
    pub fn type_of(&self, id: Id) -> &Type {
        self.types.get(id as usize).and_then(Option::as_ref).unwrap_or(&Type::Dyn)
    }

    pub fn reference(&self, id: Id) -> Option<&Reference> {
        self.references.get(id as usize).and_then(Option::as_ref)
    }

    pub fn overloads(&self, id: Id) -> &[&'static str] {
        match self.reference(id) {
            Some(Reference::Overloads(overloads)) => overloads,
            _ => &[],
        }
    }
}

pub(crate) fn check(environment: &Environment, text: &str, mut ast: Ast) -> Result<Checked, CompileError> {
    let count = ast.offsets.len();
    let mut checker = Checker {
        environment,
        offsets: &ast.offsets,
        issues: Vec::new(),
        types: vec![None; count],
        references: vec![None; count],
        solved: Vec::new(),
        scope: Vec::new(),
    };
    checker.check(&mut ast.root);
    let Checker { issues, mut types, references, solved, .. } = checker;
    if !issues.is_empty() {
        let source = Source::new(text);
        let issues = issues
            .into_iter()
            .map(|(offset, message)| Issue { location: source.locate(offset), message })
            .collect();
        return Err(source.error(issues));
    }
    for ty in types.iter_mut().flatten() {
        *ty = substitute(&solved, ty, true);
    }
    Ok(Checked { ast, types, references })
}

/// What each type parameter stands for, as far as that is known.
type Solved = Vec<Option<Type>>;

struct Checker<'e> {
    environment: &'e Environment,
    offsets: &'e [u32],
    issues: Vec<(u32, String)>,
    types: Vec<Option<Type>>,
    references: Vec<Option<Reference>>,
    solved: Solved,
    /// Variables of the comprehensions around, innermost last.
    scope: Vec<(Arc<str>, Type)>,
}

impl Checker<'_> {
    fn complain(&mut self, id: Id, message: String) {
        self.issues.push((self.offsets.get(id as usize).copied().unwrap_or(0), message));
    }

    fn set(&mut self, id: Id, ty: Type) {
        self.types[id as usize] = Some(ty);
    }

    fn refer(&mut self, id: Id, reference: Reference) {
        self.references[id as usize] = Some(reference);
    }

    fn type_of(&self, expr: &Expr) -> Type {
        self.types[expr.id as usize].clone().unwrap_or(Type::Error)
    }

    fn substituted(&self, ty: &Type) -> Type {
        substitute(&self.solved, ty, false)
    }

    fn new_param(&mut self) -> Type {
        self.solved.push(None);
        Type::Param(u32::try_from(self.solved.len() - 1).expect("fewer type parameters than 2^32"))
    }

    /// Whether a value of type `from` fits where `to` is wanted; if so, parameters are solved for that.
    fn assignable(&mut self, from: &Type, to: &Type) -> bool {
        let mut attempt = self.solved.clone();
        let fits = assignable(&mut attempt, from, to);
        if fits {
            self.solved = attempt;
        }
        fits
    }

    fn mismatch(&mut self, id: Id, expected: &Type, found: &Type) {
        self.complain(id, format!("expected type '{expected}' but found '{found}'"));
    }

    fn undeclared(&mut self, id: Id, name: &str) {
        self.complain(id, format!("undeclared reference to '{name}' (in container '')"));
    }

    fn check(&mut self, expr: &mut Expr) {
        let id = expr.id;
        match &mut expr.kind {
            Kind::Unspecified => self.set(id, Type::Error),
            Kind::Literal(literal) => self.set(id, literal_type(literal)),
            Kind::Ident(_) => self.check_ident(expr),
            Kind::Select { .. } => self.check_select(expr),
            Kind::Call { .. } => self.check_call(expr),
            Kind::List { elements } => self.check_list(id, elements),
            Kind::Map { entries } => self.check_map(id, entries),
            Kind::Struct { name, fields } => {
                let name = name.clone();
                self.check_struct(id, &name, fields);
            }
            Kind::Comprehension(fold) => self.check_comprehension(id, fold),
        }
    }

    fn local(&self, name: &str) -> Option<&Type> {
        let name = name.strip_prefix('.').unwrap_or(name);
        self.scope.iter().rev().find(|(local, _)| **local == *name).map(|(_, ty)| ty)
    }

    fn global(&self, name: &str) -> Option<(Type, Reference)> {
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some((index, decl)) = self.environment.named(name) {
            return Some((decl.ty.clone(), Reference::Variable(index)));
        }
        let ty = self.environment.named_type(name)?;
        Some((Type::of_type(ty.clone()), Reference::TypeValue(ty)))
    }

    fn check_ident(&mut self, expr: &Expr) {
        let Kind::Ident(name) = &expr.kind else { return };
        if let Some(ty) = self.local(name).cloned() {
            self.set(expr.id, ty);
            self.refer(expr.id, Reference::Local);
        } else if let Some((ty, reference)) = self.global(name) {
            self.set(expr.id, ty);
            self.refer(expr.id, reference);
        } else {
            self.set(expr.id, Type::Error);
            self.undeclared(expr.id, name);
        }
    }

    fn check_select(&mut self, expr: &mut Expr) {
        if let Some(name) = qualified_name(expr)
            && self.local(name.trim_start_matches('.').split('.').next().unwrap_or(&name)).is_none()
            && let Some((ty, reference)) = self.global(&name)
        {
            self.set(expr.id, ty);
            self.refer(expr.id, reference);
            expr.kind = Kind::Ident(name.into());
            return;
        }
        let id = expr.id;
        let Kind::Select { operand, field, test_only } = &mut expr.kind else { return };
        let selected = self.check_field(id, operand, field, false);
        let ty = if *test_only { Type::Bool } else { self.substituted(&selected) };
        self.set(id, ty);
    }

    /// The type of `operand.field`.
    fn check_field(&mut self, id: Id, operand: &mut Expr, field: &str, optional: bool) -> Type {
        self.check(operand);
        let operand_type = self.substituted(&self.type_of(operand));
        let (target, was_optional) = match &operand_type {
            Type::Optional(inner) => ((**inner).clone(), true),
            _ => (operand_type, false),
        };
        let result = match &target {
            Type::Map(entry) => entry.1.clone(),
            Type::Object(_) | Type::Opaque(_) if self.is_message(&target) => {
                self.field_type(id, &target, field).unwrap_or(Type::Error)
            }
            Type::Param(_) => {
                // What is looked into cannot be narrowed to a wrong type later.
                self.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            Type::Dyn | Type::Any | Type::Error => Type::Dyn,
            other => {
                self.complain(id, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        };
        if was_optional || optional { Type::optional(result) } else { result }
    }

    fn is_message(&self, ty: &Type) -> bool {
        match ty {
            Type::Object(_) => true,
            Type::Opaque(opaque) => opaque.is_message(),
            _ => false,
        }
    }

    fn field_type(&mut self, id: Id, ty: &Type, field: &str) -> Option<Type> {
        let Type::Object(object) = ty else {
            self.complain(id, format!("unexpected failed resolution of '{}'", ty.name()));
            return None;
        };
        if object.is_open() {
            return Some(Type::Dyn);
        }
        let found = object.field(field).map(|field| field.decl.ty.clone());
        if found.is_none() {
            self.complain(id, format!("undefined field '{field}'"));
        }
        found
    }

    fn check_optional_select(&mut self, id: Id, args: &mut [Expr]) {
        let [operand, field] = args else {
            self.complain(
                id,
                format!(
                    "unsupported optional field selection: incorrect signature. argument count: {}",
                    args.len()
                ),
            );
            return;
        };
        let Kind::Literal(Literal::String(name)) = &field.kind else {
            let field = field.id;
            self.complain(field, "unsupported optional field selection".into());
            return;
        };
        let name = name.clone();
        let selected = self.check_field(id, operand, &name, true);
        let ty = self.substituted(&selected);
        self.set(field.id, Type::String);
        self.set(id, ty);
        self.refer(id, Reference::Overloads(SmallVec::from_slice(&["select_optional_field"])));
    }

    fn check_call(&mut self, expr: &mut Expr) {
        let id = expr.id;
        let Kind::Call { function, target, args } = &mut expr.kind else { return };
        if &**function == operator::OPTIONAL_SELECT {
            return self.check_optional_select(id, args);
        }
        for arg in args.iter_mut() {
            self.check(arg);
        }
        let environment = self.environment;
        let Some(receiver) = target else {
            let name = function.strip_prefix('.').unwrap_or(function);
            let Some(declared) = environment.function(name) else {
                let name = function.clone();
                self.undeclared(id, &name);
                return self.set(id, Type::Error);
            };
            return self.resolve(id, declared, None, args);
        };
        // `a.b.c()` is the function `a.b.c` if there is one, else `c` of `a.b`.
        if let Some(prefix) = qualified_name(receiver) {
            let qualified = format!("{prefix}.{function}");
            if let Some(declared) = environment.function(qualified.strip_prefix('.').unwrap_or(&qualified)) {
                *function = qualified.into();
                *target = None;
                return self.resolve(id, declared, None, args);
            }
        }
        self.check(receiver);
        match environment.function(function) {
            Some(declared) => self.resolve(id, declared, Some(receiver), args),
            None => {
                let name = function.clone();
                self.set(id, Type::Error);
                self.undeclared(id, &name);
            }
        }
    }

    /// Finds the overloads that fit the arguments.
    fn resolve(&mut self, id: Id, function: &Function, target: Option<&Expr>, args: &[Expr]) {
        if matches!(function.name, operator::AND | operator::OR) {
            return self.resolve_logical(id, function, args);
        }
        let arg_types: Vec<Type> = target.into_iter().chain(args).map(|arg| self.type_of(arg)).collect();
        let mut result: Option<Type> = None;
        let mut fitting = SmallVec::new();
        for overload in &function.overloads {
            if overload.member != target.is_some() || overload.params.len() != arg_types.len() {
                continue;
            }
            let fresh: Solved = if overload.type_params > 0 {
                (0..overload.type_params).map(|_| Some(self.new_param())).collect()
            } else {
                Vec::new()
            };
            let params: Vec<Type> =
                overload.params.iter().map(|param| substitute_letters(&fresh, param)).collect();
            if !self.all_assignable(&arg_types, &params) {
                continue;
            }
            fitting.push(overload.id);
            let returned = self.substituted(&substitute_letters(&fresh, &overload.result));
            result = Some(match result {
                None => returned,
                Some(before) if before.is_dyn() || returned == before => before,
                Some(_) => Type::Dyn,
            });
        }
        match result {
            Some(result) => {
                self.set(id, result);
                self.refer(id, Reference::Overloads(fitting));
            }
            None => {
                let args: Vec<Type> =
                    arg_types.iter().map(|arg| substitute(&self.solved, arg, true)).collect();
                let signature = signature(&args, target.is_some());
                self.complain(
                    id,
                    format!("found no matching overload for '{}' applied to '{signature}'", function.name),
                );
                self.set(id, Type::Error);
            }
        }
    }

    fn resolve_logical(&mut self, id: Id, function: &Function, args: &[Expr]) {
        let mut result = Type::Bool;
        for arg in args {
            let ty = self.type_of(arg);
            if !self.assignable(&ty, &Type::Bool) {
                self.mismatch(arg.id, &Type::Bool, &ty);
                result = Type::Error;
            }
        }
        self.set(id, result);
        self.refer(id, Reference::Overloads(function.overloads.iter().map(|overload| overload.id).collect()));
    }

    fn all_assignable(&mut self, from: &[Type], to: &[Type]) -> bool {
        let mut attempt = self.solved.clone();
        let fits = from.iter().zip(to).all(|(from, to)| assignable(&mut attempt, from, to));
        if fits {
            self.solved = attempt;
        }
        fits
    }

    /// The type of an element that may be marked optional.
    fn element_type(&mut self, value: &Expr, optional: bool) -> Type {
        let ty = self.type_of(value);
        match ty {
            Type::Optional(inner) if optional => (*inner).clone(),
            ty if optional && !ty.is_dyn() => {
                self.mismatch(value.id, &Type::optional(ty.clone()), &ty);
                ty
            }
            ty => ty,
        }
    }

    fn check_list(&mut self, id: Id, elements: &mut [Element]) {
        let mut joined = None;
        for element in elements {
            self.check(&mut element.value);
            let ty = self.element_type(&element.value, element.optional);
            joined = Some(self.join(joined, ty));
        }
        let item = joined.unwrap_or_else(|| self.new_param());
        self.set(id, Type::list(item));
    }

    fn check_map(&mut self, id: Id, entries: &mut [Entry]) {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            self.check(&mut entry.key);
            let key = self.type_of(&entry.key);
            keys = Some(self.join(keys, key));
            self.check(&mut entry.value);
            let value = self.element_type(&entry.value, entry.optional);
            values = Some(self.join(values, value));
        }
        let keys = keys.unwrap_or_else(|| self.new_param());
        let values = values.unwrap_or_else(|| self.new_param());
        self.set(id, Type::map(keys, values));
    }

    /// The type of what was before and what is added to it. Literals may hold one type only, but that is checked later,
    /// so that one mistake is one complaint.
    fn join(&mut self, before: Option<Type>, added: Type) -> Type {
        match before {
            None => added,
            Some(before) if self.assignable(&before, &added) => most_general(&before, &added),
            Some(_) => Type::Dyn,
        }
    }

    fn check_struct(&mut self, id: Id, name: &str, fields: &mut [Init]) {
        let bare = name.strip_prefix('.').unwrap_or(name);
        let Some(ty) = self.environment.named_type(bare) else {
            self.undeclared(id, name);
            return self.set(id, Type::Error);
        };
        let result = if self.is_message(&ty) {
            ty
        } else {
            self.complain(id, format!("'{}' is not a message type", ty.name()));
            Type::Error
        };
        self.set(id, result.clone());
        self.refer(id, Reference::TypeValue(result.clone()));
        for field in fields {
            self.check(&mut field.value);
            let declared = match &result {
                Type::Error => Type::Error,
                ty => self.field_type(field.id, ty, &field.field).unwrap_or(Type::Error),
            };
            let value = self.element_type(&field.value, field.optional);
            if !self.assignable(&declared, &value) {
                self.complain(
                    field.id,
                    format!(
                        "expected type of field '{}' is '{declared}' but provided type is '{value}'",
                        field.field
                    ),
                );
            }
        }
    }

    fn check_comprehension(&mut self, id: Id, fold: &mut Comprehension) {
        self.check(&mut fold.range);
        self.check(&mut fold.init);
        let range = self.substituted(&self.type_of(&fold.range));
        let accumulated = self.type_of(&fold.init);
        let (first, second) = match &range {
            Type::List(item) if fold.second_var.is_some() => (Type::Int, (**item).clone()),
            Type::List(item) => ((**item).clone(), Type::Dyn),
            Type::Map(entry) => (entry.0.clone(), entry.1.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                self.complain(
                    fold.range.id,
                    format!(
                        "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                    ),
                );
                (Type::Error, Type::Error)
            }
        };
        let outside = self.scope.len();
        self.scope.push((fold.accumulator.clone(), accumulated.clone()));
        self.scope.push((fold.var.clone(), first));
        if let Some(name) = &fold.second_var {
            self.scope.push((name.clone(), second));
        }
        self.check(&mut fold.condition);
        self.assert(&fold.condition, &Type::Bool);
        self.check(&mut fold.step);
        self.assert(&fold.step, &accumulated);
        self.scope.truncate(outside + 1);
        self.check(&mut fold.result);
        self.scope.truncate(outside);
        let result = self.substituted(&self.type_of(&fold.result));
        self.set(id, result);
    }

    fn assert(&mut self, expr: &Expr, wanted: &Type) {
        let ty = self.type_of(expr);
        if !self.assignable(wanted, &ty) {
            self.mismatch(expr.id, wanted, &ty);
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}

/// `a.b.c` as one name, if it is nothing but names.
fn qualified_name(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.to_string()),
        Kind::Select { operand, field, test_only: false } => {
            let mut name = qualified_name(operand)?;
            name.push('.');
            name.push_str(field);
            Some(name)
        }
        _ => None,
    }
}

fn signature(args: &[Type], member: bool) -> String {
    let join = |args: &[Type]| args.iter().map(Type::to_string).collect::<Vec<_>>().join(", ");
    match args {
        [receiver, args @ ..] if member => format!("{receiver}.({})", join(args)),
        args => format!("({})", join(args)),
    }
}

/// Replaces the letters of a signature by fresh parameters.
fn substitute_letters(fresh: &Solved, ty: &Type) -> Type {
    if fresh.is_empty() { ty.clone() } else { rebuild(ty, &|number| fresh.get(number as usize)?.clone()) }
}

/// Replaces parameters by what they stand for; open ones by `dyn` if `to_dyn`.
fn substitute(solved: &Solved, ty: &Type, to_dyn: bool) -> Type {
    rebuild(ty, &|number| match solved.get(number as usize) {
        Some(Some(known)) => Some(substitute(solved, known, to_dyn)),
        _ if to_dyn => Some(Type::Dyn),
        _ => None,
    })
}

fn rebuild(ty: &Type, replace: &dyn Fn(u32) -> Option<Type>) -> Type {
    match ty {
        Type::Param(number) => replace(*number).unwrap_or_else(|| ty.clone()),
        Type::List(item) => Type::list(rebuild(item, replace)),
        Type::Map(entry) => Type::map(rebuild(&entry.0, replace), rebuild(&entry.1, replace)),
        Type::Optional(value) => Type::optional(rebuild(value, replace)),
        Type::Type(Some(inner)) => Type::of_type(rebuild(inner, replace)),
        other => other.clone(),
    }
}

fn find(solved: &Solved, ty: &Type) -> Option<Type> {
    match ty {
        Type::Param(number) => solved.get(*number as usize).cloned().flatten(),
        _ => None,
    }
}

fn bind(solved: &mut Solved, param: &Type, ty: Type) {
    if let Type::Param(number) = param {
        let index = *number as usize;
        if solved.len() <= index {
            solved.resize(index + 1, None);
        }
        solved[index] = Some(ty);
    }
}

fn assignable(solved: &mut Solved, from: &Type, to: &Type) -> bool {
    if let Type::Param(_) = to {
        match unify(solved, from, to) {
            Unified::Yes => return true,
            Unified::Conflict => return false,
            Unified::Cyclic => {}
        }
    }
    if let Type::Param(_) = from {
        return matches!(unify(solved, to, from), Unified::Yes);
    }
    if from.is_dyn_or_error() || to.is_dyn_or_error() {
        return true;
    }
    match (from, to) {
        (Type::Null, other) | (other, Type::Null) => nullable(other),
        (Type::Type(_), Type::Type(_)) => true,
        (Type::List(_) | Type::Map(_) | Type::Optional(_), _) => {
            from.same_kind(to)
                && from
                    .parameters()
                    .into_iter()
                    .zip(to.parameters())
                    .all(|(from, to)| assignable(solved, from, to))
        }
        _ => from.same_kind(to),
    }
}

fn nullable(ty: &Type) -> bool {
    matches!(
        ty,
        Type::Null | Type::Optional(_) | Type::Object(_) | Type::Opaque(_) | Type::Duration | Type::Timestamp
    )
}

enum Unified {
    Yes,
    /// The parameter already stands for something else.
    Conflict,
    /// The type contains the parameter.
    Cyclic,
}

/// Lets `param` stand for `ty`.
fn unify(solved: &mut Solved, ty: &Type, param: &Type) -> Unified {
    if ty == param {
        return Unified::Yes;
    }
    if let Some(known) = find(solved, param) {
        if *ty == known {
            return Unified::Yes;
        }
        if assignable(solved, ty, &known) {
            let general = most_general(ty, &known);
            if !occurs(solved, param, &general) {
                bind(solved, param, general);
            }
            return Unified::Yes;
        }
        return Unified::Conflict;
    }
    if occurs(solved, param, ty) {
        return Unified::Cyclic;
    }
    bind(solved, param, ty.clone());
    Unified::Yes
}

/// Whether `param` occurs within `ty`.
fn occurs(solved: &Solved, param: &Type, ty: &Type) -> bool {
    if param == ty {
        return true;
    }
    match ty {
        Type::Param(_) => find(solved, ty).is_some_and(|known| occurs(solved, param, &known)),
        other => other.parameters().into_iter().any(|part| occurs(solved, param, part)),
    }
}

fn most_general(a: &Type, b: &Type) -> Type {
    if equal_or_less_specific(a, b) { a.clone() } else { b.clone() }
}

fn equal_or_less_specific(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Any | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Any | Type::Param(_)) => false,
        (Type::Type(_), Type::Type(_)) => true,
        _ => {
            a.same_kind(b)
                && a.parameters().into_iter().zip(b.parameters()).all(|(a, b)| equal_or_less_specific(a, b))
        }
    }
}

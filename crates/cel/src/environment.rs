//! [`Environment`]: what an expression may refer to.

use std::collections::HashMap;
use std::sync::Arc;

use crate::checker::{self, Checked};
use crate::cost;
use crate::error::{CompileError, Refusal};
use crate::library::{BASE, Function, JSON_PATCH, SIMULATION};
use crate::plan;
use crate::program::Program;
use crate::types::{Decl, Field, ObjectType, Opaque, Type};
use crate::{parser, validators};

/// Variables, types and libraries.
///
/// Libraries are those of Kubernetes 1.36. All of them were there one release before, so expressions that are new and
/// those that are stored already see the same ones.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Vec<Variable>,
    index: HashMap<Box<str>, usize>,
    messages: HashMap<Box<str>, Type>,
    json_patch: bool,
    mutations: bool,
    simulation: bool,
    bindings: bool,
}

#[derive(Clone, Debug)]
struct Variable {
    name: Box<str>,
    decl: Arc<Decl>,
    /// The fields are variables of their own, evaluated when first read; this is the index of the first.
    composed: Option<usize>,
}

impl Environment {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a variable. Its name may have dots: `authorizer.requestResource`.
    #[must_use]
    pub fn variable(mut self, name: &str, decl: Decl) -> Self {
        self.add(name, decl, None);
        self
    }

    /// Adds a variable whose fields are bound one by one, under `name.field`, and may be lazy: `variables`.
    #[must_use]
    pub fn composed(mut self, name: &str, type_name: &str, fields: Vec<(&str, Decl)>) -> Self {
        let first = self.variables.len() + 1;
        let object = ObjectType::new(
            type_name,
            fields.iter().map(|(field, decl)| Field::new(field, decl.clone())).collect(),
        );
        self.add(name, Decl::object(Arc::new(object)), Some(first));
        for (field, decl) in fields {
            // The `#` keeps the checker from taking it for a name with dots.
            self.add(&format!("{name}#{field}"), decl, None);
        }
        self
    }

    /// Adds a message type that expressions can name and construct.
    #[must_use]
    pub fn message(mut self, object: &Arc<ObjectType>) -> Self {
        self.messages.insert(object.name().into(), Type::Object(object.clone()));
        self
    }

    /// Adds `cel.bind(name, value, expression)`.
    #[must_use]
    pub fn bindings(mut self) -> Self {
        self.bindings = true;
        self
    }

    /// Adds what mutations need: `jsonpatch.escapeKey`.
    #[must_use]
    pub fn json_patch(mut self) -> Self {
        self.json_patch = true;
        self
    }

    /// Adds what mutations are written in: `JSONPatch{…}`, and `Object{…}` with `Object.spec{…}` and so on below it, whose
    /// fields are not known here.
    #[must_use]
    pub fn mutations(self) -> Self {
        let mut fields: Vec<Field> =
            ["op", "from", "path"].iter().map(|name| Field::new(name, Decl::string())).collect();
        fields.push(Field::new("value", Decl::dynamic()));
        let mut environment = self.message(&Arc::new(ObjectType::new("JSONPatch", fields))).json_patch();
        environment.mutations = true;
        environment
    }

    /// Adds what simulations are written in: KWOK's functions, and arithmetic on quantities.
    #[must_use]
    pub fn simulation(mut self) -> Self {
        self.simulation = true;
        self
    }

    fn add(&mut self, name: &str, decl: Decl, composed: Option<usize>) {
        let index = self.variables.len();
        self.variables.push(Variable { name: name.into(), decl: Arc::new(decl), composed });
        self.index.insert(name.into(), index);
    }

    /// The number of a variable, by which it is bound.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// The number of a field of a composed variable.
    pub fn index_of_field(&self, name: &str, field: &str) -> Option<usize> {
        self.index_of(&format!("{name}#{field}"))
    }

    pub(crate) fn variables_len(&self) -> usize {
        self.variables.len()
    }

    pub(crate) fn variable_at(&self, index: usize) -> (&str, &Decl) {
        let variable = &self.variables[index];
        (&variable.name, &variable.decl)
    }

    pub(crate) fn is_composed(&self, index: usize) -> bool {
        self.variables[index].composed.is_some()
    }

    pub(crate) fn first_variable(&self) -> Option<(usize, &Decl)> {
        self.variables.first().map(|variable| (0, &*variable.decl))
    }

    /// A variable that expressions can name.
    pub(crate) fn named(&self, name: &str) -> Option<(usize, &Decl)> {
        let index = self.index_of(name).filter(|_| !name.contains('#'))?;
        Some((index, &self.variables[index].decl))
    }

    pub(crate) fn function(&self, name: &str) -> Option<&'static Function> {
        let added = if self.simulation { SIMULATION.get(name) } else { None };
        added.or_else(|| BASE.get(name)).or_else(|| JSON_PATCH.get(name).filter(|_| self.json_patch))
    }

    pub(crate) fn named_type(&self, name: &str) -> Option<Type> {
        Some(match name {
            "bool" => Type::Bool,
            "bytes" => Type::Bytes,
            "double" => Type::Double,
            "google.protobuf.Duration" => Type::Duration,
            "int" => Type::Int,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "null_type" => Type::Null,
            "string" => Type::String,
            "google.protobuf.Timestamp" => Type::Timestamp,
            "type" => Type::Type(None),
            "uint" => Type::Uint,
            "optional_type" => Type::optional(Type::Dyn),
            _ => {
                if let Some(message) = self.messages.get(name) {
                    return Some(message.clone());
                }
                if self.mutations && (name == "Object" || name.starts_with("Object.")) {
                    return Some(Type::Object(Arc::new(ObjectType::open(name))));
                }
                let opaque = [Opaque::Ip, Opaque::Cidr].into_iter().find(|opaque| opaque.name() == name)?;
                return Some(Type::Opaque(opaque));
            }
        })
    }

    /// Parses and checks an expression, and says which type its results have. Constants that have no value
    /// (`int('a')`) are well typed.
    pub fn check(&self, text: &str) -> Result<Type, CompileError> {
        self.checked(text).map(|checked| checked.type_of(checked.ast.root.id).clone())
    }

    fn checked(&self, text: &str) -> Result<Checked, CompileError> {
        let checked = checker::check(self, text, parser::parse(text, self.bindings)?)?;
        validators::validate(text, &checked)?;
        Ok(checked)
    }

    /// Parses, checks and compiles an expression.
    pub fn compile(&self, text: &str) -> Result<Program, CompileError> {
        let checked = self.checked(text)?;
        let output = checked.type_of(checked.ast.root.id).clone();
        let estimate = cost::estimate(self, &checked);
        let plan = plan::plan(self, &checked).map_err(CompileError::instantiation)?;
        Ok(Program::new(plan, output, estimate))
    }

    /// Compiles an expression that must have one of these types; of none, any will do. What is wrong is said as the
    /// validation of built-in kinds says it.
    pub fn compile_as(&self, text: &str, types: &[Type]) -> Result<Program, Refusal> {
        let program = self.compile(text).map_err(|error| match error.is_instantiation() {
            true => Refusal::Internal(format!("program instantiation failed: {error}")),
            false => Refusal::Invalid(format!("compilation failed: {error}")),
        })?;
        let output = program.output();
        if types.is_empty() || types.contains(output) {
            return Ok(program);
        }
        let output = output.declared();
        Err(Refusal::Invalid(match types {
            [only] => format!("must evaluate to {} but got {output}", only.declared()),
            several => {
                let names: Vec<String> = several.iter().map(Type::declared).collect();
                format!("must evaluate to one of [{}] but got {output}", names.join(" "))
            }
        }))
    }
}

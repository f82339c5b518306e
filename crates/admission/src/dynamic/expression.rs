//! CEL as admission knows it: its variables, and what an expression that fails is said to have done.

use std::sync::Arc;

use apimachinery::Value;
use cel::admission::{self, NAMESPACE, REQUEST};
use cel::{Activation, Budget, Decl, Environment, EvalErrorKind, ObjectType, Program, Type};

use super::inputs::Inputs;

/// Kinds of errors, as metrics name them.
pub(crate) const NO_ERROR: &str = "no_error";
pub(crate) const COMPILE_ERROR: &str = "compile_error";
pub(crate) const INVALID_ERROR: &str = "invalid_error";

/// The variables of one policy or webhook, and its own composed ones.
pub(crate) struct Scope {
    environment: Environment,
    numbers: Numbers,
    /// `variables.x`, with the number of each. Those that do not compile are missing.
    composed: Vec<(usize, Program)>,
}

/// Where each variable is bound.
struct Numbers {
    object: usize,
    old_object: usize,
    namespace: usize,
    request: usize,
    authorizer: usize,
    request_resource: usize,
    params: Option<usize>,
}

/// One expression, compiled; or why not.
pub(crate) struct Expression {
    text: String,
    program: Result<Program, String>,
}

/// Which of the variables that cost something to make some expressions read, themselves or through composed ones.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reads {
    old_object: bool,
    namespace: bool,
    request: bool,
    authorizer: bool,
    request_resource: bool,
}

/// Why an expression has no value.
#[derive(Debug)]
pub(crate) enum Failure {
    /// This one failed; others go on.
    This(String),
    /// There is nothing left to spend on any.
    Budget(String),
}

impl Scope {
    /// `variables` are names and expressions in their order; each may use those before it.
    pub fn new(has_params: bool, variables: &[Value], mutating: bool) -> Self {
        let scope = admission::Scope { params: has_params, authorizer: true, mutations: mutating };
        let mut declared: Vec<(&str, Type)> = Vec::new();
        let mut programs = Vec::new();
        for variable in variables {
            let name = variable.str_at(&["name"]);
            let environment = admission::environment(scope, Some(&declared));
            let program = environment.compile(variable.str_at(&["expression"])).ok();
            declared.push((name, program.as_ref().map_or(Type::Dyn, |program| program.output().clone())));
            programs.push((name, program));
        }
        let environment = admission::environment(scope, Some(&declared));
        let composed = programs
            .into_iter()
            .filter_map(|(name, program)| Some((environment.index_of_field("variables", name)?, program?)))
            .collect();
        Self { numbers: Numbers::of(&environment), environment, composed }
    }

    /// A type that expressions can construct.
    pub fn type_named(&self, name: &str) -> Type {
        Type::Object(Arc::new(ObjectType::open(name)))
    }

    /// Compiles an expression whose value must be of one of these types; of none, any will do.
    pub fn compile(&self, text: &str, types: &[Type]) -> Expression {
        let program = self.environment.compile_as(text, types).map_err(|refusal| refusal.to_string());
        Expression { text: text.trim().to_owned(), program }
    }

    /// What has to be bound for these expressions.
    pub fn reads<'e>(&self, expressions: impl Iterator<Item = &'e Expression> + Clone) -> Reads {
        let reads = |number: usize| {
            let programs = expressions.clone().filter_map(|expression| expression.program.as_ref().ok());
            programs
                .chain(self.composed.iter().map(|(_, program)| program))
                .any(|program| program.reads(number))
        };
        Reads {
            old_object: reads(self.numbers.old_object),
            namespace: reads(self.numbers.namespace),
            request: reads(self.numbers.request),
            authorizer: reads(self.numbers.authorizer),
            request_resource: reads(self.numbers.request_resource),
        }
    }

    /// Hot path: binds what is read of a request. Values of composed variables are shared by all expressions evaluated
    /// on it.
    pub fn activation<'a>(&'a self, inputs: &'a Inputs<'a>, reads: Reads) -> Activation<'a> {
        let numbers = &self.numbers;
        let mut activation = Activation::new(&self.environment);
        let tree = |tree: Option<&'a Value>| tree.map_or(cel::Value::Null, cel::Value::dynamic);
        activation.bind(numbers.object, tree(inputs.object));
        if reads.old_object {
            activation.bind(numbers.old_object, tree(inputs.old));
        }
        if let Some(params) = numbers.params {
            activation.bind(params, tree(inputs.params));
        }
        let declared = |tree: Option<&'a Value>, decl: &'a Decl| {
            tree.and_then(|tree| cel::Value::declared(tree, decl).ok()).unwrap_or(cel::Value::Null)
        };
        if reads.request {
            activation.bind(numbers.request, declared(Some(inputs.request()), &REQUEST));
        }
        if reads.namespace {
            activation.bind(numbers.namespace, declared(inputs.namespace(), &NAMESPACE));
        }
        if reads.authorizer {
            activation.bind(numbers.authorizer, inputs.subject().into_value());
        }
        if reads.request_resource {
            activation.bind(numbers.request_resource, inputs.resource_check().into_value());
        }
        for (number, program) in &self.composed {
            activation.bind_lazy(*number, program);
        }
        activation
    }
}

impl Numbers {
    fn of(environment: &Environment) -> Self {
        let number = |name: &str| environment.index_of(name).expect("every scope declares it");
        Self {
            object: number("object"),
            old_object: number("oldObject"),
            namespace: number("namespaceObject"),
            request: number("request"),
            authorizer: number("authorizer"),
            request_resource: number("authorizer.requestResource"),
            params: environment.index_of("params"),
        }
    }
}

impl Expression {
    /// As users wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Hot path.
    pub fn eval<'a>(
        &'a self,
        activation: &Activation<'a>,
        budget: &mut Budget,
    ) -> Result<cel::Value<'a>, Failure> {
        let program =
            self.program.as_ref().map_err(|why| Failure::This(format!("compilation error: {why}")))?;
        program.eval(activation, budget).map_err(|error| match error.kind() {
            EvalErrorKind::Budget => Failure::Budget(error.to_string()),
            _ => Failure::This(format!("expression '{}' resulted in error: {error}", self.text)),
        })
    }

    /// What metrics call a failure of this expression.
    pub fn error_type(&self, failure: &Failure) -> &'static str {
        if self.program.is_err() { COMPILE_ERROR } else { failure.error_type() }
    }

    /// Why it did not compile.
    pub fn compile_error(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }
}

impl Failure {
    /// As metrics name it.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::This(_) => INVALID_ERROR,
            Self::Budget(_) => "out_of_budget",
        }
    }

    pub fn text(self) -> String {
        match self {
            Self::This(text) | Self::Budget(text) => text,
        }
    }
}

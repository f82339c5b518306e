//! Rendering: one walk over a parsed template.

use crate::ast::{Branch, Callee, Code, Command, Node, Operand, Pipe, Term};
use crate::{
    DEPTH_MAX, Datum, Functions, OUTPUT_BYTES_MAX, Parameter, RenderError, STEPS_MAX, Signature, Template,
    format,
};

pub fn render(template: &Template, data: Datum, functions: &dyn Functions) -> Result<String, RenderError> {
    let root = Slot::own(data);
    let mut state = State {
        template,
        functions,
        out: String::new(),
        variables: vec![("$", root.clone())],
        place: None,
        steps: 0,
        depth: 0,
    };
    let body = template.defined.get(&template.name).map(Vec::as_slice).unwrap_or_default();
    match state.walk(&root, body) {
        Ok(_) => Ok(state.out),
        Err(message) => Err(RenderError(state.locate(&message))),
    }
}

type Executed<T> = Result<T, String>;

/// A value, and whether Go would see it through an interface (an element of a map or of a list): what is null is then
/// there, and complaints do not know its type.
#[derive(Clone)]
struct Slot {
    value: Datum,
    boxed: bool,
}

impl Slot {
    fn own(value: Datum) -> Self {
        Self { value, boxed: false }
    }

    fn boxed(value: Datum) -> Self {
        Self { value, boxed: true }
    }

    /// What is in the interface.
    fn unboxed(self) -> Datum {
        if self.value.is_nil() { Datum::Missing } else { self.value }
    }

    fn type_name(&self) -> &'static str {
        if self.boxed { "interface {}" } else { self.value.type_name() }
    }
}

/// What is evaluated, for complaints.
#[derive(Clone, Copy)]
enum Place<'t> {
    Pipe(&'t Pipe),
    Command(&'t Command),
    Operand(&'t Operand),
    Template { position: usize, name: &'t str, argument: Option<&'t Pipe> },
}

/// How a body ended.
#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct State<'t> {
    template: &'t Template,
    functions: &'t dyn Functions,
    out: String,
    variables: Vec<(&'t str, Slot)>,
    place: Option<Place<'t>>,
    steps: usize,
    depth: usize,
}

// === impl State: control ===

impl<'t> State<'t> {
    fn locate(&self, message: &str) -> String {
        let name = &self.template.name;
        let Some(place) = self.place else { return format!("template: {name}: {message}") };
        let (position, context) = match place {
            Place::Pipe(pipe) => (pipe.position, pipe.to_string()),
            Place::Command(command) => (command.position, command.to_string()),
            Place::Operand(operand) => (operand.position, operand.to_string()),
            Place::Template { position, name, argument } => {
                let argument = argument.map(|pipe| format!(" {pipe}")).unwrap_or_default();
                (position, format!("{{{{template {}{argument}}}}}", format::quote(name)))
            }
        };
        let before = &self.template.text[..position];
        let line = 1 + before.matches('\n').count();
        let column = position - before.rfind('\n').map_or(0, |newline| newline + 1);
        format!(
            "template: {name}:{line}:{column}: executing {} at <{context}>: {message}",
            format::quote(name)
        )
    }

    fn step(&mut self) -> Executed<()> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(format!("more than {STEPS_MAX} steps"));
        }
        if self.out.len() > OUTPUT_BYTES_MAX {
            return Err(format!("more than {OUTPUT_BYTES_MAX} bytes"));
        }
        Ok(())
    }

    fn walk(&mut self, dot: &Slot, nodes: &'t [Node]) -> Executed<Flow> {
        for node in nodes {
            self.step()?;
            let flow = match node {
                Node::Text(text) => {
                    self.out.push_str(text);
                    Flow::On
                }
                Node::Action(pipe) => {
                    let value = self.pipe(dot, pipe)?;
                    if pipe.variables.is_empty() {
                        self.print(&value);
                    }
                    Flow::On
                }
                Node::If(branch) => self.choose(dot, branch, false)?,
                Node::With(branch) => self.choose(dot, branch, true)?,
                Node::Range(branch) => self.range(dot, branch)?,
                Node::Template { position, name, argument } => {
                    self.place =
                        Some(Place::Template { position: *position, name, argument: argument.as_ref() });
                    self.call_template(dot, name, argument.as_ref())?;
                    Flow::On
                }
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn print(&mut self, value: &Datum) {
        match value {
            Datum::Missing | Datum::Nil => self.out.push_str("<no value>"),
            Datum::Text(text) | Datum::Number(text) => self.out.push_str(text),
            other => self.out.push_str(&format::print(other)),
        }
    }

    /// `if`, and `with`, which moves the dot.
    fn choose(&mut self, dot: &Slot, branch: &'t Branch, moves: bool) -> Executed<Flow> {
        let variables = self.variables.len();
        let value = self.pipe(dot, &branch.pipe)?;
        let flow = match (value.is_true(), moves) {
            (true, true) => self.walk(&Slot::own(value), &branch.body),
            (true, false) => self.walk(dot, &branch.body),
            (false, _) => self.walk(dot, &branch.otherwise),
        };
        self.variables.truncate(variables);
        flow
    }

    fn range(&mut self, dot: &Slot, branch: &'t Branch) -> Executed<Flow> {
        let variables = self.variables.len();
        let value = self.pipe(dot, &branch.pipe)?;
        let rounds: Vec<(Datum, Slot)> = match &value {
            Datum::Missing | Datum::Nil => Vec::new(),
            Datum::List(items) => {
                let numbered = items.iter().enumerate();
                numbered.map(|(index, item)| (Datum::Int(index as i64), Slot::boxed(item.clone()))).collect()
            }
            Datum::Map(map) => {
                let map = map.borrow();
                map.iter().map(|(key, item)| (Datum::Text(key.clone()), Slot::boxed(item.clone()))).collect()
            }
            Datum::Int(count) => {
                if usize::try_from(*count).is_ok_and(|count| count > STEPS_MAX) {
                    return Err(format!("more than {STEPS_MAX} steps"));
                }
                (0..*count).map(|index| (Datum::Int(index), Slot::own(Datum::Int(index)))).collect()
            }
            other => return Err(format!("range can't iterate over {}", format::print(other))),
        };
        if rounds.is_empty() {
            let flow = self.walk(dot, &branch.otherwise);
            self.variables.truncate(variables);
            return flow;
        }
        let mark = self.variables.len();
        for (key, item) in rounds {
            self.step()?;
            self.set_range_variables(&branch.pipe, key, &item);
            let flow = self.walk(&item, &branch.body)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        self.variables.truncate(variables);
        Ok(Flow::On)
    }

    fn set_range_variables(&mut self, pipe: &'t Pipe, key: Datum, item: &Slot) {
        let values = match pipe.variables.len() {
            0 => return,
            1 => vec![item.clone()],
            _ => vec![Slot::own(key), item.clone()],
        };
        for (name, value) in pipe.variables.iter().zip(values) {
            self.assign(name, value);
        }
    }

    fn assign(&mut self, name: &str, value: Slot) {
        if let Some((_, own)) = self.variables.iter_mut().rev().find(|(own, _)| *own == name) {
            *own = value;
        }
    }

    fn call_template(&mut self, dot: &Slot, name: &'t str, argument: Option<&'t Pipe>) -> Executed<()> {
        let template = self.template;
        let Some(body) = template.defined.get(name) else {
            return Err(format!("template {} not defined", format::quote(name)));
        };
        if self.depth >= DEPTH_MAX {
            return Err(format!("exceeded maximum template depth ({DEPTH_MAX})"));
        }
        let dot = match argument {
            Some(pipe) => Slot::own(self.pipe(dot, pipe)?),
            None => Slot::own(Datum::Missing),
        };
        let outer = std::mem::replace(&mut self.variables, vec![("$", dot.clone())]);
        self.depth += 1;
        self.walk(&dot, body)?;
        self.depth -= 1;
        self.variables = outer;
        Ok(())
    }
}

// === impl State: values ===

impl<'t> State<'t> {
    fn pipe(&mut self, dot: &Slot, pipe: &'t Pipe) -> Executed<Datum> {
        self.place = Some(Place::Pipe(pipe));
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(dot, command, value)?.unboxed());
        }
        let value = value.unwrap_or(Datum::Missing);
        for name in &pipe.variables {
            let slot = Slot::own(value.clone());
            if pipe.assigns { self.assign(name, slot) } else { self.variables.push((name, slot)) }
        }
        Ok(value)
    }

    /// `piped` is what the command before it gave.
    fn command(&mut self, dot: &Slot, command: &'t Command, piped: Option<Datum>) -> Executed<Slot> {
        let (first, rest) = command.operands.split_first().ok_or("empty command")?;
        let has_arguments = !rest.is_empty() || piped.is_some();
        match &first.term {
            Term::Function(callee) => {
                self.place = Some(Place::Operand(first));
                let call = Call { callee, place: Place::Command(command), operands: rest, piped };
                return self.call(dot, call).map(Slot::own);
            }
            Term::Field(names) => {
                self.place = Some(Place::Operand(first));
                return self.fields(dot.clone(), names, has_arguments);
            }
            Term::Chain(inner, names) => {
                self.place = Some(Place::Operand(first));
                let receiver = self.operand(dot, inner)?;
                return self.fields(receiver, names, has_arguments);
            }
            Term::Variable(name, names) if !names.is_empty() => {
                self.place = Some(Place::Operand(first));
                return self.fields(self.variable(name), names, has_arguments);
            }
            Term::Nil => {
                self.place = Some(Place::Operand(first));
                return Err("nil is not a command".into());
            }
            _ => {}
        }
        self.place = Some(Place::Operand(first));
        if has_arguments {
            return Err(format!("can't give argument to non-function {first}"));
        }
        self.operand(dot, first)
    }

    /// An operand that gets no arguments.
    fn operand(&mut self, dot: &Slot, operand: &'t Operand) -> Executed<Slot> {
        self.place = Some(Place::Operand(operand));
        Ok(match &operand.term {
            Term::Dot => dot.clone(),
            Term::Nil => Slot::own(Datum::Missing),
            Term::Bool(value) => Slot::own(Datum::Bool(*value)),
            Term::Int { value, .. } => Slot::own(Datum::Int(*value)),
            Term::Float { value, .. } => Slot::own(Datum::Float(*value)),
            Term::Text { value, .. } => Slot::own(value.as_str().into()),
            Term::Field(names) => self.fields(dot.clone(), names, false)?,
            Term::Variable(name, names) => self.fields(self.variable(name), names, false)?,
            Term::Chain(inner, names) => {
                let receiver = self.operand(dot, inner)?;
                self.fields(receiver, names, false)?
            }
            Term::Pipe(pipe) => Slot::own(self.pipe(dot, pipe)?),
            Term::Function(callee) => {
                let call = Call { callee, place: Place::Operand(operand), operands: &[], piped: None };
                Slot::own(self.call(dot, call)?)
            }
        })
    }

    fn variable(&self, name: &str) -> Slot {
        let found = self.variables.iter().rev().find(|(own, _)| *own == name);
        found.map_or(Slot::own(Datum::Missing), |(_, slot)| slot.clone())
    }

    fn fields(&mut self, receiver: Slot, names: &[String], has_arguments: bool) -> Executed<Slot> {
        let mut value = receiver;
        for (index, name) in names.iter().enumerate() {
            value = match (&value.value, value.boxed) {
                (Datum::Missing, _) | (Datum::Nil, false) => Slot::own(Datum::Missing),
                (Datum::Nil, true) => return Err(format!("nil pointer evaluating interface {{}}.{name}")),
                (Datum::Map(_), _) if has_arguments && index + 1 == names.len() => {
                    return Err(format!("{name} is not a method but has arguments"));
                }
                (Datum::Map(map), _) => match map.borrow().get(name.as_str()) {
                    Some(item) => Slot::boxed(item.clone()),
                    None => Slot::own(Datum::Missing),
                },
                _ => return Err(format!("can't evaluate field {name} in type {}", value.type_name())),
            };
        }
        Ok(value)
    }
}

// === impl State: functions ===

/// A function with what it is called with.
struct Call<'t> {
    callee: &'t Callee,
    place: Place<'t>,
    operands: &'t [Operand],
    piped: Option<Datum>,
}

impl<'t> State<'t> {
    fn call(&mut self, dot: &Slot, call: Call<'t>) -> Executed<Datum> {
        self.step()?;
        let name = &call.callee.name;
        let signature = match call.callee.code {
            Code::And | Code::Or => {
                Signature { parameters: &[Parameter::Raw, Parameter::Raw], variadic: true }
            }
            Code::Native(native) => native.signature,
            Code::Host(signature) => signature,
        };
        check_count(name, signature, call.operands.len() + usize::from(call.piped.is_some()))?;
        if matches!(call.callee.code, Code::And | Code::Or) {
            return self.and_or(dot, call);
        }
        let parameters = signature.parameters;
        let parameter = |index: usize| parameters[index.min(parameters.len() - 1)];
        let mut arguments = Vec::with_capacity(call.operands.len() + 1);
        for (index, operand) in call.operands.iter().enumerate() {
            arguments.push(self.argument(dot, operand, parameter(index))?);
        }
        if let Some(piped) = call.piped {
            arguments.push(fit(Slot::own(piped), parameter(arguments.len()))?);
        }
        let result = match call.callee.code {
            Code::Native(native) => (native.code)(&arguments),
            _ => self.functions.call(name, &arguments),
        };
        result.map_err(|error| {
            self.place = Some(call.place);
            format!("error calling {name}: {error}")
        })
    }

    /// The first that decides, or the last.
    fn and_or(&mut self, dot: &Slot, call: Call<'t>) -> Executed<Datum> {
        let decisive = matches!(call.callee.code, Code::Or);
        let mut value = Datum::Missing;
        for operand in call.operands {
            value = self.argument(dot, operand, Parameter::Raw)?;
            if value.is_true() == decisive {
                return Ok(value);
            }
        }
        Ok(call.piped.unwrap_or(value))
    }

    fn argument(&mut self, dot: &Slot, operand: &'t Operand, parameter: Parameter) -> Executed<Datum> {
        let found = |what: &str| Err(format!("expected {what}; found {operand}"));
        let is_constant = operand.term.is_constant() && !matches!(operand.term, Term::Dot | Term::Nil);
        if is_constant {
            self.place = Some(Place::Operand(operand));
            match (parameter, &operand.term) {
                (Parameter::Text, Term::Text { .. })
                | (Parameter::Int, Term::Int { .. })
                | (Parameter::Bool, Term::Bool(_))
                | (Parameter::Any | Parameter::Raw, _) => {}
                (Parameter::Text, _) => return found("string"),
                (Parameter::Int, _) => return found("integer"),
                (Parameter::Bool, _) => return found("bool"),
                (Parameter::Map, _) => {
                    return Err(format!("can't handle {operand} for arg of type map[string]interface {{}}"));
                }
            }
        }
        let slot = self.operand(dot, operand)?;
        self.place = Some(Place::Operand(operand));
        fit(slot, parameter)
    }
}

fn check_count(name: &str, signature: Signature, given: usize) -> Executed<()> {
    let count = signature.parameters.len();
    let fixed = if signature.variadic { count - 1 } else { count };
    if signature.variadic && given < fixed {
        return Err(format!("wrong number of args for {name}: want at least {fixed} got {given}"));
    }
    if !signature.variadic && given != fixed {
        return Err(format!("wrong number of args for {name}: want {fixed} got {given}"));
    }
    Ok(())
}

/// A value as a parameter takes it.
fn fit(slot: Slot, parameter: Parameter) -> Executed<Datum> {
    let expected = match parameter {
        Parameter::Any => return Ok(if slot.value.is_nil() { Datum::Nil } else { slot.value }),
        Parameter::Raw => return Ok(slot.unboxed()),
        Parameter::Text => "string",
        Parameter::Int => "int",
        Parameter::Bool => "bool",
        Parameter::Map => "map[string]interface {}",
    };
    match (parameter, &slot.value) {
        (Parameter::Text, Datum::Text(_))
        | (Parameter::Int, Datum::Int(_))
        | (Parameter::Bool, Datum::Bool(_))
        | (Parameter::Map, Datum::Map(_)) => Ok(slot.value),
        (Parameter::Map, Datum::Missing) => Ok(Datum::Nil),
        (_, Datum::Missing) => Err(format!("invalid value; expected {expected}")),
        (_, Datum::Nil) => Err(format!("wrong type for value; expected {expected}; got interface {{}}")),
        (_, other) => Err(format!("wrong type for value; expected {expected}; got {}", other.type_name())),
    }
}

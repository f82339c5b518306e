//! From a checked tree to the form that is evaluated.
//!
//! What is constant is computed here: literals of constants, conversions of constants, patterns. Names become
//! numbers. Comprehensions that collect get a step that adds in place.

use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Comprehension, Element, Entry, Expr, Init, Kind, Literal, operator};
use crate::checker::{Checked, Reference};
use crate::cost::CallCost;
use crate::environment::Environment;
use crate::eval::ConstantSet;
use crate::eval_error::EvalError;
use crate::library::{Implementation, lists};
use crate::types::{ObjectType, Type};
use crate::value::{List, Map, Value};

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Plan {
    pub root: Node,
    /// How many variables of comprehensions are alive at once at most.
    pub locals: usize,
    /// Numbers of the variables it reads.
    pub variables: Vec<usize>,
}

#[derive(Debug)]
pub(crate) enum Node {
    Const(Value<'static>),
    Attribute(Box<Attribute>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Equal {
        terms: Box<[Node; 2]>,
        negated: bool,
        cost: CallCost,
    },
    NotStrictlyFalse(Box<Node>),
    Call(Box<Call>),
    /// Membership in constants.
    Membership {
        value: Box<Node>,
        set: Option<Arc<ConstantSet>>,
        list: List<'static>,
    },
    OptionalOr(Box<[Node; 2]>),
    OptionalOrValue(Box<[Node; 2]>),
    /// Elements, and whether each is optional.
    List(Box<[(Node, bool)]>),
    Map(Box<[(Node, Node, bool)]>),
    Message {
        object: Arc<ObjectType>,
        fields: Box<[(Arc<str>, Node, bool)]>,
    },
    Fold(Box<Fold>),
}

/// A value and the steps into it.
#[derive(Debug)]
pub(crate) struct Attribute {
    pub base: Base,
    /// Steps, and whether each is marked optional.
    pub qualifiers: Vec<(Qualifier, bool)>,
    /// `has`: only whether the last step finds something.
    pub test_only: bool,
}

#[derive(Debug)]
pub(crate) enum Base {
    Variable {
        index: usize,
        name: Box<str>,
    },
    /// A field of a composed variable.
    Composed {
        index: usize,
        name: Box<str>,
    },
    Local(usize),
    Relative(Node),
    Conditional(Box<(Node, Node, Node)>),
}

#[derive(Debug)]
pub(crate) enum Qualifier {
    Field(Arc<str>),
    Key(Value<'static>),
    Computed(Node),
}

#[derive(Debug)]
pub(crate) struct Call {
    pub function: &'static str,
    pub implementation: Implementation,
    pub args: Box<[Node]>,
    pub cost: CallCost,
    /// The pattern, if it is constant.
    pub regex: Option<Regex>,
}

#[derive(Debug)]
pub(crate) enum Regex {
    Matches(regex::Regex),
    Find(regex::Regex),
    FindAll(regex::Regex),
}

#[derive(Debug)]
pub(crate) struct Fold {
    pub range: Node,
    /// Places of the variables.
    pub variable: usize,
    pub second: Option<usize>,
    pub accumulator: usize,
    pub init: Node,
    pub condition: Node,
    pub step: Step,
    pub result: Node,
}

#[derive(Debug)]
pub(crate) enum Step {
    Node(Node),
    /// `filter ? @result + [element] : @result`
    Append {
        filter: Option<Node>,
        element: Node,
    },
    /// `filter ? cel.@mapInsert(@result, key, value) : @result`; without a key the value is a map.
    Insert {
        filter: Option<Node>,
        key: Option<Node>,
        value: Node,
    },
}

pub(crate) fn plan(environment: &Environment, checked: &Checked) -> Result<Plan, EvalError> {
    let mut planner = Planner { environment, checked, scope: Vec::new(), locals: 0, variables: Vec::new() };
    let root = planner.node(&checked.ast.root)?;
    let Planner { locals, mut variables, .. } = planner;
    variables.sort_unstable();
    variables.dedup();
    Ok(Plan { root, locals, variables })
}

struct Planner<'e> {
    environment: &'e Environment,
    checked: &'e Checked,
    /// Variables of the comprehensions around; their place is their index.
    scope: Vec<Arc<str>>,
    locals: usize,
    variables: Vec<usize>,
}

type Planned = Result<Node, EvalError>;

impl Attribute {
    fn new(base: Base) -> Self {
        Self { base, qualifiers: Vec::new(), test_only: false }
    }
}

impl Planner<'_> {
    fn node(&mut self, expr: &Expr) -> Planned {
        match &expr.kind {
            Kind::Unspecified => Ok(Node::Const(Value::Null)),
            Kind::Literal(literal) => Ok(Node::Const(constant(literal))),
            Kind::Ident(name) => Ok(self.ident(expr, name)),
            Kind::Select { operand, field, test_only } => self.select(operand, field, *test_only),
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Kind::List { elements } => self.list(elements),
            Kind::Map { entries } => self.map(entries),
            Kind::Struct { fields, .. } => self.message(expr, fields),
            Kind::Comprehension(fold) => self.comprehension(fold),
        }
    }

    fn select(&mut self, operand: &Expr, field: &Arc<str>, test_only: bool) -> Planned {
        let mut attribute = self.attribute(operand)?;
        if let Some(composed) = self.composed_field(&attribute, field) {
            attribute.base = composed;
        } else {
            attribute.qualifiers.push((Qualifier::Field(field.clone()), false));
        }
        attribute.test_only = test_only;
        Ok(Node::Attribute(Box::new(attribute)))
    }

    fn message(&mut self, expr: &Expr, fields: &[Init]) -> Planned {
        let Some(Reference::TypeValue(Type::Object(object))) = self.checked.reference(expr.id) else {
            return Err(EvalError::new("unknown type"));
        };
        let fields = fields
            .iter()
            .map(|init| Ok((init.field.clone(), self.node(&init.value)?, init.optional)))
            .collect::<Result<_, EvalError>>()?;
        Ok(Node::Message { object: object.clone(), fields })
    }

    fn pair(&mut self, a: &Expr, b: &Expr) -> Result<Box<[Node; 2]>, EvalError> {
        Ok(Box::new([self.node(a)?, self.node(b)?]))
    }

    fn ident(&mut self, expr: &Expr, name: &Arc<str>) -> Node {
        let base = match self.checked.reference(expr.id) {
            Some(Reference::TypeValue(ty)) => return Node::Const(Value::Type(ty.clone())),
            Some(Reference::Variable(index)) => {
                self.variables.push(*index);
                Base::Variable { index: *index, name: self.environment.variable_at(*index).0.into() }
            }
            _ => {
                let name = name.strip_prefix('.').unwrap_or(name);
                Base::Local(self.scope.iter().rposition(|local| **local == *name).unwrap_or(0))
            }
        };
        Node::Attribute(Box::new(Attribute::new(base)))
    }

    /// The variable behind a field of a composed one.
    fn composed_field(&mut self, attribute: &Attribute, field: &str) -> Option<Base> {
        let Base::Variable { index, name } = &attribute.base else { return None };
        if !attribute.qualifiers.is_empty() || !self.environment.is_composed(*index) {
            return None;
        }
        let index = self.environment.index_of_field(name, field)?;
        self.variables.push(index);
        Some(Base::Composed { index, name: field.into() })
    }

    /// An operand as something that steps can be added to.
    fn attribute(&mut self, operand: &Expr) -> Result<Attribute, EvalError> {
        Ok(match self.node(operand)? {
            Node::Attribute(attribute) if !attribute.test_only => *attribute,
            other => Attribute::new(Base::Relative(other)),
        })
    }

    fn index(&mut self, operand: &Expr, key: &Expr, optional: bool) -> Planned {
        let mut attribute = self.attribute(operand)?;
        let qualifier = match self.node(key)? {
            Node::Const(Value::String(text)) => Qualifier::Field(Arc::from(&*text)),
            Node::Const(key) => Qualifier::Key(key),
            computed => Qualifier::Computed(computed),
        };
        attribute.qualifiers.push((qualifier, optional));
        Ok(Node::Attribute(Box::new(attribute)))
    }

    fn call(&mut self, expr: &Expr, function: &str, target: Option<&Expr>, args: &[Expr]) -> Planned {
        let cost = CallCost::new(function, self.checked.overloads(expr.id));
        match (function, target, args) {
            (operator::AND, None, [a, b]) => Ok(Node::And(self.pair(a, b)?)),
            (operator::OR, None, [a, b]) => Ok(Node::Or(self.pair(a, b)?)),
            (operator::EQUALS | operator::NOT_EQUALS, None, [a, b]) => {
                let negated = function == operator::NOT_EQUALS;
                Ok(Node::Equal { terms: self.pair(a, b)?, negated, cost })
            }
            (operator::CONDITIONAL, None, [condition, then, otherwise]) => {
                self.conditional(condition, then, otherwise)
            }
            (operator::INDEX, None, [operand, key]) => self.index(operand, key, false),
            (operator::OPTIONAL_INDEX | operator::OPTIONAL_SELECT, None, [operand, key]) => {
                self.index(operand, key, true)
            }
            (operator::NOT_STRICTLY_FALSE, None, [operand]) => {
                Ok(Node::NotStrictlyFalse(Box::new(self.node(operand)?)))
            }
            (operator::IN, None, [value, list]) => self.membership(expr, value, list, cost),
            ("or", Some(target), [other]) => Ok(Node::OptionalOr(self.pair(target, other)?)),
            ("orValue", Some(target), [other]) => Ok(Node::OptionalOrValue(self.pair(target, other)?)),
            _ => self.function(expr, function, target, args, cost),
        }
    }

    fn conditional(&mut self, condition: &Expr, then: &Expr, otherwise: &Expr) -> Planned {
        let parts = Box::new((self.node(condition)?, self.node(then)?, self.node(otherwise)?));
        Ok(Node::Attribute(Box::new(Attribute::new(Base::Conditional(parts)))))
    }

    fn function(
        &mut self,
        expr: &Expr,
        function: &str,
        target: Option<&Expr>,
        args: &[Expr],
        cost: CallCost,
    ) -> Planned {
        let args =
            target.into_iter().chain(args).map(|arg| self.node(arg)).collect::<Result<Box<[Node]>, _>>()?;
        let mut node = self.plain_call(function, args, cost)?;
        if function == "sum"
            && let [overload] = self.checked.overloads(expr.id)
            && let (Node::Call(call), Some(typed)) = (&mut node, lists::typed_sum(overload))
        {
            call.implementation = typed;
        }
        Ok(node)
    }

    fn plain_call(&mut self, function: &str, args: Box<[Node]>, cost: CallCost) -> Planned {
        let Some(declared) = self.environment.function(function) else {
            return Err(EvalError::new(format!("no such overload: {function}")));
        };
        let (function, implementation) = (declared.name, declared.implementation);
        if is_conversion(function)
            && let [Node::Const(value)] = &*args
        {
            let call = Call { function, implementation, args: [].into(), cost, regex: None };
            return call.run(std::slice::from_ref(value)).map(Node::Const);
        }
        let regex = match (function, args.get(1)) {
            ("matches" | "find" | "findAll", Some(Node::Const(Value::String(pattern)))) => {
                let regex = crate::regex::compile(pattern).map_err(EvalError::new)?;
                Some(match function {
                    "matches" => Regex::Matches(regex),
                    "find" => Regex::Find(regex),
                    _ => Regex::FindAll(regex),
                })
            }
            _ => None,
        };
        Ok(Node::Call(Box::new(Call { function, implementation, args, cost, regex })))
    }

    fn membership(&mut self, expr: &Expr, value: &Expr, list: &Expr, cost: CallCost) -> Planned {
        let value = self.node(value)?;
        match self.node(list)? {
            Node::Const(Value::List(list)) if self.checked.overloads(expr.id) == ["in_list"] => {
                if list.is_empty() {
                    return Ok(Node::Const(Value::Bool(false)));
                }
                let primitive = list.iter().flatten().all(|item| {
                    matches!(
                        item,
                        Value::Null
                            | Value::Bool(_)
                            | Value::Int(_)
                            | Value::Uint(_)
                            | Value::Double(_)
                            | Value::String(_)
                    )
                });
                if !primitive {
                    let args = [value, Node::Const(Value::List(list))].into();
                    return self.plain_call(operator::IN, args, cost);
                }
                Ok(Node::Membership { value: Box::new(value), set: ConstantSet::of(&list), list })
            }
            list => self.plain_call(operator::IN, [value, list].into(), cost),
        }
    }

    fn list(&mut self, elements: &[Element]) -> Planned {
        let elements = elements
            .iter()
            .map(|element| Ok((self.node(&element.value)?, element.optional)))
            .collect::<Result<Vec<_>, EvalError>>()?;
        let constants = elements
            .iter()
            .map(|(node, optional)| match node {
                Node::Const(value) if !optional => Some(value.clone()),
                _ => None,
            })
            .collect::<Option<Vec<_>>>();
        Ok(match constants {
            Some(items) => Node::Const(Value::list(items)),
            None => Node::List(elements.into()),
        })
    }

    fn map(&mut self, entries: &[Entry]) -> Planned {
        let entries = entries
            .iter()
            .map(|entry| Ok((self.node(&entry.key)?, self.node(&entry.value)?, entry.optional)))
            .collect::<Result<Vec<_>, EvalError>>()?;
        let constants = entries
            .iter()
            .map(|entry| match entry {
                (Node::Const(key), Node::Const(value), false) => Some((key.clone(), value.clone())),
                _ => None,
            })
            .collect::<Option<Vec<_>>>();
        Ok(match constants.map(Map::from_entries) {
            Some(Ok(map)) => Node::Const(Value::Map(map)),
            _ => Node::Map(entries.into()),
        })
    }

    fn comprehension(&mut self, fold: &Comprehension) -> Planned {
        let range = self.node(&fold.range)?;
        let init = self.node(&fold.init)?;
        let accumulator = self.enter(&fold.accumulator);
        let variable = self.enter(&fold.var);
        let second = fold.second_var.as_ref().map(|name| self.enter(name));
        let condition = self.node(&fold.condition)?;
        let step = self.step(&fold.step)?;
        self.scope.truncate(accumulator + 1);
        let result = self.node(&fold.result)?;
        self.scope.truncate(accumulator);
        Ok(Node::Fold(Box::new(Fold { range, variable, second, accumulator, init, condition, step, result })))
    }

    fn enter(&mut self, name: &Arc<str>) -> usize {
        self.scope.push(name.clone());
        self.locals = self.locals.max(self.scope.len());
        self.scope.len() - 1
    }

    fn step(&mut self, step: &Expr) -> Result<Step, EvalError> {
        let (filter, add) = match &step.kind {
            Kind::Call { function, args, .. } if &**function == operator::CONDITIONAL => match &args[..] {
                [filter, add, otherwise] if is_accumulator(otherwise) => (Some(filter), add),
                _ => (None, step),
            },
            _ => (None, step),
        };
        if let Kind::Call { function, target: None, args } = &add.kind {
            match (&**function, &args[..]) {
                (operator::ADD, [accumulator, Expr { kind: Kind::List { elements }, .. }])
                    if is_accumulator(accumulator) =>
                {
                    if let [Element { value, optional: false }] = &elements[..] {
                        let filter = filter.map(|filter| self.node(filter)).transpose()?;
                        return Ok(Step::Append { filter, element: self.node(value)? });
                    }
                }
                ("cel.@mapInsert", [accumulator, entry @ ..]) if is_accumulator(accumulator) => {
                    let filter = filter.map(|filter| self.node(filter)).transpose()?;
                    return Ok(match entry {
                        [key, value] => {
                            Step::Insert { filter, key: Some(self.node(key)?), value: self.node(value)? }
                        }
                        [value, ..] => Step::Insert { filter, key: None, value: self.node(value)? },
                        [] => Step::Node(self.node(step)?),
                    });
                }
                _ => {}
            }
        }
        Ok(Step::Node(self.node(step)?))
    }
}

fn is_accumulator(expr: &Expr) -> bool {
    matches!(&expr.kind, Kind::Ident(name) if &**name == ACCUMULATOR)
}

fn is_conversion(function: &str) -> bool {
    matches!(
        function,
        "bool" | "bytes" | "double" | "dyn" | "duration" | "int" | "string" | "timestamp" | "type" | "uint"
    )
}

fn constant(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::text(text.clone()),
        Literal::Bytes(bytes) => Value::Bytes(bytes.clone()),
    }
}

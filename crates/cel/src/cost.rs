//! What an expression costs: estimated from declared sizes before it runs, and counted while it runs.
//!
//! Both follow cel-go and Kubernetes' additions to it, number by number; every change here is a change of which
//! rules can be stored. The unit is about 50 ns of an old processor.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Comprehension, Expr, Id, Kind, Literal, operator};
use crate::checker::Checked;
use crate::environment::Environment;
use crate::types::{Opaque, Type};

mod call;
mod range;

pub(crate) use call::CallCost;
pub use range::CostEstimate;
use range::Range;

/// Per character of a string that is walked through.
const PER_CHARACTER: f64 = 0.1;
/// Per character of a regular expression.
const PER_PATTERN_CHARACTER: f64 = 0.25;
/// A question to the authorizer: an expression can afford two.
const AUTHORIZATION: u64 = 350_000;
const LIST: u64 = 10;
const MAP: u64 = 30;
const MESSAGE: u64 = 40;
/// The longest pattern a named format can have.
const FORMAT_PATTERN_MAX: f64 = 128.0;
/// The longest name of a named format.
const FORMAT_NAME_MAX: u64 = 64;

/// Estimates a checked expression.
pub(crate) fn estimate(environment: &Environment, checked: &Checked) -> CostEstimate {
    let mut estimator = Estimator {
        environment,
        checked,
        paths: HashMap::new(),
        locals: Vec::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
    };
    let Range { min, max } = estimator.cost(&checked.ast.root);
    CostEstimate { min, max }
}

/// Where a value comes from: a variable and the steps into it.
type Path = Option<Arc<[Arc<str>]>>;

/// Sizes of what is in a list or a map.
#[derive(Clone, Copy)]
struct EntrySizes {
    list: bool,
    key: Range,
    value: Range,
}

struct Local {
    name: Arc<str>,
    path: Path,
    size: Option<Range>,
    entries: Option<EntrySizes>,
}

struct Estimator<'e> {
    environment: &'e Environment,
    checked: &'e Checked,
    paths: HashMap<Id, Path>,
    locals: Vec<Local>,
    sizes: HashMap<Id, Range>,
    entries: HashMap<Id, EntrySizes>,
}

/// What a call costs and how large its result is.
struct CallEstimate {
    cost: Range,
    size: Option<Range>,
}

impl From<Range> for CallEstimate {
    fn from(cost: Range) -> Self {
        Self { cost, size: None }
    }
}

fn sized(cost: Range, size: Range) -> Option<CallEstimate> {
    Some(CallEstimate { cost, size: Some(size) })
}

/// A step from a list or map to what is in it.
fn extended(path: &Path, step: &str) -> Path {
    let path = path.as_deref().unwrap_or_default();
    Some(path.iter().cloned().chain([step.into()]).collect())
}

impl Estimator<'_> {
    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| &*local.name == name)
    }

    fn type_of(&self, expr: &Expr) -> &Type {
        self.checked.type_of(expr.id)
    }

    fn path(&self, expr: &Expr) -> Path {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().flatten()
    }

    fn cost(&mut self, expr: &Expr) -> Range {
        match &expr.kind {
            Kind::Literal(_) | Kind::Unspecified => Range::ZERO,
            Kind::Ident(name) => {
                let path = match self.local(name) {
                    Some(local) => local.path.clone(),
                    None => Some([name.clone()].into()),
                };
                self.paths.insert(expr.id, path);
                Range::fixed(1)
            }
            Kind::Select { operand, test_only: true, .. } => self.cost(operand),
            Kind::Select { operand, field, .. } => {
                let mut cost = self.cost(operand);
                if matches!(self.type_of(operand), Type::Map(_) | Type::Object(_) | Type::Param(_))
                    || matches!(self.type_of(operand), Type::Opaque(opaque) if opaque.is_message())
                {
                    cost = cost + Range::fixed(1);
                }
                let path = extended(&self.path(operand), field);
                self.paths.insert(expr.id, path);
                cost
            }
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Kind::List { elements } => {
                let mut items = Range { min: u64::MAX, max: 0 };
                if elements.is_empty() {
                    items.min = 0;
                }
                let mut cost = Range::ZERO;
                for element in elements {
                    cost = cost + self.cost(&element.value);
                    items = items.union(self.size_or_unknown(&element.value));
                }
                self.entries.insert(expr.id, EntrySizes { list: true, key: Range::fixed(1), value: items });
                cost + Range::fixed(LIST)
            }
            Kind::Map { entries } => {
                let none = if entries.is_empty() { 0 } else { u64::MAX };
                let (mut keys, mut values) = (Range { min: none, max: 0 }, Range { min: none, max: 0 });
                let mut cost = Range::ZERO;
                for entry in entries {
                    cost = cost + self.cost(&entry.key);
                    cost = cost + self.cost(&entry.value);
                    keys = keys.union(self.size_or_unknown(&entry.key));
                    values = values.union(self.size_or_unknown(&entry.value));
                }
                self.entries.insert(expr.id, EntrySizes { list: false, key: keys, value: values });
                cost + Range::fixed(MAP)
            }
            Kind::Struct { fields, .. } => {
                fields.iter().fold(Range::fixed(MESSAGE), |cost, field| cost + self.cost(&field.value))
            }
            Kind::Comprehension(fold) if fold.is_bind() => self.bind(expr, fold),
            Kind::Comprehension(fold) => self.comprehension(expr, fold),
        }
    }

    fn push(&mut self, name: &Arc<str>, range: &Expr, which: Which) {
        let entries = self.entry_sizes(range);
        let list =
            entries.map_or_else(|| matches!(self.type_of(range), Type::List(_)), |entries| entries.list);
        let (size, step) = match (which, list) {
            (Which::Key, true) => (entries.map(|entries| entries.key), "@indices"),
            (Which::Key, false) | (Which::Single, false) => (entries.map(|entries| entries.key), "@keys"),
            (Which::Value, true) | (Which::Single, true) => (entries.map(|entries| entries.value), "@items"),
            (Which::Value, false) => (entries.map(|entries| entries.value), "@values"),
        };
        let path = extended(&self.path(range), step);
        self.locals.push(Local { name: name.clone(), path, size, entries: None });
    }

    fn push_bound(&mut self, name: &Arc<str>, value: &Expr) {
        let path = self.path(value);
        let entries = self.entry_sizes(value);
        let size = self.size(value);
        self.locals.push(Local { name: name.clone(), path, size, entries });
    }

    fn comprehension(&mut self, expr: &Expr, fold: &Comprehension) -> Range {
        let mut cost = self.cost(&fold.range);
        cost = cost + self.cost(&fold.init);
        let outside = self.locals.len();
        self.push_bound(&fold.accumulator, &fold.init);
        match &fold.second_var {
            Some(second) => {
                self.push(&fold.var, &fold.range, Which::Key);
                self.push(second, &fold.range, Which::Value);
            }
            None => self.push(&fold.var, &fold.range, Which::Single),
        }
        let condition = self.cost(&fold.condition);
        let step = self.cost(&fold.step);
        self.locals.truncate(outside + 1);
        cost = cost + self.cost(&fold.result);
        self.locals.truncate(outside);
        let count = self.size_or_unknown(&fold.range);
        cost = cost + count * (step + condition);
        match &fold.init.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&fold.init) {
                    self.sizes.insert(expr.id, size);
                }
            }
            Kind::List { .. } | Kind::Map { .. } => {
                self.sizes.insert(expr.id, count);
                if let Some(entries) = self.entry_sizes(&fold.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        cost
    }

    fn bind(&mut self, expr: &Expr, fold: &Comprehension) -> Range {
        let mut cost = self.cost(&fold.range);
        cost = cost + self.cost(&fold.init);
        self.push_bound(&fold.accumulator, &fold.init);
        cost = cost + self.cost(&fold.result);
        self.locals.pop();
        self.copy_sizes(expr, &fold.result);
        cost
    }

    fn copy_sizes(&mut self, to: &Expr, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to.id, size);
        }
        if let Some(entries) = self.entry_sizes(from) {
            self.entries.insert(to.id, entries);
        }
    }

    fn call(&mut self, expr: &Expr, function: &str, target: Option<&Expr>, args: &[Expr]) -> Range {
        if function == "dyn"
            && let [arg] = args
        {
            let cost = self.cost(arg);
            self.copy_sizes(expr, arg);
            return Range::fixed(1) + cost;
        }
        let arg_costs: Vec<Range> = args.iter().map(|arg| self.cost(arg)).collect();
        let overloads = self.checked.overloads(expr.id);
        if overloads.is_empty() {
            return Range::ZERO;
        }
        let arguments: Vec<Node<'_>> = args.iter().map(|arg| self.node(arg)).collect();
        let mut cost = Range::ZERO;
        let mut receiver = None;
        if let Some(target) = target {
            cost = self.cost(target);
            receiver = Some(self.node(target));
        }
        let mut total = Range { min: u64::MAX, max: 0 };
        let mut size: Option<Range> = None;
        for overload in overloads {
            let estimate = self.function(expr, function, overload, receiver.as_ref(), &arguments, &arg_costs);
            total = total.union(estimate.cost);
            if let Some(result) = estimate.size {
                size = Some(size.map_or(result, |size| size.union(result)));
            }
            let step = match *overload {
                "index_list" => Some("@items"),
                "index_map" => Some("@values"),
                _ => None,
            };
            if let (Some(step), Some(operand)) = (step, args.first()) {
                size = self.entry_sizes(operand).map(|entries| entries.value);
                let path = extended(&self.path(operand), step);
                self.paths.insert(expr.id, path);
            }
            if size.is_none() {
                size = self.size(expr);
            }
        }
        if let Some(size) = size {
            self.sizes.insert(expr.id, size);
        }
        cost + total
    }

    fn node<'n>(&mut self, expr: &'n Expr) -> Node<'n> {
        let path = self.path(expr).filter(|path| {
            !matches!(
                path.first().map(|name| &**name),
                Some(crate::ast::ACCUMULATOR | crate::ast::OLD_ACCUMULATOR)
            )
        });
        Node { path, ty: self.type_of(expr).clone(), expr: Some(expr), computed: self.size(expr) }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Range {
        self.size(expr).unwrap_or(Range::UNKNOWN)
    }

    fn size(&mut self, expr: &Expr) -> Option<Range> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        if let Some(size) = literal_size(expr) {
            return Some(Range::fixed(size));
        }
        if let Some(size) = self.declared_size(&self.path(expr)) {
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if is_scalar(self.type_of(expr)) {
            return Some(Range::fixed(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }

    /// How large a value can be by the declaration of what it comes from.
    fn declared_size(&self, path: &Path) -> Option<Range> {
        let (variable, steps) = path.as_deref()?.split_first()?;
        // Upstream looks up everything in the one variable that rules have, also what does not come from it.
        let (_, mut decl) = self.environment.named(variable).or_else(|| self.environment.first_variable())?;
        for step in steps {
            decl = decl.step(step)?;
        }
        Some(Range { min: 0, max: decl.elements_max })
    }

    fn entry_sizes(&self, expr: &Expr) -> Option<EntrySizes> {
        if let Some(entries) = self.entries.get(&expr.id) {
            return Some(*entries);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.entries,
            _ => None,
        }
    }

    /// The size that Kubernetes' estimates of its own functions use.
    fn node_size(&self, node: &Node<'_>) -> Range {
        node.computed.or_else(|| self.declared_size(&node.path)).unwrap_or(Range::UNKNOWN)
    }

    /// The items of a list, wherever they come from.
    fn items<'n>(&self, list: &Node<'n>) -> Option<Node<'n>> {
        let ty = (*list.ty.parameters().first()?).clone();
        let path = list.path.as_ref().and_then(|path| extended(&Some(path.clone()), "@items"));
        Some(Node { path, ty, expr: None, computed: None })
    }

    fn function(
        &mut self,
        expr: &Expr,
        function: &str,
        overload: &str,
        target: Option<&Node<'_>>,
        args: &[Node<'_>],
        arg_costs: &[Range],
    ) -> CallEstimate {
        let args_cost = arg_costs.iter().fold(Range::ZERO, |sum, &cost| sum + cost);
        let estimate = self
            .extension(overload, target, args)
            .or_else(|| self.kubernetes(function, overload, target, args));
        if let Some(CallEstimate { cost, size }) = estimate {
            return CallEstimate { cost: cost + args_cost, size };
        }
        self.standard(expr, overload, target, args, arg_costs, args_cost)
            .unwrap_or_else(|| (Range::fixed(1) + args_cost).into())
    }

    /// What cel-go's list and set libraries say of theirs.
    fn extension(
        &self,
        overload: &str,
        target: Option<&Node<'_>>,
        args: &[Node<'_>],
    ) -> Option<CallEstimate> {
        let allocating = |factor: f64, size: Range| sized(size.times(factor) + Range::fixed(1 + LIST), size);
        let sets = |factor: f64| {
            let [a, b] = args else { return None };
            Some(((self.node_size(a) * self.node_size(b)).times(factor) + Range::fixed(1)).into())
        };
        let ordered = |node: &Node<'_>, text: bool| {
            let size = self.node_size(node);
            allocating(if text { 2.0 + PER_CHARACTER } else { 2.0 }, size * size)
        };
        match overload {
            "list_slice" => {
                let start = args.first()?.constant(0);
                let end = args.get(1)?.constant(self.node_size(target?).max);
                allocating(1.0, Range::fixed(end.wrapping_sub(start)))
            }
            "lists_range" => allocating(1.0, Range::fixed(args.first()?.constant(u64::MAX))),
            "list_reverse" => allocating(1.0, self.node_size(target?)),
            "list_flatten" => allocating(1.0, self.node_size(target?)),
            "list_flatten_int" => {
                allocating(args.first()?.constant(u64::MAX) as f64, self.node_size(target?))
            }
            "list_distinct" => {
                let size = self.node_size(target?);
                allocating(2.0, size * size)
            }
            "list_sets_contains_list" | "list_sets_intersects_list" => sets(1.0),
            "list_sets_equivalent_list" => sets(2.0),
            _ => {
                let name = overload.strip_prefix("list_")?;
                if let Some(ty) = name.strip_suffix("_sort") {
                    return ordered(target?, matches!(ty, "string" | "bytes"));
                }
                let ty = name.strip_suffix("_sortByAssociatedKeys")?;
                ordered(args.first()?, matches!(ty, "string" | "bytes"))
            }
        }
    }

    /// What Kubernetes says of its libraries and of some functions of strings.
    fn kubernetes(
        &self,
        function: &str,
        overload: &str,
        target: Option<&Node<'_>>,
        args: &[Node<'_>],
    ) -> Option<CallEstimate> {
        let unit = || Some(Range::fixed(1).into());
        let first = || args.first().map(|arg| self.node_size(arg));
        match function {
            "check" => Some(Range::fixed(AUTHORIZATION).into()),
            "serviceAccount" | "path" | "group" | "resource" | "subresource" | "namespace" | "name"
            | "allowed" | "reason" | "error" | "errored" => unit(),
            "fieldSelector" | "labelSelector" if args.len() == 1 => Some(selector(first()?).into()),
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
                let target = target?;
                let Some(items) = self.items(target) else {
                    return Some(self.node_size(target).times(PER_CHARACTER).into());
                };
                let mut each = Range::fixed(1);
                if matches!(items.ty, Type::String | Type::Bytes) {
                    each = each + self.node_size(&items).times(PER_CHARACTER);
                }
                Some((self.node_size(target) * each).into())
            }
            "url" | "jsonpatch.escapeKey" if args.len() == 1 => {
                sized(first()?.times(PER_CHARACTER), first()?)
            }
            "lowerAscii" | "upperAscii" | "substring" | "trim" => {
                let size = self.node_size(target?);
                sized(size.times(PER_CHARACTER), size)
            }
            "replace" if args.len() >= 2 => {
                let size = self.node_size(target?);
                let result = replaced(size, self.node_size(&args[0]), self.node_size(&args[1]));
                sized(size.times(2.0 * PER_CHARACTER), result)
            }
            "split" => {
                let size = self.node_size(target?);
                let max = args.get(1).and_then(Node::literal_int).map_or(size.max, |limit| limit as u64);
                sized(size.times(2.0 * PER_CHARACTER), Range { min: 0, max })
            }
            "join" => {
                let list = self.node_size(target?);
                let mut size = Range::ZERO;
                if let Some(items) = self.items(target?) {
                    size = list * self.node_size(&items);
                }
                if let Some(separator) = first() {
                    let count = Range { min: list.min.saturating_sub(1), max: list.max.saturating_sub(1) };
                    size = size + separator * count;
                }
                sized(size.times(PER_CHARACTER), size)
            }
            "find" | "findAll" => {
                let size = self.node_size(target?);
                let cost =
                    (size + Range::fixed(1)).times(PER_CHARACTER) * first()?.times(PER_PATTERN_CHARACTER);
                sized(cost, Range { min: 0, max: size.max })
            }
            "cidr" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
                Some(first()?.times(PER_CHARACTER).into())
            }
            "ip" if overload == "cidr_ip" => unit(),
            "ip" => Some(first()?.times(PER_CHARACTER).into()),
            "ip.isCanonical" => Some(first()?.times(2.0 * PER_CHARACTER).into()),
            "masked"
            | "prefixLength"
            | "family"
            | "isUnspecified"
            | "isLoopback"
            | "isLinkLocalMulticast"
            | "isLinkLocalUnicast"
            | "isGlobalUnicast" => unit(),
            "containsIP" | "containsCIDR" => {
                let bytes = Range { min: 4, max: 16 };
                let mut cost = (bytes + bytes).times(PER_CHARACTER);
                if function == "containsCIDR" {
                    cost = cost + bytes.times(PER_CHARACTER) + Range::fixed(1);
                }
                if matches!(overload, "cidr_contains_ip_string" | "cidr_contains_cidr_string") {
                    cost = cost + first()?.times(PER_CHARACTER);
                }
                Some(cost.into())
            }
            "validate" => {
                Some(first()?.times(PER_CHARACTER).times(FORMAT_PATTERN_MAX * PER_PATTERN_CHARACTER).into())
            }
            "format.named" | "sign" | "asInteger" | "isInteger" | "asApproximateFloat" | "isGreaterThan"
            | "isLessThan" | "compareTo" | "add" | "sub" | "major" | "minor" | "patch" | "getScheme"
            | "getHostname" | "getHost" | "getPort" | "getEscapedPath" | "getQuery" => unit(),
            operator::EQUALS => {
                let [Node { ty: Type::Opaque(a), .. }, right @ Node { ty: Type::Opaque(b), .. }] = args
                else {
                    return None;
                };
                match a {
                    _ if a != b => None,
                    Opaque::NamedFormat => {
                        Some(Range { min: 1, max: FORMAT_NAME_MAX }.times(PER_CHARACTER).into())
                    }
                    Opaque::Url => {
                        let max = right.computed.map_or(1, |size| size.max);
                        Some(Range { min: 1, max }.times(PER_CHARACTER).into())
                    }
                    _ => unit(),
                }
            }
            _ => None,
        }
    }

    /// What cel-go says of the functions of the language.
    fn standard(
        &mut self,
        expr: &Expr,
        overload: &str,
        target: Option<&Node<'_>>,
        args: &[Node<'_>],
        arg_costs: &[Range],
        args_cost: Range,
    ) -> Option<CallEstimate> {
        let size = |node: &Node<'_>| node.computed.unwrap_or(Range::UNKNOWN);
        let plus_args =
            |cost: Range, size: Option<Range>| Some(CallEstimate { cost: cost + args_cost, size });
        match (overload, args) {
            ("string_format", _) => plus_args(size(target?).times(PER_CHARACTER), None),
            ("string_to_bytes", [arg]) => {
                let Range { min, max } = size(arg);
                let result = Range { min, max: max.wrapping_mul(4) };
                plus_args(size(arg).times(PER_CHARACTER), Some(result))
            }
            ("bytes_to_string", [arg]) => {
                let Range { min, max } = size(arg);
                plus_args(size(arg).times(PER_CHARACTER), Some(Range { min: min / 4, max }))
            }
            ("strings_quote", [arg]) => {
                let Range { min, max } = size(arg);
                let result = Range { min: min.wrapping_add(2), max: max.wrapping_mul(2).wrapping_add(2) };
                plus_args(size(arg).times(PER_CHARACTER), Some(result))
            }
            ("starts_with_string" | "ends_with_string", [arg]) => {
                plus_args(size(arg).times(PER_CHARACTER), None)
            }
            ("in_list", [_, list]) => plus_args(size(list), None),
            ("matches_string", [pattern]) => {
                let text = (size(target?) + Range::fixed(1)).times(PER_CHARACTER);
                plus_args(text * size(pattern).times(PER_PATTERN_CHARACTER), None)
            }
            ("contains_string", [part]) => {
                plus_args(size(target?).times(PER_CHARACTER) * size(part).times(PER_CHARACTER), None)
            }
            ("logical_or" | "logical_and", [_, _]) => {
                Some(Range { min: arg_costs[0].min, max: (arg_costs[0] + arg_costs[1]).max }.into())
            }
            ("conditional", [_, then, otherwise]) => {
                let result = size(then).union(size(otherwise));
                if let (Some(a), Some(b)) = (then.expr, otherwise.expr) {
                    self.join_entries(expr, a, b);
                }
                let cost = arg_costs[0] + arg_costs[1].union(arg_costs[2]);
                Some(CallEstimate { cost, size: Some(result) })
            }
            ("add_string" | "add_bytes" | "add_list", [a, b]) => {
                let result = size(a) + size(b);
                if let (Some(a), Some(b)) = (a.expr, b.expr) {
                    self.join_entries(expr, a, b);
                }
                let cost = match overload {
                    "add_list" => Range::fixed(1),
                    _ => result.times(PER_CHARACTER),
                };
                plus_args(cost, Some(result))
            }
            (
                "less_string"
                | "greater_string"
                | "less_equals_string"
                | "greater_equals_string"
                | "less_bytes"
                | "greater_bytes"
                | "less_equals_bytes"
                | "greater_equals_bytes"
                | "equals"
                | "not_equals",
                [a, b],
            ) => {
                let max = size(a).max.min(size(b).max);
                let min = u64::from(max > 0);
                plus_args(Range { min, max }.times(PER_CHARACTER), None)
            }
            _ => None,
        }
    }

    fn join_entries(&mut self, expr: &Expr, a: &Expr, b: &Expr) {
        if let (Some(a), Some(b)) = (self.entry_sizes(a), self.entry_sizes(b)) {
            let joined = EntrySizes { list: a.list, key: a.key.union(b.key), value: a.value.union(b.value) };
            self.entries.insert(expr.id, joined);
        }
    }
}

#[derive(Clone, Copy)]
enum Which {
    Key,
    Value,
    Single,
}

/// An operand as estimates see it.
struct Node<'n> {
    path: Path,
    ty: Type,
    expr: Option<&'n Expr>,
    computed: Option<Range>,
}

impl Node<'_> {
    fn literal_int(&self) -> Option<i64> {
        match self.expr?.kind {
            Kind::Literal(Literal::Int(value)) => Some(value),
            _ => None,
        }
    }

    /// A constant that is not negative, or the default.
    fn constant(&self, default: u64) -> u64 {
        self.literal_int().map_or(default, |value| u64::try_from(value).unwrap_or(0))
    }
}

fn literal_size(expr: &Expr) -> Option<u64> {
    Some(match &expr.kind {
        Kind::Literal(Literal::String(text)) => text.chars().count() as u64,
        Kind::Literal(Literal::Bytes(bytes)) => bytes.len() as u64,
        Kind::Literal(_) => 1,
        Kind::List { elements } => elements.len() as u64,
        Kind::Map { entries } => entries.len() as u64,
        _ => return None,
    })
}

fn is_scalar(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(value) => is_scalar(value),
        _ => false,
    }
}

/// Parsing a selector: walking through it, and a requirement for every two characters.
fn selector(length: Range) -> Range {
    Range::fixed(LIST) + length.times(PER_CHARACTER) + length.times(0.5).times((LIST + MESSAGE) as f64)
}

/// The size of a text in which parts are replaced.
fn replaced(size: Range, old: Range, new: Range) -> Range {
    let mut count = Range::ZERO;
    let mut kept = Range::ZERO;
    if old.min == 0 {
        // Nothing is replaced between all characters.
        count.max = size.max.saturating_add(1);
        kept.max = size.max;
    } else if new.max <= old.min {
        kept.max = size.max;
    } else {
        count.max = (size.max as f64 / old.min as f64).ceil() as u64;
    }
    if old.max == 0 {
        count.min = size.min.saturating_add(1);
        kept.min = size.min;
    } else if old.max <= new.min {
        kept.min = size.min;
    } else {
        count.min = (size.min as f64 / old.max as f64).ceil() as u64;
    }
    count * new + kept
}

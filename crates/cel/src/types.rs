//! Types: what the checker reasons with ([`Type`]), and what a variable is declared as ([`Decl`]).
//!
//! A [`Decl`] is a type together with what a schema says beyond it: how large a value can be (for estimating costs),
//! which property a field really is (names are escaped), how a list compares.

use std::fmt;
use std::sync::Arc;

use crate::names::is_reserved;

/// A type of the language. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Type {
    /// Of what could not be checked; assignable to everything, so that one mistake is reported once.
    Error,
    Dyn,
    /// As `dyn`, but told apart from it where a result must be declared, and no range of a comprehension.
    Any,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    /// The type of a type: of `int`, this with `Int`; of any, without.
    Type(Option<Arc<Type>>),
    List(Arc<Type>),
    /// Key and value.
    Map(Arc<(Type, Type)>),
    Optional(Arc<Type>),
    Object(Arc<ObjectType>),
    /// A type that only functions look into.
    Opaque(Opaque),
    /// A variable of types: a letter in a signature, or one that the checker solves for.
    Param(u32),
}

/// Types of Kubernetes' libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opaque {
    Url,
    Quantity,
    Ip,
    Cidr,
    Semver,
    NamedFormat,
    Authorizer,
    PathCheck,
    GroupCheck,
    ResourceCheck,
    Decision,
}

impl Opaque {
    pub fn name(self) -> &'static str {
        match self {
            Self::Url => "kubernetes.URL",
            Self::Quantity => "kubernetes.Quantity",
            Self::Ip => "net.IP",
            Self::Cidr => "net.CIDR",
            Self::Semver => "kubernetes.Semver",
            Self::NamedFormat => "kubernetes.NamedFormat",
            Self::Authorizer => "kubernetes.authorization.Authorizer",
            Self::PathCheck => "kubernetes.authorization.PathCheck",
            Self::GroupCheck => "kubernetes.authorization.GroupCheck",
            Self::ResourceCheck => "kubernetes.authorization.ResourceCheck",
            Self::Decision => "kubernetes.authorization.Decision",
        }
    }

    /// Upstream declares these as messages without fields, the others as opaque.
    pub(crate) fn is_message(self) -> bool {
        !matches!(self, Self::Ip | Self::Cidr)
    }
}

impl Type {
    pub fn list(item: Type) -> Self {
        Self::List(Arc::new(item))
    }

    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    pub fn optional(value: Type) -> Self {
        Self::Optional(Arc::new(value))
    }

    pub(crate) fn of_type(inner: Type) -> Self {
        Self::Type(Some(Arc::new(inner)))
    }

    /// Whether it fits everywhere.
    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn | Self::Any)
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        self.is_dyn() || matches!(self, Self::Error)
    }

    /// The parameter types of a compound one.
    pub(crate) fn parameters(&self) -> Vec<&Type> {
        match self {
            Self::List(item) | Self::Optional(item) | Self::Type(Some(item)) => vec![item],
            Self::Map(entry) => vec![&entry.0, &entry.1],
            _ => Vec::new(),
        }
    }

    /// Whether both are the same kind of type, whatever their parameters.
    pub(crate) fn same_kind(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Object(a), Self::Object(b)) => a.name == b.name,
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (Self::Param(a), Self::Param(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    /// The name that `type(x)` has as a string.
    pub fn name(&self) -> &str {
        match self {
            Self::Error => "error",
            Self::Dyn | Self::Param(_) => "dyn",
            Self::Any => "google.protobuf.Any",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Duration => "google.protobuf.Duration",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Type(_) => "type",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Object(object) => &object.name,
            Self::Opaque(opaque) => opaque.name(),
        }
    }

    /// As types are named outside of the checker, by their full names.
    pub fn declared(&self) -> String {
        let parameters: Vec<String> = self.parameters().into_iter().map(Type::declared).collect();
        if parameters.is_empty() {
            self.name().into()
        } else {
            format!("{}({})", self.name(), parameters.join(", "))
        }
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Self) -> bool {
        self.same_kind(other) && self.parameters() == other.parameters()
    }
}

/// As in messages of the checker.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error => f.write_str("!error!"),
            Self::Dyn => f.write_str("dyn"),
            Self::Any => f.write_str("any"),
            Self::Null => f.write_str("null"),
            Self::Duration => f.write_str("duration"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Param(number) => write!(f, "_var{number}"),
            Self::Type(None) => f.write_str("type"),
            Self::Type(Some(inner)) => write!(f, "type({inner})"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Map(entry) => write!(f, "map({}, {})", entry.0, entry.1),
            Self::Optional(value) => write!(f, "optional_type({value})"),
            other => f.write_str(other.name()),
        }
    }
}

/// A message type: a name and named fields.
pub struct ObjectType {
    name: Box<str>,
    /// Sorted by name.
    fields: Box<[Field]>,
    open: bool,
}

impl fmt::Debug for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectType").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A field of a message.
#[derive(Clone, Debug)]
pub struct Field {
    /// As expressions spell it.
    pub name: Box<str>,
    /// As the data spells it.
    pub property: Box<str>,
    pub decl: Decl,
}

impl Field {
    /// A field that is spelled alike in expressions and data.
    pub fn new(name: &str, decl: Decl) -> Self {
        Self { name: name.into(), property: name.into(), decl }
    }
}

impl ObjectType {
    pub fn new(name: &str, mut fields: Vec<Field>) -> Self {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        Self { name: name.into(), fields: fields.into(), open: false }
    }

    /// A type that has whatever field one writes, with any value.
    pub fn open(name: &str) -> Self {
        Self { open: true, ..Self::new(name, Vec::new()) }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sorted by name.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The field that an expression means; a reserved word may be written as it is.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let fields = &self.fields;
        let find =
            |name: &str| fields.binary_search_by(|field| (*field.name).cmp(name)).ok().map(|at| &fields[at]);
        find(name).or_else(|| is_reserved(name).then(|| find(&format!("__{name}__"))).flatten())
    }
}

/// What a variable or a part of one is declared as.
#[derive(Clone, Debug)]
pub struct Decl {
    pub ty: Type,
    /// The most elements a value can have: items, entries, characters or bytes. 0 where the type says it all.
    pub elements_max: u64,
    /// The fewest bytes of JSON a value takes.
    pub bytes_min: u64,
    /// Whether `null` is a value of it.
    pub nullable: bool,
    pub shape: Shape,
}

/// What a declaration is made of.
#[derive(Clone, Debug)]
pub enum Shape {
    Plain,
    List {
        items: Arc<Decl>,
        kind: ListKind,
    },
    Map {
        keys: Arc<Decl>,
        values: Arc<Decl>,
        /// An entry that is read like a field (`map.key`) is known to be a value. Upstream's estimate of costs knows that
        /// of devices only.
        named: bool,
    },
    Object(Arc<ObjectType>),
}

/// `x-kubernetes-list-type`, which decides what equal lists are and what `+` does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    #[default]
    Atomic,
    Set,
    /// The properties that identify an item.
    Map(Box<[Box<str>]>),
}

impl Decl {
    /// A declaration that says no more than its type.
    pub fn plain(ty: Type, bytes_min: u64) -> Self {
        Self { nullable: ty.is_dyn(), ty, elements_max: 0, bytes_min, shape: Shape::Plain }
    }

    pub fn dynamic() -> Self {
        Self::plain(Type::Dyn, 0).with_elements_max(u64::MAX)
    }

    pub fn bool() -> Self {
        Self::plain(Type::Bool, 4)
    }

    pub fn int() -> Self {
        Self::plain(Type::Int, 1)
    }

    pub fn double() -> Self {
        Self::plain(Type::Double, 1)
    }

    pub fn string() -> Self {
        Self::plain(Type::String, 2)
    }

    pub fn timestamp() -> Self {
        Self::plain(Type::Timestamp, 21)
    }

    pub fn list(items: Decl, elements_max: u64, kind: ListKind) -> Self {
        Self {
            ty: Type::list(items.ty.clone()),
            elements_max,
            bytes_min: 2,
            nullable: false,
            shape: Shape::List { items: Arc::new(items), kind },
        }
    }

    pub fn map(keys: Decl, values: Decl, elements_max: u64) -> Self {
        Self {
            ty: Type::map(keys.ty.clone(), values.ty.clone()),
            elements_max,
            bytes_min: 2,
            nullable: false,
            shape: Shape::Map { keys: Arc::new(keys), values: Arc::new(values), named: false },
        }
    }

    pub fn object(object: Arc<ObjectType>) -> Self {
        Self {
            ty: Type::Object(object.clone()),
            elements_max: 0,
            bytes_min: 2,
            nullable: false,
            shape: Shape::Object(object),
        }
    }

    #[must_use]
    pub fn with_elements_max(mut self, elements_max: u64) -> Self {
        self.elements_max = elements_max;
        self
    }

    /// A map whose entries are known to be values also where they are read like fields.
    #[must_use]
    pub fn with_named_entries(mut self) -> Self {
        if let Shape::Map { named, .. } = &mut self.shape {
            *named = true;
        }
        self
    }

    /// The declaration behind a step of a path: a field, or `@items`, `@keys`, `@values`.
    pub fn step(&self, step: &str) -> Option<&Decl> {
        match (&self.shape, step) {
            (Shape::List { items, .. }, "@items" | "@values") => Some(items),
            (Shape::Map { values, .. }, "@items" | "@values") => Some(values),
            (Shape::Map { keys, .. }, "@keys") => Some(keys),
            (Shape::Map { values, named: true, .. }, _) => Some(values),
            (Shape::Object(object), field) => object.field(field).map(|field| &field.decl),
            _ => None,
        }
    }
}

/// Stands behind values of no declared type.
pub(crate) static DYNAMIC: Decl =
    Decl { ty: Type::Dyn, elements_max: u64::MAX, bytes_min: 0, nullable: true, shape: Shape::Plain };

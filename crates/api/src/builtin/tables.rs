//! Readers of the generated tables in `data/`; their form is explained at the head of each file.
//!
//! Owns: the text form, nothing else. Rows borrow from the compiled-in text and are made anew on every walk, so no
//! table costs memory beyond its text. The writer is `xtask::codegen`; a malformed table is a bug in the build, which
//! the tests of this crate find, so readers here may panic on one.

pub const SCHEMA: &str = include_str!("../../data/schema.txt");
pub const RESOURCES: &str = include_str!("../../data/resources.txt");
pub const GROUPS: &str = include_str!("../../data/groups.txt");
pub const PARAMETERS: &str = include_str!("../../data/parameters.txt");

/// What all definition names begin with; the tables leave it out.
pub const DEFINITION_PREFIX: &str = "io.k8s.";

/// The verbs behind `*`.
const ALL_VERBS: &str = "create,delete,deletecollection,get,list,patch,update,watch";

/// One type of `schema.txt`.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Without [`DEFINITION_PREFIX`].
    pub name: &'static str,
    pub form: Form,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic: bool,
    body: &'static str,
}

/// What a definition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Struct,
    /// Any JSON value.
    Any,
    /// Any JSON object.
    Object,
    Time,
    MicroTime,
    IntOrString,
    Quantity,
}

/// A field of a struct.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub required: bool,
    pub pointer: bool,
    pub always_present: bool,
    pub kind: Type,
    /// `atomic`, `set`, or `map:` and keys.
    pub list: Option<&'static str>,
    /// `atomic` or `granular`.
    pub map: Option<&'static str>,
    /// `merge`, `replace`, `retainKeys`, joined by commas.
    pub patch: Option<&'static str>,
    pub merge_key: Option<&'static str>,
    /// JSON.
    pub default: Option<&'static str>,
}

/// The type of a field, item or value; nested types are resolved step by step with [`Type::parse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Boolean,
    Int32,
    Int64,
    Double,
    String,
    Bytes,
    /// Of these items.
    List(&'static str),
    /// To these values.
    Map(&'static str),
    /// A definition; without a dot one of the same package.
    Reference(&'static str),
}

/// `x-kubernetes-unions` of a struct.
#[derive(Clone, Copy, Debug)]
pub struct Union {
    words: &'static str,
}

/// Group, version and kind as in `apps/v1/Deployment`; the core group is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
}

/// A row of `resources.txt`.
#[derive(Clone, Copy, Debug)]
pub struct Resource {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub namespaced: bool,
    /// Joined by commas, like all lists below.
    pub verbs: &'static str,
    pub served_by_default: bool,
    pub list_kind: &'static str,
    pub short_names: &'static str,
    pub categories: &'static str,
    /// The `apiVersion` in which upstream stores it.
    pub store: &'static str,
    /// Key prefix with a trailing slash; empty when never stored.
    pub key: &'static str,
    body: &'static str,
}

/// A subresource of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Subresource {
    pub name: &'static str,
    pub kind: Kind,
    pub verbs: &'static str,
}

/// A row of `groups.txt`.
#[derive(Clone, Copy, Debug)]
pub struct Priority {
    pub group: &'static str,
    pub version: &'static str,
    pub group_priority: i32,
    pub version_priority: i32,
}

/// A row of `parameters.txt`.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its key in the document's `parameters`.
    pub key: &'static str,
    pub name: &'static str,
    /// `query`, `path` or `body`.
    pub place: &'static str,
    /// A JSON type, or for a body a definition without [`DEFINITION_PREFIX`].
    pub kind: &'static str,
    pub required: bool,
}

/// All types in order of their names.
pub fn definitions() -> impl Iterator<Item = Definition> {
    blocks(SCHEMA).map(|(head, body)| {
        let mut words = head.split(' ');
        let name = words.next().unwrap_or_default();
        let mut definition = Definition { name, form: Form::Struct, atomic: false, body };
        while let Some(word) = words.next() {
            match word {
                "=" => definition.form = form(words.next().unwrap_or_default()),
                "atomic" => definition.atomic = true,
                other => panic!("schema.txt: {name} has an unknown attribute {other:?}"),
            }
        }
        definition
    })
}

/// All resources in discovery's order, also those not served by default.
pub fn resources() -> impl Iterator<Item = Resource> {
    blocks(RESOURCES).map(|(head, body)| resource(head, body))
}

pub fn priorities() -> impl Iterator<Item = Priority> {
    rows(GROUPS).map(|row| {
        let [group_version, group_priority, version_priority] = words(row);
        let (group, version) = split(group_version, '/');
        let number = |text: &str| text.parse().expect("groups.txt holds numbers");
        Priority {
            group,
            version,
            group_priority: number(group_priority),
            version_priority: number(version_priority),
        }
    })
}

pub fn parameters() -> impl Iterator<Item = Parameter> {
    rows(PARAMETERS).map(|row| {
        let [key, name, place, kind] = words(row);
        Parameter { key, name, place, kind, required: row.ends_with(" required") }
    })
}

/// The items of a comma-joined cell.
pub fn items(cell: &'static str) -> impl Iterator<Item = &'static str> + Clone {
    cell.split(',').filter(|item| !item.is_empty())
}

impl Definition {
    /// Group, version and kind under which it is served.
    pub fn kinds(self) -> impl Iterator<Item = Kind> {
        self.lines().filter_map(|line| line.strip_prefix('@')).map(Kind::parse)
    }

    pub fn unions(self) -> impl Iterator<Item = Union> {
        self.lines().filter_map(|line| line.strip_prefix("~ ")).map(|words| Union { words })
    }

    /// In order of their names.
    pub fn fields(self) -> impl Iterator<Item = Field> {
        self.lines().filter(|line| !line.starts_with(['@', '~'])).map(field)
    }

    /// The short name of a definition that a field of this one refers to.
    pub fn resolve(self, reference: &str) -> String {
        if reference.contains('.') {
            return reference.to_owned();
        }
        let package = self.name.rsplit_once('.').map(|(package, _)| package).unwrap_or_default();
        format!("{package}.{reference}")
    }

    fn lines(self) -> impl Iterator<Item = &'static str> {
        self.body.lines().map(|line| &line[1..])
    }
}

impl Type {
    pub fn parse(text: &'static str) -> Self {
        match text {
            "bool" => Self::Boolean,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "double" => Self::Double,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            _ => match (text.strip_prefix("[]"), text.strip_prefix("{}")) {
                (Some(items), _) => Self::List(items),
                (_, Some(values)) => Self::Map(values),
                _ => Self::Reference(text),
            },
        }
    }
}

impl Union {
    pub fn discriminator(self) -> Option<&'static str> {
        self.pairs().find(|(key, _)| *key == "discriminator").map(|(_, value)| value)
    }

    /// Field and the name of its variant.
    pub fn fields(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.pairs().filter(|(key, _)| *key != "discriminator")
    }

    fn pairs(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.words.split(' ').map(|word| split(word, '='))
    }
}

impl Kind {
    fn parse(text: &'static str) -> Self {
        let (group, rest) = split(text, '/');
        let (version, kind) = split(rest, '/');
        Self { group, version, kind }
    }
}

impl Resource {
    pub fn subresources(self) -> impl Iterator<Item = Subresource> {
        self.body.lines().map(move |line| {
            let [name, kind, verbs] = words(&line[1..]);
            // `Scale`, `policy/v1.Eviction`, or a kind of the resource's own version.
            let kind = match kind.rsplit_once('.') {
                Some((group_version, kind)) => {
                    let (group, version) = split(group_version, '/');
                    Kind { group, version, kind }
                }
                None => Kind { group: self.group, version: self.version, kind },
            };
            Subresource { name, kind, verbs }
        })
    }
}

fn resource(head: &'static str, body: &'static str) -> Resource {
    let [group_version, kind, plural, singular, scope, verbs] = words(head);
    let (group, version) = split(group_version, '/');
    let mut row = Resource {
        group,
        version,
        kind,
        plural,
        singular,
        namespaced: scope == "Namespaced",
        verbs: if verbs == "*" { ALL_VERBS } else { verbs },
        served_by_default: true,
        list_kind: "",
        short_names: "",
        categories: "",
        store: "",
        key: "",
        body,
    };
    for word in head.split(' ').skip(6) {
        match split(word, '=') {
            ("off", _) => row.served_by_default = false,
            ("list", value) => row.list_kind = value,
            ("short", value) => row.short_names = value,
            ("categories", value) => row.categories = value,
            ("store", value) => row.store = value,
            ("key", value) => row.key = value,
            (other, _) => panic!("resources.txt: {plural} has an unknown attribute {other:?}"),
        }
    }
    row
}

fn field(line: &'static str) -> Field {
    let mut words = line.split(' ');
    let marked = words.next().unwrap_or_default();
    let name = marked.trim_end_matches(['!', '*', '+']);
    let marks = &marked[name.len()..];
    let mut field = Field {
        name,
        required: marks.contains('!'),
        pointer: marks.contains('*'),
        always_present: marks.contains('+'),
        kind: Type::parse(words.next().unwrap_or_default()),
        list: None,
        map: None,
        patch: None,
        merge_key: None,
        default: None,
    };
    for word in words {
        let (key, value) = split(word, '=');
        let slot = match key {
            "list" => &mut field.list,
            "map" => &mut field.map,
            "patch" => &mut field.patch,
            "key" => &mut field.merge_key,
            "default" => &mut field.default,
            other => panic!("schema.txt: field {name} has an unknown attribute {other:?}"),
        };
        *slot = Some(value);
    }
    field
}

fn form(word: &str) -> Form {
    match word {
        "any" => Form::Any,
        "object" => Form::Object,
        "time" => Form::Time,
        "micro-time" => Form::MicroTime,
        "int-or-string" => Form::IntOrString,
        "quantity" => Form::Quantity,
        other => panic!("schema.txt: unknown form {other:?}"),
    }
}

/// Lines that are neither empty nor comments.
fn rows(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Head lines, each with the indented lines below it.
fn blocks(table: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut rest = table;
    std::iter::from_fn(move || {
        while rest.starts_with(['#', '\n']) {
            rest = after_line(rest);
        }
        let head = rest.lines().next()?;
        rest = after_line(rest);
        let body = rest;
        while rest.starts_with(' ') {
            rest = after_line(rest);
        }
        Some((head, &body[..body.len() - rest.len()]))
    })
}

fn after_line(text: &'static str) -> &'static str {
    text.find('\n').map_or("", |at| &text[at + 1..])
}

/// The first `N` words of a line; missing ones are empty.
fn words<const N: usize>(line: &'static str) -> [&'static str; N] {
    let mut words = line.split(' ');
    std::array::from_fn(|_| words.next().unwrap_or_default())
}

fn split(text: &'static str, at: char) -> (&'static str, &'static str) {
    text.split_once(at).unwrap_or((text, ""))
}

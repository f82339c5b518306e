//! Why expressions do not compile.

use cel::{Decl, Environment, Field, ListKind, ObjectType, Type};

fn environment() -> Environment {
    let metadata = ObjectType::new("meta", vec![Field::new("name", Decl::string())]);
    let object = ObjectType::new(
        "object",
        vec![
            Field::new("size", Decl::int()),
            Field::new("name", Decl::string()),
            Field::new("tags", Decl::list(Decl::string(), 10, ListKind::Atomic)),
            Field::new("labels", Decl::map(Decl::string(), Decl::string(), 10)),
            Field::new("metadata", Decl::object(metadata.into())),
            Field::new("extra", Decl::plain(Type::Any, 1)),
        ],
    );
    Environment::new().variable("self", Decl::object(object.into()))
}

#[test]
fn complaints_read_as_upstream() {
    let environment = environment();
    for (text, wanted) in [
        (
            "expressionValue",
            "ERROR: <input>:1:1: undeclared reference to 'expressionValue' (in container '')\n | expressionValue\n | ^",
        ),
        (
            "self.size + 'x' == 'y'",
            "ERROR: <input>:1:11: found no matching overload for '_+_' applied to '(int, string)'\n | self.size + 'x' == 'y'\n | ..........^",
        ),
        ("self.nope > 1", "ERROR: <input>:1:5: undefined field 'nope'\n | self.nope > 1\n | ....^"),
        (
            "self.size.x",
            "ERROR: <input>:1:10: type 'int' does not support field selection\n | self.size.x\n | .........^",
        ),
        (
            "self.size.all(x, true)",
            "ERROR: <input>:1:5: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | self.size.all(x, true)\n | ....^",
        ),
        (
            "self.extra.all(x, true)",
            "ERROR: <input>:1:5: expression of type 'any' cannot be range of a comprehension (must be list, map, or dynamic)\n | self.extra.all(x, true)\n | ....^",
        ),
        (
            "'%s'.format([self.extra])",
            "ERROR: <input>:1:18: error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given google.protobuf.Any\n | '%s'.format([self.extra])\n | .................^",
        ),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        (
            "self.tags.exists(t, t)",
            "ERROR: <input>:1:21: expected type 'bool' but found 'string'\n | self.tags.exists(t, t)\n | ....................^",
        ),
        (
            "self.name.foo(1)",
            "ERROR: <input>:1:14: undeclared reference to 'foo' (in container '')\n | self.name.foo(1)\n | .............^",
        ),
        (
            "self.name.startsWith(1)",
            "ERROR: <input>:1:21: found no matching overload for 'startsWith' applied to 'string.(int)'\n | self.name.startsWith(1)\n | ....................^",
        ),
        (
            "size(1) + foo",
            "ERROR: <input>:1:5: found no matching overload for 'size' applied to '(int)'\n | size(1) + foo\n | ....^\nERROR: <input>:1:11: undeclared reference to 'foo' (in container '')\n | size(1) + foo\n | ..........^",
        ),
        (
            "quantity('1').foo",
            "ERROR: <input>:1:14: unexpected failed resolution of 'kubernetes.Quantity'\n | quantity('1').foo\n | .............^",
        ),
        ("duration('x')", "ERROR: <input>:1:10: invalid duration argument\n | duration('x')\n | .........^"),
        (
            "self.name.matches('(')",
            "ERROR: <input>:1:19: invalid matches argument\n | self.name.matches('(')\n | ..................^",
        ),
        ("Foo{}", "ERROR: <input>:1:4: undeclared reference to 'Foo' (in container '')\n | Foo{}\n | ...^"),
        (
            "self == 1 || 1",
            "ERROR: <input>:1:6: found no matching overload for '_==_' applied to '(object, int)'\n | self == 1 || 1\n | .....^\nERROR: <input>:1:14: expected type 'bool' but found 'int'\n | self == 1 || 1\n | .............^",
        ),
        ("int('x')", "type conversion error from 'string' to 'int'"),
    ] {
        match environment.compile(text) {
            Ok(program) => panic!("{text} compiles, to {}", program.output()),
            Err(error) => assert_eq!(error.to_string(), wanted, "{text}"),
        }
    }
}

#[test]
fn types_are_inferred() {
    let environment = environment();
    for (text, wanted) in [
        ("self.tags", "list(string)"),
        ("self.labels", "map(string, string)"),
        ("self.labels['a']", "string"),
        ("self.tags.map(t, t.size())", "list(int)"),
        ("self.extra", "any"),
        ("self.extra.x", "dyn"),
        ("self.extra + 1 > 2", "bool"),
        ("true ? self.extra : 1", "any"),
        ("self.?name", "optional_type(string)"),
        ("self.?metadata.name", "optional_type(string)"),
        ("self.?tags[0].orValue('')", "string"),
        ("[]", "list(dyn)"),
        ("'%s %d'.format(['a', 1])", "string"),
        ("true ? 1 : dyn('a')", "dyn"),
        ("{'a': [1]}", "map(string, list(int))"),
        ("type(1)", "type(int)"),
        ("url('/a').getQuery()", "map(string, list(string))"),
        ("optional.of(self.size).optMap(x, x == 1)", "optional_type(bool)"),
        ("self.labels.transformMap(k, v, size(v))", "map(string, int)"),
        ("[3, 1].sortBy(x, -x)", "list(int)"),
        ("null", "null"),
        ("timestamp('2023-01-01T00:00:00Z') - timestamp('2023-01-01T00:00:00Z')", "duration"),
    ] {
        match environment.compile(text) {
            Ok(program) => assert_eq!(program.output().to_string(), wanted, "{text}"),
            Err(error) => panic!("{text}: {error}"),
        }
    }
}

//! What expressions are estimated to cost and what they do cost: as upstream's estimator and tracker say.

use std::sync::Arc;

use apimachinery::json;
use cel::{
    Activation, Budget, Decl, Environment, EvalErrorKind, Field, ListKind, ObjectType, Type, Value, limits,
};

/// Expression, least and most estimate, cost, result.
type Row = (&'static str, u64, u64, u64, &'static str);

/// What a text without `maxLength` can have: all of the largest request but its quotes.
const UNBOUNDED: u64 = limits::REQUEST_BYTES_MAX - 2;

/// An object as a schema with bounds declares it. Lengths are in characters, of which one may take four bytes.
fn declaration() -> Decl {
    let text = |length: u64| Decl::string().with_elements_max(length * 4);
    let plain = |ty, bytes_min, max| Decl::plain(ty, bytes_min).with_elements_max(max);
    let unbounded = || Decl::string().with_elements_max(UNBOUNDED);
    let object = |name: &str, fields: Vec<(&str, Decl)>| {
        let escaped = |name: &str| cel::names::escape(name).expect("a name").into_owned().into();
        let field = |(name, decl)| Field { name: escaped(name), property: name.into(), decl };
        let fields = fields.into_iter().map(field).collect();
        Decl::object(Arc::new(ObjectType::new(name, fields)))
    };
    let item =
        Decl { bytes_min: 9, ..object("self.items.@idx", vec![("k", unbounded()), ("v", Decl::int())]) };
    let deep = object("self.inner.deep", vec![("x", unbounded())]);
    let inner = object("self.inner", vec![("deep", deep), ("namespace", unbounded())]);
    let fields = vec![
        ("name", text(63)),
        ("text", unbounded()),
        ("count", Decl::int()),
        ("ratio", Decl::double()),
        ("on", Decl::bool()),
        ("mode", Decl::string().with_elements_max(2)),
        ("when", plain(Type::Timestamp, 21, 32)),
        ("lasts", plain(Type::Duration, 3, 32)),
        ("raw", plain(Type::Bytes, 2, UNBOUNDED)),
        ("either", plain(Type::Dyn, 1, UNBOUNDED)),
        ("tags", Decl::list(text(10), 10, ListKind::Atomic)),
        ("numbers", Decl::list(Decl::int(), UNBOUNDED / 2, ListKind::Atomic)),
        ("set", Decl::list(unbounded(), 5, ListKind::Set)),
        ("labels", Decl::map(Decl::string(), text(20), 5)),
        ("items", Decl::list(item, 8, ListKind::Map(["k".into()].into()))),
        ("inner", inner),
    ];
    Decl { bytes_min: 12, ..object("self", fields) }
}

#[test]
fn costs_are_those_of_upstream() {
    let decl = declaration();
    let object = json!({"name": "web-1", "text": "the quick brown fox", "count": 7, "ratio": 2.5, "on": true, "mode": "bb", "when": "2024-01-02T03:04:05Z", "lasts": "1h", "raw": "aGVsbG8=", "either": "50%", "tags": ["one", "two", "three"], "numbers": [3, 1, 2], "set": ["a", "b"], "labels": {"app": "web", "tier": "front"}, "items": [{"k": "a", "v": 1}, {"k": "b", "v": 2}], "inner": {"deep": {"x": "y"}, "namespace": "ns"}});
    let environment = Environment::new().variable("self", decl.clone());
    let mut differences = String::new();
    #[rustfmt::skip]
    let rows: &[Row] = &[
        ("self.count > 3", 3, 3, 3, "true"),
        ("self.name == 'web-1'", 3, 3, 3, "true"),
        ("self.name == self.text", 5, 30, 5, "false"),
        ("self.name != self.mode", 5, 5, 5, "true"),
        ("self.count == 7 && self.on", 2, 4, 5, "true"),
        ("self.count == 7 || self.on", 2, 4, 3, "true"),
        ("self.count == 8 || self.on", 2, 4, 5, "true"),
        ("self.on ? self.name : self.text", 4, 4, 3, "web-1"),
        ("self.on ? self.name.size() : 0", 2, 5, 5, "5"),
        ("has(self.inner.deep.x)", 3, 3, 3, "true"),
        ("has(self.inner) && has(self.inner.deep)", 1, 3, 3, "true"),
        ("self.inner.deep.x == 'y'", 5, 5, 5, "true"),
        ("self.inner.namespace == 'ns'", 4, 4, 4, "true"),
        ("self.name.startsWith('web')", 3, 3, 3, "true"),
        ("self.text.endsWith(self.name)", 4, 30, 6, "false"),
        ("self.text.contains('brown')", 2, 314575, 4, "true"),
        ("self.text.contains(self.name)", 4, 8178902, 6, "false"),
        ("self.text.matches('^[a-z ]+$')", 5, 943721, 8, "true"),
        ("self.name.matches(self.text)", 4, 20447236, 9, "false"),
        ("self.text.find('[a-z]+') == 'the'", 5, 629149, 7, "true"),
        ("self.text.split(' ').size() == 4", 4, 629150, 8, "true"),
        ("self.text.split(' ', 2)[0] == 'the'", 3, 629149, 9, "true"),
        ("self.tags.join(',') == 'one,two,three'", 3, 45, 7, "true"),
        ("self.text.replace('quick', 'slow').size() > 0", 4, 629150, 8, "true"),
        ("self.name.upperAscii() == 'WEB-1'", 3, 29, 4, "true"),
        ("self.text.substring(4, 9) == 'quick'", 3, 314576, 5, "true"),
        ("self.text.indexOf('quick') == 4", 3, 314576, 4, "true"),
        ("self.name + self.text == 'x'", 5, 314603, 8, "false"),
        ("self.tags + self.tags == self.tags", 8, 8, 8, "false"),
        ("self.set + ['c'] == ['a', 'b', 'c']", 24, 24, 4, "true"),
        ("'one' in self.tags", 2, 12, 5, "true"),
        ("self.name in ['a', 'b']", 14, 14, 2, "false"),
        ("'app' in self.labels", 3, 3, 3, "true"),
        ("self.labels['app'] == 'web'", 4, 4, 4, "true"),
        ("self.labels.app == 'web'", 4, 4, 4, "true"),
        ("self.tags[0] == 'one'", 4, 4, 4, "true"),
        ("self.numbers[self.count - 7] == 3", 6, 6, 7, "true"),
        ("self.tags.all(t, t.size() < 10)", 3, 63, 21, "true"),
        ("self.tags.exists(t, t == 'two')", 3, 63, 18, "true"),
        ("self.tags.exists_one(t, t == 'two')", 4, 44, 12, "true"),
        ("self.tags.filter(t, t != 'one').size() == 2", 15, 165, 37, "true"),
        ("self.tags.map(t, t.upperAscii()) == ['ONE']", 24, 194, 46, "false"),
        ("self.numbers.map(n, n * 2).filter(n, n > 2).size() == 2", 26, 45613053, 80, "true"),
        ("self.numbers.all(n, self.numbers.exists(m, m == n))", 3, 14843397537795, 69, "true"),
        ("self.items.all(i, i.v > 0 && i.k != '')", 3, 67, 19, "true"),
        ("self.items.exists(i, i.k == 'b' && i.v == 2)", 3, 75, 20, "true"),
        ("self.items == [self.items[1], self.items[0]]", 19, 19, 19, "true"),
        ("self.labels.all(k, k.startsWith('a') || self.labels[k].size() < 20)", 3, 58, 18, "true"),
        ("self.labels.all(k, v, k != v)", 3, 28, 15, "true"),
        ("self.labels.transformMap(k, v, v.size()).app == 3", 34, 59, 16, "true"),
        ("self.tags.transformList(i, t, i > 0, t) == ['two', 'three']", 24, 174, 36, "true"),
        ("self.numbers.sum() == 6", 3, 1572866, 6, "true"),
        ("self.numbers.isSorted()", 2, 1572865, 5, "false"),
        ("self.tags.max() == 'two'", 3, 53, 3, "true"),
        ("self.numbers.sort() == [1, 2, 3]", 24, 4947796033562, 32, "true"),
        ("self.items.sortBy(i, i.k).size() == 2", 38, 285, 54, "true"),
        ("self.numbers.slice(0, 2).size() == 2", 17, 17, 17, "true"),
        ("self.numbers.reverse() == [2, 1, 3]", 24, 1572887, 17, "true"),
        ("self.tags.distinct().size() == 3", 15, 215, 33, "true"),
        ("[[1], [2]].flatten() == [1, 2]", 54, 54, 14, "true"),
        ("lists.range(5).size() == 5", 18, 18, 18, "true"),
        ("sets.contains(self.tags, ['one'])", 13, 23, 6, "true"),
        ("sets.equivalent(self.tags, self.set)", 5, 105, 17, "false"),
        ("self.when > timestamp('2020-01-01T00:00:00Z')", 4, 4, 3, "true"),
        ("self.lasts < duration('2h')", 4, 4, 3, "true"),
        ("self.when + self.lasts > self.when", 8, 8, 8, "true"),
        ("self.raw == b'hello'", 3, 3, 3, "true"),
        ("string(self.raw) == 'hello'", 3, 314576, 4, "true"),
        ("type(self.either) == string && self.either == '50%'", 4, 7, 7, "true"),
        ("int('12') == 12 && double(self.count) > self.ratio", 2, 8, 7, "true"),
        ("[1, 2, 3] == [self.count, 2, 3]", 23, 23, 13, "false"),
        ("{'a': self.name}.a == 'web-1'", 33, 33, 35, "true"),
        ("self.?text.orValue('') == ''", 3, 3, 2, "false"),
        ("self.labels[?'nope'].hasValue()", 4, 4, 3, "false"),
        ("self.?inner.?deep.?x.optMap(x, x + '!').orValue('') == 'y!'", 8, 1844674407370955288, 14, "true"),
        ("optional.of(self.name).or(optional.none()).value() == self.name", 9, 34, 7, "true"),
        ("quantity('1Gi').isGreaterThan(quantity('1G'))", 3, 3, 3, "true"),
        ("isQuantity(self.name)", 2, 28, 3, "false"),
        ("url('https://a.b/c').getHost() == 'a.b'", 4, 4, 4, "true"),
        ("ip('10.0.0.1').family() == 4", 3, 3, 3, "true"),
        ("cidr('10.0.0.0/8').containsIP('10.1.1.1')", 3, 6, 3, "true"),
        ("cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16'))", 6, 10, 6, "true"),
        ("semver('1.2.3').isLessThan(semver('2.0.0'))", 3, 3, 3, "true"),
        ("!format.dns1123Label().validate(self.name).hasValue()", 5, 837, 13, "true"),
        ("'%s-%d'.format([self.name, self.count]) == 'web-1-7'", 16, 16, 16, "true"),
        ("strings.quote(self.name) == 'x'", 3, 29, 4, "false"),
        ("dyn(self.count) == 7", 3, 3, 4, "true"),
        ("-self.count < 0 && !self.on", 4, 7, 7, "false"),
        ("self.count + 1 - 2 * 3 / 4 % 5 == 7", 8, 8, 8, "true"),
        ("1 / (self.count - 7) == 1 || true", 5, 5, 5, "true"),
    ];
    for &(text, min, max, cost, wanted) in rows {
        let program = environment.compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut activation = Activation::new(&environment);
        activation.bind(0, Value::declared(&object, &decl).expect("the object fits its schema"));
        let mut budget = Budget::new(limits::PER_OBJECT);
        let result = match program.eval(&activation, &mut budget) {
            Ok(value) => value.to_string(),
            Err(error) => format!("error: {error}"),
        };
        let spent = limits::PER_OBJECT - budget.remaining();
        let estimate = program.estimate();
        if (estimate.min, estimate.max, spent, &*result) != (min, max, cost, wanted) {
            differences.push_str(&format!(
                "{text}\n  {}..{}, {spent}, {result}\n  {min}..{max}, {cost}, {wanted} wanted\n",
                estimate.min, estimate.max
            ));
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn no_expression_costs_more_than_it_may() {
    let environment = Environment::new().variable("self", Decl::dynamic());
    let list = json!((0..500).collect::<Vec<i64>>());
    let run = |text: &str, limit: u64| {
        let program = environment.compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut activation = Activation::new(&environment);
        activation.bind(0, Value::dynamic(&list));
        program.eval(&activation, &mut Budget::new(limit)).map(|value| value.to_string())
    };
    let nested = "self.all(x, self.all(y, self.all(z, x + y + z >= 0)))";
    assert_eq!(run(nested, u64::MAX).unwrap_err().kind(), EvalErrorKind::CostLimit);
    // No error of that kind is absorbed.
    let absorbed = format!("{nested} || true");
    assert_eq!(run(&absorbed, u64::MAX).unwrap_err().kind(), EvalErrorKind::CostLimit);
    assert_eq!(run("lists.range(1000000000).size()", u64::MAX).unwrap_err().kind(), EvalErrorKind::CostLimit);
    assert_eq!(run("self.size()", 1).unwrap_err().kind(), EvalErrorKind::Budget);
    assert_eq!(run("self.size()", 2).as_deref(), Ok("500"));
}

/// Nesting is bounded so that no expression can exhaust a stack; frames of an optimized build are a third of these.
#[test]
fn the_deepest_expressions_fit_a_stack() {
    let deep = || {
        let environment = Environment::new().variable("self", Decl::dynamic());
        for (open, middle, close, depth) in [
            ("(", "1", ")", 249),
            ("[", "1", "]", 249),
            ("{1: ", "1", "}", 249),
            ("true ? 1 : ", "1", "", 249),
            ("size([", "1", "])", 124),
            ("[1].map(x, ", "1", ")", 240),
            ("optional.of(1).optMap(x, ", "1", ")", 124),
            ("!(", "true", ")", 240),
        ] {
            let text = open.repeat(depth) + middle + &close.repeat(depth);
            let program = environment.compile(&text).unwrap_or_else(|error| panic!("{open}: {error}"));
            let result = program.eval(&Activation::new(&environment), &mut Budget::new(limits::PER_OBJECT));
            assert!(result.is_ok(), "{open}");
        }
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(deep).expect("a thread starts");
    thread.join().expect("nothing panics");
}

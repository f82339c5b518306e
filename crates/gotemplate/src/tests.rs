//! Templates as users write them, and what Go says about them.

use apimachinery::json;

use super::*;

/// What a template makes of a pod, or the complaint.
fn render(text: &str) -> String {
    let pod = json!({
        "metadata": {"name": "web", "labels": {"app": "shop", "tier": "front"}, "generation": 3},
        "spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}], "hostNetwork": false},
        "status": {"phase": "Pending", "nothing": null},
    });
    match Template::parse("_", text, &NoFunctions) {
        Err(error) => error.to_string(),
        Ok(template) => {
            template.render(Datum::from(&pod), &NoFunctions).unwrap_or_else(|error| error.to_string())
        }
    }
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(render(text), *expected, "{text}");
    }
}

#[test]
fn fields_and_pipelines() {
    check(&[
        ("a{{.metadata.name}}b", "awebb"),
        ("{{ .metadata.name | printf \"%s-%d\" }}", "web-%!d(MISSING)"),
        ("{{ 5 | printf \"%s-%d\" .metadata.name }}", "web-5"),
        ("{{.metadata.missing}}", "<no value>"),
        ("{{.metadata.missing.deeper.still}}", "<no value>"),
        ("{{.status.nothing}}", "<no value>"),
        ("{{(index .spec.containers 1).name}}", "b"),
        ("{{$.metadata.labels}}", "map[app:shop tier:front]"),
        ("{{.spec.containers}}", "[map[image:x:1 name:a] map[image:y:2 name:b]]"),
        ("{{.metadata.generation}}", "3"),
        (
            "{{1}} {{1.50}} {{0x10}} {{'a'}} {{true}} {{`raw\\n`}} {{\"t\\tx\\u00e9\"}}",
            "1 1.5 16 97 true raw\\n t\txé",
        ),
    ]);
}

#[test]
fn control() {
    check(&[
        ("{{if .spec.hostNetwork}}a{{else if eq .status.phase \"Pending\"}}b{{else}}c{{end}}", "b"),
        ("{{with .metadata.labels.app}}{{.}}{{else}}none{{end}}", "shop"),
        ("{{with .x}}a{{else with .metadata.name}}{{.}}{{end}}", "web"),
        ("{{range .spec.containers}}{{.name}},{{end}}", "a,b,"),
        (
            "{{range $i, $c := .spec.containers}}{{$i}}={{$c.name}} {{$.metadata.name}};{{end}}",
            "0=a web;1=b web;",
        ),
        ("{{range $k, $v := .metadata.labels}}{{$k}}={{$v}};{{end}}", "app=shop;tier=front;"),
        ("{{range .missing}}x{{else}}none{{end}}", "none"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{range $i, $c := .spec.containers}}{{if $i}}{{break}}{{end}}{{$c.name}}{{end}}", "a"),
        ("{{range $i, $c := .spec.containers}}{{if not $i}}{{continue}}{{end}}{{$c.name}}{{end}}", "b"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{$y := 3}}{{end}}{{$x}}", "2"),
        ("{{$x := 1}}{{if true}}{{$x := 2}}{{end}}{{$x}}", "1"),
        ("a  {{- 1 -}}  b {{- /* why */ -}} c{{/* not */}}d", "a1bcd"),
        (
            "{{define \"t\"}}<{{.}}>{{end}}{{template \"t\" .metadata.name}}{{template \"t\"}}",
            "<web><<no value>>",
        ),
        ("{{block \"t\" .status.phase}}[{{.}}]{{end}}", "[Pending]"),
    ]);
}

#[test]
fn functions_of_the_language() {
    check(&[
        ("{{and 1 0 .x.y}} {{or 0 \"\" 7}} {{or .missing \"d\"}} {{not .missing}}", "0 7 d true"),
        ("{{or true (index .missing 1)}}", "true"),
        ("{{len .spec.containers}} {{len \"héllo\"}} {{len .metadata.labels}}", "2 6 2"),
        ("{{index .metadata.labels \"app\"}} {{index .metadata.labels \"no\"}}", "shop <no value>"),
        ("{{slice \"abcdef\" 1 3}} {{len (slice .spec.containers 1)}}", "bc 1"),
        (
            "{{eq 1 2 3 1}} {{ne \"a\" \"b\"}} {{lt 1 2}} {{ge \"b\" \"a\"}} {{le 1.5 1.5}}",
            "true true true true true",
        ),
        ("{{eq .missing \"x\"}} {{eq .missing nil}} {{eq .metadata.generation \"3\"}}", "false true true"),
        ("{{print 1 2 \"a\" 3}}|{{println \"x\" 1}}", "1 2a3|x 1\n"),
        ("{{html \"<a>\"}} {{js \"it's\"}} {{urlquery \"a b/ü\"}}", "&lt;a&gt; it\\'s a+b%2F%C3%BC"),
        (
            "{{printf \"%5d|%-5d|%05d|%x|%+d|%q|%v|%t|%.2f|%8.3f|%e|%g\" 42 42 42 255 7 \"a\\\"b\" nil true 1.005 2.5 12345.678 1e21}}",
            "   42|42   |00042|ff|+7|\"a\\\"b\"|<nil>|true|1.00|   2.500|1.234568e+04|1e+21",
        ),
        (
            "{{printf \"%d %s\" \"x\" 1}} {{printf \"%d\" 1 2}} {{printf \"%\"}} {{printf \"100%%\"}}",
            "%!d(string=x) %!s(int=1) 1%!(EXTRA int=2) %!(NOVERB) 100%",
        ),
        ("{{printf \"%T %T %T\" 1 \"a\" .metadata.labels}}", "int string map[string]interface {}"),
    ]);
}

#[test]
fn functions_of_sprig() {
    check(&[
        ("{{default \"d\" .missing}} {{default \"d\" .metadata.name}} {{.x | default 5}}", "d web 5"),
        (
            "{{$d := dict \"a\" 1 \"b\" 2}}{{$_ := set $d \"c\" 3}}{{$d}} {{hasKey $d \"a\"}} {{get $d \"z\"}}|",
            "map[a:1 b:2 c:3] true |",
        ),
        (
            "{{list 1 2 3 | join \"-\"}} {{join \",\" (list \"a\" \"b\")}} {{has 2 (list 1 2)}}",
            "1-2-3 a,b true",
        ),
        (
            "{{upper \"a\"}} {{trimSuffix \".x\" \"a.x\"}} {{replace \"a\" \"b\" \"aa\"}} {{trunc 3 \"abcdef\"}} {{trunc -2 \"abc\"}}",
            "A a bb abc bc",
        ),
        ("{{quote \"a\" 1 nil}} {{squote \"b\"}} {{cat 1 \"x\"}}", "\"a\" \"1\" 'b' 1 x"),
        ("{{indent 2 \"a\\nb\"}}|{{nindent 1 \"c\"}}", "  a\n  b|\n c"),
        (
            "{{add 1 2 3}} {{sub 5 2}} {{mul 2 3}} {{div 7 2}} {{mod 7 2}} {{add1 1}} {{max 1 9 3}} {{add .metadata.generation 1}}",
            "6 3 6 3 1 2 9 4",
        ),
        (
            "{{int \"42\"}} {{int64 3.9}} {{float64 \"1.5\"}} {{round 2.345 2}} {{floor 1.9}}",
            "42 3 1.5 2.35 1",
        ),
        (
            "{{ternary \"y\" \"n\" true}} {{coalesce nil \"\" 3}} {{empty 0}} {{kindOf .metadata.labels}} {{typeOf 1}}",
            "y 3 true map int",
        ),
        (
            "{{b64enc \"hi\" | b64dec}} {{toJson (dict \"a\" (list 1 \"<\"))}} {{(fromJson \"{\\\"k\\\":[1]}\").k}}",
            "hi {\"a\":[1,\"\\u003c\"]} [1]",
        ),
        (
            "{{until 3}} {{untilStep 10 0 -5}} {{first (list 1 2)}} {{rest (list 1 2)}} {{append (list 1) 2}} {{reverse (list 1 2)}}",
            "[0 1 2] [10 5] 1 [2] [1 2] [2 1]",
        ),
        ("{{regexMatch \"^a+$\" \"aaa\"}} {{regexReplaceAll \"(a)(b)\" \"ab\" \"${2}${1}\"}}", "true ba"),
        (
            "{{date \"2006-01-02T15:04:05Z07:00 Mon Jan 2 3PM .000\" 1136214245}}",
            "2006-01-02T15:04:05Z Mon Jan 2 3PM .000",
        ),
        (
            "{{(split \"-\" \"a-b\")._1}} {{splitList \",\" \"a,b\"}} {{snakecase \"FooBarBaz\"}}",
            "b [a b] foo_bar_baz",
        ),
        (
            "{{dig \"metadata\" \"labels\" \"app\" \"none\" $}} {{dig \"metadata\" \"no\" \"none\" $}}",
            "shop none",
        ),
        ("{{len (randAlphaNum 12)}} {{len uuidv4}} {{unixEpoch 5}}", "12 36 5"),
        ("{{merge (dict \"a\" 1) (dict \"a\" 2 \"b\" (dict \"c\" 3))}}", "map[a:1 b:map[c:3]]"),
    ]);
}

#[test]
fn complaints_of_the_parser_are_gos() {
    check(&[
        ("a\n{{foo}}", "template: _:2: function \"foo\" not defined"),
        ("{{$x}}", "template: _:1: undefined variable \"$x\""),
        ("{{if .x}}", "template: _:1: unexpected EOF"),
        ("{{end}}", "template: _:1: unexpected {{end}}"),
        ("{{else}}", "template: _:1: unexpected {{else}}"),
        ("{{", "template: _:1: unclosed action"),
        ("{{}}", "template: _:1: missing value for command"),
        ("{{if}}{{end}}", "template: _:1: missing value for if"),
        ("{{.a | 5}}", "template: _:1: non executable command in pipeline stage 2"),
        ("{{(.a}}", "template: _:1: unclosed left paren"),
        ("{{\"a}}", "template: _:1: unterminated quoted string"),
        ("{{/* a}}", "template: _:1: unclosed comment"),
        ("{{1a}}", "template: _:1: bad number syntax: \"1a\""),
        ("{{.a#}}", "template: _:1: bad character U+0023 '#'"),
        ("{{break}}", "template: _:1: {{break}} outside {{range}}"),
        ("{{$a, $b := .x}}", "template: _:1: too many declarations in command"),
        ("{{range .x}}{{else}}{{else}}{{end}}", "template: _:1: expected end; found {{else}}"),
        ("{{template .x}}", "template: _:1: unexpected \".x\" in template clause"),
    ]);
}

#[test]
fn complaints_of_rendering_say_where() {
    check(&[
        (
            "a: 1\n  {{ index .status.containers 0 }}",
            "template: _:2:5: executing \"_\" at <index .status.containers 0>: error calling index: index of untyped nil",
        ),
        (
            "{{.metadata.name.first}}",
            "template: _:1:11: executing \"_\" at <.metadata.name.first>: can't evaluate field first in type interface {}",
        ),
        (
            "{{.status.nothing.x}}",
            "template: _:1:9: executing \"_\" at <.status.nothing.x>: nil pointer evaluating interface {}.x",
        ),
        (
            "{{eq .metadata.generation 3}}",
            "template: _:1:2: executing \"_\" at <eq .metadata.generation 3>: error calling eq: incompatible types for comparison",
        ),
        (
            "{{lt .x 3}}",
            "template: _:1:2: executing \"_\" at <lt .x 3>: error calling lt: invalid type for comparison",
        ),
        ("{{upper 5}}", "template: _:1:8: executing \"_\" at <5>: expected string; found 5"),
        ("{{upper .x}}", "template: _:1:8: executing \"_\" at <.x>: invalid value; expected string"),
        (
            "{{upper .metadata.generation}}",
            "template: _:1:17: executing \"_\" at <.metadata.generation>: wrong type for value; expected string; got json.Number",
        ),
        ("{{not}}", "template: _:1:2: executing \"_\" at <not>: wrong number of args for not: want 1 got 0"),
        (
            "{{.metadata.name 1}}",
            "template: _:1:11: executing \"_\" at <.metadata.name>: name is not a method but has arguments",
        ),
        ("{{range \"x\"}}{{end}}", "template: _:1:8: executing \"_\" at <\"x\">: range can't iterate over x"),
        (
            "{{template \"no\"}}",
            "template: _:1:11: executing \"_\" at <{{template \"no\"}}>: template \"no\" not defined",
        ),
        ("{{nil}}", "template: _:1:2: executing \"_\" at <nil>: nil is not a command"),
        ("{{fail \"no\"}}", "template: _:1:2: executing \"_\" at <fail \"no\">: error calling fail: no"),
        (
            "{{div 1 0}}",
            "template: _:1:2: executing \"_\" at <div 1 0>: error calling div: runtime error: integer divide by zero",
        ),
    ]);
}

#[test]
fn a_rendering_ends() {
    for text in [
        "{{range 1000}}{{range 1000}}{{range 1000}}{{end}}{{end}}{{end}}",
        "{{range 100000}}0123456789abcdef{{end}}",
        "{{define \"t\"}}{{template \"t\"}}{{end}}{{template \"t\"}}",
        "{{range 9000000000}}{{end}}",
        "{{until 9000000000}}",
        "{{repeat 9000000000 \"a\"}}",
        "{{indent 9000000000 \"a\"}}",
        "{{randAlpha 9000000000}}",
    ] {
        let told = render(text);
        assert!(told.contains("more than") || told.contains("exceeded"), "{text}: {told}");
    }
    let deep = format!("{{{{{}1{}}}}}", "(".repeat(1000), ")".repeat(1000));
    assert_eq!(render(&deep), "template: _:1: max expression depth exceeded");
    let nested = "{{if 1}}".repeat(1000);
    assert_eq!(render(&nested), "template: _:1: max expression depth exceeded");
}

#[test]
fn a_map_never_holds_itself() {
    assert_eq!(render("{{$d := dict \"a\" 1}}{{$_ := set $d \"d\" $d}}{{$d}}"), "map[a:1 d:map[a:1]]");
}

/// What a caller adds hides what there is.
struct Added;

impl Functions for Added {
    fn signature(&self, name: &str) -> Option<Signature> {
        const TEXTS: &[Parameter] = &[Parameter::Text, Parameter::Bool];
        matches!(name, "NodeIP" | "upper").then_some(Signature { parameters: TEXTS, variadic: true })
    }

    fn call(&self, name: &str, arguments: &[Datum]) -> Result<Datum, String> {
        if name == "upper" { Ok("mine".into()) } else { Err(format!("no node {}", arguments.len())) }
    }
}

#[test]
fn functions_can_be_added() {
    let render = |text: &str| {
        let template = Template::parse("_", text, &Added).unwrap();
        template.render(Datum::Nil, &Added).unwrap_or_else(|error| error.to_string())
    };
    assert_eq!(render("{{upper \"x\"}}"), "mine");
    let told = "template: _:1:2: executing \"_\" at <NodeIP \"n\" true>: error calling NodeIP: no node 2";
    assert_eq!(render("{{NodeIP \"n\" true}}"), told);
}

use super::*;

const EXPRESSION: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Messages by position: `1:5: …`, `{E}` standing for what an expression can begin with.
fn complaints(text: &str) -> Vec<String> {
    match parse(text, false) {
        Ok(_) => Vec::new(),
        Err(error) => error
            .issues
            .iter()
            .map(|issue| {
                let message = issue.message.replace(EXPRESSION, "{E}");
                format!("{}:{}: {message}", issue.location.line, issue.location.column + 1)
            })
            .collect(),
    }
}

#[test]
fn syntax_errors_read_as_upstream() {
    for (text, wanted) in [
        ("object.spec +", &["1:14: Syntax error: mismatched input '<EOF>' expecting {E}"][..]),
        ("0xFFFFFFFFFFFFFFFFF", &["1:1: invalid int literal"]),
        ("0xFFFFFFFFFFFFFFFFFu", &["1:1: invalid uint literal"]),
        ("1.99e90000009", &["1:1: invalid double literal"]),
        (
            "*@a | b",
            &[
                "1:1: Syntax error: extraneous input '*' expecting {E}",
                "1:2: Syntax error: token recognition error at: '@'",
                "1:5: Syntax error: token recognition error at: '| '",
                "1:7: Syntax error: extraneous input 'b' expecting <EOF>",
            ],
        ),
        (
            "a | b",
            &[
                "1:3: Syntax error: token recognition error at: '| '",
                "1:5: Syntax error: extraneous input 'b' expecting <EOF>",
            ],
        ),
        ("has(m)", &["1:5: invalid argument to has() macro"]),
        ("[].exists(__result__, __result__)", &["1:11: iteration variable overwrites accumulator variable"]),
        ("m.filter(a.b, false)", &["1:11: argument is not an identifier"]),
        ("1.all(2, 3)", &["1:7: argument must be a simple name"]),
        (
            "{",
            &[
                "1:2: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '}', '(', '.', ',', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}",
            ],
        ),
        ("TestAllTypes(){}", &["1:15: Syntax error: mismatched input '{' expecting <EOF>"]),
        ("TestAllTypes{}()", &["1:15: Syntax error: mismatched input '(' expecting <EOF>"]),
        (
            "1 + $",
            &[
                "1:5: Syntax error: token recognition error at: '$'",
                "1:6: Syntax error: mismatched input '<EOF>' expecting {E}",
            ],
        ),
        ("1 + 2\n3 +", &["2:1: Syntax error: mismatched input '3' expecting <EOF>"]),
        (
            "1 + +",
            &[
                "1:5: Syntax error: mismatched input '+' expecting {E}",
                "1:6: Syntax error: mismatched input '<EOF>' expecting {E}",
            ],
        ),
        (r#"{"a": 1}."a""#, &[r#"1:10: Syntax error: no viable alternative at input '."a"'"#]),
        (
            r#""\xFh""#,
            &[
                r#"1:1: Syntax error: token recognition error at: '"\xFh'"#,
                r#"1:6: Syntax error: token recognition error at: '"'"#,
                "1:7: Syntax error: mismatched input '<EOF>' expecting {E}",
            ],
        ),
        ("as", &["1:1: reserved identifier: as"]),
        (
            "in",
            &[
                "1:1: Syntax error: mismatched input 'in' expecting {E}",
                "1:3: Syntax error: mismatched input '<EOF>' expecting {E}",
            ],
        ),
        ("a.true", &["1:3: Syntax error: mismatched input 'true' expecting IDENTIFIER"]),
        ("(a", &["1:3: Syntax error: missing ')' at '<EOF>'"]),
        ("f(1 2)", &["1:5: Syntax error: extraneous input '2' expecting ')'"]),
        ("[1 2]", &["1:4: Syntax error: extraneous input '2' expecting {']', ','}"]),
        ("a ? b", &["1:6: Syntax error: mismatched input '<EOF>' expecting ':'"]),
        ("x.optMap(y.z, y)", &["1:11: optMap() variable name must be a simple identifier"]),
        ("[1].all(a, a, true)", &["1:12: duplicate variable name: a"]),
    ] {
        assert_eq!(complaints(text), wanted, "{text}");
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let recursion = ["-1:0: expression recursion limit exceeded: 250"];
    for text in [
        "(".repeat(300) + "1" + &")".repeat(300),
        "[".repeat(100_000),
        "1".to_owned() + &" + 1".repeat(300),
        "a".to_owned() + &".b".repeat(300),
        "a".to_owned() + &" < b".repeat(300),
    ] {
        assert_eq!(complaints(&text), recursion, "{}", &text[..20]);
    }
    for text in [
        "(".repeat(249) + "1" + &")".repeat(249),
        "true".to_owned() + &" && true".repeat(5_000),
        "!".repeat(5_000) + "true",
        "a".to_owned() + &".b".repeat(240),
    ] {
        assert_eq!(complaints(&text), [""; 0], "{}", &text[..20]);
    }
    let long = format!("'{}'", "a".repeat(100_000));
    assert_eq!(
        complaints(&long),
        ["-1:0: expression code point size exceeds limit: size: 100002, limit 100000"]
    );
    let doubling = "x".to_owned() + &".optMap(y, y)".repeat(60);
    assert_eq!(complaints(&doubling), ["-1:0: max recursion depth exceeded"]);
}

#[test]
fn literals_have_their_values() {
    for (text, wanted) in [
        ("-9223372036854775808", Literal::Int(i64::MIN)),
        ("0x10", Literal::Int(16)),
        ("-0x10", Literal::Int(-16)),
        ("18446744073709551615u", Literal::Uint(u64::MAX)),
        (".5e1", Literal::Double(5.0)),
        (r#""\u00e9\n\x41\101""#, Literal::String("\u{e9}\nAA".into())),
        (r#"r"\n""#, Literal::String("\\n".into())),
        ("'''a'\nb'''", Literal::String("a'\nb".into())),
        (r#"b"\xff\377""#, Literal::Bytes([255, 255].into())),
        (r#"r'it"s'"#, Literal::String("it\"s".into())),
        (r#"b'\u0041'"#, Literal::Null),
    ] {
        match parse(text, false).map(|ast| ast.root.kind) {
            Ok(Kind::Literal(literal)) => assert_eq!(literal, wanted, "{text}"),
            Ok(other) => panic!("{text}: {other:?}"),
            Err(error) => assert_eq!(wanted, Literal::Null, "{text}: {error}"),
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,60}") {
        let _ = parse(&text, false);
    }

    #[test]
    fn no_tokens_make_it_panic(
        tokens in proptest::collection::vec(
            proptest::sample::select(vec![
                "a", "1", "'s'", "(", ")", "[", "]", "{", "}", ".", ",", "?", ":", "+", "-", "!", "&&", "||", "==",
                "in", "true", ".?", "[?", "has", ".map(", ".all(", "x,", "|", "$", "\"",
            ]),
            0..30,
        ),
        spaced: bool,
    ) {
        let _ = parse(&tokens.join(if spaced { " " } else { "" }), false);
    }
}

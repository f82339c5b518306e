//! Texts.

use std::collections::BTreeMap;

use apimachinery::Str;
use regex::Regex;

use super::{is_empty, shown, text};
use crate::Parameter::{Any, Int, Text};
use crate::builtin::{Native, fixed, variadic};
use crate::{Datum, OUTPUT_BYTES_MAX, format};

type Result<T = Datum> = std::result::Result<T, String>;

pub const FUNCTIONS: &[Native] = &[
    fixed("trim", &[Text], |args| Ok(text(&args[0]).trim().into())),
    fixed("trimAll", &[Text, Text], |args| Ok(text(&args[1]).trim_matches(set(&args[0])).into())),
    fixed("trimSuffix", &[Text, Text], |args| {
        let whole = text(&args[1]);
        Ok(whole.strip_suffix(text(&args[0])).unwrap_or(whole).into())
    }),
    fixed("trimPrefix", &[Text, Text], |args| {
        let whole = text(&args[1]);
        Ok(whole.strip_prefix(text(&args[0])).unwrap_or(whole).into())
    }),
    fixed("upper", &[Text], |args| Ok(text(&args[0]).to_uppercase().into())),
    fixed("lower", &[Text], |args| Ok(text(&args[0]).to_lowercase().into())),
    fixed("title", &[Text], |args| Ok(first_letters(text(&args[0]), true).into())),
    fixed("untitle", &[Text], |args| Ok(first_letters(text(&args[0]), false).into())),
    fixed("repeat", &[Int, Text], |args| repeat(text(&args[1]), integer(&args[0]))),
    fixed("substr", &[Int, Int, Text], |args| {
        let whole = text(&args[2]);
        let start = usize::try_from(integer(&args[0])).unwrap_or(0);
        let end = usize::try_from(integer(&args[1])).unwrap_or(whole.len()).min(whole.len());
        Ok(cut(whole, start.min(end), end).into())
    }),
    fixed("trunc", &[Int, Text], |args| Ok(truncate(text(&args[1]), integer(&args[0])).into())),
    fixed("abbrev", &[Int, Text], |args| {
        let (whole, width) = (text(&args[1]), integer(&args[0]));
        if width < 4 || whole.len() as i64 <= width {
            return Ok(whole.into());
        }
        Ok(format!("{}...", truncate(whole, width - 3)).into())
    }),
    fixed("nospace", &[Text], |args| Ok(text(&args[0]).split_whitespace().collect::<String>().into())),
    fixed("contains", &[Text, Text], |args| Ok(text(&args[1]).contains(text(&args[0])).into())),
    fixed("hasPrefix", &[Text, Text], |args| Ok(text(&args[1]).starts_with(text(&args[0])).into())),
    fixed("hasSuffix", &[Text, Text], |args| Ok(text(&args[1]).ends_with(text(&args[0])).into())),
    variadic("quote", &[Any], |args| Ok(each(args, |own| format::quote(&shown(own))).into())),
    variadic("squote", &[Any], |args| Ok(each(args, |own| format!("'{}'", shown(own))).into())),
    variadic("cat", &[Any], |args| Ok(each(args, shown).into())),
    fixed("indent", &[Int, Text], |args| indent(integer(&args[0]), text(&args[1])).map(Datum::from)),
    fixed("nindent", &[Int, Text], |args| {
        Ok(format!("\n{}", indent(integer(&args[0]), text(&args[1]))?).into())
    }),
    fixed("replace", &[Text, Text, Text], |args| {
        bounded(text(&args[2]).replace(text(&args[0]), text(&args[1])))
    }),
    fixed("plural", &[Text, Text, Int], |args| Ok(args[usize::from(integer(&args[2]) != 1)].clone())),
    fixed("snakecase", &[Text], |args| Ok(words(text(&args[0])).join("_").into())),
    fixed("kebabcase", &[Text], |args| Ok(words(text(&args[0])).join("-").into())),
    fixed("camelcase", &[Text], |args| {
        Ok(words(text(&args[0])).iter().map(|word| first_letters(word, true)).collect::<String>().into())
    }),
    fixed("split", &[Text, Text], |args| {
        let parts = text(&args[1]).split(text(&args[0])).enumerate();
        let entries: BTreeMap<Str, Datum> =
            parts.map(|(index, part)| (format!("_{index}").into(), part.into())).collect();
        Ok(Datum::map(entries))
    }),
    fixed("splitList", &[Text, Text], |args| {
        Ok(text(&args[1]).split(text(&args[0])).map(Datum::from).collect::<Vec<_>>().into())
    }),
    fixed("join", &[Text, Any], |args| bounded(strings(&args[1]).join(text(&args[0])))),
    fixed("sortAlpha", &[Any], |args| {
        let mut sorted = strings(&args[0]);
        sorted.sort();
        Ok(sorted.into())
    }),
    fixed("toString", &[Any], |args| Ok(shown(&args[0]).into())),
    fixed("toStrings", &[Any], |args| Ok(strings(&args[0]).into())),
    fixed("regexMatch", &[Text, Text], |args| Ok(regex(&args[0])?.is_match(text(&args[1])).into())),
    fixed("regexFind", &[Text, Text], |args| {
        Ok(regex(&args[0])?.find(text(&args[1])).map_or("", |found| found.as_str()).into())
    }),
    fixed("regexFindAll", &[Text, Text, Int], |args| {
        let count = usize::try_from(integer(&args[2])).unwrap_or(usize::MAX);
        let regex = regex(&args[0])?;
        let found = regex.find_iter(text(&args[1])).take(count).map(|found| Datum::from(found.as_str()));
        Ok(found.collect::<Vec<_>>().into())
    }),
    fixed("regexReplaceAll", &[Text, Text, Text], |args| {
        bounded(regex(&args[0])?.replace_all(text(&args[1]), text(&args[2])).into_owned())
    }),
    fixed("regexReplaceAllLiteral", &[Text, Text, Text], |args| {
        let replacement = regex::NoExpand(text(&args[2]));
        bounded(regex(&args[0])?.replace_all(text(&args[1]), replacement).into_owned())
    }),
    fixed("regexSplit", &[Text, Text, Int], |args| {
        let (regex, whole) = (regex(&args[0])?, text(&args[1]));
        let parts: Vec<Datum> = match usize::try_from(integer(&args[2])) {
            Ok(count) => regex.splitn(whole, count).map(Datum::from).collect(),
            Err(_) => regex.split(whole).map(Datum::from).collect(),
        };
        Ok(parts.into())
    }),
    fixed("randAlphaNum", &[Int], |args| random(integer(&args[0]), LETTERS)),
    fixed("randAlpha", &[Int], |args| random(integer(&args[0]), &LETTERS[..52])),
    fixed("randNumeric", &[Int], |args| random(integer(&args[0]), &LETTERS[52..])),
];

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

fn integer(datum: &Datum) -> i64 {
    match datum {
        Datum::Int(value) => *value,
        _ => 0,
    }
}

fn set(letters: &Datum) -> impl Fn(char) -> bool {
    let letters: Vec<char> = text(letters).chars().collect();
    move |letter| letters.contains(&letter)
}

fn bounded(made: String) -> Result {
    if made.len() > OUTPUT_BYTES_MAX {
        Err(format!("more than {OUTPUT_BYTES_MAX} bytes"))
    } else {
        Ok(made.into())
    }
}

fn repeat(whole: &str, count: i64) -> Result {
    let count = usize::try_from(count).map_err(|_| "strings: negative Repeat count")?;
    match whole.len().checked_mul(count) {
        Some(length) if length <= OUTPUT_BYTES_MAX => Ok(whole.repeat(count).into()),
        _ => Err(format!("more than {OUTPUT_BYTES_MAX} bytes")),
    }
}

/// Bytes of a text; a letter that is cut through goes.
fn cut(whole: &str, start: usize, end: usize) -> String {
    String::from_utf8_lossy(&whole.as_bytes()[start..end]).replace('\u{fffd}', "")
}

/// The first bytes, or the last ones if `count` is negative.
fn truncate(whole: &str, count: i64) -> String {
    let length = whole.len();
    match usize::try_from(count) {
        Ok(count) => cut(whole, 0, count.min(length)),
        Err(_) => {
            let kept = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX).min(length);
            cut(whole, length - kept, length)
        }
    }
}

fn first_letters(whole: &str, upper: bool) -> String {
    let mut starts = true;
    let mut out = String::with_capacity(whole.len());
    for letter in whole.chars() {
        match (starts, upper) {
            (true, true) => out.extend(letter.to_uppercase()),
            (true, false) => out.extend(letter.to_lowercase()),
            (false, _) => out.push(letter),
        }
        starts = !letter.is_alphanumeric() && letter != '_' && letter != '\'';
    }
    out
}

/// All that are not null, with a space between.
fn each(args: &[Datum], write: impl Fn(&Datum) -> String) -> String {
    args.iter().filter(|own| !own.is_nil()).map(write).collect::<Vec<_>>().join(" ")
}

fn indent(spaces: i64, whole: &str) -> Result<String> {
    let spaces = usize::try_from(spaces).map_err(|_| "strings: negative Repeat count")?;
    let lines = whole.matches('\n').count() + 1;
    if spaces.checked_mul(lines).is_none_or(|added| added > OUTPUT_BYTES_MAX) {
        return Err(format!("more than {OUTPUT_BYTES_MAX} bytes"));
    }
    let pad = " ".repeat(spaces);
    Ok(format!("{pad}{}", whole.replace('\n', &format!("\n{pad}"))))
}

/// In small letters.
fn words(whole: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = ' ';
    for letter in whole.chars() {
        let starts = !before.is_alphanumeric() || (letter.is_uppercase() && !before.is_uppercase());
        if letter.is_alphanumeric() {
            if starts || words.is_empty() {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.extend(letter.to_lowercase());
            }
        }
        before = letter;
    }
    words
}

/// The items of a list as texts; nulls are left out.
fn strings(datum: &Datum) -> Vec<String> {
    match datum {
        Datum::List(items) => items.iter().filter(|item| !item.is_nil()).map(shown).collect(),
        other if is_empty(other) && other.is_nil() => Vec::new(),
        other => vec![shown(other)],
    }
}

fn regex(pattern: &Datum) -> Result<Regex> {
    Regex::new(text(pattern)).map_err(|_| format!("error parsing regexp: {}", format::quote(text(pattern))))
}

fn random(count: i64, letters: &[u8]) -> Result {
    let count = usize::try_from(count).unwrap_or(0);
    if count > OUTPUT_BYTES_MAX {
        return Err(format!("more than {OUTPUT_BYTES_MAX} bytes"));
    }
    Ok((0..count).map(|_| char::from(letters[rt::below(letters.len())])).collect::<String>().into())
}

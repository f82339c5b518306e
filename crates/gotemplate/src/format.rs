//! Go's `fmt`: how values are printed, and `printf`.

use crate::{DEPTH_MAX, Datum, OUTPUT_BYTES_MAX};

/// As `%v` prints it.
pub fn print(datum: &Datum) -> String {
    let mut out = String::new();
    write(datum, 0, &mut out);
    out
}

fn write(datum: &Datum, depth: usize, out: &mut String) {
    if depth > DEPTH_MAX || out.len() > OUTPUT_BYTES_MAX {
        out.push_str("...");
        return;
    }
    match datum {
        Datum::Missing | Datum::Nil => out.push_str("<nil>"),
        Datum::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Datum::Int(value) => out.push_str(&value.to_string()),
        Datum::Float(value) => out.push_str(&shortest(*value)),
        Datum::Text(text) | Datum::Number(text) => out.push_str(text),
        Datum::Time(time) => out.push_str(&time.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()),
        Datum::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { " " } else { "" });
                write(item, depth + 1, out);
            }
            out.push(']');
        }
        Datum::Map(map) => {
            out.push_str("map[");
            for (index, (key, value)) in map.borrow().iter().enumerate() {
                out.push_str(if index > 0 { " " } else { "" });
                out.push_str(key);
                out.push(':');
                write(value, depth + 1, out);
            }
            out.push(']');
        }
    }
}

/// `%v` of a floating point number: as short as it can be, with an exponent if that is large or small.
fn shortest(value: f64) -> String {
    if !value.is_finite() {
        return not_finite(value);
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..21).contains(&exponent) { format!("{value}") } else { with_exponent(mantissa, exponent) }
}

fn not_finite(value: f64) -> String {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    }
    .into()
}

/// Go writes at least two digits.
fn with_exponent(mantissa: &str, exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// A text as a literal of Go.
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            letter if u32::from(letter) < 0x20 || letter == '\u{7f}' => {
                out.push_str(&format!("\\x{:02x}", u32::from(letter)));
            }
            letter if letter.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

/// `Sprint`: a space between values of which none is a text.
pub fn sprint(arguments: &[Datum]) -> String {
    let mut out = String::new();
    for (index, argument) in arguments.iter().enumerate() {
        let is_text = |datum: &Datum| datum.as_text().is_some();
        if index > 0 && !is_text(argument) && !is_text(&arguments[index - 1]) {
            out.push(' ');
        }
        out.push_str(&print(argument));
    }
    out
}

/// `Sprintln`.
pub fn sprintln(arguments: &[Datum]) -> String {
    let printed: Vec<String> = arguments.iter().map(print).collect();
    format!("{}\n", printed.join(" "))
}

/// One `%` of a format.
#[derive(Default)]
struct Directive {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// The widest column and the most digits.
const WIDTH_MAX: usize = 1_000;

/// `Sprintf`.
pub fn sprintf(format: &str, arguments: &[Datum]) -> String {
    let mut out = String::new();
    let mut rest = format;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let (directive, verb, after) = directive(&rest[at + 1..], arguments, &mut next);
        rest = after;
        match verb {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match arguments.get(next) {
                None => out.push_str(&format!("%!{verb}(MISSING)")),
                Some(argument) => {
                    next += 1;
                    out.push_str(&directive.pad(directive.text(verb, argument), argument, verb));
                }
            },
        }
        if out.len() > OUTPUT_BYTES_MAX {
            return out;
        }
    }
    out.push_str(rest);
    if next < arguments.len() {
        let extra: Vec<String> = arguments[next..].iter().map(typed).collect();
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

/// Reads flags, width, precision and verb.
fn directive<'f>(text: &'f str, arguments: &[Datum], next: &mut usize) -> (Directive, Option<char>, &'f str) {
    let mut directive = Directive::default();
    let mut rest = text;
    while let Some(flag) = rest.chars().next().filter(|flag| "-+ 0#".contains(*flag)) {
        match flag {
            '-' => directive.minus = true,
            '+' => directive.plus = true,
            ' ' => directive.space = true,
            '0' => directive.zero = true,
            _ => directive.sharp = true,
        }
        rest = &rest[1..];
    }
    let mut size = |rest: &mut &'f str| {
        if let Some(after) = rest.strip_prefix('*') {
            *rest = after;
            let given = arguments.get(*next);
            *next += 1;
            return given.and_then(|given| match given {
                Datum::Int(value) => usize::try_from(*value).ok(),
                _ => None,
            });
        }
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(end);
        *rest = after;
        digits.parse().ok()
    };
    directive.width = size(&mut rest).map(|width| width.min(WIDTH_MAX));
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        directive.precision = Some(size(&mut rest).unwrap_or(0).min(WIDTH_MAX));
    }
    let verb = rest.chars().next();
    (directive, verb, &rest[verb.map_or(0, char::len_utf8)..])
}

impl Directive {
    fn text(&self, verb: char, argument: &Datum) -> String {
        match (verb, argument) {
            ('v', Datum::Float(_)) if self.precision.is_some() => self.float('g', argument),
            ('v', Datum::Int(value)) => self.signed(value.to_string()),
            ('v', Datum::Text(text)) if self.sharp => quote(text),
            ('v', other) => print(other),
            ('T', other) => if other.is_nil() { "<nil>" } else { other.type_name() }.to_owned(),
            (_, Datum::List(items)) => {
                let items: Vec<String> = items.iter().map(|item| self.text(verb, item)).collect();
                format!("[{}]", items.join(" "))
            }
            ('t', Datum::Bool(_)) => print(argument),
            ('s', Datum::Text(text) | Datum::Number(text)) => self.cut(text),
            ('q', Datum::Text(text) | Datum::Number(text)) => quote(&self.cut(text)),
            ('x' | 'X', Datum::Text(text) | Datum::Number(text)) => {
                let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
                if verb == 'X' { digits.to_uppercase() } else { digits }
            }
            (_, Datum::Int(value)) => self.integer(verb, *value).unwrap_or_else(|| mismatch(verb, argument)),
            ('e' | 'E' | 'f' | 'F' | 'g' | 'G', Datum::Float(_)) => self.float(verb, argument),
            _ => mismatch(verb, argument),
        }
    }

    fn cut(&self, text: &str) -> String {
        text.chars().take(self.precision.unwrap_or(usize::MAX)).collect()
    }

    fn signed(&self, digits: String) -> String {
        match (digits.starts_with('-'), self.plus, self.space) {
            (false, true, _) => format!("+{digits}"),
            (false, false, true) => format!(" {digits}"),
            _ => digits,
        }
    }

    fn integer(&self, verb: char, value: i64) -> Option<String> {
        let magnitude = value.unsigned_abs();
        let mut digits = match verb {
            'd' => magnitude.to_string(),
            'b' => format!("{magnitude:b}"),
            'o' => format!("{magnitude:o}"),
            'x' => format!("{magnitude:x}"),
            'X' => format!("{magnitude:X}"),
            'c' | 'q' | 'U' => {
                let letter = u32::try_from(value).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
                return Some(match verb {
                    'c' => letter.to_string(),
                    'q' => format!("'{letter}'"),
                    _ => format!("U+{:04X}", u32::from(letter)),
                });
            }
            _ => return None,
        };
        if let Some(precision) = self.precision {
            digits = format!("{digits:0>precision$}");
        }
        let prefix = match verb {
            'x' if self.sharp => "0x",
            'X' if self.sharp => "0X",
            'o' if self.sharp => "0",
            _ => "",
        };
        Some(self.signed(format!("{}{prefix}{digits}", if value < 0 { "-" } else { "" })))
    }

    fn float(&self, verb: char, argument: &Datum) -> String {
        let Datum::Float(value) = argument else { return mismatch(verb, argument) };
        if !value.is_finite() {
            return not_finite(*value);
        }
        let text = match (verb.to_ascii_lowercase(), self.precision) {
            ('f', precision) => format!("{value:.*}", precision.unwrap_or(6)),
            ('e', precision) => {
                let scientific = format!("{value:.*e}", precision.unwrap_or(6));
                let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
                with_exponent(mantissa, exponent.parse().unwrap_or_default())
            }
            (_, None) => shortest(*value),
            (_, Some(precision)) => significant(*value, precision.max(1)),
        };
        self.signed(if verb.is_ascii_uppercase() { text.to_uppercase() } else { text })
    }

    fn pad(&self, text: String, argument: &Datum, verb: char) -> String {
        let Some(width) = self.width else { return text };
        if self.minus {
            return format!("{text:<width$}");
        }
        let numeric = matches!(argument, Datum::Int(_) | Datum::Float(_)) && verb != 'c';
        if !self.zero || !numeric {
            return format!("{text:>width$}");
        }
        let (sign, digits) = match text.chars().next().filter(|sign| "+- ".contains(*sign)) {
            Some(_) => text.split_at(1),
            None => ("", text.as_str()),
        };
        format!("{sign}{digits:0>fill$}", fill = width.saturating_sub(sign.len()))
    }
}

/// `%.Ng`
fn significant(value: f64, precision: usize) -> String {
    let scientific = format!("{value:.*e}", precision - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let trim = |digits: &str| match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => digits.to_owned(),
    };
    if exponent < -4 || exponent >= precision as i32 {
        return with_exponent(&trim(mantissa), exponent);
    }
    trim(&format!("{value:.*}", (precision as i32 - 1 - exponent).max(0) as usize))
}

/// `%!d(string=hi)`
fn mismatch(verb: char, argument: &Datum) -> String {
    format!("%!{verb}({})", typed(argument))
}

fn typed(argument: &Datum) -> String {
    match argument.is_nil() {
        true => "<nil>".into(),
        false => format!("{}={}", argument.type_name(), print(argument)),
    }
}

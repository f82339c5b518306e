//! [`Quantity`]: exact amounts of resources, as written in `cpu: 500m` and `memory: 1Gi`.
//!
//! Owns: parsing, arithmetic and the canonical form of `resource.Quantity`. There is no floating point: a value is a
//! 128-bit integer times a power of ten. Anything finer than a nano is rounded away from zero when it is read.
//!
//! A quantity remembers the family of its suffix (decimal, binary or exponent) and prints in it:
//! `1000m` is `1`, `0.5Gi` is `512Mi`, `1.5` is `1500m`, `1500e-3` is `1500e-3`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::Str;

/// The smallest scale: 10⁻⁹.
const NANO: i32 = -9;
/// Exponents beyond this are refused, and so are amounts from this power of ten on; nothing countable needs them, and
/// every sum of two values stays defined.
const EXPONENT_MAX: i32 = 308;
/// Digits that fit an `i128` whatever they are.
const DIGITS_MAX: usize = 38;
/// The power of ten of the largest letter, `E`.
const LETTER_MAX: i32 = 18;
/// Digits of a number that upstream keeps in 64 bits, where it also keeps the text as it was written.
const SHORT_DIGITS: i32 = 18;

/// Text that is not a quantity, in upstream's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The family of suffixes a quantity is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `12M`
    #[default]
    DecimalSi,
    /// `12Mi`
    BinarySi,
    /// `12e6`
    DecimalExponent,
}

/// An exact amount: `value × 10^scale`.
///
/// Equality and order are by amount; the format only decides how it prints.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    value: i128,
    scale: i32,
    pub format: Format,
}

#[expect(
    clippy::should_implement_trait,
    reason = "operators would hide that sums saturate and keep a format"
)]
impl Quantity {
    pub const ZERO: Self = Self { value: 0, scale: 0, format: Format::DecimalSi };

    pub const fn new(value: i64, format: Format) -> Self {
        Self { value: value as i128, scale: 0, format }
    }

    /// Thousandths, in decimal format: CPU shares.
    pub const fn from_milli(value: i64) -> Self {
        Self { value: value as i128, scale: -3, format: Format::DecimalSi }
    }

    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        parse(text).map(|(quantity, _)| quantity)
    }

    /// The text upstream would store for `text`: `None` when it is kept as it is. Upstream keeps short well-formed
    /// numbers verbatim, even where the canonical form differs (`1.500`).
    pub fn canonicalize(text: &str) -> Result<Option<Str>, QuantityError> {
        let (quantity, kept) = parse(text)?;
        if kept {
            return Ok(None);
        }
        let canonical = compact_str::format_compact!("{quantity}");
        Ok((canonical != text).then_some(canonical))
    }

    pub fn is_zero(&self) -> bool {
        self.value == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.value.signum() as i32
    }

    /// Whole units, rounded away from zero; saturates at the ends of `i64`.
    pub fn value(&self) -> i64 {
        self.scaled(0)
    }

    /// Thousandths, rounded away from zero; saturates at the ends of `i64`.
    pub fn milli_value(&self) -> i64 {
        self.scaled(-3)
    }

    /// The nearest double, more or less.
    pub fn approximate_f64(&self) -> f64 {
        self.value as f64 * 10_f64.powi(self.scale)
    }

    /// How many 10^scale this is, rounded away from zero; saturates at the ends of `i64`.
    pub fn scaled(&self, scale: i32) -> i64 {
        let wide = rescale(self.value, self.scale, scale);
        i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
    }

    /// Rounds away from zero to a multiple of 10^scale.
    pub fn round_up(self, scale: i32) -> Self {
        if self.scale >= scale {
            self
        } else {
            Self { value: rescale(self.value, self.scale, scale), scale, ..self }
        }
    }

    /// The sum, in the format of `self` unless that is zero. Saturates.
    pub fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        let (a, b, scale) = aligned(self, other);
        Self { value: a.saturating_add(b), scale, format }
    }

    /// The difference, in the format of `self` unless that is zero. Saturates.
    pub fn sub(self, other: Self) -> Self {
        self.add(other.neg())
    }

    pub fn neg(self) -> Self {
        Self { value: self.value.saturating_neg(), ..self }
    }

    /// `self × factor`, saturating.
    pub fn mul(self, factor: i64) -> Self {
        Self { value: self.value.saturating_mul(factor.into()), ..self }
    }

    /// Whether the amount is a whole number.
    pub fn is_integer(&self) -> bool {
        self.scale >= 0 || self.value % pow10(-self.scale).unwrap_or(i128::MAX) == 0
    }

    /// The value without trailing zeros, and its power of ten.
    fn without_zeros(&self) -> (i128, i32) {
        let (mut value, mut scale) = (self.value, self.scale);
        while value % 10 == 0 && value != 0 {
            value /= 10;
            scale += 1;
        }
        (value, scale)
    }
}

fn pow10(exponent: i32) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(exponent).ok()?)
}

/// `value × 10^from` counted in `10^to`, rounded away from zero, saturating.
fn rescale(value: i128, from: i32, to: i32) -> i128 {
    if from >= to {
        let saturated = if value < 0 { i128::MIN } else { i128::MAX };
        match pow10(from - to) {
            Some(factor) => value.checked_mul(factor).unwrap_or(saturated),
            None => value.signum() * i128::MAX,
        }
    } else {
        match pow10(to - from) {
            Some(divisor) => value / divisor + (value % divisor).signum(),
            None => value.signum(),
        }
    }
}

/// Both values in the finer of the two scales; exact unless that overflows, then saturated.
fn aligned(a: Quantity, b: Quantity) -> (i128, i128, i32) {
    let scale = a.scale.min(b.scale);
    (rescale(a.value, a.scale, scale), rescale(b.value, b.scale, scale), scale)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.scale == other.scale {
            return self.value.cmp(&other.value);
        }
        let signs = self.sign().cmp(&other.sign());
        if signs.is_ne() || self.is_zero() {
            return signs;
        }
        let magnitudes = compare_magnitudes(
            (self.value.unsigned_abs(), self.scale),
            (other.value.unsigned_abs(), other.scale),
        );
        if self.sign() < 0 { magnitudes.reverse() } else { magnitudes }
    }
}

/// Orders two positive amounts, without overflow: the longer number of digits wins, and numbers of equal length are
/// compared in the finer scale, where they fit because both fit in one of them.
fn compare_magnitudes(a: (u128, i32), b: (u128, i32)) -> Ordering {
    let length = |(value, scale): (u128, i32)| value.ilog10() as i32 + scale;
    let lengths = length(a).cmp(&length(b));
    if lengths.is_ne() {
        return lengths;
    }
    let widen = |value: u128, by: i32| value.checked_mul(10_u128.pow(by.max(0) as u32));
    match (widen(a.0, a.1 - b.1), widen(b.0, b.1 - a.1)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (None, _) => Ordering::Greater,
        (_, None) => Ordering::Less,
    }
}

/// The parts of a quantity's text.
struct Parts<'a> {
    negative: bool,
    /// Digits before and after the point, leading zeros of the former left out.
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let unsigned = unsigned.trim_start_matches('0');
    let digits = |text: &str| text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (whole, rest) = unsigned.split_at(digits(unsigned));
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let tail = suffix.trim_start_matches(['e', 'E', 'i', 'n', 'u', 'm', 'k', 'K', 'M', 'G', 'T', 'P']);
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if !tail.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    Ok(Parts { negative, whole, fraction, suffix })
}

/// The base and exponent that a suffix stands for.
fn suffix(text: &str) -> Option<(Format, i32)> {
    use Format::{BinarySi, DecimalExponent, DecimalSi};
    Some(match text {
        "" => (DecimalSi, 0),
        "n" => (DecimalSi, -9),
        "u" => (DecimalSi, -6),
        "m" => (DecimalSi, -3),
        "k" => (DecimalSi, 3),
        "M" => (DecimalSi, 6),
        "G" => (DecimalSi, 9),
        "T" => (DecimalSi, 12),
        "P" => (DecimalSi, 15),
        "E" => (DecimalSi, 18),
        "Ki" => (BinarySi, 10),
        "Mi" => (BinarySi, 20),
        "Gi" => (BinarySi, 30),
        "Ti" => (BinarySi, 40),
        "Pi" => (BinarySi, 50),
        "Ei" => (BinarySi, 60),
        _ => {
            let exponent: i32 = text.strip_prefix(['e', 'E'])?.parse().ok()?;
            (DecimalExponent, exponent)
        }
    })
    .filter(|(_, exponent)| (-EXPONENT_MAX..=EXPONENT_MAX).contains(exponent))
}

/// The quantity, and whether upstream would keep the text as it stands.
fn parse(text: &str) -> Result<(Quantity, bool), QuantityError> {
    if text == "0" {
        return Ok((Quantity::ZERO, true));
    }
    let parts = split(text)?;
    let (format, exponent) = suffix(parts.suffix).ok_or(QuantityError::Suffix)?;
    let (digits, zeros) = digits(&parts)?;
    let scale = zeros - parts.fraction.len() as i32;
    let (magnitude, scale) = match format {
        Format::BinarySi => (binary(digits, exponent, &parts)?, scale),
        _ => (digits, scale + exponent),
    };
    // What is shown of more could not be read again.
    if magnitude > 0 && magnitude.ilog10() as i32 + scale >= EXPONENT_MAX {
        return Err(QuantityError::Suffix);
    }
    let kept = is_kept(&parts, format, exponent, magnitude);
    let mut quantity = Quantity { value: if parts.negative { -magnitude } else { magnitude }, scale, format };
    if quantity.scale < NANO {
        quantity = quantity.round_up(NANO);
    }
    if format == Format::BinarySi {
        quantity = limit_binary(quantity);
    }
    Ok((quantity, kept))
}

/// The number that as many digits make as fit, and how many zeros follow them. Nothing else may.
fn digits(parts: &Parts<'_>) -> Result<(i128, i32), QuantityError> {
    let (mut value, mut zeros) = (0, 0);
    let all = parts.whole.bytes().chain(parts.fraction.bytes());
    for (index, byte) in all.skip_while(|&byte| byte == b'0').enumerate() {
        match byte {
            _ if index < DIGITS_MAX => value = value * 10 + i128::from(byte - b'0'),
            b'0' => zeros += 1,
            _ => return Err(QuantityError::Numeric),
        }
    }
    Ok((value, zeros))
}

/// `digits × 2^exponent`. What is too large is beyond the end of binary amounts, too, unless a fraction makes it small.
fn binary(digits: i128, exponent: i32, parts: &Parts<'_>) -> Result<i128, QuantityError> {
    match digits.checked_mul(1 << exponent) {
        Some(magnitude) => Ok(magnitude),
        None if parts.fraction.is_empty() => Ok(i128::MAX),
        None => Err(QuantityError::Numeric),
    }
}

/// Binary amounts end at 2⁶³-1, and those below one are kept in decimals.
fn limit_binary(quantity: Quantity) -> Quantity {
    let most = Quantity::new(i64::MAX, Format::BinarySi);
    let magnitude = if quantity.sign() < 0 { quantity.neg() } else { quantity };
    if magnitude > most {
        return if quantity.sign() < 0 { most.neg() } else { most };
    }
    if !magnitude.is_zero() && magnitude < Quantity::new(1, Format::BinarySi) {
        return Quantity { format: Format::DecimalSi, ..quantity };
    }
    quantity
}

/// Whether upstream's quick path reads this text and decides that it is canonical enough.
fn is_kept(parts: &Parts<'_>, format: Format, exponent: i32, magnitude: i128) -> bool {
    let length = (parts.whole.len() + parts.fraction.len()) as i32;
    let fits = i64::try_from(magnitude).is_ok();
    match format {
        Format::BinarySi => {
            let precision = 15 - parts.whole.len() as i32 - exponent * 3 / 10 - 1;
            parts.fraction.is_empty() && precision >= 0 && fits && (magnitude >> exponent) & 7 != 0
        }
        _ => {
            let scale = exponent - parts.fraction.len() as i32;
            let mut last = parts.whole.bytes().chain(parts.fraction.bytes()).rev();
            let round = last.by_ref().take(3).filter(|&byte| byte == b'0').count() == 3;
            length <= SHORT_DIGITS
                && scale >= NANO
                && scale % 3 == 0
                && fits
                && !round
                && !parts.whole.starts_with('0')
        }
    }
}

/// From its text; a whole number will do.
impl<'de> serde::Deserialize<'de> for Quantity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;

        impl serde::de::Visitor<'_> for Amount {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Quantity, E> {
                Quantity::parse(text).map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Quantity, E> {
                Ok(Quantity::new(number, Format::DecimalSi))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Quantity, E> {
                i64::try_from(number).map_err(E::custom).and_then(|number| self.visit_i64(number))
            }
        }

        deserializer.deserialize_any(Amount)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

/// The canonical form: zeros are spelled out down to a unit that is a multiple of three, and down to the largest letter.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi && self.is_integer() {
            let whole = rescale(self.value, self.scale, 0);
            if !(-1023..=1023).contains(&whole) {
                return write_binary(whole, f);
            }
        }
        let has_letters = self.format != Format::DecimalExponent;
        let (value, scale) = self.without_zeros();
        let unit = scale.div_euclid(3) * 3;
        let unit = if has_letters { unit.min(LETTER_MAX) } else { unit };
        let zeros = (scale - unit) as usize;
        write!(f, "{value}{:0>zeros$}", "")?;
        let letter = match unit {
            0 => return Ok(()),
            _ if !has_letters => return write!(f, "e{unit}"),
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            LETTER_MAX => "E",
            _ => return write!(f, "e{unit}"),
        };
        f.write_str(letter)
    }
}

fn write_binary(mut value: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const LETTERS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut power = 0;
    while value % 1024 == 0 && power + 1 < LETTERS.len() {
        value /= 1024;
        power += 1;
    }
    write!(f, "{value}{}", LETTERS[power])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_canonical_form_keeps_the_family_of_the_suffix() {
        for (text, printed) in [
            ("0", "0"),
            ("0m", "0"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.5Gi", "512Mi"),
            ("1Gi", "1Gi"),
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("1.5Gi", "1536Mi"),
            ("100Ki", "100Ki"),
            ("1023Ki", "1023Ki"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("12E", "12E"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1.5e3", "1500"),
            ("1e-3", "1e-3"),
            ("12e6", "12e6"),
            ("10e1", "100"),
            ("1000000", "1M"),
            ("1500000", "1500k"),
            ("1000k", "1M"),
            ("-1.5", "-1500m"),
            ("+7", "7"),
            ("0.000000001", "1n"),
            ("0.0000000001", "1n"),
            ("-0.0000000001", "-1n"),
            ("1.0000000001", "1000000001n"),
            ("123456789123456789Ei", "9223372036854775807"),
            ("0.1Mi", "104857600m"),
            ("9223372036854775807", "9223372036854775807"),
            ("100000E", "100000E"),
        ] {
            assert_eq!(quantity(text).to_string(), printed, "{text}");
        }
    }

    #[test]
    fn stored_text_is_kept_when_upstream_keeps_it() {
        for (text, stored) in [
            ("100m", None),
            ("1", None),
            ("1.500", None),
            ("+5", None),
            ("1Gi", None),
            ("1e3", None),
            ("1000m", Some("1")),
            ("1.5", Some("1500m")),
            ("1024Mi", Some("1Gi")),
            ("0.5Gi", Some("512Mi")),
            ("1000", Some("1k")),
            ("8Gi", None),
            ("0.10", Some("100m")),
            ("00", Some("0")),
        ] {
            assert_eq!(Quantity::canonicalize(text).unwrap().as_deref(), stored, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_in_upstreams_words() {
        for text in ["", "one", "1 ", "1x", "1Gi2x", "1.2.3", "1e3.5", "1KI", "½"] {
            assert_eq!(Quantity::parse(text), Err(QuantityError::Format), "{text}");
        }
        for text in
            ["--1", "1ii", "1mm", "1e", "1K", "1e+", "1e999999999999", "1e-2147483648", "10e307", "10e308"]
        {
            assert_eq!(Quantity::parse(text), Err(QuantityError::Suffix), "{text}");
        }
        for text in ["9".repeat(39), format!("1.{}Ki", "1".repeat(37))] {
            assert_eq!(Quantity::parse(&text), Err(QuantityError::Numeric), "{text}");
        }
    }

    #[test]
    fn what_is_shown_of_the_largest_can_be_read() {
        let zeros = "0".repeat(100);
        for (text, shown) in [
            (
                "1000000000000000000000000000000000000.8E0000000000",
                "1000000000000000000000000000000000000800e-3",
            ),
            ("99999999999999999999999999999999999999e269", "9999999999999999999999999999999999999900e267"),
            ("10e306", "10e306"),
            ("-9e300", "-9e300"),
            (format!("1{zeros}").as_str(), format!("1{}E", &zeros[18..]).as_str()),
            (format!("-1{zeros}.0e1").as_str(), "-100e99"),
            (format!("1{zeros}Ki").as_str(), "9223372036854775807"),
        ] {
            assert_eq!(quantity(text).to_string(), shown, "{text}");
            assert_eq!(quantity(shown), quantity(text), "{text}");
            assert_eq!(quantity(shown).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn values_round_away_from_zero() {
        for (text, value, milli) in [
            ("1", 1, 1000),
            ("1m", 1, 1),
            ("1u", 1, 1),
            ("-1m", -1, -1),
            ("1500m", 2, 1500),
            ("1Ki", 1024, 1_024_000),
            ("1e300", i64::MAX, i64::MAX),
        ] {
            assert_eq!((quantity(text).value(), quantity(text).milli_value()), (value, milli), "{text}");
        }
        assert_eq!(quantity("1u").round_up(-3).to_string(), "1m");
    }

    #[test]
    fn sums_keep_the_first_format() {
        assert_eq!(quantity("1Gi").add(quantity("1k")).to_string(), "1073742824");
        assert_eq!(quantity("0").add(quantity("1Gi")).to_string(), "1Gi");
        assert_eq!(quantity("1").sub(quantity("100m")).to_string(), "900m");
        assert_eq!(quantity("2Gi").sub(quantity("1Gi")).to_string(), "1Gi");
        assert_eq!(quantity("250m").mul(4).to_string(), "1");
    }

    fn texts() -> impl Strategy<Value = String> {
        (
            "[+-]?[0-9]{0,12}(\\.[0-9]{0,9})?",
            prop::sample::select(vec!["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "e3", "e-2"]),
        )
            .prop_map(|(number, suffix)| format!("{number}{suffix}"))
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_printing_loses_nothing(text in ".{0,12}", number in texts()) {
            let _ = Quantity::parse(&text);
            if let Ok(quantity) = Quantity::parse(&number) {
                prop_assert_eq!(Quantity::parse(&quantity.to_string()), Ok(quantity));
            }
        }

        #[test]
        fn order_and_sums_agree_with_rational_arithmetic(
            a in -1_000_000_i64..1_000_000, b in -1_000_000_i64..1_000_000, i in -9_i32..12, j in -9_i32..12,
        ) {
            let exact = |value: i64, scale: i32| i128::from(value) * 10_i128.pow((scale + 9) as u32);
            let make = |value: i64, scale: i32| Quantity { value: value.into(), scale, format: Format::DecimalSi };
            let (x, y) = (make(a, i), make(b, j));
            prop_assert_eq!(x.cmp(&y), exact(a, i).cmp(&exact(b, j)));
            prop_assert_eq!(rescale(x.add(y).value, x.add(y).scale, -9), exact(a, i) + exact(b, j));
        }
    }
}

//! Numbers as Go converts and prints them.

/// A double as an integer, towards zero; `None` outside the range.
pub(crate) fn double_to_int(value: f64) -> Option<i64> {
    (value.is_finite() && value > -9_223_372_036_854_775_808.0 && value < 9_223_372_036_854_775_808.0)
        .then_some(value as i64)
}

pub(crate) fn double_to_uint(value: f64) -> Option<u64> {
    (0.0..18_446_744_073_709_551_616.0).contains(&value).then_some(value as u64)
}

/// The shortest text that reads as the same number (`%g`): with an exponent when it is below -4, or above the number
/// of digits and 20.
pub(crate) fn format_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("written with an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    if !(-4..21).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_print_as_in_go() {
        for (value, wanted) in [
            (1.5, "1.5"),
            (-12300.0, "-12300"),
            (1e21, "1e+21"),
            (1e-7, "1e-07"),
            (0.0001, "0.0001"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(format_double(value), wanted);
        }
    }

    #[test]
    fn what_no_integer_holds_is_not_converted() {
        assert_eq!(double_to_int(1.9), Some(1));
        assert_eq!(double_to_int(-1.9), Some(-1));
        assert_eq!(double_to_int(9.3e18), None);
        assert_eq!(double_to_int(f64::NAN), None);
        assert_eq!(double_to_uint(-0.1), None);
        assert_eq!(double_to_uint(1.8e19), Some(18_000_000_000_000_000_000));
    }
}

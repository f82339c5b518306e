//! Numbers as Go converts them.

/// A double as an integer, towards zero; `None` outside the range.
pub(crate) fn double_to_int(value: f64) -> Option<i64> {
    (value.is_finite() && value > -9_223_372_036_854_775_808.0 && value < 9_223_372_036_854_775_808.0)
        .then_some(value as i64)
}

pub(crate) fn double_to_uint(value: f64) -> Option<u64> {
    (0.0..18_446_744_073_709_551_616.0).contains(&value).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

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

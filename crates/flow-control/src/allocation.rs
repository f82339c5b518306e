//! How the server's seats are divided between priority levels by what each could use.

/// What a level may and would like to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub lowest: f64,
    pub highest: f64,
    /// What it would use; not below `lowest`.
    pub target: f64,
}

/// A level without demand still counts a little, so that a share of nothing is defined.
const TARGET_MIN: f64 = 0.001;
/// Halvings of the search; the width of a double's fraction.
const STEPS: usize = 60;

/// Divides `sum` so that each gets the same proportion of its target, within its bounds. With bounds that leave no
/// such division everyone gets the nearer bound.
///
/// The sum of bounded shares grows with the proportion, so halving finds the one that fits.
pub(crate) fn divide(sum: f64, claims: &[Claim]) -> Vec<f64> {
    let share = |claim: &Claim, proportion: f64| {
        (claim.target.max(TARGET_MIN) * proportion).clamp(claim.lowest, claim.highest.max(claim.lowest))
    };
    let all = |proportion: f64| claims.iter().map(|claim| share(claim, proportion)).sum::<f64>();
    let saturated =
        claims.iter().map(|claim| claim.highest / claim.target.max(TARGET_MIN)).fold(0.0, f64::max);
    let (mut low, mut high) = (0.0, saturated);
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        if all(middle) < sum {
            low = middle;
        } else {
            high = middle;
        }
    }
    claims.iter().map(|claim| share(claim, high)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sum: f64, claims: &[(f64, f64, f64)], wanted: &[f64]) {
        let claims: Vec<Claim> =
            claims.iter().map(|&(lowest, highest, target)| Claim { lowest, highest, target }).collect();
        let shares = divide(sum, &claims);
        for (share, wanted) in shares.iter().zip(wanted) {
            assert!((share - wanted).abs() < 1e-3, "{shares:?} instead of {wanted:?}");
        }
    }

    #[test]
    fn everyone_gets_the_same_proportion_within_bounds() {
        // No bound matters: in proportion to the targets.
        check(100.0, &[(0.0, 100.0, 10.0), (0.0, 100.0, 30.0)], &[25.0, 75.0]);
        // The first may not go below its bound, the others share the rest.
        check(100.0, &[(50.0, 100.0, 50.0), (0.0, 100.0, 150.0), (0.0, 100.0, 50.0)], &[50.0, 37.5, 12.5]);
        // The second may not borrow more.
        check(100.0, &[(0.0, 100.0, 10.0), (0.0, 20.0, 90.0)], &[80.0, 20.0]);
        // Nobody asks: evenly.
        check(30.0, &[(0.0, 100.0, 0.0), (0.0, 100.0, 0.0)], &[15.0, 15.0]);
    }

    #[test]
    fn bounds_win_where_they_leave_no_division() {
        check(10.0, &[(10.0, 20.0, 10.0), (5.0, 20.0, 5.0)], &[10.0, 5.0]);
        check(100.0, &[(0.0, 20.0, 10.0), (0.0, 30.0, 5.0)], &[20.0, 30.0]);
    }
}

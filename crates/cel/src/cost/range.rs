//! Ranges of sizes and costs, which saturate instead of overflowing.

use std::ops::{Add, Mul};

/// The least and the most that evaluating an expression can cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostEstimate {
    pub min: u64,
    pub max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub min: u64,
    pub max: u64,
}

impl Range {
    pub const ZERO: Self = Self::fixed(0);
    pub const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    pub const fn fixed(value: u64) -> Self {
        Self { min: value, max: value }
    }

    /// Both ends by a factor, rounded up.
    pub fn times(self, factor: f64) -> Self {
        // A conversion of a double saturates.
        let scale = |value: u64| (value as f64 * factor).ceil() as u64;
        Self { min: scale(self.min), max: scale(self.max) }
    }

    pub fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

impl Add for Range {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }
}

impl Mul for Range {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }
}

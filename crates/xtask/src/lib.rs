//! Repository chores: tidy, bench, generated data.

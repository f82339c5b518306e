//! The `batch` group.

pub mod cron_job;
pub mod job;
pub mod schedule;

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[("CronJob", &cron_job::CronJob), ("Job", &job::Job)];

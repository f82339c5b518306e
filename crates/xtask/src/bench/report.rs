//! What was measured, as a Markdown table or JSON, with the shape of the machine.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::Context;
use camino::Utf8Path;
use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Measurement {
    /// What was measured: `durable pod creates, 64 connections`.
    pub(super) what: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// What else belongs to it: latencies, CPU, sizes.
    pub(super) note: String,
    /// The first target of the design, where there is one.
    pub(super) target: Option<Target>,
}

/// What a figure should reach.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Measurement {
    pub(super) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, note: String::new(), target: None }
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    pub(super) fn at_least(mut self, target: f64) -> Self {
        self.target = Some(Target::AtLeast(target));
        self
    }

    pub(super) fn at_most(mut self, target: f64) -> Self {
        self.target = Some(Target::AtMost(target));
        self
    }

    fn met(&self) -> Option<bool> {
        Some(match self.target? {
            Target::AtLeast(target) => self.value >= target,
            Target::AtMost(target) => self.value <= target,
        })
    }

    fn target_text(&self) -> String {
        let met = if self.met() == Some(true) { "met" } else { "missed" };
        match self.target {
            Some(Target::AtLeast(target)) => format!("≥ {} ({met})", number(target)),
            Some(Target::AtMost(target)) => format!("≤ {} ({met})", number(target)),
            None => String::new(),
        }
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.what, number(self.value), self.unit)?;
        if !self.note.is_empty() {
            write!(f, " ({})", self.note)?;
        }
        Ok(())
    }
}

/// All figures of one run.
#[derive(Serialize)]
pub(super) struct Report {
    machine: Machine,
    binary: Binary,
    smoke: bool,
    measurements: Vec<Measurement>,
}

#[derive(Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    memory_gib: f64,
    kernel: String,
}

#[derive(Serialize)]
struct Binary {
    version: String,
    bytes: u64,
}

impl Report {
    pub(super) fn new(binary: &Utf8Path, smoke: bool) -> anyhow::Result<Self> {
        let bytes = fs::metadata(binary).with_context(|| format!("reading {binary}"))?.len();
        let version = said_by(binary.as_str(), &["version"]);
        let mut report = Self {
            machine: Machine::read(),
            binary: Binary { version, bytes },
            smoke,
            measurements: Vec::new(),
        };
        report.add(Measurement::new("binary size", bytes as f64 / MIB, "MiB"));
        Ok(report)
    }

    pub(super) fn add(&mut self, mut measurement: Measurement) {
        if self.smoke {
            measurement.target = None;
        }
        self.measurements.push(measurement);
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report is plain data")
    }

    pub(super) fn markdown(&self) -> String {
        let Machine { cpu, cores, memory_gib, kernel } = &self.machine;
        let mut text = format!(
            "{} on {cores} cores ({cpu}), {memory_gib:.0} GiB, Linux {kernel}; client and server share them.\n",
            self.binary.version
        );
        if self.smoke {
            text.push_str("Smoke run: small numbers, the figures mean nothing.\n");
        }
        text.push_str("\n| what | reached | target | note |\n|---|---|---|---|\n");
        for measurement in &self.measurements {
            let Measurement { what, value, unit, note, .. } = measurement;
            let row =
                format!("| {what} | {} {unit} | {} | {note} |\n", number(*value), measurement.target_text());
            text.push_str(&row);
        }
        text
    }
}

pub(super) const KIB: f64 = 1024.0;
pub(super) const MIB: f64 = 1024.0 * 1024.0;

/// Three significant digits, thousands apart.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), ""), |(whole, part)| (whole, part));
    let mut grouped = String::new();
    for (at, letter) in whole.chars().enumerate() {
        let rest = whole.len() - at;
        if at > 0 && rest.is_multiple_of(3) && grouped != "-" {
            grouped.push(',');
        }
        grouped.push(letter);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

impl Machine {
    fn read() -> Self {
        let field_of = |file: &str, field: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = field_of("/proc/meminfo", "MemTotal");
        let kib: f64 = memory.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or_default();
        Self {
            cpu: field_of("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib / (1024.0 * 1024.0),
            kernel: said_by("uname", &["-r"]),
        }
    }
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_thousands_apart() {
        for (value, text) in
            [(0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (1_234_567.0, "1,234,567")]
        {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_target_says_whether_it_was_met() {
        let rate = Measurement::new("creates", 5_000.0, "/s");
        assert_eq!(rate.clone().at_least(5_000.0).target_text(), "≥ 5,000 (met)");
        assert_eq!(rate.clone().at_least(5_001.0).target_text(), "≥ 5,001 (missed)");
        assert_eq!(rate.clone().at_most(60.0).target_text(), "≤ 60.0 (missed)");
        assert_eq!(rate.target_text(), "");
    }
}

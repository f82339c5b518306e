//! Metrics as text, with labels and times that nobody keeps.

use std::fmt::Write;

use jiff::Timestamp;

/// Prometheus' text format, version 0.0.4.
#[derive(Default)]
pub(super) struct Text(String);

/// Labels in the order they are written.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Text {
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    pub(super) fn sample(&mut self, name: &str, labels: Labels<'_>, value: f64, at: Option<Timestamp>) {
        self.0.push_str(name);
        if !labels.is_empty() {
            self.0.push('{');
            for (index, (label, text)) in labels.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                let _ = write!(self.0, "{comma}{label}=\"");
                for letter in text.chars() {
                    match letter {
                        '\\' => self.0.push_str("\\\\"),
                        '"' => self.0.push_str("\\\""),
                        '\n' => self.0.push_str("\\n"),
                        other => self.0.push(other),
                    }
                }
                self.0.push('"');
            }
            self.0.push('}');
        }
        let _ = write!(self.0, " {value}");
        if let Some(at) = at {
            let _ = write!(self.0, " {}", at.as_millisecond());
        }
        self.0.push('\n');
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let mut text = Text::default();
        text.family("a", "gauge", "Help.");
        text.sample(
            "a",
            &[("x", "1\"2\\3\n"), ("y", "")],
            1.5,
            Some(Timestamp::from_millisecond(7).unwrap()),
        );
        text.sample("a", &[], 2.0, None);
        assert_eq!(
            text.finish(),
            "# HELP a Help.\n# TYPE a gauge\na{x=\"1\\\"2\\\\3\\n\",y=\"\"} 1.5 7\na 2\n"
        );
    }
}

//! [`chain`]: an error and what caused it, on one line.

use std::error::Error;
use std::fmt;

/// Shows an error followed by its causes, outermost first: `opening the store: reading manifest: permission denied`.
///
/// Our own errors leave their cause out of their text, so that it appears once. Many foreign ones repeat it; a cause
/// whose text already ends the line is left out.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl fmt::Display + 'a {
    Chain(error)
}

struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = one_line(&self.0.to_string());
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = one_line(&error.to_string());
            if !line.ends_with(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        f.write_str(&line)
    }
}

fn one_line(text: &str) -> String {
    text.split('\n').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layers(texts: &[&'static str]) -> Layer {
        let (first, rest) = texts.split_first().expect("at least one layer");
        let source = (!rest.is_empty()).then(|| Box::new(layers(rest)));
        Layer { text: first, source }
    }

    #[test]
    fn causes_follow_in_order_each_once_on_one_line() {
        for (texts, line) in [
            (&["opening the store"][..], "opening the store"),
            (
                &["opening the store", "reading manifest", "no such file"],
                "opening the store: reading manifest: no such file",
            ),
            (&["connect: refused", "refused"], "connect: refused"),
            (&["two\n  lines", "below"], "two; lines: below"),
        ] {
            assert_eq!(chain(&layers(texts)).to_string(), line);
        }
    }
}

//! The table of what is coming up: live on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

/// How far one object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Progressing {
        ready: i64,
        wanted: i64,
        /// What holds it up, if that is known.
        note: String,
    },
    Ready,
    /// Deleted by someone while it was waited for.
    Gone,
    Failed(String),
}

/// One row an object.
pub struct Progress {
    rows: Vec<Row>,
    started: rt::Instant,
}

struct Row {
    label: String,
    shown: Mutex<Option<State>>,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub fn new(labels: impl Iterator<Item = String>) -> Self {
        let labels: Vec<String> = labels.collect();
        let on_terminal = std::io::stdout().is_terminal();
        let live = on_terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stdout()));
        let width = labels.iter().map(String::len).max().unwrap_or(0);
        let style = ProgressStyle::with_template("  {spinner} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let rows = labels
            .into_iter()
            .map(|label| {
                let bar = live.as_ref().map(|table| {
                    let bar = table.add(ProgressBar::new_spinner().with_style(style.clone()));
                    bar.set_message(format!("{label:width$}"));
                    bar.enable_steady_tick(Duration::from_millis(100));
                    bar
                });
                let label = if bar.is_some() { format!("{label:width$}") } else { label };
                Row { label, shown: Mutex::new(None), bar }
            })
            .collect();
        Self { rows, started: rt::instant() }
    }

    pub fn set(&self, row: usize, state: State) {
        let Some(row) = self.rows.get(row) else { return };
        let mut shown = row.shown.lock();
        if shown.as_ref() == Some(&state) {
            return;
        }
        let text = describe(&state);
        match &row.bar {
            Some(bar) if matches!(state, State::Progressing { .. }) => {
                bar.set_message(format!("{}  {text}", row.label))
            }
            Some(bar) => bar.finish_with_message(format!("{}  {text}", row.label)),
            None => println!("{}: {text}", row.label),
        }
        *shown = Some(state);
    }

    /// Everything is ready.
    pub fn finish(&self) {
        if self.rows.iter().any(|row| row.bar.is_some()) {
            // The table leaves the cursor at the end of its last row.
            println!();
        }
        let objects = self.rows.len();
        println!("All {objects} objects are ready after {:.2} s", self.started.elapsed().as_secs_f64());
    }
}

fn describe(state: &State) -> String {
    match state {
        State::Progressing { ready, wanted, note } if note.is_empty() => format!("{ready}/{wanted} ready"),
        State::Progressing { ready, wanted, note } => format!("{ready}/{wanted} ready: {note}"),
        State::Ready => "ready".to_owned(),
        State::Gone => "deleted".to_owned(),
        State::Failed(why) => format!("failed: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_read_as_sentences() {
        let progressing = |note: &str| State::Progressing { ready: 1, wanted: 3, note: note.into() };
        assert_eq!(describe(&progressing("")), "1/3 ready");
        assert_eq!(describe(&progressing("0/1 nodes are available")), "1/3 ready: 0/1 nodes are available");
        assert_eq!(describe(&State::Failed("no".into())), "failed: no");
    }
}

//! How a pull goes on: bars on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;

use ::image::{Digest, Progress, Step};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

const ID_DIGITS: usize = 12;

/// One bar for each blob that is fetched.
pub struct Bars {
    image: String,
    /// `None` where nobody sees bars.
    live: Option<MultiProgress>,
    bars: Mutex<HashMap<Digest, ProgressBar>>,
}

impl Bars {
    pub fn new(image: &str) -> Self {
        // What is printed at the end may go into a pipe; this is for whoever watches.
        let live = std::io::stderr()
            .is_terminal()
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        Self { image: image.to_owned(), live, bars: Mutex::default() }
    }

    /// Takes the bars away.
    pub fn finish(&self) {
        if let Some(live) = &self.live {
            // A terminal that is gone needs no cleaning.
            let _ = live.clear();
        }
    }
}

impl Progress for Bars {
    fn step(&self, step: Step<'_>) {
        let Some(live) = &self.live else {
            if let Step::Wanted { digest, bytes } = step {
                eprintln!("{}: fetching {} ({bytes} bytes)", self.image, short(digest));
            }
            return;
        };
        let mut bars = self.bars.lock();
        match step {
            Step::Wanted { digest, bytes } => {
                let template = "  {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";
                let style =
                    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
                let bar = live.add(ProgressBar::new(bytes).with_style(style));
                bar.set_message(short(digest).to_owned());
                bars.insert(digest.clone(), bar);
            }
            Step::Fetched { digest, bytes } => {
                if let Some(bar) = bars.get(digest) {
                    bar.set_position(bytes);
                }
            }
            Step::Complete { digest } => {
                if let Some(bar) = bars.get(digest) {
                    bar.finish();
                }
            }
            Step::Unpacking { digest } => {
                if let Some(bar) = bars.get(digest) {
                    bar.set_message(format!("{} unpacking", short(digest)));
                }
            }
        }
    }
}

fn short(digest: &Digest) -> &str {
    digest.hex().get(..ID_DIGITS).unwrap_or(digest.hex())
}

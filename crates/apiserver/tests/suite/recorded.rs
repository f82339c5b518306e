//! Requests to a real API server and its answers.

use std::path::PathBuf;

use serde_json::Value;

/// One recorded exchange.
pub struct Exchange {
    /// Names of cases repeat; from the second on they carry `#2`, `#3`, ….
    pub case: String,
    pub request: Value,
    pub response: Value,
    /// What was done to the stored object before it was sent back.
    pub change: Vec<Value>,
    /// What was done while a watch was open.
    pub while_open: Vec<Value>,
}

/// The folder of transcripts; `None`, with a word about it, without one.
pub fn folder() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/testdata");
    let path =
        std::env::var_os("PINTLE_TESTDATA").map_or_else(beside, PathBuf::from).join("upstream-transcripts");
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: PINTLE_TESTDATA is unset");
    None
}

/// The exchanges of a file in order.
pub fn exchanges(folder: &std::path::Path, file: &str) -> Vec<Exchange> {
    let path = folder.join(format!("{file}.jsonl"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut seen = std::collections::HashMap::<String, usize>::new();
    text.lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).expect("a transcript is JSON");
            let name = line["case"].as_str().unwrap_or_default().to_owned();
            let times = seen.entry(name.clone()).or_default();
            *times += 1;
            let case = if *times == 1 { name } else { format!("{name} #{times}") };
            let mut list = |key: &str| line[key].as_array_mut().map(std::mem::take).unwrap_or_default();
            let (change, while_open) = (list("change"), list("while_open"));
            Exchange {
                case,
                request: line["request"].take(),
                response: line["response"].take(),
                change,
                while_open,
            }
        })
        .collect()
}

//! Requests and answers recorded from a real API server.

use std::path::PathBuf;

use serde_json::Value;

/// One recorded exchange.
pub struct Exchange {
    pub case: String,
    pub path: String,
    pub accept: String,
    pub status: u64,
    pub body: Value,
}

/// The exchanges of a file of upstream transcripts; `None`, with a word about it, when there are none here.
pub fn exchanges(file: &str) -> Option<Vec<Exchange>> {
    let path = folder("PINTLE_TESTDATA", "testdata")?.join("upstream-transcripts").join(file);
    let text =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
    Some(text.lines().map(exchange).collect())
}

/// The folder that a variable names, or that lies beside the repository; `None`, with a word about it, without one.
pub fn folder(variable: &str, name: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(name);
    let path = std::env::var_os(variable).map_or_else(beside, PathBuf::from);
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: {variable} is unset");
    None
}

fn exchange(line: &str) -> Exchange {
    let line: Value = serde_json::from_str(line).expect("a transcript is JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let body = match &line["response"]["body"] {
        Value::String(body) => serde_json::from_str(body).unwrap_or(Value::Null),
        body => body.clone(),
    };
    Exchange {
        case: text(&line["case"]),
        path: text(&line["request"]["path"]),
        accept: text(&line["request"]["headers"]["Accept"]),
        status: line["response"]["status"].as_u64().unwrap_or_default(),
        body,
    }
}

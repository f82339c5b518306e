//! Printer columns: a path in the first line, and the object that it is looked up in.
#![no_main]

use api::strategy::Printer;
use apiextensions::columns::PrinterColumns;
use apimachinery::{Value, json};
use jiff::Timestamp;
use pintle_fuzz::halves;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((path, object)) = halves(input) else { return };
    let (Ok(path), Ok(object)) = (std::str::from_utf8(path), Value::parse(object)) else { return };
    let kinds = ["string", "integer", "number", "boolean", "date", "other"];
    let columns: Vec<Value> =
        kinds.map(|kind| json!({"name": "A", "type": kind, "jsonPath": path})).into_iter().collect();
    let columns = PrinterColumns::new(&json!({ "additionalPrinterColumns": columns }));
    let cells = columns.cells(&object, Timestamp::UNIX_EPOCH);
    assert_eq!(cells.len(), columns.definitions().len());
});

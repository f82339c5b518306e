//! Quantities, times, durations and the schedules of CronJobs.
#![no_main]

use api::kinds::batch::schedule::Schedule;
use apimachinery::{Quantity, duration, time};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(quantity) = Quantity::parse(text) {
        let again = Quantity::parse(&quantity.to_string()).expect("what was shown");
        assert_eq!(again, quantity, "{text}");
    }
    if let Some(read) = time::parse(text) {
        let _ = (time::format_seconds(read), time::format_micros(read));
    }
    let _ = duration::parse(text);
    let _ = Schedule::parse(text);
});

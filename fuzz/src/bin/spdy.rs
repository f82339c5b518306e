//! Frames of SPDY, and lines of containers' logs.
#![no_main]

use streaming::spdy::frame::FrameReader;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut frames = FrameReader::new(input);
        while let Ok(Some(_)) = frames.next().await {}
    });
    for line in input.split(|byte| *byte == b'\n') {
        let _ = node::agent::server::logs::line::Line::parse(line);
    }
});

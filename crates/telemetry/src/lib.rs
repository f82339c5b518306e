//! Tracing set-up, metric names and error-chain printing.

//! A runtime in memory, for tests of what asks one.

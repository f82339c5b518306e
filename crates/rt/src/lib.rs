//! The one door to time, randomness, task spawning and shutdown.

//! Others who are asked: webhooks that say whose a token is ([`tokens`]) and who may do what ([`access`]).
//!
//! What they answered holds for a while, so that a flood of requests does not become a flood of questions.

pub mod access;
#[cfg(test)]
mod tests;
pub mod tokens;

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use webhook::{Backoff, Call, Client};

/// A review is a few KiB; more is no answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// So many answers are kept. Beyond, those that are over are dropped, and all if that is not enough.
const KEPT_MAX: usize = 8192;

/// Answers by the fingerprint of their question, each until its time.
struct Kept<T>(Mutex<HashMap<[u8; 32], (SystemTime, T)>>);

impl<T: Clone> Kept<T> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn get(&self, key: &[u8; 32], now: SystemTime) -> Option<T> {
        let kept = self.0.lock();
        kept.get(key).filter(|(until, _)| now < *until).map(|(_, answer)| answer.clone())
    }

    fn put(&self, key: [u8; 32], answer: T, ttl: Duration, now: SystemTime) {
        if ttl.is_zero() {
            return;
        }
        let mut kept = self.0.lock();
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (until, _)| now < *until);
        }
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, (now + ttl, answer));
    }
}

/// Sends a review and reads the `status` of the answer.
async fn review<T: for<'de> Deserialize<'de>>(
    client: &Client,
    review: &Value,
    timeout: Duration,
) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Answer<T> {
        status: T,
    }
    let body = bytes::Bytes::from(review.to_string());
    let call = || {
        client.post(Call {
            method: http::Method::POST,
            path: "",
            query: "",
            body: body.clone(),
            timeout,
            answer_bytes_max: ANSWER_BYTES_MAX,
        })
    };
    let answer = Backoff::default().call(call).await.map_err(|error| telemetry::chain(&error).to_string())?;
    let answer: Answer<T> =
        serde_json::from_slice(&answer).map_err(|error| format!("the webhook's answer: {error}"))?;
    Ok(answer.status)
}

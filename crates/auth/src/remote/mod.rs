//! Others who are asked: webhooks that say whose a token is ([`tokens`]) and who may do what ([`access`]).
//!
//! What they answered holds for a while, so that a flood of requests does not become a flood of questions.

pub mod access;
#[cfg(test)]
mod tests;
pub mod tokens;

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use webhook::{Backoff, Call, Client};

/// A review is a few KiB; more is no answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
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

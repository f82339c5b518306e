//! Trying again.

use std::future::Future;
use std::time::Duration;

use crate::Error;

/// Attempts with growing pauses, as upstream makes them towards token and authorization webhooks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    pub first: Duration,
    pub factor: f64,
    /// A pause is stretched by up to this fraction of itself.
    pub jitter: f64,
    /// Attempts in all.
    pub attempts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(500), factor: 1.5, jitter: 0.2, attempts: 5 }
    }
}

impl Backoff {
    /// Calls until the answer is good, or bad in a way that will stay, or the attempts are used up.
    pub async fn call<T, F, A>(&self, mut attempt: F) -> Result<T, Error>
    where
        F: FnMut() -> A,
        A: Future<Output = Result<T, Error>>,
    {
        let mut pause = self.first;
        for _ in 1..self.attempts {
            match attempt().await {
                Err(error) if error.is_transient() => {}
                done => return done,
            }
            rt::sleep(rt::jittered(pause, self.jitter)).await;
            pause = pause.mul_f64(self.factor);
        }
        attempt().await
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::Status;

    use super::*;

    const QUICK: Backoff = Backoff { first: Duration::from_millis(1), factor: 1.5, jitter: 0.2, attempts: 5 };

    async fn attempts_until(answers: Vec<Result<(), Error>>) -> (usize, Result<(), Error>) {
        let (mut made, mut answers) = (0, answers.into_iter());
        let result = QUICK
            .call(|| {
                made += 1;
                let answer = answers.next().expect("no more attempts than answers");
                async move { answer }
            })
            .await;
        (made, result)
    }

    fn refused() -> Result<(), Error> {
        Err(Error::Status(Status::internal("busy").into()))
    }

    #[tokio::test]
    async fn what_passes_is_tried_again_and_what_stays_is_not() {
        let (made, result) = attempts_until(vec![refused(), refused(), Ok(())]).await;
        assert!(made == 3 && result.is_ok());
        let (made, result) = attempts_until((0..5).map(|_| refused()).collect()).await;
        assert!(made == 5 && result.is_err());
        let (made, result) = attempts_until(vec![Err(Error::Status(Status::unauthorized().into()))]).await;
        assert!(made == 1 && result.is_err());
    }
}

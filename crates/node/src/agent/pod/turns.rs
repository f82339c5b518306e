//! [`Turns`]: how many pods are started at the same time.
//!
//! A start is work for the processor. A hundred at once would all be done when the last one is; in turns half of them
//! are done in half of the time, and none later than without. What takes long for another reason (an image, a hook, a
//! volume that is waited for) holds nobody up: a turn is over after a moment, and its holder goes on without it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

/// Starts for each core: some of them wait for the kernel or the disk.
const PER_CORE: usize = 2;

/// After this the next one begins.
const TURN_MAX: Duration = Duration::from_secs(1);

pub struct Turns {
    free: Arc<Semaphore>,
}

/// The right to start a pod; dropping it gives it to the next one, who waits longest.
#[derive(Debug)]
pub struct Turn {
    _ends: oneshot::Sender<()>,
}

impl Default for Turns {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new(cores.saturating_mul(PER_CORE))
    }
}

impl Turns {
    fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)) }
    }

    /// Waits for a turn.
    pub async fn take(&self) -> Turn {
        let permit = self.free.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (sender, ended) = oneshot::channel();
        rt::spawn("pod-turn", async move {
            let _ended_or_too_long = rt::timeout(TURN_MAX, ended).await;
            drop(permit);
        });
        Turn { _ends: sender }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_order_and_end_by_themselves() {
        let turns = Turns::new(2);
        let (first, _second) = (turns.take().await, turns.take().await);
        let (mut third, mut fourth) = (Box::pin(turns.take()), Box::pin(turns.take()));
        assert!((&mut third).now_or_never().is_none() && (&mut fourth).now_or_never().is_none());
        let since = rt::instant();
        drop(first);
        let _third = third.await;
        assert_eq!(since.elapsed(), Duration::ZERO);
        assert!((&mut fourth).now_or_never().is_none());
        // Nobody gives it back, and still it comes.
        let _fourth = fourth.await;
        assert_eq!(since.elapsed(), TURN_MAX);
    }
}

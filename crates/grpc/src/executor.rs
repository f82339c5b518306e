//! Where HTTP/2 connections run.

use std::future::Future;

/// Gives hyper's tasks to `rt`, so that they are named and their panics are seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Executor;

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        drop(rt::spawn("grpc connection", async move {
            future.await;
        }));
    }
}

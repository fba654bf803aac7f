//! Batches made on a thread of their own, ahead of the steps that need them.

use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use colbert_data::Example;

use crate::device::fault::panic_message;
use crate::error::TrainError;
use crate::step::batch::{Batcher, SharedBatch, TokenShare};
use crate::step::order::epochs_begun;

/// Batches made ahead of the step that needs them.
const AHEAD: usize = 2;

/// The batches of steps in their order.
pub(crate) struct Prefetch<'scope> {
    batches: Receiver<Result<SharedBatch, TrainError>>,
    fresh: Sender<(usize, Vec<Example>)>,
    maker: Option<ScopedJoinHandle<'scope, ()>>,
}

/// The steps that batches are made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    /// First step, from 0.
    pub(crate) first: usize,
    /// Step before which the run is over.
    pub(crate) end: usize,
    /// Whether the examples of an epoch are handed in before its first batch.
    pub(crate) refreshed: bool,
    /// The texts that this process tokenizes.
    pub(crate) share: TokenShare,
}

impl<'scope> Prefetch<'scope> {
    pub(crate) fn new<'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        mut batcher: Batcher<'scope>,
        steps: Steps,
    ) -> Self {
        let (send, batches) = sync_channel(AHEAD);
        let (fresh, given) = channel::<(usize, Vec<Example>)>();
        let maker = scope.spawn(move || {
            for step in steps.first..steps.end {
                let begun = if steps.refreshed {
                    epochs_begun(step, batcher.batch_size(), batcher.examples()).len()
                } else {
                    0
                };
                for _ in 0..begun {
                    // The sender is gone when the run has ended early.
                    let Ok((epoch, examples)) = given.recv() else { return };
                    if let Err(error) = batcher.replace(epoch, examples) {
                        drop(send.send(Err(error)));
                        return;
                    }
                }
                // The receiver is gone when the run has ended early.
                if send.send(batcher.shared_batch(step, steps.share)).is_err() {
                    break;
                }
            }
        });
        Self { batches, fresh, maker: Some(maker) }
    }

    /// Hands in the examples of an epoch.
    pub(crate) fn replace(&self, epoch: usize, examples: Vec<Example>) {
        // If the sender is gone, the next request returns the reason.
        drop(self.fresh.send((epoch, examples)));
    }

    pub(crate) fn next(&mut self) -> Result<SharedBatch, TrainError> {
        self.batches.recv().unwrap_or_else(|_| {
            // It only disconnects before the last step by panicking; joining propagates the panic.
            let panic = self.maker.take().and_then(|maker| maker.join().err());
            let message = panic.map(|payload| panic_message(&*payload)).unwrap_or_default();
            Err(TrainError::BatchThread { message })
        })
    }
}

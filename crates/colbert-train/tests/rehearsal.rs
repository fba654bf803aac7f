//! A step that is computed only to measure its memory.

use colbert_config::{IbScope, Precision, TrainOptions};
use colbert_train::{ColbertObjective, Rehearsal};

use crate::accumulation::{gradients_in, options};
use crate::support::{device, parameters, tiny};

/// Weights, and loss and gradient with dropout, have the same bits before and after.
#[test]
fn a_rehearsal_leaves_nothing_behind() {
    for (accumsteps, ib_scope) in [(1, IbScope::Batch), (4, IbScope::Batch), (4, IbScope::MicroBatch)] {
        let options = TrainOptions { dropout: Some(0.3), ..options(accumsteps, ib_scope) };
        let (model, _) = tiny(&options, options.dropout);
        let state = || (parameters(&model), gradients_in(&model, &options, Precision::F32, 1.0));
        let before = state();
        let rehearsal = Rehearsal { options: &options, queries: options.batch_size, accumsteps };
        rehearsal.run(&model, &ColbertObjective::from(&options), &device()).unwrap();
        assert!(state() == before, "{accumsteps} {ib_scope:?}");
    }
}

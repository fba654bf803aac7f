//! Examples of later epochs, with negatives chosen anew by the weights of that moment.
//!
//! They are written into the run's folder before they are used, so that a run that is taken up again trains on the same.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use colbert_data::Example;
use colbert_kernels::KernelAutodiffBackend;
use colbert_model::{Colbert, ModelError, replace_file};

use crate::checkpoint::io;
use crate::error::TrainError;
use crate::run_folder::RunFolder;
use crate::trainable::TrainableEncoder;

/// Chooses the examples of an epoch.
pub trait RefreshExamples<B: KernelAutodiffBackend, E: TrainableEncoder<B>> {
    /// Examples for `epoch`, counted from 0, as many as the first epoch has.
    ///
    /// # Errors
    /// Whatever a miner reports.
    fn examples(
        &mut self,
        model: Colbert<B::InnerBackend, E::InnerModule>,
        epoch: usize,
    ) -> Result<Vec<Example>, TrainError>;
}

/// Epochs but the first whose first example is in the batch of `step`.
pub(crate) fn epochs_begun(step: usize, batch_size: usize, examples: usize) -> Range<usize> {
    let first = |position: usize| position.div_ceil(examples).max(1);
    first(step * batch_size)..first((step + 1) * batch_size)
}

/// The epoch that the batch before `step` ended in, if that is not the first one and goes on.
pub(crate) fn epoch_going_on(step: usize, batch_size: usize, examples: usize) -> Option<usize> {
    let position = step * batch_size;
    let epoch = position / examples;
    (epoch > 0 && !position.is_multiple_of(examples)).then_some(epoch)
}

fn path(folder: &RunFolder, epoch: usize) -> PathBuf {
    folder.path().join("negatives").join(format!("epoch-{epoch:04}.jsonl"))
}

/// Examples of an epoch as an earlier part of the run left them.
pub(crate) fn read_examples(folder: &RunFolder, epoch: usize) -> Result<Option<Vec<Example>>, TrainError> {
    let path = path(folder, epoch);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(io("read", &path))?;
    let row = |line: &str| {
        let (query, documents): (u32, Vec<u32>) = serde_json::from_str(line).map_err(|source| {
            TrainError::Model(ModelError::Json { path: path.clone(), expected: "rows [qid,[pid,...]]", source })
        })?;
        Ok(Example { query, documents, scores: None })
    };
    text.lines().map(row).collect::<Result<Vec<_>, TrainError>>().map(Some)
}

/// Writes them under their name once they are whole.
pub(crate) fn write_examples(folder: &RunFolder, epoch: usize, examples: &[Example]) -> Result<(), TrainError> {
    let path = path(folder, epoch);
    let parent = folder.path().join("negatives");
    fs::create_dir_all(&parent).map_err(io("create", &parent))?;
    let mut text = String::new();
    for Example { query, documents, .. } in examples {
        text += &serde_json::to_string(&(query, documents)).expect("ids have a JSON form");
        text.push('\n');
    }
    replace_file(&path, text.as_bytes()).map_err(io("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_begins_in_the_batch_that_has_its_first_example() {
        for (batch_size, examples, steps) in [(4usize, 10usize, 12usize), (5, 10, 9), (3, 3, 5), (7, 3, 4), (1, 1, 3)] {
            let mut next = 1;
            for step in 0..steps {
                let positions = step * batch_size..(step + 1) * batch_size;
                let begun: Vec<usize> = positions
                    .filter(|position| position.is_multiple_of(examples) && *position > 0)
                    .map(|p| p / examples)
                    .collect();
                assert_eq!(epochs_begun(step, batch_size, examples).collect::<Vec<_>>(), begun);
                for epoch in begun {
                    assert_eq!(epoch, next);
                    next += 1;
                }
                let position = (step + 1) * batch_size;
                let expected =
                    (!position.is_multiple_of(examples) && position > examples).then_some(position / examples);
                assert_eq!(epoch_going_on(step + 1, batch_size, examples), expected);
            }
        }
    }
}

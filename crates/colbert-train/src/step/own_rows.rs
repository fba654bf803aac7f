//! The rows of a batch as tensors: each query's own documents, whose number may differ, and weights of rows.

use std::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use colbert_config::ScoreScale;
use colbert_kernels::{KernelBackend, sum};

/// The score of a place that a short row does not have: finite, so that 0 times its logarithm is 0, and so low that its
/// share of a softmax is 0 in float32.
const ABSENT: f32 = -1e9;

/// Added to a spread that scores are divided by (PyLate 1.6.0, `losses/distillation.py`).
const SPREAD_EPS: f64 = 1e-8;

/// The rows of a block: the first document is the positive.
pub(crate) struct OwnRows<B: Backend> {
    /// Place of each row's first document among the documents of all rows.
    starts: Vec<usize>,
    lengths: Vec<usize>,
    /// Documents of the longest row.
    pub(crate) width: usize,
    /// True if a row has no document, `[rows, width]`; none if all rows are of one length.
    absent: Option<Tensor<B, 2, Bool>>,
    device: B::Device,
}

impl<B: KernelBackend> OwnRows<B> {
    /// Selects the rows `block` of `documents`.
    pub(crate) fn new(documents: &[Vec<usize>], block: Range<usize>, device: &B::Device) -> Self {
        let mut start = documents[..block.start].iter().map(Vec::len).sum();
        let (mut starts, mut lengths) = (Vec::new(), Vec::new());
        for row in &documents[block] {
            starts.push(start);
            lengths.push(row.len());
            start += row.len();
        }
        let width = lengths.iter().copied().max().unwrap_or(0);
        let absent = lengths.iter().any(|length| *length < width).then(|| {
            let flags: Vec<bool> =
                lengths.iter().flat_map(|length| (0..width).map(move |place| place >= *length)).collect();
            Tensor::from_data(TensorData::new(flags, [lengths.len(), width]), device)
        });
        Self { starts, lengths, width, absent, device: device.clone() }
    }

    /// Returns the number of rows of the block.
    pub(crate) fn count(&self) -> usize {
        self.starts.len()
    }

    /// Returns the place of a row's positive among the documents of all rows.
    pub(crate) fn positive(&self, row: usize) -> usize {
        self.starts[row]
    }

    /// Returns whether a place among the documents of all rows is a row's own.
    pub(crate) fn is_own(&self, row: usize, slot: usize) -> bool {
        (self.starts[row]..self.starts[row] + self.lengths[row]).contains(&slot)
    }

    /// Places of the rows' documents among those of all rows, `[rows, width]`. A place that a short row does not have
    /// repeats its positive.
    pub(crate) fn slots(&self) -> Tensor<B, 2, Int> {
        let places = self.starts.iter().zip(&self.lengths).flat_map(|(start, length)| {
            (0..self.width).map(move |place| if place < *length { start + place } else { *start })
        });
        let places: Vec<usize> = places.collect();
        Tensor::from_data(ints(&places, [self.count(), self.width]), &self.device)
    }

    /// Returns a number for each place, `[rows, width]`; a place that a short row does not have repeats the row's
    /// first. A row without numbers is 0 throughout.
    pub(crate) fn values(&self, rows: &[Vec<f32>]) -> Tensor<B, 2> {
        let width = self.width;
        let values =
            rows.iter().flat_map(|row| (0..width).map(|place| row.get(place).or(row.first()).copied().unwrap_or(0.0)));
        Tensor::from_data(TensorData::new(values.collect::<Vec<f32>>(), [rows.len(), width]), &self.device)
    }

    /// Makes places that short rows do not have vanish in a softmax: `[rows, width]`.
    pub(crate) fn hidden(&self, scores: Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.absent {
            Some(absent) => scores.mask_fill(absent.clone(), ABSENT),
            None => scores,
        }
    }

    /// Scores on another scale, each row by itself: `[rows, width]`.
    pub(crate) fn scaled(&self, scores: Tensor<B, 2>, scale: ScoreScale) -> Tensor<B, 2> {
        match scale {
            ScoreScale::Raw => scores,
            ScoreScale::MinMax => {
                // A place that a row does not have repeats its first score, and changes neither end.
                let least = scores.clone().min_dim(1);
                let spread = scores.clone().max_dim(1) - least.clone();
                (scores - least) / (spread + SPREAD_EPS)
            }
            ScoreScale::ZScore => {
                let centred = scores.clone() - self.row_means(scores, 0);
                let variance = self.row_means(centred.clone().square(), 0);
                // The square root of 0 has no gradient, and a row of equal scores has no direction.
                centred / (variance + SPREAD_EPS * SPREAD_EPS).sqrt()
            }
        }
    }

    /// Computes the means of the places of each row from `first` on: `[rows, width]` to `[rows, 1]`.
    pub(crate) fn row_means(&self, values: Tensor<B, 2>, first: usize) -> Tensor<B, 2> {
        let rows = self.count();
        let values = match &self.absent {
            Some(absent) => values.mask_fill(absent.clone(), 0.0),
            None => values,
        };
        let sums = values.slice([0..rows, first..self.width]).sum_dim(1);
        let counts: Vec<f32> = self.lengths.iter().map(|length| (length - first) as f32).collect();
        sums / Tensor::from_data(TensorData::new(counts, [rows, 1]), &self.device)
    }

    /// Computes the mean of the places from `first` on, over all rows: `[rows, width]` to `[1]`.
    pub(crate) fn mean(&self, values: Tensor<B, 2>, first: usize) -> Tensor<B, 1> {
        let rows = self.count();
        match &self.absent {
            None => values.slice([0..rows, first..self.width]).mean(),
            Some(absent) => {
                let count: usize = self.lengths.iter().map(|length| length - first).sum();
                let values = values.mask_fill(absent.clone(), 0.0).slice([0..rows, first..self.width]);
                sum(values).div_scalar(count as f64)
            }
        }
    }
}

/// The weight of every row in one part of the loss.
pub(crate) struct RowWeights(pub(crate) Vec<f64>);

impl RowWeights {
    /// Returns whether the part counts at all.
    pub(crate) fn any(&self) -> bool {
        self.0.iter().any(|weight| *weight != 0.0)
    }

    /// Computes the weighted sum over rows, `[rows, 1]` to `[1]`, divided by the number of rows.
    pub(crate) fn mean<B: KernelBackend>(&self, values: Tensor<B, 2>) -> Tensor<B, 1> {
        match self.uniform() {
            Some(weight) => weighed(values.mean(), weight),
            None => {
                let weights: Vec<f32> = self.0.iter().map(|weight| *weight as f32).collect();
                let weights = Tensor::from_data(TensorData::new(weights, [self.0.len(), 1]), &values.device());
                sum(values * weights).div_scalar(self.0.len() as f64)
            }
        }
    }

    /// Returns the weight of all rows, if they have one.
    pub(crate) fn uniform(&self) -> Option<f64> {
        let first = *self.0.first()?;
        self.0.iter().all(|weight| *weight == first).then_some(first)
    }
}

/// Multiplies a value by a weight; returns the value itself if that is 1.
pub(crate) fn weighed<B: Backend>(value: Tensor<B, 1>, weight: f64) -> Tensor<B, 1> {
    if weight == 1.0 { value } else { value.mul_scalar(weight) }
}

pub(crate) fn ints<const D: usize>(values: &[usize], shape: [usize; D]) -> TensorData {
    TensorData::new(values.iter().map(|v| *v as i32).collect::<Vec<_>>(), shape)
}

//! Numbers of a loss that are learned along with the weights, such as the logarithm of a temperature.

use burn::tensor::{Tensor, TensorData};
use colbert_kernels::KernelAutodiffBackend;
use serde::{Deserialize, Serialize};

use crate::step::adamw::{BETA1, BETA2, EPS};
use crate::step::objective::LearnedNumber;

/// Factor on the learning rate of the weights. Adam moves a number by about the learning rate in each step, whatever
/// its gradient: at 1e-5, a thousand steps would change a temperature by one percent.
const RATE: f64 = 100.0;

/// A number, and its moments in Adam.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Moving {
    name: String,
    value: f64,
    mean: f64,
    square: f64,
}

/// The learned numbers of a run, and how often they were updated: Adam on the host, without decay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LearnedNumbers {
    numbers: Vec<Moving>,
    updates: u32,
}

impl LearnedNumbers {
    /// Returns the numbers before the first step.
    pub(crate) fn new(learned: &[LearnedNumber]) -> Self {
        let start = |number: &LearnedNumber| Moving {
            name: number.name.to_owned(),
            value: number.start,
            mean: 0.0,
            square: 0.0,
        };
        Self { numbers: learned.iter().map(start).collect(), updates: 0 }
    }

    /// Returns whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Returns whether these are numbers of the same names.
    pub(crate) fn fits(&self, learned: &[LearnedNumber]) -> bool {
        self.numbers.iter().map(|number| number.name.as_str()).eq(learned.iter().map(|number| number.name))
    }

    /// Names and values.
    pub(crate) fn values(&self) -> Vec<(String, f64)> {
        self.numbers.iter().map(|number| (number.name.clone(), number.value)).collect()
    }

    /// Makes the values a leaf whose gradient can be requested, `[numbers]`.
    pub(crate) fn leaf<B: KernelAutodiffBackend>(&self, device: &B::Device) -> Tensor<B, 1> {
        let values: Vec<f32> = self.numbers.iter().map(|number| number.value as f32).collect();
        // Not every backend can make a tensor without elements.
        let values = if values.is_empty() { vec![0.0] } else { values };
        let count = values.len();
        Tensor::from_data(TensorData::new(values, [count]), device).require_grad()
    }

    /// Moves the numbers against their gradients, within their bounds.
    pub(crate) fn update(&mut self, learned: &[LearnedNumber], gradients: &[f64], learning_rate: f64) {
        if self.is_empty() {
            return;
        }
        self.updates += 1;
        let unbiased = |beta: f64| 1.0 - beta.powf(self.updates.into());
        for ((number, gradient), LearnedNumber { bounds: [least, most], .. }) in
            self.numbers.iter_mut().zip(gradients).zip(learned)
        {
            number.mean = BETA1 * number.mean + (1.0 - BETA1) * gradient;
            number.square = BETA2 * number.square + (1.0 - BETA2) * gradient * gradient;
            let root = (number.square / unbiased(BETA2)).sqrt() + EPS;
            let moved = number.value - RATE * learning_rate * (number.mean / unbiased(BETA1)) / root;
            number.value = moved.clamp(*least, *most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: LearnedNumber = LearnedNumber { name: "x", start: 0.0, bounds: [-1.0, 0.5] };

    #[test]
    fn numbers_go_against_their_gradient_and_stay_in_their_bounds() {
        let mut numbers = LearnedNumbers::new(&[NUMBER]);
        numbers.update(&[NUMBER], &[3.0], 1e-3);
        assert!((numbers.values()[0].1 + 0.1).abs() < 1e-8, "the first step of Adam is the rate: {numbers:?}");
        (0..100).for_each(|_| numbers.update(&[NUMBER], &[3.0], 1e-3));
        assert_eq!(numbers.values()[0].1, -1.0);
        (0..200).for_each(|_| numbers.update(&[NUMBER], &[-3.0], 1e-3));
        assert_eq!(numbers.values()[0].1, 0.5);
    }

    #[test]
    fn they_survive_json_and_know_their_names() {
        let mut numbers = LearnedNumbers::new(&[NUMBER]);
        numbers.update(&[NUMBER], &[0.1], 1e-5);
        let text = serde_json::to_string(&numbers).unwrap();
        assert_eq!(serde_json::from_str::<LearnedNumbers>(&text).unwrap(), numbers);
        assert!(numbers.fits(&[NUMBER]) && !numbers.fits(&[]));
        assert!(!numbers.fits(&[LearnedNumber { name: "y", ..NUMBER }]));
    }
}

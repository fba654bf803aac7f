//! Dynamic loss scaling for float16, which is 0 below 3e-8 and infinite from 65,520 on: the loss is multiplied before
//! the backward pass so that gradients lie in between, and they are divided again in float32 (Micikevicius et al. 2018,
//! "Mixed Precision Training", section 3.2).

use burn::module::{AutodiffModule, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

/// First scale. This and the next three are the defaults of PyTorch 2.9.0 (`torch/amp/grad_scaler.py`, `GradScaler`),
/// which colbert-ai takes.
const FIRST: f64 = 65_536.0;

const GROWTH: f64 = 2.0;

const BACKOFF: f64 = 0.5;

/// Updates in a row after which the scale grows.
const INTERVAL: u32 = 2000;

/// Least scale, our own choice: a gradient that is not finite without any scaling is not due to the scale.
const FLOOR: f64 = 1.0;

/// The factor on the loss. It is a power of two, so that multiplying or dividing by it rounds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LossScale {
    /// The factor.
    pub(crate) scale: f64,
    /// Updates since it last changed.
    pub(crate) steady: u32,
    /// Steps that were left out, as their gradient overflowed.
    pub(crate) overflows: usize,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { scale: FIRST, steady: 0, overflows: 0 }
    }
}

impl LossScale {
    /// Halves the scale after a gradient that is not finite, and counts the step. Returns false at the least scale,
    /// where nothing changes.
    pub(crate) fn back_off(&mut self) -> bool {
        if self.scale <= FLOOR {
            return false;
        }
        *self = Self { scale: (self.scale * BACKOFF).max(FLOOR), steady: 0, overflows: self.overflows + 1 };
        true
    }

    /// Doubles the scale after an update if it has held for long enough, and float32 holds the double.
    pub(crate) fn held(&mut self) {
        self.steady += 1;
        if self.steady >= INTERVAL {
            self.steady = 0;
            if self.scale * GROWTH <= f64::from(f32::MAX) {
                self.scale *= GROWTH;
            }
        }
    }
}

/// Divides the gradients of a loss times `scale` by that factor.
pub(crate) fn unscaled<AB: AutodiffBackend, M: AutodiffModule<AB>>(
    model: &M,
    gradients: GradientsParams,
    scale: f64,
) -> GradientsParams {
    if scale == 1.0 {
        return gradients;
    }
    let mut divider = Divider { gradients, scale };
    model.visit(&mut divider);
    divider.gradients
}

struct Divider {
    gradients: GradientsParams,
    scale: f64,
}

impl<AB: AutodiffBackend> ModuleVisitor<AB> for Divider {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<AB, D>>) {
        if let Some(gradient) = self.gradients.remove::<AB::InnerBackend, D>(param.id) {
            self.gradients.register::<AB::InnerBackend, D>(param.id, gradient.div_scalar(self.scale));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_doubles_after_two_thousand_updates_in_a_row_and_halves_at_once() {
        let mut scale = LossScale::default();
        (0..1999).for_each(|_| scale.held());
        assert_eq!(scale, LossScale { scale: 65_536.0, steady: 1999, overflows: 0 });
        scale.held();
        assert_eq!(scale, LossScale { scale: 131_072.0, steady: 0, overflows: 0 });
        (0..5).for_each(|_| scale.held());
        assert!(scale.back_off());
        assert_eq!(scale, LossScale { scale: 65_536.0, steady: 0, overflows: 1 }, "counted again from here");
        let halvings = (0..100).filter(|_| scale.back_off()).count();
        assert_eq!((halvings, scale.scale, scale.overflows), (16, 1.0, 17), "down to 1 and no further");
    }

    #[test]
    fn the_scale_stays_a_number_of_float32() {
        let mut scale = LossScale { scale: 2.0_f64.powi(127), ..LossScale::default() };
        (0..INTERVAL).for_each(|_| scale.held());
        assert_eq!((scale.scale, scale.steady), (2.0_f64.powi(127), 0));
    }
}

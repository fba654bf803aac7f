//! AdamW (Loshchilov and Hutter 2019, algorithm 2) in one pass over each parameter.

use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;

use crate::backend::Kernels;
use crate::operators::primitive::{primitive, tensor};

/// Options of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Step size, after the schedule.
    pub learning_rate: f64,
    /// Share of the mean of gradients that a step keeps.
    pub beta_1: f64,
    /// Share of the mean of squared gradients that a step keeps.
    pub beta_2: f64,
    /// Added to the root of the mean of squares.
    pub eps: f64,
    /// Share of a parameter that is subtracted, times the step size.
    pub weight_decay: f64,
    /// Steps taken, this one included: 1 at first.
    pub step: u64,
    /// Factor on gradients from clipping the global norm; 1 without clipping.
    pub gradient_scale: f64,
}

/// A parameter and the means that its optimizer keeps, all of one shape.
#[derive(Debug, Clone)]
pub struct Moments<T> {
    /// The parameter itself.
    pub parameter: T,
    /// Running mean of gradients, 0 at first.
    pub mean: T,
    /// Running mean of squared gradients, 0 at first.
    pub square: T,
}

/// A step to take with a parameter.
#[derive(Debug, Clone)]
pub struct Update<T> {
    /// The parameter and its moments before the step.
    pub moments: Moments<T>,
    /// The gradient, of the parameter's shape.
    pub gradient: T,
    /// How far it moves.
    pub options: AdamW,
}

/// The factors of a step, in which the bias corrections are taken into account.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Factors {
    pub(crate) gradient: f32,
    pub(crate) keep: f32,
    pub(crate) beta_1: f32,
    pub(crate) beta_2: f32,
    pub(crate) rate: f32,
    pub(crate) correction: f32,
    pub(crate) eps: f32,
}

impl AdamW {
    pub(crate) fn factors(&self) -> Factors {
        assert!(self.step > 0, "the first step of AdamW is step 1");
        let steps = self.step as f64;
        Factors {
            gradient: self.gradient_scale as f32,
            keep: (1.0 - self.learning_rate * self.weight_decay) as f32,
            beta_1: self.beta_1 as f32,
            beta_2: self.beta_2 as f32,
            rate: (self.learning_rate / (1.0 - self.beta_1.powf(steps))) as f32,
            correction: (1.0 / (1.0 - self.beta_2.powf(steps)).sqrt()) as f32,
            eps: self.eps as f32,
        }
    }
}

/// Takes one step with each parameter: it shrinks by the decay, and moves against the mean gradient over the root of the
/// mean square. On GPUs of CubeCL, one launch takes the steps of up to 32 parameters.
///
/// If the handles of a parameter and its moments are the last ones, they are updated in place.
///
/// # Shapes
/// All tensors of a parameter have the same shape.
///
/// # Panics
/// If the shapes of a parameter's tensors differ, or its step is 0.
pub fn adamw_step<B: Kernels, const D: usize>(updates: Vec<Update<Tensor<B, D>>>) -> Vec<Moments<Tensor<B, D>>> {
    // One axis is enough, as the operator works element by element.
    let flat = |x: Tensor<B, D>| primitive(x.reshape([-1]) as Tensor<B, 1>);
    let mut shapes = Vec::with_capacity(updates.len());
    let updates =
        updates.into_iter().map(|Update { moments: Moments { parameter, mean, square }, gradient, options }| {
            let shape = parameter.dims();
            assert!(
                gradient.dims() == shape && mean.dims() == shape && square.dims() == shape,
                "parameter, gradient and moments have one shape"
            );
            shapes.push(shape);
            let moments = Moments { parameter: flat(parameter), mean: flat(mean), square: flat(square) };
            Update { moments, gradient: flat(gradient), options }
        });
    let moved = B::adamw(updates.collect());
    let moved = moved.into_iter().zip(shapes).map(|(Moments { parameter, mean, square }, shape)| {
        let back = |x: FloatTensor<B>| tensor::<B, 1>(x).reshape(shape);
        Moments { parameter: back(parameter), mean: back(mean), square: back(square) }
    });
    moved.collect()
}

pub(crate) fn composed<B: Kernels>(update: Update<FloatTensor<B>>) -> Moments<FloatTensor<B>> {
    let Update { moments, gradient, options } = update;
    let f = options.factors();
    let gradient = tensor::<B, 1>(gradient) * f.gradient;
    let mean = tensor::<B, 1>(moments.mean) * f.beta_1 + gradient.clone() * (1.0 - f.beta_1);
    let square = tensor::<B, 1>(moments.square) * f.beta_2 + gradient.square() * (1.0 - f.beta_2);
    let step = mean.clone() / (square.clone().sqrt() * f.correction + f.eps) * f.rate;
    let parameter = tensor::<B, 1>(moments.parameter) * f.keep - step;
    Moments { parameter: primitive(parameter), mean: primitive(mean), square: primitive(square) }
}

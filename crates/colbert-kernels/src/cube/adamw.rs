//! AdamW in one launch for each parameter, in place if nothing else uses the numbers.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::cube::launch::{UNITS, cubes_of_elements, floats, writable};
use crate::operators::adamw::{AdamW, Moments};

#[cube(launch)]
fn update(
    parameter: &mut Array<f32>,
    mean: &mut Array<f32>,
    square: &mut Array<f32>,
    gradient: &Array<f32>,
    gradient_scale: f32,
    keep: f32,
    beta_1: f32,
    beta_2: f32,
    rate: f32,
    correction: f32,
    eps: f32,
) {
    let at = ABSOLUTE_POS;
    if at >= gradient.len() {
        terminate!();
    }
    let own = gradient[at] * gradient_scale;
    let new_mean = mean[at] * beta_1 + own * (1.0f32 - beta_1);
    let new_square = square[at] * beta_2 + own * own * (1.0f32 - beta_2);
    mean[at] = new_mean;
    square[at] = new_square;
    parameter[at] = parameter[at] * keep - new_mean / (new_square.sqrt() * correction + eps) * rate;
}

/// See [`composed`](crate::operators::adamw::composed).
pub(crate) fn step<R: CubeRuntime>(
    moments: Moments<CubeTensor<R>>,
    gradient: CubeTensor<R>,
    options: &AdamW,
) -> Moments<CubeTensor<R>> {
    let f = options.factors();
    let gradient = floats(gradient);
    let elements = gradient.meta.num_elements();
    let Moments { parameter, mean, square } = moments;
    let moments = Moments { parameter: writable(parameter), mean: writable(mean), square: writable(square) };
    if elements > 0 {
        update::launch(
            &gradient.client.clone(),
            cubes_of_elements(&gradient, elements),
            CubeDim::new_1d(UNITS),
            moments.parameter.clone().into_array_arg(),
            moments.mean.clone().into_array_arg(),
            moments.square.clone().into_array_arg(),
            gradient.into_array_arg(),
            f.gradient,
            f.keep,
            f.beta_1,
            f.beta_2,
            f.rate,
            f.correction,
            f.eps,
        );
    }
    moments
}

//! One pass over a parameter, its gradient and its moments.

use crate::flex::buffer::Shared;
use crate::flex::level::{Level, for_each_level};
use crate::flex::parallel::for_each_block;
use crate::operators::adamw::Factors;

/// Elements that a thread takes at a time.
const BLOCK: usize = 1 << 14;

for_each_level! {
    /// Takes one step with the given elements.
    fn adamw_block(
        parameter: &mut [f32],
        mean: &mut [f32],
        square: &mut [f32],
        gradient: &[f32],
        factors: Factors,
    ) = adamw_body
}

#[inline(always)]
fn adamw_body<const FUSED: bool>(
    parameter: &mut [f32],
    mean: &mut [f32],
    square: &mut [f32],
    gradient: &[f32],
    factors: Factors,
) {
    let Factors { gradient: scale, keep, beta_1, beta_2, rate, correction, eps } = factors;
    for (((parameter, mean), square), gradient) in parameter.iter_mut().zip(mean).zip(square).zip(gradient) {
        let gradient = gradient * scale;
        *mean = *mean * beta_1 + gradient * (1.0 - beta_1);
        *square = *square * beta_2 + gradient * gradient * (1.0 - beta_2);
        *parameter = *parameter * keep - *mean / (square.sqrt() * correction + eps) * rate;
    }
}

/// Takes one step, in place.
pub(crate) fn step(level: Level, [parameter, mean, square]: [&mut [f32]; 3], gradient: &[f32], factors: Factors) {
    let count = gradient.len();
    assert!(
        parameter.len() == count && mean.len() == count && square.len() == count,
        "parameter, gradient and moments have one size"
    );
    let [parameter, mean, square] = [parameter, mean, square].map(Shared::new);
    for_each_block(count, BLOCK, |own| {
        // SAFETY: this block's own elements of each.
        let [parameter, mean, square] = [parameter, mean, square]
            .map(|numbers| unsafe { std::slice::from_raw_parts_mut(numbers.at(own.start), own.len()) });
        adamw_block(level, parameter, mean, square, &gradient[own], factors);
    });
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use burn_flex::{Flex, FlexTensor};

    use super::*;
    use crate::flex::testing::{close, flat, random, wide};
    use crate::operators::adamw::{AdamW, Moments, Update, composed};

    /// Parameters are below 1, and steps below 0.1.
    const ERROR: f64 = 2e-6;

    #[test]
    fn steps_are_those_of_f64_on_every_level_and_composed() {
        let count = 40_003;
        let start = random(count, 1);
        let mut options = AdamW {
            learning_rate: 0.01,
            beta_1: 0.9,
            beta_2: 0.999,
            eps: 1e-8,
            weight_decay: 0.1,
            step: 0,
            gradient_scale: 0.5,
        };
        let mut exact = [wide(&start), vec![0.0; count], vec![0.0; count]];
        let levels = Level::available();
        let mut found = vec![[start.clone(), vec![0.0; count], vec![0.0; count]]; levels.len()];
        let line = |x: &[f32]| FlexTensor::from_data(TensorData::new(x.to_vec(), [x.len()]));
        let mut moments = Moments { parameter: line(&start), mean: line(&found[0][1]), square: line(&found[0][2]) };
        for step in 1..=3 {
            options.step = step;
            let gradient = random(count, 10 + step as usize);
            let (one, two) = (1.0 - 0.9f64.powi(step as i32), 1.0 - 0.999f64.powi(step as i32));
            let [parameter, mean, square] = &mut exact;
            for i in 0..count {
                let g = f64::from(gradient[i]) * 0.5;
                mean[i] = 0.9 * mean[i] + 0.1 * g;
                square[i] = 0.999 * square[i] + 0.001 * g * g;
                parameter[i] -= 0.01 * 0.1 * parameter[i];
                parameter[i] -= 0.01 * (mean[i] / one) / ((square[i] / two).sqrt() + 1e-8);
            }
            for (level, found) in levels.iter().zip(&mut found) {
                let all = found.each_mut().map(|numbers| &mut numbers[..]);
                super::step(*level, all, &gradient, options.factors());
            }
            moments = composed::<Flex>(Update { moments, gradient: line(&gradient), options });
        }
        found.push([flat(&moments.parameter), flat(&moments.mean), flat(&moments.square)]);
        for found in &found {
            for (found, exact) in found.iter().zip(&exact) {
                close(found, exact, ERROR, "three steps");
            }
        }
    }
}

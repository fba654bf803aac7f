//! Averages of weights: over the steps of a run, over its best models, and between a model and the start.

use colbert_model::HostTensor;

/// Tensors by name, on the host.
pub(crate) type NamedTensors = Vec<(String, HostTensor)>;

/// Moves an exponential average towards weights: `decay * average + (1 - decay) * weights`. An empty average becomes
/// the weights. (Polyak and Juditsky 1992; with a fixed decay as in Tarvainen and Valpola, arXiv 1703.01780.)
///
/// # Panics
/// The two are of different models.
pub(crate) fn move_average(average: &mut NamedTensors, weights: NamedTensors, decay: f64) {
    if average.is_empty() {
        *average = weights;
        return;
    }
    let keep = decay as f32;
    for ((name, average), (other, weights)) in average.iter_mut().zip(&weights) {
        assert_eq!(name, other, "an average is of one model");
        for (average, weight) in average.values.iter_mut().zip(&weights.values) {
            *average += (1.0 - keep) * (weight - *average);
        }
    }
}

/// Computes the weighted sum of several models' weights, in f64.
///
/// # Panics
/// There is none, or they are of different models.
pub(crate) fn blend(models: &[(&NamedTensors, f64)]) -> NamedTensors {
    let (first, _) = models.first().expect("there is a model to blend");
    let blended = first.iter().enumerate().map(|(place, (name, tensor))| {
        let values = (0..tensor.values.len()).map(|at| {
            let value = |(tensors, share): &(&NamedTensors, f64)| {
                assert_eq!(&tensors[place].0, name, "models that are blended have the same parameters");
                share * f64::from(tensors[place].1.values[at])
            };
            models.iter().map(value).sum::<f64>() as f32
        });
        (name.clone(), HostTensor { shape: tensor.shape.clone(), values: values.collect() })
    });
    blended.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(values: &[f32]) -> NamedTensors {
        vec![("w".to_owned(), HostTensor { shape: vec![values.len()], values: values.to_vec() })]
    }

    #[test]
    fn by_hand() {
        let mut average = Vec::new();
        for weights in [model(&[1.0, 2.0]), model(&[3.0, 2.0]), model(&[3.0, 6.0])] {
            move_average(&mut average, weights, 0.5);
        }
        assert_eq!(average, model(&[2.5, 4.0]));
        let (a, b) = (model(&[1.0, 2.0]), model(&[3.0, 6.0]));
        assert_eq!(blend(&[(&a, 0.25), (&b, 0.75)]), model(&[2.5, 5.0]));
    }
}

//! The options of a recipe in words, for the plan: those that are not at their defaults.

use crate::options::head::HeadInit;
use crate::options::losses::{DistillationLoss, ScoreScale};
use crate::options::mix::MixBatches;
use crate::options::train::TrainOptions;

/// A sentence for each option of head, loss, optimizer and mixing that is not at its default.
pub(crate) fn recipe(options: &TrainOptions, steps: usize) -> Vec<String> {
    let mut words = head(options);
    words.extend(loss(options));
    words.extend(optimizer(options, steps));
    words.extend(data(options));
    if let Some(factor) = options.pool_factor.filter(|factor| *factor > 1.0) {
        words
            .push(format!("Documents are pooled to about one vector in {factor} when the model is used and measured."));
    }
    words
}

fn head(options: &TrainOptions) -> Vec<String> {
    let layers = &options.head;
    if !layers.0.is_empty() {
        return vec![format!("The new head has the layers {layers} (dim is {}).", options.dim)];
    }
    match options.head_init {
        HeadInit::Random => Vec::new(),
        HeadInit::Pca => vec!["The new head starts from principal components of token vectors.".to_owned()],
    }
}

fn loss(options: &TrainOptions) -> Vec<String> {
    let mut words = Vec::new();
    if options.dims.0.len() > 1 {
        words.push(format!("The loss is summed over vectors of {} numbers.", options.dims));
    }
    match (options.temperature, options.learn_temperature) {
        (start, true) => words.push(format!("The contrastive temperature is learned, from {start} on.")),
        (temperature, false) if temperature != 1.0 => {
            words.push(format!("Contrastive scores are divided by a temperature of {temperature}."));
        }
        _ => {}
    }
    if options.ib_own_negatives {
        words.push("A query's own negatives are among its in-batch documents.".to_owned());
    }
    let default = TrainOptions::default();
    let weights = |o: &TrainOptions| (o.cross_entropy_weight, o.distillation_weight, o.in_batch_weight);
    if weights(options) != weights(&default) {
        let cross_entropy = options.cross_entropy_weight.map_or_else(|| "auto".to_owned(), |weight| weight.to_string());
        let mut parts = format!("cross-entropy {cross_entropy}, distillation {}", options.distillation_weight);
        if options.use_ib_negatives {
            parts += &format!(", in-batch {}", options.in_batch_weight);
        }
        words.push(format!("The parts of the loss weigh: {parts}."));
    }
    let scale = |scale| match scale {
        ScoreScale::Raw => "raw",
        ScoreScale::MinMax => "min-max",
        ScoreScale::ZScore => "z-score",
    };
    let distils = |o: &TrainOptions| {
        let temperatures = (o.teacher_temperature, o.student_temperature);
        (o.distillation_loss, o.teacher_scores, o.student_scores, temperatures)
    };
    if distils(options) != distils(&default) {
        let loss = match options.distillation_loss {
            DistillationLoss::Kl => "KL divergence",
            DistillationLoss::MarginMse => "margin MSE",
        };
        words.push(format!(
            "Rows with teacher scores are distilled by {loss}: teacher {} at temperature {}, student {} at temperature {}.",
            scale(options.teacher_scores),
            options.teacher_temperature,
            scale(options.student_scores),
            options.student_temperature
        ));
    }
    words
}

fn optimizer(options: &TrainOptions, steps: usize) -> Vec<String> {
    let mut words = Vec::new();
    let factors = [
        ("head", options.head_rate_factor),
        ("embeddings", options.embeddings_rate_factor),
        ("each encoder layer against the one above it", options.layer_rate_decay),
    ];
    let factors: Vec<String> = factors
        .iter()
        .filter(|(_, factor)| *factor != 1.0)
        .map(|(module, factor)| format!("{module} {factor}"))
        .collect();
    if !factors.is_empty() {
        words.push(format!("Factors on the learning rate: {}.", factors.join(", ")));
    }
    if !options.decay_biases_and_norms {
        words.push("Weight decay leaves biases and norms out.".to_owned());
    }
    match options.freeze_encoder_steps {
        0 => {}
        frozen if frozen >= steps => words.push("The encoder stays as it is: the head alone is trained.".to_owned()),
        1 => words.push("The head alone is trained in the first update.".to_owned()),
        frozen => words.push(format!("The head alone is trained in the first {frozen} updates.")),
    }
    words
}

fn data(options: &TrainOptions) -> Vec<String> {
    let mut words = Vec::new();
    if options.draw_negatives {
        words.push("Negatives are drawn from all of a query's each time it is used.".to_owned());
    }
    if !options.mix_weights.0.is_empty() {
        let weights: Vec<String> = options.mix_weights.0.iter().map(ToString::to_string).collect();
        words.push(format!("Sources of data are taken in the ratio {}.", weights.join(" : ")));
    } else if options.mix_exponent != 1.0 {
        let exponent = options.mix_exponent;
        words.push(format!("Sources of data weigh their number of examples to the power of {exponent}."));
    }
    if options.mix_batches == MixBatches::OneSource {
        words.push("Each batch is of one source of data.".to_owned());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::number_list::NumberList;

    #[test]
    fn the_plain_run_has_nothing_to_say() {
        assert_eq!(recipe(&TrainOptions::default(), 100), Vec::<String>::new());
    }

    #[test]
    fn a_head_of_principal_components_is_told() {
        let options = TrainOptions { head_init: HeadInit::Pca, ..TrainOptions::default() };
        assert_eq!(recipe(&options, 100), ["The new head starts from principal components of token vectors."]);
    }

    #[test]
    fn what_differs_is_a_sentence_each() {
        let options = TrainOptions {
            head: "768 gelu residual, dim".parse().unwrap(),
            dims: NumberList(vec![128, 64]),
            temperature: 0.05,
            ib_own_negatives: true,
            cross_entropy_weight: Some(0.3),
            student_scores: ScoreScale::MinMax,
            student_temperature: 0.5,
            head_rate_factor: 10.0,
            layer_rate_decay: 0.9,
            decay_biases_and_norms: false,
            freeze_encoder_steps: 20,
            draw_negatives: true,
            mix_weights: NumberList(vec![2.0, 0.5]),
            mix_batches: MixBatches::OneSource,
            pool_factor: Some(2.0),
            ..TrainOptions::default()
        };
        assert_eq!(
            recipe(&options, 100),
            [
                "The new head has the layers 768 gelu residual, dim (dim is 128).",
                "The loss is summed over vectors of 128, 64 numbers.",
                "Contrastive scores are divided by a temperature of 0.05.",
                "A query's own negatives are among its in-batch documents.",
                "The parts of the loss weigh: cross-entropy 0.3, distillation 1, in-batch 1.",
                "Rows with teacher scores are distilled by KL divergence: teacher raw at temperature 1, student min-max at \
                 temperature 0.5.",
                "Factors on the learning rate: head 10, each encoder layer against the one above it 0.9.",
                "Weight decay leaves biases and norms out.",
                "The head alone is trained in the first 20 updates.",
                "Negatives are drawn from all of a query's each time it is used.",
                "Sources of data are taken in the ratio 2 : 0.5.",
                "Each batch is of one source of data.",
                "Documents are pooled to about one vector in 2 when the model is used and measured.",
            ]
        );
    }
}

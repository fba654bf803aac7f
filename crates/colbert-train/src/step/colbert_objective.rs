//! The loss that options describe: colbert-ai's by default, and what later recipes add to it.

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use colbert_config::{DistillationLoss, ScoreScale, TrainOptions};
use colbert_data::Example;
use colbert_kernels::{KernelBackend, sum};
use colbert_model::{Embeddings, maxsim};

use crate::step::matryoshka::loss_over_sizes;
use crate::step::objective::{LearnedNumber, Loss, Objective, Targets};
use crate::step::own_rows::{OwnRows, RowWeights, ints, weighed};

/// Least and largest temperature that can be learned; CLIP bounds its scale by 100 (Radford et al. 2021, section 2.5).
const TEMPERATURES: [f64; 2] = [0.01, 100.0];

/// colbert-ai's loss (0.2.22, `training.py`, `colbert.py` `compute_ib_loss`), with temperatures, scales and weights
/// that do not change it by default.
///
/// With s the MaxSim scores of a query's own documents, positive first, t the teacher's scores, and T the temperature:
/// - labels: `-log softmax(s / T)[0]`;
/// - teacher: `sum softmax(alpha t) (log softmax(alpha t) - log softmax(s))`, or the mean square of
///   `(s[0] - s[j]) - (t[0] - t[j])`;
/// - in-batch: `-log softmax` of the positive among itself and all documents of all other queries (and the query's own
///   negatives, if asked for), scores over T.
///
/// A query with teacher scores uses the second, one without the first, unless weights change that; the third is added
/// on request. Each is a mean over all queries of the batch. With several sizes of vectors the loss is summed over
/// them.
#[derive(Debug, Clone, PartialEq)]
pub struct ColbertObjective {
    /// Add the in-batch loss.
    pub use_ib_negatives: bool,
    /// Leave a query's other known positives out of its in-batch negatives.
    pub ib_skip_known_positives: bool,
    /// Count a query's own negatives in its in-batch loss as well.
    pub ib_own_negatives: bool,
    /// Factor on teacher scores.
    pub distillation_alpha: f64,
    /// Use labels even where there are teacher scores.
    pub ignore_scores: bool,
    /// Scores are divided by it in the cross-entropy and in the in-batch loss.
    pub temperature: f64,
    /// Learn the logarithm of the temperature.
    pub learn_temperature: bool,
    /// Loss of a query with teacher scores.
    pub distillation_loss: DistillationLoss,
    /// Scale of teacher scores.
    pub teacher_scores: ScoreScale,
    /// Scale of the model's scores when they are compared with a teacher's.
    pub student_scores: ScoreScale,
    /// The model's scores are divided by it before the softmax of distillation.
    pub student_temperature: f64,
    /// Weight of the cross-entropy; none is 1 for queries without teacher scores and 0 for those with them.
    pub cross_entropy_weight: Option<f64>,
    /// Weight of distillation.
    pub distillation_weight: f64,
    /// Weight of the in-batch loss.
    pub in_batch_weight: f64,
    /// Sizes of vectors that the loss is summed over; none is the full size alone.
    pub dims: Vec<usize>,
}

impl From<&TrainOptions> for ColbertObjective {
    fn from(options: &TrainOptions) -> Self {
        Self {
            use_ib_negatives: options.use_ib_negatives,
            ib_skip_known_positives: options.ib_skip_known_positives,
            ib_own_negatives: options.ib_own_negatives,
            distillation_alpha: options.distillation_alpha / options.teacher_temperature,
            ignore_scores: options.ignore_scores,
            temperature: options.temperature,
            learn_temperature: options.learn_temperature,
            distillation_loss: options.distillation_loss,
            teacher_scores: options.teacher_scores,
            student_scores: options.student_scores,
            student_temperature: options.student_temperature,
            cross_entropy_weight: options.cross_entropy_weight,
            distillation_weight: options.distillation_weight,
            in_batch_weight: options.in_batch_weight,
            dims: options.dims.0.clone(),
        }
    }
}

/// The temperature at a step.
enum Temperature<B: Backend> {
    Fixed(f64),
    /// Its logarithm, `[1]`.
    Learned(Tensor<B, 1>),
}

impl<B: Backend> Temperature<B> {
    /// Scores over the temperature, of any shape.
    fn divide(&self, scores: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Fixed(temperature) if *temperature == 1.0 => scores,
            Self::Fixed(temperature) => scores.div_scalar(*temperature),
            Self::Learned(logarithm) => scores * logarithm.clone().neg().exp().unsqueeze::<2>(),
        }
    }
}

impl Objective for ColbertObjective {
    fn loss<B: KernelBackend>(&self, queries: &Embeddings<B>, documents: &Embeddings<B>, targets: &Targets) -> Loss<B> {
        let temperature = Temperature::Fixed(self.temperature);
        loss_over_sizes(&self.dims, queries, documents, |q, d| self.loss_at(q, d, targets, &temperature))
    }

    fn couples_queries(&self) -> bool {
        self.use_ib_negatives
    }

    fn takes_blocks(&self) -> bool {
        true
    }

    fn scorings(&self) -> usize {
        self.dims.len().max(1)
    }

    fn learned(&self) -> Vec<LearnedNumber> {
        let [least, most] = TEMPERATURES.map(f64::ln);
        let start = self.temperature.ln();
        let bounds = [least.min(start), most.max(start)];
        let learned = LearnedNumber { name: "log_temperature", start, bounds };
        if self.learn_temperature { vec![learned] } else { Vec::new() }
    }

    fn loss_with<B: KernelBackend>(
        &self,
        queries: &Embeddings<B>,
        documents: &Embeddings<B>,
        targets: &Targets,
        learned: &Tensor<B, 1>,
    ) -> Loss<B> {
        if self.learn_temperature {
            let temperature = Temperature::Learned(learned.clone());
            loss_over_sizes(&self.dims, queries, documents, |q, d| self.loss_at(q, d, targets, &temperature))
        } else {
            self.loss(queries, documents, targets)
        }
    }
}

impl ColbertObjective {
    /// Returns whether any of these examples counts in a part of the loss whose weight is not 0.
    pub fn counts(&self, examples: &[Example]) -> bool {
        self.use_ib_negatives
            || examples.iter().any(|example| {
                let has_teacher = !self.ignore_scores && example.scores.is_some();
                has_teacher && self.distillation_weight != 0.0 || self.label_weight(has_teacher) != 0.0
            })
    }

    /// Returns the weight of the cross-entropy of a query with or without teacher scores.
    fn label_weight(&self, has_teacher: bool) -> f64 {
        self.cross_entropy_weight.unwrap_or(if has_teacher { 0.0 } else { 1.0 })
    }

    fn loss_at<B: KernelBackend>(
        &self,
        queries: &Embeddings<B>,
        documents: &Embeddings<B>,
        targets: &Targets,
        temperature: &Temperature<B>,
    ) -> Loss<B> {
        let scores = maxsim(queries, documents);
        let device = scores.device();
        let rows = OwnRows::<B>::new(&targets.documents, targets.rows(), &device);
        let count = rows.count();
        let own = targets.documents.concat();
        // A document that stands in several places counts in each of them.
        let slots = scores.select(1, Tensor::<B, 1, Int>::from_data(ints(&own, [own.len()]), &device));
        let own_scores = slots.clone().gather(1, rows.slots());

        let teacher = self.teacher(targets);
        let has_teacher: Vec<bool> = match teacher {
            Some(teacher) => teacher.iter().map(|row| !row.is_empty()).collect(),
            None => vec![false; count],
        };
        let cross_entropy = RowWeights(has_teacher.iter().map(|&has_teacher| self.label_weight(has_teacher)).collect());
        let of_teacher = |has_teacher: &bool| if *has_teacher { self.distillation_weight } else { 0.0 };
        let distillation = RowWeights(has_teacher.iter().map(of_teacher).collect());

        let mut parts = Vec::new();
        if cross_entropy.any() {
            let log_p = log_softmax(rows.hidden(temperature.divide(own_scores.clone())), 1);
            parts.push(("cross_entropy", cross_entropy.mean(log_p.slice([0..count, 0..1])).neg()));
        }
        if let Some(teacher) = teacher.filter(|_| distillation.any()) {
            parts.push(("distillation", self.distillation(&rows, own_scores.clone(), teacher, &distillation)));
        }
        if self.use_ib_negatives {
            let left_out = self.left_out(&rows, &own, targets, &device);
            // Masked after the division, as the gradient of a learned temperature would be 0 times infinity.
            let candidates = log_softmax(temperature.divide(slots).mask_fill(left_out, f32::NEG_INFINITY), 1);
            let positives: Vec<usize> = (0..count).map(|row| rows.positive(row)).collect();
            let positive = candidates.gather(1, Tensor::from_data(ints(&positives, [count, 1]), &device));
            parts.push(("in_batch", weighed(positive.mean().neg(), self.in_batch_weight)));
        }
        let total = parts.iter().map(|(_, part)| part.clone()).reduce(|a, b| a + b);
        // All weights are 0 if no query of a micro-batch has the data of the weighted parts: the loss then changes
        // nothing, but has a history, as a backward pass needs one.
        let total = total.unwrap_or_else(|| own_scores.clone().sum().mul_scalar(0.0));
        let own_scores = own_scores.detach();
        Loss {
            total,
            parts,
            positive_score: own_scores.clone().slice([0..count, 0..1]).mean(),
            negative_score: rows.mean(own_scores, 1),
        }
    }

    /// Returns the teacher scores of the block's rows, if any row has some and they count.
    fn teacher<'a>(&self, targets: &'a Targets) -> Option<&'a [Vec<f32>]> {
        let teacher = targets.teacher.as_ref().filter(|_| !self.ignore_scores)?;
        Some(&teacher[targets.rows()])
    }

    /// Computes the loss of the rows that have teacher scores, `[1]`.
    fn distillation<B: KernelBackend>(
        &self,
        rows: &OwnRows<B>,
        scores: Tensor<B, 2>,
        teacher: &[Vec<f32>],
        weights: &RowWeights,
    ) -> Tensor<B, 1> {
        let student = rows.scaled(scores, self.student_scores);
        let teacher = rows.scaled(rows.values(teacher), self.teacher_scores);
        match self.distillation_loss {
            DistillationLoss::Kl => {
                let log_t = log_softmax(rows.hidden(teacher.mul_scalar(self.distillation_alpha)), 1);
                let softened = Temperature::Fixed(self.student_temperature).divide(student);
                let log_p = log_softmax(rows.hidden(softened), 1);
                let divergence = log_t.clone().exp() * (log_t - log_p);
                let squared = self.student_temperature * self.student_temperature;
                match weights.uniform() {
                    Some(weight) => weighed(sum(divergence).div_scalar(rows.count() as f64), weight * squared),
                    None => weighed(weights.mean(divergence.sum_dim(1)), squared),
                }
            }
            DistillationLoss::MarginMse => {
                let margins = |scores: Tensor<B, 2>| scores.clone().slice([0..rows.count(), 0..1]) - scores;
                let teacher = teacher.mul_scalar(self.distillation_alpha);
                weights.mean(rows.row_means((margins(student) - margins(teacher)).square(), 1))
            }
        }
    }

    /// Returns true for a document of any row that is no candidate for a query of the block: `[rows, documents of all
    /// rows]`.
    fn left_out<B: KernelBackend>(
        &self,
        rows: &OwnRows<B>,
        slots: &[usize],
        targets: &Targets,
        device: &B::Device,
    ) -> Tensor<B, 2, Bool> {
        let mut left_out = vec![false; rows.count() * slots.len()];
        for (row, query) in targets.rows().enumerate() {
            for (slot, document) in slots.iter().enumerate() {
                let own_positive = slot == rows.positive(row);
                let own_negative = rows.is_own(row, slot) && !own_positive && !self.ib_own_negatives;
                let known = self.ib_skip_known_positives && targets.positives[query].contains(document);
                left_out[row * slots.len() + slot] = own_negative || (known && !own_positive);
            }
        }
        Tensor::from_data(TensorData::new(left_out, [rows.count(), slots.len()]), device)
    }
}

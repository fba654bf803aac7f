//! Ranges of the options of training.

use std::fmt::Display;

use super::checks::{at_least, check, not_negative, positive};
use crate::error::ConfigError;
use crate::options::auto::{AutoSteps, Warmup};
use crate::options::head::{HeadActivation, HeadInit};
use crate::options::length::MODEL_LENGTH;
use crate::options::losses::DistillationLoss;
use crate::options::schedule::Schedule;
use crate::options::train::TrainOptions;

/// Largest token embedding. The models in use have 48 to 128; this only catches typing errors.
const MAX_DIM: usize = 4096;

/// Layers of a head, and numbers of a vector between them, at most: published heads have two layers and 1,536 numbers.
const MOST_HEAD_LAYERS: usize = 16;
const MAX_HEAD_SIZE: usize = 1 << 16;

/// \[CLS\], the marker, one token and \[SEP\].
const MIN_LENGTH: usize = 4;

/// Largest count that is not taken for a typing error: nothing longer can be run or kept.
const MOST: usize = 1_000_000_000;

/// Largest number of queries of a batch, documents of an example and tokens of a text: more cannot be kept in memory.
const MOST_AT_ONCE: usize = 1 << 24;

/// Checks the documents of an example.
///
/// # Errors
///
/// Fewer than two.
pub fn validate_nway(nway: usize) -> Result<(), ConfigError> {
    at_least("train.nway", nway, 2, "an example is a positive and at least one negative")
}

impl TrainOptions {
    /// Checks every range that does not depend on the data.
    ///
    /// # Errors
    ///
    /// The first option out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_batch()?;
        self.check_vectors()?;
        let too_short = "[CLS], the marker, one token and [SEP] have to fit";
        at_least("train.query_maxlen", self.query_maxlen, MIN_LENGTH, too_short)?;
        at_least("train.doc_maxlen", self.doc_maxlen, MIN_LENGTH, too_short)?;
        self.check_markers_and_expansion()?;
        self.check_learning_rate()?;
        self.check_schedule()?;
        self.check_mix()?;
        self.check_losses()?;
        self.check_regularisation()?;
        self.check_steps()
    }

    fn check_batch(&self) -> Result<(), ConfigError> {
        at_least("train.batch_size", self.batch_size, 1, "32 is the default")?;
        at_least("train.accumsteps", self.accumsteps, 1, "1 computes a batch at once")?;
        if !self.batch_size.is_multiple_of(self.accumsteps) {
            return Err(ConfigError::NotDivisible {
                batch_size: self.batch_size,
                accumsteps: self.accumsteps,
                nearest: largest_divisor(self.batch_size, self.accumsteps),
            });
        }
        for (field, found, most) in [
            ("train.batch_size", self.batch_size, MOST_AT_ONCE),
            ("train.nway", self.nway, MOST_AT_ONCE),
            ("train.query_maxlen", self.query_maxlen, MOST_AT_ONCE),
            ("train.doc_maxlen", self.doc_maxlen, MOST_AT_ONCE),
            ("train.epochs", self.epochs, MOST),
        ] {
            let fits = found <= most || found == MODEL_LENGTH && field.ends_with("maxlen");
            check(field, found, fits, &format!("{most} or less"), "no machine can run more")?;
        }
        at_least("train.maxsteps", self.maxsteps, 1, "to see the plan without training, ask for a dry run")?;
        at_least("train.keep_checkpoints", self.keep_checkpoints, 1, "a run without one cannot be resumed")?;
        at_least("train.epochs", self.epochs, 1, "1 passes over the examples once")?;
        validate_nway(self.nway)
    }

    fn check_vectors(&self) -> Result<(), ConfigError> {
        check("train.nbits", self.nbits, [1, 2, 4, 8].contains(&self.nbits), "1, 2, 4 or 8", "2 is the default")?;
        check(
            "train.dim",
            self.dim,
            (1..=MAX_DIM).contains(&self.dim),
            &format!("1 to {MAX_DIM}"),
            "128 is the default, 64 halves the size of an index",
        )?;
        self.check_head()?;
        self.check_dims()?;
        self.check_pool_factor()
    }

    fn check_learning_rate(&self) -> Result<(), ConfigError> {
        positive("train.learning_rate", self.learning_rate.unwrap_or(1.0), "5e-6 is the default")?;
        for (field, factor) in [
            ("train.head_rate_factor", self.head_rate_factor),
            ("train.embeddings_rate_factor", self.embeddings_rate_factor),
            ("train.layer_rate_decay", self.layer_rate_decay),
        ] {
            not_negative(field, factor, "1 leaves the learning rate as it is, 0 trains nothing there")?;
        }
        Ok(())
    }

    fn check_schedule(&self) -> Result<(), ConfigError> {
        if let (AutoSteps::Steps(steps), true) = (self.decay_steps, self.schedule != Schedule::WarmupStableDecay) {
            return Err(ConfigError::Contradiction {
                field: "train.decay_steps",
                found: steps.to_string(),
                other_field: "train.schedule",
                other_found: format!("\"{}\"", self.schedule),
                advice: "only \"warmup_stable_decay\" has a decay at its end; leave the steps out, or use that schedule",
            });
        }
        if self.warmup_steps == Warmup::Constant && ![Schedule::Linear, Schedule::Constant].contains(&self.schedule) {
            return Err(ConfigError::Contradiction {
                field: "train.schedule",
                found: format!("\"{}\"", self.schedule),
                other_field: "train.warmup_steps",
                other_found: "\"constant\"".to_owned(),
                advice: "that is no schedule at all; use warmup_steps = 0 for a schedule without warm-up",
            });
        }
        Ok(())
    }

    fn check_mix(&self) -> Result<(), ConfigError> {
        for weight in &self.mix_weights.0 {
            not_negative("train.mix_weights", *weight, "0 leaves a source out")?;
        }
        let weightless = !self.mix_weights.0.is_empty() && self.mix_weights.0.iter().all(|weight| *weight == 0.0);
        check("train.mix_weights", 0, !weightless, "one weight above 0 at least", "no source is left to train on")?;
        let fine = (0.0..=10.0).contains(&self.mix_exponent);
        check("train.mix_exponent", self.mix_exponent, fine, "0 to 10", "1 takes every example equally often")
    }

    fn check_regularisation(&self) -> Result<(), ConfigError> {
        not_negative("train.weight_decay", self.weight_decay, "0 turns weight decay off")?;
        not_negative("train.clip_norm", self.clip_norm, "0 turns clipping off")?;
        if let Some(dropout) = self.dropout {
            // As the float32 that it becomes: 0.99999999999 would be 1 there.
            let fine = (0.0..1.0).contains(&(dropout as f32));
            check("train.dropout", dropout, fine, "0 or more and below 1", "0 turns dropout off")?;
        }
        if let Some(decay) = self.ema_decay {
            let fine = (0.0..1.0).contains(&decay);
            check("train.ema_decay", decay, fine, "0 or more and below 1", "0.999 averages over about 1000 steps")?;
        }
        Ok(())
    }

    fn check_steps(&self) -> Result<(), ConfigError> {
        for (field, steps) in [
            ("train.save_every", self.save_every),
            ("train.schedule_horizon", self.schedule_horizon),
            ("train.decay_steps", self.decay_steps),
        ] {
            if let AutoSteps::Steps(steps) = steps {
                at_least(field, steps, 1, "use \"auto\" to have it derived from the size of the run")?;
            }
        }
        Ok(())
    }

    fn check_markers_and_expansion(&self) -> Result<(), ConfigError> {
        for (field, marker) in
            [("train.query_token_id", &self.query_token_id), ("train.doc_token_id", &self.doc_token_id)]
        {
            let marker = marker.as_deref().unwrap_or_default();
            check(
                field,
                format!("{marker:?}"),
                marker.is_empty() || !marker.trim().is_empty(),
                "one token of the vocabulary, or an empty text",
                "white space marks nothing",
            )?;
        }
        let Some(length) = self.query_expansion_length else { return Ok(()) };
        if !self.query_expansion {
            return Err(ConfigError::Contradiction {
                field: "train.query_expansion_length",
                found: length.to_string(),
                other_field: "train.query_expansion",
                other_found: "false".to_owned(),
                advice: "a length has no effect without expansion; leave one of the two out",
            });
        }
        at_least("train.query_expansion_length", length, MIN_LENGTH, "[CLS], the marker, one token and [SEP] fit")?;
        check(
            "train.query_expansion_length",
            length,
            length <= self.query_maxlen,
            &format!("train.query_maxlen = {} or less", self.query_maxlen),
            "longer queries stay whole up to train.query_maxlen, which \"model\" leaves to the encoder",
        )
    }

    fn check_head(&self) -> Result<(), ConfigError> {
        const FIELD: &str = "train.head";
        let layers = &self.head.0;
        let Some(last) = layers.last() else { return Ok(()) };
        let found = format!("\"{}\"", self.head);
        if self.head_init == HeadInit::Pca {
            return Err(ConfigError::Contradiction {
                field: "train.head_init",
                found: "\"pca\"".to_owned(),
                other_field: FIELD,
                other_found: found,
                advice: "principal components make one matrix; leave one of the two out",
            });
        }
        let check = |fine, expected: &str, advice| check(FIELD, &found, fine, expected, advice);
        let few = layers.len() <= MOST_HEAD_LAYERS;
        check(few, &format!("{MOST_HEAD_LAYERS} layers or fewer"), "published heads have one or two")?;
        let sizes = layers[..layers.len() - 1].iter().map(|layer| layer.size.unwrap_or(self.dim));
        let fine = sizes.into_iter().all(|size| (1..=MAX_HEAD_SIZE).contains(&size));
        check(fine, &format!("sizes of 1 to {MAX_HEAD_SIZE}"), "768 is the hidden size of a base encoder")?;
        check(
            last.size.is_none_or(|size| size == self.dim),
            &format!("\"dim\" or train.dim = {} as the size of the last layer", self.dim),
            "the last layer gives the vectors that are scored",
        )?;
        if last.residual || last.activation == HeadActivation::Identity {
            if self.use_relu && last.residual {
                return Err(ConfigError::Contradiction {
                    field: FIELD,
                    found,
                    other_field: "train.use_relu",
                    other_found: "true".to_owned(),
                    advice: "the ReLU would come behind a residual; leave one of the two out",
                });
            }
            return Ok(());
        }
        // The ReLU at the end has an option of its own, which would take one that is written here away again.
        if (last.activation == HeadActivation::Relu) != self.use_relu {
            return Err(ConfigError::Contradiction {
                field: FIELD,
                found,
                other_field: "train.use_relu",
                other_found: self.use_relu.to_string(),
                advice: "a ReLU at the end is use_relu = true; the last layer takes no other activation beside it",
            });
        }
        Ok(())
    }

    fn check_dims(&self) -> Result<(), ConfigError> {
        if let Some(first) = self.dims.0.first() {
            let check = |fine, expected: &str, advice| check("train.dims", &self.dims, fine, expected, advice);
            let whole = format!("train.dim = {} as the first size", self.dim);
            check(*first == self.dim, &whole, "vectors of full size are trained too; set train.dim if it is another")?;
            let falls = self.dims.0.windows(2).all(|pair| pair[1] < pair[0]);
            check(falls, "sizes that fall from one to the next", "each is named once, the largest first")?;
            check(!self.dims.0.contains(&0), "sizes of 1 or more", "half of the size before is a usual choice")?;
        }
        Ok(())
    }

    fn check_pool_factor(&self) -> Result<(), ConfigError> {
        if let Some(factor) = self.pool_factor {
            let fine = factor.is_finite() && factor >= 1.0;
            check(
                "train.pool_factor",
                factor,
                fine,
                "a finite number, 1 or more",
                "2 keeps half of a document's vectors",
            )?;
        }
        Ok(())
    }

    fn check_losses(&self) -> Result<(), ConfigError> {
        positive("train.distillation_alpha", self.distillation_alpha, "1 takes teacher scores as they are")?;
        positive("train.temperature", self.temperature, "1 leaves scores as they are; 0.02 to 0.2 sharpen them")?;
        positive("train.teacher_temperature", self.teacher_temperature, "1 leaves scores as they are")?;
        positive("train.student_temperature", self.student_temperature, "1 leaves scores as they are")?;
        let weights = [
            ("train.cross_entropy_weight", self.cross_entropy_weight),
            ("train.distillation_weight", Some(self.distillation_weight)),
        ];
        for (field, weight) in weights {
            not_negative(field, weight.unwrap_or(1.0), "0 turns this part of the loss off")?;
        }
        positive(
            "train.in_batch_weight",
            self.in_batch_weight,
            "use_ib_negatives = false leaves the in-batch loss out",
        )?;
        self.check_parts_of_the_loss()
    }

    /// Checks that no two parts of the loss contradict each other, and that one is left.
    fn check_parts_of_the_loss(&self) -> Result<(), ConfigError> {
        let contradiction = |field, found: &dyn Display, other_field, other_found: &dyn Display, advice| {
            let (found, other_found) = (found.to_string(), other_found.to_string());
            Err(ConfigError::Contradiction { field, found, other_field, other_found, advice })
        };
        if self.teacher_temperature != 1.0 && self.distillation_alpha != 1.0 {
            return contradiction(
                "train.teacher_temperature",
                &self.teacher_temperature,
                "train.distillation_alpha",
                &self.distillation_alpha,
                "one is the inverse of the other; use one of the two",
            );
        }
        if self.distillation_loss == DistillationLoss::MarginMse {
            let softened = [
                ("train.teacher_temperature", self.teacher_temperature),
                ("train.student_temperature", self.student_temperature),
            ];
            if let Some((field, found)) = softened.into_iter().find(|(_, temperature)| *temperature != 1.0) {
                let advice = "margins have no softmax and so no temperature; leave it out, or use \"kl\"";
                return contradiction(field, &found, "train.distillation_loss", &"\"margin_mse\"", advice);
            }
        }
        if !self.use_ib_negatives && self.in_batch_weight != 1.0 {
            let advice = "there is no in-batch loss to weigh; leave the weight out, or use in-batch negatives";
            return contradiction(
                "train.in_batch_weight",
                &self.in_batch_weight,
                "train.use_ib_negatives",
                &false,
                advice,
            );
        }
        if self.cross_entropy_weight == Some(0.0) && self.distillation_weight == 0.0 && !self.use_ib_negatives {
            let advice = "no part of the loss is left to train with; give one of them a weight";
            return contradiction("train.cross_entropy_weight", &0, "train.distillation_weight", &0, advice);
        }
        Ok(())
    }
}

/// Largest divisor of `number` that is at most `limit`; 1 divides everything.
fn largest_divisor(number: usize, limit: usize) -> usize {
    (1..=limit.min(number)).rev().find(|divisor| number.is_multiple_of(*divisor)).unwrap_or(1)
}

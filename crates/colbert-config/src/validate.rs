//! Ranges of options, checked before any data is read.

mod checks;
pub(crate) mod train;

use crate::error::ConfigError;
use crate::options::Options;
use crate::options::data::DataOptions;
use crate::options::evaluation::EvaluationOptions;
use crate::options::export::ExportLayout;
use crate::options::mix::MixBatches;
use crate::options::negatives::{NegativeOptions, Refresh, TriplePolicy};
use checks::{at_least, check, positive};

impl Options {
    /// Checks every section.
    ///
    /// # Errors
    ///
    /// The first option out of range, in the order of the sections.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check(
            "license",
            format!("\"{}\"", self.license),
            self.license.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c)),
            "letters, digits and -_.+",
            "such as apache-2.0; leave it out to state none",
        )?;
        self.validate_layout()?;
        for (field, path) in [
            ("output", Some(&self.output)),
            ("data.all_documents", self.data.all_documents.as_ref()),
            ("data.dev", self.data.dev.as_ref()),
            ("data.test", self.data.test.as_ref()),
            ("negatives.miner_model", self.negatives.miner_model.as_ref()),
            ("negatives.teacher", self.negatives.teacher.as_ref()),
            ("negatives.teacher_cache", self.negatives.teacher_cache.as_ref()),
        ]
        .into_iter()
        .chain(self.data.train.0.iter().map(|path| ("data.train", Some(path))))
        {
            if let Some(path) = path.filter(|path| path.to_str().is_none()) {
                return Err(ConfigError::PathNotUnicode { field, path: path.clone() });
            }
        }
        if self.train.draw_negatives && self.negatives.triples == TriplePolicy::Reference {
            return Err(ConfigError::Contradiction {
                field: "train.draw_negatives",
                found: "true".to_owned(),
                other_field: "negatives.triples",
                other_found: "\"reference\"".to_owned(),
                advice: "the reference makes a fixed number of triples and draws nothing later; use one of the two",
            });
        }
        let mixes = !self.train.mix_weights.0.is_empty()
            || self.train.mix_exponent != 1.0
            || self.train.mix_batches == MixBatches::OneSource;
        if mixes && self.negatives.refresh == Refresh::Epoch {
            return Err(ConfigError::Contradiction {
                field: "negatives.refresh",
                found: "\"epoch\"".to_owned(),
                other_field: "train.mix_weights, mix_exponent or mix_batches",
                other_found: "set".to_owned(),
                advice: "examples that are made again do not keep their places among the sources; use one of the two",
            });
        }
        self.data.validate()?;
        self.negatives.validate()?;
        self.train.validate()?;
        self.evaluation.validate()
    }

    fn validate_layout(&self) -> Result<(), ConfigError> {
        if self.train.pool_factor.is_some_and(|factor| factor > 1.0) && self.export_layout == ExportLayout::All {
            return Err(ConfigError::Contradiction {
                field: "train.pool_factor",
                found: self.train.pool_factor.unwrap_or_default().to_string(),
                other_field: "export_layout",
                other_found: "\"all\"".to_owned(),
                advice: "only export_layout = \"sentence-transformers\" has a module that pools; for the others leave it \
                         out, and pool with ragtrainer encode --pool-factor",
            });
        }
        if self.export_onnx && self.export_layout == ExportLayout::SentenceTransformers {
            return Err(ConfigError::Contradiction {
                field: "export_onnx",
                found: "true".to_owned(),
                other_field: "export_layout",
                other_found: "\"sentence-transformers\"".to_owned(),
                advice: "next-plaid, which model.onnx is for, reads the layout \"all\" alone",
            });
        }
        Ok(())
    }
}

impl DataOptions {
    /// Checks that dev queries are given or held out, not both, and that the two labels differ.
    ///
    /// # Errors
    ///
    /// The first of the two that does not hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.dev_split > 0
            && let Some(dev) = &self.dev
        {
            return Err(ConfigError::Contradiction {
                field: "data.dev_split",
                found: self.dev_split.to_string(),
                other_field: "data.dev",
                other_found: dev.display().to_string(),
                advice: "use one of the two",
            });
        }
        if self.positive_label == self.negative_label {
            return Err(ConfigError::Contradiction {
                field: "data.positive_label",
                found: format!("\"{}\"", self.positive_label),
                other_field: "data.negative_label",
                other_found: format!("\"{}\"", self.negative_label),
                advice: "use two different labels",
            });
        }
        Ok(())
    }
}

impl NegativeOptions {
    /// Checks that the window of ranks is not empty (if it is used), and that the options fit together.
    ///
    /// # Errors
    ///
    /// The first option out of range, or at odds with another one.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.mines() && self.hard_negative_minimum_rank >= self.hard_negative_maximum_rank {
            return Err(ConfigError::Contradiction {
                field: "negatives.hard_negative_minimum_rank",
                found: self.hard_negative_minimum_rank.to_string(),
                other_field: "negatives.hard_negative_maximum_rank",
                other_found: self.hard_negative_maximum_rank.to_string(),
                advice: "no rank is left to mine from; make the minimum smaller than the maximum",
            });
        }
        if self.refresh == Refresh::Epoch && self.num_new_negatives == 0 {
            return Err(ConfigError::Contradiction {
                field: "negatives.refresh",
                found: "\"epoch\"".to_owned(),
                other_field: "negatives.num_new_negatives",
                other_found: "0".to_owned(),
                advice: "there are no new negatives to choose again; ask for some, or leave refresh out",
            });
        }
        if let Some(least) = self.min_negatives {
            at_least("negatives.min_negatives", least, 1, "\"auto\" is one less than train.nway")?;
        }
        if let (Refresh::Epoch, Some(teacher)) = (self.refresh, &self.teacher) {
            return Err(ConfigError::Contradiction {
                field: "negatives.refresh",
                found: "\"epoch\"".to_owned(),
                other_field: "negatives.teacher",
                other_found: format!("\"{}\"", teacher.display()),
                advice: "a teacher scores the candidates of one choice; leave one of the two out",
            });
        }
        if let Some(share) = self.positive_score_share {
            positive("negatives.positive_score_share", share, "0.95 is the default")?;
        }
        Ok(())
    }
}

impl EvaluationOptions {
    /// Checks that there is something to measure.
    ///
    /// # Errors
    ///
    /// The first option out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if let Some(size) = self.pool_size {
            at_least("evaluation.pool_size", size, 1, "leave it out to rank the whole corpus")?;
        }
        if let Some(queries) = self.max_queries {
            at_least("evaluation.max_queries", queries, 1, "leave it out to use all dev queries")?;
        }
        if let Some(patience) = self.patience {
            at_least("evaluation.patience", patience, 1, "leave it out to train to the last step")?;
        }
        let fine = self.average_best != 1;
        check(
            "evaluation.average_best",
            self.average_best,
            fine,
            "0, or 2 or more",
            "the mean of one model is that model",
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::length::MODEL_LENGTH;
    use crate::options::train::TrainOptions;
    use crate::sources::OptionSources;
    use serde_json::{Value, json};

    fn with(changes: &[(&str, Value)]) -> Result<(), ConfigError> {
        let overrides = changes.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        OptionSources::new().overrides(overrides).build().unwrap().validate()
    }

    #[test]
    fn the_defaults_are_in_range() {
        Options::default().validate().unwrap();
    }

    #[test]
    fn the_ends_of_each_range_are_in_and_the_next_value_is_out() {
        for (key, inside, outside) in [
            ("train.batch_size", json!(1), json!(0)),
            ("train.accumsteps", json!(1), json!(0)),
            ("train.batch_size", json!(1 << 24), json!((1 << 24) + 1)),
            ("train.epochs", json!(1_000_000_000), json!(u64::MAX)),
            ("train.nway", json!(1 << 24), json!(u64::MAX)),
            ("train.doc_maxlen", json!(1 << 24), json!(u64::MAX - 1)),
            ("train.query_expansion_length", json!(4), json!(3)),
            ("train.query_expansion_length", json!(32), json!(33)),
            ("train.query_token_id", json!("[Q] "), json!(" ")),
            ("train.doc_token_id", json!(""), json!("\t")),
            ("train.maxsteps", json!(1), json!(0)),
            ("train.epochs", json!(1), json!(0)),
            ("train.nway", json!(2), json!(1)),
            ("train.nbits", json!(8), json!(3)),
            ("train.dim", json!(1), json!(0)),
            ("train.dim", json!(4096), json!(4097)),
            ("train.query_maxlen", json!(4), json!(3)),
            ("train.doc_maxlen", json!(4), json!(3)),
            ("train.learning_rate", json!(1e-300), json!(0.0)),
            ("train.learning_rate", json!(1), json!(-0.5)),
            ("train.distillation_alpha", json!(0.1), json!(0)),
            ("train.head_rate_factor", json!(10), json!(-1)),
            ("train.embeddings_rate_factor", json!(0), json!(-1)),
            ("train.layer_rate_decay", json!(0.9), json!(-0.9)),
            ("train.mix_exponent", json!(0), json!(-0.5)),
            ("train.mix_exponent", json!(10), json!(11)),
            ("train.temperature", json!(0.02), json!(0)),
            ("train.teacher_temperature", json!(0.25), json!(0)),
            ("train.student_temperature", json!(4), json!(-1)),
            ("train.cross_entropy_weight", json!(0), json!(-0.3)),
            ("train.distillation_weight", json!(0), json!(-0.3)),
            ("train.in_batch_weight", json!(0.3), json!(0)),
            ("train.weight_decay", json!(0), json!(-0.1)),
            ("train.clip_norm", json!(0), json!(-2)),
            ("train.pool_factor", json!(1), json!(0.5)),
            ("train.dropout", json!(0), json!(-0.1)),
            ("train.dropout", json!(0.99), json!(1)),
            ("train.dropout", json!(0.999), json!(0.999_999_999_99)),
            ("train.save_every", json!(1), json!(0)),
            ("train.keep_checkpoints", json!(1), json!(0)),
            ("train.schedule_horizon", json!(1), json!(0)),
            ("negatives.positive_score_share", json!(1), json!(0)),
            ("negatives.min_negatives", json!(1), json!(0)),
            ("evaluation.pool_size", json!(1), json!(0)),
            ("evaluation.max_queries", json!(1), json!(0)),
            ("evaluation.patience", json!(1), json!(0)),
            ("evaluation.average_best", json!(2), json!(1)),
            ("train.ema_decay", json!(0.999), json!(1)),
        ] {
            with(&[(key, inside)]).unwrap();
            match with(&[(key, outside.clone())]).unwrap_err() {
                ConfigError::OutOfRange { field, found, .. } => {
                    assert_eq!((field, found), (key, outside.to_string().trim_end_matches(".0").to_owned()));
                }
                other => panic!("{key} = {outside}: {other}"),
            }
        }
    }

    #[test]
    fn a_head_ends_with_dim_and_has_sizes_that_can_be() {
        let head = |text: &str, use_relu: bool| {
            with(&[("train.head", json!(text)), ("train.dim", json!(64)), ("train.use_relu", json!(use_relu))])
        };
        for fine in ["", "dim", "64", "768 gelu residual, dim", "1 bias tanh, 65536, dim residual gelu", "8, dim silu"]
        {
            head(fine, false).unwrap();
        }
        head("768 gelu, dim", true).unwrap();
        head("768 gelu, dim relu", true).unwrap();
        let many = "8, ".repeat(16) + "dim";
        for (text, expected) in [
            ("768", "\"dim\" or train.dim = 64 as the size of the last layer"),
            ("dim, 768 gelu", "\"dim\" or train.dim = 64"),
            ("0, dim", "sizes of 1 to 65536"),
            ("0", "\"dim\" or train.dim = 64"),
            ("65537, dim", "sizes of 1 to 65536"),
            (many.as_str(), "16 layers or fewer"),
        ] {
            match head(text, false).unwrap_err() {
                ConfigError::OutOfRange { field: "train.head", expected: own, .. } => {
                    assert!(own.contains(expected), "{text}: {own}");
                }
                other => panic!("{text}: {other}"),
            }
        }
        for (text, use_relu) in [("8, dim relu", false), ("8, dim gelu", true), ("8, dim residual", true)] {
            let error = head(text, use_relu).unwrap_err();
            assert!(
                matches!(error, ConfigError::Contradiction { other_field: "train.use_relu", .. }),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn principal_components_make_one_matrix() {
        with(&[("train.head_init", json!("pca"))]).unwrap();
        with(&[("train.head_init", json!("random")), ("train.head", json!("768 gelu, dim"))]).unwrap();
        let error = with(&[("train.head_init", json!("pca")), ("train.head", json!("dim"))]).unwrap_err();
        assert!(matches!(error, ConfigError::Contradiction { other_field: "train.head", .. }), "{error}");
    }

    #[test]
    fn sizes_fall_from_the_size_of_a_vector() {
        let sizes = |sizes: Value| with(&[("train.dims", sizes), ("train.dim", json!(96))]);
        for fine in [json!(null), json!([96]), json!("96, 48, 1")] {
            sizes(fine).unwrap();
        }
        for (wrong, part) in [
            (json!([128, 96]), "expected train.dim = 96 as the first size"),
            (json!([48, 24]), "expected train.dim = 96 as the first size"),
            (json!([96, 24, 48]), "expected sizes that fall"),
            (json!([96, 48, 48]), "train.dims is 96, 48, 48, expected sizes that fall"),
            (json!("96, 96"), "expected sizes that fall"),
            (json!([96, 0]), "expected sizes of 1 or more"),
        ] {
            let error = sizes(wrong.clone()).unwrap_err().to_string();
            assert!(error.contains(part), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_length_is_a_number_or_the_models_and_an_expansion_fits_into_it() {
        with(&[("train.doc_maxlen", json!("model")), ("train.query_maxlen", json!("Model"))]).unwrap();
        with(&[("train.query_maxlen", json!("model")), ("train.query_expansion_length", json!(100))]).unwrap();
        let built = OptionSources::new().overrides([("train.doc_maxlen".to_owned(), json!("model"))]).build().unwrap();
        assert_eq!(built.train.doc_maxlen, MODEL_LENGTH);
        assert!(built.entries().contains(&("train.doc_maxlen", json!("model"))));
        for largest in [json!(u64::MAX), json!(u64::MAX.to_string())] {
            let error = with(&[("train.doc_maxlen", largest)]);
            assert!(matches!(error, Err(ConfigError::OutOfRange { field: "train.doc_maxlen", .. })));
        }
        let error = with(&[("train.query_expansion", json!(false)), ("train.query_expansion_length", json!(8))]);
        assert!(matches!(error, Err(ConfigError::Contradiction { field: "train.query_expansion_length", .. })));
        let pooled = |layout: &str| with(&[("train.pool_factor", json!(2)), ("export_layout", json!(layout))]);
        pooled("sentence-transformers").unwrap();
        let error = pooled("all").unwrap_err();
        assert!(matches!(error, ConfigError::Contradiction { field: "train.pool_factor", .. }), "{error}");
        let onnx = with(&[("export_onnx", json!(true)), ("export_layout", json!("sentence-transformers"))]);
        assert!(onnx.unwrap_err().to_string().contains("next-plaid"));
    }

    #[test]
    fn numbers_that_are_none_are_out() {
        for number in [f64::NAN, f64::INFINITY] {
            for change in [
                TrainOptions { learning_rate: Some(number), ..TrainOptions::default() },
                TrainOptions { temperature: number, ..TrainOptions::default() },
                TrainOptions { mix_exponent: number, ..TrainOptions::default() },
                TrainOptions { weight_decay: number, ..TrainOptions::default() },
                TrainOptions { clip_norm: number, ..TrainOptions::default() },
                TrainOptions { distillation_alpha: number, ..TrainOptions::default() },
                TrainOptions { dropout: Some(number), ..TrainOptions::default() },
            ] {
                assert!(matches!(change.validate(), Err(ConfigError::OutOfRange { .. })), "{change:?}");
            }
        }
    }

    #[test]
    fn messages_say_what_to_do() {
        assert_eq!(
            with(&[("train.nway", json!(1))]).unwrap_err().to_string(),
            "train.nway is 1, expected 2 or more: an example is a positive and at least one negative"
        );
        assert_eq!(
            with(&[("train.accumsteps", json!(5))]).unwrap_err().to_string(),
            "train.batch_size is 32, which train.accumsteps = 5 does not divide: micro-batches must be equally large, \
             so use accumsteps = 4 or another divisor of 32"
        );
        assert!(matches!(
            with(&[("train.accumsteps", json!(64))]).unwrap_err(),
            ConfigError::NotDivisible { nearest: 32, .. }
        ));
        assert_eq!(
            with(&[("data.negative_label", json!(1))]).unwrap_err().to_string(),
            "data.positive_label is \"1\", but data.negative_label is \"1\": use two different labels"
        );
    }

    #[test]
    fn options_of_a_recipe_that_contradict_each_other_are_refused() {
        for (changes, expected) in [
            (
                vec![("train.teacher_temperature", json!(2)), ("train.distillation_alpha", json!(0.5))],
                "train.teacher_temperature is 2, but train.distillation_alpha is 0.5: one is the inverse of the other; \
                 use one of the two",
            ),
            (
                vec![("train.student_temperature", json!(2)), ("train.distillation_loss", json!("margin_mse"))],
                "train.student_temperature is 2, but train.distillation_loss is \"margin_mse\": margins have no softmax \
                 and so no temperature; leave it out, or use \"kl\"",
            ),
            (
                vec![("train.in_batch_weight", json!(0.5)), ("train.use_ib_negatives", json!(false))],
                "train.in_batch_weight is 0.5, but train.use_ib_negatives is false: there is no in-batch loss to weigh; \
                 leave the weight out, or use in-batch negatives",
            ),
            (
                vec![("train.schedule", json!("cosine")), ("train.warmup_steps", json!("constant"))],
                "train.schedule is \"cosine\", but train.warmup_steps is \"constant\": that is no schedule at all; use \
                 warmup_steps = 0 for a schedule without warm-up",
            ),
            (
                vec![("train.decay_steps", json!(7))],
                "train.decay_steps is 7, but train.schedule is \"linear\": only \"warmup_stable_decay\" has a decay at its \
                 end; leave the steps out, or use that schedule",
            ),
            (
                vec![("train.mix_weights", json!("0, 0"))],
                "train.mix_weights is 0, expected one weight above 0 at least: no source is left to train on",
            ),
            (
                vec![("train.mix_exponent", json!(0.5)), ("negatives.refresh", json!("epoch"))],
                "negatives.refresh is \"epoch\", but train.mix_weights, mix_exponent or mix_batches is set: examples that \
                 are made again do not keep their places among the sources; use one of the two",
            ),
            (
                vec![("train.draw_negatives", json!(true)), ("negatives.triples", json!("reference"))],
                "train.draw_negatives is true, but negatives.triples is \"reference\": the reference makes a fixed number \
                 of triples and draws nothing later; use one of the two",
            ),
            (
                vec![
                    ("train.cross_entropy_weight", json!(0)),
                    ("train.distillation_weight", json!(0)),
                    ("train.use_ib_negatives", json!(false)),
                ],
                "train.cross_entropy_weight is 0, but train.distillation_weight is 0: no part of the loss is left to \
                 train with; give one of them a weight",
            ),
        ] {
            assert_eq!(with(&changes).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn an_empty_window_of_ranks_matters_only_where_it_is_used() {
        let window = ("negatives.hard_negative_minimum_rank", json!(110));
        assert!(matches!(with(std::slice::from_ref(&window)), Err(ConfigError::Contradiction { .. })));
        with(&[window.clone(), ("negatives.mine_hard_negatives", json!(false))]).unwrap();
        with(&[window, ("negatives.num_new_negatives", json!(0))]).unwrap();
        with(&[("negatives.hard_negative_minimum_rank", json!(109))]).unwrap();
    }
}

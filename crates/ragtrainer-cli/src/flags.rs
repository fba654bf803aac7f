//! Options as flags: one table from flag to option, so that file, environment and command line share their names.

use std::collections::BTreeSet;
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use ragtrainer::config::{Layers, Miner, Options};
use ragtrainer::{Inheritance, inherit};
use serde_json::Value;

use crate::progress::fetched;

/// A flag and the option it sets.
struct Flag {
    long: &'static str,
    option: &'static str,
    value: &'static str,
    help: &'static str,
    heading: &'static str,
}

const RUN: &str = "Run";
const DATA: &str = "Data";
const NEGATIVES: &str = "Negatives";
const TRAIN: &str = "Training (names and defaults of RAGTrainer.train)";
const MORE: &str = "Training, further";
const EVALUATION: &str = "Evaluation";

const fn flag(
    heading: &'static str,
    long: &'static str,
    option: &'static str,
    value: &'static str,
    help: &'static str,
) -> Flag {
    Flag { long, option, value, help, heading }
}

#[rustfmt::skip]
const FLAGS: &[Flag] = &[
    flag(RUN, "model-name", "model_name", "NAME", "Label of the trained model"),
    flag(RUN, "license", "license", "NAME", "Licence of the model, for its card: apache-2.0, mit, ..."),
    flag(RUN, "language-code", "language_code", "CODE", "Language of the texts, for the BM25 miner [default: en]"),
    flag(RUN, "pretrained-model-name", "pretrained_model_name", "MODEL", "Encoder or ColBERT to start from: a directory, or org/name or org/name@revision on the Hugging Face hub"),
    flag(RUN, "inherit-settings", "inherit_settings", "BOOL", "Take over lengths, masks and sizes of a ColBERT to start from where they are not set [default: true]"),
    flag(RUN, "output", "output", "DIR", "Folder of the run; the best model is written to DIR/best"),
    flag(RUN, "overwrite", "overwrite", "BOOL", "Replace a run that is already in the folder"),
    flag(RUN, "backend", "backend", "NAME", "Backend and device: auto, flex, cuda, cuda:1, libtorch, libtorch:cuda:1 [default: auto]"),
    flag(RUN, "export-dtype", "export_dtype", "NAME", "Numbers in the model directories that are written: f32, f16, bf16 [default: f32]"),
    flag(RUN, "export-onnx", "export_onnx", "BOOL", "Write model.onnx too, for next-plaid [default: false]"),
    flag(DATA, "train-data", "data.train", "PATH", "Training data: JSONL or TSV file, BEIR folder, or exported folder"),
    flag(DATA, "format", "data.format", "NAME", "auto, pairs, labeled_pairs, triplets, scored, tevatron, pylate, beir, reference [default: auto]"),
    flag(DATA, "columns", "data.columns", "ROLES", "Columns and their roles, such as \"question=query, answer=positive\""),
    flag(DATA, "all-documents", "data.all_documents", "PATH", "Further documents to draw negatives from"),
    flag(DATA, "dev-data", "data.dev", "DIR", "BEIR folder whose dev queries choose the best model"),
    flag(DATA, "test-data", "data.test", "DIR", "BEIR folder whose test queries are measured before and after"),
    flag(DATA, "dev-split", "data.dev_split", "N", "Split so many queries off as dev queries where there are none [default: 0]"),
    flag(DATA, "positive-label", "data.positive_label", "LABEL", "Label of a positive in labelled pairs [default: 1]"),
    flag(DATA, "negative-label", "data.negative_label", "LABEL", "Label of a negative in labelled pairs [default: 0]"),
    flag(DATA, "skip-bad-rows", "data.skip_bad_rows", "BOOL", "Leave wrong rows out and count them [default: false]"),
    flag(NEGATIVES, "num-new-negatives", "negatives.num_new_negatives", "N", "New negatives a query [default: 10]"),
    flag(NEGATIVES, "mine-hard-negatives", "negatives.mine_hard_negatives", "BOOL", "By rank rather than at random [default: true]"),
    flag(NEGATIVES, "miner", "negatives.miner", "NAME", "Who ranks: bm25, dense, late_interaction (the model that is trained), random [default: bm25]"),
    flag(NEGATIVES, "miner-model", "negatives.miner_model", "MODEL", "Sentence encoder (directory or name on the hub) of the dense miner; with late_interaction, of its candidates"),
    flag(NEGATIVES, "hard-negative-model-size", "negatives.hard_negative_model_size", "SIZE", "small, base, large: the reference's sentence encoder to name if there is no --miner-model [default: small]"),
    flag(NEGATIVES, "miner-query-prefix", "negatives.miner_query_prefix", "TEXT", "Before every query, for the sentence encoder [default: its own]"),
    flag(NEGATIVES, "miner-document-prefix", "negatives.miner_document_prefix", "TEXT", "Before every document, for the sentence encoder [default: its own]"),
    flag(NEGATIVES, "refresh", "negatives.refresh", "NAME", "Choose negatives anew: never, or every epoch [default: never]"),
    flag(NEGATIVES, "hard-negative-minimum-rank", "negatives.hard_negative_minimum_rank", "RANK", "Never use candidates ranked better than this [default: 10]"),
    flag(NEGATIVES, "hard-negative-maximum-rank", "negatives.hard_negative_maximum_rank", "RANK", "Never use candidates ranked worse than this [default: 110]"),
    flag(NEGATIVES, "positive-score-share", "negatives.positive_score_share", "SHARE", "Drop candidates that score above this share of the positive's score [default: 0.95]"),
    flag(NEGATIVES, "triples", "negatives.triples", "NAME", "all, or the reference's numbers of triples [default: all]"),
    flag(NEGATIVES, "negatives-seed", "negatives.seed", "N", "Seed of the sampling [default: 42]"),
    flag(TRAIN, "batch-size", "train.batch_size", "N", "Queries per optimizer step [default: 32]"),
    flag(TRAIN, "nbits", "train.nbits", "N", "Bits per residual of a later index [default: 2]"),
    flag(TRAIN, "maxsteps", "train.maxsteps", "N", "At most this many steps [default: 500000]"),
    flag(TRAIN, "use-ib-negatives", "train.use_ib_negatives", "BOOL", "In-batch negatives [default: true]"),
    flag(TRAIN, "learning-rate", "train.learning_rate", "RATE", "Peak learning rate [default: 5e-6]"),
    flag(TRAIN, "dim", "train.dim", "N", "Size of a token vector [default: 128]"),
    flag(TRAIN, "doc-maxlen", "train.doc_maxlen", "TOKENS", "Longest document [default: 256]"),
    flag(TRAIN, "use-relu", "train.use_relu", "BOOL", "ReLU after the projection [default: false]"),
    flag(TRAIN, "warmup-steps", "train.warmup_steps", "N|auto|constant", "Steps of rising learning rate [default: auto, a tenth]"),
    flag(TRAIN, "accumsteps", "train.accumsteps", "N", "Cut a batch into so many pieces to save memory [default: 1]"),
    flag(MORE, "query-maxlen", "train.query_maxlen", "TOKENS", "Length of every query [default: 32]"),
    flag(MORE, "nway", "train.nway", "N", "Documents per query in an example [default: 2]"),
    flag(MORE, "epochs", "train.epochs", "N", "Passes over the examples [default: 1]"),
    flag(MORE, "seed", "train.seed", "N", "Order of examples, dropout, new weights [default: 12345]"),
    flag(MORE, "shuffle", "train.shuffle", "BOOL", "Shuffle every epoch [default: true]"),
    flag(MORE, "weight-decay", "train.weight_decay", "X", "AdamW's decoupled weight decay [default: 0.01]"),
    flag(MORE, "clip-norm", "train.clip_norm", "X", "Clip the global gradient norm to this; 0 is off [default: 2.0]"),
    flag(MORE, "dropout", "train.dropout", "P", "In place of the encoder's own dropout"),
    flag(MORE, "attend-to-mask-tokens", "train.attend_to_mask_tokens", "BOOL", "Let [MASK] expansion be attended to [default: false]"),
    flag(MORE, "query-expansion", "train.query_expansion", "BOOL", "Fill queries up with [MASK] [default: true]"),
    flag(MORE, "mask-punctuation", "train.mask_punctuation", "BOOL", "Leave punctuation out of scoring [default: true]"),
    flag(MORE, "schedule-horizon", "train.schedule_horizon", "N|auto", "Step at which the learning rate reaches 0 [default: auto, the last]"),
    flag(MORE, "warmup-from-zero", "train.warmup_from_zero", "BOOL", "First step with learning rate 0, as the reference [default: false]"),
    flag(MORE, "save-every", "train.save_every", "N|auto", "Steps between checkpoints and evaluations [default: auto, a tenth]"),
    flag(MORE, "keep-checkpoints", "train.keep_checkpoints", "N", "Keep the newest so many checkpoints [default: 2]"),
    flag(MORE, "keep-best-checkpoints", "train.keep_best_checkpoints", "N", "Keep besides those that were best on dev queries [default: 0]"),
    flag(MORE, "ib-scope", "train.ib_scope", "NAME", "In-batch negatives from the whole batch or the micro_batch [default: batch]"),
    flag(MORE, "ib-skip-known-positives", "train.ib_skip_known_positives", "BOOL", "A query's other positives are no negatives [default: true]"),
    flag(MORE, "distillation-alpha", "train.distillation_alpha", "X", "Factor on teacher scores [default: 1.0]"),
    flag(MORE, "ignore-scores", "train.ignore_scores", "BOOL", "Use labels though there are teacher scores [default: false]"),
    flag(MORE, "precision", "train.precision", "NAME", "Factors of matrix products: f32, tf32 (GPUs), bf16, f16 (with loss scaling), or auto: the one that is fast here [default: f32]"),
    flag(MORE, "memory-limit", "train.memory_limit", "SIZE", "Cut batches so that training takes at most this, such as 6GB, or auto"),
    flag(MORE, "ema-decay", "train.ema_decay", "X", "Average the weights over the steps with this decay, measured at the end"),
    flag(MORE, "on-nonfinite", "train.on_nonfinite", "stop|skip", "What to do when a loss or gradient is not finite [default: stop]"),
    flag(EVALUATION, "metric", "evaluation.metric", "NAME", "ndcg@K, mrr@K, recall@K, success@K, loss [default: ndcg@10]"),
    flag(EVALUATION, "pool-size", "evaluation.pool_size", "N", "Rank dev queries against so many documents [default: all]"),
    flag(EVALUATION, "max-queries", "evaluation.max_queries", "N", "Use so many dev queries [default: all]"),
    flag(EVALUATION, "evaluation-seed", "evaluation.seed", "N", "Seed of those choices and of --dev-split [default: 5]"),
    flag(EVALUATION, "patience", "evaluation.patience", "N", "End after so many evaluations in a row without a better one"),
    flag(EVALUATION, "average-best", "evaluation.average_best", "K", "At the end, measure the mean of the K best models too [default: 0]"),
    flag(EVALUATION, "interpolate", "evaluation.interpolate", "BOOL", "At the end, measure mixtures of best and start too [default: false]"),
];

/// The options of a command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct OptionFlags {
    config: Vec<String>,
    overrides: Vec<(String, Value)>,
}

impl OptionFlags {
    /// Defaults, then the config files, then the environment, then the flags. Models that they name on the hub are fetched.
    pub(crate) fn options(&self) -> anyhow::Result<Options> {
        Ok(self.named_options(Layers::new())?.0)
    }

    /// The same, with the settings of the model that they start from where no place names them.
    pub(crate) fn inherited_options(&self) -> anyhow::Result<(Options, Inheritance)> {
        self.inherited_options_above(Layers::new())
    }

    /// The same on top of other options.
    pub(crate) fn inherited_options_above(&self, layers: Layers) -> anyhow::Result<(Options, Inheritance)> {
        let (mut options, named) = self.named_options(layers)?;
        let inheritance = inherit(&mut options, &named)?;
        options.validate()?;
        Ok((options, inheritance))
    }

    fn named_options(&self, mut layers: Layers) -> anyhow::Result<(Options, BTreeSet<String>)> {
        for path in &self.config {
            layers = layers.file(path)?;
        }
        let (options, named) = layers.from_env()?.overrides(self.overrides.iter().cloned()).build_named()?;
        options.validate()?;
        if !options.pretrained_model_name.is_empty() {
            fetched(Path::new(&options.pretrained_model_name))?;
        }
        let negatives = &options.negatives;
        if let (Some(model), Miner::Dense | Miner::LateInteraction) = (&negatives.miner_model, negatives.miner) {
            fetched(model)?;
        }
        Ok((options, named))
    }
}

impl Args for OptionFlags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config").long("config").value_name("FILE").action(ArgAction::Append);
        let config = config.help("TOML, YAML or JSON file with options; may be given several times, the later wins");
        let command = command.arg(config);
        FLAGS.iter().fold(command, |command, flag| {
            let arg = Arg::new(flag.option).long(flag.long).value_name(flag.value).help(flag.help);
            let arg = arg.help_heading(flag.heading).overrides_with(flag.option);
            command.arg(if flag.value == "BOOL" {
                arg.num_args(0..=1).require_equals(true).default_missing_value("true")
            } else {
                arg.num_args(1).allow_hyphen_values(true)
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for OptionFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.config.extend(matches.get_many::<String>("config").unwrap_or_default().cloned());
        for flag in FLAGS {
            if let Some(value) = matches.get_one::<String>(flag.option) {
                self.overrides.push((flag.option.to_owned(), Value::String(value.clone())));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every option has a flag, and every flag an option: a flag that nobody reads would be an error of the layers.
    #[test]
    fn flags_and_options_are_the_same_set() {
        let mut known = Vec::new();
        let defaults = serde_json::to_value(Options::default()).unwrap();
        for (name, value) in defaults.as_object().unwrap() {
            match value.as_object() {
                Some(section) => known.extend(section.keys().map(|key| format!("{name}.{key}"))),
                None => known.push(name.clone()),
            }
        }
        let mut flags: Vec<String> = FLAGS.iter().map(|flag| flag.option.to_owned()).collect();
        known.sort();
        flags.sort();
        assert_eq!(flags, known);
    }

    #[test]
    fn flags_override_and_booleans_need_no_value() {
        let command = OptionFlags::augment_args(Command::new("test"));
        let matches = command.get_matches_from(["test", "--batch-size", "16", "--use-relu", "--shuffle=false"]);
        let options = OptionFlags::from_arg_matches(&matches).unwrap().options().unwrap();
        assert_eq!((options.train.batch_size, options.train.use_relu, options.train.shuffle), (16, true, false));
    }
}

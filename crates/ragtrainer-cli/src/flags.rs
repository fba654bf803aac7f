//! Options as flags, made from the table of options: a command has a flag for every option that it reads.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use ragtrainer::RagTrainer;
use ragtrainer::config::{Kind, Miner, OPTIONS, OptionRow, OptionSources, Options};
use serde_json::Value;

use crate::progress::fetched;

/// A command, described by the options that it reads.
pub(crate) trait Reader: Clone {
    /// Whether it reads the option of a row.
    fn reads(row: &OptionRow) -> bool;
}

/// `ragtrainer check`
#[derive(Debug, Clone)]
pub(crate) struct Check;

/// `ragtrainer prepare`
#[derive(Debug, Clone)]
pub(crate) struct Prepare;

/// `ragtrainer train`
#[derive(Debug, Clone)]
pub(crate) struct Train;

impl Reader for Check {
    fn reads(row: &OptionRow) -> bool {
        row.readers.check
    }
}

impl Reader for Prepare {
    fn reads(row: &OptionRow) -> bool {
        row.readers.prepare
    }
}

impl Reader for Train {
    fn reads(row: &OptionRow) -> bool {
        row.readers.train
    }
}

/// A note on the flags of the table of options, for the help of commands that have them.
pub(crate) const ABOUT_FLAGS: &str = "A flag with [=<BOOL>] is true when given alone and false as in --inherit-settings=false. \
    Options can also stand in a config file (batch_size = 16 under [train]) or in the environment \
    (RAGTRAINER_TRAIN__BATCH_SIZE=16). \"The reference\" is RAGatouille 0.0.9 with colbert-ai.";

/// The options given on a command line, of those that the command reads.
#[derive(Debug, Clone)]
pub(crate) struct OptionFlags<R> {
    config: Vec<String>,
    overrides: Vec<(String, Value)>,
    reader: PhantomData<R>,
}

impl<R: Reader> OptionFlags<R> {
    /// A trainer with the defaults, then the config files, then the environment, then the flags. Models that they name
    /// on the hub are downloaded.
    pub(crate) fn trainer(&self) -> anyhow::Result<RagTrainer> {
        self.trainer_above(OptionSources::new())
    }

    /// The same, on top of other sources.
    pub(crate) fn trainer_above(&self, sources: OptionSources) -> anyhow::Result<RagTrainer> {
        let (options, named) = self.named_options(sources)?;
        Ok(RagTrainer::from_options(options).with_named_options(named))
    }

    /// Sets an option that an argument without a flag gives.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.overrides.push((key.to_owned(), Value::String(value.to_owned())));
    }

    /// The option files that the command line names.
    pub(crate) fn config_files(&self) -> Vec<PathBuf> {
        self.config.iter().map(PathBuf::from).collect()
    }

    fn named_options(&self, mut sources: OptionSources) -> anyhow::Result<(Options, BTreeSet<String>)> {
        for path in &self.config {
            sources = sources.file(path)?;
        }
        let (options, named) = sources.from_env()?.overrides(self.overrides.iter().cloned()).build_named()?;
        options.validate()?;
        if !options.pretrained_model_name.is_empty() {
            fetched(Path::new(&options.pretrained_model_name))?;
        }
        let negatives = &options.negatives;
        if let (Some(model), Miner::Dense | Miner::LateInteraction) = (&negatives.miner_model, negatives.miner) {
            fetched(model)?;
        }
        if let Some(teacher) = &negatives.teacher {
            fetched(teacher)?;
        }
        Ok((options, named))
    }
}

fn rows<R: Reader>() -> impl Iterator<Item = &'static OptionRow> {
    OPTIONS.iter().filter(|row| R::reads(row))
}

impl<R: Reader> Args for OptionFlags<R> {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config").long("config").value_name("FILE").action(ArgAction::Append);
        let config = config.help("TOML, YAML or JSON file with options; repeatable, later files win");
        rows::<R>().fold(command.arg(config), |command, row| {
            let default = row.default_text().map_or_else(String::new, |default| format!(" [default: {default}]"));
            let arg = Arg::new(row.key).long(row.flag()).value_name(row.kind.placeholder());
            let arg = arg.help(format!("{}{default}", row.help)).help_heading(row.section.title());
            // The last of several values counts, as with a default in a shell alias; of several paths all count.
            let arg = if row.kind == Kind::Paths { arg } else { arg.overrides_with(row.key) };
            command.arg(match row.kind {
                Kind::Paths => arg.num_args(1).action(ArgAction::Append),
                Kind::Flag => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
                // A value may be a negative number, which the range of its option then refuses, but never the next
                // flag.
                _ => arg.num_args(1).allow_negative_numbers(true),
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<R: Reader> FromArgMatches for OptionFlags<R> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut flags = Self { config: Vec::new(), overrides: Vec::new(), reader: PhantomData };
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.config.extend(matches.get_many::<String>("config").unwrap_or_default().cloned());
        for row in rows::<R>() {
            let mut values = matches.get_many::<String>(row.key).unwrap_or_default().cloned();
            let value = match row.kind {
                Kind::Paths => Some(values.collect::<Vec<_>>()).filter(|paths| !paths.is_empty()).map(Value::from),
                _ => values.next_back().map(Value::String),
            };
            if let Some(value) = value {
                self.overrides.push((row.key.to_owned(), value));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags<R: Reader>(arguments: &[&str]) -> Result<OptionFlags<R>, Error> {
        let command = OptionFlags::<R>::augment_args(Command::new("test"));
        OptionFlags::from_arg_matches(&command.try_get_matches_from([&["test"], arguments].concat())?)
    }

    #[test]
    fn flags_override_and_booleans_need_no_value() {
        let flags = flags::<Train>(&["--batch-size", "16", "--use-relu", "--shuffle=false"]).unwrap();
        let (options, _) = flags.named_options(OptionSources::new()).unwrap();
        assert_eq!((options.train.batch_size, options.train.use_relu, options.train.shuffle), (16, true, false));
    }

    #[test]
    fn a_flag_is_no_value_of_the_flag_before_it() {
        for arguments in [["--output", "--overwrite"], ["--model-name", "--use-relu"], ["--batch-size", "--dim"]] {
            assert!(flags::<Train>(&arguments).is_err(), "{arguments:?}");
        }
        assert!(flags::<Train>(&["--learning-rate", "-1"]).is_ok(), "the range is checked with the others");
    }

    #[test]
    fn every_data_set_counts_and_of_other_flags_the_last() {
        let options = |arguments: &[&str]| {
            flags::<Train>(arguments).unwrap().named_options(OptionSources::new()).map(|(options, _)| options)
        };
        let several = options(&["--train-data", "a.jsonl", "--train-data", "b.jsonl"]).unwrap();
        assert_eq!(several.data.train.0, [Path::new("a.jsonl"), Path::new("b.jsonl")]);
        assert_eq!(options(&["--train-data", "a.jsonl"]).unwrap().data.train, "a.jsonl".into());
        assert!(options(&["--train-data", "a", "--train-data", "a"]).unwrap_err().to_string().contains("data.train"));
        let (options, _) =
            flags::<Train>(&["--dim", "8", "--dim", "16"]).unwrap().named_options(OptionSources::new()).unwrap();
        assert_eq!(options.train.dim, 16);
    }

    #[test]
    fn a_word_switches_an_optional_value_off() {
        let flags = flags::<Train>(&["--positive-score-share", "off", "--pool-size", "all"]).unwrap();
        let (options, _) = flags.named_options(OptionSources::new()).unwrap();
        assert_eq!((options.negatives.positive_score_share, options.evaluation.pool_size), (None, None));
    }

    #[test]
    fn a_command_knows_the_flags_that_it_reads_and_no_other() {
        assert!(flags::<Check>(&["--doc-maxlen", "64"]).is_ok());
        for flag in ["--learning-rate", "--output", "--miner"] {
            assert!(flags::<Check>(&[flag, "1"]).is_err(), "{flag}");
            assert!(flags::<Train>(&[flag, "1"]).is_ok(), "{flag}");
        }
        assert!(flags::<Prepare>(&["--miner", "random"]).is_ok());
        assert!(flags::<Prepare>(&["--output", "here"]).is_err());
    }
}

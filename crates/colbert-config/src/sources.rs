//! Options from several places: defaults < files < environment < command line.
//!
//! Owns the order of the places, the names of options in each, and errors that say which place is wrong. Does not check
//! ranges: call [`Options::validate`](crate::Options::validate) on the result.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use config::{Config, File, FileFormat, ValueKind};
use serde_json::Value;

use crate::error::ConfigError;
use crate::options::Options;
use crate::table::{self, OptionRow};

/// Prefix of the environment variables that set options.
const PREFIX: &str = "RAGTRAINER_";

/// Environment variables with the prefix that are not options, and are not reported as unknown ones.
const NOT_OPTIONS: [&str; 1] = ["RAGTRAINER_LOG"];

/// Collects options from several places; later ones in this list override earlier ones:
///
/// 1. the defaults;
/// 2. files, TOML, YAML or JSON by the end of their name, the later file the stronger;
/// 3. environment variables: `RAGTRAINER_OUTPUT`, and with a section `RAGTRAINER_TRAIN__BATCH_SIZE`. A variable that is
///    empty counts as not set; one that is no option is an error, except `RAGTRAINER_LOG`;
/// 4. overrides, which is what the command line hands in: `train.batch_size` and a value.
///
/// Each place may set any of the options. Texts are read as the numbers or flags that their option takes. `null` is a
/// value only where an option may be absent. Paths are relative to the current directory, not to the file that names
/// them.
///
/// # Examples
///
/// ```
/// use colbert_config::OptionSources;
///
/// let options = OptionSources::new()
///     .environment([("RAGTRAINER_TRAIN__BATCH_SIZE".to_owned(), "16".to_owned())])
///     .overrides([("train.learning_rate".to_owned(), serde_json::json!(2e-5))])
///     .build()?;
/// assert_eq!(options.train.batch_size, 16);
/// assert_eq!(options.train.learning_rate, Some(2e-5));
/// assert_eq!(options.train.doc_maxlen, 256);
/// # Ok::<(), colbert_config::ConfigError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct OptionSources {
    files: Vec<Vec<Entry>>,
    environment: Vec<(String, String)>,
    overrides: Vec<(String, Value)>,
}

impl OptionSources {
    /// The defaults alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file, which overrides the files before it.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or parsed, its name has no known extension, or an option in it is unknown or has the
    /// wrong type.
    pub fn file(mut self, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        self.files.push(read_file(path.as_ref())?);
        Ok(self)
    }

    /// Adds environment variables, given as names and values; names without the prefix are ignored.
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment.extend(variables);
        self
    }

    /// Adds the environment of this process.
    ///
    /// # Errors
    ///
    /// If the value of a variable with the prefix is not Unicode.
    pub fn from_env(self) -> Result<Self, ConfigError> {
        let mut variables = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)).map(str::to_owned) else { continue };
            let value = value.into_string().map_err(|value| ConfigError::WrongType {
                origin: Origin::Variable(&name).to_string(),
                field: dotted(&name),
                found: format!("{value:?}"),
                expected: "Unicode text".to_owned(),
            })?;
            variables.push((name, value));
        }
        Ok(self.environment(variables))
    }

    /// Adds dotted names and values that override every other place; of two with the same name the later wins.
    pub fn overrides(mut self, overrides: impl IntoIterator<Item = (String, Value)>) -> Self {
        self.overrides.extend(overrides);
        self
    }

    /// Merges the places.
    ///
    /// # Errors
    ///
    /// If the environment or the overrides name an unknown option or give one the wrong type.
    pub fn build(self) -> Result<Options, ConfigError> {
        self.build_named().map(|(options, _)| options)
    }

    /// Merges the places, and also returns the dotted names of the options that are set in any of them.
    ///
    /// # Errors
    ///
    /// As [`OptionSources::build`].
    pub fn build_named(self) -> Result<(Options, BTreeSet<String>), ConfigError> {
        let mut environment = Vec::new();
        for (name, value) in &self.environment {
            if name.starts_with(PREFIX) && !NOT_OPTIONS.contains(&name.as_str()) && !value.is_empty() {
                let value = Value::String(value.clone());
                environment.push(entry(&Origin::Variable(name), &dotted(name), &value)?);
            }
        }
        let mut overrides = Vec::new();
        for (key, value) in &self.overrides {
            overrides.push(entry(&Origin::CommandLine, key, value)?);
        }

        let defaults = Config::try_from(&Options::default()).map_err(not_representable)?;
        let mut builder = Config::builder().add_source(defaults);
        let mut named = BTreeSet::new();
        for (key, value) in self.files.into_iter().flatten().chain(environment).chain(overrides) {
            named.insert(key.to_owned());
            builder = builder.add_source(Config::try_from(&table::nest(key, value)).map_err(not_representable)?);
        }
        let options = builder.build().and_then(Config::try_deserialize).map_err(not_representable)?;
        Ok((options, named))
    }
}

/// A known option with a value it takes.
type Entry = (&'static str, Value);

/// The place that a value came from, for errors.
#[derive(Debug, Clone, Copy)]
enum Origin<'a> {
    File(&'a Path),
    Variable(&'a str),
    CommandLine,
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

impl Origin<'_> {
    /// The name of an option as this place writes it.
    fn spell(&self, key: &str) -> String {
        match self {
            Self::Variable(_) => format!("{PREFIX}{}", key.replace('.', "__").to_uppercase()),
            Self::File(_) | Self::CommandLine => key.to_owned(),
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<Entry>, ConfigError> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    let (format, format_name) = match ending.as_str() {
        "toml" => (FileFormat::Toml, "TOML"),
        "yaml" | "yml" => (FileFormat::Yaml, "YAML"),
        "json" => (FileFormat::Json, "JSON"),
        _ => return Err(ConfigError::UnknownFileFormat { path: PathBuf::from(path) }),
    };
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
    let malformed = |error: config::ConfigError| ConfigError::Malformed {
        path: path.into(),
        format: format_name,
        source: match error {
            config::ConfigError::FileParse { cause, .. } => cause,
            other => Box::new(other),
        },
    };
    let table = Config::builder().add_source(File::from_str(&text, format)).build().map_err(malformed)?.cache.kind;
    let mut entries = Vec::new();
    if let ValueKind::Table(table) = table {
        flatten(Origin::File(path), "", table, &mut entries)?;
    }
    Ok(entries)
}

fn flatten(
    origin: Origin<'_>,
    section: &str,
    table: config::Map<String, config::Value>,
    entries: &mut Vec<Entry>,
) -> Result<(), ConfigError> {
    // The map is unordered; sorted, the first error is always the same one.
    let mut pairs: Vec<_> = table.into_iter().collect();
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, value) in pairs {
        let key = if section.is_empty() { name } else { format!("{section}.{name}") };
        match value.kind {
            ValueKind::Table(inner) if table::SECTIONS.contains(&key.as_str()) => {
                flatten(origin, &key, inner, entries)?;
            }
            // A section whose every line is commented out.
            ValueKind::Nil if table::SECTIONS.contains(&key.as_str()) => {}
            kind => entries.push(entry(&origin, &key, &to_json(kind))?),
        }
    }
    Ok(())
}

fn entry(origin: &Origin<'_>, key: &str, value: &Value) -> Result<Entry, ConfigError> {
    let wrong_type = |expected: &str| ConfigError::WrongType {
        origin: origin.to_string(),
        field: key.to_owned(),
        found: value.to_string(),
        expected: expected.to_owned(),
    };
    if table::SECTIONS.contains(&key) {
        return Err(wrong_type("a section with options in it"));
    }
    let Some(row) = OptionRow::of(key) else {
        return Err(ConfigError::UnknownOption {
            origin: origin.to_string(),
            key: key.to_owned(),
            nearest: table::nearest(key).map(|known| origin.spell(known)),
        });
    };
    let value = table::interpret(row, value).ok_or_else(|| wrong_type(&row.kind.expected()))?;
    Ok((row.key, value))
}

/// `RAGTRAINER_TRAIN__BATCH_SIZE` to `train.batch_size`.
fn dotted(variable: &str) -> String {
    variable.strip_prefix(PREFIX).unwrap_or(variable).to_lowercase().replace("__", ".")
}

/// Numbers that JSON cannot express become texts, which no option of numbers takes.
fn to_json(kind: ValueKind) -> Value {
    match kind {
        ValueKind::Nil => Value::Null,
        ValueKind::Boolean(flag) => Value::Bool(flag),
        ValueKind::I64(number) => number.into(),
        ValueKind::U64(number) => number.into(),
        ValueKind::I128(number) => number.to_string().into(),
        ValueKind::U128(number) => number.to_string().into(),
        ValueKind::Float(number) => {
            serde_json::Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number)
        }
        ValueKind::String(text) => text.into(),
        ValueKind::Array(values) => values.into_iter().map(|value| to_json(value.kind)).collect(),
        ValueKind::Table(table) => table.into_iter().map(|(key, value)| (key, to_json(value.kind))).collect(),
    }
}

fn not_representable(source: config::ConfigError) -> ConfigError {
    ConfigError::NotRepresentable { what: "the options", source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::auto::{AutoSteps, Warmup};
    use crate::options::metric::Metric;
    use serde_json::json;
    use tempfile::TempDir;

    const TOML: &str =
        "output = 'from-file'\n[train]\nbatch_size = 8\nlearning_rate = 1e-4\nepochs = 2\ndropout = 0.2\n";
    const YAML: &str =
        "output: from-file\ntrain:\n  batch_size: 8\n  learning_rate: 1e-4\n  epochs: 2\n  dropout: 0.2\n";
    const JSON: &str = r#"{"output": "from-file",
        "train": {"batch_size": 8, "learning_rate": 1e-4, "epochs": 2, "dropout": 0.2}}"#;

    fn write(folder: &TempDir, name: &str, text: &str) -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn error_of_file(name: &str, text: &str) -> String {
        let folder = TempDir::new().unwrap();
        let error = OptionSources::new().file(write(&folder, name, text)).unwrap_err();
        error.to_string().replace(&folder.path().display().to_string(), "DIR")
    }

    fn error_of_variable(name: &str, value: &str) -> String {
        OptionSources::new().environment(variables(&[(name, value)])).build().unwrap_err().to_string()
    }

    #[test]
    fn without_sources_there_are_the_defaults() {
        assert_eq!(OptionSources::new().build().unwrap(), Options::default());
    }

    #[test]
    fn each_place_beats_the_ones_before_it_in_every_format() {
        let folder = TempDir::new().unwrap();
        for (name, text) in [("a.toml", TOML), ("a.yaml", YAML), ("a.YML", YAML), ("a.json", JSON)] {
            let file = OptionSources::new().file(write(&folder, name, text)).unwrap();

            let options = file.clone().build().unwrap();
            let mut expected = Options { output: "from-file".into(), ..Options::default() };
            expected.train.batch_size = 8;
            expected.train.learning_rate = Some(1e-4);
            expected.train.epochs = 2;
            expected.train.dropout = Some(0.2);
            assert_eq!(options, expected, "{name}: file over defaults");

            let environment = variables(&[
                ("RAGTRAINER_TRAIN__BATCH_SIZE", "16"),
                ("RAGTRAINER_OUTPUT", "from-env"),
                ("RAGTRAINER_TRAIN__NWAY", "4"),
            ]);
            let options = file.clone().environment(environment.clone()).build().unwrap();
            expected.output = "from-env".into();
            expected.train.batch_size = 16;
            expected.train.nway = 4;
            assert_eq!(options, expected, "{name}: environment over file and defaults");

            let overrides = [
                ("train.batch_size".to_owned(), json!("64")),
                ("train.epochs".to_owned(), json!(3)),
                ("train.dim".to_owned(), json!(64)),
            ];
            // The kind of place decides, not the order of the calls.
            let options = file.overrides(overrides).environment(environment).build().unwrap();
            expected.train.batch_size = 64;
            expected.train.epochs = 3;
            expected.train.dim = 64;
            assert_eq!(options, expected, "{name}: overrides over everything");
        }
    }

    #[test]
    fn what_a_person_named_is_told_from_defaults_even_where_it_is_the_same() {
        let folder = TempDir::new().unwrap();
        let file = write(&folder, "a.toml", "[train]\nepochs = 1\n");
        let sources = OptionSources::new().file(file).unwrap().overrides([("train.doc_maxlen".to_owned(), json!(256))]);
        let (options, named) = sources.environment(variables(&[("RAGTRAINER_OUTPUT", "x")])).build_named().unwrap();
        assert_eq!(named.into_iter().collect::<Vec<_>>(), ["output", "train.doc_maxlen", "train.epochs"]);
        assert_eq!(options, Options { output: "x".into(), ..Options::default() });
    }

    #[test]
    fn the_later_file_and_the_later_override_win() {
        let folder = TempDir::new().unwrap();
        let first = write(&folder, "first.toml", "[train]\nepochs = 2\nnway = 3\n");
        let second = write(&folder, "second.json", r#"{"train": {"epochs": 5}}"#);
        let sources = OptionSources::new().file(first).unwrap().file(second).unwrap();
        let options = sources
            .overrides([("train.dim".to_owned(), json!(64)), ("train.dim".to_owned(), json!(96))])
            .build()
            .unwrap();
        assert_eq!((options.train.epochs, options.train.nway, options.train.dim), (5, 3, 96));
    }

    #[test]
    fn every_kind_of_option_can_come_from_the_environment() {
        let options = OptionSources::new()
            .environment(variables(&[
                ("RAGTRAINER_MODEL_NAME", "2024"),
                ("RAGTRAINER_OVERWRITE", "true"),
                ("RAGTRAINER_DATA__TRAIN", "/data/pairs.tsv"),
                ("RAGTRAINER_DATA__FORMAT", "labeled_pairs"),
                ("RAGTRAINER_DATA__POSITIVE_LABEL", "2"),
                ("RAGTRAINER_TRAIN__DROPOUT", "0.1"),
                ("RAGTRAINER_TRAIN__LEARNING_RATE", "1"),
                ("RAGTRAINER_TRAIN__WARMUP_STEPS", "constant"),
                ("RAGTRAINER_TRAIN__SAVE_EVERY", "20"),
                ("RAGTRAINER_TRAIN__SCHEDULE_HORIZON", "auto"),
                ("RAGTRAINER_TRAIN__SEED", "18446744073709551615"),
                ("RAGTRAINER_TRAIN__USE_IB_NEGATIVES", "off"),
                ("RAGTRAINER_TRAIN__IB_SCOPE", "micro_batch"),
                ("RAGTRAINER_EVALUATION__METRIC", "recall@50"),
                ("RAGTRAINER_EVALUATION__POOL_SIZE", "5000"),
                // Neither options nor ours nor set.
                ("RAGTRAINER_LOG", "debug"),
                ("PATH", "/bin"),
                ("RAGTRAINER_TRAIN__EPOCHS", ""),
            ]))
            .build()
            .unwrap();
        let mut expected = Options { model_name: "2024".to_owned(), overwrite: true, ..Options::default() };
        expected.data.train = "/data/pairs.tsv".into();
        expected.data.format = crate::DataFormat::LabeledPairs;
        expected.data.positive_label = "2".to_owned();
        expected.train.dropout = Some(0.1);
        expected.train.learning_rate = Some(1.0);
        expected.train.warmup_steps = Warmup::Constant;
        expected.train.save_every = AutoSteps::Steps(20);
        expected.train.seed = u64::MAX;
        expected.train.use_ib_negatives = false;
        expected.train.ib_scope = crate::IbScope::MicroBatch;
        expected.evaluation.metric = Metric::Recall(50);
        expected.evaluation.pool_size = Some(5000);
        assert_eq!(options, expected);
    }

    #[test]
    fn options_written_as_json_are_a_file_that_reads_the_same() {
        let folder = TempDir::new().unwrap();
        let mut options = OptionSources::new()
            .overrides([("train.warmup_steps".to_owned(), json!(7)), ("data.dev".to_owned(), json!("x"))])
            .build()
            .unwrap();
        options.train.learning_rate = Some(0.1 + 0.2);
        let path = write(&folder, "options.json", &serde_json::to_string(&options).unwrap());
        assert_eq!(OptionSources::new().file(path).unwrap().build().unwrap(), options);
    }

    #[test]
    fn nothing_takes_an_optional_value_back_and_leaves_an_empty_section_alone() {
        let folder = TempDir::new().unwrap();
        let first = write(&folder, "first.toml", "[train]\ndropout = 0.5\nepochs = 4\n");
        let second = write(&folder, "second.yaml", "train:\n  dropout:\n");
        let third = write(&folder, "third.yaml", "train:\n# epochs: 9\n");
        let fourth = write(&folder, "fourth.yaml", "# nothing yet\n");
        let sources =
            OptionSources::new().file(first).unwrap().file(second).unwrap().file(third).unwrap().file(fourth).unwrap();
        let train = sources.build().unwrap().train;
        assert_eq!((train.dropout, train.epochs), (None, 4));
    }

    #[test]
    fn unknown_options_are_named_with_the_nearest_known_one() {
        assert_eq!(
            error_of_file("a.toml", "[train]\nbatch_siez = 8\n"),
            "DIR/a.toml: unknown option \"train.batch_siez\", did you mean \"train.batch_size\"?"
        );
        assert_eq!(
            error_of_file("a.yaml", "batch_size: 8\n"),
            "DIR/a.yaml: unknown option \"batch_size\", did you mean \"train.batch_size\"?"
        );
        assert_eq!(
            error_of_file("a.json", r#"{"evalution": {"seed": 1}}"#),
            "DIR/a.json: unknown option \"evalution\", did you mean \"evaluation\"?"
        );
        assert_eq!(
            error_of_variable("RAGTRAINER_TRAIN_BATCH_SIZE", "8"),
            "environment variable RAGTRAINER_TRAIN_BATCH_SIZE: unknown option \"train_batch_size\", did you mean \
             \"RAGTRAINER_TRAIN__BATCH_SIZE\"?"
        );
        let error = OptionSources::new().overrides([("zzz".to_owned(), json!(1))]).build().unwrap_err();
        assert_eq!(error.to_string(), "command line: unknown option \"zzz\"");
    }

    #[test]
    fn wrong_types_name_place_field_found_and_expected() {
        assert_eq!(
            error_of_file("a.toml", "[train]\nbatch_size = 'many'\n"),
            "DIR/a.toml: train.batch_size is \"many\", expected a whole number, 0 or more"
        );
        // The config crate alone would round this one.
        assert_eq!(
            error_of_file("a.yaml", "train:\n  epochs: 1.5\n"),
            "DIR/a.yaml: train.epochs is 1.5, expected a whole number, 0 or more"
        );
        assert_eq!(
            error_of_file("a.json", r#"{"train": {"seed": -1}}"#),
            "DIR/a.json: train.seed is -1, expected a whole number, 0 or more"
        );
        assert_eq!(
            error_of_file("a.toml", "[train]\ndropout = nan\n"),
            "DIR/a.toml: train.dropout is \"NaN\", expected a number, or \"encoder\""
        );
        assert_eq!(
            error_of_file("a.toml", "train = 3\n"),
            "DIR/a.toml: train is 3, expected a section with options in it"
        );
        assert_eq!(
            error_of_file("a.toml", "[output]\nfolder = 'x'\n"),
            "DIR/a.toml: output is {\"folder\":\"x\"}, expected a path"
        );
        assert_eq!(
            error_of_file("a.json", r#"{"train": {"batch_size": null}}"#),
            "DIR/a.json: train.batch_size is null, expected a whole number, 0 or more"
        );
        assert_eq!(
            error_of_variable("RAGTRAINER_DATA__FORMAT", "csv"),
            "environment variable RAGTRAINER_DATA__FORMAT: data.format is \"csv\", expected auto, pairs, labeled_pairs, \
             triplets, scored, tevatron, pylate, beir or reference"
        );
        assert_eq!(
            error_of_variable("RAGTRAINER_EVALUATION__METRIC", "map"),
            "environment variable RAGTRAINER_EVALUATION__METRIC: evaluation.metric is \"map\", expected ndcg@k, mrr@k, \
             recall@k, success@k or map@k with k of 1 or more, such as ndcg@10, or loss"
        );
    }

    #[test]
    fn unreadable_files_say_why() {
        let error = OptionSources::new().file("no/such/file.toml").unwrap_err();
        assert_eq!(error.to_string(), "cannot read no/such/file.toml");
        assert!(std::error::Error::source(&error).is_some());
        assert_eq!(
            error_of_file("a.ini", ""),
            "cannot tell the format of DIR/a.ini: expected a name that ends in .toml, .yaml, .yml or .json"
        );
        for (name, text, format) in [
            ("a.toml", "[train\n", "TOML"),
            ("a.yaml", "a: [1\n", "YAML"),
            ("a.json", "{", "JSON"),
            ("a.json", "[1]", "JSON"),
        ] {
            assert_eq!(error_of_file(name, text), format!("DIR/{name} is not valid {format}"));
        }
        let folder = TempDir::new().unwrap();
        let error = OptionSources::new().file(write(&folder, "a.toml", "output = 'x'\n[train\n")).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("line 2"), "{cause}");
    }
}

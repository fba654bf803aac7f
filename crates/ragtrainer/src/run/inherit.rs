//! Settings that a trained model hands down to the run that starts from it.

use std::collections::BTreeSet;
use std::fmt;

use colbert_config::{ConfigError, MODEL_LENGTH, NumberList, Options, TrainOptions};
use colbert_model::{ColbertSettings, Declared, Pretrained};
use serde_json::{Value, json};

use crate::error::Error;
use crate::source::read_model;

/// The settings that a run inherits from the model it starts from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Inheritance {
    /// The parent's files that declare settings.
    pub files: Vec<&'static str>,
    /// The parent's settings, in the order of the options.
    pub settings: Vec<InheritedSetting>,
}

/// One setting of the parent.
#[derive(Debug, Clone, PartialEq)]
pub struct InheritedSetting {
    /// Dotted name of the option.
    pub option: &'static str,
    /// The parent's value.
    pub parent: Value,
    /// The option's default.
    pub default: Value,
    /// The value of the run: the parent's, unless the option was set.
    pub used: Value,
}

impl fmt::Display for Inheritance {
    /// Only what differs from the default or from the parent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.files.is_empty() {
            return Ok(());
        }
        write!(f, "settings of the model it starts from ({}):", self.files.join(", "))?;
        let mut same = Vec::new();
        for InheritedSetting { option, parent, default, used } in &self.settings {
            if used != parent {
                write!(f, "\n  {option} = {used}, as set; the model has {parent}")?;
            } else if parent != default {
                write!(f, "\n  {option} = {used}, taken over; the default is {default}")?;
            } else {
                same.push(option.trim_start_matches("train."));
            }
        }
        if same.is_empty() { Ok(()) } else { write!(f, "\n  as the defaults: {}", same.join(", ")) }
    }
}

/// Takes over the lengths, masks and sizes of the model that `options` start from, where it is a ColBERT and the option
/// is not in `named`, the dotted names of the options that a person set. Nothing without `inherit_settings`. Lengths
/// that are left to the model become numbers in any case.
///
/// # Errors
/// The model cannot be read, or every query would be filled up to all of its positions.
pub(crate) fn inherit(options: &mut Options, named: &BTreeSet<String>) -> Result<Inheritance, Error> {
    let train = &mut options.train;
    let left_to_model = [train.query_maxlen, train.doc_maxlen].contains(&MODEL_LENGTH);
    if options.pretrained_model_name.is_empty() || !(options.inherit_settings || left_to_model) {
        return Ok(Inheritance::default());
    }
    let pretrained = read_model(&options.pretrained_model_name)?;
    let unlimited = train.query_maxlen == MODEL_LENGTH;
    for length in [&mut train.query_maxlen, &mut train.doc_maxlen] {
        *length = if *length == MODEL_LENGTH { pretrained.max_length() } else { *length };
    }
    let mut inheritance = Inheritance::default();
    if options.inherit_settings && pretrained.declared.is_colbert() {
        inheritance = take_over(train, &pretrained.declared, named);
        tracing::info!("{inheritance}");
    }
    if unlimited {
        expands_to_a_length(train, &pretrained)?;
    }
    Ok(inheritance)
}

/// Checks that queries without a limit of their own are not all filled up to the positions of the encoder.
fn expands_to_a_length(train: &TrainOptions, pretrained: &Pretrained) -> Result<(), Error> {
    if train.query_expansion && pretrained.settings(train).query_expansion_length.is_none() {
        return Err(ConfigError::Contradiction {
            field: "train.query_maxlen",
            found: "\"model\"".to_owned(),
            other_field: "train.query_expansion",
            other_found: "true".to_owned(),
            advice: "every query would be filled up with [MASK] to all positions of the encoder; set \
                     train.query_expansion_length, or train.query_expansion = false",
        }
        .into());
    }
    Ok(())
}

/// The options of `train` that are not at their defaults, by dotted names: what a caller of the library set.
pub(crate) fn set_by_caller(train: &TrainOptions) -> BTreeSet<String> {
    let own = Options { train: train.clone(), ..Options::default() }.entries();
    let changed = own.into_iter().zip(Options::default().entries()).filter(|(own, default)| own != default);
    changed.map(|((key, _), _)| key.to_owned()).collect()
}

fn take_over(train: &mut TrainOptions, declared: &Declared, named: &BTreeSet<String>) -> Inheritance {
    let defaults = TrainOptions::default();
    let mut settings = Vec::new();
    macro_rules! take {
        ($($field:ident),*) => {$(
            if let Some(parent) = declared.$field {
                let option = concat!("train.", stringify!($field));
                if !named.contains(option) {
                    train.$field = parent;
                }
                let (default, used) = (defaults.$field.into(), train.$field.into());
                settings.push(InheritedSetting { option, parent: parent.into(), default, used });
            }
        )*};
    }
    take!(dim, query_maxlen, doc_maxlen, attend_to_mask_tokens, query_expansion, mask_punctuation, use_relu);
    if let Some(parent) = &declared.dims {
        if !named.contains("train.dims") {
            let smaller = parent.iter().copied().filter(|size| *size < train.dim);
            train.dims = NumberList([train.dim].into_iter().chain(smaller).collect());
        }
        let (default, used) = (json!(defaults.dims), json!(train.dims));
        settings.push(InheritedSetting { option: "train.dims", parent: json!(parent), default, used });
    }
    settings.extend(of_texts(train, declared));
    let mut files = declared.files.clone();
    if declared.dim.is_some() {
        files.push("the projection");
    }
    Inheritance { files, settings }
}

/// Markers, prompts and the length of expansion: without a value of its own an option means the parent's. Those that
/// are as usual are left out.
fn of_texts(train: &TrainOptions, declared: &Declared) -> Vec<InheritedSetting> {
    let usual = ColbertSettings::default();
    let mut settings = Vec::new();
    macro_rules! follow {
        ($($field:ident),*) => {$(
            if let Some(parent) = &declared.$field {
                let (parent, default) = (json!(parent), json!(usual.$field));
                let used = train.$field.as_ref().map_or_else(|| parent.clone(), |own| json!(own));
                if used != parent || parent != default {
                    let option = concat!("train.", stringify!($field));
                    settings.push(InheritedSetting { option, parent, default, used });
                }
            }
        )*};
    }
    follow!(query_token_id, doc_token_id, query_prompt, document_prompt, query_expansion_length);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared() -> Declared {
        Declared {
            files: vec!["artifact.metadata"],
            dim: Some(96),
            query_maxlen: Some(32),
            doc_maxlen: Some(180),
            use_relu: Some(true),
            ..Declared::default()
        }
    }

    #[test]
    fn what_a_person_set_stays_and_the_rest_is_the_parents() {
        let mut train = TrainOptions { doc_maxlen: 256, ..TrainOptions::default() };
        let named = BTreeSet::from(["train.doc_maxlen".to_owned()]);
        let inheritance = take_over(&mut train, &declared(), &named);
        assert_eq!((train.dim, train.doc_maxlen, train.query_maxlen, train.use_relu), (96, 256, 32, true));
        let text = inheritance.to_string();
        assert_eq!(
            text,
            "settings of the model it starts from (artifact.metadata, the projection):\n  train.dim = 96, taken over; the \
             default is 128\n  train.doc_maxlen = 256, as set; the model has 180\n  train.use_relu = true, taken over; the \
             default is false\n  as the defaults: query_maxlen"
        );
    }

    #[test]
    fn markers_and_prompts_are_the_parents_unless_set() {
        let parent = Declared {
            query_token_id: Some("[Q] ".to_owned()),
            doc_token_id: Some("[unused1]".to_owned()),
            query_prompt: Some("search: ".to_owned()),
            query_expansion_length: Some(12),
            ..declared()
        };
        let mut train = TrainOptions { query_prompt: Some(String::new()), ..TrainOptions::default() };
        let text = take_over(&mut train, &parent, &BTreeSet::new()).to_string();
        for line in [
            "train.query_token_id = \"[Q] \", taken over; the default is \"[unused0]\"",
            "train.query_prompt = \"\", as set; the model has \"search: \"",
            "train.query_expansion_length = 12, taken over; the default is null",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("doc_token_id"), "{text}");
        assert_eq!(train.query_token_id, None, "without a value it is the parent's");
    }

    #[test]
    fn sizes_are_the_parents_unless_set() {
        let parent = Declared { dims: Some(vec![96, 48]), ..declared() };
        let mut train = TrainOptions::default();
        let text = take_over(&mut train, &parent, &BTreeSet::new()).to_string();
        assert_eq!(train.dims, NumberList(vec![96, 48]));
        assert!(text.contains("train.dims = [96,48], taken over; the default is null"), "{text}");
        let mut train = TrainOptions { dims: NumberList(vec![96]), ..TrainOptions::default() };
        take_over(&mut train, &parent, &BTreeSet::from(["train.dims".to_owned()]));
        assert_eq!(train.dims, NumberList(vec![96]));
    }

    #[test]
    fn a_caller_set_what_is_not_the_default() {
        let train = TrainOptions { doc_maxlen: 100, ..TrainOptions::default() };
        assert_eq!(set_by_caller(&train), BTreeSet::from(["train.doc_maxlen".to_owned()]));
    }
}

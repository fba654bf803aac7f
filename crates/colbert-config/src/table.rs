//! The names of all options and what each takes, for reading layers and for words in errors.
//!
//! Does not own types or defaults ([`crate::options`]); a test holds the two together.

use serde_json::{Map, Number, Value};

use crate::options::Options;

const FLAG: &str = "true or false";
const WHOLE: &str = "a whole number, 0 or more";
const OPTIONAL_WHOLE: &str = "a whole number, 0 or more, or nothing";
const NUMBER: &str = "a number";
const OPTIONAL_NUMBER: &str = "a number, or nothing";
const TEXT: &str = "a text";
const OPTIONAL_TEXT: &str = "a text, or nothing";
const PATH: &str = "a path";
const OPTIONAL_PATH: &str = "a path, or nothing";
const LABEL: &str = "a word or a number";
const OPTIONAL_SIZE: &str = "a size such as \"6GB\" or \"512MiB\", or \"auto\", or nothing";
const STEPS: &str = "a number of steps or \"auto\"";

/// Every option, sections separated by dots, with what it takes; in the order of the structs.
pub(crate) const FIELDS: &[(&str, &str)] = &[
    ("model_name", TEXT),
    ("license", TEXT),
    ("language_code", TEXT),
    ("pretrained_model_name", TEXT),
    ("inherit_settings", FLAG),
    ("output", PATH),
    ("overwrite", FLAG),
    ("backend", TEXT),
    ("export_dtype", "f32, f16 or bf16"),
    ("export_onnx", FLAG),
    ("data.train", OPTIONAL_PATH),
    ("data.format", "auto, pairs, labeled_pairs, triplets, scored, tevatron, pylate, beir or reference"),
    ("data.columns", "columns and their roles, such as \"question=query, answer=positive\" or \"context=document\""),
    ("data.all_documents", OPTIONAL_PATH),
    ("data.dev", OPTIONAL_PATH),
    ("data.test", OPTIONAL_PATH),
    ("data.dev_split", WHOLE),
    ("data.positive_label", LABEL),
    ("data.negative_label", LABEL),
    ("data.skip_bad_rows", FLAG),
    ("negatives.num_new_negatives", WHOLE),
    ("negatives.hard_negative_minimum_rank", WHOLE),
    ("negatives.hard_negative_maximum_rank", WHOLE),
    ("negatives.mine_hard_negatives", FLAG),
    ("negatives.miner", "bm25, dense, late_interaction or random"),
    ("negatives.miner_model", OPTIONAL_PATH),
    ("negatives.hard_negative_model_size", "small, base or large"),
    ("negatives.miner_query_prefix", OPTIONAL_TEXT),
    ("negatives.miner_document_prefix", OPTIONAL_TEXT),
    ("negatives.refresh", "never or epoch"),
    ("negatives.positive_score_share", OPTIONAL_NUMBER),
    ("negatives.triples", "all or reference"),
    ("negatives.seed", WHOLE),
    ("train.batch_size", WHOLE),
    ("train.nbits", WHOLE),
    ("train.maxsteps", WHOLE),
    ("train.use_ib_negatives", FLAG),
    ("train.learning_rate", NUMBER),
    ("train.dim", WHOLE),
    ("train.doc_maxlen", WHOLE),
    ("train.use_relu", FLAG),
    ("train.warmup_steps", "a number of steps, \"auto\" or \"constant\""),
    ("train.accumsteps", WHOLE),
    ("train.query_maxlen", WHOLE),
    ("train.nway", WHOLE),
    ("train.epochs", WHOLE),
    ("train.seed", WHOLE),
    ("train.shuffle", FLAG),
    ("train.weight_decay", NUMBER),
    ("train.clip_norm", NUMBER),
    ("train.dropout", OPTIONAL_NUMBER),
    ("train.attend_to_mask_tokens", FLAG),
    ("train.query_expansion", FLAG),
    ("train.mask_punctuation", FLAG),
    ("train.schedule_horizon", STEPS),
    ("train.warmup_from_zero", FLAG),
    ("train.save_every", STEPS),
    ("train.keep_checkpoints", WHOLE),
    ("train.keep_best_checkpoints", WHOLE),
    ("train.ib_scope", "batch or micro_batch"),
    ("train.ib_skip_known_positives", FLAG),
    ("train.distillation_alpha", NUMBER),
    ("train.ignore_scores", FLAG),
    ("train.precision", "f32, tf32, bf16, f16 or auto"),
    ("train.memory_limit", OPTIONAL_SIZE),
    ("train.ema_decay", OPTIONAL_NUMBER),
    ("train.on_nonfinite", "stop or skip"),
    ("evaluation.metric", "ndcg@k, mrr@k, recall@k or success@k with k of 1 or more, such as ndcg@10, or loss"),
    ("evaluation.pool_size", OPTIONAL_WHOLE),
    ("evaluation.max_queries", OPTIONAL_WHOLE),
    ("evaluation.seed", WHOLE),
    ("evaluation.patience", OPTIONAL_WHOLE),
    ("evaluation.average_best", WHOLE),
    ("evaluation.interpolate", FLAG),
];

/// The sections, which are no options themselves.
pub(crate) const SECTIONS: &[&str] = &["data", "negatives", "train", "evaluation"];

/// The value an option really takes, or none if the option cannot take it.
///
/// A text is taken as it is where the option is a text, and otherwise read as a number or as true, yes, on, 1 or false,
/// no, off, 0: environment and command line know only texts.
pub(crate) fn interpret(key: &str, value: &Value) -> Option<Value> {
    let Value::String(text) = value else {
        return takes(key, value).then(|| value.clone());
    };
    let text = text.trim();
    let flag = match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    };
    let candidates = [
        Some(value.clone()),
        text.parse::<u64>().ok().map(Value::from),
        text.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number),
        flag.map(Value::Bool),
    ];
    candidates.into_iter().flatten().find(|candidate| takes(key, candidate))
}

/// The known name that looks most like an unknown one.
pub(crate) fn nearest(unknown: &str) -> Option<&'static str> {
    let flat = unknown.replace('.', "_").to_lowercase();
    let (section, name) = split(unknown);
    let name = name.to_lowercase();
    let tolerance = name.chars().count() / 3;
    let known = FIELDS.iter().map(|(key, _)| *key).chain(SECTIONS.iter().copied());
    let close = known.filter_map(|key| {
        let (known_section, known_name) = split(key);
        let whole = strsim::damerau_levenshtein(&flat, &key.replace('.', "_"));
        let by_name = strsim::damerau_levenshtein(&name, known_name);
        // A name in the wrong section costs 2 at most: people who know the reference write batch_size without one.
        let by_parts = (by_name <= tolerance)
            .then(|| by_name + strsim::damerau_levenshtein(&section.to_lowercase(), known_section).min(2));
        let distance = by_parts.into_iter().chain((whole <= tolerance).then_some(whole)).min()?;
        Some((distance, known_section != "train", key))
    });
    close.min_by_key(|(distance, elsewhere, _)| (*distance, *elsewhere)).map(|(_, _, key)| key)
}

/// An object that holds one dotted key.
pub(crate) fn nest(key: &str, value: Value) -> Value {
    key.rsplit('.').fold(value, |inner, part| Value::Object(Map::from_iter([(part.to_owned(), inner)])))
}

fn takes(key: &str, value: &Value) -> bool {
    serde_json::from_value::<Options>(nest(key, value.clone())).is_ok()
}

fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn leaves(prefix: &str, value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    leaves(&key, value, into);
                }
            }
            _ => into.push(prefix.to_owned()),
        }
    }

    #[test]
    fn the_table_names_exactly_the_options_there_are() {
        let mut real = Vec::new();
        leaves("", &serde_json::to_value(Options::default()).unwrap(), &mut real);
        let mut listed: Vec<_> = FIELDS.iter().map(|(key, _)| (*key).to_owned()).collect();
        real.sort();
        listed.sort();
        assert_eq!(real, listed);
    }

    #[test]
    fn what_an_option_is_said_to_take_it_takes() {
        for (key, expected) in FIELDS {
            let sample = match *expected {
                FLAG => json!(true),
                NUMBER | OPTIONAL_NUMBER => json!(0.5),
                TEXT | OPTIONAL_TEXT | PATH | OPTIONAL_PATH => json!("x"),
                LABEL | WHOLE | OPTIONAL_WHOLE => json!(3),
                _ if key.ends_with("metric") => json!("mrr@10"),
                STEPS | OPTIONAL_SIZE => json!("auto"),
                words => json!(words.rsplit(" or ").next().unwrap().trim_matches('"')),
            };
            assert_eq!(interpret(key, &sample), Some(sample.clone()), "{key}");
            let refused = if matches!(*expected, FLAG) { json!("maybe") } else { json!(true) };
            assert_eq!(interpret(key, &refused), None, "{key}");
            assert_eq!(interpret(key, &Value::Null).is_some(), expected.ends_with("or nothing"), "{key}");
        }
    }

    #[test]
    fn texts_become_what_the_option_needs() {
        for (key, text, value) in [
            ("train.batch_size", "16", json!(16)),
            ("train.learning_rate", "2e-5", json!(2e-5)),
            ("train.learning_rate", "1", json!(1)),
            ("train.dropout", "0.1", json!(0.1)),
            ("evaluation.pool_size", "5000", json!(5000)),
            ("overwrite", "yes", json!(true)),
            ("overwrite", "0", json!(false)),
            ("model_name", "123", json!("123")),
            ("model_name", "true", json!("true")),
            ("data.positive_label", "1", json!("1")),
            ("train.warmup_steps", "7", json!("7")),
        ] {
            assert_eq!(interpret(key, &json!(text)), Some(value), "{key} = {text}");
        }
        for (key, text) in [
            ("train.batch_size", "16.5"),
            ("train.batch_size", "-1"),
            ("train.batch_size", "true"),
            ("train.learning_rate", "nan"),
            ("train.learning_rate", "inf"),
            ("train.dropout", "none"),
            ("evaluation.metric", "ndcg"),
            ("train.save_every", "constant"),
        ] {
            assert_eq!(interpret(key, &json!(text)), None, "{key} = {text}");
        }
    }

    #[test]
    fn slips_of_the_pen_find_their_option() {
        for (unknown, known) in [
            ("train.batch_siez", Some("train.batch_size")),
            ("trian.batch_size", Some("train.batch_size")),
            ("batch_size", Some("train.batch_size")),
            ("seed", Some("train.seed")),
            ("evaluation.seeds", Some("evaluation.seed")),
            ("train_batch_size", Some("train.batch_size")),
            ("train.learning-rate", Some("train.learning_rate")),
            ("train.Learning_Rate", Some("train.learning_rate")),
            ("data.pool_size", Some("evaluation.pool_size")),
            ("pretrained_model", Some("pretrained_model_name")),
            ("evalution", Some("evaluation")),
            ("outptu", Some("output")),
            ("zzz", None),
        ] {
            assert_eq!(nearest(unknown), known, "{unknown}");
        }
    }
}

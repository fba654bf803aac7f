//! The options and inputs of a run: a checkpoint is resumed only by a run with the same.

use std::collections::BTreeMap;
use std::fmt;

use colbert_config::Options;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The identity of a run: options by their dotted names, and a hash of all inputs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Version of this program.
    pub program: String,
    /// Options that a result depends on.
    pub options: BTreeMap<String, Value>,
    /// Training data, dev data and the model that training starts from: how much there is, and a hash.
    pub inputs: BTreeMap<String, String>,
}

/// A difference between a checkpoint and the current run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// An option's dotted name, or `training data`, `dev data`, `start`, `program`.
    pub what: String,
    /// Its value in the checkpoint; `nothing` if it was not there.
    pub then: String,
    /// Its value now.
    pub now: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was {}, is {}", self.what, self.then, self.now)
    }
}

impl Identity {
    /// Lists the differences of `now`, sorted by name. An option that the checkpoint does not name, as it was added to
    /// the program later, had its default.
    pub fn changes(&self, now: &Self) -> Vec<Change> {
        let mut then = self.options.clone();
        for (name, default) in Options::default().entries() {
            if now.options.contains_key(name) {
                then.entry(name.to_owned()).or_insert(default);
            }
        }
        let mut changes = compare(&then, &now.options, Value::to_string);
        changes.extend(compare(&self.inputs, &now.inputs, String::clone));
        if self.program != now.program {
            let (then, now) = (self.program.clone(), now.program.clone());
            changes.push(Change { what: "program".to_owned(), then, now });
        }
        changes
    }
}

fn compare<V: PartialEq>(
    then: &BTreeMap<String, V>,
    now: &BTreeMap<String, V>,
    words: impl Fn(&V) -> String,
) -> Vec<Change> {
    let words = |value: Option<&V>| value.map_or_else(|| "nothing".to_owned(), &words);
    let added = now.keys().filter(|name| !then.contains_key(*name));
    let mut names: Vec<&String> = then.keys().chain(added).collect();
    names.sort();
    let different = names.into_iter().filter(|name| then.get(*name) != now.get(*name));
    different
        .map(|name| Change { what: name.clone(), then: words(then.get(name)), now: words(now.get(name)) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_named() {
        let of = |options: &[(&str, Value)], data: &str| Identity {
            program: "1".to_owned(),
            options: options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            inputs: BTreeMap::from([("training data".to_owned(), data.to_owned())]),
        };
        let then = of(&[("train.seed", 1.into()), ("train.dim", 16.into())], "3 examples, 0f");
        assert_eq!(then.changes(&then.clone()), []);
        let now = of(&[("train.seed", 2.into()), ("train.nway", 3.into())], "4 examples, 1f");
        let words: Vec<String> = then.changes(&now).iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "train.dim was 16, is nothing",
                "train.nway was 2, is 3",
                "train.seed was 1, is 2",
                "training data was 3 examples, 0f, is 4 examples, 1f"
            ]
        );
        let later = of(
            &[("train.seed", 1.into()), ("train.dim", 16.into()), ("train.query_prompt", Value::Null)],
            "3 examples, 0f",
        );
        assert_eq!(then.changes(&later), [], "an option of a later version, at its default");
        let added =
            of(&[("train.seed", 1.into()), ("train.dim", 16.into()), ("train.nway", 2.into())], "3 examples, 0f");
        assert_eq!(then.changes(&added), [], "an option that was added later had its default");
        let unknown = of(&[("train.seed", 1.into()), ("train.dim", 16.into()), ("plan.x", 2.into())], "3 examples, 0f");
        assert_eq!(then.changes(&unknown)[0].to_string(), "plan.x was nothing, is 2");
        let newer = Identity { program: "2".to_owned(), ..then.clone() };
        assert_eq!(then.changes(&newer)[0].to_string(), "program was 1, is 2");
    }
}

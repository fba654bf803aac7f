//! Names of metrics, and which of two values is better. The arithmetic is in `colbert-train`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

/// A retrieval metric with its cut-off, written `ndcg@10`, or `loss`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Metric {
    /// Normalised discounted cumulative gain of the first k documents, linear gain.
    Ndcg(usize),
    /// Reciprocal rank of the first relevant document, 0 beyond k.
    Mrr(usize),
    /// Share of the relevant documents found in the first k.
    Recall(usize),
    /// 1 if any of the first k is relevant.
    Success(usize),
    /// Mean average precision: the precision at the rank of each relevant document of the first k, summed and divided
    /// by the number of relevant documents (trec_eval's `map_cut`).
    Map(usize),
    /// Cross-entropy of the relevant documents against all others, by their scores. The only metric for which lower is
    /// better.
    Loss,
}

impl Metric {
    /// Returns by how much `new` is better than `old`; negative if it is worse.
    pub fn gain(self, old: f64, new: f64) -> f64 {
        if self == Self::Loss { old - new } else { new - old }
    }

    /// Whether `new` replaces `old` as the best: it has a value, and `old` has none or a worse one. A value that is not
    /// finite does not count; of equal values the older stays.
    pub fn is_better(self, old: Option<f64>, new: Option<f64>) -> bool {
        match (old.filter(|value| value.is_finite()), new.filter(|value| value.is_finite())) {
            (Some(old), Some(new)) => self.gain(old, new) > 0.0,
            (None, new) => new.is_some(),
            (Some(_), None) => false,
        }
    }
}

impl Default for Metric {
    fn default() -> Self {
        Self::Ndcg(10)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ndcg(k) => write!(f, "ndcg@{k}"),
            Self::Mrr(k) => write!(f, "mrr@{k}"),
            Self::Recall(k) => write!(f, "recall@{k}"),
            Self::Success(k) => write!(f, "success@{k}"),
            Self::Map(k) => write!(f, "map@{k}"),
            Self::Loss => f.write_str("loss"),
        }
    }
}

impl FromStr for Metric {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.eq_ignore_ascii_case("loss") {
            return Ok(Self::Loss);
        }
        let unknown = || ConfigError::UnknownMetric { found: text.to_owned() };
        let (name, cutoff) = text.split_once('@').ok_or_else(unknown)?;
        let k: usize = cutoff.parse().ok().filter(|k| *k > 0).ok_or_else(unknown)?;
        match name.to_ascii_lowercase().as_str() {
            "ndcg" => Ok(Self::Ndcg(k)),
            "mrr" => Ok(Self::Mrr(k)),
            "recall" => Ok(Self::Recall(k)),
            "success" => Ok(Self::Success(k)),
            "map" => Ok(Self::Map(k)),
            _ => Err(unknown()),
        }
    }
}

impl TryFrom<String> for Metric {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Metric> for String {
    fn from(metric: Metric) -> Self {
        metric.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, metric) in [
            ("ndcg@10", Metric::Ndcg(10)),
            ("mrr@1", Metric::Mrr(1)),
            ("recall@100", Metric::Recall(100)),
            ("success@5", Metric::Success(5)),
            ("map@100", Metric::Map(100)),
            ("loss", Metric::Loss),
        ] {
            assert_eq!(text.parse::<Metric>().unwrap(), metric);
            assert_eq!(metric.to_string(), text);
            assert_eq!(serde_json::to_string(&metric).unwrap(), format!("\"{text}\""));
        }
        assert_eq!("NDCG@3".parse::<Metric>().unwrap(), Metric::Ndcg(3));
    }

    #[test]
    fn the_better_value_is_the_higher_one_but_for_a_loss_and_nan_never_wins() {
        let (nan, ndcg) = (Some(f64::NAN), Metric::default());
        for (metric, old, new, better) in [
            (ndcg, Some(0.5), Some(0.6), true),
            (ndcg, Some(0.5), Some(0.5), false),
            (ndcg, Some(0.5), Some(0.4), false),
            (Metric::Loss, Some(0.5), Some(0.4), true),
            (Metric::Loss, Some(0.5), Some(0.6), false),
            (ndcg, Some(0.5), nan, false),
            (ndcg, nan, Some(0.1), true),
            (ndcg, None, Some(0.1), true),
            (ndcg, nan, nan, false),
            (ndcg, Some(0.1), None, false),
            (Metric::Loss, Some(1.0), Some(f64::NEG_INFINITY), false),
        ] {
            assert_eq!(metric.is_better(old, new), better, "{metric}: {old:?} then {new:?}");
        }
    }

    #[test]
    fn an_unknown_metric_is_told_the_known_ones() {
        for text in ["ndcg", "ndcg@", "ndcg@0", "ndcg@-1", "map", "err@10", ""] {
            let message = text.parse::<Metric>().unwrap_err().to_string();
            assert_eq!(
                message,
                format!(
                    "unknown metric \"{text}\": expected ndcg@k, mrr@k, recall@k, success@k or map@k with k of 1 or more, \
                     such as ndcg@10, or loss"
                )
            );
        }
    }
}

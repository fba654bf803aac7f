//! Tokens of the texts, and the share that is cut off. The caller supplies the tokenizer.

use std::error::Error;

use serde::Serialize;

use super::finding::{Finding, Severity};
use crate::error::DataError;
use crate::raw::RawData;
use crate::texts::Texts;
use crate::texts::side::Side;

/// Maximum number of texts counted on each side, spread evenly: enough to know a share well.
const EXAMINED: usize = 20_000;
/// Texts handed to the counter at once.
const BLOCK: usize = 1024;
/// Share of cut texts above which a warning is given.
const CUT: f64 = 0.01;
/// Share of unknown tokens above which the vocabulary seems to be that of another language.
const UNKNOWN: f64 = 0.01;

/// Tokens of one text before anything is cut off, with the special tokens that the encoder adds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenCount {
    /// All tokens.
    pub tokens: usize,
    /// Tokens that the vocabulary does not have.
    pub unknown: usize,
}

/// One count for each text, or the tokenizer's own error.
type CountTokens<'a> = dyn Fn(&[&str], Side) -> Result<Vec<TokenCount>, Box<dyn Error + Send + Sync>> + Sync + 'a;

/// A model's tokenizer and the lengths at which texts are cut.
#[derive(Clone, Copy)]
pub struct TokenLimits<'a> {
    /// Counts the tokens of some texts, each by itself.
    pub counter: &'a CountTokens<'a>,
    /// Tokens of a query, special ones included.
    pub query_maxlen: usize,
    /// Tokens of a document, special ones included.
    pub doc_maxlen: usize,
    /// Tokens of the longest text that the encoder has positions for: no advice goes beyond it.
    pub longest: usize,
}

impl std::fmt::Debug for TokenLimits<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenLimits")
            .field("query_maxlen", &self.query_maxlen)
            .field("doc_maxlen", &self.doc_maxlen)
            .field("longest", &self.longest)
            .finish_non_exhaustive()
    }
}

/// Tokens of the texts of one side. Shares are between 0 and 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SideTokens {
    /// Number of texts that were counted.
    pub examined: usize,
    /// Length at which texts are cut, tokens.
    pub maxlen: usize,
    /// Mean length, tokens.
    pub mean: f64,
    /// Half of the texts are at most this long.
    pub median: usize,
    /// Length that would keep 99 % of the texts whole.
    pub keeps_99_percent: usize,
    /// The longest.
    pub max: usize,
    /// Share of texts that are cut.
    pub cut_share: f64,
    /// Tokens cut off.
    pub tokens_lost: u64,
    /// Share of all tokens that is cut off.
    pub lost_share: f64,
    /// Tokens to encode at the length that keeps 99 % of the texts whole, relative to the tokens at `maxlen`.
    pub cost_of_99_percent: f64,
    /// Share of tokens that the vocabulary does not have.
    pub unknown_share: f64,
    #[serde(skip)]
    pub(super) lengths: Vec<usize>,
}

impl SideTokens {
    /// Returns advice about texts that are cut, within the lengths that the encoder takes.
    fn advice(&self, name: &str, option: &str, longest: usize) -> String {
        let length = self.keeps_99_percent.min(longest);
        if self.keeps_99_percent <= self.maxlen {
            return format!("nothing to do, or cut the longest {name} into parts");
        }
        if length <= self.maxlen {
            return format!("cut the longest {name} into parts: the encoder takes no more than {longest} tokens");
        }
        let whole = self.lengths.iter().filter(|&&own| own <= length).count() as f64 / self.examined as f64;
        let cost = encoded(&self.lengths, length) as f64 / encoded(&self.lengths, self.maxlen).max(1) as f64;
        let (share, most) = if length == self.keeps_99_percent {
            ("99".to_owned(), "")
        } else {
            (format!("{:.1}", 100.0 * whole), ", the most that the encoder takes,")
        };
        format!(
            "{option} = {length}{most} would keep {share} % of them whole, with {cost:.2} times the tokens to encode"
        )
    }
}

/// Number of tokens left of texts of these lengths when they are cut at `maxlen`.
fn encoded(lengths: &[usize], maxlen: usize) -> u64 {
    lengths.iter().map(|&length| length.min(maxlen) as u64).sum()
}

/// Tokens of both sides.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TokenReport {
    /// The queries.
    pub queries: SideTokens,
    /// The documents.
    pub documents: SideTokens,
}

pub(super) fn examine(
    raw: &RawData,
    limits: &TokenLimits<'_>,
    findings: &mut Vec<Finding>,
) -> Result<TokenReport, DataError> {
    let report = TokenReport {
        queries: side(&raw.queries, limits.counter, Side::Query, limits.query_maxlen)?,
        documents: side(&raw.collection, limits.counter, Side::Document, limits.doc_maxlen)?,
    };
    for (name, option, tokens) in
        [("queries", "train.query_maxlen", &report.queries), ("documents", "train.doc_maxlen", &report.documents)]
    {
        if tokens.cut_share > 0.0 {
            let severity = if tokens.cut_share > CUT { Severity::Warning } else { Severity::Note };
            let count = (tokens.cut_share * tokens.examined as f64).round() as u64;
            findings.push(Finding {
                severity,
                name: format!("truncated_{name}"),
                count,
                message: format!(
                    "{:.1} % of the {name} are cut at {} tokens, and {:.1} % of their tokens are lost",
                    100.0 * tokens.cut_share,
                    tokens.maxlen,
                    100.0 * tokens.lost_share
                ),
                examples: Vec::new(),
                fix: tokens.advice(name, option, limits.longest),
            });
        }
        if tokens.unknown_share > UNKNOWN {
            findings.push(Finding {
                severity: Severity::Warning,
                name: format!("unknown_tokens_{name}"),
                count: (tokens.unknown_share * tokens.lengths.iter().sum::<usize>() as f64).round() as u64,
                message: format!(
                    "{:.1} % of the tokens of {name} are unknown to the vocabulary",
                    100.0 * tokens.unknown_share
                ),
                examples: Vec::new(),
                fix: "choose a model of the data's language (pretrained_model_name)".to_owned(),
            });
        }
    }
    Ok(report)
}

fn side<Kind>(
    texts: &Texts<Kind>,
    counter: &CountTokens<'_>,
    side: Side,
    maxlen: usize,
) -> Result<SideTokens, DataError> {
    let examined = texts.len().min(EXAMINED);
    let failed = |source| DataError::Tokenizer { source };
    let (mut lengths, mut unknown) = (Vec::with_capacity(examined), 0_u64);
    let ids: Vec<u32> = (0..examined).map(|index| (index * texts.len() / examined) as u32).collect();
    for block in ids.chunks(BLOCK) {
        let block: Vec<&str> = block.iter().map(|&id| texts.text(id)).collect();
        let counts = counter(&block, side).map_err(failed)?;
        if counts.len() != block.len() {
            return Err(failed(format!("{} texts gave {} counts", block.len(), counts.len()).into()));
        }
        lengths.extend(counts.iter().map(|count| count.tokens));
        unknown += counts.iter().map(|count| count.unknown as u64).sum::<u64>();
    }
    lengths.sort_unstable();
    let Some(&max) = lengths.last() else { return Ok(SideTokens { maxlen, ..SideTokens::default() }) };
    let at = |percent: usize| lengths[(examined * percent).div_ceil(100) - 1];
    let total: u64 = lengths.iter().map(|&length| length as u64).sum();
    let encoded = |maxlen: usize| encoded(&lengths, maxlen);
    let share = |part: u64| part as f64 / total.max(1) as f64;
    let lost = total - encoded(maxlen);
    Ok(SideTokens {
        examined,
        maxlen,
        mean: total as f64 / examined as f64,
        median: at(50),
        keeps_99_percent: at(99),
        max,
        cut_share: lengths.iter().filter(|&&length| length > maxlen).count() as f64 / examined as f64,
        tokens_lost: lost,
        lost_share: share(lost),
        cost_of_99_percent: encoded(at(99)) as f64 / encoded(maxlen).max(1) as f64,
        unknown_share: share(unknown),
        lengths,
    })
}

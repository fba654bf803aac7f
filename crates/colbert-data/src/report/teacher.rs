//! The teacher's scores: their spread, and where they contradict the order of the documents.

use serde::Serialize;

use super::finding::{Cases, Finding, Severity, shown};
use crate::raw::RawData;

/// Mean spread below which a softmax over the scores is nearly uniform.
const FLAT: f64 = 0.1;
/// Mean spread above which a softmax over the scores is nearly one document alone.
const STEEP: f64 = 30.0;

/// Teacher scores over all examples that have them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TeacherScores {
    /// Examples with scores for at least two documents.
    pub examples: usize,
    /// Mean difference between an example's best and worst score.
    pub mean_spread: f64,
    /// Mean difference between the first document's score and the best of the others.
    pub mean_margin: f64,
    /// Share of examples in which the first document has the best score, between 0 and 1.
    pub first_is_best: f64,
}

/// The scores in numbers, and the spread of every example.
pub(super) fn examine(raw: &RawData, findings: &mut Vec<Finding>) -> (Option<TeacherScores>, Vec<f64>) {
    let (mut spreads, mut margins) = (Vec::new(), Vec::new());
    let (mut flat, mut beaten) = (Cases::default(), Cases::default());
    for example in &raw.ready {
        let Some([first, others @ ..]) = example.scores.as_deref() else { continue };
        let Some((best, &best_score)) = others.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)) else { continue };
        let worst = others.iter().copied().fold(*first, f32::min);
        let spread = f64::from(first.max(best_score)) - f64::from(worst);
        spreads.push(spread);
        margins.push(f64::from(*first) - f64::from(best_score));
        let query = raw.queries.text(example.query);
        if spread == 0.0 {
            flat.add(|| shown(query));
        } else if best_score >= *first {
            let (positive, other) = (example.documents[0], example.documents[best + 1]);
            beaten.add(|| {
                let text = |pid| shown(raw.collection.text(pid));
                format!("{} | {best_score} for: {} | {first} for: {}", shown(query), text(other), text(positive))
            });
        }
    }
    if spreads.is_empty() {
        return (None, spreads);
    }
    let scores = TeacherScores::of(&spreads, &margins);
    flat.report(
        Severity::Warning,
        "flat_scores",
        "examples have the same teacher score for every document",
        "check the scores; such an example teaches that nothing is better than anything",
        findings,
    );
    beaten.report(
        Severity::Warning,
        "teacher_prefers_another",
        "examples have a document that the teacher scores at least as high as the first: likely a false negative",
        "put the best document first, or drop the others; with train.ignore_scores the first alone counts as relevant",
        findings,
    );
    findings.extend(strange_scale(&scores));
    (Some(scores), spreads)
}

impl TeacherScores {
    /// The scores in numbers, from the spread of every example and the margin of its first document.
    fn of(spreads: &[f64], margins: &[f64]) -> Self {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        Self {
            examples: spreads.len(),
            mean_spread: mean(spreads),
            mean_margin: mean(margins),
            first_is_best: margins.iter().filter(|margin| **margin >= 0.0).count() as f64 / margins.len() as f64,
        }
    }
}

/// A finding if the softmax over the scores is nearly uniform or nearly one document alone.
fn strange_scale(scores: &TeacherScores) -> Option<Finding> {
    if scores.mean_spread <= 0.0 || (FLAT..=STEEP).contains(&scores.mean_spread) {
        return None;
    }
    let (kind, effect) =
        if scores.mean_spread < FLAT { ("little", "uniform") } else { ("widely", "one document alone") };
    Some(Finding {
        severity: Severity::Warning,
        name: "teacher_scale".to_owned(),
        count: scores.examples as u64,
        message: format!(
            "teacher scores differ {kind} within an example ({:.3} on average): their softmax is nearly {effect}",
            scores.mean_spread
        ),
        examples: Vec::new(),
        fix: format!(
            "train.distillation_alpha = {}, which brings the spread to about 5",
            two_digits(5.0 / scores.mean_spread)
        ),
    })
}

/// A positive number with two significant digits, however small it is.
fn two_digits(number: f64) -> String {
    let after_point = (1.0 - number.log10().floor()).clamp(0.0, 300.0);
    format!("{number:.*}", after_point as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_digits_of_any_size() {
        let cases = [(5.0, "5.0"), (0.123, "0.12"), (0.000_000_512, "0.00000051"), (1234.5, "1234"), (55.5, "56")];
        for (number, text) in cases {
            assert_eq!(two_digits(number), text);
        }
        assert!(two_digits(5e-300).trim_end_matches('0').ends_with('5'));
    }
}

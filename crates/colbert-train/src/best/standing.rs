//! The standing of a query's relevant documents, updated block by block, so that scores are never all in memory.

use std::cmp::Ordering;

/// Documents remembered of each query's ranking.
pub(crate) const REMEMBERED: usize = 3;

/// A document with its score for a query and its grade; 0 if it is not relevant.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scored {
    score: f32,
    grade: i32,
    pid: u32,
}

impl Scored {
    /// Orders by falling score. Of equal scores the less relevant document comes first, so that a model that cannot
    /// distinguish documents gains nothing by their order in the collection.
    fn pessimistic(a: &Self, b: &Self) -> Ordering {
        b.score.total_cmp(&a.score).then(a.grade.cmp(&b.grade)).then(a.pid.cmp(&b.pid))
    }
}

/// The standing of one query's relevant documents: their scores, and how many other documents come before each.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Standing {
    /// Best first.
    relevant: Vec<Scored>,
    /// Documents that are not relevant between one relevant document and the one before it; those after the last at the
    /// end.
    between: Vec<usize>,
    /// The first documents of the ranking so far.
    first: Vec<Scored>,
    /// The sum over documents that are not relevant, if the loss is requested.
    others: Option<LogSum>,
}

impl Standing {
    /// Starts with the relevant documents, their grades and scores, all finite, before any other document is known.
    pub(crate) fn new(relevant: impl IntoIterator<Item = (u32, i32, f32)>, with_loss: bool) -> Self {
        let mut relevant: Vec<Scored> =
            relevant.into_iter().map(|(pid, grade, score)| Scored { score, grade, pid }).collect();
        relevant.sort_unstable_by(Scored::pessimistic);
        let first = relevant.iter().take(REMEMBERED).copied().collect();
        let between = vec![0; relevant.len() + 1];
        Self { relevant, between, first, others: with_loss.then(LogSum::default) }
    }

    pub(crate) fn is_relevant(&self, pid: u32) -> bool {
        self.relevant.iter().any(|own| own.pid == pid)
    }

    /// Takes in a document that is not relevant.
    pub(crate) fn pass(&mut self, pid: u32, score: f32) {
        // Relevant documents with the same score come after it.
        self.between[self.relevant.partition_point(|own| own.score > score)] += 1;
        let own = Scored { score, grade: 0, pid };
        let place = self.first.partition_point(|other| Scored::pessimistic(other, &own).is_lt());
        if place < REMEMBERED {
            self.first.insert(place, own);
            self.first.truncate(REMEMBERED);
        }
        if let Some(others) = &mut self.others {
            others.add(f64::from(score));
        }
    }

    /// Returns the ranks, from 1, and grades of the relevant documents, best first.
    pub(crate) fn ranks(&self) -> Vec<(usize, i32)> {
        let mut before = 0;
        let rank = |(place, own): (usize, &Scored)| {
            before += self.between[place];
            (before + place + 1, own.grade)
        };
        self.relevant.iter().enumerate().map(rank).collect()
    }

    /// Returns the first documents of the ranking.
    pub(crate) fn first(&self) -> Vec<u32> {
        self.first.iter().map(|own| own.pid).collect()
    }

    /// Returns the mean over the relevant documents of `-log(e^s / (e^s + sum of e^t over the documents that are not
    /// relevant))`: the n-way cross-entropy of training, against every other document there is. None if the loss was
    /// not requested.
    pub(crate) fn loss(&self) -> Option<f64> {
        let others = self.others?;
        let loss = |own: &Scored| {
            let score = f64::from(own.score);
            let highest = score.max(others.highest);
            ((score - highest).exp() + others.sum * (others.highest - highest).exp()).ln() - (score - highest)
        };
        Some(self.relevant.iter().map(loss).sum::<f64>() / self.relevant.len() as f64)
    }
}

/// The sum of `e^x`, as `sum * e^highest`, so that it stays within what f64 holds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct LogSum {
    highest: f64,
    sum: f64,
}

impl Default for LogSum {
    fn default() -> Self {
        // Far below any score; minus infinity minus itself would be NaN.
        Self { highest: f64::MIN / 4.0, sum: 0.0 }
    }
}

impl LogSum {
    fn add(&mut self, x: f64) {
        if x > self.highest {
            self.sum = self.sum * (self.highest - x).exp() + 1.0;
            self.highest = x;
        } else {
            self.sum += (x - self.highest).exp();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scores: &[f32], judgements: &[(u32, i32)]) -> Standing {
        let relevant = judgements.iter().filter(|(_, grade)| *grade > 0);
        let mut standing = Standing::new(relevant.map(|&(pid, grade)| (pid, grade, scores[pid as usize])), true);
        for (pid, &score) in (0..).zip(scores) {
            if !standing.is_relevant(pid) {
                standing.pass(pid, score);
            }
        }
        standing
    }

    #[test]
    fn equal_scores_count_against_the_relevant_document() {
        let constant = of(&[1.0; 7], &[(0, 1), (3, 2)]);
        assert_eq!(constant.ranks(), [(6, 1), (7, 2)]);
        assert_eq!(constant.first(), [1, 2, 4]);
        let mixed = of(&[5.0, 9.0, 5.0, 5.0, 7.0, 1.0], &[(0, 1), (4, 3), (5, 1)]);
        assert_eq!(mixed.ranks(), [(2, 3), (5, 1), (6, 1)]);
        assert_eq!(mixed.first(), [1, 4, 2]);
    }

    /// Sorting all scores gives the same ranks, whatever the order in which documents come.
    #[test]
    fn ranks_are_those_of_a_full_ranking() {
        let scores: Vec<f32> = (0u32..400).map(|i| (i.wrapping_mul(2_654_435_761) >> 26) as f32).collect();
        let judgements = [(7, 1), (9, 3), (250, 1), (399, 2), (12, 0)];
        let grade = |pid: u32| judgements.iter().find(|(judged, _)| *judged == pid).map_or(0, |(_, grade)| *grade);
        let mut all: Vec<Scored> =
            (0..).zip(&scores).map(|(pid, &score)| Scored { score, grade: grade(pid), pid }).collect();
        all.sort_by(Scored::pessimistic);
        let expected: Vec<(usize, i32)> =
            (1..).zip(&all).filter(|(_, own)| own.grade > 0).map(|(rank, own)| (rank, own.grade)).collect();
        let found = of(&scores, &judgements);
        assert_eq!(found.ranks(), expected);
        assert_eq!(found.first(), all[..REMEMBERED].iter().map(|own| own.pid).collect::<Vec<_>>());
    }

    #[test]
    fn the_loss_by_hand() {
        let scores = [1.0f32, 2.0, 0.5, 3.0];
        let e = f64::exp;
        let others = e(0.5) + e(3.0);
        let expected = -((e(1.0) / (e(1.0) + others)).ln() + (e(2.0) / (e(2.0) + others)).ln()) / 2.0;
        assert!((of(&scores, &[(0, 1), (1, 2), (2, 0)]).loss().unwrap() - expected).abs() < 1e-12);
        // Scores far beyond what exp can hold.
        assert!((of(&[1000.0, 999.0], &[(0, 1)]).loss().unwrap() - (1.0 + e(-1.0)).ln()).abs() < 1e-12);
        assert_eq!(of(&[-3.0], &[(0, 1)]).loss(), Some(0.0), "nothing to confuse it with");
    }
}

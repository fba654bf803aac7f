//! The best documents of one query, updated block by block, so that scores are never all in memory.

use std::cmp::Ordering;

use colbert_data::Ranked;

/// At most `depth` documents, the best so far. Documents must come in the order of their pids.
#[derive(Debug, Clone)]
pub(super) struct Best {
    depth: usize,
    kept: Vec<Ranked>,
    /// A document that scores no more than this cannot be among the best: a lower pid has as much.
    threshold: f32,
}

impl Best {
    /// Starts with no documents. `depth` is at least 1.
    pub(super) fn new(depth: usize) -> Self {
        Self { depth, kept: Vec::new(), threshold: f32::NEG_INFINITY }
    }

    /// Scores of documents that follow each other, from `first` on.
    pub(super) fn offer(&mut self, first: u32, scores: &[f32]) {
        for (pid, &score) in (first..).zip(scores) {
            if score > self.threshold {
                self.kept.push(Ranked { pid, score });
                // Twice the depth, so that the list is rarely cut.
                if self.kept.len() >= 2 * self.depth {
                    self.cut();
                }
            }
        }
    }

    fn cut(&mut self) {
        if self.kept.len() > self.depth {
            let (_, last, _) = self.kept.select_nth_unstable_by(self.depth - 1, best_first);
            self.threshold = last.score;
            self.kept.truncate(self.depth);
        }
    }

    /// Returns the documents, best first.
    pub(super) fn ranking(mut self) -> Vec<Ranked> {
        self.cut();
        self.kept.sort_unstable_by(best_first);
        self.kept
    }
}

/// Orders by falling score, equal scores by pid.
pub(super) fn best_first(a: &Ranked, b: &Ranked) -> Ordering {
    b.score.total_cmp(&a.score).then(a.pid.cmp(&b.pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_give_what_sorting_everything_gives() {
        // Few distinct scores, so that there are ties everywhere.
        let scores: Vec<f32> = (0u32..500).map(|i| (i.wrapping_mul(2_654_435_761) >> 28) as f32).collect();
        let mut all: Vec<Ranked> = scores.iter().zip(0..).map(|(&score, pid)| Ranked { pid, score }).collect();
        all.sort_by(best_first);
        for depth in [1, 2, 7, 110, 499, 500, 900] {
            for block in [1, 3, 64, 500] {
                let mut best = Best::new(depth);
                for (index, scores) in scores.chunks(block).enumerate() {
                    best.offer((index * block) as u32, scores);
                }
                assert_eq!(best.ranking(), all[..depth.min(500)], "{depth} in blocks of {block}");
            }
        }
    }
}

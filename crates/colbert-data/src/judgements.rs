//! Which documents are relevant to which query.

/// Graded judgements of every query, in the order they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgements {
    of_query: Vec<Vec<(u32, i32)>>,
}

impl Judgements {
    /// No judgements.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records a grade; above 0 means relevant. A later grade of the same pair replaces the earlier one in its place.
    pub fn insert(&mut self, qid: u32, pid: u32, grade: i32) {
        let index = qid as usize;
        if self.of_query.len() <= index {
            self.of_query.resize_with(index + 1, Vec::new);
        }
        let judged = &mut self.of_query[index];
        match judged.iter_mut().find(|(known, _)| *known == pid) {
            Some((_, old)) => *old = grade,
            None => judged.push((pid, grade)),
        }
    }

    /// (pid, grade) of every judged document of a query, in insertion order.
    #[must_use]
    pub fn of(&self, qid: u32) -> &[(u32, i32)] {
        self.of_query.get(qid as usize).map_or(&[], Vec::as_slice)
    }

    /// Known positives of a query: the documents with a grade above 0.
    pub fn positives(&self, qid: u32) -> impl Iterator<Item = u32> + '_ {
        self.of(qid).iter().filter(|(_, grade)| *grade > 0).map(|(pid, _)| *pid)
    }

    /// Whether a document is a known positive of a query.
    #[must_use]
    pub fn is_positive(&self, qid: u32, pid: u32) -> bool {
        self.positives(qid).any(|positive| positive == pid)
    }

    /// How many (query, document) pairs are judged.
    #[must_use]
    pub fn len(&self) -> usize {
        self.of_query.iter().map(Vec::len).sum()
    }

    /// Whether nothing is judged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grades_keep_insertion_order_and_the_last_grade_wins() {
        let mut judgements = Judgements::new();
        for (pid, grade) in [(7, 1), (3, 0), (5, 2), (7, 0)] {
            judgements.insert(2, pid, grade);
        }
        assert_eq!(judgements.of(2), [(7, 0), (3, 0), (5, 2)]);
        assert_eq!(judgements.positives(2).collect::<Vec<_>>(), [5]);
        assert!(judgements.is_positive(2, 5) && !judgements.is_positive(2, 7));
        assert!(judgements.of(0).is_empty() && judgements.of(9).is_empty());
        assert_eq!(judgements.len(), 3);
    }
}

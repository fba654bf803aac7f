//! Which documents are relevant to which query.

use std::collections::HashMap;

use crate::texts::pid_set::FEW;

/// Bytes that the allocator adds to a small list, about: its own header, and the list's unused end.
pub(crate) const ALLOCATION: usize = 32;

/// Graded judgements of every query, in the order they were made.
#[derive(Debug, Clone, Default)]
pub struct Judgements {
    of_query: Vec<Vec<(u32, i32)>>,
    /// Place of each pid in the list of a query, for queries with a list too long to search.
    places: HashMap<u32, HashMap<u32, usize>>,
}

/// Equal if the same grades were recorded in the same order.
impl PartialEq for Judgements {
    fn eq(&self, other: &Self) -> bool {
        self.of_query == other.of_query
    }
}

impl Eq for Judgements {}

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
        match self.place(qid, pid) {
            Some(place) => self.of_query[index][place].1 = grade,
            None => {
                let judged = &mut self.of_query[index];
                judged.push((pid, grade));
                if judged.len() == FEW + 1 {
                    self.places.insert(qid, judged.iter().zip(0..).map(|((pid, _), place)| (*pid, place)).collect());
                } else if let Some(places) = self.places.get_mut(&qid) {
                    places.insert(pid, judged.len() - 1);
                }
            }
        }
    }

    /// Bytes of memory, about.
    #[must_use]
    pub(crate) fn memory(&self) -> u64 {
        let judged: usize = self.of_query.iter().map(Vec::len).sum();
        let placed: usize = self.places.values().map(HashMap::len).sum();
        let lists = self.of_query.len() * (size_of::<Vec<(u32, i32)>>() + ALLOCATION);
        (lists + judged * size_of::<(u32, i32)>() + placed * 2 * size_of::<(u32, usize)>()) as u64
    }

    fn place(&self, qid: u32, pid: u32) -> Option<usize> {
        match self.places.get(&qid) {
            Some(places) => places.get(&pid).copied(),
            None => self.of(qid).iter().position(|(known, _)| *known == pid),
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
        self.place(qid, pid).is_some_and(|place| self.of(qid)[place].1 > 0)
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

    #[test]
    fn a_query_with_many_judgements_is_no_different() {
        let mut judgements = Judgements::new();
        let grade = |pid: u32| i32::from(pid.is_multiple_of(3));
        (0..1000).for_each(|pid| judgements.insert(1, 2 * pid, grade(pid)));
        (0..1000).step_by(10).for_each(|pid| judgements.insert(1, 2 * pid, 2));
        let expected: Vec<_> =
            (0..1000u32).map(|pid| (2 * pid, if pid.is_multiple_of(10) { 2 } else { grade(pid) })).collect();
        assert_eq!(judgements.of(1), expected);
        let is_positive = |pid: u32| expected.contains(&(pid, 1)) || expected.contains(&(pid, 2));
        assert!((0..3000).all(|pid| judgements.is_positive(1, pid) == is_positive(pid)));
    }
}

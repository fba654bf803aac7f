//! Holding out queries as dev data.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use rand::Rng;

use super::{Group, RawData};
use crate::error::DataError;
use crate::sets::evaluation_set::{EvaluationSet, copy};
use crate::texts::Queries;
use crate::texts::judgements::Judgements;
use crate::texts::sample::rng_for;
use crate::texts::twins::Twins;

/// The outcome of holding out dev queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DevSplit {
    /// Queries that were held out.
    pub queries: usize,
    /// Queries that are left to train on.
    pub left: usize,
    /// Dev queries that share a positive with a training query, or equal one: there were not enough others.
    pub shared: usize,
}

impl fmt::Display for DevSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dev: {} queries held out, {} left to train on; ", self.queries, self.left)?;
        match self.shared {
            0 => f.write_str("none shares a positive with a training query"),
            shared => write!(
                f,
                "{shared} of them share a positive with a training query (there were not enough others), so dev numbers \
                 are somewhat too good"
            ),
        }
    }
}

impl RawData {
    /// Holds out `count` queries with all their rows, as dev queries against the whole collection.
    ///
    /// Queries that are equal or share a positive stay on one side as long as there are enough others; the outcome
    /// counts those that do not. Here, as everywhere, texts that differ only in case, white space and Unicode form are
    /// equal: a twin of a positive is relevant too. Which queries are taken depends on the seed and the texts, not on
    /// the order of rows. All documents stay in the collection that negatives are drawn from.
    ///
    /// # Errors
    /// No query would be left to train on.
    pub fn split_dev(mut self, count: usize, seed: u64) -> Result<(Self, EvaluationSet, DevSplit), DataError> {
        let judged: Vec<u32> = (0..self.queries.len() as u32).filter(|&qid| !self.positives(qid).is_empty()).collect();
        if count == 0 || count >= judged.len() {
            let expected = format!("1 to {}, as there are {} queries", judged.len().saturating_sub(1), judged.len());
            return Err(DataError::OptionRange { option: "data.dev_split", expected, found: count.to_string() });
        }
        let documents = Twins::find(&self.collection);
        let known = self.known_positives(&documents);
        let drawn = |qid: u32| rng_for(seed, "dev split", self.queries.text(qid)).random::<u64>();
        let mut families: Vec<Vec<(u64, u32)>> = self.families(&judged, &documents);
        for family in &mut families {
            family.iter_mut().for_each(|(key, qid)| *key = drawn(*qid));
            family.sort_unstable();
        }
        families.sort_unstable();
        let (mut taken, mut passed): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        for family in &families {
            let into = if taken.len() + family.len() <= count { &mut taken } else { &mut passed };
            into.extend(family.iter().map(|(_, qid)| *qid));
        }
        let shared = count - taken.len();
        taken.extend(&passed[..shared]);
        taken.sort_unstable();

        let (mut queries, mut judgements) = (Queries::new(), Judgements::new());
        for &old in &taken {
            let qid = copy(&mut queries, &self.queries, old)?;
            known.positives(old).for_each(|pid| judgements.insert(qid, pid, 1));
        }
        let dev = EvaluationSet { queries, collection: Arc::new(self.collection.clone()), judgements };
        self.remove(&taken.into_iter().collect())?;
        let split = DevSplit { queries: count, left: self.queries.len(), shared };
        Ok((self, dev, split))
    }

    /// Queries that belong together, in groups.
    fn families(&self, qids: &[u32], documents: &Twins) -> Vec<Vec<(u64, u32)>> {
        let mut parent: HashMap<u32, u32> = qids.iter().map(|&qid| (qid, qid)).collect();
        fn root(parent: &mut HashMap<u32, u32>, mut qid: u32) -> u32 {
            while parent[&qid] != qid {
                let above = parent[&parent[&qid]];
                parent.insert(qid, above);
                qid = above;
            }
            qid
        }
        let queries = Twins::find(&self.queries);
        let (mut of_positive, mut of_text) = (HashMap::new(), HashMap::new());
        for &qid in qids {
            let twin = *of_text.entry(queries.first(qid)).or_insert(qid);
            let positives = self.positives(qid).iter().map(|&pid| documents.first(pid));
            let relatives = positives.map(|pid| *of_positive.entry(pid).or_insert(qid));
            for relative in relatives.chain([twin]).collect::<Vec<_>>() {
                let (one, other) = (root(&mut parent, qid), root(&mut parent, relative));
                parent.insert(one.max(other), one.min(other));
            }
        }
        let mut families: HashMap<u32, Vec<(u64, u32)>> = HashMap::new();
        for &qid in qids {
            families.entry(root(&mut parent, qid)).or_default().push((0, qid));
        }
        families.into_values().collect()
    }

    /// Removes queries with everything that is known of them.
    fn remove(&mut self, gone: &HashSet<u32>) -> Result<(), DataError> {
        for start in &mut self.sources {
            let before = gone.iter().filter(|qid| **qid < *start).count();
            *start -= before as u32;
        }
        let (mut queries, mut groups, mut renamed) = (Queries::new(), Vec::new(), HashMap::new());
        for old in 0..self.queries.len() as u32 {
            if gone.contains(&old) {
                continue;
            }
            renamed.insert(old, copy(&mut queries, &self.queries, old)?);
            groups.push(self.groups.get(old as usize).cloned().unwrap_or_else(Group::default));
        }
        self.ready.retain(|example| !gone.contains(&example.query));
        self.ready.iter_mut().for_each(|example| example.query = renamed[&example.query]);
        (self.queries, self.groups) = (queries, groups);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(order: impl Iterator<Item = usize>) -> RawData {
        // Queries 0 to 9 share the passage of their number divided by 2; the others have their own.
        let passage = |i: usize| if i < 10 { format!("shared {}", i / 2) } else { format!("own {i}") };
        RawData::from_pairs(order.map(|i| (format!("query {i}"), passage(i)))).unwrap()
    }

    fn texts(set: &EvaluationSet) -> Vec<String> {
        let mut texts: Vec<String> = set.queries.iter().map(str::to_owned).collect();
        texts.sort();
        texts
    }

    #[test]
    fn families_stay_together_and_nothing_is_on_both_sides() {
        for seed in 0..20 {
            let (left, dev, split) = data(0..40).split_dev(9, seed).unwrap();
            assert_eq!(split, DevSplit { queries: 9, left: 31, shared: 0 });
            assert_eq!((dev.queries.len(), left.queries.len(), left.collection.len()), (9, 31, 35));
            let dev_positives: HashSet<u32> = (0..9).flat_map(|qid| dev.judgements.positives(qid)).collect();
            for qid in 0..31 {
                assert!(!left.positives(qid).is_empty());
                assert!(left.positives(qid).iter().all(|pid| !dev_positives.contains(pid)), "seed {seed}");
                assert!(dev.queries.find(left.queries.text(qid)).is_none());
            }
            for qid in 0..9 {
                let number: usize = dev.queries.text(qid)["query ".len()..].parse().unwrap();
                let passage = dev.collection.text(dev.judgements.positives(qid).next().unwrap());
                assert!(passage == format!("own {number}") || passage == format!("shared {}", number / 2));
            }
        }
    }

    #[test]
    fn the_choice_depends_on_seed_and_texts_and_not_on_their_order() {
        let (one, other) = (data(0..40).split_dev(8, 3).unwrap().1, data((0..40).rev()).split_dev(8, 3).unwrap().1);
        assert_eq!(texts(&one), texts(&other));
        assert_ne!(texts(&one), texts(&data(0..40).split_dev(8, 4).unwrap().1));
    }

    #[test]
    fn what_cannot_be_kept_apart_is_counted() {
        let one_family = RawData::from_pairs((0..6).map(|i| (format!("query {i}"), "the same passage"))).unwrap();
        let (left, dev, split) = one_family.split_dev(2, 1).unwrap();
        assert_eq!((split.shared, dev.queries.len(), left.queries.len()), (2, 2, 4));
        assert!(split.to_string().contains("2 of them share"), "{split}");
        let twins = RawData::from_pairs([("A query", "one"), ("a  QUERY", "two"), ("another", "three")]).unwrap();
        assert_eq!(twins.split_dev(1, 1).unwrap().2.shared, 0);
    }

    #[test]
    fn examples_that_came_ready_go_with_their_query() {
        let rows = (0..5).map(|i| (format!("query {i}"), vec![format!("a {i}"), format!("b {i}")], vec![2.0, 1.0]));
        let raw = RawData::from_scored(rows).unwrap();
        let (left, dev, _) = raw.split_dev(2, 1).unwrap();
        assert_eq!(left.ready.len(), 3);
        for example in &left.ready {
            let number = &left.queries.text(example.query)["query ".len()..];
            assert_eq!(left.collection.text(example.documents[0]), format!("a {number}"));
            assert!(dev.queries.find(left.queries.text(example.query)).is_none());
        }
    }

    #[test]
    fn a_split_that_leaves_nothing_is_refused() {
        for count in [0, 4, 9] {
            let raw = RawData::from_pairs((0..4).map(|i| (format!("query {i}"), format!("text {i}")))).unwrap();
            let message = raw.split_dev(count, 1).unwrap_err().to_string();
            assert!(message.contains("data.dev_split") && message.contains("1 to 3"), "{message}");
        }
    }
}

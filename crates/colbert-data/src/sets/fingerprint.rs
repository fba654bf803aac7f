//! Fingerprints of texts and examples: equal content has an equal number, on every machine.

use crate::sets::evaluation_set::EvaluationSet;
use crate::sets::training_set::TrainingSet;
use crate::texts::Texts;
use crate::texts::fingerprint::Fingerprint;
use crate::texts::judgements::Judgements;

fn add_texts<Kind>(hash: &mut Fingerprint, texts: &Texts<Kind>) {
    hash.add_number(texts.len() as u64);
    for text in texts.iter() {
        hash.add_number(text.len() as u64);
        hash.add(text.as_bytes());
    }
}

fn add_judgements(hash: &mut Fingerprint, judgements: &Judgements, queries: usize) {
    for qid in 0..queries as u32 {
        let judged = judgements.of(qid);
        hash.add_number(judged.len() as u64);
        for (pid, grade) in judged {
            hash.add_number((*pid).into());
            hash.add(&grade.to_le_bytes());
        }
    }
}

impl TrainingSet {
    /// Returns the fingerprint of a training set: its texts, examples with their scores, and known positives, in their
    /// order. The source of the texts and the ids it gave them do not count.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Fingerprint::new();
        add_texts(&mut hash, &self.queries);
        add_texts(&mut hash, &self.collection);
        hash.add_number(self.examples.len() as u64);
        for example in &self.examples {
            hash.add_number(example.query.into());
            hash.add_number(example.documents.len() as u64);
            example.documents.iter().for_each(|pid| hash.add_number((*pid).into()));
            let scores = example.scores.as_deref();
            hash.add_number(scores.map_or(0, |scores| 1 + scores.len() as u64));
            scores.unwrap_or_default().iter().for_each(|score| hash.add(&score.to_bits().to_le_bytes()));
        }
        add_judgements(&mut hash, &self.positives, self.queries.len());
        // A single source is the same as none, and its fingerprint has never changed.
        self.sources.iter().for_each(|first| hash.add_number((*first).into()));
        hash.finish()
    }
}

impl EvaluationSet {
    /// Returns the fingerprint of an evaluation set: its texts and judgements in their order.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Fingerprint::new();
        add_texts(&mut hash, &self.queries);
        add_texts(&mut hash, &self.collection);
        add_judgements(&mut hash, &self.judgements, self.queries.len());
        hash.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PrepareOptions, RawData, prepare};

    #[test]
    fn a_training_set_has_one_number_and_every_change_another() {
        let set = |pairs: &[(&str, &str)]| {
            prepare(RawData::from_pairs(pairs.iter().copied()).unwrap(), &PrepareOptions::default(), None).unwrap().0
        };
        let pairs = [("a tor", "a hill"), ("a fen", "wet land"), ("a weir", "a low dam")];
        let original = set(&pairs);
        assert_eq!(original.fingerprint(), set(&pairs).fingerprint());
        let mut changed = vec![
            set(&[("a tor", "a hill"), ("a fen", "wet lanD"), ("a weir", "a low dam")]),
            set(&[("a tor", "a hill"), ("a weir", "a low dam"), ("a fen", "wet land")]),
        ];
        let mut change = |make: &dyn Fn(&mut TrainingSet)| {
            let mut set = original.clone();
            make(&mut set);
            changed.push(set);
        };
        change(&|set| set.examples.swap(0, 1));
        change(&|set| set.examples[0].documents.reverse());
        change(&|set| set.examples[0].scores = Some(vec![1.0, 0.5]));
        change(&|set| set.positives.insert(0, 2, 1));
        change(&|set| set.sources = vec![0, 1]);
        for (place, set) in changed.iter().enumerate() {
            assert_ne!(set.fingerprint(), original.fingerprint(), "change {place}");
        }
    }
}

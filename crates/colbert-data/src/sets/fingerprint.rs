//! A number that stands for the content of texts and examples: equal content, equal number, on every machine.

use crate::sets::evaluation_set::EvaluationSet;
use crate::sets::training_set::TrainingSet;
use crate::texts::Texts;
use crate::texts::judgements::Judgements;

/// 64-bit FNV-1a, which unlike the standard library's hash never changes between releases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fnv1a(u64);

impl Fnv1a {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    }

    pub(crate) fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::new();
        hash.add(bytes);
        hash.0
    }

    fn number(&mut self, number: u64) {
        self.add(&number.to_le_bytes());
    }

    fn texts<Kind>(&mut self, texts: &Texts<Kind>) {
        self.number(texts.len() as u64);
        for text in texts.iter() {
            self.number(text.len() as u64);
            self.add(text.as_bytes());
        }
    }

    fn judgements(&mut self, judgements: &Judgements, queries: usize) {
        for qid in 0..queries as u32 {
            let judged = judgements.of(qid);
            self.number(judged.len() as u64);
            for (pid, grade) in judged {
                self.number((*pid).into());
                self.add(&grade.to_le_bytes());
            }
        }
    }
}

impl TrainingSet {
    /// A number for what is trained on: texts, examples with their scores, known positives, in their order. Where the
    /// texts came from and what their source called them does not count.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Fnv1a::new();
        hash.texts(&self.queries);
        hash.texts(&self.collection);
        hash.number(self.examples.len() as u64);
        for example in &self.examples {
            hash.number(example.query.into());
            hash.number(example.documents.len() as u64);
            example.documents.iter().for_each(|pid| hash.number((*pid).into()));
            let scores = example.scores.as_deref();
            hash.number(scores.map_or(0, |scores| 1 + scores.len() as u64));
            scores.unwrap_or_default().iter().for_each(|score| hash.add(&score.to_bits().to_le_bytes()));
        }
        hash.judgements(&self.positives, self.queries.len());
        hash.0
    }
}

impl EvaluationSet {
    /// A number for what is measured on: texts and judgements in their order.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Fnv1a::new();
        hash.texts(&self.queries);
        hash.texts(&self.collection);
        hash.judgements(&self.judgements, self.queries.len());
        hash.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PrepareOptions, RawData, prepare};

    #[test]
    fn fnv1a_matches_its_published_vectors() {
        assert_eq!(Fnv1a::of(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(Fnv1a::of(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(Fnv1a::of(b"foobar"), 0x8594_4171_f739_67e8);
    }

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
        for (place, set) in changed.iter().enumerate() {
            assert_ne!(set.fingerprint(), original.fingerprint(), "change {place}");
        }
    }
}

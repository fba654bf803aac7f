//! Texts that are the same but for case, white space and Unicode form are one thing wherever that matters.

use std::collections::HashSet;

use colbert_data::{DataReport, PrepareOptions, RawData, TrainingSet, normalised, prepare};

use crate::support::{ByPid, assert_parts, in_words, options, random};

fn given() -> PrepareOptions {
    options(|negatives| negatives.num_new_negatives = 0)
}

fn positives(set: &TrainingSet, qid: u32) -> HashSet<u32> {
    (0..set.collection.len() as u32).filter(|&pid| set.positives.is_positive(qid, pid)).collect()
}

/// What in-batch negatives are looked up in.
#[test]
fn a_twin_of_the_positive_is_no_in_batch_negative() {
    let raw = RawData::from_triplets([
        ("q", ["The river is long"], ["a weir"]),
        ("r", ["the  river is LONG"], ["a tor"]),
        ("s", ["a cafe\u{301}"], ["a tor"]),
        ("t", ["a caf\u{e9}"], ["a weir"]),
    ]);
    let (set, _) = prepare(raw.unwrap(), &given(), None).unwrap();
    let pid = |text: &str| set.collection.pid_of_text(text).unwrap();
    let rivers = HashSet::from([pid("The river is long"), pid("the  river is LONG")]);
    assert_eq!((positives(&set, 0), positives(&set, 1)), (rivers.clone(), rivers));
    let cafes = HashSet::from([pid("a cafe\u{301}"), pid("a caf\u{e9}")]);
    assert_eq!((positives(&set, 2), positives(&set, 3)), (cafes.clone(), cafes));
}

#[test]
fn a_given_negative_that_is_a_twin_of_a_positive_is_left_out_and_counted() {
    let raw = RawData::from_triplets([
        ("q", vec!["the river is long"], vec!["The  river is LONG", "a weir"]),
        ("r", vec!["a tor"], vec!["a fen"]),
    ]);
    let (set, report) = prepare(raw.unwrap(), &given(), None).unwrap();
    assert_eq!(in_words(&set), [["q", "the river is long", "a weir"], ["r", "a tor", "a fen"]]);
    assert_eq!((report.contradictions, report.contradictions_equal), (0, 1));
    assert_parts(
        &report.to_string(),
        &["1 given negatives left out: same text as a positive of the same query but for"],
    );
}

#[test]
fn the_positives_of_twin_queries_are_positives_of_each_other() {
    let rows = [("what is a tor", "a rocky hill"), ("What is a  TOR", "granite on a moor")];
    let mut raw = RawData::from_pairs(rows).unwrap();
    raw.add_documents(["A ROCKY hill", "a weir"]).unwrap();
    let report = DataReport::new(&raw, None);
    assert!(report.findings.iter().any(|finding| finding.name == "equal_queries" && finding.count == 1));
    let mined = options(|negatives| {
        negatives.hard_negative_minimum_rank = 0;
        negatives.positive_score_share = None;
    });
    for options in [mined, random(10)] {
        let (set, _) = prepare(raw.clone(), &options, Some(&ByPid)).unwrap();
        let negatives: Vec<_> = set.examples.iter().map(|example| set.collection.text(example.documents[1])).collect();
        assert_eq!(negatives, ["a weir", "a weir"]);
        assert_eq!((positives(&set, 0), positives(&set, 1)), (HashSet::from([0, 1, 2]), HashSet::from([0, 1, 2])));
    }
}

#[test]
fn of_candidates_that_are_twins_one_is_taken() {
    let mut raw = RawData::from_triplets([("q", ["a hill"], ["a weir"])]).unwrap();
    raw.add_documents(["A weir", "a fen", "A FEN", "a  fen"]).unwrap();
    let options = options(|negatives| {
        negatives.hard_negative_minimum_rank = 0;
        negatives.positive_score_share = None;
    });
    let (set, report) = prepare(raw, &options, Some(&ByPid)).unwrap();
    assert_eq!(in_words(&set), [["q", "a hill", "a weir"], ["q", "a hill", "a fen"]]);
    assert_eq!((report.dropped_given, report.dropped_equal), (2, 2));
}

#[test]
fn a_dev_query_shares_no_twin_with_a_training_query() {
    // Every passage stands twice, once in capitals.
    let rows = (0..40).map(|number| {
        let passage = format!("passage {}", number / 2);
        (format!("query {number}"), if number % 2 == 0 { passage } else { passage.to_uppercase() })
    });
    for seed in 0..10 {
        let raw = RawData::from_pairs(rows.clone()).unwrap();
        let (left, dev, split) = raw.split_dev(10, seed).unwrap();
        assert_eq!(split.shared, 0);
        let trained: HashSet<String> = (0..left.queries().len() as u32)
            .flat_map(|qid| left.positives(qid).iter().map(|&pid| normalised(left.collection().text(pid))))
            .collect();
        for qid in 0..10 {
            let relevant: Vec<u32> = dev.judgements.positives(qid).collect();
            assert_eq!(relevant.len(), 2, "the twin of a relevant passage is relevant");
            assert!(relevant.iter().all(|&pid| !trained.contains(&normalised(dev.collection.text(pid)))));
        }
    }
}

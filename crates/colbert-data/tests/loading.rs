//! The reference's own data-loading tests (RAGatouille 0.0.9, tests/test_training_data_loading.py) and what preparation
//! promises beyond them.

use colbert_config::TriplePolicy;
use colbert_data::{Labels, PrepareOptions, RawData, prepare};
use serde_json::json;

use crate::support::{assert_parts, in_words, many, options, random};

#[test]
fn pairs() {
    let raw = RawData::from_pairs([("Query1", "Document1"), ("Query2", "Document2")]).unwrap();
    let (set, report) = prepare(raw, &PrepareOptions::default(), None).unwrap();
    assert_eq!(set.queries.iter().collect::<Vec<_>>(), ["Query1", "Query2"]);
    assert_eq!(set.collection.iter().collect::<Vec<_>>(), ["Document1", "Document2"]);
    // Two documents have no ranks 10 to 110: the negatives are random, and the report says so.
    assert_eq!(in_words(&set), [["Query1", "Document1", "Document2"], ["Query2", "Document2", "Document1"]]);
    assert_eq!((report.random_fallback, report.random_negatives, report.mined_negatives), (2, 2, 0));
    assert_parts(
        &report.to_string(),
        &["2 examples", "drawn at random", "asked for 110", "2 queries had nothing left"],
    );
}

#[test]
fn labelled_pairs() {
    let rows = [("Query1", "Document1Pos", 1), ("Query1", "Document1Neg", 0), ("Query2", "Document2", 0)];
    let raw = RawData::from_labelled_pairs(rows, &Labels::default()).unwrap();
    let (set, report) = prepare(raw, &options(|o| o.num_new_negatives = 0), None).unwrap();
    assert_eq!(set.queries.iter().collect::<Vec<_>>(), ["Query1", "Query2"]);
    assert_eq!(set.collection.iter().collect::<Vec<_>>(), ["Document1Pos", "Document1Neg", "Document2"]);
    assert_eq!(in_words(&set), [["Query1", "Document1Pos", "Document1Neg"]]);
    assert_eq!(report.without_positives, 1);
}

#[test]
fn triplets() {
    let raw = RawData::from_triplets([("Query1", ["Positive Doc"], ["Negative Doc"])]).unwrap();
    let (set, _) = prepare(raw, &PrepareOptions::default(), None).unwrap();
    assert_eq!(in_words(&set), [["Query1", "Positive Doc", "Negative Doc"]]);
}

#[test]
fn all_documents() {
    let mut raw = RawData::from_pairs([("Query1", "Document1")]).unwrap();
    raw.add_documents(["Document2", "Document3"]).unwrap();
    let (set, _) = prepare(raw, &PrepareOptions::default(), None).unwrap();
    assert_eq!(set.queries.len(), 1);
    assert_eq!(set.collection.iter().collect::<Vec<_>>(), ["Document1", "Document2", "Document3"]);
    assert_eq!(set.examples.len(), 2);
}

#[test]
fn invalid_input() {
    let error = RawData::from_values(&[json!("Query1")], &Labels::default()).unwrap_err();
    assert_parts(&error.to_string(), &["row 1", "expected an array [query, positive]", "found \"Query1\""]);
}

#[test]
fn triple_counts_of_the_reference() {
    for (positives, negatives, expected) in
        [(2, 10, 20), (3, 10, 20), (4, 10, 20), (21, 10, 21), (25, 3, 25), (2, 3, 6), (1, 7, 7)]
    {
        let names = |kind: &str, count: usize| (0..count).map(|number| format!("{kind} {number}")).collect::<Vec<_>>();
        let raw = || RawData::from_triplets([("q", names("p", positives), names("n", negatives))]).unwrap();
        let mut options = options(|negatives| negatives.num_new_negatives = 0);
        let (all, _) = prepare(raw(), &options, None).unwrap();
        assert_eq!(all.examples.len(), positives * negatives, "every pairing by default");
        options.triples = TriplePolicy::Reference;
        let (set, _) = prepare(raw(), &options, None).unwrap();
        assert_eq!(set.examples.len(), expected, "{positives} positives, {negatives} negatives");
    }
}

#[test]
fn known_negatives_are_kept_and_new_ones_come_after_them() {
    let mut raw = RawData::from_triplets([("q", ["p"], ["n1", "n2"])]).unwrap();
    raw.add_documents((0..50).map(|number| format!("document {number}"))).unwrap();
    let (set, report) = prepare(raw, &random(5), None).unwrap();
    let negatives: Vec<_> = in_words(&set).into_iter().map(|mut example| example.remove(2)).collect();
    assert_eq!(negatives.len(), 7);
    assert_eq!(negatives[..2], ["n1", "n2"]);
    assert_eq!((report.given_negatives, report.random_negatives), (2, 5));
}

#[test]
fn a_text_that_is_positive_and_negative_is_a_positive() {
    let raw = RawData::from_triplets([("q", ["p"], ["p", "n"])]).unwrap();
    let (set, report) = prepare(raw, &options(|o| o.num_new_negatives = 0), None).unwrap();
    assert_eq!(in_words(&set), [["q", "p", "n"]]);
    assert_eq!(report.contradictions, 1);
}

#[test]
fn what_a_query_is_given_does_not_depend_on_the_other_queries_or_on_threads() {
    let with_threads = |threads: usize, mined: bool| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let options = options(|negatives| negatives.mine_hard_negatives = mined);
        pool.install(|| prepare(many(200), &options, None).unwrap().0)
    };
    for mined in [false, true] {
        assert_eq!(with_threads(1, mined), with_threads(5, mined));
    }
    // The same collection in the same order, fewer queries.
    let texts: Vec<String> = many(200).collection().iter().map(str::to_owned).collect();
    let mut few = RawData::from_pairs([(many(200).queries().text(7), "subject 7 is a thing")]).unwrap();
    few.add_documents(&texts).unwrap();
    let mut all =
        RawData::from_pairs([("other", "subject 7 is a thing"), (many(200).queries().text(7), "subject 7 is a thing")])
            .unwrap();
    all.add_documents(&texts).unwrap();
    let of_seven = |raw| {
        let (set, _) = prepare(raw, &PrepareOptions::default(), None).unwrap();
        in_words(&set).into_iter().filter(|example| example[0] == "what is subject 7").collect::<Vec<_>>()
    };
    assert_eq!(of_seven(few), of_seven(all));
}

#[test]
fn n_way_examples_hold_the_positive_and_distinct_negatives() {
    let mut options = random(10);
    options.nway = 5;
    let (set, report) = prepare(many(50), &options, None).unwrap();
    assert_eq!(set.examples.len(), 50 * 3);
    assert_eq!(report.filled_up, 50);
    for example in &set.examples {
        let mut documents = example.documents.clone();
        documents.sort_unstable();
        documents.dedup();
        assert_eq!(documents.len(), 5);
        assert!(set.positives.is_positive(example.query, example.documents[0]));
        assert!(example.documents[1..].iter().all(|&pid| !set.positives.is_positive(example.query, pid)));
    }
    options.negatives.num_new_negatives = 3;
    let error = prepare(many(50), &options, None).unwrap_err().to_string();
    assert_parts(&error, &["no query has the 4 negatives", "train.nway = 5", "raise negatives.num_new_negatives"]);
}

#[test]
fn teacher_scores_reach_the_examples_and_are_cut_with_them() {
    let rows = vec![("q", vec!["a", "b", "c"], vec![3.0, 1.5, -2.0]), ("r", vec!["c", "a", "b"], vec![1.0, 0.5, 0.25])];
    let raw = || RawData::from_scored(rows.clone()).unwrap();
    let mut options = PrepareOptions { nway: 3, ..PrepareOptions::default() };
    let (set, report) = prepare(raw(), &options, None).unwrap();
    assert_eq!(set.examples[0].documents, [0, 1, 2]);
    assert_eq!(set.examples[1].scores.as_deref(), Some([1.0, 0.5, 0.25].as_slice()));
    assert_eq!((report.ready_made, report.cut_to_nway), (2, 0));
    options.nway = 2;
    let (set, report) = prepare(raw(), &options, None).unwrap();
    assert_eq!((set.examples[1].documents.len(), report.cut_to_nway), (2, 2));
    options.nway = 4;
    assert_parts(&prepare(raw(), &options, None).unwrap_err().to_string(), &["example 1 has 3", "train.nway is 4"]);
}

#[test]
fn mining_says_how_far_it_is() {
    use std::sync::Mutex;

    use colbert_data::{MiningPhase, prepare_with_teacher};

    let heard = Mutex::new(Vec::new());
    let hear = |phase, done, of| heard.lock().unwrap().push((phase, done, of));
    prepare_with_teacher(many(250), &PrepareOptions::default(), None, None, &hear).unwrap();
    let heard = heard.into_inner().unwrap();
    assert!(heard.contains(&(MiningPhase::Indexing, 500, 500)), "{heard:?}");
    assert!(heard.contains(&(MiningPhase::Ranking, 200, 250)));
    assert_eq!(heard[0], (MiningPhase::Indexing, 0, 500));
    assert_eq!(heard.last(), Some(&(MiningPhase::Ranking, 250, 250)));
    let ranking = heard.iter().position(|event| event.0 == MiningPhase::Ranking).unwrap();
    assert!(heard[ranking..].iter().all(|event| event.0 == MiningPhase::Ranking), "one phase after the other");
    assert_eq!(heard[ranking], (MiningPhase::Ranking, 0, 250));
}

/// A miner need not say how far it is.
#[test]
fn a_silent_miner_is_reported_as_done() {
    use std::sync::Mutex;

    use colbert_data::{
        Collection, DataError, MiningPhase, MiningProgress, NegativeMiner, Queries, Ranked, prepare_with_teacher,
    };

    #[derive(Debug)]
    struct Silent;

    impl NegativeMiner for Silent {
        fn name(&self) -> String {
            "silent".to_owned()
        }

        fn rank(
            &self,
            queries: &Queries,
            collection: &Collection,
            depth: usize,
            _: &MiningProgress<'_>,
        ) -> Result<Vec<Vec<Ranked>>, DataError> {
            let all = (0..collection.len().min(depth) as u32).map(|pid| Ranked { pid, score: 0.0 });
            Ok(vec![all.collect(); queries.len()])
        }
    }

    let heard = Mutex::new(Vec::new());
    let hear = |phase, done, of| heard.lock().unwrap().push((phase, done, of));
    prepare_with_teacher(many(50), &PrepareOptions::default(), Some(&Silent), None, &hear).unwrap();
    assert_eq!(heard.into_inner().unwrap(), [(MiningPhase::Ranking, 50, 50)]);
}

#[test]
fn the_triple_policy_is_an_option_of_the_negatives_too() {
    let rows = [(
        "q",
        (0..4).map(|number| format!("p{number}")).collect::<Vec<_>>(),
        (0..10).map(|number| format!("n{number}")).collect::<Vec<_>>(),
    )];
    let options = options(|negatives| {
        negatives.num_new_negatives = 0;
        negatives.triples = TriplePolicy::Reference;
    });
    assert_eq!(prepare(RawData::from_triplets(rows).unwrap(), &options, None).unwrap().0.examples.len(), 20);
}

#[test]
fn negatives_can_be_chosen_again_for_a_later_epoch() {
    use colbert_data::Remining;

    let options = PrepareOptions::default();
    let raw = many(100);
    let again = Remining::of(&raw, &options).unwrap();
    let (set, _) = prepare(raw, &options, None).unwrap();
    let epoch = |epoch| again.examples(&set, epoch, None, &|_, _, _| ()).unwrap().0;
    assert_eq!(epoch(0), set.examples, "the first epoch has what preparation made");
    assert_eq!(epoch(3), epoch(3));
    assert_eq!(epoch(3).len(), set.examples.len());
    let negatives =
        |examples: &[colbert_data::Example]| examples.iter().map(|one| one.documents[1]).collect::<Vec<_>>();
    assert_ne!(negatives(&epoch(1)), negatives(&epoch(2)));
    for example in epoch(1) {
        assert!(set.positives.is_positive(example.query, example.documents[0]));
        assert!(!set.positives.is_positive(example.query, example.documents[1]));
    }
    // A plan counts on a number of examples: too many are cut, too few come twice.
    for count in [7, 3 * set.examples.len()] {
        let mut other = set.clone();
        other.examples = set.examples.iter().cycle().take(count).cloned().collect();
        assert_eq!(again.examples(&other, 1, None, &|_, _, _| ()).unwrap().0.len(), count);
    }
    let ready = RawData::from_scored([("q", vec!["a", "b"], vec![1.0, 0.0])]).unwrap();
    assert!(Remining::of(&ready, &options).is_none());
}

#[test]
fn the_random_miner_is_the_same_as_not_mining() {
    use colbert_config::Miner;

    let (by_name, report) = prepare(many(50), &options(|negatives| negatives.miner = Miner::Random), None).unwrap();
    assert_eq!(by_name, prepare(many(50), &random(10), None).unwrap().0);
    assert_eq!((report.mined_negatives, report.random_negatives), (0, 500));
}

//! One test per defect of the reference's data preparation: what the reference does, and that we do otherwise.
//! Numbers are those of docs/parity.md.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use colbert_data::{
    Bm25Miner, Collection, DataError, DataReport, Labels, MiningProgress, NegativeMiner, PrepareOptions, Queries,
    Ranked, RawData, export_reference, prepare,
};
use serde_json::json;

use crate::support::{ByPid, assert_parts, folder, in_words, many, options, random};

/// Fails, as a miner whose model is missing would.
#[derive(Debug)]
struct Broken;

impl NegativeMiner for Broken {
    fn name(&self) -> String {
        "broken".to_owned()
    }

    fn rank(
        &self,
        _: &Queries,
        _: &Collection,
        _: usize,
        _: &MiningProgress<'_>,
    ) -> Result<Vec<Vec<Ranked>>, DataError> {
        Err(DataError::Miner { miner: self.name(), source: "no model".into() })
    }
}

/// The reference seeds its generator again for every query: all queries but the first get the same documents.
#[test]
fn defect_01_random_negatives_differ_between_queries() {
    let (set, _) = prepare(many(300), &random(10), None).unwrap();
    let distinct: HashSet<u32> = set.examples.iter().map(|example| example.documents[1]).collect();
    // 3,000 draws of 600 documents leave about 4 unseen; the reference reaches 20 documents.
    assert!(distinct.len() > 560, "{} distinct negatives", distinct.len());
}

/// For the same reason only ten rank positions are ever used in the reference.
#[test]
fn defect_02_mined_rank_positions_differ_between_queries() {
    let options = options(|negatives| negatives.positive_score_share = None);
    let (set, _) = prepare(many(300), &options, Some(&ByPid)).unwrap();
    let ranks: BTreeSet<u32> = set.examples.iter().map(|example| example.documents[1]).collect();
    assert_eq!(ranks.len(), 100, "every rank from 10 to 109 is used");
}

/// `hard_negative_minimum_rank` has no effect in the reference.
#[test]
fn defect_03_the_rank_window_is_honoured() {
    let options = options(|negatives| {
        negatives.positive_score_share = None;
        negatives.hard_negative_minimum_rank = 20;
        negatives.hard_negative_maximum_rank = 50;
        negatives.num_new_negatives = 100;
    });
    let (set, report) = prepare(many(300), &options, Some(&ByPid)).unwrap();
    let ranks: BTreeSet<u32> = set.examples.iter().map(|example| example.documents[1]).collect();
    assert_eq!(ranks, (20..50).collect());
    let window = report.window.unwrap();
    assert_eq!((window.start, window.end, window.clamped_from), (20, 50, None));
    assert_eq!(report.short_of_asked, 300, "30 ranks cannot give 100 negatives, and that is reported");
}

/// Mining many queries at once never worked in the reference, and mining at all breaks with newer index libraries.
#[test]
fn defect_04_mining_works_for_many_queries_at_once() {
    let raw = many(100);
    let miner = Bm25Miner::default();
    let rankings = miner.rank(raw.queries(), raw.collection(), 20, &|_, _, _| ()).unwrap();
    assert_eq!(rankings.len(), 100);
    assert!(rankings.iter().enumerate().all(|(qid, ranking)| ranking[0].pid as usize == qid && ranking.len() == 20));
}

/// The reference falls back to random negatives when mining gives none; a miner that fails is not that case.
#[test]
fn a_miner_that_fails_stops_preparation() {
    let error = prepare(many(20), &PrepareOptions::default(), Some(&Broken)).unwrap_err().to_string();
    assert_parts(&error, &["miner broken", "no model"]);
}

/// A carriage return breaks the reference's own files; an empty query corrupts the query file.
#[test]
fn defect_05_line_ends_and_empty_queries_cannot_corrupt_the_files() {
    let raw = RawData::from_triplets([("q\r\nr\ts", ["one\r\ntwo\tthree"], ["four\rfive\nsix"])]).unwrap();
    let (set, _) = prepare(raw, &options(|o| o.num_new_negatives = 0), None).unwrap();
    let folder = folder(&[]);
    let files = export_reference(&set, folder.path()).unwrap();
    assert_eq!(std::fs::read(&files.queries).unwrap(), b"0\tq  r s\n");
    assert_eq!(std::fs::read(&files.collection).unwrap(), b"0\tone  two three\n1\tfour five six\n");
    let error = RawData::from_pairs([("q", "d"), (" \n", "d")]).unwrap_err().to_string();
    assert_parts(&error, &["row 2", "query", "white space"]);
}

/// Passages as objects raise a KeyError in the reference's triplets and labelled pairs.
#[test]
fn defect_06_objects_with_content_work_in_every_format() {
    let (p, n) = (json!({"content": "p", "document_id": 3}), json!({"content": "n"}));
    let formats = [
        vec![json!(["q", p]), json!(["r", n])],
        vec![json!(["q", p, 1]), json!(["q", n, 0])],
        vec![json!(["q", [p], [n, "n2"]])],
    ];
    for rows in formats {
        let raw = RawData::from_values(&rows, &Labels::default()).unwrap();
        assert_eq!(raw.collection().iter().take(2).collect::<Vec<_>>(), ["p", "n"], "{rows:?}");
    }
}

/// Documents that are not plain strings vanish from the reference's `all_documents`.
#[test]
fn defect_07_documents_as_objects_are_kept_and_anything_else_is_an_error() {
    let mut raw = RawData::from_pairs([("q", "p")]).unwrap();
    let options = colbert_data::ReadOptions::default();
    let files = folder(&[
        ("good.jsonl", b"\"a\"\n{\"content\": \"b\"}\n{\"title\": \"T\", \"text\": \"c\"}\n"),
        ("bad.jsonl", b"\"a\"\n17\n"),
    ]);
    let said = colbert_data::read_documents(&files.path().join("good.jsonl"), &options, &mut raw).unwrap();
    assert_eq!(raw.collection().iter().collect::<Vec<_>>(), ["p", "a", "b", "T c"]);
    assert_parts(&said, &["good.jsonl", "3 documents", "3 of them new"]);
    let error = colbert_data::read_documents(&files.path().join("bad.jsonl"), &options, &mut raw).unwrap_err();
    assert_parts(&error.to_string(), &["bad.jsonl, line 2", "document: a text", "found 17"]);
}

/// Two identical rows give the same triple four times in the reference.
#[test]
fn defect_08_repeated_rows_count_once() {
    let raw = RawData::from_triplets([("q", ["a"], ["b"]), ("q", ["a"], ["b"]), ("q", ["a"], ["c"])]).unwrap();
    assert_eq!(raw.counts().duplicates, 1);
    let (set, _) = prepare(raw, &options(|o| o.num_new_negatives = 0), None).unwrap();
    assert_eq!(in_words(&set), [["q", "a", "b"], ["q", "a", "c"]]);
}

/// The reference looks at the first row only, and takes a text of two characters for a pair.
#[test]
fn defect_09_every_row_is_checked_against_the_format() {
    let labels = Labels::default();
    let error = RawData::from_values(&[json!(["q", "p"]), json!(["q", "p", "n"])], &labels).unwrap_err();
    assert_parts(&error.to_string(), &["row 2", "expected an array of 2", "found an array of 3"]);
    assert!(RawData::from_values(&[json!("ab")], &labels).is_err());
    let error = RawData::from_values(&[json!(["q", "p"]), json!("ab")], &labels).unwrap_err();
    assert_parts(&error.to_string(), &["row 2", "\"ab\" alone"]);
}

/// The reference's ids follow Python's hash seed, and each export shuffles the triples again.
#[test]
fn defect_10_the_same_input_gives_the_same_bytes_every_time() {
    let written = || {
        let (set, _) = prepare(many(100), &PrepareOptions::default(), None).unwrap();
        let folder = folder(&[]);
        let mut bytes = Vec::new();
        for _ in 0..2 {
            let files = export_reference(&set, folder.path()).unwrap();
            bytes.push([files.queries, files.collection, files.triples].map(|path| std::fs::read(path).unwrap()));
        }
        assert_eq!(bytes[0], bytes[1], "a second export writes the same");
        bytes.remove(0)
    };
    assert_eq!(written(), written());
}

/// The reference drops positives after the draw, so that fewer negatives remain than were asked for.
#[test]
fn defect_11_random_negatives_are_as_many_as_asked() {
    let raw = || RawData::from_triplets([("q", vec!["a", "b", "c", "d"], ["e"]), ("r", vec!["f"], ["g"])]).unwrap();
    let (set, report) = prepare(raw(), &random(2), None).unwrap();
    let mut negatives = BTreeMap::<_, BTreeSet<u32>>::new();
    for example in &set.examples {
        negatives.entry(example.query).or_default().insert(example.documents[1]);
    }
    // Query q: 7 documents, 4 positives, 1 given negative; exactly the other two are drawn.
    assert_eq!(negatives[&0].len(), 3);
    assert_eq!(negatives[&1].len(), 3);
    assert_eq!(report.short_of_asked, 0);
    assert_eq!(prepare(raw(), &random(3), None).unwrap().1.short_of_asked, 1);
}

/// The reference guards against false negatives by exact equality alone.
#[test]
fn defect_12_a_text_equal_to_a_positive_but_for_case_and_spaces_is_never_a_negative() {
    let mut raw = RawData::from_pairs([("what is a tor", "A tor is a hill.")]).unwrap();
    raw.add_documents(["a TOR is\n a hill. ", "A tor is not a hill.", "A tor has granite."]).unwrap();
    let mined = options(|negatives| {
        negatives.hard_negative_minimum_rank = 0;
        negatives.positive_score_share = None;
    });
    for options in [mined, random(10)] {
        let (set, report) = prepare(raw.clone(), &options, None).unwrap();
        assert_eq!(set.examples.len(), 2);
        assert!(set.examples.iter().all(|example| example.documents[1] >= 2));
        if options.negatives.mine_hard_negatives {
            assert_eq!((report.dropped_positives, report.dropped_equal), (1, 1));
        }
    }
}

/// Equality is not all: a candidate that its miner likes as well as the positive is likely a positive too.
#[test]
fn defect_12_a_candidate_scored_nearly_as_high_as_the_positive_is_never_a_negative() {
    #[derive(Debug)]
    struct Scores(f32);
    impl NegativeMiner for Scores {
        fn name(&self) -> String {
            "scores".to_owned()
        }

        fn rank(
            &self,
            queries: &Queries,
            _: &Collection,
            _: usize,
            _: &MiningProgress<'_>,
        ) -> Result<Vec<Vec<Ranked>>, DataError> {
            let scores = [(1, 10.4), (0, 10.0), (2, 9.6), (3, 9.4), (4, 1.0)];
            let ranking: Vec<_> = scores.iter().map(|&(pid, score)| Ranked { pid, score: score + self.0 }).collect();
            Ok(vec![ranking; queries.len()])
        }
    }
    let used = |shift, positive: &str, share| {
        let mut raw = RawData::from_pairs([("q", "d0")]).unwrap();
        raw.add_documents((1..6).map(|pid| format!("d{pid}"))).unwrap();
        if positive != "d0" {
            raw =
                RawData::from_pairs([("q", "d0"), ("r", "d1"), ("r", "d2"), ("r", "d3"), ("r", "d4"), ("s", positive)])
                    .unwrap();
        }
        let options = options(|negatives| {
            negatives.hard_negative_minimum_rank = 0;
            negatives.positive_score_share = share;
        });
        let (set, report) = prepare(raw, &options, Some(&Scores(shift))).unwrap();
        let of = set.queries.len() as u32 - 1;
        let pids: BTreeSet<u32> =
            set.examples.iter().filter(|example| example.query == of).map(|example| example.documents[1]).collect();
        (pids.into_iter().collect::<Vec<_>>(), report)
    };
    let (pids, report) = used(0.0, "d0", Some(0.95));
    assert_eq!((pids, report.dropped_close, report.positive_unranked), (vec![3, 4], 2, 0));
    assert_parts(&report.to_string(), &["2 candidates left out: scored above negatives.positive_score_share"]);
    assert_eq!(used(0.0, "d0", None).0, [1, 2, 3, 4]);
    assert_eq!(used(0.0, "d0", Some(1.05)).0, [1, 2, 3, 4]);
    // Below zero, 5 % less than the positive's -10 is -10.5: candidates of -9.6 and -10.4 go, -10.6 stays.
    assert_eq!(used(-20.0, "d0", Some(0.95)).0, [3, 4]);
    // d5 is ranked nowhere: there is nothing to compare with, and that is reported.
    let (pids, report) = used(0.0, "d5", Some(0.95));
    assert_eq!((pids, report.positive_unranked), (vec![0, 1, 2, 3, 4], 1));
    for share in [0.0, -1.0, f64::NAN] {
        let options = options(|negatives| negatives.positive_score_share = Some(share));
        assert_parts(&prepare(many(5), &options, None).unwrap_err().to_string(), &["positive_score_share", "above 0"]);
    }
}

/// The reference keeps the collection of an earlier call, and looks no deeper than a tenth of the collection.
#[test]
fn defect_13_each_preparation_starts_afresh_and_the_window_is_cut_only_by_the_collection() {
    let (first, _) = prepare(many(30), &PrepareOptions::default(), Some(&ByPid)).unwrap();
    let (second, report) = prepare(many(30), &PrepareOptions::default(), Some(&ByPid)).unwrap();
    assert_eq!(first, second);
    let window = report.window.unwrap();
    assert_eq!((window.start, window.end, window.clamped_from), (10, 60, Some(110)));
    assert_parts(&report.to_string(), &["ranks 10 to 60 (asked for 110"]);
}

/// The reference writes in the locale's encoding.
#[test]
fn defect_15_files_are_utf_8() {
    let raw = RawData::from_triplets([("Größe?", ["日本語"], ["émigré"])]).unwrap();
    let (set, _) = prepare(raw, &options(|o| o.num_new_negatives = 0), None).unwrap();
    let folder = folder(&[]);
    let files = export_reference(&set, folder.path()).unwrap();
    assert_eq!(std::fs::read_to_string(files.collection).unwrap(), "0\t日本語\n1\témigré\n");
}

/// The reference's tutorials draw page-long negatives for chunk-long positives, and nothing notices.
#[test]
fn defect_16_negatives_much_longer_than_positives_are_reported() {
    let mut raw = RawData::from_pairs([("q", "one two three"), ("r", "four five six")]).unwrap();
    raw.add_documents((0..5).map(|page| format!("page {page} {}", "word ".repeat(100)))).unwrap();
    let report = DataReport::new(&raw, None);
    let finding = report.findings.iter().find(|finding| finding.name == "long_negatives").unwrap();
    assert_parts(&finding.message, &["102 words", "3"]);
    assert_parts(&finding.fix, &["data.all_documents"]);
}

/// The reference's own tests of its processor: the miner is asked once, and not at all where it is turned off.
#[test]
fn the_miner_is_asked_once_or_not_at_all() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use colbert_config::Miner;

    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);
    impl NegativeMiner for Counting {
        fn name(&self) -> String {
            "counting".to_owned()
        }

        fn rank(
            &self,
            queries: &Queries,
            collection: &Collection,
            depth: usize,
            progress: &MiningProgress<'_>,
        ) -> Result<Vec<Vec<Ranked>>, DataError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            ByPid.rank(queries, collection, depth, progress)
        }
    }
    let asked = |options: &PrepareOptions| {
        let miner = Counting::default();
        prepare(many(30), options, Some(&miner)).unwrap();
        miner.0.into_inner()
    };
    assert_eq!(asked(&PrepareOptions::default()), 1);
    assert_eq!(asked(&random(5)), 0);
    assert_eq!(asked(&options(|negatives| negatives.miner = Miner::Random)), 0);
    // A miner that needs a model is not quietly replaced by another.
    let dense = options(|negatives| negatives.miner = Miner::Dense);
    assert_eq!(asked(&dense), 1);
    let error = prepare(many(30), &dense, None).unwrap_err().to_string();
    assert_parts(&error, &["negatives.miner", "no other miner was given", "Dense"]);
}

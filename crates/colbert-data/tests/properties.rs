//! Laws that hold for any raw data.

use std::collections::HashSet;

use colbert_data::{
    DataError, Example, PrepareOptions, PrepareReport, RawData, ReadOptions, TrainingSet, export_reference,
    export_tables, normalised, prepare, read_training_data,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::folder;

/// Few words, so that texts meet again as positives and negatives, equal or but for case and spaces.
fn text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "tor",
        "Tor",
        "moor",
        "weir",
        "bog  dam",
        "hill\r\n",
        "\tfen",
        "größe",
        "GRO\u{308}SSE",
        "\"a\\b\"",
    ]);
    prop::collection::vec(word, 1..3).prop_map(|words| words.join(" "))
}

type Rows = Vec<(String, Vec<String>, Vec<String>)>;

fn rows() -> impl Strategy<Value = Rows> {
    let texts = |range| prop::collection::vec(text(), range);
    prop::collection::vec((text(), texts(1..4), texts(0..4)), 1..12)
}

fn options() -> impl Strategy<Value = PrepareOptions> {
    (0_usize..5, 2_usize..4, any::<bool>(), 0_usize..3, any::<u64>()).prop_map(|(new, nway, mines, least, seed)| {
        let mut options = PrepareOptions { nway, ..PrepareOptions::default() };
        options.negatives.num_new_negatives = new;
        options.negatives.mine_hard_negatives = mines;
        options.negatives.hard_negative_minimum_rank = least;
        options.negatives.seed = seed;
        options
    })
}

fn raw(rows: &Rows) -> RawData {
    RawData::from_triplets(rows.clone()).unwrap()
}

/// Prepares data. Data without a single example are drawn again, which fails the test if it happens too often; any
/// other error fails it at once.
fn prepared(raw: RawData, options: &PrepareOptions) -> Result<(TrainingSet, PrepareReport), TestCaseError> {
    prepare(raw, options, None).map_err(|error| match error {
        DataError::NoExamples { .. } => TestCaseError::reject("no examples"),
        other => TestCaseError::fail(other.to_string()),
    })
}

/// Everything that raw data says, in its order: query, positives, negatives.
fn says(raw: &RawData) -> Rows {
    let text = |pid: &u32| raw.collection().text(*pid).to_owned();
    let of = |(query, qid): (&str, u32)| {
        (query.to_owned(), raw.positives(qid).iter().map(text).collect(), raw.negatives(qid).iter().map(text).collect())
    };
    raw.queries().iter().zip(0..).map(of).collect()
}

/// What came back holds the same texts and examples.
fn assert_same(back: &TrainingSet, set: &TrainingSet, clean: impl Fn(&str) -> String) {
    let words = |set: &TrainingSet, Example { query, documents, scores }: &Example| {
        let documents: Vec<_> = documents.iter().map(|&pid| clean(set.collection.text(pid))).collect();
        (clean(set.queries.text(*query)), documents, scores.clone())
    };
    assert_eq!(back.examples.len(), set.examples.len());
    for (one, other) in back.examples.iter().zip(&set.examples) {
        assert_eq!(words(back, one), words(set, other));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_positive_is_a_negative_and_no_known_negative_is_lost(rows in rows(), options in options()) {
        let (set, report) = prepared(raw(&rows), &options)?;
        let mut negatives = vec![HashSet::new(); set.queries.len()];
        for example in &set.examples {
            let positives: HashSet<u32> = set.positives.positives(example.query).collect();
            prop_assert_eq!(example.documents.len(), options.nway);
            prop_assert!(positives.contains(&example.documents[0]));
            for &pid in &example.documents[1..] {
                prop_assert!(!positives.contains(&pid));
                prop_assert!((pid as usize) < set.collection.len());
                negatives[example.query as usize].insert(pid);
            }
        }
        // Ids are dense and in order of first sight.
        let mut seen = Vec::new();
        for (query, _, _) in &rows {
            if !seen.contains(query) {
                seen.push(query.clone());
            }
        }
        prop_assert!(set.queries.iter().eq(seen.iter().map(String::as_str)));
        let mut lost = 0;
        for (query, _, given) in &rows {
            let qid = set.queries.qid_of_text(query).unwrap();
            for text in given {
                let pid = set.collection.pid_of_text(text).unwrap();
                let is_positive = set.positives.is_positive(qid, pid);
                // A query with fewer negatives than an example needs has no example at all.
                let has_examples = !negatives[qid as usize].is_empty();
                lost += usize::from(!is_positive && has_examples && !negatives[qid as usize].contains(&pid));
            }
        }
        prop_assert_eq!(lost, 0);
        // Twins are one thing: no negative of a query is a twin of a positive of the query or of one of its twins.
        let positives: HashSet<(String, String)> = rows.iter().flat_map(|(query, positives, _)| {
            positives.iter().map(|text| (normalised(query), normalised(text))).collect::<Vec<_>>()
        }).collect();
        for (qid, pids) in (0..).zip(&negatives) {
            let query = normalised(set.queries.text(qid));
            for &pid in pids {
                prop_assert!(!positives.contains(&(query.clone(), normalised(set.collection.text(pid)))));
            }
            for pid in 0..set.collection.len() as u32 {
                let known = positives.contains(&(query.clone(), normalised(set.collection.text(pid))));
                prop_assert_eq!(set.positives.is_positive(qid, pid), known);
            }
        }
        prop_assert_eq!(report.examples, set.examples.len());
        prop_assert_eq!(report.queries, set.queries.len());
        let with_examples = negatives.iter().filter(|negatives| !negatives.is_empty()).count();
        let without = report.without_positives + report.without_negatives + report.short_of_nway;
        prop_assert_eq!(with_examples + without, report.queries);
    }

    #[test]
    fn counts_of_raw_data_add_up(rows in rows()) {
        let raw = raw(&rows);
        prop_assert_eq!(raw.counts().triplets, rows.len() as u64);
        let known: HashSet<_> = rows.iter().flat_map(|(query, positives, _)| positives.iter().map(move |text| (query, text))).collect();
        let positives: usize = (0..raw.queries().len() as u32).map(|qid| raw.positives(qid).len()).sum();
        prop_assert_eq!(positives, known.len());
    }

    #[test]
    fn every_format_of_rows_says_the_same(rows in rows()) {
        let arrays: Vec<Value> = rows.iter().map(|(query, positives, negatives)| json!([query, positives, negatives])).collect();
        let named = rows.iter().map(|(query, positives, negatives)| {
            json!({"query": query, "positives": positives, "negatives": negatives})
        });
        let lines = |rows: &mut dyn Iterator<Item = Value>| rows.map(|row| format!("{row}\n")).collect::<String>();
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(["query", "positive"]).unwrap();
        let pairs = || rows.iter().flat_map(|(query, positives, _)| positives.iter().map(move |text| (query, text)));
        pairs().for_each(|(query, positive)| csv.write_record([query, positive]).unwrap());
        let files = folder(&[
            ("arrays.jsonl", lines(&mut arrays.iter().cloned()).as_bytes()),
            ("named.jsonl", lines(&mut named.clone()).as_bytes()),
            ("list.json", json!(arrays).to_string().as_bytes()),
            ("pairs.csv", csv.into_inner().unwrap().as_slice()),
        ]);
        let read = |name: &str| says(&read_training_data(&files.path().join(name), &ReadOptions::default()).unwrap());
        for name in ["arrays.jsonl", "named.jsonl", "list.json"] {
            prop_assert_eq!(read(name), says(&raw(&rows)), "{}", name);
        }
        prop_assert_eq!(read("pairs.csv"), says(&RawData::from_pairs(pairs()).unwrap()));
    }

    #[test]
    fn tables_come_back_to_the_last_byte(rows in rows(), options in options(), scores in any::<bool>()) {
        let (mut set, _) = prepared(raw(&rows), &options)?;
        if scores {
            for (index, example) in set.examples.iter_mut().enumerate() {
                example.scores = Some((0..example.documents.len()).map(|rank| index as f32 * 0.1 - rank as f32 / 3.0).collect());
            }
        }
        let folder = folder(&[]);
        export_tables(&set, folder.path()).unwrap();
        let raw = read_training_data(folder.path(), &ReadOptions::default()).unwrap();
        let (back, _) = prepare(raw, &options, None).unwrap();
        prop_assert!(back.queries.iter().eq(set.queries.iter()) && back.collection.iter().eq(set.collection.iter()));
        prop_assert_eq!(&back.examples, &set.examples);
    }

    #[test]
    fn the_reference_files_come_back_but_for_white_space(rows in rows(), options in options()) {
        let (set, _) = prepared(raw(&rows), &options)?;
        let folder = folder(&[]);
        export_reference(&set, folder.path()).unwrap();
        let raw = read_training_data(folder.path(), &ReadOptions::default()).unwrap();
        let (back, _) = prepare(raw, &options, None).unwrap();
        assert_same(&back, &set, |text| text.replace(['\t', '\r', '\n'], " "));
    }
}

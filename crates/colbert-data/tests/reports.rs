//! The data report on a set with each defect planted once.

use std::sync::Arc;

use colbert_data::{Collection, DataReport, EvaluationSet, Judgements, Queries, RawData, Severity};

use crate::support::assert_parts;

#[test]
fn every_planted_defect_is_found_once() {
    let raw = RawData::from_triplets([
        ("what is a tor", vec!["A tor is a hill."], vec!["A moor is wet."]),
        ("what is a tor", vec!["A tor is a hill."], vec!["A moor is wet."]),
        ("contradiction", vec!["same text"], vec!["same text"]),
        ("near contradiction", vec!["Nearly the same"], vec!["nearly  the same"]),
        ("An Echo", vec!["an echo "], vec!["something else"]),
        ("two positives", vec!["one", "two"], vec!["three"]),
        ("no negative", vec!["alone"], vec![]),
    ])
    .unwrap();
    let (mut queries, mut collection, mut judgements) = (Queries::new(), Collection::new(), Judgements::new());
    queries.add("What is a TOR").unwrap();
    queries.add("unseen query").unwrap();
    collection.add("alone").unwrap();
    collection.add("unseen document").unwrap();
    judgements.insert(0, 1, 1);
    judgements.insert(1, 0, 1);
    let evaluation = EvaluationSet { queries, collection: Arc::new(collection), judgements };

    let report = DataReport::new(&raw, Some(&evaluation));
    let mut found: Vec<_> = report.findings.iter().map(|finding| (finding.name.as_str(), finding.count)).collect();
    found.sort_unstable();
    let expected = [
        ("duplicate_rows", 1),
        ("equal_documents", 1),
        ("leaked_documents", 1),
        ("leaked_queries", 1),
        ("nearly_positive_and_negative", 1),
        ("no_negative", 1),
        ("positive_and_negative", 1),
        ("query_equals_positive", 1),
        ("several_positives", 1),
    ];
    assert_eq!(found, expected);
    assert_eq!(report.findings[0].severity, Severity::Error, "the gravest comes first");
    assert!(report.findings.iter().all(|finding| !finding.fix.is_empty()));
    let text = report.to_string();
    assert_parts(
        &text,
        &["error    1 times the same text", "e.g. contradiction | same text", "distinct queries", "median"],
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["findings"][0]["severity"], "error");
    assert_eq!(json["rows"]["triplets"], 7);
}

#[test]
fn good_data_has_no_findings() {
    let raw = RawData::from_triplets([("q", ["p"], ["n"]), ("r", ["s"], ["t"])]).unwrap();
    let report = DataReport::new(&raw, None);
    assert_eq!(report.worst(), None);
    assert_parts(&report.to_string(), &["Nothing stands out."]);
}

#[test]
fn a_teacher_without_an_opinion_is_noticed() {
    let raw =
        RawData::from_scored([("q", vec!["a", "b"], vec![1.0, 1.0]), ("r", vec!["a", "b"], vec![1.0, 0.0])]).unwrap();
    let report = DataReport::new(&raw, None);
    assert_eq!(
        report.findings.iter().map(|finding| (finding.name.as_str(), finding.count)).collect::<Vec<_>>(),
        [("flat_scores", 1)]
    );
}

fn names(report: &DataReport) -> Vec<(&str, u64)> {
    let mut names: Vec<_> = report.findings.iter().map(|finding| (finding.name.as_str(), finding.count)).collect();
    names.sort_unstable();
    names
}

#[test]
fn what_the_teacher_says_against_the_data_is_noticed() {
    let raw = RawData::from_scored([
        ("q", vec!["a", "b"], vec![1.0, 2.5]),
        ("r", vec!["a", "b"], vec![3.0, 1.0]),
        ("r", vec!["a", "b"], vec![3.0, 1.0]),
    ])
    .unwrap();
    let report = DataReport::new(&raw, None);
    assert_eq!(names(&report), [("repeated_examples", 1), ("teacher_prefers_another", 1)]);
    let teacher = report.teacher.unwrap();
    assert_eq!(teacher.examples, 3);
    assert!((teacher.mean_spread - 5.5 / 3.0).abs() < 1e-9 && (teacher.mean_margin - 2.5 / 3.0).abs() < 1e-9);
    assert_parts(&report.to_string(), &["q | 2.5 for: b | 1 for: a", "teacher scores: spread 1.83"]);
    let steep = RawData::from_scored([("q", vec!["a", "b"], vec![90.0, -10.0])]).unwrap();
    let report = DataReport::new(&steep, None);
    assert_eq!(names(&report), [("teacher_scale", 1)]);
    assert_parts(&report.findings[0].fix, &["train.distillation_alpha = 0.05"]);
}

#[test]
fn likely_false_negatives_are_shown() {
    let raw = RawData::from_triplets([
        (
            "height of yes tor",
            ["Yes Tor is six hundred and nineteen metres high"],
            ["Yes Tor is six hundred nineteen metres high"],
        ),
        ("what is a weir", ["a low dam"], ["a weir is what a weir is"]),
        ("what is wet", ["a moor is wet"], ["the tin is dry"]),
    ])
    .unwrap();
    let report = DataReport::new(&raw, None);
    let found = names(&report);
    assert!(found.contains(&("near_duplicate_negatives", 1)), "{found:?}");
    let message = report.to_string();
    assert_parts(&message, &["height of yes tor | Yes Tor is six hundred nineteen metres high"]);
}

#[test]
fn tokens_that_are_cut_off_or_unknown_are_counted() {
    use colbert_data::{ReportOptions, Side, TokenCount, TokenLimits};

    let long = "word ".repeat(37);
    let rows = (0..100)
        .map(|row| (format!("query {row}"), if row < 5 { format!("{row} {long}") } else { format!("document {row}") }));
    let raw = RawData::from_pairs(rows).unwrap();
    let counter = |texts: &[&str], side: Side| {
        let count = |text: &&str| {
            let tokens = text.split_whitespace().count() + 2;
            TokenCount { tokens, unknown: if side == Side::Query { 1 } else { 0 } }
        };
        Ok(texts.iter().map(count).collect())
    };
    let tokens = TokenLimits { counter: &counter, query_maxlen: 8, doc_maxlen: 30, longest: 512 };
    let report =
        DataReport::with_options(&raw, &ReportOptions { tokens: Some(tokens), ..ReportOptions::default() }).unwrap();
    let documents = &report.tokens.as_ref().unwrap().documents;
    // 5 documents of 40 tokens and 95 of 4; 10 tokens of each of the 5 are lost.
    assert_eq!((documents.max, documents.median, documents.keeps_99_percent, documents.tokens_lost), (40, 4, 40, 50));
    assert!((documents.cut_share - 0.05).abs() < 1e-9 && (documents.lost_share - 50.0 / 580.0).abs() < 1e-9);
    assert!((documents.cost_of_99_percent - 580.0 / 530.0).abs() < 1e-9);
    let finding = |name: &str| report.findings.iter().find(|finding| finding.name == name).unwrap();
    assert_parts(&finding("truncated_documents").message, &["5.0 %", "cut at 30 tokens", "8.6 %"]);
    assert_parts(&finding("truncated_documents").fix, &["train.doc_maxlen = 40", "1.09 times"]);
    assert_parts(&finding("unknown_tokens_queries").message, &["25.0 %"]);
    assert_parts(&report.to_string(), &["tokens", "kept at", "5.0%"]);
    let failing = |_: &[&str], _: Side| Err("no vocabulary".into());
    let tokens = TokenLimits { counter: &failing, query_maxlen: 8, doc_maxlen: 30, longest: 512 };
    let error = DataReport::with_options(&raw, &ReportOptions { tokens: Some(tokens), ..ReportOptions::default() })
        .unwrap_err();
    assert_parts(&error.to_string(), &["counting tokens: no vocabulary"]);
}

/// Lengths that training would refuse are never advised.
#[test]
fn advice_never_goes_beyond_the_encoder() {
    use colbert_data::{ReportOptions, Side, TokenCount, TokenLimits};

    // 100 documents of 1 to 100 tokens: 3,220 are left at 40, 4,230 at 60.
    let raw =
        RawData::from_pairs((1..=100).map(|tokens| (format!("query {tokens}"), format!("text {tokens}")))).unwrap();
    let counter = |texts: &[&str], _: Side| {
        let count = |text: &&str| TokenCount { tokens: text.split_once(' ').unwrap().1.parse().unwrap(), unknown: 0 };
        Ok(texts.iter().map(count).collect())
    };
    let advice = |doc_maxlen: usize, longest: usize| {
        let tokens = Some(TokenLimits { counter: &counter, query_maxlen: 100, doc_maxlen, longest });
        let report = DataReport::with_options(&raw, &ReportOptions { tokens, ..ReportOptions::default() }).unwrap();
        report.findings.into_iter().find(|finding| finding.name == "truncated_documents").unwrap().fix
    };
    assert_parts(&advice(40, 512), &["train.doc_maxlen = 99 would keep 99 % of them whole"]);
    assert_parts(
        &advice(40, 60),
        &["train.doc_maxlen = 60, the most that the encoder takes, would keep 60.0 %", "1.31 times"],
    );
    for (maxlen, longest) in [(60, 60), (64, 64)] {
        let advice = advice(maxlen, longest);
        assert_parts(&advice, &["into parts", &format!("no more than {longest} tokens")]);
        assert!(!advice.contains("train.doc_maxlen"), "{advice}");
    }
    assert_parts(&advice(99, 99), &["nothing to do"]);
}

#[test]
fn the_report_is_written_as_json() {
    let report = DataReport::new(&RawData::from_pairs([("\"&'", "x & y")]).unwrap(), None);
    let folder = crate::support::folder(&[]);
    report.write_json(&folder.path().join("report.json")).unwrap();
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(json["queries"], 1);
    assert!(json["histograms"].as_array().unwrap().iter().any(|histogram| histogram["name"] == "query_words"));
}

/// A set whose first query is relevant to its first document.
fn evaluation(query: &str, document: &str) -> EvaluationSet {
    let (mut queries, mut collection, mut judgements) = (Queries::new(), Collection::new(), Judgements::new());
    queries.add(query).unwrap();
    collection.add(document).unwrap();
    judgements.insert(0, 0, 1);
    EvaluationSet { queries, collection: Arc::new(collection), judgements }
}

#[test]
fn each_evaluation_set_is_searched_for_texts_that_are_trained_on() {
    use colbert_data::ReportOptions;

    let raw = RawData::from_triplets([("what is a tor", ["a hill"], ["a dam"]), ("what is wet", ["a moor"], ["tin"])])
        .unwrap();
    let (dev, test) = (evaluation("What is  a tor", "a fen"), evaluation("what is dry", "A moor"));
    let options = ReportOptions { evaluations: vec![("dev", &dev), ("test", &test)], ..ReportOptions::default() };
    let report = DataReport::with_options(&raw, &options).unwrap();
    let leaks: Vec<_> =
        report.findings.iter().filter(|one| one.name.starts_with("leaked")).map(|one| one.message.as_str()).collect();
    assert_eq!(
        leaks,
        [
            "1 dev queries are trained on, but for case, white space and Unicode form",
            "1 documents relevant to test queries are positives in training"
        ]
    );
}

/// Comparing each of many positives with each of many negatives took time by their product.
#[test]
fn very_many_positives_of_one_query_take_no_time_by_their_square() {
    use colbert_data::{PrepareOptions, prepare};

    let start = std::time::Instant::now();
    let count = 100_000;
    let texts = |kind: &str| (0..count).map(|number| format!("{kind} {number}")).collect::<Vec<_>>();
    let raw = RawData::from_triplets([
        ("q", texts("positive"), texts("negative")),
        ("r", vec!["s".into()], vec!["positive 7".into()]),
    ])
    .unwrap();
    assert_eq!((raw.positives(0).len(), raw.negatives(0).len()), (count, count));
    let report = DataReport::new(&raw, None);
    assert_eq!(report.positives, count + 1);
    let mut options = PrepareOptions::default();
    options.negatives.num_new_negatives = 0;
    options.negatives.triples = colbert_config::TriplePolicy::Reference;
    let (set, _) = prepare(raw, &options, None).unwrap();
    assert_eq!(set.examples.len(), count + 1);
    assert!(set.positives.is_positive(0, count as u32 - 1) && !set.positives.is_positive(0, count as u32));
    // By the square it would be 10^10 comparisons, a minute at least.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

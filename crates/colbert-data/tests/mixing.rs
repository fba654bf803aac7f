//! Several sources and rows of unlike kinds in one data set; least numbers of negatives; pools to draw from.

use colbert_data::{PrepareOptions, RawData, Remining, prepare};

use crate::support::{assert_parts, in_words, random};

fn pairs(name: &str, count: usize) -> RawData {
    let rows = (0..count).map(|number| (format!("{name} query {number}"), format!("{name} passage {number}")));
    RawData::from_pairs(rows).unwrap()
}

/// Queries with `documents` scored documents each.
fn scored(name: &str, count: usize, documents: usize) -> RawData {
    let rows = (0..count).map(|number| {
        let texts: Vec<String> = (0..documents).map(|place| format!("{name} text {number} {place}")).collect();
        let scores = (0..documents).map(|place| 9.0 - place as f32).collect();
        (format!("{name} query {number}"), texts, scores)
    });
    RawData::from_scored(rows).unwrap()
}

#[test]
fn rows_with_and_without_teacher_scores_are_one_data_set() {
    let mut raw = scored("a", 3, 3);
    raw.merge(pairs("b", 4)).unwrap();
    let options = PrepareOptions { nway: 3, ..random(4) };
    let remining = Remining::of(&raw, &options).unwrap();
    let (set, report) = prepare(raw, &options, None).unwrap();
    assert_eq!((report.ready_made, report.examples, report.without_positives), (3, 3 + 4 * 2, 0));
    assert!(set.examples[..3].iter().all(|example| example.scores.as_ref().is_some_and(|scores| scores.len() == 3)));
    assert!(set.examples[3..].iter().all(|example| example.scores.is_none() && example.documents.len() == 3));
    assert!(
        in_words(&set)[3..].iter().all(|words| words[0].starts_with("b query") && words[1].starts_with("b passage"))
    );
    assert_eq!((set.sources.clone(), report.by_source.clone()), (vec![0, 3], vec![3, 8]));
    assert_parts(&report.to_string(), &["examples by source, in the order of data.train: 3, 8", "added to them"]);

    // A later epoch has the scored rows as they are, and other negatives for the rest.
    let remining = remining.with_ready_made(&set, &report);
    let (later, _) = remining.examples(&set, 1, None, &|_, _, _| ()).unwrap();
    assert_eq!(later[..3], set.examples[..3]);
    assert_eq!(later.len(), set.examples.len());
    assert_ne!(later[3..], set.examples[3..]);
}

#[test]
fn a_query_with_both_kinds_of_rows_has_examples_of_both() {
    let mut raw = scored("a", 2, 2);
    raw.merge(RawData::from_pairs([("a query 1", "another passage"), ("b query", "b passage")]).unwrap()).unwrap();
    let (set, _) = prepare(raw, &random(1), None).unwrap();
    let of = |query: &str| in_words(&set).into_iter().filter(|words| words[0] == query).count();
    assert_eq!((of("a query 0"), of("b query")), (1, 1));
    assert_eq!(of("a query 1"), 1 + 2, "its scored row, and each of its two positives with a negative");
    assert_eq!(set.examples_by_source().iter().map(Vec::len).collect::<Vec<_>>(), [4, 1], "a query has one source");
}

#[test]
fn a_least_number_of_negatives_leaves_out_and_counts_or_lets_short_rows_through() {
    let rows = (0..6usize).map(|number| {
        let negatives: Vec<String> = (0..number).map(|place| format!("negative {number} {place}")).collect();
        (format!("query {number}"), vec![format!("positive {number}")], negatives)
    });
    let raw = RawData::from_triplets(rows.skip(1)).unwrap();
    let mut options = PrepareOptions { nway: 4, ..random(0) };
    let widths = |options: &PrepareOptions| {
        let (set, report) = prepare(raw.clone(), options, None).unwrap();
        (set.examples.iter().map(|example| example.documents.len()).collect::<Vec<_>>(), report)
    };
    let (by_nway, report) = widths(&options);
    assert_eq!((by_nway, report.short_of_nway), (vec![4, 4, 4, 4, 4], 2), "3, 4 and 5 negatives: 1, 2 and 2 examples");
    options.negatives.min_negatives = Some(2);
    let (lower, report) = widths(&options);
    assert_eq!((lower, report.below_minimum, report.narrower), (vec![3, 4, 4, 4, 4, 4], 1, 1));
    assert_parts(
        &report.to_string(),
        &["1 queries or ready-made examples with fewer negatives", "1 examples have fewer"],
    );
    options.negatives.min_negatives = Some(5);
    let (higher, report) = widths(&options);
    assert_eq!((higher, report.below_minimum), (vec![4, 4], 4));
    options.negatives.min_negatives = Some(6);
    let error = prepare(raw.clone(), &options, None).unwrap_err().to_string();
    assert_parts(&error, &["no query has the 6 negatives that negatives.min_negatives asks for", "lower"]);
    options.negatives.min_negatives = Some(0);
    assert_parts(
        &prepare(raw.clone(), &options, None).unwrap_err().to_string(),
        &["negatives.min_negatives", "1 or more"],
    );

    let mut ready = scored("a", 2, 3);
    ready.merge(scored("b", 1, 5)).unwrap();
    let options = |least| PrepareOptions {
        nway: 5,
        negatives: colbert_config::NegativeOptions { min_negatives: least, ..random(0).negatives },
        ..PrepareOptions::default()
    };
    assert_parts(&prepare(ready.clone(), &options(None), None).unwrap_err().to_string(), &["3", "5"]);
    let (set, report) = prepare(ready.clone(), &options(Some(2)), None).unwrap();
    assert_eq!((set.examples.len(), report.narrower, report.below_minimum), (3, 2, 0));
    let (set, report) = prepare(ready, &options(Some(3)), None).unwrap();
    assert_eq!((set.examples.len(), report.narrower, report.below_minimum), (1, 0, 2));
}

#[test]
fn pools_keep_all_negatives_for_the_trainer_to_draw_from() {
    let options = PrepareOptions { draw_negatives: true, nway: 3, ..random(5) };
    let (set, report) = prepare(pairs("a", 8), &options, None).unwrap();
    assert_eq!((set.examples.len(), report.cut_to_nway), (8, 0));
    assert!(set.examples.iter().all(|example| example.documents.len() == 6));
    let (set, _) = prepare(scored("a", 2, 6), &options, None).unwrap();
    assert!(set.examples.iter().all(|example| example.documents.len() == 6));
}

#[test]
fn held_out_queries_move_the_starts_of_sources() {
    let mut raw = pairs("a", 10);
    raw.merge(pairs("b", 20)).unwrap();
    raw.merge(pairs("c", 5)).unwrap();
    let (left, _, _) = raw.split_dev(9, 1).unwrap();
    let (set, report) = prepare(left, &random(1), None).unwrap();
    assert_eq!(report.by_source.iter().sum::<usize>(), 26);
    for (source, name) in set.examples_by_source().iter().zip(["a", "b", "c"]) {
        for place in source {
            let query = set.queries.text(set.examples[*place as usize].query);
            assert!(query.starts_with(&format!("{name} query")), "{query}");
        }
    }
}

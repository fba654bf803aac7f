//! Files that people have: each folder of `tests/field` is a case that was once read wrongly. Data in them are made up.

use std::path::{Path, PathBuf};

use colbert_config::ColumnRoles;
use colbert_data::{
    Bm25Index, Bm25Miner, DataError, DataReport, PrepareOptions, RawData, ReadOptions, ReportOptions, Severity, Side,
    TextAnalysis, prepare, read_documents, read_texts, read_training_data,
};

use crate::support::{assert_parts, in_words, options};

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/field").join(name)
}

fn read(name: &str) -> Result<RawData, DataError> {
    read_training_data(&case(name), &ReadOptions::default())
}

fn with_columns(name: &str, columns: &str) -> Result<RawData, DataError> {
    let roles = columns.parse::<ColumnRoles>().unwrap().0;
    read_training_data(&case(name), &ReadOptions { roles, ..ReadOptions::default() })
}

/// Numbers of queries, positives and given negatives.
fn counts(raw: &RawData) -> (usize, usize, usize) {
    let qids = || 0..raw.queries().len() as u32;
    (
        raw.queries().len(),
        qids().map(|qid| raw.positives(qid).len()).sum(),
        qids().map(|qid| raw.negatives(qid).len()).sum(),
    )
}

fn texts(raw: &RawData, qid: u32) -> (&str, Vec<&str>) {
    let positives = raw.positives(qid).iter().map(|&pid| raw.collection().text(pid)).collect();
    (raw.queries().text(qid), positives)
}

/// Follows the suggestion of a refusal.
fn follow(name: &str) -> (String, RawData) {
    let message = read(name).unwrap_err().to_string();
    let (_, rest) = message.split_once("such as \"").unwrap_or_else(|| panic!("no suggestion: {message}"));
    let suggestion = rest.split_once('"').unwrap().0.to_owned();
    let raw = with_columns(name, &suggestion).unwrap_or_else(|error| panic!("{suggestion}: {error}"));
    (suggestion, raw)
}

#[test]
fn ids_are_not_texts() {
    for file in ["qrels.tsv", "qrels-no-header.tsv", "triples.train.small.tsv"] {
        let message = read(&format!("ids-as-texts/{file}")).unwrap_err().to_string();
        assert_parts(&message, &[file, "line 1", "ids", "BEIR folder", "three files"]);
    }
    let message = read("qrels-trec-columns/qrels/train.tsv").unwrap_err().to_string();
    assert_parts(&message, &["line 1", "ids"]);
}

#[test]
fn qrels_of_trec_are_read() {
    let raw = read("qrels-trec-columns").unwrap();
    assert_eq!(counts(&raw), (12, 12, 0));
    assert_parts(raw.announcement(), &["qrels of four columns, as TREC has them"]);
    let (query, positives) = texts(&raw, 0);
    assert_eq!(query, "What causes fever?");
    assert!(positives[0].starts_with("Fever is"));
}

#[test]
fn tab_separated_files_with_a_header_are_read_as_csv_is() {
    let message = read("tsv-header-is-a-row/text_ab.tsv").unwrap_err().to_string();
    assert_parts(&message, &["line 1", "`text_a`, `text_b`, `label`", "text_a=query, text_b=document"]);
    let (_, raw) = follow("tsv-header-is-a-row/text_ab.tsv");
    assert_eq!(counts(&raw), (12, 12, 12));
    let raw = read("tsv-by-pandas/train.tsv").unwrap();
    let (query, positives) = texts(&raw, 0);
    assert_eq!((query, positives[0]), ("What does \"fever\" mean?", "The word \"fever\" means an illness."));
}

#[test]
fn label_columns_of_other_names_are_used() {
    for file in ["relevancy.csv", "relevance.csv"] {
        let raw = read(&format!("label-column-of-another-name/{file}")).unwrap();
        assert_eq!(counts(&raw), (12, 12, 12), "{file}");
        assert_parts(raw.announcement(), &["label = relevan"]);
    }
}

#[test]
fn scores_of_0_and_1_are_labels() {
    let raw = read("score-is-a-label/train.csv").unwrap();
    assert_parts(raw.announcement(), &["labelled pairs", "label = score"]);
    let (queries, positives, negatives) = counts(&raw);
    assert_eq!((queries, positives), (12, 12));
    assert!(negatives > 0 && raw.ready_made().is_empty());
    // Who wants them as scores says so.
    let raw = with_columns("score-is-a-label/train.csv", "score=scores").unwrap();
    assert!(!raw.ready_made().is_empty());
}

#[test]
fn two_candidates_for_the_positive_are_asked_for() {
    let message = read("question-answer-context/rag.csv").unwrap_err().to_string();
    assert_parts(&message, &["line 1", "`answer` and `context` could each be the positive"]);
    let (suggestion, raw) = follow("question-answer-context/rag.csv");
    assert_eq!(suggestion, "question=query, context=document, answer=ignore");
    assert!(texts(&raw, 0).1[0].starts_with("Fever is"));
}

#[test]
fn suggestions_work_when_followed() {
    for (file, suggestion) in
        [("squad.jsonl", "question=query, context=document"), ("alpaca.json", "instruction=query, output=document")]
    {
        let (found, raw) = follow(&format!("suggested-columns/{file}"));
        assert_eq!(found, suggestion);
        assert_eq!(texts(&raw, 0).0, "What causes fever?");
        assert!(texts(&raw, 0).1[0].starts_with("Fever is"), "{file}");
    }
}

#[test]
fn json_of_every_shape_is_read() {
    for (file, layout) in [
        ("pretty.json", "JSON objects, 12 pairs"),
        ("columns.json", "JSON by columns (pandas), 12 pairs"),
        ("trailing-comma.json", "JSON list, 12 pairs"),
        ("squad-v1.json", "JSON in SQuAD's layout"),
    ] {
        let raw =
            read(&format!("json-that-is-not-one-a-line/{file}")).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_parts(raw.announcement(), &[layout]);
        let (query, positives) = texts(&raw, 0);
        assert_eq!(query, "What causes fever?", "{file}");
        assert!(positives[0].starts_with("Fever is"), "{file}");
        assert_eq!(counts(&raw), (12, 12, 0), "{file}");
    }
}

#[test]
fn lines_of_csv_are_those_of_an_editor() {
    let message = read("crlf-csv-line-numbers/crlf.csv").unwrap_err().to_string();
    assert_parts(&message, &["crlf.csv, line 3", "white space"]);
}

#[test]
fn the_separator_line_of_excel_is_understood() {
    let raw = read("csv-sep-line/faq.csv").unwrap();
    assert_parts(raw.announcement(), &["CSV separated by `;`"]);
    assert!(texts(&raw, 0).1[0].contains("handbook, people"));
}

#[test]
fn documents_are_read_from_the_right_column_or_refused() {
    let message = read_texts(&case("documents-file-columns/faq.csv"), Side::Document).unwrap_err().to_string();
    assert_parts(&message, &["faq.csv, line 1", "`question` and `answer` could each be the text", "call the one"]);
    let file = read_texts(&case("documents-file-columns/docs.tsv"), Side::Document).unwrap();
    assert_eq!(file.note, None, "the name of the column says it");
    assert!(file.records[0].text.starts_with("Fever Fever is") && file.records[0].id.is_none());
    // The same reader for documents to draw negatives from.
    let mut raw = RawData::from_pairs([("q", "p")]).unwrap();
    let options = ReadOptions::default();
    assert!(read_documents(&case("documents-file-columns/faq.csv"), &options, &mut raw).is_err());
    read_documents(&case("documents-file-columns/docs.tsv"), &options, &mut raw).unwrap();
    assert!(raw.collection().iter().any(|text| text.starts_with("Fever Fever is")));
    let queries = read_texts(&case("documents-file-columns/faq.csv"), Side::Query).unwrap();
    assert_eq!(queries.records[0].text, "What causes fever?");
}

#[test]
fn placeholders_are_found() {
    let report = DataReport::new(&read("nan-as-text/faq.csv").unwrap(), None);
    let finding = report.findings.iter().find(|finding| finding.name == "placeholder_texts").unwrap();
    assert_eq!((finding.severity, finding.count), (Severity::Warning, 1));
    assert_parts(&finding.examples.join(" "), &["NaN"]);
}

#[test]
fn the_report_foresees_that_no_example_can_be_made() {
    for file in ["same-answer.jsonl", "same-query.jsonl"] {
        let raw = read(&format!("check-passes-train-refuses/{file}")).unwrap();
        let report = DataReport::new(&raw, None);
        let error = prepare(raw, &PrepareOptions::default(), None).unwrap_err().to_string();
        let finding = report.findings.iter().find(|finding| finding.severity == Severity::Error).unwrap();
        assert!(error.contains(&finding.message) && error.contains(&finding.fix), "{error} | {finding:?}");
    }
    // A score of 1 for each is a label: there are negatives to draw.
    let raw = read("check-passes-train-refuses/one-score-each.csv").unwrap();
    let none = options(|negatives| negatives.hard_negative_minimum_rank = 0);
    assert!(!in_words(&prepare(raw, &none, None).unwrap().0).is_empty());
}

#[test]
fn texts_of_another_language_are_noticed() {
    let raw = read("language-not-set/faq-ja.jsonl").unwrap();
    let report = |code: &str| {
        let analysis = TextAnalysis::for_language(code);
        DataReport::with_options(&raw, &ReportOptions { analysis, ..ReportOptions::default() }).unwrap()
    };
    let found = report("en");
    let finding = found.findings.iter().find(|finding| finding.name == "language_mismatch").unwrap();
    assert_eq!(finding.severity, Severity::Warning);
    assert_parts(&finding.message, &["Japanese", "language_code is \"en\""]);
    assert_eq!(finding.fix, "language_code = \"ja\"");
    assert!(report("ja").findings.iter().all(|finding| finding.name != "language_mismatch"));
    // The code of a country is that of another language, which no text is known by.
    let korean = [
        ("빙하란 무엇인가요?", "빙하는 쌓인 눈이 눌려 만들어진 거대한 얼음 덩어리로 스스로의 무게로 움직입니다."),
        ("삼각주는 어떻게 만들어지나요?", "삼각주는 강이 나른 흙과 모래가 강어귀에 쌓여 만들어지는 지형입니다."),
        ("습지란 무엇인가요?", "습지는 얕은 물에 덮인 낮은 땅으로 많은 물새가 삽니다."),
    ];
    let korean = RawData::from_pairs(korean).unwrap();
    let analysis = TextAnalysis::for_language("kr");
    let report_of_korean = DataReport::with_options(&korean, &ReportOptions { analysis, ..ReportOptions::default() });
    let finding = report_of_korean.unwrap().findings.into_iter().find(|finding| finding.name == "language_mismatch");
    assert_eq!(finding.unwrap().fix, "language_code = \"ko\"");
    // What the finding is for: with the right code nothing is drawn at random for want of candidates.
    let options = options(|negatives| {
        negatives.num_new_negatives = 3;
        negatives.hard_negative_minimum_rank = 0;
    });
    let (_, prepared) = prepare(raw.clone(), &options, Some(&Bm25Miner::new("ja"))).unwrap();
    assert_eq!(prepared.random_negatives, 0);
    for file in ["score-is-a-label/train.csv", "suggested-columns/squad.jsonl"] {
        let raw =
            with_columns(file, if file.contains("squad") { "question=query, context=document" } else { "" }).unwrap();
        let report = DataReport::new(&raw, None);
        assert!(report.findings.iter().all(|finding| finding.name != "language_mismatch"), "{file}");
    }
}

/// The corpus of a BEIR folder in Japanese: BM25 finds the documents by characters, not by English words.
#[test]
fn bm25_of_a_language_finds_what_is_relevant() {
    let set = colbert_data::read_evaluation_set(&case("evaluate-bm25-language"), "test").unwrap();
    let first = |code: &str| {
        let index = Bm25Index::new(&set.collection, &TextAnalysis::for_language(code)).unwrap();
        let ranked = index.rank(&set.queries, 1).unwrap();
        let right = (0..)
            .zip(&ranked)
            .filter(|(qid, ranking)| ranking.first().is_some_and(|best| set.judgements.is_positive(*qid, best.pid)));
        right.count()
    };
    assert!(first("ja") * 10 >= 9 * set.queries.len(), "{} of {}", first("ja"), set.queries.len());
    assert!(first("en") * 2 < set.queries.len());
}

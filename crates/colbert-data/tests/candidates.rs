//! Files of candidates for evaluation.

use std::fs;
use std::path::{Path, PathBuf};

use colbert_data::{Bm25Index, Candidates, DataError, EvaluationSet, TextAnalysis, read_evaluation_set};
use tempfile::TempDir;

fn set(folder: &Path) -> EvaluationSet {
    let path = folder.join("beir");
    fs::create_dir_all(path.join("qrels")).unwrap();
    let corpus = ["a hill of rock", "a river by the hill", "a bog", "rock and river", "a moor"];
    let line = |(i, text): (usize, &&str)| format!("{{\"_id\": \"d{i}\", \"title\": \"\", \"text\": \"{text}\"}}\n");
    fs::write(path.join("corpus.jsonl"), corpus.iter().enumerate().map(line).collect::<String>()).unwrap();
    let queries = "{\"_id\": \"q0\", \"text\": \"rock\"}\n{\"_id\": \"7\", \"text\": \"river\"}\n";
    fs::write(path.join("queries.jsonl"), queries).unwrap();
    fs::write(path.join("qrels/test.tsv"), "query-id\tcorpus-id\tscore\nq0\td0\t1\n7\td1\t1\n").unwrap();
    read_evaluation_set(&path, "test").unwrap()
}

fn file(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("run.txt");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn candidates_are_read_in_every_form_and_order_does_not_matter() {
    let folder = TempDir::new().unwrap();
    let set = set(folder.path());
    let read = |text: &str| Candidates::read(&file(folder.path(), text), &set).unwrap();
    let expected = read("q0 Q0 d3 1 9.5 bm25\nq0 Q0 d0 2 8.0 bm25\n7 Q0 d4 1 1e-3 bm25\nother Q0 d0 1 1 bm25\n");
    assert_eq!((expected.of(0), expected.of(1)), (&[0, 3][..], &[4][..]));
    assert_eq!((expected.other_queries(), expected.without(), expected.mean(), expected.distinct()), (1, 0, 2, 3));
    assert!(expected.contains(0, 3) && !expected.contains(1, 3) && !expected.contains(9, 3));
    for text in [
        "q0\\td0\\n7\\td4\\nq0\\td3\\nq0\\td3\\nother\\td0\\n".replace("\\t", "\t").replace("\\n", "\n"),
        "q0\td3\t1\nq0\td0\t2\n7\td4\t1\nother\tnot there\t1\n".to_owned(),
        "{\"query_id\": \"q0\", \"candidates\": [\"d0\", \"d3\"]}\n{\"qid\": 7, \"pids\": [\"d4\"]}\n[\"other\", []]\n"
            .to_owned(),
        "[\"q0\", [\"d3\", \"d0\"]]\n\n[7, [\"d4\"]]\n[\"other\", [\"d0\"]]\n".to_owned(),
    ] {
        assert_eq!(read(&text), expected, "{text}");
    }
    let empty = read("q0 d0\n");
    assert_eq!((empty.of(1), empty.without(), empty.mean()), (&[][..], 1, 1));
}

#[test]
fn what_is_no_candidate_is_named() {
    let folder = TempDir::new().unwrap();
    let set = set(folder.path());
    let error = |text: &str| Candidates::read(&file(folder.path(), text), &set).unwrap_err();
    for (text, part) in [
        ("q0 d0\nq0 d9\n", "line 2, document id: id `d9` is not in the corpus"),
        ("q0 0 d0 1\n", "line 1: expected a line of a TREC run"),
        ("q0 d0 relevant\n", "3 columns: q0 d0 relevant"),
        ("q0 Q0 d0 first 1.0 x\n", "6 columns"),
        ("{\"query_id\": \"q0\"}\n", "candidates"),
        ("{\"query_id\": \"q0\", \"candidates\": [[\"d0\"]]}\n", "TREC run"),
        ("{\"query_id\"\n", "one JSON value on the line"),
        ("other d0\nanother d1\n", "none of them, and 2 other queries"),
        ("", "none of them, and 0 other queries"),
    ] {
        let error = error(text).to_string();
        assert!(error.contains(part), "{text:?}: {error}");
    }
    let missing = Candidates::read(&folder.path().join("nothing"), &set).unwrap_err();
    assert!(matches!(missing, DataError::Missing { .. }), "{missing}");
}

/// BM25 among candidates has the scores and the order that it has among all documents.
#[test]
fn bm25_ranks_among_candidates_alone() {
    let folder = TempDir::new().unwrap();
    let set = set(folder.path());
    let index = Bm25Index::new(&set.collection, &TextAnalysis::for_language("en")).unwrap();
    let candidates = Candidates::read(&file(folder.path(), "q0 d3\nq0 d4\n7 d1\n7 d3\n7 d0\n"), &set).unwrap();
    let all = index.rank(&set.queries, 100).unwrap();
    assert_eq!(all[0].len(), 2, "d0 and d3 have the word");
    let among = index.rank_among(&set.queries, &candidates).unwrap();
    for (qid, (all, among)) in (0..).zip(all.iter().zip(&among)) {
        let kept: Vec<_> = all.iter().filter(|hit| candidates.contains(qid, hit.pid)).cloned().collect();
        assert_eq!(among, &kept);
    }
    assert_eq!(among[0].iter().map(|hit| hit.pid).collect::<Vec<_>>(), [3], "d4 has no word of the query");
}

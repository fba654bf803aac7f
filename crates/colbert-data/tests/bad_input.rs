//! Every way in which input can be wrong, and the parts that its message must have.

use colbert_config::DataFormat;
use colbert_data::{
    DataReport, Labels, PrepareOptions, RawData, ReadOptions, ReferenceFiles, Severity, import_reference, prepare,
    read_training_data,
};

use crate::support::{assert_parts, folder, options, random, read};

#[test]
fn rows_that_are_wrong_name_file_line_expected_and_found() {
    let cases: [(&str, &str, &[&str]); 19] = [
        ("a.jsonl", "[\"q\",\"p\"]\n[\"q\",", &["a.jsonl, line 2", "expected one JSON value", "column 5: EOF"]),
        ("b.jsonl", "[\"q\",\"p\"]\n[\"q\"]", &["b.jsonl, line 2", "expected an array of 2", "found an array of 1"]),
        (
            "c.jsonl",
            "[\"q\",\"p\"]\n{\"query\":\"q\",\"positive\":\"p\"}",
            &["line 2", "an array of 2", "found an object"],
        ),
        (
            "d.jsonl",
            "[\"q\",\"p\",1]\n[\"q\",\"p\",2]",
            &["line 2, label", "`1` (positive)", "`0` (negative)", "found `2`"],
        ),
        ("e.jsonl", "[\"q\",\"p\"]\n[\"q\",\"  \"]", &["e.jsonl, line 2, positive", "white space"]),
        ("f.jsonl", "[\"q\",\"p\"]\n[5,\"p\"]", &["line 2", "query: a text", "found 5"]),
        ("g.jsonl", "[\"q\",[\"p\",null]]", &["line 1", "positive: a text", "found null"]),
        ("h.jsonl", "[\"q\",[]]", &["line 1", "at least one positive", "empty list"]),
        (
            "i.jsonl",
            "{\"query\":\"q\",\"positive\":\"p\"}\n{\"query\":\"q\"}",
            &["line 2", "field `positive`", "found none"],
        ),
        (
            "j.jsonl",
            "{\"query\":\"q\",\"positive\":\"p\"}\n{\"query\":\"q\",\"positive\":\"p\",\"label\":1}",
            &["line 2", "also has `label`"],
        ),
        (
            "k.jsonl",
            "{\"text\":\"q\",\"body\":\"p\"}",
            &["line 1", "none of the columns is the query", "`body`, `text`", "data.columns"],
        ),
        (
            "l.jsonl",
            "{\"query\":\"q\",\"documents\":[\"a\",\"b\"],\"scores\":[1]}",
            &["line 1, scores", "2 documents", "found 1"],
        ),
        (
            "m.jsonl",
            "{\"query\":\"q\",\"documents\":[\"a\",\"b\"],\"scores\":[1,null]}",
            &["line 1, scores", "finite", "found null"],
        ),
        (
            "n.jsonl",
            "{\"query\":\"q\",\"documents\":[\"a\",\"b\"],\"scores\":[1,1e300]}",
            &["line 1, scores", "finite", "found inf"],
        ),
        ("o.jsonl", "[1,2,3]", &["line 1", "data.format = reference", "numbers only"]),
        ("p.tsv", "query\tpositive\nq\tp\textra", &["p.tsv, line 2", "2 columns", "found 3"]),
        ("q.txt", "just a line", &["q.txt, line 1", "separated by tabs", "neither"]),
        ("r.jsonl", "\n\n", &["r.jsonl", "no rows at all"]),
        (
            "s.jsonl",
            "{\"query\":\"q\",\"positive\":{\"payload\":\"p\"}}",
            &["line 1", "`content` or `text`", "an object with payload"],
        ),
    ];
    for (name, content, parts) in cases {
        assert_parts(&read(name, content).unwrap_err().to_string(), parts);
    }
}

#[test]
fn files_that_are_not_there_or_not_files() {
    let folder = folder(&[("latin.jsonl", b"[\"q\",\"p\"]\n[\"q\",\"caf\xe9\"]"), ("sub/x", b"")]);
    let message = |name: &str, format| {
        let options = ReadOptions { format, ..ReadOptions::default() };
        read_training_data(&folder.path().join(name), &options).unwrap_err().to_string()
    };
    assert_parts(&message("latin.jsonl", DataFormat::Auto), &["latin.jsonl, line 2, byte 10", "UTF-8"]);
    assert_parts(&message("none.jsonl", DataFormat::Auto), &["none.jsonl", "no such file"]);
    assert_parts(&message("sub", DataFormat::Pairs), &["sub", "expected a file", "found a folder"]);
    assert_parts(&message("sub", DataFormat::Auto), &["sub", "corpus.jsonl", "a folder with neither"]);
    assert_parts(&message("sub", DataFormat::Beir), &["corpus.jsonl", "no such file"]);
    assert_parts(&message("sub/x", DataFormat::Beir), &["expected a BEIR folder", "found a file"]);
    assert_parts(&message("sub", DataFormat::Reference), &["queries.train.colbert.tsv", "no such file"]);
}

#[test]
fn beir_folders_that_do_not_fit_together() {
    let with = |corpus: &[u8], qrels: &[u8]| {
        let queries = b"{\"_id\":\"q1\",\"text\":\"what\"}\n";
        let folder = folder(&[("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels/train.tsv", qrels)]);
        read_training_data(folder.path(), &ReadOptions::default()).unwrap_err().to_string()
    };
    let corpus = b"{\"_id\":\"d1\",\"text\":\"a\"}\n{\"_id\":\"d2\",\"text\":\" \"}\n";
    assert_parts(&with(corpus, b"q1\td9\t1\n"), &["train.tsv, line 1", "document id", "`d9`", "corpus.jsonl"]);
    assert_parts(&with(corpus, b"h\th\th\nq9\td1\t1\n"), &["train.tsv, line 2", "query id", "`q9`", "queries.jsonl"]);
    assert_parts(&with(corpus, b"q1\td2\t1\n"), &["train.tsv, line 1", "document id `d2`", "white space"]);
    assert_parts(&with(corpus, b"q1\td1\t1\nq1\td1\tyes\n"), &["train.tsv, line 2", "whole-number grade", "`yes`"]);
    assert_parts(&with(corpus, b"q1\td1\n"), &["train.tsv, line 1", "found 2 columns"]);
    assert_parts(&with(corpus, b"h\th\th\n"), &["train.tsv", "no rows"]);
    assert_parts(&with(b"{\"id\":1}\n", b""), &["corpus.jsonl, line 1", "`_id` and `text`", "an object with id"]);
    let twice = b"{\"_id\":\"d1\",\"text\":\"a\"}\n{\"_id\":\"d1\",\"text\":\"b\"}\n";
    assert_parts(&with(twice, b""), &["corpus.jsonl, line 2", "`d1`", "already names another text"]);
}

#[test]
fn reference_files_that_do_not_fit_together() {
    let with = |queries: &str, triples: &str| {
        let folder = folder(&[
            ("queries.train.colbert.tsv", queries.as_bytes()),
            ("corpus.train.colbert.tsv", b"0\ta\n1\tb\n"),
            ("triples.train.colbert.jsonl", triples.as_bytes()),
        ]);
        import_reference(&ReferenceFiles::in_folder(folder.path()), &ReadOptions::default()).unwrap_err().to_string()
    };
    assert_parts(&with("0\tq\n", "[0,0,1]\n[0,0,9]\n"), &["jsonl, line 2, pid", "`9`", "corpus.train"]);
    assert_parts(&with("0\tq\n", "[5,0,1]\n"), &["line 1, qid", "`5`", "queries.train"]);
    assert_parts(&with("0\tq\n", "[0,0,1]\n[0,[0,1],[1,2]]\n"), &["line 2", "expected [qid,pid,...]"]);
    assert_parts(&with("0\tq\n", "[0,[0,1],[1,\"x\"]]\n"), &["line 1", "[pid,score]", "array of 2"]);
    assert_parts(&with("0\tq\n", "[0]\n"), &["line 1", "no documents"]);
    assert_parts(&with("0\tq\n1\n", "[0,0,1]\n"), &["queries.train.colbert.tsv, line 2", "no tab"]);
    assert_parts(&with("0\tq\n1\t \n", "[0,0,1]\n"), &["queries.train.colbert.tsv, line 2, query", "white space"]);
    assert_parts(&with("0\tq\n0\tr\n", "[0,0,1]\n"), &["line 2", "`0` already names another text"]);
    assert_parts(&with("0\tq\n", ""), &["triples.train.colbert.jsonl", "no rows"]);
}

#[test]
fn bad_rows_can_be_left_out_and_are_counted() {
    let folder = folder(&[(
        "rows.jsonl",
        b"[\"q\",\"p\"]\n[\"q\",\n[\"r\",\" \"]\n\xff\n[\"s\",\"p2\"]\n[\"t\",\"p\",\"n\"]\n",
    )]);
    let options = ReadOptions { skip_bad_rows: true, ..ReadOptions::default() };
    let raw = read_training_data(&folder.path().join("rows.jsonl"), &options).unwrap();
    assert_eq!(raw.queries().iter().collect::<Vec<_>>(), ["q", "s"], "a bad row leaves nothing behind");
    assert_eq!((raw.bad_rows().total(), raw.bad_rows().by_kind.len()), (4, 4));
    let report = DataReport::new(&raw, None);
    assert_eq!(report.worst(), Some(Severity::Error));
    assert_parts(
        &report.to_string(),
        &["4 rows are wrong", "malformed row: 1", "rows.jsonl, line 2", "line 4, byte 1"],
    );
}

#[test]
fn labels_in_memory_are_checked() {
    let error = RawData::from_labelled_pairs([("q", "d", 1), ("q", "e", 7)], &Labels::default()).unwrap_err();
    assert_parts(&error.to_string(), &["row 2, label", "found `7`", "data.positive_label"]);
    let error = RawData::from_pairs(Vec::<(String, String)>::new()).unwrap_err();
    assert_parts(&error.to_string(), &["raw data", "no rows"]);
}

#[test]
fn no_example_at_all_says_what_to_do() {
    let pair = || RawData::from_pairs([("q", "p")]).unwrap();
    let message = |raw, options: &PrepareOptions| prepare(raw, options, None).unwrap_err().to_string();
    assert_parts(&message(pair(), &random(0)), &["no query has a negative", "num_new_negatives is 0"]);
    assert_parts(&message(pair(), &random(5)), &["all 1 documents are positives", "data.all_documents"]);
    let negatives_only = RawData::from_labelled_pairs([("q", "d", 0)], &Labels::default()).unwrap();
    assert_parts(&message(negatives_only, &random(5)), &["no query has a positive", "label"]);
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let pair = || RawData::from_pairs([("q", "p"), ("r", "s")]).unwrap();
    let window = options(|negatives| negatives.hard_negative_maximum_rank = 10);
    let message = prepare(pair(), &window, None).unwrap_err().to_string();
    assert_parts(&message, &["negatives.hard_negative_minimum_rank", "is 10, but", "hard_negative_maximum_rank is 10"]);
    let nway = PrepareOptions { nway: 1, ..PrepareOptions::default() };
    assert_parts(&prepare(pair(), &nway, None).unwrap_err().to_string(), &["train.nway is 1", "2 or more"]);
}

#[test]
fn rows_of_one_score_that_are_wrong_are_named() {
    let row = "{\"query\":\"q\",\"document\":\"d\",\"score\":1}\n";
    let cases: [(&str, String, &[&str]); 8] = [
        (
            "null.jsonl",
            format!("{row}{{\"query\":\"q\",\"document\":\"e\",\"score\":null}}"),
            &["line 2, score", "finite", "found null"],
        ),
        (
            "list.jsonl",
            format!("{row}{{\"query\":\"q\",\"document\":\"e\",\"score\":[1]}}"),
            &["line 2, score", "an array of 1"],
        ),
        (
            "none.jsonl",
            format!("{row}{{\"query\":\"q\",\"document\":\"e\"}}"),
            &["line 2", "field `score`", "found none"],
        ),
        ("nan.csv", "query,passage,score\nq,a,NaN\n".to_owned(), &["nan.csv, line 2, scores", "finite", "found NaN"]),
        ("word.csv", "query,passage,score\nq,a,1\nq,b,high\n".to_owned(), &["word.csv, line 3, score", "\"high\""]),
        ("huge.jsonl", row.replace(":1}", ":1e300}"), &["line 1, scores", "finite", "found inf"]),
        (
            "two.jsonl",
            "{\"query\":\"q\",\"documents\":[\"a\",\"b\"],\"score\":1}".to_owned(),
            &["line 1", "one document for one score", "found 2"],
        ),
        (
            "other.jsonl",
            format!("{row}{{\"query\":\"q\",\"document\":\"d\",\"score\":2}}"),
            &["line 2", "one score for a query and a document, 1", "found 2"],
        ),
    ];
    for (name, content, parts) in cases {
        assert_parts(&read(name, &content).unwrap_err().to_string(), parts);
    }
    // A number that is no label says how scores are read.
    let error = read("labels.jsonl", "[\"q\",\"d\",0.7]").unwrap_err().to_string();
    assert_parts(&error, &["line 1, label", "found `0.7`", "data.format = scored"]);
}

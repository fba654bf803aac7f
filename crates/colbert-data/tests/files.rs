//! CSV, JSON lists, gzip, Parquet, Tevatron rows and PyLate's tables: what is read, what is announced, what is refused.

use std::io::Write;

use colbert_config::ColumnRole;
use colbert_config::DataFormat;
use colbert_data::{BeirFolder, DataError, RawData, ReadOptions, read_documents, read_training_data};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::{assert_parts, folder, read};

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Query, positives and negatives of a source with one query.
fn only(raw: &RawData) -> (&str, Vec<&str>, Vec<&str>) {
    assert_eq!(raw.queries().len(), 1);
    let texts = |pids: &[u32]| pids.iter().map(|&pid| raw.collection().text(pid)).collect();
    (raw.queries().text(0), texts(raw.positives(0)), texts(raw.negatives(0)))
}

fn with_roles(name: &str, content: &[u8], roles: &[(&str, ColumnRole)]) -> Result<RawData, DataError> {
    let folder = folder(&[(name, content)]);
    let roles = roles.iter().map(|(name, role)| ((*name).to_owned(), *role)).collect();
    read_training_data(&folder.path().join(name), &ReadOptions { roles, ..ReadOptions::default() })
}

#[test]
fn csv_and_json_lists_say_the_same_as_jsonl() {
    let layouts = [
        (
            "a.csv",
            "query,positive,negative\r\n\"q\",p,\"n, quoted \"\"twice\"\"\nand on\"\r\n",
            "CSV separated by `,`, 1 triplets",
        ),
        (
            "b.csv",
            "\u{feff}query;positive;negative_1;negative_2\nq;p;\"n, quoted \"\"twice\"\"\nand on\";\n",
            "CSV separated by `;`",
        ),
        ("c.json", "[[\"q\", \"p\", \"n, quoted \\\"twice\\\"\\nand on\"]]", "JSON list, 1 triplets"),
        (
            "d.json",
            "[\n  {\"query\": \"q\",\n   \"positive\": [{\"content\": \"p\"}],\n   \"negative\": [\"n, quoted \\\"twice\\\"\\nand on\"]}\n]\n",
            "JSON list",
        ),
        (
            "e.jsonl",
            "{\"query_id\":\"1\",\"query\":\"q\",\"positive_passages\":[{\"docid\":\"7\",\"title\":\"\",\"text\":\"p\"}],\
             \"negative_passages\":[{\"docid\":\"8\",\"text\":\"n, quoted \\\"twice\\\"\\nand on\"}]}",
            "triplets in Tevatron's layout, query = query, positive = positive_passages",
        ),
    ];
    for (name, content, announced) in layouts {
        let raw = read(name, content).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(only(&raw), ("q", vec!["p"], vec!["n, quoted \"twice\"\nand on"]), "{name}");
        assert_parts(raw.announcement(), &[name, announced]);
    }
    let tevatron = ReadOptions { format: DataFormat::Tevatron, ..ReadOptions::default() };
    let folder = folder(&[("f.jsonl", b"{\"query\":\"q\",\"positive\":\"p\"}")]);
    let message = read_training_data(&folder.path().join("f.jsonl"), &tevatron).unwrap_err().to_string();
    assert_parts(&message, &["positive_passages", "data.format = tevatron", "query = query"]);
}

#[test]
fn gzip_is_unpacked_and_told_when_it_breaks_off() {
    let content: String = (0..20_000).map(|row| format!("[\"query {row}\", \"document {}\"]\n", row * 7919)).collect();
    let packed = gzip(content.as_bytes());
    let cut = &packed[..packed.len() / 2];
    let mut flipped = packed.clone();
    let middle = flipped.len() / 2;
    flipped[middle..middle + 40].fill(0xff);
    let folder = folder(&[
        ("a.jsonl.gz", &packed),
        ("b.jsonl.gz", cut),
        ("c.jsonl.gz", &flipped),
        ("d.csv.gz", &gzip(b"query,answer\nq,p\n")),
    ]);
    let options = ReadOptions { skip_bad_rows: true, ..ReadOptions::default() };
    let read = |name: &str| read_training_data(&folder.path().join(name), &options);
    let raw = read("a.jsonl.gz").unwrap();
    assert_eq!(raw.queries().len(), 20_000);
    assert_parts(raw.announcement(), &["JSONL (gzip), 20000 pairs"]);
    assert_parts(&read("b.jsonl.gz").unwrap_err().to_string(), &["b.jsonl.gz", "gzip data is truncated", "again"]);
    assert_parts(&read("c.jsonl.gz").unwrap_err().to_string(), &["c.jsonl.gz", "gzip"]);
    assert_parts(read("d.csv.gz").unwrap().announcement(), &["CSV separated by `,` (gzip)", "positive = answer"]);
}

#[test]
fn roles_are_given_or_clear_or_refused() {
    let csv = b"question,query,context\nwhich,q,p\n";
    let message = with_roles("a.csv", csv, &[]).unwrap_err().to_string();
    assert_parts(
        &message,
        &["a.csv, line 1", "`question` and `query` could each be the query", "`context`", "data.columns"],
    );
    let roles = [("question", ColumnRole::Query), ("context", ColumnRole::Document)];
    let raw = with_roles("a.csv", csv, &roles).unwrap();
    assert_eq!(only(&raw), ("which", vec!["p"], vec![]));
    assert_parts(raw.announcement(), &["query = question, document = context, not used: query"]);
    assert_parts(
        &with_roles("a.csv", csv, &[("kontext", ColumnRole::Document)]).unwrap_err().to_string(),
        &["names `kontext`, but there is no such column", "`question`, `query`, `context`"],
    );
    // A first line that is no header is a row of names that mean nothing.
    assert_parts(&with_roles("b.csv", b"what is a tor,a hill\n", &[]).unwrap_err().to_string(), &["b.csv", "expected"]);
    assert_parts(
        &with_roles("b.csv", b"what is a tor,a hill\nwhat is wet,a bog\n", &[]).unwrap_err().to_string(),
        &["b.csv, line 1", "none of the columns is the query", "`what is a tor`, `a hill`"],
    );
    let raw = with_roles(
        "c.tsv",
        b"frage\tantwort\nq\tp\n",
        &[("frage", ColumnRole::Query), ("antwort", ColumnRole::Positive)],
    );
    assert_eq!(only(&raw.unwrap()), ("q", vec!["p"], vec![]));
    let raw = with_roles(
        "d.jsonl",
        b"{\"frage\":\"q\",\"passage\":\"p\",\"label\":3}",
        &[("frage", ColumnRole::Query), ("label", ColumnRole::Ignore)],
    );
    assert_eq!(only(&raw.unwrap()), ("q", vec!["p"], vec![]));
    assert_parts(
        &with_roles("e.jsonl", b"[\"q\",\"p\"]", &[("frage", ColumnRole::Query)]).unwrap_err().to_string(),
        &["e.jsonl, line 1", "named columns", "data.columns"],
    );
    let scores = [("ce", ColumnRole::Scores)];
    let raw = with_roles("f.csv", b"query,positive,negative_1,ce\nq,p,n,\"[3.5, -1]\"\n", &scores).unwrap();
    assert_eq!(raw.ready_made()[0].scores.as_deref(), Some([3.5, -1.0].as_slice()));
    for bad in ["\"[3.5, NaN]\"", "3.5", "\"[3.5, null]\""] {
        let content = format!("query,positive,negative_1,ce\nq,p,n,{bad}\n");
        assert_parts(
            &with_roles("f.csv", content.as_bytes(), &scores).unwrap_err().to_string(),
            &["f.csv, line 2", "scores"],
        );
    }
}

#[test]
fn bad_csv_and_lists_are_named() {
    assert_parts(
        &read("a.csv", "query,positive\nq\n").unwrap_err().to_string(),
        &["a.csv, line 2", "2 columns", "found 1"],
    );
    assert_parts(&read("b.csv", "").unwrap_err().to_string(), &["b.csv", "no rows"]);
    assert_parts(&read("c.csv", "query,positive\n").unwrap_err().to_string(), &["c.csv", "no rows"]);
    assert_parts(
        &read("d.json", "[[\"q\",\"p\"],\n[\"r\",").unwrap_err().to_string(),
        &["d.json", "JSON data is truncated", "line 2"],
    );
    assert_parts(
        &read("e.json", "[[\"q\",\"p\"], [\"r\", oops]]").unwrap_err().to_string(),
        &["e.json, record 2", "a JSON value"],
    );
    assert_parts(&read("f.json", "[]").unwrap_err().to_string(), &["f.json", "no rows"]);
    let folder = folder(&[("g.csv", b"query,positive\nq,caf\xe9\nr,s\n")]);
    let mut options = ReadOptions::default();
    let path = folder.path().join("g.csv");
    assert_parts(&read_training_data(&path, &options).unwrap_err().to_string(), &["g.csv, line 2, byte 4", "UTF-8"]);
    options.skip_bad_rows = true;
    let raw = read_training_data(&path, &options).unwrap();
    assert_eq!((raw.queries().len(), raw.bad_rows().total()), (1, 1));
}

#[test]
fn a_ten_megabyte_line_is_read_and_a_bad_one_has_a_short_message() {
    let long = "word ".repeat(2_000_000);
    assert_eq!(read("a.jsonl", &format!("[\"q\",\"{long}\"]\n")).unwrap().collection().text(0).len(), 10_000_000);
    for content in
        [format!("[\"q\",\"{long}]\n"), format!("{{\"{long}\":1}}\n"), long.clone(), format!("[\"{long}\",5]")]
    {
        let message = read("a.jsonl", &content).unwrap_err().to_string();
        assert_parts(&message, &["a.jsonl, line 1"]);
        assert!(message.len() < 1000, "{} bytes", message.len());
    }
}

const QUERIES: &[u8] = b"{\"query_id\":1,\"text\":\"q\"}\n{\"query_id\":\"2\",\"text\":\"r\"}\n";
const DOCUMENTS: &[u8] = b"{\"document_id\":10,\"text\":\"a\"}\n{\"document_id\":20,\"text\":\"b\"}\n{\"document_id\":30,\"title\":\"T\",\"text\":\"c\"}\n";

#[test]
fn pylate_tables() {
    let train = b"{\"query_id\":1,\"document_ids\":[20,10],\"scores\":[2.5,-1]}\n{\"query_id\":2,\"document_ids\":\"[30, 20]\",\"scores\":\"[0.5, 0.25]\"}\n";
    let files = folder(&[
        ("queries.jsonl", QUERIES),
        ("documents.jsonl.gz", &gzip(DOCUMENTS)),
        ("train/train-00000-of-00001.jsonl", train),
    ]);
    let raw = read_training_data(files.path(), &ReadOptions::default()).unwrap();
    assert_eq!(raw.collection().iter().collect::<Vec<_>>(), ["a", "b", "T c"]);
    let [first, second] = raw.ready_made() else { panic!("two examples") };
    assert_eq!((first.query, &first.documents[..], first.scores.as_deref()), (0, &[1, 0][..], Some(&[2.5, -1.0][..])));
    assert_eq!(
        (second.query, &second.documents[..], second.scores.as_deref()),
        (1, &[2, 1][..], Some(&[0.5, 0.25][..]))
    );
    assert_parts(
        raw.announcement(),
        &["tables queries, documents and train", "2 ready-made examples with teacher scores"],
    );

    let with = |train: &[u8]| {
        let files = folder(&[("queries.jsonl", QUERIES), ("documents.jsonl", DOCUMENTS), ("train.jsonl", train)]);
        read_training_data(files.path(), &ReadOptions::default()).unwrap_err().to_string()
    };
    assert_parts(
        &with(b"{\"query_id\":9,\"document_ids\":[10],\"scores\":[1]}"),
        &["train.jsonl, line 1, query_id", "`9`", "table queries"],
    );
    assert_parts(
        &with(b"{\"query_id\":1,\"document_ids\":[10,99],\"scores\":[1,2]}"),
        &["document_ids", "`99`", "table documents"],
    );
    assert_parts(&with(b"{\"query_id\":1,\"document_ids\":[10],\"scores\":[1,2]}"), &["1 documents", "found 2"]);
    assert_parts(&with(b"{\"query_id\":1,\"document_ids\":[10],\"scores\":[null]}"), &["scores", "finite", "null"]);
    assert_parts(&with(b"{\"query_id\":1,\"docs\":[10]}"), &["`query_id` and `document_ids`", "docs, query_id"]);
    assert_parts(
        &with(b"{\"query_id\":1,\"document_ids\":[10],\"scores\":[1]}\n{\"query_id\":1,\"document_ids\":[10]}"),
        &["line 2", "a row with scores"],
    );
    assert_parts(&with(b""), &["train", "no rows"]);
    let few = folder(&[("queries.jsonl", QUERIES)]);
    let pylate = ReadOptions { format: DataFormat::Pylate, ..ReadOptions::default() };
    assert_parts(
        &read_training_data(few.path(), &pylate).unwrap_err().to_string(),
        &["documents", "no such file", "document_id"],
    );
}

#[test]
fn a_folder_of_splits_is_read_by_the_split_and_never_as_a_whole() {
    let files = folder(&[
        ("data/train-00000-of-00002.jsonl", b"[\"q\",\"p\"]\n"),
        ("data/train-00001-of-00002.jsonl", b"[\"r\",\"s\"]\n"),
        ("data/test-00000-of-00001.jsonl", b"[\"t\",\"u\"]\n"),
    ]);
    let raw = read_training_data(files.path(), &ReadOptions::default()).unwrap();
    assert_eq!(raw.queries().iter().collect::<Vec<_>>(), ["q", "r"]);
    assert_parts(raw.announcement(), &["train-00000-of-00002.jsonl and 1 more parts", "2 pairs"]);
    let two = folder(&[("train.jsonl", b"[\"q\",\"p\"]\n"), ("train.csv", b"query,positive\nq,p\n")]);
    assert_parts(
        &read_training_data(two.path(), &ReadOptions::default()).unwrap_err().to_string(),
        &["files of one kind", "train.csv"],
    );
}

#[test]
fn documents_come_from_lists_and_tables_too() {
    let files = folder(&[
        ("a.json", b"[\"one\", {\"content\": \"two\"}]"),
        ("b.csv", b"id,title,text\n1,T,three\n"),
        ("c.json", b"[\"one\", 5]"),
        ("d.csv", b"id,stuff,remark\n1,x,y\n"),
        ("e.txt", b"plain line\nand another\n"),
    ]);
    let mut raw = RawData::from_pairs([("q", "p")]).unwrap();
    let mut add = |name: &str| read_documents(&files.path().join(name), &ReadOptions::default(), &mut raw);
    assert_parts(&add("a.json").unwrap(), &["JSON list, 2 documents"]);
    assert_parts(&add("b.csv").unwrap(), &["CSV", "1 documents"]);
    assert_parts(&add("e.txt").unwrap(), &["2 documents"]);
    assert_parts(&add("c.json").unwrap_err().to_string(), &["c.json, record 2", "found 5"]);
    assert_parts(
        &add("d.csv").unwrap_err().to_string(),
        &["d.csv, line 1", "`id`, `stuff`, `remark`", "call the one that is meant `text`"],
    );
    assert_eq!(
        raw.collection().iter().collect::<Vec<_>>(),
        ["p", "one", "two", "T three", "plain line", "and another"]
    );
}

#[test]
fn bad_lines_of_a_beir_folder_can_be_left_out() {
    let files = folder(&[
        ("corpus.jsonl.gz", &gzip(b"{\"_id\":\"d1\",\"text\":\"a\"}\n{\"id\":3}\n{\"_id\":\"d2\",\"text\":\"b\"}\n{\"_id\":\"d2\",\"text\":\"c\"}\n")),
        ("queries.jsonl", b"{\"_id\":\"q1\",\"text\":\"what\"}\nnot json\n"),
        ("qrels/train.tsv", b"query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td9\t1\nq9\td1\t1\nq1\td2\n"),
    ]);
    assert!(read_training_data(files.path(), &ReadOptions::default()).is_err());
    let options = ReadOptions { skip_bad_rows: true, ..ReadOptions::default() };
    let raw = read_training_data(files.path(), &options).unwrap();
    assert_eq!(only(&raw), ("what", vec!["a"], vec![]));
    assert_eq!(raw.bad_rows().total(), 6);
    let kinds: Vec<_> = raw.bad_rows().by_kind.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    assert_eq!(kinds, [("malformed row", 3), ("duplicate id", 1), ("unknown id", 2)]);
    assert_eq!(BeirFolder::open_with(files.path(), &options).unwrap().evaluation("train").unwrap().judgements.len(), 1);
}

//! Every layout in, and the reference's files out and in again.

use colbert_config::DataFormat;
use colbert_data::{
    BeirFolder, PrepareOptions, RawData, ReadOptions, ReferenceFiles, export_reference, import_reference, prepare,
    read_evaluation_set, read_training_data,
};

use crate::support::{assert_parts, folder, in_words, listing, many, read};

/// (query, positives, negatives) as texts.
type Grouped<'a> = (&'a str, Vec<&'a str>, Vec<&'a str>);

fn grouped(raw: &RawData) -> Vec<Grouped<'_>> {
    let texts = |pids: &[u32]| pids.iter().map(|&pid| raw.collection().text(pid)).collect();
    (0..raw.queries().len() as u32)
        .map(|qid| (raw.queries().text(qid), texts(raw.positives(qid)), texts(raw.negatives(qid))))
        .collect()
}

#[test]
fn every_row_layout_says_the_same() {
    let expected = vec![("q", vec!["p"], vec!["n"])];
    let layouts = [
        ("a.jsonl", "[\"q\",\"p\",1]\n[\"q\",\"n\",0]\n", "JSONL, 2 labelled pairs, [query, document, label]"),
        ("b.jsonl", "[\"q\",\"p\",\"n\"]\n", "JSONL, 1 triplets, [query, positive, negative]"),
        ("c.jsonl", "[\"q\",[\"p\"],[{\"content\":\"n\"}]]\n", "triplets"),
        ("d.jsonl", "{\"query\":\"q\",\"positive\":\"p\",\"negatives\":[\"n\"],\"id\":7}\n", "not used: id"),
        ("e.jsonl", "{\"anchor\":\"q\",\"positive\":\"p\",\"negative_1\":\"n\"}\n", "query = anchor"),
        (
            "f.jsonl",
            "{\"question\":\"q\",\"passage\":\"p\",\"label\":1.0}\n{\"question\":\"q\",\"passage\":\"n\",\"label\":\"0\"}\n",
            "document = passage, label = label, 1 positive and 0 negative",
        ),
        ("g.tsv", "q\tp\t1\r\nq\tn\t0\r\n", "TSV, 2 labelled pairs"),
        ("h.tsv", "q\tp\tn\n", "TSV, 1 triplets"),
        (
            "i.tsv",
            "Query\tnegative\tpositive\nq\tn\tp\n",
            "TSV with a header, 1 triplets, query = Query, positive = positive",
        ),
        ("j.data", "q\tp\tn", "TSV, 1 triplets"),
    ];
    for (name, content, announced) in layouts {
        let raw = read(name, content).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(grouped(&raw), expected, "{name}");
        assert_parts(raw.announcement(), &[name, announced]);
    }
    assert_eq!(grouped(&read("k.jsonl", "[\"q\",[\"p1\",\"p2\"]]\n").unwrap()), [("q", vec!["p1", "p2"], vec![])]);
    assert_eq!(grouped(&read("l.tsv", "q\tp\n\nq\tp2\n").unwrap()), [("q", vec!["p", "p2"], vec![])]);
}

#[test]
fn scored_rows_are_examples() {
    for content in [
        "{\"query\":\"q\",\"documents\":[\"a\",\"b\"],\"scores\":[0.5,-1]}",
        "{\"query\":\"q\",\"positive\":\"a\",\"negatives\":[\"b\"],\"scores\":[0.5,-1]}",
        "[\"q\",[\"a\",\"b\"],[0.5,-1]]",
    ] {
        let raw = read("scored.jsonl", content).unwrap();
        assert_eq!(raw.ready_made()[0].scores.as_deref(), Some([0.5, -1.0].as_slice()), "{content}");
        assert_parts(raw.announcement(), &["1 n-way examples with teacher scores"]);
    }
}

#[test]
fn an_explicit_format_decides_where_content_leaves_room() {
    let folder = folder(&[("rows.jsonl", b"[\"q\",\"p\",\"1\"]\n")]);
    let path = folder.path().join("rows.jsonl");
    let with = |format| read_training_data(&path, &ReadOptions { format, ..ReadOptions::default() });
    assert_eq!(grouped(&with(DataFormat::Auto).unwrap()), [("q", vec!["p"], vec![])]);
    assert_eq!(grouped(&with(DataFormat::Triplets).unwrap()), [("q", vec!["p"], vec!["1"])]);
    assert_parts(
        &with(DataFormat::Pairs).unwrap_err().to_string(),
        &["rows.jsonl, line 1", "expected pairs", "data.format", "found labelled pairs"],
    );
}

const CORPUS: &[u8] = b"{\"_id\":\"d1\",\"title\":\"Tor\",\"text\":\"a hill\"}\n{\"_id\":\"d2\",\"text\":\"a bog\"}\n\
    {\"_id\":\"d3\",\"title\":\"\",\"text\":\"a bog\"}\n{\"_id\":\"d4\",\"title\":\"\",\"text\":\"\"}\n";
const QUERIES: &[u8] = b"{\"_id\":\"q1\",\"text\":\"what is a tor\"}\n{\"_id\":\"q2\",\"text\":\"what is wet\"}\n{\"_id\":\"q3\",\"text\":\"unused\"}\n";

#[test]
fn beir_folder() {
    let folder = folder(&[
        ("corpus.jsonl", CORPUS),
        ("queries.jsonl", QUERIES),
        ("qrels/train.tsv", b"query-id\tcorpus-id\tscore\nq2\td3\t2\nq1\td1\t1\nq1\td2\t0\n"),
        ("qrels/dev.tsv", b"query-id\tcorpus-id\tscore\nq2\td2\t2\nq1\td1\t0\n"),
    ]);
    let raw = read_training_data(folder.path(), &ReadOptions::default()).unwrap();
    assert_eq!(
        grouped(&raw),
        [("what is wet", vec!["a bog"], vec![]), ("what is a tor", vec!["Tor a hill"], vec!["a bog"])]
    );
    assert_eq!(raw.counts().empty_documents, 1);
    assert_parts(
        raw.announcement(),
        &["BEIR folder", "3 judgements of split train", "2 documents", "1 ids merged", "1 without text"],
    );

    let beir = BeirFolder::open(folder.path()).unwrap();
    assert_eq!(beir.splits().unwrap(), ["dev", "train"]);
    let dev = beir.evaluation("dev").unwrap();
    assert_eq!(dev, read_evaluation_set(folder.path(), "dev").unwrap());
    assert_eq!(dev.queries.iter().collect::<Vec<_>>(), ["what is wet"], "q1 has no relevant document in dev");
    assert_eq!(dev.judgements.of(0), [(1, 2)]);
    assert_eq!(dev.collection.pid_of_id("d3"), dev.collection.pid_of_id("d2"));
    assert_parts(&beir.evaluation("test").unwrap_err().to_string(), &["test.tsv", "split `test`", "there: dev, train"]);
}

#[test]
fn the_reference_files_come_back_as_they_went() {
    for options in [PrepareOptions::default(), PrepareOptions { nway: 4, ..PrepareOptions::default() }] {
        let (set, _) = prepare(many(40), &options, None).unwrap();
        let folder = folder(&[]);
        let files = export_reference(&set, folder.path()).unwrap();
        assert_eq!(listing(folder.path()).len(), 3, "nothing else is left in the folder");
        let raw = read_training_data(folder.path(), &ReadOptions::default()).unwrap();
        assert_parts(raw.announcement(), &["the reference's training files", "40 queries"]);
        let (back, _) = prepare(raw, &options, None).unwrap();
        assert_eq!(back.examples, set.examples);
        assert!(back.queries.iter().eq(set.queries.iter()) && back.collection.iter().eq(set.collection.iter()));
        let first = std::fs::read_to_string(files.triples).unwrap();
        let ids: Vec<u32> = serde_json::from_str(first.lines().next().unwrap()).unwrap();
        assert_eq!(ids.len(), options.nway + 1);
    }
}

#[test]
fn scored_examples_come_back_to_the_last_bit() {
    let scores = vec![0.1_f32, -1.0e-7, f32::MAX];
    let raw = RawData::from_scored([("q", vec!["a", "b", "c"], scores.clone())]).unwrap();
    let options = PrepareOptions { nway: 3, ..PrepareOptions::default() };
    let (set, _) = prepare(raw, &options, None).unwrap();
    let folder = folder(&[]);
    let files = export_reference(&set, folder.path()).unwrap();
    assert!(std::fs::read_to_string(&files.triples).unwrap().starts_with("[0,[0,0.1],[1,-0.0000001],[2,"));
    let raw = import_reference(&files, &ReadOptions::default()).unwrap();
    assert_eq!(raw.ready_made()[0].scores.as_ref(), Some(&scores));
}

#[test]
fn colbert_ai_files_with_header_title_and_scores() {
    let folder = folder(&[
        ("queries.train.colbert.tsv", b"10\tfirst query\tignored\n7\tsecond query\n"),
        ("corpus.train.colbert.tsv", b"id\ttext\ttitle\n0\thill\tTor\n1\tbog\n2\tdam\t\n"),
        ("triples.train.colbert.jsonl", b"[7,[1,2.5],[0,-1]]\n[10,[2,1],[1,0.5]]\n"),
    ]);
    let raw = import_reference(&ReferenceFiles::in_folder(folder.path()), &ReadOptions::default()).unwrap();
    assert_eq!(raw.collection().iter().collect::<Vec<_>>(), ["Tor | hill", "bog", "dam"]);
    assert_eq!(raw.queries().iter().collect::<Vec<_>>(), ["first query", "second query"]);
    assert_eq!((raw.ready_made()[0].query, &raw.ready_made()[0].documents[..]), (1, &[1, 0][..]));
}

#[test]
fn nothing_is_written_where_writing_fails() {
    let (set, _) = prepare(many(10), &PrepareOptions::default(), None).unwrap();
    let folder = folder(&[("file", b"")]);
    let error = export_reference(&set, &folder.path().join("file/inside")).unwrap_err().to_string();
    assert_parts(&error, &["file/inside", "writing failed"]);
    // A folder under the name of the last file: the rename fails, and no temporary file stays.
    std::fs::create_dir_all(folder.path().join("out/queries.train.colbert.tsv/x")).unwrap();
    assert!(export_reference(&set, &folder.path().join("out")).is_err());
    assert_eq!(listing(&folder.path().join("out")).len(), 1);
}

/// As when the process is killed between two of the files: the rename of the second fails.
#[test]
fn an_export_that_ends_in_between_leaves_nothing_that_reads_as_data() {
    let (old, _) = prepare(many(10), &PrepareOptions::default(), None).unwrap();
    let (new, _) = prepare(many(20), &PrepareOptions::default(), None).unwrap();
    let folder = folder(&[]);
    let files = export_reference(&old, folder.path()).unwrap();
    assert_parts(&ReferenceFiles::refuse_earlier(folder.path()).unwrap_err().to_string(), &["triples", "--overwrite"]);
    let corpus = std::fs::read(&files.collection).unwrap();
    std::fs::remove_file(&files.collection).unwrap();
    std::fs::create_dir_all(files.collection.join("in the way")).unwrap();
    export_reference(&new, folder.path()).unwrap_err();
    // New queries stand beside the old corpus.
    std::fs::remove_dir_all(&files.collection).unwrap();
    std::fs::write(&files.collection, corpus).unwrap();
    assert_eq!(std::fs::read_to_string(&files.queries).unwrap().lines().count(), 20);
    let error = read_training_data(folder.path(), &ReadOptions::default()).unwrap_err().to_string();
    assert_parts(&error, &["a folder with neither"]);
    export_reference(&new, folder.path()).unwrap();
    read_training_data(folder.path(), &ReadOptions::default()).unwrap();
    ReferenceFiles::refuse_earlier(&folder.path().join("free")).unwrap();
}

#[test]
fn rows_of_one_scored_document_become_an_example_for_each_query() {
    let named = "{\"query\":\"q\",\"document\":\"a\",\"score\":0.5}\n{\"query\":\"r\",\"document\":\"b\",\"score\":1}\n\
                 {\"query\":\"q\",\"document\":\"b\",\"score\":2.5}\n{\"query\":\"q\",\"document\":\"c\",\"score\":0.5}\n\
                 {\"query\":\"q\",\"document\":\"c\",\"score\":0.5}\n{\"query\":\"r\",\"document\":\"a\",\"score\":-3}\n\
                 {\"query\":\"s\",\"document\":\"a\",\"score\":1}\n";
    let csv = "question,passage,score\nq,a,0.5\nr,b,1\nq,b,2.5\nq,c,0.5\nq,c,0.5\nr,a,-3\ns,a,1\n";
    let arrays = "[\"q\",\"a\",0.5]\n[\"r\",\"b\",1]\n[\"q\",\"b\",2.5]\n[\"q\",\"c\",0.5]\n[\"q\",\"c\",0.5]\n\
                  [\"r\",\"a\",-3]\n[\"s\",\"a\",1]\n";
    let folder = folder(&[
        ("named.jsonl", named.as_bytes()),
        ("cells.csv", csv.as_bytes()),
        ("arrays.jsonl", arrays.as_bytes()),
    ]);
    for (name, format) in
        [("named.jsonl", DataFormat::Auto), ("cells.csv", DataFormat::Auto), ("arrays.jsonl", DataFormat::Scored)]
    {
        let options = ReadOptions { format, ..ReadOptions::default() };
        let raw = read_training_data(&folder.path().join(name), &options).unwrap();
        assert_eq!((raw.counts().scored_pairs, raw.counts().duplicates), (7, 1), "{name}");
        let words = ["7 documents with a teacher score, one example for each query"];
        assert_parts(raw.announcement(), &words);
        assert_eq!(raw.ready_made()[0].scores.as_deref(), Some(&[2.5, 0.5, 0.5][..]));
        let (set, report) = prepare(raw, &PrepareOptions::default(), None).unwrap();
        assert_eq!(in_words(&set), [["q", "b", "a"], ["r", "b", "a"]], "{name}");
        assert_eq!((report.cut_to_nway, report.short_of_scored), (1, 1));
        assert!(set.positives.is_positive(0, set.examples[0].documents[0]));
    }
    let error = RawData::from_scored_pairs([("q", "a", 1.0), ("q", "a", 2.0)]).unwrap_err().to_string();
    assert_parts(&error, &["row 2", "one score for a query and a document, 1", "found 2"]);
    let error = RawData::from_scored_pairs([("q", "a", f32::NAN)]).unwrap_err().to_string();
    assert_parts(&error, &["row 1, scores", "finite", "NaN"]);
    let lonely = RawData::from_scored_pairs([("q", "a", 1.0), ("r", "a", 2.0)]).unwrap();
    let error = prepare(lonely, &PrepareOptions::default(), None).unwrap_err().to_string();
    assert_parts(&error, &["no query has the 2 scored documents", "give at least two scored documents of each query"]);
}

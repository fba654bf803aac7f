//! Shapes of files that are read: forms of JSON, of cells and of bytes, and columns under many names.

use colbert_config::{ColumnRoles, DataFormat};
use colbert_data::{DataError, DataReport, RawData, ReadOptions, Side, read_texts, read_training_data};
use proptest::prelude::*;

use crate::support::{assert_parts, folder, read};

/// Everything that is known of each query: its text, positives, negatives.
fn says(raw: &RawData) -> Vec<(String, Vec<String>, Vec<String>)> {
    let text = |pid: &u32| raw.collection().text(*pid).to_owned();
    let of = |(query, qid): (&str, u32)| {
        let all = |pids: &[u32]| pids.iter().map(text).collect::<Vec<_>>();
        (query.to_owned(), all(raw.positives(qid)), all(raw.negatives(qid)))
    };
    raw.queries().iter().zip(0..).map(of).collect()
}

fn entry(query: &str, positives: &[&str], negatives: &[&str]) -> (String, Vec<String>, Vec<String>) {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    (query.to_owned(), owned(positives), owned(negatives))
}

fn read_bytes(name: &str, content: &[u8]) -> Result<RawData, DataError> {
    let folder = folder(&[(name, content)]);
    read_training_data(&folder.path().join(name), &ReadOptions::default())
}

#[test]
fn dpr_and_ms_marco_rows_are_read() {
    let raw = read(
        "dpr.json",
        r#"[{"dataset": "nq", "question": "what is a tor", "answers": ["hill"],
            "positive_ctxs": [{"title": "Tor", "text": "A rocky hill.", "score": 1000, "passage_id": "7"}],
            "negative_ctxs": [], "hard_negative_ctxs": [{"title": "Fen", "text": "Wet land.", "passage_id": "8"}]}]"#,
    );
    assert_eq!(says(&raw.unwrap()), [entry("what is a tor", &["Tor A rocky hill."], &["Fen Wet land."])]);
    // A passage that says itself that it is not the right one is none.
    let raw = read(
        "marco.jsonl",
        r#"{"query": "what is a tor", "passages": [{"is_selected": 0, "passage_text": "Wet land."}, {"is_selected": 1, "passage_text": "A hill."}]}"#,
    );
    assert_eq!(says(&raw.unwrap()), [entry("what is a tor", &["A hill."], &["Wet land."])]);
    let raw = read(
        "hub.jsonl",
        r#"{"query": "what is a tor", "passages": {"is_selected": [0, 1], "passage_text": ["Wet land.", "A hill."], "url": ["x", "y"]}}"#,
    );
    assert_eq!(says(&raw.unwrap()), [entry("what is a tor", &["A hill."], &["Wet land."])]);
}

#[test]
fn csv_without_a_header_is_read_where_its_first_line_is_a_row() {
    let lines = |row: &dyn Fn(usize) -> String| (1..7).map(row).collect::<String>();
    let text = |number: usize| format!("Subject {number} is a thing that a chapter describes.");
    let pairs = lines(&|row| format!("what is {row}?,\"{}\"\n", text(row)));
    let raw = read("pairs.csv", &pairs).unwrap();
    assert!(raw.announcement().contains("CSV without a header, separated by `,`, 6 pairs"), "{}", raw.announcement());
    assert_eq!(says(&raw)[0], entry("what is 1?", &[&text(1)], &[]));
    let labelled = lines(&|row| format!("what is {}?;{};{}\r\n", row / 2, text(row), row % 2));
    let raw = read("labelled.csv", &format!("sep=;\r\n{labelled}")).unwrap();
    assert_eq!(says(&raw)[1], entry("what is 1?", &[&text(3)], &[&text(2)]));
    let triplets = lines(&|row| format!("what is {row}?,{},{}\n", text(row), text(row + 9)));
    assert_eq!(says(&read("triplets.csv", &triplets).unwrap())[5], entry("what is 6?", &[&text(6)], &[&text(15)]));
    // Headings that are no names stay a header: which column is which is asked for.
    let headed = format!("\"Your question (please!)\",\"The answer (in short)\"\n{pairs}");
    let error = read("survey.csv", &headed).unwrap_err().to_string();
    assert!(error.contains("none of the columns is the query"), "{error}");
}

#[test]
fn grades_of_relevance_above_zero_are_positives() {
    let rows = |name: &str| {
        let lines = [("a", 2), ("b", 1), ("c", 0), ("d", -1)];
        let lines = lines.map(|(text, grade)| format!("what is a tor?,a long text about {text} and more,{grade}\n"));
        format!("query,passage,{name}\n{}", lines.concat())
    };
    let long = |text: &str| format!("a long text about {text} and more");
    for name in ["relevance", "Relevancy", "grade", "judgement"] {
        let raw = read("grades.csv", &rows(name)).unwrap();
        assert!(raw.announcement().contains("grades above 0 positive"), "{}", raw.announcement());
        let expected = entry("what is a tor?", &[&long("a"), &long("b")], &[&long("c"), &long("d")]);
        assert_eq!(says(&raw), [expected], "{name}");
    }
    // Numbers under another name are classes, such as those of entailment.
    let error = read("classes.csv", &rows("label")).unwrap_err().to_string();
    assert!(error.contains("found `2`"), "{error}");
}

#[test]
fn refusals_say_what_a_table_is() {
    let rows = |row: &dyn Fn(usize) -> String| (0..4).map(row).collect::<String>();
    let text = |number: usize| format!("Subject {number} is a thing that a chapter describes.");
    let cases: [(&str, String, &[&str]); 6] = [
        (
            "no-header.csv",
            rows(&|row| format!("\"what is {row}?\",\"{0}\",\"{0}\",\"see {row}!\"\n", text(row))),
            &["line 1", "looks like a row"],
        ),
        (
            "ids.jsonl",
            rows(&|row| format!("{{\"qid\": \"q{row}\", \"pos\": \"d{row}\", \"neg\": \"e{row}\"}}\n")),
            &["`neg` and `pos` and `qid` are ids", "BEIR folder"],
        ),
        (
            "ragas.jsonl",
            rows(&|row| {
                format!(
                    "{{\"user_input\": \"what is the subject of {row}?\", \"retrieved_contexts\": [\"{}\"], \"reference\": \"chapter\"}}\n",
                    text(row)
                )
            }),
            &["user_input=query, retrieved_contexts=document"],
        ),
        (
            "twice.csv",
            format!(
                "query,passage,passage\n{}",
                rows(&|row| format!("what is {row}?,{},{}\n", text(row), text(row + 9)))
            ),
            &["`passage` and `passage` could each be the document"],
        ),
        ("run.txt", rows(&|row| format!("q{row} Q0 d{row} 1 12.5 bm25\n")), &["TREC", "BEIR folder"]),
        (
            "nli.jsonl",
            rows(&|row| {
                format!(
                    "{{\"sentence1\": \"what is {row}?\", \"sentence2\": \"{}\", \"label\": \"entailment\"}}\n",
                    text(row)
                )
            }),
            &["none of the columns is the query", "with data.columns (roles"],
        ),
    ];
    for (name, content, parts) in cases {
        let message = read(name, &content).unwrap_err().to_string();
        assert_parts(&message, parts);
        if let Some(outcome) = followed(name, &content, &message) {
            outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

#[test]
fn flag_embedding_with_teacher_scores_gives_an_example_for_each_positive() {
    let rows = r#"{"query": "a query", "pos": ["a", "b"], "neg": ["c", "d"], "pos_scores": [0.9, 0.8], "neg_scores": [0.1, 0.2], "prompt": "x"}"#;
    let raw = read("flag.jsonl", rows).unwrap();
    assert_parts(raw.announcement(), &["teacher scores = pos_scores + neg_scores"]);
    let examples: Vec<_> =
        raw.ready_made().iter().map(|example| (example.documents.clone(), example.scores.clone().unwrap())).collect();
    let pid = |text: &str| raw.collection().pid_of_text(text).unwrap();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(pid);
    assert_eq!(examples, [(vec![a, c, d], vec![0.9, 0.1, 0.2]), (vec![b, c, d], vec![0.8, 0.1, 0.2])]);
    assert_eq!(raw.positives(0), [a, b]);
    let error = read("flag.jsonl", &rows.replace("[0.1, 0.2]", "[0.1]")).unwrap_err().to_string();
    assert_parts(&error, &["line 1, scores", "2 documents", "found 1"]);
    let plain = rows.replace("[0.9, 0.8]", "null").replace("[0.1, 0.2]", "null");
    assert_eq!(says(&read("flag.jsonl", &plain).unwrap()), [entry("a query", &["a", "b"], &["c", "d"])]);
}

#[test]
fn llama_index_squad_and_pandas_are_read_whole() {
    let raw = read(
        "pairs.json",
        r#"{"queries": {"u1": "what is a tor"}, "corpus": {"n1": "A hill.", "n2": "Wet land."}, "relevant_docs": {"u1": ["n1"]}, "mode": "text"}"#,
    )
    .unwrap();
    assert_eq!(says(&raw), [entry("what is a tor", &["A hill."], &[])]);
    assert_eq!(raw.collection().len(), 2, "documents of no query are there to draw negatives from");
    assert_parts(raw.announcement(), &["LlamaIndex"]);
    let error = read("pairs.json", r#"{"queries": {"u1": "q"}, "corpus": {}, "relevant_docs": {"u1": ["n9"]}}"#);
    assert_parts(&error.unwrap_err().to_string(), &["relevant_docs", "`n9`", "`corpus` of the file"]);

    let squad = r#"{"version": "v2.0", "data": [{"title": "x", "paragraphs": [{"context": "A tor is a hill.", "qas": [
        {"id": "1", "question": "what is a tor", "is_impossible": false, "answers": [{"text": "a hill", "answer_start": 9}]},
        {"id": "2", "question": "what is a fen", "is_impossible": true, "answers": []}]}]}]}"#;
    let expected =
        [entry("what is a tor", &["A tor is a hill."], &[]), entry("what is a fen", &[], &["A tor is a hill."])];
    assert_eq!(says(&read("squad.json", squad).unwrap()), expected);
    assert_eq!(says(&read("squad.json", &squad.replace('\n', "")).unwrap()), expected);

    let rows = [entry("q1 text", &["p one"], &[]), entry("q2 text", &["p two"], &[])];
    for content in [
        r#"{"query": {"0": "q1 text", "1": "q2 text"}, "positive": {"0": "p one", "1": "p two"}}"#,
        r#"{"0": {"query": "q1 text", "positive": "p one"}, "1": {"query": "q2 text", "positive": "p two"}}"#,
        r#"{"columns": ["query", "positive"], "index": [0, 1], "data": [["q1 text", "p one"], ["q2 text", "p two"]]}"#,
        r#"{"query": ["q1 text", "q2 text"], "positive": ["p one", "p two"]}"#,
        r#"{"version": 1, "data": [{"query": "q1 text", "positive": "p one"}, {"query": "q2 text", "positive": "p two"}]}"#,
        "{\n\"query\": \"q1 text\",\n\"positive\": \"p one\"}\n{\n\"query\": \"q2 text\", \"positive\": \"p two\"\n}\n",
    ] {
        assert_eq!(says(&read("rows.json", content).unwrap()), rows, "{content}");
    }
    // A file of one row is that row.
    let one = r#"{"query": "q1 text", "positive": ["p one"], "negative": ["p two"]}"#;
    assert_eq!(says(&read("one.json", one).unwrap()), [entry("q1 text", &["p one"], &["p two"])]);
}

#[test]
fn cells_are_unquoted_by_every_convention() {
    let expected = [entry("what is \"it\"", &["this, and that"], &[])];
    for (name, content) in [
        ("plain.csv", "question,answer\n\"what is \"\"it\"\"\",\"this, and that\"\n"),
        ("spaces.csv", "question, answer\n\"what is \"\"it\"\"\", \"this, and that\"\n"),
        ("escapes.csv", "question,answer\n\"what is \\\"it\\\"\",\"this, and that\"\n"),
        ("semicolons.csv", "question;answer\n\"what is \"\"it\"\"\";this, and that\n"),
        ("sep.csv", "sep=;\r\nquestion;answer\r\n\"what is \"\"it\"\"\";this, and that\r\n"),
        ("tabs.tsv", "question\tanswer\n\"what is \"\"it\"\"\"\tthis, and that\n"),
        ("header-less.tsv", "\"what is \"\"it\"\"\"\tthis, and that\n"),
        ("raw.tsv", "what is \"it\"\tthis, and that\n"),
    ] {
        let raw = read(name, content).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(says(&raw), expected, "{name}");
    }
    // Quotation marks of a TSV that are those of the text stay.
    let raw = read("hamlet.tsv", "\"To be\" is whose line\tHamlet's\nwho is it\ta \"prince\"\n").unwrap();
    assert_eq!(raw.queries().text(0), "\"To be\" is whose line");
    // A line break within a cell, and a bad row after it.
    let error = read("lines.tsv", "question\tanswer\n\"one\ntwo\"\tp\nthree\t \n").unwrap_err().to_string();
    assert_parts(&error, &["lines.tsv, line 4", "white space"]);
}

#[test]
fn utf_16_is_read_with_and_without_its_mark() {
    let text = "question\tanswer\r\nwas ist größer 🜁\tdas hier\r\n";
    let units: Vec<u16> = text.encode_utf16().collect();
    let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
    let expected = [entry("was ist größer 🜁", &["das hier"], &[])];
    for bytes in [[&b"\xff\xfe"[..], &little].concat(), [&b"\xfe\xff"[..], &big].concat(), little.clone(), big] {
        assert_eq!(says(&read_bytes("faq.tsv", &bytes).unwrap()), expected);
        assert_eq!(says(&read_bytes("faq.csv", &bytes).unwrap()), expected);
    }
    let cut = [&b"\xff\xfe"[..], &little[..little.len() - 1]].concat();
    assert_parts(&read_bytes("faq.tsv", &cut).unwrap_err().to_string(), &["faq.tsv", "UTF-16"]);
}

#[test]
fn folders_that_are_nearly_beir_are_read_or_named() {
    let corpus: &[u8] = b"{\"_id\": \"d1\", \"text\": \"a hill\"}\n{\"_id\": \"d2\", \"text\": \"wet land\"}\n";
    let queries: &[u8] = b"{\"_id\": \"q1\", \"text\": \"what is a tor\"}\n";
    for (name, content) in [
        ("qrels/train.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\n"),
        ("qrels/train.txt", "q1 0 d1 1\n"),
        ("qrels.tsv", "q1\t0\td1\t1\n"),
        ("qrels.train.tsv", "q1\td1\t1\n"),
        ("qrels.txt", "q1 Q0 d1 1\nq1 Q0 d2 0\n"),
    ] {
        let folder = folder(&[("corpus.jsonl", corpus), ("queries.jsonl", queries), (name, content.as_bytes())]);
        let raw = read_training_data(folder.path(), &ReadOptions::default())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(raw.positives(0), [0], "{name}");
    }
    let mixed = folder(&[
        ("corpus.jsonl", corpus),
        ("queries.jsonl", queries),
        ("qrels/train.tsv", b"q1\t0\td1\t1\nq1\td1\t1\n"),
    ]);
    let error = read_training_data(mixed.path(), &ReadOptions::default()).unwrap_err().to_string();
    assert_parts(&error, &["train.tsv, line 2", "as in the lines before", "found 3 columns"]);
    let marco = folder(&[
        ("collection.tsv", b"7\tA hill.\n"),
        ("queries.train.tsv", b"1\twhat is a tor\n"),
        ("qrels.train.tsv", b"1\t0\t7\t1\n"),
    ]);
    let error = read_training_data(marco.path(), &ReadOptions::default()).unwrap_err().to_string();
    assert_parts(&error, &["collection.tsv", "qrels.train.tsv", "corpus.jsonl", "queries.jsonl"]);
}

/// Ids that have no form of their own are found in the files that they are ids of.
#[test]
fn ids_are_found_by_looking_them_up() {
    let files = folder(&[
        ("corpus.jsonl", b"{\"_id\": \"tor\", \"text\": \"a hill\"}\n{\"_id\": \"fen\", \"text\": \"wet land\"}\n"),
        ("queries.jsonl", b"{\"_id\": \"what\", \"text\": \"q\"}\n{\"_id\": \"where\", \"text\": \"r\"}\n"),
        ("qrels/train.tsv", b"what\ttor\nwhere\tfen\n"),
    ]);
    let path = files.path().join("qrels/train.tsv");
    let error = read_training_data(&path, &ReadOptions::default()).unwrap_err().to_string();
    assert_parts(&error, &["ids of", "queries.jsonl"]);
    // Who says that these are texts is believed, with a word in the report.
    let ids = folder(&[("ids.tsv", b"q1\td1\nq2\td2\n")]);
    let options = ReadOptions { format: DataFormat::Pairs, ..ReadOptions::default() };
    let raw = read_training_data(&ids.path().join("ids.tsv"), &options).unwrap();
    assert!(DataReport::new(&raw, None).findings.iter().any(|finding| finding.name == "ids_as_texts"));
}

#[test]
fn several_sources_are_one_data_set() {
    let files = folder(&[
        ("a.jsonl", b"[\"q\", \"p\"]\n[\"r\", \"s\"]\n"),
        ("b.csv", b"query,passage,label\nr,t,1\nq,s,0\nq,p,1\n"),
        ("beir/corpus.jsonl", b"{\"_id\": \"d1\", \"text\": \"s\"}\n{\"_id\": \"d2\", \"text\": \"u\"}\n"),
        ("beir/queries.jsonl", b"{\"_id\": \"q1\", \"text\": \"v\"}\n"),
        ("beir/qrels/train.tsv", b"q1\td1\t1\n"),
    ]);
    let path = |name: &str| files.path().join(name);
    let options = ReadOptions::default();
    let mut raw = RawData::default();
    for name in ["a.jsonl", "b.csv", "beir"] {
        raw.merge(read_training_data(&path(name), &options).unwrap()).unwrap();
    }
    let expected = [entry("q", &["p"], &["s"]), entry("r", &["s", "t"], &[]), entry("v", &["s"], &[])];
    assert_eq!(says(&raw), expected);
    assert_eq!((raw.counts().pairs, raw.counts().labelled_pairs, raw.counts().judgements), (2, 3, 1));
    assert_eq!(raw.collection().iter().collect::<Vec<_>>(), ["p", "s", "t", "u"]);
    assert_eq!(raw.collection().id(1), Some("d1"));
    assert_parts(raw.announcement(), &["a.jsonl: JSONL, 2 pairs", "; ", "b.csv", "BEIR folder"]);
    let mut alone = RawData::default();
    alone.merge(read_training_data(&path("a.jsonl"), &options).unwrap()).unwrap();
    assert_eq!(alone.announcement(), read_training_data(&path("a.jsonl"), &options).unwrap().announcement());
}

fn sentence() -> impl Strategy<Value = String> {
    let words = ["tor", "fen", "river", "hill", "moor", "weir", "what", "is", "why", "long", "wet"];
    prop::collection::vec(prop::sample::select(words.to_vec()), 3..9).prop_map(|words| words.join(" "))
}

fn id() -> impl Strategy<Value = String> {
    prop::string::string_regex("[a-zA-Z]{0,6}[-_]?[0-9]{1,6}").unwrap()
}

/// A table as CSV or TSV, with a header.
fn table(names: &[&str], rows: &[Vec<String>], tabs: bool) -> String {
    let separator = if tabs { "\t" } else { "," };
    let mut lines = vec![names.join(separator)];
    lines.extend(rows.iter().map(|row| row.join(separator)));
    lines.join("\n") + "\n"
}

/// Follows the suggestion of a refusal, if it has one.
fn followed(name: &str, content: &str, message: &str) -> Option<Result<RawData, DataError>> {
    let (_, rest) = message.split_once("such as \"")?;
    let roles = rest.split_once('"').unwrap().0.parse::<ColumnRoles>().unwrap().0;
    let folder = folder(&[(name, content.as_bytes())]);
    Some(read_training_data(&folder.path().join(name), &ReadOptions { roles, ..ReadOptions::default() }))
}

fn name_of_file(tabs: bool) -> &'static str {
    if tabs { "t.tsv" } else { "t.csv" }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any table with a column of ids: its ids are texts of no query and no document, unless the report says so.
    #[test]
    fn no_table_yields_ids_as_texts_without_a_word(
        rows in prop::collection::vec((id(), id(), sentence(), sentence()), 2..12),
        which in 0_usize..6,
        tabs in any::<bool>(),
    ) {
        type Cells = (String, String, String, String);
        type Table = (&'static [&'static str], fn(&Cells) -> Vec<String>);
        let (names, pick): Table = match which {
            0 => (&["query", "passage"], |row| vec![row.0.clone(), row.1.clone()]),
            1 => (&["query-id", "corpus-id", "score"], |row| vec![row.0.clone(), row.1.clone(), "1".to_owned()]),
            2 => (&["query", "positive"], |row| vec![row.2.clone(), row.1.clone()]),
            3 => (&["query_id", "query", "passage_id", "passage"], |row| vec![row.0.clone(), row.2.clone(), row.1.clone(), row.3.clone()]),
            4 => (&["id", "frage", "antwort"], |row| vec![row.0.clone(), row.2.clone(), row.3.clone()]),
            _ => (&["qid", "pid", "label"], |row| vec![row.0.clone(), row.1.clone(), "0".to_owned()]),
        };
        let cells: Vec<Vec<String>> = rows.iter().map(pick).collect();
        let ids: Vec<&String> = rows.iter().flat_map(|row| [&row.0, &row.1]).collect();
        let is_sound = |raw: &RawData| {
            let mut texts = raw.queries().iter().chain(raw.collection().iter());
            texts.all(|text| !ids.iter().any(|id| *id == text))
                || DataReport::new(raw, None).findings.iter().any(|finding| finding.name == "ids_as_texts")
        };
        let content = table(names, &cells, tabs);
        match read(name_of_file(tabs), &content) {
            Ok(raw) => {
                prop_assert_eq!(which, 3, "{}", content);
                prop_assert!(is_sound(&raw));
            }
            Err(error) => {
                prop_assert_ne!(which, 3, "{}", error);
                if let Some(outcome) = followed(name_of_file(tabs), &content, &error.to_string()) {
                    prop_assert!(is_sound(&outcome.unwrap()), "{}", error);
                }
                // The same rows without names.
                if tabs && which != 4 {
                    let bare: String = content.split_once('\n').unwrap().1.to_owned();
                    prop_assert!(read("bare.tsv", &bare).is_err(), "{}", bare);
                }
            }
        }
    }

    /// A document whose label is 0 is never a positive, whatever the column is called.
    #[test]
    fn a_label_of_0_is_never_a_positive(
        rows in prop::collection::vec((sentence(), sentence(), any::<bool>()), 2..12),
        name in prop::sample::select(vec!["label", "labels", "relevance", "relevancy", "is_selected", "is_duplicate", "score", "gold", "good"]),
        tabs in any::<bool>(),
    ) {
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|(query, passage, label)| vec![query.clone(), passage.clone(), u8::from(*label).to_string()])
            .collect();
        let content = table(&["query", "passage", name], &cells, tabs);
        let outcome = read(name_of_file(tabs), &content);
        let raw = match outcome {
            Ok(raw) => raw,
            Err(error) => {
                let message = error.to_string();
                prop_assert!(message.contains(&format!("`{name}`")), "{}", message);
                followed(name_of_file(tabs), &content, &message).unwrap().unwrap()
            }
        };
        for (query, passage, _) in rows.iter().filter(|(_, _, label)| !label) {
            let is_also_positive = rows.iter().any(|row| row.2 && row.0 == *query && row.1 == *passage);
            let (qid, pid) = (raw.queries().qid_of_text(query).unwrap(), raw.collection().pid_of_text(passage).unwrap());
            prop_assert!(is_also_positive || !raw.positives(qid).contains(&pid));
        }
    }

    /// Classes under the name of a label are asked for: some of them may say that a document is not relevant.
    #[test]
    fn classes_of_pairs_are_never_passed_over(
        rows in prop::collection::vec((sentence(), sentence(), 0..3usize), 2..12),
        name in prop::sample::select(vec!["gold_label", "nli label", "NliLabel", "entailment-labels"]),
        texts in prop::sample::select(vec![["query", "positive"], ["query", "passage"], ["sentence1", "sentence2"]]),
        tabs in any::<bool>(),
    ) {
        let class = |class: usize| ["entailment", "neutral", "contradiction"][class].to_owned();
        let cells: Vec<Vec<String>> =
            rows.iter().map(|(query, passage, kind)| vec![query.clone(), passage.clone(), class(*kind)]).collect();
        let message = read(name_of_file(tabs), &table(&[texts[0], texts[1], name], &cells, tabs)).unwrap_err().to_string();
        prop_assert!(message.contains(&format!("`{name}`")) && !message.contains("such as \""), "{}", message);
    }

    /// A TSV with a header is read as the CSV with the same cells, or refused as it is.
    #[test]
    fn a_tsv_with_a_header_is_read_as_csv_is(
        rows in prop::collection::vec((sentence(), sentence(), sentence(), any::<bool>()), 3..10),
        names in prop::sample::subsequence(vec!["query", "question", "answer", "context", "passage", "negative", "label", "title"], 2..5),
    ) {
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|(one, two, three, label)| {
                let texts = [one, two, three];
                let cell = |(index, name): (usize, &&str)| match *name {
                    "label" => u8::from(*label).to_string(),
                    _ => texts[index % 3].clone(),
                };
                names.iter().enumerate().map(cell).collect()
            })
            .collect();
        let read_as = |tabs: bool| read(name_of_file(tabs), &table(&names, &cells, tabs));
        match (read_as(false), read_as(true)) {
            (Ok(csv), Ok(tsv)) => prop_assert_eq!(says(&csv), says(&tsv)),
            (Err(csv), Err(tsv)) => {
                let words = |error: DataError| error.to_string().split_once(", line 1").map(|(_, words)| words.to_owned());
                prop_assert_eq!(words(csv), words(tsv));
            }
            (csv, tsv) => prop_assert!(false, "{:?} | {:?}", csv.err(), tsv.err()),
        }
    }
}

#[test]
fn texts_of_objects_and_cells_have_their_ids() {
    let files = folder(&[
        ("a.csv", b"docid,title,text\n7,Tor,a hill\n"),
        ("b.jsonl", b"{\"pid\": 7, \"content\": \"a hill\"}\n"),
        ("c.tsv", b"7\ta hill\n"),
        ("e.csv", b"id,antwort\n7,ein Felsen\n"),
        ("d.tsv", b"A tor in Devon\ta hill\nA fen near Ely\twet land\n"),
    ]);
    let texts = |name: &str| read_texts(&files.path().join(name), Side::Document);
    for (name, text) in [("a.csv", "Tor a hill"), ("b.jsonl", "a hill"), ("c.tsv", "a hill")] {
        let record = texts(name).unwrap().records.remove(0);
        assert_eq!((record.id.as_deref(), record.text.as_str()), (Some("7"), text), "{name}");
    }
    assert_parts(&texts("d.tsv").unwrap_err().to_string(), &["d.tsv, line 1", "not an id but a text"]);
    let note = texts("e.csv").unwrap().note.unwrap();
    assert_parts(&note, &["e.csv", "those of the column `antwort`"]);
}

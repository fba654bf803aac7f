//! Files as other programs export them: names in every spelling, lists and labels in cells, files that are no text.

use colbert_config::{ColumnRoles, DataFormat, NegativeOptions, TrainOptions};
use colbert_data::{
    DataError, DataReport, Labels, PrepareOptions, RawData, ReadOptions, ReportOptions, Severity, Side, prepare,
    read_texts, read_training_data,
};
use proptest::prelude::*;

use crate::support::{assert_parts, folder, read};

const SUBJECTS: [&str; 8] = ["tor", "fen", "geyser", "moraine", "lagoon", "delta", "esker", "mesa"];

fn query(number: usize) -> String {
    format!("What is a {} and how does it form?", SUBJECTS[number % 8])
}

fn document(number: usize) -> String {
    format!("A {} is a form of the land that a chapter of the book describes.", SUBJECTS[number % 8])
}

/// A file of eight rows under a header.
fn rows(header: &str, row: impl Fn(usize) -> String) -> String {
    let lines: String = (0..8).map(|number| row(number) + "\n").collect();
    if header.is_empty() { lines } else { format!("{header}\n{lines}") }
}

fn with(name: &str, content: &str, options: &ReadOptions) -> Result<RawData, DataError> {
    let folder = folder(&[(name, content.as_bytes())]);
    read_training_data(&folder.path().join(name), options)
}

fn columns(roles: &str) -> ReadOptions {
    ReadOptions { roles: roles.parse::<ColumnRoles>().unwrap().0, ..ReadOptions::default() }
}

/// Numbers of queries, positives and given negatives.
fn counts(raw: &RawData) -> (usize, usize, usize) {
    let qids = || 0..raw.queries().len() as u32;
    let sum = |of: &dyn Fn(u32) -> usize| qids().map(of).sum();
    (raw.queries().len(), sum(&|qid| raw.positives(qid).len()), sum(&|qid| raw.negatives(qid).len()))
}

fn refusal(name: &str, content: &str) -> String {
    read(name, content).map(|raw| panic!("{name} is read: {}", raw.announcement())).unwrap_err().to_string()
}

/// The suggestion of a refusal, and what is read with it.
fn follow(name: &str, content: &str) -> (String, RawData) {
    let message = refusal(name, content);
    let (_, rest) = message.split_once("such as \"").unwrap_or_else(|| panic!("no suggestion: {message}"));
    let suggestion = rest.split_once('"').unwrap().0.to_owned();
    let raw = with(name, content, &columns(&suggestion)).unwrap_or_else(|error| panic!("{suggestion}: {error}"));
    (suggestion, raw)
}

#[test]
fn negatives_are_read_under_every_spelling_of_their_names() {
    for names in [
        &["neg_0", "neg_1"][..],
        &["negative1", "negative2"],
        &["hard_negative_1", "hard_negative_2"],
        &["negative-1", "Negative 2"],
        &["negative_document"],
        &["negative_passage"],
        &["hardNegatives"],
        &["negs"],
        &["irrelevant"],
        &["distractors"],
    ] {
        let header = format!("query,positive,{}", names.join(","));
        let row = |number: usize| {
            let negatives: String =
                (0..names.len()).map(|which| format!(",{}", document(number + which + 1))).collect();
            format!("{},{}{negatives}", query(number), document(number))
        };
        let raw = read("a.csv", &rows(&header, row)).unwrap();
        assert_eq!(counts(&raw), (8, 8, 8 * names.len()), "{names:?}: {}", raw.announcement());
    }
}

#[test]
fn scores_under_other_names_are_asked_for() {
    for name in ["rerank_score", "similarity", "Cosine Similarity", "logit", "confidence", "rating"] {
        let several = |number: usize| format!("{},{},{}.5", query(number / 2), document(number), number % 5);
        let (suggestion, raw) = follow("a.csv", &rows(&format!("query,passage,{name}"), several));
        assert_eq!(suggestion, format!("query=query, passage=document, {name}=scores"));
        assert_eq!(raw.counts().scored_pairs, 8, "{name}");
        let single = |number: usize| format!("{},{},{}.5", query(number), document(number), number % 5);
        let message = refusal("a.csv", &rows(&format!("query,passage,{name}"), single));
        assert_parts(&message, &[&format!("{name}=scores"), &format!("{name}=ignore")]);
        assert!(!message.contains("such as"), "{message}");
    }
}

#[test]
fn lists_in_cells_are_lists() {
    let both = |number: usize| [document(number + 1), document(number + 2)];
    let python = |number: usize| format!("['{}', '{}']", both(number)[0], both(number)[1]);
    let numpy = |number: usize| format!("['{}'\n '{}']", both(number)[0], both(number)[1]);
    let json = |number: usize| format!("{:?}", both(number)).replace('"', "\"\"");
    for (name, list) in [("python", &python as &dyn Fn(usize) -> String), ("numpy", &numpy), ("json", &json)] {
        let row = |number: usize| format!("{},{},\"{}\"", query(number), document(number), list(number));
        let raw = read("a.csv", &rows("query,positive,negatives", row)).unwrap();
        assert_eq!(counts(&raw), (8, 8, 16), "{name}");
        assert_eq!(raw.collection().text(raw.negatives(0)[0]), document(1), "{name}");
    }
    let objects = |number: usize| format!("{},\"[{{'docid': '1', 'text': '{}'}}]\"", query(number), document(number));
    let message = refusal("a.csv", &rows("query,positive_passages", objects));
    assert_parts(&message, &["`positive_passages` are objects written as text", "JSONL"]);
    let answers =
        |number: usize| format!("{},\"{{'text': ['{}'], 'answer_start': [0]}}\"", query(number), document(number));
    assert_parts(&refusal("a.csv", &rows("question,answer", answers)), &["objects written as text"]);
    let bare = |number: usize| format!("{}\t{}", query(number), python(number));
    assert_parts(&refusal("a.tsv", &rows("", bare)), &["lists or objects as text in the second column"]);
}

#[test]
fn labels_that_are_words_are_no_negatives() {
    for words in [["yes", "no"], ["Relevant", "Not relevant"], ["entailment", "neutral"], ["関連", "無関係"]] {
        let row = |number: usize| format!("{}\t{}\t{}", query(number / 2), document(number), words[number % 2]);
        let content = rows("", row);
        let message = refusal("a.tsv", &content);
        assert_parts(&message, &["third column", &format!("`{}`", words[0]), "data.positive_label"]);
        let labels = Labels { positive: words[0].to_owned(), negative: words[1].to_owned() };
        let raw = with("a.tsv", &content, &ReadOptions { labels, ..ReadOptions::default() }).unwrap();
        assert_eq!(counts(&raw), (4, 4, 4), "{words:?}");
        let format = DataFormat::Triplets;
        assert_eq!(
            with("a.tsv", &content, &ReadOptions { format, ..ReadOptions::default() }).unwrap().counts().triplets,
            8
        );
    }
    for (name, words) in [("a.tsv", ["True", "False"]), ("a.jsonl", ["true", "false"])] {
        let row = |number: usize| match name {
            "a.tsv" => format!("{}\t{}\t{}", query(number / 2), document(number), words[number % 2]),
            _ => format!("[{:?}, {:?}, {}]", query(number / 2), document(number), words[number % 2]),
        };
        assert_eq!(counts(&read(name, &rows("", row)).unwrap()), (4, 4, 4), "{name}");
        let labels = Labels { positive: "true".to_owned(), negative: "false".to_owned() };
        let raw = with(name, &rows("", row), &ReadOptions { labels, ..ReadOptions::default() }).unwrap();
        assert_eq!(counts(&raw), (4, 4, 4), "{name}");
    }
    let each = |number: usize| {
        format!(
            "{{\"query\": {:?}, \"passages\": [{:?}, {:?}], \"labels\": [0, 1]}}",
            query(number),
            document(number + 1),
            document(number)
        )
    };
    let raw = read("each.jsonl", &rows("", each)).unwrap();
    assert_eq!((counts(&raw), raw.collection().text(raw.positives(0)[0])), ((8, 8, 8), document(0).as_str()));
}

#[test]
fn the_advice_about_labels_can_be_followed() {
    let graded = |number: usize| format!("{},{},0.{}", query(number / 2), document(number), number + 1);
    let content = rows("query,passage,label", graded);
    assert_parts(&refusal("a.csv", &content), &["data.format = scored", "called `grade`"]);
    let format = DataFormat::Scored;
    let raw = with("a.csv", &content, &ReadOptions { format, ..ReadOptions::default() }).unwrap();
    assert_parts(raw.announcement(), &["teacher scores = label"]);
    let comma = |number: usize| format!("{};{};{},5", query(number / 2), document(number), number % 5);
    let raw = read("excel.csv", &rows("query;document;score", comma)).unwrap();
    assert_eq!((raw.counts().scored_pairs, raw.ready_made()[0].scores.as_deref()), (8, Some(&[1.5, 0.5][..])));
    let thousands = |number: usize| format!("{};{};{},500", query(number / 2), document(number), number % 5 + 1);
    assert_parts(&refusal("excel.csv", &rows("query;document;score", thousands)), &["line 2", "a number", "1,500"]);
}

#[test]
fn ids_are_found_among_negatives_and_in_every_form() {
    let csv = |cell: fn(&str) -> String| {
        move |number: usize| format!("{},{},{}", query(number), document(number), cell(SUBJECTS[number]))
    };
    for cell in [|subject: &str| format!("d-{subject}-17"), |subject: &str| format!("docs/geo/{subject}.md")] {
        let message = refusal("a.csv", &rows("query,positive,negative", csv(cell)));
        assert_parts(&message, &["the cells of `negative` are ids"]);
        let message = refusal("a.tsv", &rows("", csv(cell)).replace(',', "\t"));
        assert_parts(&message, &["ids or numbers in the third column"]);
    }
    for cell in [|subject: &str| format!("{subject}_(landform)"), |subject: &str| format!("www.example.com/{subject}")]
    {
        let row = |number: usize| format!("{},{}", query(number), cell(SUBJECTS[number]));
        assert_parts(&refusal("a.csv", &rows("query,positive", row)), &["the cells of `positive` are ids"]);
    }
}

#[test]
fn ids_beside_texts_are_not_the_reason_of_a_refusal() {
    let row = |number: usize| format!("q{number},{},p{number},{}", query(number), document(number));
    let message = refusal("a.csv", &rows("query_id,query,product_id,product_description", row));
    assert!(!message.contains("are ids"), "{message}");
    let (suggestion, raw) = follow("a.csv", &rows("query_id,query,product_id,product_description", row));
    assert_eq!((suggestion.as_str(), counts(&raw)), ("query=query, product_description=document", (8, 8, 0)));
    let table: Vec<String> = (0..8).map(|number| format!("{:?}: {:?}", query(number), document(number))).collect();
    let message = refusal("a.json", &format!("{{{}}}", table.join(", ")));
    assert!(message.contains("write each row as an object") && !message.contains("first line"), "{message}");
}

#[test]
fn suggestions_are_sensible() {
    let duplicates =
        |number: usize| format!("{number},{},How are {} made?,{}", query(number), SUBJECTS[number], number % 2);
    let (suggestion, raw) = follow("quora.csv", &rows("id,question1,question2,is_duplicate", duplicates));
    assert_eq!((suggestion.as_str(), counts(&raw)), ("question1=query, question2=document", (8, 4, 4)));
    let sts = |number: usize| format!("train\tmain\t{}\t{}\t{}.5", document(number), document(number + 1), number % 5);
    let content = rows("split\tdataset\tsentence1\tsentence2\tscore", sts);
    assert_eq!(follow("sts.tsv", &content).0, "sentence1=query, sentence2=document");
    let eli5 = |number: usize| {
        format!(
            "{{\"title\": {:?}, \"subreddit\": \"explainlikeimfive\", \"answers\": {{\"a_id\": [\"x\"], \"text\": [{:?}]}}}}",
            query(number),
            document(number)
        )
    };
    assert_eq!(follow("eli5.jsonl", &rows("", eli5)).0, "title=query, answers=document");
    let hotpot = |number: usize| {
        format!(
            "{{\"question\": {:?}, \"answer\": \"a hill\", \"context\": [[\"t\", [{:?}]]]}}",
            query(number),
            document(number)
        )
    };
    let message = refusal("hotpot.json", &rows("", hotpot));
    assert!(message.contains("`answer` and `context`") && !message.contains("such as"), "{message}");
}

#[test]
fn headers_of_several_words_are_headers_in_tsv_too() {
    let row = |number: usize| format!("{}\t{}", query(number), document(number));
    for header in ["User Query\tRelevant Passage", "Search Query\tDoc Text"] {
        let (_, raw) = follow("a.tsv", &rows(header, row));
        assert_eq!(counts(&raw), (8, 8, 0), "{header}");
    }
    let tabs = |number: usize| format!("{}\t{}\t", query(number), document(number));
    let raw = read("tabs.tsv", &rows("", tabs)).unwrap();
    assert_eq!((raw.counts().pairs, raw.counts().triplets), (8, 0));
}

#[test]
fn files_that_are_no_text_are_called_what_they_are() {
    let files: [(&str, &[u8], &str); 9] = [
        ("lfs.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "git lfs pull"),
        ("a.xlsx", b"PK\x03\x04\0\0\0\0", "Excel workbook"),
        ("a.pdf", b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfd\x04\0", "zstd -d"),
        ("a.arrow", b"ARROW1\0\0\xff\xff", "Arrow file"),
        ("data.arrow", b"\xff\xff\xff\xff\x10\0\0\0", "Arrow stream"),
        ("a.db", b"SQLite format 3\0", "SQLite"),
        ("a.pkl", b"\x80\x04\x95\0", "pickle"),
        ("a.jsonl", b"\n<!DOCTYPE HTML><html>", "HTML page"),
    ];
    for (name, content, found) in files {
        let folder = folder(&[(name, content)]);
        let path = folder.path().join(name);
        let message = read_training_data(&path, &ReadOptions::default()).unwrap_err().to_string();
        assert_parts(&message, &[name, found]);
        let message = read_texts(&path, Side::Document).unwrap_err().to_string();
        assert_parts(&message, &[name, found]);
    }
}

#[test]
fn the_content_decides_where_the_extension_is_wrong() {
    let json = |number: usize| format!("{{\"query\": {:?}, \"positive\": {:?}}}", query(number), document(number));
    let csv = |number: usize| format!("{},{}", query(number), document(number));
    let list = format!("[{}]", (0..8).map(json).collect::<Vec<_>>().join(","));
    for (name, content) in [
        ("a.csv", rows("", json)),
        ("b.tsv", rows("", json)),
        ("c.csv", list),
        ("d.txt", rows("query,positive", csv)),
        ("e.json", rows("question,answer", csv)),
    ] {
        let raw = read(name, &content).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(counts(&raw), (8, 8, 0), "{name}");
    }
    let message = refusal("nan.json", "[{\"query\": \"a tor\", \"positive\": NaN}]");
    assert_parts(&message, &["record 1", "NaN, which JSON does not have", "null"]);
    let message = refusal("nan.jsonl", "{\"query\": \"a tor\", \"positive\": NaN}\n");
    assert_parts(&message, &["line 1", "NaN, which JSON does not have"]);
    let empty = |number: usize| {
        format!(
            "{{\"query\": {:?}, \"pos\": [{:?}], \"neg\": [{:?}], \"pos_scores\": [], \"neg_scores\": []}}",
            query(number),
            document(number),
            document(number + 1)
        )
    };
    assert_eq!(counts(&read("flag.jsonl", &rows("", empty)).unwrap()), (8, 8, 8));
}

#[test]
fn documents_are_read_under_every_spelling_of_their_names() {
    let texts = |name: &str, content: &str| {
        let folder = folder(&[(name, content.as_bytes())]);
        read_texts(&folder.path().join(name), Side::Document).map(|file| file.records)
    };
    let csv = |number: usize| format!("d{number},{},{}", SUBJECTS[number], document(number));
    let array = |number: usize| format!("[\"d{number}\", {:?}]", document(number));
    let whole = format!("tor {}", document(0));
    for (name, content, id, text) in [
        ("a.csv", rows("ID,Title,Text", csv), Some("d0"), whole.as_str()),
        ("b.csv", rows("DocId,Title,Passage", csv), Some("d0"), &whole),
        ("c.txt", rows("id,title,text", csv), Some("d0"), &whole),
        ("d.tsv", rows("", |number| csv(number).replace(',', "\t")), Some("d0"), &format!("tor | {}", document(0))),
        ("e.jsonl", rows("", array), Some("d0"), &document(0)),
        (
            "f.jsonl",
            rows("", |number| format!("{{\"page_content\": {:?}, \"metadata\": {{}}}}", document(number))),
            None,
            &document(0),
        ),
    ] {
        let records = texts(name, &content).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(records.len(), 8, "{name}");
        assert_eq!((records[0].id.as_deref(), records[0].text.as_str()), (id, text), "{name}");
    }
    let table: Vec<String> = (0..5000).map(|number| format!("\"d{number}\": {:?}", document(number))).collect();
    let message = texts("g.json", &format!("{{{}}}", table.join(", "))).unwrap_err().to_string();
    assert!(message.len() < 1_000, "{}", message.len());
}

/// Ids of queries and documents that are the same numbers, so that only the header tells which is which.
#[test]
fn judgements_are_read_in_the_order_that_their_header_says() {
    let texts = |text: fn(usize) -> String| -> String {
        (0..8).map(|number| format!("{{\"_id\": \"{number}\", \"text\": {:?}}}\n", text(number))).collect()
    };
    let (corpus, queries) = (texts(document), texts(query));
    for (header, row) in [
        ("query-id\tcorpus-id\tscore", "0\t3\t1"),
        ("corpus-id\tquery-id\tscore", "3\t0\t1"),
        ("docid\tqid\trelevance", "3\t0\t1"),
        ("query_id\tlabel\tdoc_id", "0\t1\t3"),
        ("qid\tpid\tgrade", "0\t3\t1"),
    ] {
        let folder = folder(&[
            ("corpus.jsonl", corpus.as_bytes()),
            ("queries.jsonl", queries.as_bytes()),
            ("qrels/train.tsv", format!("{header}\n{row}\n").as_bytes()),
        ]);
        let raw = read_training_data(folder.path(), &ReadOptions::default()).unwrap();
        assert_eq!(raw.queries().text(0), query(0), "{header}");
        assert_eq!(raw.collection().text(raw.positives(0)[0]), document(3), "{header}");
    }
}

/// Scores of one document for each query, as STS has them, give no example; few rows fill no batch.
#[test]
fn the_report_says_with_the_options_what_training_refuses() {
    let (train, negatives) = (TrainOptions::default(), NegativeOptions::default());
    let report = |raw: &RawData, train: &TrainOptions| {
        let training = Some((train, &negatives));
        DataReport::with_options(raw, &ReportOptions { training, ..ReportOptions::default() }).unwrap()
    };
    let scored = |number: usize| format!("{},{},{}.5", query(number), document(number), number % 5);
    let raw = read("sts.csv", &rows("query,document,score", scored)).unwrap();
    let finding = report(&raw, &train).findings.remove(0);
    assert_eq!(finding.severity, Severity::Error);
    let error = prepare(raw, &PrepareOptions::default(), None).unwrap_err().to_string();
    assert!(error.contains(&finding.message) && error.contains(&finding.fix), "{error} | {finding:?}");
    let triplet = |number: usize| format!("{},{},{}", query(number), document(number), document(number + 1));
    let raw = read("few.csv", &rows("query,positive,negative", triplet)).unwrap();
    let few = |train: &TrainOptions| {
        report(&raw, train).findings.into_iter().find(|finding| finding.name == "too_few_examples")
    };
    let large = TrainOptions { batch_size: 1000, ..TrainOptions::default() };
    let finding = few(&large).unwrap();
    assert_eq!(finding.severity, Severity::Note);
    assert_parts(&finding.message, &["cannot fill one batch of 1000 queries", "train.batch_size = "]);
    assert!(few(&TrainOptions { batch_size: 8, ..TrainOptions::default() }).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// A third column of a few words is never a set of negatives without a word about it.
    #[test]
    fn a_few_words_are_never_negatives(
        words in prop::collection::vec("[a-z]{2,9}( [a-z]{2,9})?", 2..4),
        which in prop::collection::vec(0_usize..4, 8),
    ) {
        let row = |number: usize| format!("{}\t{}\t{}", query(number), document(number), words[which[number] % words.len()]);
        let outcome = read("a.tsv", &rows("", row));
        prop_assert!(outcome.map_or(true, |raw| raw.counts().triplets == 0));
    }

    /// Lists of texts in a cell are read as the texts, whatever is in them.
    #[test]
    fn a_list_in_a_cell_is_the_texts_in_it(texts in prop::collection::vec("[a-z'\", é]{0,12}[a-z]{3}", 1..4)) {
        let python = |text: &String| format!("'{}'", text.replace('\'', "\\'"));
        let list = format!("[{}]", texts.iter().map(python).collect::<Vec<_>>().join(", ")).replace('"', "\"\"");
        let row = |number: usize| format!("{},{},\"{list}\"", query(number), document(number));
        let raw = read("a.csv", &rows("query,positive,negatives", row)).unwrap();
        for text in &texts {
            let pid = raw.collection().pid_of_text(text);
            prop_assert!(pid.is_some_and(|pid| raw.negatives(0).contains(&pid)), "{:?}", text);
        }
    }
}

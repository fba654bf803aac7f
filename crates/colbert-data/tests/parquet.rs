//! Parquet: rows, lists, unused columns, and files that are damaged.

use std::path::Path;
use std::sync::Arc;

use colbert_data::{RawData, ReadOptions, read_documents, read_training_data};
use parquet::basic::{Compression, Encoding};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::support::{assert_parts, folder};

/// Cells of one column; a list has one cell a row and several values in it.
enum Column<'a> {
    Texts(Vec<&'a str>),
    TextLists(Vec<Vec<&'a str>>),
    NumberLists(Vec<Vec<f64>>),
    Whole(Vec<i64>),
}

fn write(path: &Path, schema: &str, compression: Compression, columns: &[Column<'_>]) {
    write_with(path, schema, WriterProperties::builder().set_compression(compression).build(), columns);
}

fn write_with(path: &Path, schema: &str, properties: WriterProperties, columns: &[Column<'_>]) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let levels = |lengths: Vec<usize>| {
        let repetition: Vec<i16> =
            lengths.iter().flat_map(|&length| (0..length).map(|index| i16::from(index > 0))).collect();
        (vec![1_i16; repetition.len()], repetition)
    };
    for column in columns {
        let mut out = group.next_column().unwrap().unwrap();
        let bytes = |texts: &[&str]| texts.iter().map(|text| ByteArray::from(*text)).collect::<Vec<_>>();
        match column {
            Column::Texts(texts) => {
                out.typed::<ByteArrayType>().write_batch(&bytes(texts), None, None).unwrap();
            }
            Column::TextLists(lists) => {
                let (definition, repetition) = levels(lists.iter().map(Vec::len).collect());
                let values = bytes(&lists.concat());
                out.typed::<ByteArrayType>().write_batch(&values, Some(&definition), Some(&repetition)).unwrap();
            }
            Column::NumberLists(lists) => {
                let (definition, repetition) = levels(lists.iter().map(Vec::len).collect());
                out.typed::<DoubleType>().write_batch(&lists.concat(), Some(&definition), Some(&repetition)).unwrap();
            }
            Column::Whole(numbers) => {
                out.typed::<Int64Type>().write_batch(numbers, None, None).unwrap();
            }
        }
        out.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

const PAIRS: &str = "message m { required binary question (STRING); required binary passage (STRING); \
    required int64 at (TIMESTAMP(NANOS,true)); }";

fn pairs(path: &Path, compression: Compression) {
    let columns = [Column::Texts(vec!["q", "r"]), Column::Texts(vec!["p", "s"]), Column::Whole(vec![1, 2])];
    write(path, PAIRS, compression, &columns);
}

fn read(path: &Path) -> Result<RawData, colbert_data::DataError> {
    read_training_data(path, &ReadOptions::default())
}

#[test]
fn pairs_come_out_of_every_codec_and_unused_columns_stay_unread() {
    let folder = folder(&[]);
    let path = folder.path().join("pairs.parquet");
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::LZ4_RAW,
        Compression::GZIP(Default::default()),
        Compression::BROTLI(Default::default()),
    ] {
        pairs(&path, compression);
        // The decoder cannot read times in nanoseconds, and need not.
        let raw = read(&path).unwrap();
        assert_eq!(raw.queries().iter().collect::<Vec<_>>(), ["q", "r"]);
        assert_parts(raw.announcement(), &["Parquet, 2 pairs, query = question, document = passage, not used: at"]);
    }
}

#[test]
fn lists_become_negatives_scores_and_tables() {
    let folder = folder(&[]);
    let list = |name: &str, kind: &str| {
        format!("required group {name} (LIST) {{ repeated group list {{ required {kind} element; }} }}")
    };
    let schema = format!(
        "message m {{ required binary query (STRING); {} {} }}",
        list("documents", "binary").replace("element;", "element (STRING);"),
        list("scores", "double")
    );
    let path = folder.path().join("scored.parquet");
    let rows = |score: f64| {
        [
            Column::Texts(vec!["q", "r"]),
            Column::TextLists(vec![vec!["a", "b"], vec!["c", "a", "b"]]),
            Column::NumberLists(vec![vec![0.5, -1.0], vec![1.0, score, 0.25]]),
        ]
    };
    write(&path, &schema, Compression::SNAPPY, &rows(0.5));
    let raw = read(&path).unwrap();
    assert_eq!(raw.ready_made()[1].documents, [2, 0, 1]);
    assert_eq!(raw.ready_made()[1].scores.as_deref(), Some([1.0, 0.5, 0.25].as_slice()));
    write(&path, &schema, Compression::SNAPPY, &rows(f64::NAN));
    assert_parts(&read(&path).unwrap_err().to_string(), &["scored.parquet, record 2, scores", "finite", "NaN"]);

    let table = "message m { required binary NAME_id (STRING); required binary text (STRING); }";
    let texts = |name: &str, ids, texts| {
        let path = folder.path().join(format!("{name}.parquet"));
        let schema = table.replace("NAME", name.strip_suffix('s').unwrap_or(name)).replace("querie_", "query_");
        write(&path, &schema, Compression::SNAPPY, &[Column::Texts(ids), Column::Texts(texts)]);
    };
    texts("queries", vec!["7"], vec!["q"]);
    texts("documents", vec!["1", "2"], vec!["a", "b"]);
    let schema = schema.replace("binary query (", "binary query_id (").replace("documents", "document_ids");
    let columns =
        [Column::Texts(vec!["7"]), Column::TextLists(vec![vec!["2", "1"]]), Column::NumberLists(vec![vec![2.0, 1.0]])];
    write(&folder.path().join("train.parquet"), &schema, Compression::SNAPPY, &columns);
    std::fs::remove_file(path).unwrap();
    let raw = read(folder.path()).unwrap();
    assert_eq!((raw.ready_made()[0].query, &raw.ready_made()[0].documents[..]), (0, &[1, 0][..]));
    let mut raw = RawData::from_pairs([("q", "p")]).unwrap();
    let said = read_documents(&folder.path().join("documents.parquet"), &ReadOptions::default(), &mut raw).unwrap();
    assert_parts(&said, &["Parquet, 2 documents"]);
}

#[test]
fn damage_is_an_error_wherever_it_is() {
    let folder = folder(&[]);
    let path = folder.path().join("pairs.parquet");
    pairs(&path, Compression::SNAPPY);
    let whole = std::fs::read(&path).unwrap();
    for cut in [4, 10, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert_parts(&read(&path).unwrap_err().to_string(), &["pairs.parquet", "Parquet data is truncated or damaged"]);
    }
    // Any single byte may be wrong: a message, or the same rows where the byte does not matter; never a crash.
    std::panic::set_hook(Box::new(|_| ()));
    let outcomes: Vec<_> = (4..whole.len())
        .map(|index| {
            let mut bytes = whole.clone();
            bytes[index] ^= 0xff;
            std::fs::write(&path, &bytes).unwrap();
            std::panic::catch_unwind(|| read(&path).is_ok())
        })
        .collect();
    let _default = std::panic::take_hook();
    assert!(
        outcomes.iter().all(Result::is_ok),
        "{} crashes",
        outcomes.iter().filter(|outcome| outcome.is_err()).count()
    );
    // Without its magic bytes it is not Parquet, and its content is no text either.
    std::fs::write(&path, &whole[1..]).unwrap();
    assert!(read(&path).is_err());
}

#[test]
fn columns_without_a_clear_role_are_refused_by_name() {
    let folder = folder(&[]);
    let path = folder.path().join("odd.parquet");
    let schema = "message m { required binary frage (STRING); required binary antwort (STRING); }";
    write(&path, schema, Compression::SNAPPY, &[Column::Texts(vec!["q"]), Column::Texts(vec!["p"])]);
    assert_parts(
        &read(&path).unwrap_err().to_string(),
        &["odd.parquet, record 1", "`frage`, `antwort`", "data.columns"],
    );
    let roles = "frage=query, antwort=positive".parse::<colbert_config::ColumnRoles>().unwrap().0;
    let raw = read_training_data(&path, &ReadOptions { roles, ..ReadOptions::default() }).unwrap();
    assert_eq!(raw.queries().text(0), "q");
}

#[test]
fn pages_of_every_encoding_of_texts_are_read_whole() {
    let folder = folder(&[]);
    let path = folder.path().join("pairs.parquet");
    let questions: Vec<String> = (0..5000).map(|row| format!("question {} of {row}", row % 7)).collect();
    let questions: Vec<&str> = questions.iter().map(String::as_str).collect();
    let schema = "message m { required binary question (STRING); required binary passage (STRING); }";
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        for encoding in
            [None, Some(Encoding::PLAIN), Some(Encoding::DELTA_BYTE_ARRAY), Some(Encoding::DELTA_LENGTH_BYTE_ARRAY)]
        {
            let properties = WriterProperties::builder().set_writer_version(version);
            let properties = match encoding {
                None => properties,
                Some(encoding) => properties.set_dictionary_enabled(false).set_encoding(encoding),
            };
            let passages = vec!["a passage"; questions.len()];
            write_with(&path, schema, properties.build(), &[Column::Texts(questions.clone()), Column::Texts(passages)]);
            let raw = read(&path).unwrap();
            assert_eq!(raw.queries().len(), questions.len());
            assert!((0..).zip(&questions).all(|(row, question)| raw.queries().text(row) == *question));
        }
    }
}

/// Files that pyarrow wrote (zstandard.py): pages of both versions, with dictionaries, lists and absent members.
#[test]
fn zstandard_is_read_without_a_c_library() {
    for file in ["zstandard-1.parquet", "zstandard-2.parquet"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file);
        let roles = "negatives=ignore".parse::<colbert_config::ColumnRoles>().unwrap().0;
        let raw = read_training_data(&path, &ReadOptions { roles, ..ReadOptions::default() }).unwrap();
        assert_eq!(raw.queries().len(), 300);
        for qid in 0..300 {
            assert_eq!(raw.queries().text(qid), format!("what is subject {qid}"));
            assert_eq!(raw.collection().text(raw.positives(qid)[0]), format!("subject {qid} is a thing"));
        }
        assert_parts(raw.announcement(), &["Parquet, 300 pairs", "not used: negatives, source"]);
        // The lists have members that are null, which are no texts.
        assert_parts(&read(&path).unwrap_err().to_string(), &["record 2", "negative: a text", "null"]);
        // Damage within a page is an error of the file.
        let mut bytes = std::fs::read(&path).unwrap();
        let start = bytes.windows(4).position(|window| window == [0x28, 0xb5, 0x2f, 0xfd]).unwrap();
        bytes[start + 6..start + 40].fill(0xff);
        let folder = folder(&[("damaged.parquet", &bytes)]);
        assert_parts(
            &read(&folder.path().join("damaged.parquet")).unwrap_err().to_string(),
            &["Parquet data is truncated"],
        );
    }
}

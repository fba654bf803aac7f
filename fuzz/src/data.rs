//! Training rows, documents and texts in every syntax but Parquet, single files and folders, plain and gzip.

use std::io::Write;
use std::path::Path;

use colbert_config::DataFormat;
use colbert_data::{
    PrepareOptions, RawData, ReadOptions, Side, prepare, read_documents, read_evaluation_set, read_texts,
    read_training_data,
};
use flate2::{Compression, write::GzEncoder};

use super::scratch::{choice, parts, with_scratch};

/// Names of the single files, by their syntax.
const FILES: [&str; 4] = ["rows.jsonl", "rows.json", "rows.csv", "rows.tsv"];

/// Folders, and the files in them, in the order of an input's parts.
const FOLDERS: [&[&str]; 4] = [
    &["corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/dev.tsv"],
    &["queries.train.colbert.tsv", "corpus.train.colbert.tsv", "triples.train.colbert.jsonl"],
    &["train.jsonl", "queries.jsonl", "documents.jsonl"],
    &["train-00000-of-00002.csv", "train-00001-of-00002.csv"],
];

const FORMATS: [DataFormat; 6] = [
    DataFormat::Auto,
    DataFormat::Pairs,
    DataFormat::LabeledPairs,
    DataFormat::Triplets,
    DataFormat::Scored,
    DataFormat::Tevatron,
];

/// Passes the data on to the next steps of a run.
fn use_rows(path: &Path, options: &ReadOptions) {
    if let Ok(raw) = read_training_data(path, options) {
        let few = PrepareOptions {
            negatives: colbert_config::NegativeOptions { mine_hard_negatives: false, ..Default::default() },
            ..PrepareOptions::default()
        };
        if let Ok((set, report)) = prepare(raw, &few, None) {
            for example in &set.examples {
                assert!(!set.queries.text(example.query).is_empty());
                assert!(example.documents.iter().all(|pid| !set.collection.text(*pid).is_empty()));
            }
            drop(report.to_string());
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let Some((kind, rest)) = choice(bytes, FILES.len() + FOLDERS.len()) else { return };
    let Some((flags, content)) = choice(rest, 64) else { return };
    with_scratch(
        "data",
        |_| {},
        |scratch| {
            let options = ReadOptions {
                format: FORMATS[(flags & 7) % FORMATS.len()],
                skip_bad_rows: flags & 8 != 0,
                ..ReadOptions::default()
            };
            let pack = |bytes: &[u8]| if flags & 16 != 0 { gzip(bytes) } else { bytes.to_vec() };
            match FOLDERS.get(kind.wrapping_sub(FILES.len())) {
                None => {
                    let path = scratch.write(FILES[kind], &pack(content));
                    use_rows(&path, &options);
                    let mut raw = RawData::default();
                    drop(read_documents(&path, &options, &mut raw));
                    drop(read_texts(&path, Side::Document));
                }
                Some(names) => {
                    scratch.clear();
                    for (name, part) in names.iter().zip(parts(content, b"\n==\n")) {
                        scratch.write(name, &if flags & 32 != 0 { pack(&part) } else { part });
                    }
                    use_rows(scratch.path(), &ReadOptions { format: DataFormat::Auto, ..options });
                    drop(read_evaluation_set(scratch.path(), "dev"));
                }
            }
        },
    );
}

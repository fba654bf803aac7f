//! Parquet files as training rows and as documents.

use colbert_data::{RawData, ReadOptions, read_documents, read_training_data};

use super::scratch::with_scratch;

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    with_scratch(
        "parquet",
        |_| {},
        |scratch| {
            let path = scratch.write("rows.parquet", bytes);
            let options = ReadOptions::default();
            drop(read_training_data(&path, &options));
            drop(read_documents(&path, &options, &mut RawData::default()));
        },
    );
}

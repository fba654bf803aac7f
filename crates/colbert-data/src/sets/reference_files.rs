//! The reference's three training files: their names and their form.
//!
//! | file | line |
//! |---|---|
//! | `queries.train.colbert.tsv` | `qid`, tab, query |
//! | `corpus.train.colbert.tsv` | `pid`, tab, document; a third column is a title |
//! | `triples.train.colbert.jsonl` | `[qid,pid,pid,...]`, or with teacher scores `[qid,[pid,score],...]`, the positive first |
//!
//! Source: RAGatouille 0.0.9 `data/training_data_processor.py`; colbert-ai 0.2.22 `evaluation/loaders.py`,
//! `data/examples.py`.

use std::path::{Path, PathBuf};

use crate::error::DataError;

/// Paths of the three files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceFiles {
    /// `qid`, tab, query.
    pub queries: PathBuf,
    /// `pid`, tab, document.
    pub collection: PathBuf,
    /// One example a line.
    pub triples: PathBuf,
}

impl ReferenceFiles {
    /// Refuses a folder in which one of the three files is already.
    ///
    /// # Errors
    /// [`DataError::EarlierExport`].
    pub fn refuse_earlier(folder: &Path) -> Result<(), DataError> {
        let Self { queries, collection, triples } = Self::in_folder(folder);
        match [triples, queries, collection].into_iter().find(|path| path.exists()) {
            Some(path) => Err(DataError::EarlierExport { path }),
            None => Ok(()),
        }
    }

    /// Names the three files as they are found under the names that the reference gives them.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            queries: folder.join("queries.train.colbert.tsv"),
            collection: folder.join("corpus.train.colbert.tsv"),
            triples: folder.join("triples.train.colbert.jsonl"),
        }
    }
}

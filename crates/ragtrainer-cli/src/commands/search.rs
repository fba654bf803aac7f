//! `ragtrainer search`

#[cfg(feature = "index")]
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ragtrainer::DocumentFolder;
use ragtrainer::data::{Side, read_texts};
#[cfg(feature = "index")]
use ragtrainer::search::PlaidIndex;
#[cfg(feature = "index")]
use ragtrainer::{Hit, RagPretrainedModel};

use crate::model::ModelArgs;
use crate::output::complain;
use crate::tables::{Answer, print_hits};

/// Search a folder of encoded documents (see `ragtrainer encode --folder`).
#[derive(Debug, Args)]
#[command(
    after_help = "Without an index, every document is scored exactly. With one (see `ragtrainer index`), only the \
    documents that it names are, by the same exact score. The model must be the one that encoded the folder."
)]
#[command(group = clap::ArgGroup::new("what").args(["query", "queries"]).required(true).multiple(true))]
pub(crate) struct SearchCommand {
    #[command(flatten)]
    model: ModelArgs,
    /// Folder of encoded documents; with the cargo feature index also a bare index that fast-plaid (PyLate) wrote.
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// Query; repeatable.
    #[arg(long, value_name = "TEXT")]
    query: Vec<String>,
    /// File of queries, as `ragtrainer encode` reads texts.
    #[arg(long, value_name = "FILE")]
    queries: Option<PathBuf>,
    /// Search only among the documents with these ids; repeatable.
    #[arg(long, value_name = "ID")]
    among: Vec<String>,
    /// Score every document even if the folder has an index.
    #[arg(long)]
    exact: bool,
    /// Show at most N documents of each query.
    #[arg(long, value_name = "N", default_value_t = 10)]
    k: usize,
    /// Score as RAGatouille's search_encoded_docs does: no query token counts less than 0 in a document with fewer scored
    /// tokens than the model's doc_maxlen.
    #[arg(long)]
    zero_floor: bool,
    /// Print a JSON object for each query, one a line: its id if it has one, its text, and hits with rank, score,
    /// document id, passage, text and metadata.
    #[arg(long)]
    json: bool,
}

/// Queries that are encoded and answered at once: their vectors are laid out together, and answers appear as they come.
const BATCH: usize = 512;

impl SearchCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut queries: Vec<(Option<String>, String)> = self.query.into_iter().map(|query| (None, query)).collect();
        if let Some(path) = &self.queries {
            let file = read_texts(path, Side::Query)?;
            if let Some(note) = &file.note {
                complain!("{note}");
            }
            queries.extend(file.records.into_iter().map(|record| (record.id, record.text)));
        }
        let is_one = queries.len() == 1;
        #[cfg(feature = "index")]
        if self.folder.join("metadata.json").exists() && !self.folder.join("state.json").exists() {
            anyhow::ensure!(
                self.among.is_empty() && !self.exact,
                "an index without its documents has no ids and no exact search"
            );
            return search_index(&self.folder, &self.model.load()?, queries, self.k, self.json);
        }
        let folder = DocumentFolder::open(&self.folder)?.with_exact_search(self.exact);
        if cfg!(not(feature = "index")) && folder.index().is_some() && !self.exact {
            complain!("warning: this program was built without the feature index: every document is scored");
        }
        let model = self.model.load()?.with_zero_floor(self.zero_floor);
        for batch in queries.chunks(BATCH) {
            let texts: Vec<&str> = batch.iter().map(|(_, query)| query.as_str()).collect();
            let found = match self.among.as_slice() {
                [] => model.search_all(&texts, &folder, self.k)?,
                ids => model.search_among(&texts, &folder, self.k, ids)?,
            };
            let answers = batch.iter().cloned().zip(found).map(|((id, query), hits)| Answer { id, query, hits });
            print_hits(&answers.collect::<Vec<_>>(), is_one, self.json)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Searches the bare folder of an index, as fast-plaid writes it: places are all that it knows of its documents.
#[cfg(feature = "index")]
fn search_index(
    folder: &Path,
    model: &RagPretrainedModel,
    queries: Vec<(Option<String>, String)>,
    k: usize,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let index = PlaidIndex::open(folder)?;
    let is_one = queries.len() == 1;
    for batch in queries.chunks(BATCH) {
        let texts: Vec<&str> = batch.iter().map(|(_, query)| query.as_str()).collect();
        let found = index.search(&model.query_vectors(&texts)?, k, None)?;
        let hits = |found: Vec<(usize, f32)>| -> Vec<Hit> {
            let hit = |((index, score), rank)| Hit { rank, score, index, ..Hit::default() };
            found.into_iter().zip(1..).map(hit).collect()
        };
        let answers =
            batch.iter().cloned().zip(found).map(|((id, query), found)| Answer { id, query, hits: hits(found) });
        print_hits(&answers.collect::<Vec<_>>(), is_one, as_json)?;
    }
    Ok(ExitCode::SUCCESS)
}

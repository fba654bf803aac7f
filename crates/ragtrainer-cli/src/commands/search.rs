//! `ragtrainer search`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ragtrainer::DocumentFolder;
use ragtrainer::data::{TextSide, read_texts};

use crate::model::ModelArgs;
use crate::tables::print_hits;

/// Search a folder of encoded documents (see `ragtrainer encode --folder`). Every document is scored, exactly.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").args(["query", "queries"]).required(true).multiple(true))]
pub(crate) struct SearchCommand {
    #[command(flatten)]
    model: ModelArgs,
    /// Folder of encoded documents.
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// Query; repeatable.
    #[arg(long, value_name = "TEXT")]
    query: Vec<String>,
    /// File of queries, as `ragtrainer encode` reads texts.
    #[arg(long, value_name = "FILE")]
    queries: Option<PathBuf>,
    /// Show at most N documents of each query.
    #[arg(long, value_name = "N", default_value_t = 10)]
    k: usize,
    /// Score as RAGatouille does: no query token counts less than 0 in a document shorter than the model's doc_maxlen.
    #[arg(long)]
    zero_floor: bool,
    /// Print a JSON object for each query, one a line.
    #[arg(long)]
    json: bool,
}

impl SearchCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut queries = self.query;
        if let Some(path) = &self.queries {
            queries.extend(read_texts(path, TextSide::Queries)?.records.into_iter().map(|record| record.text));
        }
        let folder = DocumentFolder::open(&self.folder)?;
        let model = self.model.load()?;
        let found = model.with_zero_floor(self.zero_floor).search_all(&queries, &folder, self.k)?;
        print_hits(&queries.into_iter().zip(found).collect::<Vec<_>>(), self.json)?;
        Ok(ExitCode::SUCCESS)
    }
}

//! `ragtrainer rerank`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use ragtrainer::Hit;
use ragtrainer::data::{Side, read_texts};
use ragtrainer::record::write_explanations;

use crate::model::ModelArgs;
use crate::output::complain;
use crate::tables::{Answer, print_hits};

/// Rank the documents of a file for a query, best first.
#[derive(Debug, Args)]
#[command(after_help = "A document's score does not depend on the other documents, unless --zero-floor is given.")]
pub(crate) struct RerankCommand {
    #[command(flatten)]
    model: ModelArgs,
    /// The query.
    #[arg(long, value_name = "TEXT")]
    query: String,
    /// File of documents, as `ragtrainer encode` reads them.
    #[arg(long, value_name = "FILE")]
    documents: PathBuf,
    /// Show at most N documents.
    #[arg(long, value_name = "N", default_value_t = 10)]
    k: usize,
    /// Score as RAGatouille does: no query token counts less than 0 in a document that is shorter than the longest one
    /// or has punctuation.
    #[arg(long)]
    zero_floor: bool,
    /// Write an HTML page that shows, for each hit, which query token matched which document token. The file must not
    /// exist yet.
    #[arg(long, value_name = "FILE.html")]
    explain: Option<PathBuf>,
    /// Print one JSON object: the query, and hits with rank, score, document id and text.
    #[arg(long)]
    json: bool,
}

impl RerankCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(path) = self.explain.as_deref().filter(|path| path.exists()) {
            bail!("{} is there already; name another file", path.display());
        }
        let file = read_texts(&self.documents, Side::Document)?;
        if let Some(note) = &file.note {
            complain!("{note}");
        }
        let records = file.records;
        let model = self.model.load()?;
        let model = model.with_zero_floor(self.zero_floor);
        let texts: Vec<&str> = records.iter().map(|record| record.text.as_str()).collect();
        let mut hits = model.rerank(&self.query, &texts, self.k)?;
        for hit in &mut hits {
            hit.id.clone_from(&records[hit.index].id);
        }
        if let Some(path) = &self.explain {
            let explain = |hit: &Hit| Ok((hit.clone(), model.explain(&self.query, texts[hit.index])?));
            let explained = hits.iter().map(explain).collect::<anyhow::Result<Vec<_>>>()?;
            write_explanations(path, &self.query, &explained)?;
            complain!("wrote {}", path.display());
        }
        print_hits(&[Answer { id: None, query: self.query, hits }], true, self.json)?;
        Ok(ExitCode::SUCCESS)
    }
}

//! `ragtrainer evaluate`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ragtrainer::config::{EvaluationOptions, Metric};
use ragtrainer::data::read_evaluation_set;
use ragtrainer::{DirectoryEvaluation, evaluate_directory};

use crate::interrupt::Interrupt;
use crate::output::{complain, json_line, say};
use crate::progress::{Progress, fetched};
use crate::tables::evaluation_table;

/// Measure a model directory on the judged queries of a BEIR folder, beside BM25.
///
/// Every query is scored against every document of the folder (or of the pool), exactly.
#[derive(Debug, Args)]
pub(crate) struct EvaluateCommand {
    /// Model directory or name on the hub, such as RUN/best.
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// BEIR folder: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Split of the judgements.
    #[arg(long, value_name = "NAME", default_value = "test")]
    split: String,
    /// A further metric, put first: ndcg@K, mrr@K, recall@K, success@K.
    #[arg(long, value_name = "NAME", default_value = "ndcg@10")]
    metric: Metric,
    /// Rank against N documents: all the relevant ones and random others.
    #[arg(long, value_name = "N")]
    pool_size: Option<usize>,
    /// Use at most N queries, a seeded choice.
    #[arg(long, value_name = "N")]
    max_queries: Option<usize>,
    /// Language of the texts (ISO 639-1), for stemming and stop words of BM25.
    #[arg(long, value_name = "CODE", default_value = "en", env = "RAGTRAINER_LANGUAGE_CODE")]
    language_code: String,
    /// Backend and device.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    backend: String,
    /// Print the numbers as JSON.
    #[arg(long)]
    json: bool,
}

impl EvaluateCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let options = EvaluationOptions {
            metric: self.metric,
            pool_size: self.pool_size,
            max_queries: self.max_queries,
            ..EvaluationOptions::default()
        };
        let set = read_evaluation_set(&self.data, &self.split)?;
        let set = set.with_pool(options.pool_size, options.max_queries, options.seed)?;
        fetched(&self.model)?;
        let mut progress = Progress::new(Interrupt::default());
        let DirectoryEvaluation { loaded, bm25, model } =
            evaluate_directory(&self.model, &set, &options, &self.language_code, &self.backend, &mut progress)?;
        if !loaded.initialised.is_empty() {
            complain!(
                "warning: {} is not in {} and was drawn at random",
                loaded.initialised.join(", "),
                self.model.display()
            );
        }
        if self.json {
            json_line(&serde_json::to_string_pretty(&serde_json::json!({"bm25": bm25, "model": model}))?);
        } else {
            let name = self.model.display().to_string();
            say!("{}", evaluation_table(&self.split, &[("BM25", &bm25), (&name, &model)]));
        }
        Ok(ExitCode::SUCCESS)
    }
}

//! `ragtrainer evaluate`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use ragtrainer::config::durable::replace_file;
use ragtrainer::config::{EvaluationOptions, Metric};
use ragtrainer::data::{Candidates, EvaluationSet, read_evaluation_set};
use ragtrainer::run::{DirectoryChoice, DirectoryEvaluation, evaluate_directory_with};
use ragtrainer::train::{Processes, QueryResult};
use serde_json::json;

use crate::interrupt::Interrupt;
use crate::output::{complain, json_line, say};
use crate::progress::{Progress, fetched};
use crate::tables::{evaluation_table, metric_rows};

/// Evaluate a model on the judged queries of BEIR folders, next to BM25.
#[derive(Debug, Args)]
#[command(after_help = "Every query is scored exactly, in float32, against every document of its folder (or of the \
    pool, or its candidates). ndcg@10, mrr@10, recall@10 and recall@100 are always printed. For several folders, such \
    as those of NanoBEIR, the mean over the folders is printed too. Started by a launcher of MPI, the processes share \
    the work.")]
pub(crate) struct EvaluateCommand {
    /// Model directory or name on the hub, such as RUN/best.
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// BEIR folder: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv; repeatable.
    #[arg(long, value_name = "DIR", required = true)]
    data: Vec<PathBuf>,
    /// Split of the judgements.
    #[arg(long, value_name = "NAME", default_value = "test")]
    split: String,
    /// Additional metric, shown first: ndcg@K, mrr@K, recall@K, success@K, map@K.
    #[arg(long, value_name = "NAME", default_value = "ndcg@10")]
    metric: Metric,
    /// Rerank given candidates only: a TREC run, lines of query id and document id, or JSON lines such as {"query_id":
    /// "q1", "candidates": ["d1", "d2"]}. Repeatable: one file for each --data, in the same order. A relevant document
    /// that is not a candidate counts as not found; BM25 ranks the same candidates.
    #[arg(long, value_name = "FILE", conflicts_with = "pool_size")]
    candidates: Vec<PathBuf>,
    /// Rank against N documents: all the relevant ones and random others.
    #[arg(long, value_name = "N")]
    pool_size: Option<usize>,
    /// Use at most N queries, chosen at random with a fixed seed.
    #[arg(long, value_name = "N")]
    max_queries: Option<usize>,
    /// Language of the texts (ISO 639-1), for stemming and stop words of BM25.
    #[arg(long, value_name = "CODE", default_value = "en", env = "RAGTRAINER_LANGUAGE_CODE")]
    language_code: String,
    /// Truncate vectors to their first N numbers and normalise them again, for models trained with train.dims.
    #[arg(long, value_name = "N")]
    dim: Option<usize>,
    /// Backend and device: auto, flex, cuda, cuda:N, libtorch, libtorch:cuda:N, wgpu, wgpu:N.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    backend: String,
    /// Also write one JSON object per query, each on a line: its metric, the rank of its first relevant document and
    /// the top documents, for the model and for BM25. The file must not exist yet.
    #[arg(long, value_name = "FILE")]
    per_query: Option<PathBuf>,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

impl EvaluateCommand {
    pub(crate) fn run(self, processes: &dyn Processes) -> anyhow::Result<ExitCode> {
        let options = EvaluationOptions {
            metric: self.metric,
            pool_size: self.pool_size,
            max_queries: self.max_queries,
            ..EvaluationOptions::default()
        };
        if let Some(path) = self.per_query.as_deref().filter(|path| processes.is_first() && path.exists()) {
            bail!("{} is there already; name another file", path.display());
        }
        // All folders are read before the first is measured: otherwise an unreadable one could end hours of work.
        let read = |data: &PathBuf| {
            let set = read_evaluation_set(data, &self.split)?;
            Ok(set.with_pool(options.pool_size, options.max_queries, options.seed)?)
        };
        let sets = self.data.iter().map(read).collect::<anyhow::Result<Vec<EvaluationSet>>>()?;
        let candidates = self.read_candidates(&sets)?;
        fetched(&self.model)?;
        let mut progress = Progress::new(Interrupt::default());
        let mut measured = Vec::new();
        for (set, candidates) in sets.iter().zip(candidates) {
            let (language, backend) = (&self.language_code, &self.backend);
            let choice = DirectoryChoice { dim: self.dim, candidates, processes };
            let one = evaluate_directory_with(&self.model, set, &options, &choice, language, backend, &mut progress)?;
            measured.push(one);
        }
        if let Some(DirectoryEvaluation { loaded, .. }) =
            measured.first().filter(|one| !one.loaded.initialised.is_empty())
        {
            complain!(
                "warning: {} is not in {} and was drawn at random",
                loaded.initialised.join(", "),
                self.model.display()
            );
        }
        if let Some(path) = self.per_query.as_ref().filter(|_| processes.is_first()) {
            let rows = self.data.iter().zip(&sets).zip(&measured);
            let lines: String = rows.flat_map(|((data, set), measured)| self.query_rows(data, set, measured)).collect();
            replace_file(path, lines.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        }
        self.print(&measured)?;
        Ok(ExitCode::SUCCESS)
    }

    /// The candidates of each folder, and a line for each about what they hold.
    fn read_candidates(&self, sets: &[EvaluationSet]) -> anyhow::Result<Vec<Option<Candidates>>> {
        if self.candidates.is_empty() {
            return Ok(vec![None; sets.len()]);
        }
        let (found, expected) = (self.candidates.len(), sets.len());
        anyhow::ensure!(
            found == expected,
            "{found} --candidates for {expected} --data: give one for each, in their order"
        );
        let read = |(path, set): (&PathBuf, &EvaluationSet)| {
            let candidates = Candidates::read(path, set)?;
            let judged =
                (0..set.queries.len() as u32).flat_map(|qid| set.judgements.positives(qid).map(move |pid| (qid, pid)));
            let (mut all, mut there) = (0, 0);
            for (qid, pid) in judged {
                all += 1;
                there += usize::from(candidates.contains(qid, pid));
            }
            complain!(
                "{}: {} candidates a query on average, {there} of {all} relevant documents among them; {} queries without \
                 candidates, {} of other queries passed over",
                path.display(),
                candidates.mean(),
                candidates.without(),
                candidates.other_queries()
            );
            Ok(Some(candidates))
        };
        self.candidates.iter().zip(sets).map(read).collect()
    }

    /// A line for each query of a folder.
    fn query_rows(&self, data: &Path, set: &EvaluationSet, measured: &DirectoryEvaluation) -> Vec<String> {
        let id = |pid: &u32| set.collection.id(*pid).map_or_else(|| pid.to_string(), str::to_owned);
        let ids = |pids: &[u32]| pids.iter().map(id).collect::<Vec<_>>();
        let pairs = measured.model_queries.iter().zip(&measured.bm25_queries);
        let row = |(model, bm25): (&QueryResult, &QueryResult)| {
            let qid = model.qid;
            let relevant: Vec<u32> = set.judgements.positives(qid).collect();
            let row = json!({
                "data": data.display().to_string(),
                "split": self.split,
                "query_id": set.queries.id(qid).map_or_else(|| qid.to_string(), str::to_owned),
                "query": set.queries.text(qid),
                "relevant": ids(&relevant),
                "metric": self.metric,
                "model": {"value": model.value, "rank": model.rank, "first": ids(&model.first)},
                "bm25": {"value": bm25.value, "rank": bm25.rank, "first": ids(&bm25.first)},
            });
            row.to_string() + "\n"
        };
        pairs.map(row).collect()
    }

    fn print(&self, measured: &[DirectoryEvaluation]) -> anyhow::Result<()> {
        let name = self.model.display().to_string();
        if let [DirectoryEvaluation { bm25, model, .. }] = measured {
            if self.json {
                json_line(&serde_json::to_string_pretty(&json!({"bm25": bm25, "model": model}))?);
            } else {
                say!("{}", evaluation_table(&self.split, &[("BM25", bm25), (&name, model)]));
            }
            return Ok(());
        }
        let (bm25, model) = DirectoryEvaluation::mean(measured);
        if self.json {
            let folders =
                self.data.iter().zip(measured).map(
                    |(data, one)| json!({"data": data.display().to_string(), "bm25": one.bm25, "model": one.model}),
                );
            let folders: Vec<_> = folders.collect();
            let all = json!({"folders": folders, "mean": {"bm25": bm25, "model": model}});
            json_line(&serde_json::to_string_pretty(&all)?);
            return Ok(());
        }
        for (data, one) in self.data.iter().zip(measured) {
            let title = format!("{} {}", data.display(), self.split);
            say!("{}\n", evaluation_table(&title, &[("BM25", &one.bm25), (&name, &one.model)]));
        }
        let title = format!("mean of {} folders", measured.len());
        say!("{}", metric_rows(&title, &[("BM25", &bm25), (&name, &model)]));
        Ok(())
    }
}

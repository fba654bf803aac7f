//! `ragtrainer encode`

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use ragtrainer::data::{Side, TextRecord, read_texts};
use ragtrainer::model::TokenPooling;
use ragtrainer::search::{Split, VectorFormat};
use ragtrainer::train::Processes;
use ragtrainer::{Document, DocumentFolder, RagPretrainedModel};

use crate::model::ModelArgs;
use crate::output::{complain, say};
use crate::progress::counted;

/// Encode texts with a trained model: into a folder that `ragtrainer search` searches, or into a file for other
/// programs.
#[derive(Debug, Args)]
#[command(after_help = "A text is a line of JSONL (a text, or an object with `text` or `content`, `_id` or `id`, and \
    perhaps an object `metadata`, which every hit returns), an item of a JSON list, a row of CSV or Parquet, or a line \
    of TSV (text; or id and text). Every format but Parquet may be compressed with gzip.\n\n\
    Several processes (mpirun) share the texts; the first one writes.")]
#[command(group = clap::ArgGroup::new("to").args(["folder", "output"]).required(true))]
pub(crate) struct EncodeCommand {
    #[command(flatten)]
    model: ModelArgs,
    /// File of texts (see below); repeatable.
    #[arg(long, value_name = "FILE", required_unless_present = "delete")]
    input: Vec<PathBuf>,
    /// Directory of encoded documents; created if missing, appended to otherwise.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Delete the document with this id from the folder before anything is added; repeatable.
    #[arg(long, value_name = "ID", requires = "folder")]
    delete: Vec<String>,
    /// Number format of the folder's vectors: float32, float16 (half the size) or int8 (a quarter) [default: that of
    /// the folder, float32 for a new one].
    #[arg(long, value_name = "FORMAT", requires = "folder")]
    vectors: Option<VectorFormat>,
    /// Split long documents into passages, which are found on their own and point to their document: between
    /// sentences, or into stretches of tokens.
    #[arg(long, value_name = "HOW", requires = "folder")]
    split: Option<SplitBy>,
    /// Tokens of a passage at most [default: what the model's doc_maxlen leaves for text].
    #[arg(long, value_name = "N", requires = "split")]
    passage_tokens: Option<usize>,
    /// Tokens that a passage shares with the one before it, with --split tokens.
    #[arg(long, value_name = "N", requires = "split", default_value_t = 0)]
    overlap: usize,
    /// Keep about one vector in X of each document: like vectors become their mean, the first token is kept as it is
    /// (hierarchical token pooling). 2 or 3 lose little; 1 keeps all.
    #[arg(long, value_name = "X", conflicts_with = "queries")]
    pool_factor: Option<f64>,
    /// File of vectors: FILE.npy (and FILE.offsets.npy beside it) or FILE.safetensors.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Encode the texts as queries, with [MASK] expansion where the model has it.
    #[arg(long, requires = "output")]
    queries: bool,
}

/// How documents are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitBy {
    /// Between sentences.
    Sentences,
    /// Into stretches of tokens.
    Tokens,
}

impl EncodeCommand {
    fn split(&self) -> anyhow::Result<Split> {
        let (tokens, overlap) = (self.passage_tokens, self.overlap);
        match self.split {
            Some(SplitBy::Tokens) => Ok(Split::Tokens { tokens, overlap }),
            _ if overlap > 0 => anyhow::bail!("--overlap = {overlap} needs --split tokens; sentences do not overlap"),
            Some(SplitBy::Sentences) => Ok(Split::Sentences { tokens }),
            None => Ok(Split::Whole),
        }
    }

    pub(crate) fn run(self, processes: &Arc<dyn Processes>) -> anyhow::Result<ExitCode> {
        let is_npy = match self.output.as_ref().and_then(|path| path.extension()?.to_str()) {
            Some("npy") => true,
            Some("safetensors") => false,
            _ if self.output.is_none() => false,
            _ => anyhow::bail!("--output must end in .npy or .safetensors"),
        };
        let split = self.split()?;
        let pooling = self.pool_factor.map(TokenPooling::new).transpose()?;
        let mut records: Vec<TextRecord> = Vec::new();
        let side = if self.queries { Side::Query } else { Side::Document };
        for path in &self.input {
            let file = read_texts(path, side)?;
            if let Some(note) = &file.note {
                complain!("{note}");
            }
            records.extend(file.records);
        }
        let model = self.model.load_with(processes)?;
        let model = match pooling {
            Some(pooling) => model.with_token_pooling(pooling),
            None => model,
        };
        if !processes.is_first() {
            return self.help(&model, records, split);
        }
        if let Some(path) = &self.folder {
            let mut folder = DocumentFolder::open_or_create_as(path, &model, self.vectors)?;
            if !self.delete.is_empty() {
                let deleted = folder.delete(&self.delete)?;
                say!("{}: {deleted} documents deleted", path.display());
            }
            let documents: Vec<Document> = std::mem::take(&mut records).into_iter().map(Document::from).collect();
            let (total, before) = (documents.len(), folder.passages());
            let what = if split == Split::Whole { "documents encoded" } else { "passages encoded" };
            counted(total, what, |progress| Ok(folder.add_passages(&model, &documents, split, progress)?))?;
            let passages = match split {
                Split::Whole => String::new(),
                _ => format!(" as {} passages", folder.passages() - before),
            };
            say!("{}: {total} documents added{passages}, {} in all", path.display(), folder.len());
        }
        if let Some(path) = &self.output {
            let texts: Vec<String> = records.into_iter().map(|record| record.text).collect();
            let vectors = counted(texts.len(), "texts encoded", |progress| {
                Ok(if self.queries {
                    model.query_vectors(&texts)?
                } else {
                    model.document_vectors_with(&texts, progress)?
                })
            })?;
            let files = if is_npy {
                format!("{} and {}", path.display(), vectors.write_npy(path)?.display())
            } else {
                vectors.write_safetensors(path)?;
                path.display().to_string()
            };
            say!("{files}: {} texts, {} vectors of {}", vectors.len(), vectors.tokens(), vectors.dim());
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Encodes a share of the texts, which process 0 writes.
    fn help(self, model: &RagPretrainedModel, records: Vec<TextRecord>, split: Split) -> anyhow::Result<ExitCode> {
        if self.folder.is_some() {
            let documents: Vec<Document> = records.into_iter().map(Document::from).collect();
            model.help_to_add(&documents, split)?;
        } else {
            let texts: Vec<String> = records.into_iter().map(|record| record.text).collect();
            if self.queries {
                model.query_vectors(&texts)?
            } else {
                model.document_vectors(&texts)?
            };
        }
        Ok(ExitCode::SUCCESS)
    }
}

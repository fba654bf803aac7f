//! `ragtrainer encode`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ragtrainer::DocumentFolder;
use ragtrainer::data::{TextRecord, TextSide, read_texts};

use crate::model::ModelArgs;
use crate::output::{complain, say};
use crate::progress::counted;

/// Encode texts with a trained model: into a folder that `ragtrainer search` searches, or into a file for other programs.
///
/// A text is a line of JSONL (a text, or an object with `text` or `content`, and `_id` or `id`), a member of a JSON list,
/// a row of CSV or Parquet, or a line of TSV (text; or id and text); each but Parquet may be gzip.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("to").args(["folder", "output"]).required(true))]
pub(crate) struct EncodeCommand {
    #[command(flatten)]
    model: ModelArgs,
    /// File of texts; repeatable.
    #[arg(long, value_name = "FILE", required_unless_present = "delete")]
    input: Vec<PathBuf>,
    /// Directory of encoded documents; created if missing, appended to otherwise.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Delete the document with this id from the folder before anything is added; repeatable.
    #[arg(long, value_name = "ID", requires = "folder")]
    delete: Vec<String>,
    /// File of vectors: FILE.npy (and FILE.offsets.npy beside it) or FILE.safetensors.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The texts are queries.
    #[arg(long, requires = "output")]
    queries: bool,
}

impl EncodeCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let is_npy = match self.output.as_ref().and_then(|path| path.extension()?.to_str()) {
            Some("npy") => true,
            Some("safetensors") => false,
            _ if self.output.is_none() => false,
            _ => anyhow::bail!("--output must end in .npy or .safetensors"),
        };
        let mut records: Vec<TextRecord> = Vec::new();
        let side = if self.queries { TextSide::Queries } else { TextSide::Documents };
        for path in &self.input {
            let file = read_texts(path, side)?;
            if let Some(note) = &file.note {
                complain!("{note}");
            }
            records.extend(file.records);
        }
        let model = self.model.load()?;
        if let Some(path) = &self.folder {
            let mut folder = DocumentFolder::open_or_create(path, &model)?;
            if !self.delete.is_empty() {
                let deleted = folder.delete(&self.delete)?;
                say!("{}: {deleted} documents deleted", path.display());
            }
            let total = records.len();
            let documents: Vec<_> = std::mem::take(&mut records).into_iter().map(|r| (r.id, r.text)).collect();
            counted(total, "documents encoded", |progress| Ok(folder.add(&model, &documents, progress)?))?;
            say!("{}: {total} documents added, {} in all", path.display(), folder.len());
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
}

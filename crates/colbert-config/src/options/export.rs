//! Values of the options that describe the model directory.

use serde::{Deserialize, Serialize};

/// Type of the numbers in a model directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportDtype {
    /// float32.
    #[default]
    F32,
    /// float16: 11 significant bits, at most 65504.
    F16,
    /// bfloat16: 8 significant bits, the range of float32.
    Bf16,
}

impl ExportDtype {
    /// Its name in PyTorch, as `config.json` has it.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }
}

/// Programs that a model directory is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExportLayout {
    /// One directory for colbert-ai, RAGatouille, PyLate, sentence-transformers and pylate-rs.
    #[default]
    All,
    /// The files that sentence-transformers 6 itself writes, which the other programs cannot load.
    SentenceTransformers,
}

//! Prefixes and pooling that families of sentence encoders were trained with, for directories that do not declare them.

use std::path::Path;

use serde_json::Value;

/// The pooling of the vectors of a text's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The vector of the first token.
    Cls,
}

/// Prefixes and pooling of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Family {
    /// Part of the name that identifies it, in lower case.
    name: &'static str,
    pub(crate) query_prefix: &'static str,
    pub(crate) document_prefix: &'static str,
    pub(crate) pooling: Pooling,
}

const SEARCHING: &str = "Represent this sentence for searching relevant passages: ";

/// Sources: the model cards of intfloat/e5-*, intfloat/multilingual-e5-*, BAAI/bge-*-en and -zh,
/// Snowflake/snowflake-arctic-embed-*, mixedbread-ai/mxbai-embed-*, OrdalieTech/Solon-embeddings-*, thenlper/gte-*. The
/// first that fits counts.
const FAMILIES: &[Family] = &[
    Family { name: "e5", query_prefix: "query: ", document_prefix: "passage: ", pooling: Pooling::Mean },
    Family {
        name: "bge-*-zh",
        query_prefix: "为这个句子生成表示以用于检索相关文章：",
        document_prefix: "",
        pooling: Pooling::Cls,
    },
    Family { name: "bge-*-en", query_prefix: SEARCHING, document_prefix: "", pooling: Pooling::Cls },
    Family { name: "arctic-embed", query_prefix: SEARCHING, document_prefix: "", pooling: Pooling::Cls },
    Family { name: "mxbai-embed", query_prefix: SEARCHING, document_prefix: "", pooling: Pooling::Cls },
    Family { name: "solon-embeddings", query_prefix: "query : ", document_prefix: "", pooling: Pooling::Mean },
];

/// sentence-transformers' own default for a plain encoder; also right for gte, MiniLM and others without prefixes.
const PLAIN: Family = Family { name: "", query_prefix: "", document_prefix: "", pooling: Pooling::Mean };

impl Family {
    /// Finds the family by the directory's name, by that of the hub's cache around it, or by the name in `config.json`.
    pub(crate) fn of(directory: &Path, config: &Value) -> Self {
        let parts = directory.components().rev().map(|part| part.as_os_str().to_string_lossy().to_lowercase());
        let mut names: Vec<String> = parts
            .enumerate()
            .filter(|(place, part)| *place == 0 || part.starts_with("models--"))
            .map(|(_, part)| part)
            .collect();
        names.extend(config.get("_name_or_path").and_then(Value::as_str).map(str::to_lowercase));
        let fits = |family: &&Self| names.iter().any(|name| family.fits(name));
        FAMILIES.iter().find(fits).copied().unwrap_or(PLAIN)
    }

    /// Returns whether the words of the family follow each other in the name; `*` stands for one word.
    fn fits(&self, name: &str) -> bool {
        let words: Vec<&str> = name.split(['-', '_', '/', '.']).collect();
        let wanted: Vec<&str> = self.name.split('-').collect();
        words
            .windows(wanted.len())
            .any(|window| window.iter().zip(&wanted).all(|(word, wanted)| *wanted == "*" || word == wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_families() {
        let prefixes = |name: &str| {
            let family = Family::of(Path::new(name), &Value::Null);
            (family.query_prefix, family.document_prefix, family.pooling)
        };
        let e5 = ("query: ", "passage: ", Pooling::Mean);
        let searching = (SEARCHING, "", Pooling::Cls);
        for (name, expected) in [
            ("models/e5-small-v2", e5),
            ("multilingual-e5-base", e5),
            ("cache/models--intfloat--e5-base/snapshots/0a1b2c", e5),
            ("BAAI/bge-small-en-v1.5", searching),
            ("bge-large-en", searching),
            ("snowflake-arctic-embed-xs", searching),
            ("mxbai-embed-large-v1", searching),
            ("Solon-embeddings-base-0.1", ("query : ", "", Pooling::Mean)),
            ("thenlper/gte-small-zh", ("", "", Pooling::Mean)),
            ("all-MiniLM-L6-v2", ("", "", Pooling::Mean)),
            ("e5/my-model", ("", "", Pooling::Mean)),
            ("core5-model", ("", "", Pooling::Mean)),
        ] {
            assert_eq!(prefixes(name), expected, "{name}");
        }
        assert!(prefixes("bge-base-zh-v1.5").0.starts_with('为'));
        let config = serde_json::json!({ "_name_or_path": "intfloat/e5-small" });
        assert_eq!(Family::of(Path::new("checkpoint"), &config).query_prefix, "query: ");
    }
}

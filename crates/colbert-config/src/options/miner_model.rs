//! The sentence encoders that the reference mines with, by language and size.

use crate::options::negatives::MinerModelSize;

/// Name on the Hugging Face hub of the sentence encoder that the reference takes.
///
/// Source: RAGatouille 0.0.9, `negative_miners/simpleminer.py`.
#[must_use]
pub fn reference_miner_model(language_code: &str, size: MinerModelSize) -> &'static str {
    use MinerModelSize::{Base, Large, Small};
    match (language_code, size) {
        ("en", Small) => "BAAI/bge-small-en-v1.5",
        ("en", Base) => "BAAI/bge-base-en-v1.5",
        ("en", Large) => "BAAI/bge-large-en-v1.5",
        ("zh", Small) => "thenlper/gte-small-zh",
        ("zh", Base) => "thenlper/gte-base-zh",
        ("zh", Large) => "thenlper/gte-large-zh",
        ("fr", Small | Base) => "OrdalieTech/Solon-embeddings-base-0.1",
        ("fr", Large) => "OrdalieTech/Solon-embeddings-large-0.1",
        (_, Small) => "intfloat/multilingual-e5-small",
        (_, Base) => "intfloat/multilingual-e5-base",
        (_, Large) => "intfloat/multilingual-e5-large",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_references() {
        let names = |language| {
            [MinerModelSize::Small, MinerModelSize::Base, MinerModelSize::Large]
                .map(|size| reference_miner_model(language, size))
        };
        assert_eq!(names("en"), ["BAAI/bge-small-en-v1.5", "BAAI/bge-base-en-v1.5", "BAAI/bge-large-en-v1.5"]);
        assert_eq!(names("zh"), ["thenlper/gte-small-zh", "thenlper/gte-base-zh", "thenlper/gte-large-zh"]);
        let solon = ["OrdalieTech/Solon-embeddings-base-0.1", "OrdalieTech/Solon-embeddings-large-0.1"];
        assert_eq!(names("fr"), [solon[0], solon[0], solon[1]]);
        let e5 = ["intfloat/multilingual-e5-small", "intfloat/multilingual-e5-base", "intfloat/multilingual-e5-large"];
        assert_eq!(names("de"), e5);
    }
}

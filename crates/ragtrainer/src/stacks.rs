//! What other programs do otherwise than this one with a directory that is written here. docs/interop.md has the table.

use colbert_config::TrainOptions;

/// What a program does not honour of what was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotHonoured {
    /// The program, or several that do the same.
    pub stack: &'static str,
    /// What it does instead, and what is other for it.
    pub instead: &'static str,
    /// It is so with the default options too.
    pub by_default: bool,
}

impl std::fmt::Display for NotHonoured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.stack, self.instead)
    }
}

/// What programs that load an exported directory do not honour of these options, a stack after the other. PyLate and
/// sentence-transformers honour all of them.
pub fn not_honoured(options: &TrainOptions) -> Vec<NotHonoured> {
    const COLBERT_AI: &str = "colbert-ai and RAGatouille";
    const PYLATE_RS: &str = "pylate-rs";
    const NEXT_PLAID: &str = "next-plaid, by way of PyLate's ONNX export";
    const NO_RELU: &str = "leave the ReLU after the projection out: other vectors";
    let TrainOptions { use_relu, query_expansion, mask_punctuation, attend_to_mask_tokens, .. } = *options;
    [
        (use_relu, COLBERT_AI, NO_RELU, false),
        (!query_expansion, COLBERT_AI, "fill queries up with [MASK] all the same: other vectors", false),
        (use_relu, PYLATE_RS, "leaves the ReLU after the projection out: other vectors", false),
        (!query_expansion, PYLATE_RS, "fills queries up with [MASK] all the same: other vectors", false),
        (mask_punctuation, PYLATE_RS, "scores the punctuation of documents: other scores, the same vectors", true),
        (use_relu, NEXT_PLAID, "leaves the ReLU after the projection out: other vectors", false),
        (
            query_expansion && !attend_to_mask_tokens,
            NEXT_PLAID,
            "does without [MASK] expansion, or attends to it: other vectors of queries",
            true,
        ),
        (
            query_expansion && attend_to_mask_tokens,
            NEXT_PLAID,
            "does without [MASK] expansion: other vectors of queries",
            false,
        ),
    ]
    .into_iter()
    .filter(|(chosen, ..)| *chosen)
    .map(|(_, stack, instead, by_default)| NotHonoured { stack, instead, by_default })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(options: &TrainOptions) -> Vec<(String, bool)> {
        not_honoured(options).iter().map(|one| (one.to_string(), one.by_default)).collect()
    }

    #[test]
    fn what_is_not_honoured_by_default_is_marked() {
        let all = lines(&TrainOptions::default());
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all.iter().all(|(_, by_default)| *by_default), "{all:?}");
        assert!(all[0].0.starts_with("pylate-rs: ") && all[1].0.starts_with("next-plaid"), "{all:?}");
        let attending =
            TrainOptions { mask_punctuation: false, attend_to_mask_tokens: true, ..TrainOptions::default() };
        let all = lines(&attending);
        assert!(all.len() == 1 && all[0].0.contains("does without [MASK] expansion:") && !all[0].1, "{all:?}");
    }

    #[test]
    fn every_choice_has_a_line_for_each_stack() {
        let relu = TrainOptions { use_relu: true, ..TrainOptions::default() };
        assert_eq!(lines(&relu).iter().filter(|(line, _)| line.contains("ReLU")).count(), 3);
        let short = TrainOptions { query_expansion: false, ..TrainOptions::default() };
        let all = lines(&short);
        assert_eq!(all.iter().filter(|(line, _)| line.contains("fill")).count(), 2);
        assert!(!all.iter().any(|(line, _)| line.contains("does without")), "{all:?}");
    }
}

//! The configuration of DeBERTa: the keys that the encoder reads, and what follows from them.

use serde::{Deserialize, Serialize};

use crate::encoder::families::deberta_places::Relative;
use crate::encoder::families::defaults;
use crate::encoder::family::Unsupported;
use crate::encoder::token_embeddings::{EMBEDDINGS_NORM, TableSizes};
use crate::encoder::transformer::LayerSizes;

/// The part of `config.json` that the encoder reads. Defaults are transformers' `DebertaV2Config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DebertaConfig {
    /// Rows of the word embedding matrix.
    pub vocab_size: usize,
    /// Size of a hidden vector.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads of a layer.
    pub num_attention_heads: usize,
    /// Size of a head; only `hidden_size / num_attention_heads` is supported.
    #[serde(default)]
    pub attention_head_size: Option<usize>,
    /// Size of the feed-forward layer.
    pub intermediate_size: usize,
    /// Size of a word embedding; only `hidden_size` is supported.
    #[serde(default)]
    pub embedding_size: Option<usize>,
    /// Activation of the feed-forward layer; only `gelu` (by the error function) is supported.
    #[serde(default = "defaults::gelu")]
    pub hidden_act: String,
    /// Dropout after embeddings, of places, and after attention output and feed-forward output.
    #[serde(default = "defaults::tenth")]
    pub hidden_dropout_prob: f64,
    /// Dropout on attention weights.
    #[serde(default = "defaults::tenth")]
    pub attention_probs_dropout_prob: f64,
    /// Longest sequence, in tokens.
    #[serde(default = "defaults::positions_512")]
    pub max_position_embeddings: usize,
    /// Rows of the token type embedding matrix, which may have none; only row 0 is used.
    #[serde(default)]
    pub type_vocab_size: usize,
    /// Epsilon of layer normalisation.
    #[serde(default = "defaults::eps_1e_7")]
    pub layer_norm_eps: f64,
    /// Standard deviation that new weights are drawn with.
    #[serde(default = "defaults::initializer_range")]
    pub initializer_range: f64,
    /// Whether attention has places; only `true` is supported.
    #[serde(default)]
    pub relative_attention: bool,
    /// The largest distance with a place of its own without buckets, or the end of the last bucket with them; below 1
    /// it is `max_position_embeddings`.
    #[serde(default = "none")]
    pub max_relative_positions: i64,
    /// Number of buckets of distances to each side; below 1 each distance has its own place.
    #[serde(default = "none")]
    pub position_buckets: i64,
    /// Norms of the table of places; `layer_norm` among them, or `none`.
    #[serde(default = "no_norm")]
    pub norm_rel_ebd: String,
    /// Whether places are mapped by the matrices of queries and keys; only `true` is supported.
    #[serde(default)]
    pub share_att_key: bool,
    /// Products that are added: of the query and the key's place (`c2p`), of the key and the query's place (`p2c`).
    #[serde(default)]
    pub pos_att_type: Option<PlaceProducts>,
    /// Whether positions are embedded too.
    #[serde(default = "defaults::yes")]
    pub position_biased_input: bool,
    /// Width of a convolution beside the first layer; only 0, no convolution, is supported.
    #[serde(default)]
    pub conv_kernel_size: usize,
}

/// The products with places, as files spell them: one text or a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PlaceProducts {
    /// Such as `"p2c|c2p"`.
    Joined(String),
    /// Such as `["p2c", "c2p"]`.
    Listed(Vec<String>),
}

fn none() -> i64 {
    -1
}
fn no_norm() -> String {
    "none".to_owned()
}

impl DebertaConfig {
    /// Returns the kinds of products with places, in lower case.
    fn products(&self) -> Vec<String> {
        match &self.pos_att_type {
            None => Vec::new(),
            Some(PlaceProducts::Joined(text)) => {
                text.to_lowercase().split('|').map(|kind| kind.trim().to_owned()).collect()
            }
            Some(PlaceProducts::Listed(kinds)) => kinds.clone(),
        }
    }

    fn has(&self, kind: &str) -> bool {
        self.products().iter().any(|own| own == kind)
    }

    /// Returns the distances and what attention adds for them.
    pub(super) fn relative(&self) -> Relative {
        let farthest = match self.max_relative_positions {
            none if none < 1 => self.max_position_embeddings,
            given => given as usize,
        };
        let buckets = (self.position_buckets > 0).then_some(self.position_buckets as usize);
        let (to_place, from_place) = (self.has("c2p"), self.has("p2c"));
        let terms = 1 + usize::from(to_place) + usize::from(from_place);
        let head_size = self.hidden_size / self.num_attention_heads.max(1);
        let scale = 1.0 / ((head_size * terms) as f32).sqrt();
        Relative { farthest, buckets, to_place, from_place, scale }
    }

    /// Returns whether the table of places is normalised.
    pub(super) fn normalises_places(&self) -> bool {
        self.norm_rel_ebd.to_lowercase().split('|').any(|norm| norm.trim() == "layer_norm")
    }

    pub(super) fn layers(&self) -> LayerSizes {
        LayerSizes {
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            wide: self.intermediate_size,
            eps: self.layer_norm_eps,
            attention_dropout: self.attention_probs_dropout_prob,
            projection_dropout: self.hidden_dropout_prob,
            output_dropout: self.hidden_dropout_prob,
        }
    }

    pub(super) fn tables(&self) -> TableSizes {
        TableSizes {
            norm: EMBEDDINGS_NORM,
            words: self.vocab_size,
            positions: self.position_biased_input.then_some(self.max_position_embeddings),
            token_types: (self.type_vocab_size > 0).then_some(self.type_vocab_size),
            size: self.hidden_size,
            eps: self.layer_norm_eps,
            dropout: self.hidden_dropout_prob,
        }
    }

    /// Returns the first key that requires unsupported layers.
    pub(super) fn unsupported_form(&self) -> Option<Unsupported> {
        for (field, set) in [("relative_attention", self.relative_attention), ("share_att_key", self.share_att_key)] {
            if !set {
                return Some((field, "false".to_owned(), "true, as every published model has it".to_owned()));
            }
        }
        if self.conv_kernel_size > 0 {
            return Some(("conv_kernel_size", self.conv_kernel_size.to_string(), "0: no convolution".to_owned()));
        }
        let known = |kind: &String| matches!(kind.as_str(), "c2p" | "p2c");
        if let Some(kind) = self.products().into_iter().find(|kind| !known(kind)) {
            return Some(("pos_att_type", kind, "\"c2p\", \"p2c\" or both".to_owned()));
        }
        let other = self.embedding_size.filter(|size| *size != self.hidden_size);
        other.map(|size| ("embedding_size", size.to_string(), format!("hidden_size = {}", self.hidden_size)))
    }

    /// Returns the first key of heads and distances that is out of range.
    pub(super) fn unsupported_distances(&self) -> Option<Unsupported> {
        let head_size = self.hidden_size / self.num_attention_heads;
        if let Some(size) = self.attention_head_size.filter(|size| *size != head_size) {
            let expected = format!("hidden_size / num_attention_heads = {head_size}");
            return Some(("attention_head_size", size.to_string(), expected));
        }
        // Below two buckets, and below more distances than half of them, the logarithms have no meaning.
        let Relative { farthest, buckets, .. } = self.relative();
        if let Some(buckets) = buckets.filter(|buckets| *buckets < 4 || *buckets > 1 << 20) {
            return Some(("position_buckets", buckets.to_string(), "4 to 1048576, or -1 for none".to_owned()));
        }
        let least = buckets.map_or(1, |buckets| buckets / 2 + 2);
        let expected = || format!("{least} to 1048576, or -1 for max_position_embeddings");
        let fits = (least..=1 << 20).contains(&farthest);
        (!fits).then(|| ("max_relative_positions", farthest.to_string(), expected()))
    }
}

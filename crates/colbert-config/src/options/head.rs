//! The layers of a new head, as a person writes them: `768 gelu residual, dim`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The word that stands for the size `train.dim`.
const DIM: &str = "dim";

/// First weights of a new head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadInit {
    /// Drawn at random, as in colbert-ai.
    #[default]
    Random,
    /// Principal components of the encoder's token vectors on training texts.
    Pca,
}

/// The activation after a layer's matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeadActivation {
    /// None.
    #[default]
    Identity,
    /// max(x, 0)
    Relu,
    /// x Phi(x)
    Gelu,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + exp(-x))
    Sigmoid,
    /// x sigmoid(x)
    Silu,
}

/// Every activation that has a word.
const WORDS: [(HeadActivation, &str); 5] = [
    (HeadActivation::Relu, "relu"),
    (HeadActivation::Gelu, "gelu"),
    (HeadActivation::Tanh, "tanh"),
    (HeadActivation::Sigmoid, "sigmoid"),
    (HeadActivation::Silu, "silu"),
];

/// One layer of a new head: a matrix, a bias, an activation, and its input added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeadLayer {
    /// Size of its output vectors; `None` is `train.dim`.
    pub size: Option<usize>,
    /// Activation after the matrix and the bias.
    pub activation: HeadActivation,
    /// A bias is added to the matrix's output.
    pub bias: bool,
    /// The input is added to the output: as it is, or through a matrix of its own if the sizes differ.
    pub residual: bool,
}

/// The layers of a new head in order. An empty list is one matrix to `train.dim`, which is colbert-ai's head.
///
/// Written as comma-separated layers: each is a size, or `dim` for `train.dim`, followed by any of an activation,
/// `bias` and `residual`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadLayers(pub Vec<HeadLayer>);

impl FromStr for HeadLayer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let first = words.next().ok_or("a layer between two commas is empty")?;
        let size = match first {
            DIM => None,
            number => {
                let size =
                    number.parse().map_err(|_| format!("`{number}` is not a size; expected a number or `{DIM}`"));
                Some(size?)
            }
        };
        let mut layer = Self { size, ..Self::default() };
        for word in words {
            let activation = WORDS.iter().find(|(_, known)| *known == word).map(|(activation, _)| *activation);
            let is_second = match (word, activation) {
                ("bias", _) => std::mem::replace(&mut layer.bias, true),
                ("residual", _) => std::mem::replace(&mut layer.residual, true),
                (_, Some(activation)) => {
                    std::mem::replace(&mut layer.activation, activation) != HeadActivation::Identity
                }
                _ => {
                    let known: Vec<&str> = WORDS.iter().map(|(_, word)| *word).collect();
                    return Err(format!(
                        "`{word}` is unknown; expected bias, residual, or one of {}",
                        known.join(", ")
                    ));
                }
            };
            if is_second {
                return Err(format!("`{word}` is one too many in the layer `{}`", text.trim()));
            }
        }
        Ok(layer)
    }
}

impl fmt::Display for HeadLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.size {
            Some(size) => write!(f, "{size}")?,
            None => f.write_str(DIM)?,
        }
        let activation = WORDS.iter().find(|(activation, _)| *activation == self.activation).map(|(_, word)| *word);
        let words = [self.bias.then_some("bias"), activation, self.residual.then_some("residual")];
        words.into_iter().flatten().try_for_each(|word| write!(f, " {word}"))
    }
}

impl FromStr for HeadLayers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for HeadLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, layer) in self.0.iter().enumerate() {
            write!(f, "{}{layer}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl Serialize for HeadLayers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HeadLayers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_read_and_written_alike() {
        let text = "1536 bias gelu residual, 64 silu, dim residual";
        let layers: HeadLayers = text.parse().unwrap();
        assert_eq!(layers.to_string(), text);
        assert_eq!(
            layers.0[0],
            HeadLayer { size: Some(1536), activation: HeadActivation::Gelu, bias: true, residual: true }
        );
        assert_eq!(layers.0[2], HeadLayer { residual: true, ..HeadLayer::default() });
        assert_eq!(
            serde_json::from_str::<HeadLayers>("\" 8  residual bias ,dim\"").unwrap().to_string(),
            "8 bias residual, dim"
        );
        assert_eq!("  ".parse::<HeadLayers>().unwrap(), HeadLayers::default());
    }

    #[test]
    fn errors_name_the_word() {
        for (text, part) in [
            ("768,,dim", "a layer between two commas is empty"),
            ("gelu, dim", "`gelu` is not a size; expected a number or `dim`"),
            ("-8, dim", "`-8` is not a size"),
            ("768 softmax, dim", "`softmax` is unknown; expected bias, residual, or one of relu, gelu"),
            ("768 gelu relu, dim", "`relu` is one too many in the layer `768 gelu relu`"),
            ("768 bias bias, dim", "`bias` is one too many"),
        ] {
            let message = text.parse::<HeadLayers>().unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }
}

//! A number of tokens, or `"model"` for [`MODEL_LENGTH`].

use std::fmt;

use serde::{Deserializer, Serializer, de};

/// A length in tokens that only the model limits. It becomes a number once the model is read.
pub const MODEL_LENGTH: usize = usize::MAX;

const WORD: &str = "model";

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
pub(crate) fn serialize<S: Serializer>(tokens: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    match *tokens {
        MODEL_LENGTH => serializer.serialize_str(WORD),
        tokens => serializer.serialize_u64(tokens as u64),
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    struct Tokens;

    impl de::Visitor<'_> for Tokens {
        type Value = usize;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of tokens or \"model\"")
        }

        fn visit_u64<E: de::Error>(self, tokens: u64) -> Result<usize, E> {
            // The largest number stands for the word, so it is read as a smaller one, which is out of range too.
            Ok(usize::try_from(tokens).unwrap_or(MODEL_LENGTH).min(MODEL_LENGTH - 1))
        }

        fn visit_i64<E: de::Error>(self, tokens: i64) -> Result<usize, E> {
            match u64::try_from(tokens) {
                Ok(tokens) => self.visit_u64(tokens),
                Err(_) => Err(E::invalid_value(de::Unexpected::Signed(tokens), &self)),
            }
        }

        fn visit_str<E: de::Error>(self, word: &str) -> Result<usize, E> {
            if word.trim().eq_ignore_ascii_case(WORD) {
                return Ok(MODEL_LENGTH);
            }
            match word.trim().parse() {
                Ok(tokens) => self.visit_u64(tokens),
                Err(_) => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
            }
        }
    }

    deserializer.deserialize_any(Tokens)
}

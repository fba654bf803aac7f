//! Values that are a number or a word such as `"auto"` or `"constant"`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of steps, or `"auto"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoSteps {
    /// Derived from the size of the run.
    #[default]
    Auto,
    /// Exactly this many.
    Steps(usize),
}

/// Warm-up steps: `"auto"`, a number, or `"constant"` for a learning rate that neither rises nor falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Warmup {
    /// A tenth of the steps.
    #[default]
    Auto,
    /// Exactly this many, then linear decay.
    Steps(usize),
    /// No schedule: the reference's `warmup_steps=None`.
    Constant,
}

/// A number or a word, before the word is interpreted.
struct NumberOrWord;

enum Parsed {
    Number(usize),
    Word(String),
}

impl de::Visitor<'_> for NumberOrWord {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of steps (0 or more) or a word such as \"auto\"")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Parsed, E> {
        usize::try_from(value).map(Parsed::Number).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Parsed, E> {
        usize::try_from(value).map(Parsed::Number).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Parsed, E> {
        Ok(value.parse().map_or_else(|_| Parsed::Word(value.to_ascii_lowercase()), Parsed::Number))
    }
}

impl<'de> Deserialize<'de> for AutoSteps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(NumberOrWord)? {
            Parsed::Number(steps) => Ok(Self::Steps(steps)),
            Parsed::Word(word) if word == "auto" => Ok(Self::Auto),
            Parsed::Word(word) => Err(de::Error::invalid_value(de::Unexpected::Str(&word), &"a number or \"auto\"")),
        }
    }
}

impl Serialize for AutoSteps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Steps(steps) => serializer.serialize_u64(*steps as u64),
        }
    }
}

impl<'de> Deserialize<'de> for Warmup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(NumberOrWord)? {
            Parsed::Number(steps) => Ok(Self::Steps(steps)),
            Parsed::Word(word) if word == "auto" => Ok(Self::Auto),
            Parsed::Word(word) if word == "constant" => Ok(Self::Constant),
            Parsed::Word(word) => {
                Err(de::Error::invalid_value(de::Unexpected::Str(&word), &"a number, \"auto\" or \"constant\""))
            }
        }
    }
}

impl Serialize for Warmup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Steps(steps) => serializer.serialize_u64(*steps as u64),
            Self::Constant => serializer.serialize_str("constant"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_str, to_string};

    #[test]
    fn steps_are_a_number_or_auto() {
        for (text, steps) in [
            ("7", AutoSteps::Steps(7)),
            ("\"7\"", AutoSteps::Steps(7)),
            ("\"auto\"", AutoSteps::Auto),
            ("\"AUTO\"", AutoSteps::Auto),
        ] {
            assert_eq!(from_str::<AutoSteps>(text).unwrap(), steps, "{text}");
            assert_eq!(from_str::<AutoSteps>(&to_string(&steps).unwrap()).unwrap(), steps);
        }
        for text in ["-1", "0.5", "\"constant\"", "\"\"", "true", "null"] {
            assert!(from_str::<AutoSteps>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn warmup_can_also_be_constant() {
        for (text, warmup) in [("0", Warmup::Steps(0)), ("\"auto\"", Warmup::Auto), ("\"constant\"", Warmup::Constant)]
        {
            assert_eq!(from_str::<Warmup>(text).unwrap(), warmup, "{text}");
            assert_eq!(to_string(&warmup).unwrap(), text);
        }
        let message = from_str::<Warmup>("\"none\"").unwrap_err().to_string();
        assert!(message.contains("\"none\"") && message.contains("\"auto\" or \"constant\""), "{message}");
    }
}

//! How examples of several sources come together.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A list of numbers: written as a list, as a text such as `2, 1`, or as nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Numbers(pub Vec<f64>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    One(f64),
    List(Vec<f64>),
    Text(String),
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<Written>::deserialize(deserializer)? {
            None => Ok(Self::default()),
            Some(Written::One(number)) => Ok(Self(vec![number])),
            Some(Written::List(numbers)) => Ok(Self(numbers)),
            Some(Written::Text(text)) => {
                let number = |part: &str| part.trim().parse::<f64>();
                let numbers = text.split(',').map(number).collect::<Result<_, _>>();
                let expected = "numbers with commas between them, such as \"2, 1\"";
                numbers.map(Self).map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &expected))
            }
        }
    }
}

impl Serialize for Numbers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_empty() { serializer.serialize_none() } else { self.0.serialize(serializer) }
    }
}

/// Sources of the examples of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MixBatches {
    /// Any.
    #[default]
    Mixed,
    /// One for a batch, so that in-batch negatives come from the query's own source.
    OneSource,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_str, to_string};

    #[test]
    fn lists_of_numbers_are_read_and_written() {
        for (text, numbers, written) in [
            ("null", vec![], "null"),
            ("[2,0.5]", vec![2.0, 0.5], "[2.0,0.5]"),
            ("\"2, 0.5\"", vec![2.0, 0.5], "[2.0,0.5]"),
            ("\"3\"", vec![3.0], "[3.0]"),
            ("3", vec![3.0], "[3.0]"),
        ] {
            let read: Numbers = from_str(text).unwrap();
            assert_eq!((&read.0, to_string(&read).unwrap().as_str()), (&numbers, written));
        }
        for wrong in ["true", "\"2;1\"", "\"\"", "[\"x\"]", "{}"] {
            assert!(from_str::<Numbers>(wrong).is_err(), "{wrong}");
        }
    }
}

//! A list of sizes, such as those of Matryoshka vectors.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A list of whole numbers: written as a list, as a text such as `128, 64`, or as nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sizes(pub Vec<usize>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    One(usize),
    List(Vec<usize>),
    Text(String),
}

impl<'de> Deserialize<'de> for Sizes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<Written>::deserialize(deserializer)? {
            None => Ok(Self::default()),
            Some(Written::One(size)) => Ok(Self(vec![size])),
            Some(Written::List(sizes)) => Ok(Self(sizes)),
            Some(Written::Text(text)) => {
                let sizes = text.split(',').map(|part| part.trim().parse::<usize>()).collect::<Result<_, _>>();
                let expected = "whole numbers with commas between them, such as \"128, 64\"";
                sizes.map(Self).map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &expected))
            }
        }
    }
}

impl Serialize for Sizes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_empty() { serializer.serialize_none() } else { self.0.serialize(serializer) }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&sizes.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_str, to_string};

    #[test]
    fn lists_of_sizes_are_read_and_written() {
        for (text, sizes, written) in [
            ("null", vec![], "null"),
            ("[128,64]", vec![128, 64], "[128,64]"),
            ("\"128, 64\"", vec![128, 64], "[128,64]"),
            ("3", vec![3], "[3]"),
        ] {
            let read: Sizes = from_str(text).unwrap();
            assert_eq!((&read.0, to_string(&read).unwrap().as_str()), (&sizes, written));
        }
        assert_eq!(Sizes(vec![128, 64]).to_string(), "128, 64");
        for wrong in ["true", "\"128;64\"", "\"\"", "[0.5]", "[-1]", "{}"] {
            assert!(from_str::<Sizes>(wrong).is_err(), "{wrong}");
        }
    }
}

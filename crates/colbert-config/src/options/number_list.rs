//! A list of numbers, such as the sizes of Matryoshka vectors or the weights of sources.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A list of numbers: written as a list, as a text such as `128, 64`, as one number, or as nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberList<T>(pub Vec<T>);

impl<T> Default for NumberList<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// A type of number, and the words that describe a text with several of them.
pub(crate) trait Listed: FromStr {
    const EXPECTED: &'static str;
}

impl Listed for usize {
    const EXPECTED: &'static str = "comma-separated whole numbers, such as \"128, 64\"";
}

impl Listed for f64 {
    const EXPECTED: &'static str = "comma-separated numbers, such as \"2, 1\"";
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written<T> {
    One(T),
    List(Vec<T>),
    Text(String),
}

impl<'de, T: Listed + Deserialize<'de>> Deserialize<'de> for NumberList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<Written<T>>::deserialize(deserializer)? {
            None => Ok(Self::default()),
            Some(Written::One(number)) => Ok(Self(vec![number])),
            Some(Written::List(numbers)) => Ok(Self(numbers)),
            Some(Written::Text(text)) => {
                let numbers = text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>();
                numbers.map(Self).map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &T::EXPECTED))
            }
        }
    }
}

impl<T: Serialize> Serialize for NumberList<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_empty() { serializer.serialize_none() } else { self.0.serialize(serializer) }
    }
}

impl<T: fmt::Display> fmt::Display for NumberList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&numbers.join(", "))
    }
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
            let read: NumberList<f64> = from_str(text).unwrap();
            assert_eq!((&read.0, to_string(&read).unwrap().as_str()), (&numbers, written));
        }
        for wrong in ["true", "\"2;1\"", "\"\"", "[\"x\"]", "{}"] {
            assert!(from_str::<NumberList<f64>>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_of_sizes_are_read_and_written() {
        for (text, sizes, written) in [
            ("null", vec![], "null"),
            ("[128,64]", vec![128, 64], "[128,64]"),
            ("\"128, 64\"", vec![128, 64], "[128,64]"),
            ("3", vec![3], "[3]"),
        ] {
            let read: NumberList<usize> = from_str(text).unwrap();
            assert_eq!((&read.0, to_string(&read).unwrap().as_str()), (&sizes, written));
        }
        assert_eq!(NumberList(vec![128, 64]).to_string(), "128, 64");
        for wrong in ["true", "\"128;64\"", "\"\"", "[0.5]", "[-1]", "{}"] {
            assert!(from_str::<NumberList<usize>>(wrong).is_err(), "{wrong}");
        }
    }
}

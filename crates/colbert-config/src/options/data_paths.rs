//! One path or several; an option file writes nothing, a text, or a list of texts.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Files or folders that are read as one data set, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DataPaths(pub Vec<PathBuf>);

impl DataPaths {
    /// The path, if there is exactly one.
    #[must_use]
    pub fn only(&self) -> Option<&Path> {
        match self.0.as_slice() {
            [path] => Some(path),
            _ => None,
        }
    }
}

impl<P: Into<PathBuf>> From<P> for DataPaths {
    fn from(path: P) -> Self {
        Self(vec![path.into()])
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    One(PathBuf),
    Several(Vec<PathBuf>),
}

impl<'de> Deserialize<'de> for DataPaths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let paths = match Option::<Written>::deserialize(deserializer)? {
            None => Vec::new(),
            Some(Written::One(path)) => vec![path],
            Some(Written::Several(paths)) => paths,
        };
        // Naming a file twice would count everything in it twice.
        let twice = paths.iter().enumerate().find(|(place, path)| paths[..*place].contains(path));
        match twice {
            Some((_, path)) => Err(de::Error::custom(format!("{} is named twice", path.display()))),
            None => Ok(Self(paths)),
        }
    }
}

impl Serialize for DataPaths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [] => serializer.serialize_none(),
            [path] => path.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_str, to_string};

    #[test]
    fn nothing_a_text_and_a_list_are_read_and_written_back() {
        for (text, count) in [("null", 0), ("\"a.jsonl\"", 1), ("[\"a.jsonl\",\"b\"]", 2)] {
            let paths: DataPaths = from_str(text).unwrap();
            assert_eq!((paths.0.len(), to_string(&paths).unwrap().as_str()), (count, text));
            assert_eq!(paths.only().is_some(), count == 1);
        }
        assert_eq!(from_str::<DataPaths>("[\"a\"]").unwrap(), DataPaths::from("a"));
        for wrong in ["true", "3", "[3]", "{}", "[\"a\",\"b\",\"a\"]"] {
            assert!(from_str::<DataPaths>(wrong).is_err(), "{wrong}");
        }
    }
}

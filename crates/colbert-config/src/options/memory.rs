//! Sizes of memory, as text and in bytes.

use std::fmt;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Units that a limit is written in, the larger ones first.
const UNITS: [(&str, u64); 6] = [
    ("TiB", bytesize::TIB),
    ("GiB", bytesize::GIB),
    ("MiB", bytesize::MIB),
    ("TB", bytesize::TB),
    ("GB", bytesize::GB),
    ("MB", bytesize::MB),
];

/// Memory that training may take: `"6GB"`, `"512MiB"`, or `"auto"` for most of what is free when the run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Most of what is free.
    Auto,
    /// Bytes.
    Bytes(u64),
}

impl<'de> Deserialize<'de> for MemoryLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let text = text.trim();
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        let expected = "a size with its unit, such as \"6GB\" or \"512MiB\", or \"auto\"";
        // A number without a unit is more likely a slip than a limit in bytes.
        let has_unit = text.ends_with(|last: char| last.is_alphabetic());
        let size = text.parse::<ByteSize>().ok().filter(|size| has_unit && size.as_u64() > 0);
        let size = size.ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(text), &expected))?;
        Ok(Self::Bytes(size.as_u64()))
    }
}

impl Serialize for MemoryLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Bytes(bytes) => {
                let whole = UNITS.into_iter().find(|(_, unit)| *bytes >= *unit && bytes.is_multiple_of(*unit));
                let (symbol, unit) = whole.unwrap_or(("MB", 1_000_000));
                serializer.collect_str(&format_args!("{}{symbol}", *bytes as f64 / unit as f64))
            }
        }
    }
}

/// A number of bytes as text: `2.7 GB`, `340 MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = ByteSize(self.0).display().si();
        if self.0 >= bytesize::GB { write!(f, "{words:.1}") } else { write!(f, "{words:.0}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_str, to_string};

    #[test]
    fn limits_are_sizes_or_auto() {
        for (text, bytes) in [
            ("\"6GB\"", 6_000_000_000),
            ("\"1.5 gb\"", 1_500_000_000),
            ("\"512MiB\"", 512 << 20),
            ("\"3GiB\"", 3 << 30),
            ("\"2.5TB\"", 2_500_000_000_000),
            ("\"640 kb\"", 640_000),
        ] {
            let limit: MemoryLimit = from_str(text).unwrap();
            assert_eq!(limit, MemoryLimit::Bytes(bytes), "{text}");
            assert_eq!(from_str::<MemoryLimit>(&to_string(&limit).unwrap()).unwrap(), limit, "{text}");
        }
        assert_eq!(from_str::<MemoryLimit>("\"Auto\"").unwrap(), MemoryLimit::Auto);
        for text in ["\"6\"", "6", "\"GB\"", "\"-1GB\"", "\"0GB\"", "\"nanGB\"", "\"sixGB\"", "\"\"", "true", "\"6€\""]
        {
            assert!(from_str::<MemoryLimit>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_in_words() {
        assert_eq!(Bytes(2_712_912_000).to_string(), "2.7 GB");
        assert_eq!(Bytes(340_400_000).to_string(), "340 MB");
        assert_eq!(Bytes(12_000).to_string(), "12 kB");
    }
}

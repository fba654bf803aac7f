//! The precision of matmuls.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Number format of the factors of matmuls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// bfloat16 if that is faster; else float16 on a GPU that supports it; else float32.
    Auto,
    /// float32.
    #[default]
    F32,
    /// float32 factors that an NVIDIA GPU rounds to TF32: 11 significant bits, float32's range.
    Tf32,
    /// bfloat16, 8 significant bits.
    Bf16,
    /// float16, 11 significant bits and a small range, for which the loss is scaled.
    F16,
}

impl Precision {
    const ALL: [Self; 5] = [Self::F32, Self::Tf32, Self::Bf16, Self::F16, Self::Auto];

    /// The names in files, flags and messages.
    pub const NAMES: [&'static str; 5] = ["f32", "tf32", "bf16", "f16", "auto"];
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = Self::ALL.iter().position(|one| one == self).expect("the list has every precision");
        f.write_str(Self::NAMES[place])
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let place = Self::NAMES.iter().position(|one| *one == name);
        place.map(|place| Self::ALL[place]).ok_or_else(|| format!("one of {}", Self::NAMES.join(", ")))
    }
}

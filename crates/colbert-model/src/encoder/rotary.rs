//! Rotary positions as `config.json` declares them (Su et al. 2021, section 3.4.2).

use colbert_kernels::Rotation;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::encoder::family::Unsupported;

/// The keys of rotary positions in `config.json`, in the spellings of transformers 4 and 5.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RotaryKeys {
    /// Base of the angles.
    #[serde(default)]
    pub rope_theta: Option<f64>,
    /// The scaling of angles for longer texts, as transformers 4 and older model code write it.
    #[serde(default)]
    pub rope_scaling: Option<Value>,
    /// Both, as transformers 5 writes them; this key takes precedence.
    #[serde(default)]
    pub rope_parameters: Option<Value>,
}

/// Angles of a head's pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Angles {
    /// Base.
    pub(crate) theta: f64,
    /// The fixed "NTK-aware" scaling of GTE's models: the base times this factor, and every frequency divided by
    /// `factor^(2 / head_size)`. 1 where there is none.
    pub(crate) factor: f64,
}

impl Angles {
    /// Returns the frequencies of the pairs of a head of this size, in float32 and in this order, as in transformers.
    pub(crate) fn frequencies(self, head_size: usize) -> Vec<f32> {
        let theta = (self.theta * self.factor) as f32;
        let shrink = (self.factor as f32).powf(2.0 / head_size as f32);
        let frequency = |i: usize| 1.0 / theta.powf((2 * i) as f32 / head_size as f32) / shrink;
        (0..head_size / 2).map(frequency).collect()
    }

    /// Rotates heads of this size, for sequences of at most `positions` tokens.
    pub(crate) fn rotation(self, head_size: usize, positions: usize) -> Rotation {
        Rotation::new(&self.frequencies(head_size), positions)
    }
}

impl RotaryKeys {
    /// Returns the angles; `theta` is the base if the file names none.
    pub(crate) fn angles(&self, theta: f64) -> Angles {
        let newer = self.rope_parameters.as_ref().and_then(|newer| newer.get("rope_theta")?.as_f64());
        let factor = self.ntk().and_then(|scaling| scaling.get("factor")?.as_f64());
        Angles { theta: newer.or(self.rope_theta).unwrap_or(theta), factor: factor.unwrap_or(1.0) }
    }

    /// Returns the scaling, if it is GTE's.
    fn ntk(&self) -> Option<&Value> {
        self.rope_scaling.as_ref().filter(|scaling| scaling.get("type").is_some_and(|kind| kind == "ntk"))
    }

    /// Returns the first key that requires unsupported angles, or that is out of range. `ntk`: GTE's scaling is one of
    /// the family's.
    pub(crate) fn unsupported(&self, theta: f64, ntk: bool) -> Option<Unsupported> {
        let plain = |value: &Value| {
            let kind = value.get("rope_type").or_else(|| value.get("type"));
            value.is_null() || kind.is_none_or(|kind| kind == "default")
        };
        let expected = || "no scaling, or type \"default\"".to_owned();
        if let Some(value) = self.rope_parameters.as_ref().filter(|value| !plain(value)) {
            return Some(("rope_parameters", value.to_string(), expected()));
        }
        if let Some(value) = self.rope_scaling.as_ref().filter(|value| !plain(value)) {
            let fixed = ntk && self.ntk().is_some() && value.get("mixed_b").is_none_or(Value::is_null);
            if !fixed {
                return Some(("rope_scaling", value.to_string(), expected()));
            }
        }
        let Angles { theta, factor } = self.angles(theta);
        let fits = (1.0..=1e4).contains(&factor);
        let scaling = || ("rope_scaling", format!("factor {factor:e}"), "a factor from 1 to 10000".to_owned());
        check_theta(theta).or_else(|| (!fits).then(scaling))
    }
}

/// Checks the base of the angles, which are computed in float32.
pub(crate) fn check_theta(theta: f64) -> Option<Unsupported> {
    let fits = (1.0..=1e30).contains(&theta);
    (!fits).then(|| ("rope_theta", format!("{theta:e}"), "a number from 1 to 1e30".to_owned()))
}

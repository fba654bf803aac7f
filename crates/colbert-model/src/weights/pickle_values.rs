//! The values of a pickle program that makes a dictionary of tensors.

use half::{bf16, f16};

/// Bytes that a value counts when it is copied, besides its texts.
const VALUE_BYTES: usize = 64;

/// Most axes of a tensor.
const MAX_AXES: usize = 8;

/// Bytes as float32.
pub(super) type Widen = fn(&[u8]) -> Vec<f32>;

/// A storage of torch: numbers that tensors share.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Storage {
    /// Such as `FloatStorage`.
    pub(super) kind: String,
    /// Name of its file in the archive.
    pub(super) key: String,
}

impl Storage {
    /// Returns how its bytes become float32; none if it does not hold floats.
    pub(super) fn widen(&self) -> Option<Widen> {
        Some(match self.kind.as_str() {
            "FloatStorage" => |b| b.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            "HalfStorage" => |b| b.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            "BFloat16Storage" => |b| b.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            "DoubleStorage" => |b| b.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
            _ => return None,
        })
    }
}

/// A tensor: a view of a storage.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StoredTensor {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

impl StoredTensor {
    /// Gathers its elements, last axis fastest; none if one lies outside.
    pub(super) fn gather(&self, storage: &[f32]) -> Option<Vec<f32>> {
        if self.shape.len() > MAX_AXES {
            return None;
        }
        let count = self.shape.iter().try_fold(1usize, |count, length| count.checked_mul(*length))?;
        // A stride of 0 makes many elements of one, so the count alone is no bound.
        if count > storage.len() {
            return None;
        }
        let mut values = Vec::with_capacity(count);
        for element in 0..count {
            let (mut rest, mut at) = (element, self.offset);
            for (length, stride) in self.shape.iter().zip(&self.strides).rev() {
                at = at.checked_add((rest % length).checked_mul(*stride)?)?;
                rest /= length;
            }
            values.push(*storage.get(at)?);
        }
        Some(values)
    }
}

/// A value on the stack of a pickle program.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Mark,
    Nothing,
    Int(i64),
    Text(String),
    Tuple(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Global(String),
    Storage(Storage),
    Tensor(StoredTensor),
}

impl Value {
    /// Returns the bytes that a copy of it takes.
    pub(super) fn size(&self) -> usize {
        let inner = match self {
            Self::Text(text) | Self::Global(text) => text.len(),
            Self::Tuple(values) => values.iter().map(Self::size).sum(),
            Self::Dict(pairs) => pairs.iter().map(|(key, value)| key.size() + value.size()).sum(),
            Self::Tensor(tensor) => 8 * (tensor.shape.len() + tensor.strides.len()),
            Self::Mark | Self::Nothing | Self::Int(_) | Self::Storage(_) => 0,
        };
        VALUE_BYTES + inner
    }

    /// Returns how deeply values are nested, itself included.
    pub(super) fn depth(&self) -> usize {
        let inner = match self {
            Self::Tuple(values) => values.iter().map(Self::depth).max(),
            Self::Dict(pairs) => pairs.iter().map(|(key, value)| key.depth().max(value.depth())).max(),
            _ => None,
        };
        1 + inner.unwrap_or(0)
    }
}

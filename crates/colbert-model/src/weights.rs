//! Tensors on the host: read from safetensors, names normalised, ready to be taken by a module.

pub(crate) mod files;
pub(crate) mod json;
pub(crate) mod layout;
pub(crate) mod parameters;
pub(crate) mod pickle;
mod pickle_machine;
mod pickle_values;
pub(crate) mod torch_archive;
pub(crate) mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Param, ParamId};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use colbert_config::ExportDtype;
use half::{bf16, f16};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::error::ModelError;

/// A float32 tensor on the host, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// Elements, last axis fastest.
    pub values: Vec<f32>,
}

/// Named tensors, and their origin for messages.
#[derive(Debug, Clone)]
pub struct Weights {
    path: PathBuf,
    tensors: BTreeMap<String, HostTensor>,
}

impl Weights {
    /// Collects tensors made elsewhere; `origin` appears in error messages.
    pub fn new(origin: impl Into<PathBuf>, tensors: impl IntoIterator<Item = (String, HostTensor)>) -> Self {
        Self { path: origin.into(), tensors: tensors.into_iter().collect() }
    }

    /// Reads a safetensors file as it is. f16 and bf16 are widened to f32.
    ///
    /// # Errors
    /// A file that cannot be read or is cut short, and a tensor that is not a float.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let bytes =
            std::fs::read(path).map_err(|source| ModelError::Io { action: "read", path: path.to_owned(), source })?;
        if bytes.starts_with(json::LFS_POINTER) {
            return Err(ModelError::GitLfsPointer { path: path.to_owned() });
        }
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|source| ModelError::BrokenSafetensors { path: path.to_owned(), source })?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            // Buffers such as position ids are integers; whether a tensor is needed is only known later.
            if let Some(values) = widen(view.dtype(), view.data()) {
                tensors.insert(name.to_owned(), HostTensor { shape: view.shape().to_vec(), values });
            } else if name.ends_with(".weight") || name.ends_with(".bias") {
                let found = format!("{:?}", view.dtype());
                return Err(ModelError::WrongDtype { path: path.to_owned(), name: name.to_owned(), found });
            }
        }
        Ok(Self { path: path.to_owned(), tensors })
    }

    /// Renames the tensors: without an encoder prefix (such as `bert.`), and with today's layer norm names
    /// (`weight`/`bias`, not `gamma`/`beta`).
    pub fn normalised(self, prefix: &str) -> Self {
        let rename = |name: String| {
            let name = name.strip_prefix(prefix).map(str::to_owned).unwrap_or(name);
            match name.rsplit_once('.') {
                Some((stem, "gamma")) => format!("{stem}.weight"),
                Some((stem, "beta")) => format!("{stem}.bias"),
                _ => name,
            }
        };
        Self { path: self.path, tensors: self.tensors.into_iter().map(|(name, t)| (rename(name), t)).collect() }
    }

    /// Renames the tensors as [`Self::normalised`] does, and takes off one prefix that a wrapper put before all names,
    /// such as `module.` of DataParallel or `_orig_mod.` of `torch.compile`. `known` is the end of a name that every
    /// file has.
    ///
    /// # Errors
    /// Several prefixes, of which one is the encoder's.
    pub(crate) fn unwrapped(self, prefix: &str, known: &str) -> Result<Self, ModelError> {
        let plain = [known.to_owned(), format!("{prefix}{known}")];
        let found: Vec<&str> =
            self.names().filter_map(|name| name.strip_suffix(known)).filter(|before| before.ends_with('.')).collect();
        if found.is_empty() || plain.iter().any(|name| self.contains(name)) {
            return Ok(self.normalised(prefix));
        }
        let [wrapper] = found[..] else {
            let (path, found) = (self.path.clone(), found.join(", "));
            return Err(ModelError::UnknownPrefix { path, found, expected: plain.join(" or ") });
        };
        tracing::info!("{}: tensor names begin with \"{wrapper}\", which is taken off", self.path.display());
        let wrapper = wrapper.to_owned();
        // The prefix that a wrapper put before the encoder's own is before the names of the head, too.
        let outer = wrapper.strip_suffix(prefix).unwrap_or(&wrapper).to_owned();
        let rename = |name: String| {
            let bare = name.strip_prefix(&wrapper).or_else(|| name.strip_prefix(&outer)).map(str::to_owned);
            bare.unwrap_or(name)
        };
        let tensors = self.tensors.into_iter().map(|(name, tensor)| (rename(name), tensor)).collect();
        Ok(Self { path: self.path, tensors }.normalised(prefix))
    }

    /// Renames the weight and the bias of `from`, as far as they are here.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        for kind in ["weight", "bias"] {
            if let Some(tensor) = self.tensors.remove(&format!("{from}.{kind}")) {
                self.tensors.insert(format!("{to}.{kind}"), tensor);
            }
        }
    }

    /// Joins tensors along the first axis.
    ///
    /// # Errors
    /// One of them is missing, or its rows are of another shape than those of the first.
    pub(crate) fn join(&mut self, from: &[String], to: &str) -> Result<(), ModelError> {
        let mut whole: Option<HostTensor> = None;
        for name in from {
            let Some(part) = self.tensors.remove(name) else {
                return Err(ModelError::MissingTensor { path: self.path.clone(), name: name.clone() });
            };
            let Some(whole) = &mut whole else {
                whole = Some(part);
                continue;
            };
            if part.shape.is_empty() || part.shape.get(1..) != whole.shape.get(1..) {
                let expected = [&part.shape[..1.min(part.shape.len())], whole.shape.get(1..).unwrap_or(&[])].concat();
                return Err(ModelError::WrongShape {
                    path: self.path.clone(),
                    name: name.clone(),
                    found: part.shape.into(),
                    expected: expected.into(),
                    hint: "".into(),
                });
            }
            whole.shape[0] += part.shape[0];
            whole.values.extend(part.values);
        }
        self.tensors.extend(whole.map(|whole| (to.to_owned(), whole)));
        Ok(())
    }

    /// Returns the names and shapes alone, to check what a configuration asks for.
    pub(crate) fn outline(&self) -> Self {
        let bare = |tensor: &HostTensor| HostTensor { shape: tensor.shape.clone(), values: Vec::new() };
        let tensors = self.tensors.iter().map(|(name, tensor)| (name.clone(), bare(tensor))).collect();
        Self { path: self.path.clone(), tensors }
    }

    /// Adds the tensors of another file; of two of one name the other file's stays.
    pub(crate) fn append(&mut self, other: Self) {
        self.tensors.extend(other.tensors);
    }

    /// Adds rows drawn from N(0, `deviation`²) at the end of a table, if it is here.
    pub(crate) fn add_rows(&mut self, name: &str, rows: usize, deviation: f64, rng: &mut ChaCha8Rng) {
        if let Some(table) = self.tensors.get_mut(name)
            && let [count, size] = table.shape[..]
        {
            table.values.extend(normal_tensor(&[rows, size], deviation, rng).values);
            table.shape = vec![count + rows, size];
        }
    }

    /// Returns where the tensors came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether a tensor of this name is there and was not taken.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Returns the shape of a tensor that is there and was not taken.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// Names of the tensors that were not taken.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Iterates over the tensors that were not taken, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &HostTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Counts the numbers of the tensors that were not taken.
    pub(crate) fn numbers(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.values.len()).sum()
    }

    /// Takes a tensor out.
    ///
    /// # Errors
    /// It is missing, has another shape, or holds a value that is not finite.
    pub fn take(&mut self, name: &str, expected: &[usize]) -> Result<HostTensor, ModelError> {
        let Some(tensor) = self.tensors.remove(name) else {
            return Err(ModelError::MissingTensor { path: self.path.clone(), name: name.to_owned() });
        };
        if tensor.shape != expected {
            return Err(ModelError::WrongShape {
                path: self.path.clone(),
                name: name.to_owned(),
                found: tensor.shape.into(),
                expected: expected.into(),
                hint: "".into(),
            });
        }
        if let Some(index) = tensor.values.iter().position(|v| !v.is_finite()) {
            return Err(ModelError::NonFiniteWeight { path: self.path.clone(), name: name.to_owned(), index });
        }
        Ok(tensor)
    }

    pub(crate) fn param<B: Backend, const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        device: &B::Device,
    ) -> Result<Param<Tensor<B, D>>, ModelError> {
        Ok(to_param(self.take(name, &shape)?, device))
    }
}

/// Draws a tensor from N(0, `deviation`²).
pub(crate) fn normal_tensor(shape: &[usize], deviation: f64, rng: &mut ChaCha8Rng) -> HostTensor {
    // `Normal::new` refuses only a deviation that is not finite; config.json is checked where it is read.
    let normal = Normal::new(0.0f64, deviation).expect("a finite standard deviation");
    let values = (0..shape.iter().product()).map(|_| normal.sample(rng) as f32).collect();
    HostTensor { shape: shape.to_vec(), values }
}

pub(crate) fn to_param<B: Backend, const D: usize>(tensor: HostTensor, device: &B::Device) -> Param<Tensor<B, D>> {
    let value = Tensor::<B, D>::from_data(TensorData::new(tensor.values, tensor.shape), device);
    Param::initialized(ParamId::new(), value.require_grad())
}

/// Converts numbers to bytes of a type, or returns the first finite one that would become infinite.
pub(crate) fn narrow(values: &[f32], dtype: ExportDtype) -> Result<Vec<u8>, f32> {
    let half = |bytes: fn(f32) -> ([u8; 2], bool)| {
        let mut all = Vec::with_capacity(values.len() * 2);
        for &value in values {
            let (bytes, is_finite) = bytes(value);
            if value.is_finite() && !is_finite {
                return Err(value);
            }
            all.extend(bytes);
        }
        Ok(all)
    };
    match dtype {
        ExportDtype::F32 => Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        ExportDtype::F16 => half(|value| {
            let value = f16::from_f32(value);
            (value.to_le_bytes(), value.is_finite())
        }),
        ExportDtype::Bf16 => half(|value| {
            let value = bf16::from_f32(value);
            (value.to_le_bytes(), value.is_finite())
        }),
    }
}

/// Converts float bytes to f32; none if they are not floats.
fn widen(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let pairs = || bytes.as_chunks::<2>().0.iter();
    Some(match dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => pairs().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => pairs().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::F64 => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        _ => return None,
    })
}

/// Writes token vectors of texts as a safetensors file: `vectors` F32 `[tokens, dim]`, and `offsets` I64 `[texts +
/// 1]`, the row of each text's first vector and at the end their number.
///
/// # Errors
/// The disk refuses.
pub fn write_vectors(path: &Path, values: &[f32], dim: usize, offsets: &[usize]) -> Result<(), ModelError> {
    let fail = |source| ModelError::BrokenSafetensors { path: path.to_owned(), source };
    let values: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let rows = values.len() / (4 * dim);
    let starts: Vec<u8> = offsets.iter().flat_map(|offset| (*offset as i64).to_le_bytes()).collect();
    let views = [
        ("vectors", TensorView::new(Dtype::F32, vec![rows, dim], &values).map_err(fail)?),
        ("offsets", TensorView::new(Dtype::I64, vec![offsets.len()], &starts).map_err(fail)?),
    ];
    let bytes = safetensors::serialize(views, None).map_err(fail)?;
    std::fs::write(path, bytes).map_err(|source| ModelError::Io { action: "write", path: path.to_owned(), source })
}

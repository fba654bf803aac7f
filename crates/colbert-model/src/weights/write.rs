//! Writing of safetensors files, one tensor at a time.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use colbert_config::ExportDtype;
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, View};

use crate::error::ModelError;
use crate::weights::{HostTensor, narrow};

/// A tensor that is copied to the host only when it is written.
pub trait TensorSource {
    /// Returns the length of each axis.
    fn shape(&self) -> &[usize];

    /// Returns the elements, last axis fastest.
    fn values(&self) -> Cow<'_, [f32]>;
}

impl TensorSource for HostTensor {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn values(&self) -> Cow<'_, [f32]> {
        Cow::Borrowed(&self.values)
    }
}

impl<S: TensorSource + ?Sized> TensorSource for &S {
    fn shape(&self) -> &[usize] {
        (**self).shape()
    }

    fn values(&self) -> Cow<'_, [f32]> {
        (**self).values()
    }
}

/// A tensor of a device, to be written.
pub struct DeviceTensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) read: Box<dyn Fn() -> Vec<f32>>,
}

impl DeviceTensor {
    /// Makes a tensor of this shape; `read` copies its elements to the host.
    pub fn new(shape: Vec<usize>, read: impl Fn() -> Vec<f32> + 'static) -> Self {
        Self { shape, read: Box::new(read) }
    }
}

impl std::fmt::Debug for DeviceTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceTensor").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl TensorSource for DeviceTensor {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn values(&self) -> Cow<'_, [f32]> {
        Cow::Owned((self.read)())
    }
}

/// A tensor as safetensors writes it.
struct Written<'a, S> {
    source: &'a S,
    dtype: ExportDtype,
}

impl<S: TensorSource> View for Written<'_, S> {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            ExportDtype::F32 => Dtype::F32,
            ExportDtype::F16 => Dtype::F16,
            ExportDtype::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        self.source.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(narrow(&self.source.values(), self.dtype).expect("the values were checked"))
    }

    fn data_len(&self) -> usize {
        let bytes = match self.dtype {
            ExportDtype::F32 => 4,
            ExportDtype::F16 | ExportDtype::Bf16 => 2,
        };
        self.source.shape().iter().product::<usize>() * bytes
    }
}

/// The tensors of a file, and its metadata.
type Content<'a, S> = (Vec<(&'a str, Written<'a, S>)>, Option<HashMap<String, String>>);

/// Returns the tensors as they are written, with the metadata without which transformers refuses a file.
///
/// # Errors
/// A number that the type cannot hold.
fn content<S: TensorSource>(tensors: &[(String, S)], dtype: ExportDtype) -> Result<Content<'_, S>, ModelError> {
    if dtype != ExportDtype::F32 {
        for (name, tensor) in tensors {
            let out_of_range = |value| ModelError::OutOfRange { name: name.clone(), value, dtype: dtype.torch_name() };
            narrow(&tensor.values(), dtype).map_err(out_of_range)?;
        }
    }
    let views = tensors.iter().map(|(name, source)| (name.as_str(), Written { source, dtype })).collect();
    Ok((views, Some(HashMap::from([("format".to_owned(), "pt".to_owned())]))))
}

/// Makes a safetensors file in memory: float32, little-endian, `format: pt`. The same tensors give the same bytes.
///
/// # Errors
/// A header that is too large.
pub fn safetensors_bytes(tensors: &[(String, HostTensor)]) -> Result<Vec<u8>, ModelError> {
    let (views, metadata) = content(tensors, ExportDtype::F32)?;
    let fail = |source| ModelError::BrokenSafetensors { path: PathBuf::from("tensors to be written"), source };
    safetensors::serialize(views, metadata).map_err(fail)
}

/// Writes the same file, synced to the disk, with numbers of a type, each rounded to the nearest, ties to even. One
/// tensor at a time is copied.
///
/// # Errors
/// A number that the type cannot hold, before the file is begun; or the disk refuses.
pub fn write_safetensors<S: TensorSource>(
    path: &Path,
    tensors: &[(String, S)],
    dtype: ExportDtype,
) -> Result<(), ModelError> {
    let (views, metadata) = content(tensors, dtype)?;
    let refused = |source| ModelError::Io { action: "write", path: path.to_owned(), source };
    safetensors::serialize_to_file(views, metadata, path).map_err(|source| match source {
        SafeTensorError::IoError(source) => refused(source),
        source => ModelError::BrokenSafetensors { path: path.to_owned(), source },
    })?;
    OpenOptions::new().write(true).open(path).and_then(|file| file.sync_all()).map_err(refused)
}

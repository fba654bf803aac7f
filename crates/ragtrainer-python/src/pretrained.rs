//! Using a trained model.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use ragtrainer::search::{EncodedDocuments, EncodedSource};
use ragtrainer::{DocumentFolder, Error, Hit, RagPretrainedModel};

use crate::convert::texts;
use crate::error::raise;
use crate::observer::Listener;
use crate::process;

/// A hit: rank, score, position, id, text.
type Found = (usize, f32, usize, Option<String>, String);

fn found(hits: Vec<Hit>) -> Vec<Found> {
    hits.into_iter().map(|hit| (hit.rank, hit.score, hit.index, hit.id, hit.text)).collect()
}

/// A trained model.
#[pyclass(frozen, module = "ragtrainer._native")]
#[derive(Debug)]
pub(crate) struct Pretrained {
    /// Behind a lock, as tensors move between threads but are not shared by them.
    model: Mutex<RagPretrainedModel>,
}

#[pymethods]
impl Pretrained {
    /// Reads a model directory, or a model of the hub by its name; `dim` is the size that vectors are cut to.
    #[new]
    #[pyo3(signature = (directory, backend, dim=None))]
    fn new(py: Python<'_>, directory: PathBuf, backend: &str, dim: Option<usize>) -> PyResult<Self> {
        process::enter()?;
        let read = || {
            let model = RagPretrainedModel::from_pretrained_on(directory, backend)?;
            match dim {
                Some(dim) => model.with_dim(dim),
                None => Ok(model),
            }
        };
        let model = py.detach(read).map_err(raise)?;
        Ok(Self { model: Mutex::new(model) })
    }

    /// Directory of the model.
    #[getter]
    fn directory(&self) -> PathBuf {
        lock(&self.model).directory().to_owned()
    }

    /// Size of the vectors.
    #[getter]
    fn dim(&self) -> usize {
        lock(&self.model).settings().dim
    }

    /// Settings of the model, as JSON.
    #[getter]
    fn settings(&self) -> String {
        serde_json::to_string(lock(&self.model).settings()).expect("settings have a JSON form")
    }

    /// Ranks documents for each query.
    fn rerank(
        &self,
        py: Python<'_>,
        queries: &Bound<'_, PyAny>,
        documents: &Bound<'_, PyAny>,
        k: usize,
    ) -> PyResult<Vec<Vec<Found>>> {
        process::enter()?;
        let (queries, documents) = (texts("query", queries)?, texts("documents", documents)?);
        let ranked = py.detach(|| -> Result<Vec<Vec<Found>>, Error> {
            let model = lock(&self.model);
            queries.iter().map(|query| Ok(found(model.rerank(query, &documents, k)?))).collect()
        });
        py.check_signals()?;
        ranked.map_err(raise)
    }

    /// Token vectors of texts: little-endian float32 row by row, the row where each text starts and the end, and the
    /// size of a vector.
    fn vectors<'py>(
        &self,
        py: Python<'py>,
        documents: &Bound<'py, PyAny>,
        as_queries: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(Bound<'py, PyByteArray>, Vec<usize>, usize)> {
        process::enter()?;
        let documents = texts("documents", documents)?;
        let listener = Listener::new(progress);
        let total = documents.len();
        let done = py.detach(|| {
            let model = lock(&self.model);
            listener.interruptible(|| {
                if as_queries {
                    return model.query_vectors(&documents);
                }
                model.document_vectors_with(&documents, &mut |done| listener.encoding(done, total))
            })
        });
        if let Some(raised) = listener.take_raised() {
            return Err(raised);
        }
        let vectors = done.expect("only a raised exception ends it").map_err(raise)?;
        let bytes = PyByteArray::new_with(py, vectors.values().len() * 4, |bytes| {
            for (four, value) in bytes.chunks_exact_mut(4).zip(vectors.values()) {
                four.copy_from_slice(&value.to_le_bytes());
            }
            Ok(())
        })?;
        Ok((bytes, vectors.offsets().to_vec(), vectors.dim()))
    }
}

/// Documents encoded in memory.
#[pyclass(frozen, module = "ragtrainer._native")]
#[derive(Debug)]
pub(crate) struct Encoded {
    documents: Mutex<EncodedDocuments>,
}

#[pymethods]
impl Encoded {
    #[new]
    fn new(model: &Pretrained) -> Self {
        Self { documents: Mutex::new(EncodedDocuments::new(&lock(&model.model))) }
    }

    fn __len__(&self) -> usize {
        lock(&self.documents).len()
    }

    /// Encodes documents and adds them.
    fn add(
        &self,
        py: Python<'_>,
        model: &Pretrained,
        documents: &Bound<'_, PyAny>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        process::enter()?;
        let documents = texts("documents", documents)?;
        in_blocks(py, documents.len(), progress, &mut |block| {
            lock(&self.documents).add(&lock(&model.model), &documents[block])
        })
    }

    /// The best `k` documents for each query.
    fn search(
        &self,
        py: Python<'_>,
        model: &Pretrained,
        queries: &Bound<'_, PyAny>,
        k: usize,
    ) -> PyResult<Vec<Vec<Found>>> {
        search(py, model, queries, k, &self.documents)
    }
}

/// Number of documents that are encoded between two checks for signals.
const BLOCK: usize = 256;

/// Encodes documents block by block, without the GIL; after each block, progress is reported and signals are checked.
fn in_blocks(
    py: Python<'_>,
    total: usize,
    progress: Option<Py<PyAny>>,
    encode: &mut (dyn FnMut(Range<usize>) -> Result<(), Error> + Send),
) -> PyResult<()> {
    let listener = Listener::new(progress);
    for start in (0..total).step_by(BLOCK) {
        let end = total.min(start + BLOCK);
        let encoded = py.detach(|| {
            let encoded = encode(start..end);
            listener.interruptible(|| listener.encoding(end, total));
            encoded
        });
        if let Some(raised) = listener.take_raised() {
            return Err(raised);
        }
        encoded.map_err(raise)?;
    }
    Ok(())
}

/// A document folder: encoded documents on disk.
#[pyclass(frozen, module = "ragtrainer._native")]
#[derive(Debug)]
pub(crate) struct Folder {
    folder: Mutex<DocumentFolder>,
}

#[pymethods]
impl Folder {
    /// Opens a document folder; with a model, creates it if it does not exist.
    #[new]
    fn new(path: PathBuf, model: Option<&Pretrained>) -> PyResult<Self> {
        process::enter()?;
        let folder = match model {
            Some(model) => DocumentFolder::open_or_create(path, &lock(&model.model)),
            None => DocumentFolder::open(path),
        };
        Ok(Self { folder: Mutex::new(folder.map_err(raise)?) })
    }

    fn __len__(&self) -> usize {
        lock(&self.folder).len()
    }

    /// Ids of the documents that can be found.
    fn ids(&self) -> PyResult<Vec<String>> {
        lock(&self.folder).ids().map_err(raise)
    }

    /// Encodes documents and adds them under these ids.
    fn add(
        &self,
        py: Python<'_>,
        model: &Pretrained,
        documents: &Bound<'_, PyAny>,
        ids: Vec<String>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        process::enter()?;
        let documents = texts("documents", documents)?;
        let named: Vec<(Option<String>, String)> = ids.into_iter().map(Some).zip(documents).collect();
        in_blocks(py, named.len(), progress, &mut |block| {
            lock(&self.folder).add(&lock(&model.model), &named[block], &mut |_| {}).map(drop)
        })
    }

    /// Deletes documents by their ids.
    fn delete(&self, py: Python<'_>, ids: Vec<String>) -> PyResult<()> {
        process::enter()?;
        py.detach(|| lock(&self.folder).delete(&ids)).map(drop).map_err(raise)
    }

    /// The best `k` documents for each query.
    fn search(
        &self,
        py: Python<'_>,
        model: &Pretrained,
        queries: &Bound<'_, PyAny>,
        k: usize,
    ) -> PyResult<Vec<Vec<Found>>> {
        search(py, model, queries, k, &self.folder)
    }
}

fn search<D: EncodedSource + Send>(
    py: Python<'_>,
    model: &Pretrained,
    queries: &Bound<'_, PyAny>,
    k: usize,
    documents: &Mutex<D>,
) -> PyResult<Vec<Vec<Found>>> {
    process::enter()?;
    let queries = texts("query", queries)?;
    let ranked = py.detach(|| lock(&model.model).search_all(&queries, &*lock(documents), k));
    Ok(ranked.map_err(raise)?.into_iter().map(found).collect())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

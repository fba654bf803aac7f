//! Checkpoints: what a run is taken up from. Not what others load; that is the model directory.
//!
//! A checkpoint is a folder `step-000123` with `model.safetensors`, `optimizer.safetensors` and `state.json`, written
//! beside its final name and renamed, so that a folder under that name is whole.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use colbert_model::{ModelError, Weights, named_parameters, parameter_names, replace_parameters, safetensors_bytes};
use serde::{Deserialize, Serialize};

use crate::adamw::AdamW;
use crate::error::TrainError;
use crate::evaluate::Evaluation;

/// Version of the layout.
const FORMAT: u32 = 1;

/// Everything about a run that is not a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Version of the layout.
    pub format: u32,
    /// Optimizer steps done; data order, schedule and dropout follow from it and the seed.
    pub step: usize,
    /// Steps and evaluation of the best model so far.
    pub best: Option<(usize, Evaluation)>,
}

impl RunState {
    /// The state after `step` steps.
    pub fn new(step: usize, best: Option<(usize, Evaluation)>) -> Self {
        Self { format: FORMAT, step, best }
    }
}

/// Writes a checkpoint into `folder` and returns its path.
///
/// # Errors
/// The disk refuses; then no folder is left under the final name.
pub fn write_checkpoint<B: AutodiffBackend, M: AutodiffModule<B>>(
    folder: &Path,
    model: &M,
    optimizer: &AdamW<B::InnerBackend>,
    state: &RunState,
) -> Result<PathBuf, TrainError> {
    let path = folder.join(format!("step-{:06}", state.step));
    let partial = folder.join(format!(".step-{:06}.partial", state.step));
    if let Err(error) = write_partial::<B, M>(&partial, model, optimizer, state) {
        // The first error is the one to tell; what is left is under a name that nobody reads.
        drop(fs::remove_dir_all(&partial));
        return Err(error);
    }
    if path.exists() {
        remove(&path)?;
    }
    fs::rename(&partial, &path).map_err(io("rename", &path))?;
    Ok(path)
}

fn write_partial<B: AutodiffBackend, M: AutodiffModule<B>>(
    partial: &Path,
    model: &M,
    optimizer: &AdamW<B::InnerBackend>,
    state: &RunState,
) -> Result<(), TrainError> {
    if partial.exists() {
        remove(partial)?;
    }
    fs::create_dir_all(partial).map_err(io("create", partial))?;
    let names = parameter_names::<B, M>(model);
    write_synced(&partial.join("model.safetensors"), &safetensors_bytes(&named_parameters::<B, M>(model))?)?;
    write_synced(&partial.join("optimizer.safetensors"), &safetensors_bytes(&optimizer.state(&names))?)?;
    let json = serde_json::to_string_pretty(state).expect("plain numbers have a JSON form");
    write_synced(&partial.join("state.json"), json.as_bytes())
}

/// Reads a checkpoint into a model of the same shape.
///
/// # Errors
/// A file that is missing or damaged, or a parameter that does not fit the model.
pub fn read_checkpoint<B: AutodiffBackend, M: AutodiffModule<B>>(
    path: &Path,
    model: M,
    weight_decay: f64,
    device: &B::Device,
) -> Result<(M, AdamW<B::InnerBackend>, RunState), TrainError> {
    let state_path = path.join("state.json");
    let text = fs::read_to_string(&state_path).map_err(io("read", &state_path))?;
    let state: RunState = serde_json::from_str(&text).map_err(|source| {
        TrainError::Model(ModelError::Json { path: state_path, expected: "the state of a checkpoint", source })
    })?;
    let names = parameter_names::<B, M>(&model);
    let model = replace_parameters::<B, M>(model, &mut Weights::read(&path.join("model.safetensors"))?)?;
    let mut moments = Weights::read(&path.join("optimizer.safetensors"))?;
    let updates = u32::try_from(state.step).unwrap_or(u32::MAX);
    let optimizer = AdamW::restore(weight_decay, updates, &names, &mut moments, device)?;
    Ok((model, optimizer, state))
}

/// The whole checkpoints in a folder, oldest first.
///
/// # Errors
/// The folder exists and cannot be listed.
pub fn checkpoints(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io("list", folder))? {
        let path = entry.map_err(io("list", folder))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-")) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Removes all but the newest `keep` checkpoints.
///
/// # Errors
/// A folder cannot be removed.
pub fn prune_checkpoints(folder: &Path, keep: usize) -> Result<(), TrainError> {
    let all = checkpoints(folder)?;
    all[..all.len().saturating_sub(keep)].iter().try_for_each(|old| remove(old))
}

fn remove(path: &Path) -> Result<(), TrainError> {
    fs::remove_dir_all(path).map_err(io("remove", path))
}

pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let fail = |source| TrainError::Io { action: "write", path: path.to_owned(), source };
    let mut file = File::create(path).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.sync_all().map_err(fail)
}

pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TrainError + use<> {
    let path = path.to_owned();
    move |source| TrainError::Io { action, path, source }
}

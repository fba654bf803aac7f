//! Checkpoints, from which a run is resumed. Other programs load the model directory instead.
//!
//! A checkpoint is a folder `step-000123`: `model.safetensors`, `optimizer.safetensors`, `state.json`, a
//! `best-000100.safetensors` for each model that may still be chosen, `average.safetensors` if weights are averaged,
//! and `manifest.json` with the length and the CRC-32 of each. It is written beside its final name, synced and renamed,
//! the manifest last: a folder under that name is whole, or its manifest says that it is not.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use colbert_config::ExportDtype;
use colbert_config::durable::{beside, remove_leftovers, replace_folder, write_synced};
use colbert_model::{
    ModelError, TensorSource, Weights, device_parameters, named_parameters, parameter_names, replace_parameters,
    write_safetensors,
};
use serde::{Deserialize, Serialize};

use crate::best::averaging::NamedTensors;
use crate::error::{TrainError, io};
use crate::record::observer::Skipped;
use crate::record::run_folder::RunFolder;
use crate::record::state::RunState;
use crate::step::adamw::AdamW;

/// Version of the layout. 1 had no manifest.
const FORMAT: u32 = 2;

const MANIFEST: &str = "manifest.json";
const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const AVERAGE: &str = "average.safetensors";
const STATE: &str = "state.json";

/// Length and checksum of a file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSum {
    bytes: u64,
    crc32: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    files: BTreeMap<String, FileSum>,
}

/// Writes a checkpoint into `folder` and returns its path.
///
/// # Errors
/// The disk refuses; then no folder is left under the final name, and an older one of the same step is still there.
pub(crate) fn write_checkpoint<B: AutodiffBackend, M: AutodiffModule<B>>(
    folder: &Path,
    model: &M,
    optimizer: &AdamW<B::InnerBackend>,
    state: &RunState,
) -> Result<PathBuf, TrainError> {
    let path = folder.join(format!("step-{:06}", state.step));
    let partial = beside(&path, "partial");
    let written = write_partial::<B, M>(&partial, model, optimizer, state)
        .and_then(|()| replace_folder(&partial, &path).map_err(io("rename", &path)));
    if let Err(error) = written {
        // The first error is reported; the leftover has a name that nothing reads.
        drop(fs::remove_dir_all(&partial));
        return Err(error);
    }
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
    let mut folder = Partial { path: partial, files: BTreeMap::new() };
    folder.write_tensors(MODEL, &device_parameters::<B, M>(model))?;
    folder.write_tensors(OPTIMIZER, &optimizer.state(&parameter_names::<B, M>(model)))?;
    for contender in state.selection.best.iter().filter(|contender| contender.step != state.step) {
        folder.write_tensors(&contender_file(contender.step), &contender.tensors)?;
    }
    if !state.average.is_empty() {
        folder.write_tensors(AVERAGE, &state.average)?;
    }
    folder.write_state(state)?;
    let manifest = Manifest { format: FORMAT, files: folder.files };
    let path = partial.join(MANIFEST);
    write_synced(&path, &json(&manifest)).map_err(io("write", &path))
}

/// A checkpoint that is being written.
struct Partial<'a> {
    path: &'a Path,
    files: BTreeMap<String, FileSum>,
}

impl Partial<'_> {
    fn write_tensors<S: TensorSource>(&mut self, name: &str, tensors: &[(String, S)]) -> Result<(), TrainError> {
        let path = self.path.join(name);
        write_safetensors(&path, tensors, ExportDtype::F32).map_err(|error| match error {
            ModelError::Io { action, path, source } => io(action, &path)(source),
            error => error.into(),
        })?;
        self.files.insert(name.to_owned(), file_sum(&path).map_err(io("read", &path))?);
        Ok(())
    }

    fn write_state(&mut self, state: &RunState) -> Result<(), TrainError> {
        let (path, bytes) = (self.path.join(STATE), json(state));
        write_synced(&path, &bytes).map_err(io("write", &path))?;
        let sum = FileSum { bytes: bytes.len() as u64, crc32: format!("{:08x}", crc32fast::hash(&bytes)) };
        self.files.insert(STATE.to_owned(), sum);
        Ok(())
    }
}

fn contender_file(step: usize) -> String {
    format!("best-{step:06}.safetensors")
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("numbers and names have a JSON form")
}

/// Reads a checkpoint into a model of the same shape. [`RunFolder::newest_checkpoint`] checks that it is whole.
///
/// # Errors
/// A file that is missing or damaged, or a parameter that does not fit the model.
pub(crate) fn read_checkpoint<B: AutodiffBackend, M: AutodiffModule<B>>(
    path: &Path,
    model: M,
    weight_decay: f64,
    device: &B::Device,
) -> Result<(M, AdamW<B::InnerBackend>, RunState), TrainError> {
    let mut state: RunState = read_json(&path.join(STATE), "the state of a checkpoint")?;
    let model = replace_parameters::<B, M>(model, &mut Weights::read(&path.join(MODEL))?)?;
    let shapes: Vec<(String, Vec<usize>)> =
        named_parameters::<B, M>(&model).into_iter().map(|(name, tensor)| (name, tensor.shape)).collect();
    let mut moments = Weights::read(&path.join(OPTIMIZER))?;
    let overflows = state.loss_scale.map_or(0, |loss_scale| loss_scale.overflows);
    let updates = state.step.saturating_sub(state.skipped).saturating_sub(overflows);
    let updates = u32::try_from(updates).unwrap_or(u32::MAX);
    let optimizer = AdamW::restore(weight_decay, updates, &shapes, &mut moments, device)?;
    for contender in &mut state.selection.best {
        let own = contender.step == state.step;
        let file = if own { MODEL.to_owned() } else { contender_file(contender.step) };
        contender.tensors = tensors(&path.join(file), &shapes)?;
    }
    if path.join(AVERAGE).exists() {
        state.average = tensors(&path.join(AVERAGE), &shapes)?;
    }
    Ok((model, optimizer, state))
}

/// Reads the tensors of these names and shapes from a file, in this order.
fn tensors(path: &Path, shapes: &[(String, Vec<usize>)]) -> Result<NamedTensors, ModelError> {
    let mut weights = Weights::read(path)?;
    shapes.iter().map(|(name, shape)| Ok((name.clone(), weights.take(name, shape)?))).collect()
}

impl RunFolder {
    /// Finds the newest whole checkpoint, and the newer ones that are damaged, newest first.
    ///
    /// # Errors
    /// The folder of checkpoints exists and cannot be listed.
    pub fn newest_checkpoint(&self) -> Result<(Option<PathBuf>, Vec<Skipped>), TrainError> {
        let mut skipped = Vec::new();
        for path in self.list_checkpoints()?.into_iter().rev() {
            match damage(&path) {
                None => return Ok((Some(path), skipped)),
                Some(reason) => skipped.push(Skipped { path, reason }),
            }
        }
        Ok((None, skipped))
    }

    /// Lists the checkpoints, oldest first, whole or not.
    ///
    /// # Errors
    /// The folder of checkpoints exists and cannot be listed.
    pub fn list_checkpoints(&self) -> Result<Vec<PathBuf>, TrainError> {
        checkpoints(&self.checkpoints())
    }
}

/// Finds the damage of a checkpoint; none if its files are those that were written.
fn damage(path: &Path) -> Option<String> {
    let manifest: Manifest = match read_json(&path.join(MANIFEST), "a manifest") {
        Ok(manifest) => manifest,
        Err(TrainError::Io { source, .. }) => return Some(format!("{MANIFEST} cannot be read: {source}")),
        Err(_) => return Some(format!("{MANIFEST} is damaged")),
    };
    if manifest.format != FORMAT {
        return Some(format!("its layout is version {}, this program reads {FORMAT}", manifest.format));
    }
    for name in [MODEL, OPTIMIZER, STATE] {
        if !manifest.files.contains_key(name) {
            return Some(format!("{MANIFEST} does not name {name}"));
        }
    }
    for (name, expected) in &manifest.files {
        match file_sum(&path.join(name)) {
            Err(error) => return Some(format!("{name} cannot be read: {error}")),
            Ok(found) if found.bytes != expected.bytes => {
                return Some(format!("{name} has {} bytes instead of {}", found.bytes, expected.bytes));
            }
            Ok(found) if found != *expected => return Some(format!("{name} is not what was written (CRC-32)")),
            Ok(_) => {}
        }
    }
    if read_json::<RunState>(&path.join(STATE), "a state").is_err() {
        return Some(format!("{STATE} is of another version"));
    }
    manifest.files.keys().filter(|name| name.ends_with(".safetensors")).find_map(|name| unsound(&path.join(name)))
}

/// Finds the damage of a file of tensors: one cannot be read, or is not finite.
fn unsound(path: &Path) -> Option<String> {
    let check = || {
        let mut weights = Weights::read(path)?;
        let shapes: Vec<(String, Vec<usize>)> =
            weights.names().filter_map(|name| Some((name.to_owned(), weights.shape(name)?.to_vec()))).collect();
        shapes.iter().try_for_each(|(name, shape)| weights.take(name, shape).map(drop))
    };
    check().err().map(|error: ModelError| error.to_string())
}

fn file_sum(path: &Path) -> std::io::Result<FileSum> {
    let (mut file, mut hasher, mut bytes) = (File::open(path)?, crc32fast::Hasher::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(FileSum { bytes, crc32: format!("{:08x}", hasher.finalize()) }),
            read => {
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path, expected: &'static str) -> Result<T, TrainError> {
    let bytes = fs::read(path).map_err(io("read", path))?;
    serde_json::from_slice(&bytes)
        .map_err(|source| TrainError::Model(ModelError::Json { path: path.to_owned(), expected, source }))
}

/// Lists the checkpoints in a folder, oldest first, whole or not.
fn checkpoints(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io("list", folder))? {
        let path = entry.map_err(io("list", folder))?.path();
        if let Some(step) = step_of(&path) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn step_of(path: &Path) -> Option<usize> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

/// Removes what is not needed once the checkpoint of `newest` is safe: all but the `keep` newest up to it and those of
/// the steps `best`, those of later steps (they were found damaged when the run was resumed), and what killed processes
/// left half-written.
///
/// # Errors
/// A folder cannot be removed.
pub(crate) fn prune_checkpoints(folder: &Path, newest: usize, keep: usize, best: &[usize]) -> Result<(), TrainError> {
    let (current, later): (Vec<_>, Vec<_>) =
        checkpoints(folder)?.into_iter().partition(|path| step_of(path).is_some_and(|step| step <= newest));
    let old = &current[..current.len().saturating_sub(keep)];
    let old = old.iter().filter(|path| step_of(path).is_none_or(|step| !best.contains(&step)));
    old.chain(&later).try_for_each(|old| remove(old))?;
    remove_leftovers(folder).map_err(io("clean", folder))
}

fn remove(path: &Path) -> Result<(), TrainError> {
    fs::remove_dir_all(path).map_err(io("remove", path))
}

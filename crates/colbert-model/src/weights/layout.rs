//! The places of a model's parts in a directory: its encoder may be in a folder of its own, and a run's model is in
//! `best`.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::error::ModelError;
use crate::weights::json::{Keys, read_json};

/// A module that `modules.json` lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModuleEntry {
    /// Class name without its Python module, such as `Dense`.
    pub(crate) class: String,
    /// Its folder; the directory itself for the encoder of a newer layout.
    pub(crate) folder: PathBuf,
}

/// The folders of a model directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Folder of `modules.json` and of the head.
    pub(crate) root: PathBuf,
    /// Folder of `config.json`, the weights and the tokenizer.
    pub(crate) encoder: PathBuf,
    /// The modules, if there is a `modules.json`.
    pub(crate) modules: Option<Vec<ModuleEntry>>,
}

impl Layout {
    /// Finds the folders of a model directory.
    ///
    /// # Errors
    /// There is no such directory, or `modules.json` cannot be used.
    pub(crate) fn find(directory: &Path) -> Result<Self, ModelError> {
        if !directory.is_dir() {
            return Err(ModelError::NoSuchDirectory { path: directory.to_owned() });
        }
        let is_model = |folder: &Path| {
            ["config.json", "modules.json", "0_Transformer/config.json"].iter().any(|file| folder.join(file).is_file())
        };
        let best = directory.join("best");
        let root = if !is_model(directory) && is_model(&best) {
            tracing::info!("{} is the folder of a run: reading its best model", directory.display());
            best
        } else {
            directory.to_owned()
        };
        let modules = read_modules(&root)?;
        let listed = modules.iter().flatten().find(|module| module.class == "Transformer");
        let older = root.join("0_Transformer");
        let encoder = match listed {
            Some(module) => module.folder.clone(),
            // sentence-transformers before 2 always put the encoder there.
            None if !root.join("config.json").is_file() && older.join("config.json").is_file() => older,
            None => root.clone(),
        };
        Ok(Self { root, encoder, modules })
    }
}

/// Joins a relative path that does not lead out of a folder; none for any other.
pub(crate) fn inside(folder: &Path, path: &str) -> Option<PathBuf> {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    (plain && !path.is_empty()).then(|| folder.join(path))
}

fn read_modules(root: &Path) -> Result<Option<Vec<ModuleEntry>>, ModelError> {
    let path = root.join("modules.json");
    if !path.is_file() {
        return Ok(None);
    }
    let listed: Vec<Value> = read_json(&path, "a list of modules")?;
    let modules = listed.iter().map(|module| {
        let keys = Keys { json: module, path: &path };
        let class = keys.text("type")?.unwrap_or_default();
        let class = class.rsplit('.').next().unwrap_or_default().to_owned();
        let name = keys.text("path")?.unwrap_or_default();
        let folder = match inside(root, name) {
            Some(folder) => folder,
            None if name.is_empty() => root.to_owned(),
            None => return Err(keys.unsupported("path", &module["path"], "a folder of the directory")),
        };
        Ok(ModuleEntry { class, folder })
    });
    modules.collect::<Result<Vec<_>, _>>().map(Some)
}

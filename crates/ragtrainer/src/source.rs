//! Models by name: a directory, or with the feature `hub` a model on the Hugging Face hub.

use std::path::{Path, PathBuf};

use colbert_config::Options;
use colbert_model::{Pretrained, hub_name};

use crate::error::Error;

/// The directory of the model of this name; a directory of that name always wins.
///
/// # Errors
/// The hub's. Whether there is such a directory is seen when it is read.
pub(crate) fn model_folder(name: &Path) -> Result<PathBuf, Error> {
    #[cfg(feature = "hub")]
    return crate::hub::model_directory(name, &mut |_| {});
    #[cfg(not(feature = "hub"))]
    Ok(name.to_owned())
}

/// Reads the model of this name.
///
/// # Errors
/// There is no such directory or model, or it cannot be used.
pub(crate) fn read_model(name: impl AsRef<Path>) -> Result<Pretrained, Error> {
    Ok(Pretrained::read(&model_folder(name.as_ref())?)?)
}

/// Reads the model that training starts from, for these options.
///
/// # Errors
/// As [`read_model`].
pub(crate) fn read_start(options: &Options) -> Result<Pretrained, Error> {
    let folder = model_folder(Path::new(&options.pretrained_model_name))?;
    Ok(Pretrained::read_for(&folder, &options.train)?)
}

/// Returns the name of the base model for a published directory: its name on the hub or that of its folder, never its
/// path on this machine.
pub(crate) fn public_name(name: &str) -> String {
    let path = Path::new(name);
    if !path.exists() {
        return name.to_owned();
    }
    let folder = || path.file_name().map(|folder| folder.to_string_lossy().into_owned());
    hub_name(path).or_else(folder).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_directory_names_no_path() {
        let here = tempfile::tempdir().unwrap();
        let snapshot = here.path().join("models--org--name/snapshots/0123");
        std::fs::create_dir_all(&snapshot).unwrap();
        assert_eq!(public_name(snapshot.to_str().unwrap()), "org/name");
        std::fs::create_dir_all(here.path().join("encoder")).unwrap();
        assert_eq!(public_name(here.path().join("encoder").to_str().unwrap()), "encoder");
        assert_eq!(public_name("org/name@v1"), "org/name@v1");
    }
}

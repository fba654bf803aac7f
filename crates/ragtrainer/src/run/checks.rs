//! Checks of a run that cost nothing, made before data are read, mined or tried.

use std::env;
use std::path::{Path, PathBuf};

use colbert_config::Options;
use colbert_train::{Begin, RunFolder, TrainError};

use crate::error::Error;
use crate::run::base_model::Start;
use crate::run::encoder::RunEncoder;
use crate::run::sharing::Sharing;

/// Checks options, output folder, backend, precision and the model that training starts from. Writes nothing. `files`
/// are further inputs of the run, such as option files.
///
/// # Errors
/// Anything that would end the run later.
pub(crate) fn ready<E: RunEncoder>(
    options: &Options,
    files: &[PathBuf],
    begin: Begin,
    sharing: Sharing<'_, E>,
) -> Result<(), Error> {
    options.validate()?;
    if options.output.as_os_str().is_empty() {
        let hint = "name a folder for the run with --output, or output = \"...\" in the config file";
        return Err(Error::NotSet { option: "output", hint });
    }
    match begin {
        // Process 0 makes the folder, perhaps before another process looks.
        Begin::New if !sharing.processes.is_first() => {}
        Begin::New => output_may_be_written(options, files)?,
        Begin::Resume { .. } if RunFolder::is_run(&options.output) => {}
        Begin::Resume { .. } => return Err(TrainError::NoRun { path: options.output.clone() }.into()),
    }
    sharing.backend(&options.backend)?.precision(options.train.precision)?;
    Start::read(options, sharing.encoder).map(drop)
}

/// Checks that a new run may go into the output folder, and that nothing which the run needs lies in it.
pub(crate) fn output_may_be_written(options: &Options, files: &[PathBuf]) -> Result<(), Error> {
    let output = &options.output;
    let data = &options.data;
    let named = [
        ("a file of documents", data.all_documents.as_deref()),
        ("the dev data", data.dev.as_deref()),
        ("the test data", data.test.as_deref()),
        ("the model that training starts from", Some(Path::new(&options.pretrained_model_name))),
        ("the miner's model", options.negatives.miner_model.as_deref()),
        ("the teacher", options.negatives.teacher.as_deref()),
        ("the teacher's scores", options.negatives.teacher_cache.as_deref()),
    ];
    let files = files.iter().map(|file| ("an option file", Some(file.as_path())));
    let train = data.train.0.iter().map(|path| ("the training data", Some(path.as_path())));
    for (what, path) in train.chain(named).chain(files) {
        if let Some(path) = path.filter(|path| lies_in(path, output)) {
            return Err(Error::InsideOutput { what, path: path.to_owned(), output: output.clone() });
        }
    }
    let is_occupied = RunFolder::check(output, options.overwrite)?;
    let here = env::current_dir().ok().filter(|here| is_occupied && lies_in(here, output));
    match here {
        Some(path) => Err(Error::InsideOutput { what: "the current directory", path, output: output.clone() }),
        None => Ok(()),
    }
}

/// Whether an existing path is in an existing folder, or is that folder.
fn lies_in(path: &Path, folder: &Path) -> bool {
    match (path.canonicalize(), folder.canonicalize()) {
        (Ok(path), Ok(folder)) => path.starts_with(folder),
        // One of them does not exist: a path that is missing is reported where it is read.
        _ => false,
    }
}

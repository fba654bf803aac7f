//! `ragtrainer index`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
#[cfg(feature = "index")]
use ragtrainer::DocumentFolder;

#[cfg(feature = "index")]
use crate::output::say;
#[cfg(feature = "index")]
use crate::progress::counted;

/// Build an index of a folder of encoded documents (see `ragtrainer encode --folder`), or add to it what came since.
#[derive(Debug, Args)]
#[command(after_help = "`ragtrainer search` then scores only the documents that the index names, by their exact \
    vectors. Run this command again after `ragtrainer encode` has added documents. It needs a program that was built \
    with the cargo feature `index`; one without it searches the folder all the same, document by document.")]
pub(crate) struct IndexCommand {
    /// Folder of encoded documents; the index is written into it.
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// Bits of a compressed number: 1, 2, 4 or 8 [default: those that the model declares, else 4]. An index of other
    /// bits is built again.
    #[arg(long, value_name = "N")]
    nbits: Option<usize>,
    /// Build the index again even if documents could be added to the one that is there. Its centroids then fit all
    /// documents.
    #[arg(long)]
    rebuild: bool,
}

impl IndexCommand {
    #[cfg(not(feature = "index"))]
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let _ = (self.folder, self.nbits, self.rebuild);
        anyhow::bail!(
            "this program has no index; build it with cargo build --release --features index (without one, ragtrainer \
             search scores every document)"
        )
    }

    #[cfg(feature = "index")]
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut folder = DocumentFolder::open(&self.folder)?;
        let path = self.folder.display();
        let nbits = self.nbits.or(folder.declared_bits()).unwrap_or(4);
        let there = folder.index().filter(|(bits, _)| self.nbits.is_none_or(|nbits| nbits == *bits) && !self.rebuild);
        let Some((nbits, newer)) = there else {
            let passages = folder.passages();
            counted(passages, "passages indexed", |progress| Ok(folder.build_index(nbits, progress)?))?;
            say!("{path}: index of {passages} passages built, {nbits} bits a number");
            return Ok(ExitCode::SUCCESS);
        };
        let added = counted(newer, "passages indexed", |progress| Ok(folder.extend_index(progress)?))?;
        say!("{path}: {added} passages added to the index, {nbits} bits a number, {} in all", folder.passages());
        Ok(ExitCode::SUCCESS)
    }
}

//! A model and its folders: the facade's words for what [`DocumentFolder`] does.

use std::path::Path;

use colbert_kernels::VectorFormat;

use crate::error::Error;
use crate::search::document::Document;
use crate::search::document_folder::DocumentFolder;
use crate::search::passages::Split;
use crate::search::pretrained::RagPretrainedModel;

/// How documents are stored by [`RagPretrainedModel::index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FolderOptions {
    /// Number format of the vectors; none for that of the folder, float32 for a new one.
    pub vectors: Option<VectorFormat>,
    /// How long documents become passages.
    pub split: Split,
}

impl RagPretrainedModel {
    /// Encodes documents into a folder, which is created if it is missing and added to otherwise.
    /// `DocumentFolder::build_index` (feature `index`) makes an index of it, for more than exact search can score in
    /// time.
    ///
    /// # Errors
    /// As [`DocumentFolder::open_or_create_as`] and [`DocumentFolder::add_passages`].
    pub fn index<D: Clone + Into<Document>>(
        &self,
        path: impl AsRef<Path>,
        documents: &[D],
        options: &FolderOptions,
        progress: &mut dyn FnMut(usize),
    ) -> Result<DocumentFolder, Error> {
        let mut folder = DocumentFolder::open_or_create_as(path, self, options.vectors)?;
        folder.add_passages(self, documents, options.split, progress)?;
        Ok(folder)
    }

    /// Adds documents to a folder, and returns their ids.
    ///
    /// # Errors
    /// As [`DocumentFolder::add_passages`].
    pub fn add<D: Clone + Into<Document>>(
        &self,
        folder: &mut DocumentFolder,
        documents: &[D],
        split: Split,
    ) -> Result<Vec<String>, Error> {
        folder.add_passages(self, documents, split, &mut |_| {})
    }

    /// Deletes documents from a folder by their ids, and returns how many.
    ///
    /// # Errors
    /// As [`DocumentFolder::delete`].
    pub fn delete<S: AsRef<str>>(&self, folder: &mut DocumentFolder, ids: &[S]) -> Result<usize, Error> {
        folder.delete(ids)
    }
}

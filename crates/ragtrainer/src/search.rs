//! A trained model in use: encoded documents, where they are kept, and what a search finds in them.

pub(crate) mod document;
pub(crate) mod document_folder;
pub(crate) mod encoded_documents;
pub(crate) mod exact;
pub(crate) mod explanation;
pub(crate) mod folders;
#[cfg(feature = "index")]
pub(crate) mod index;
pub(crate) mod on_device;
pub(crate) mod passages;
pub(crate) mod pretrained;
pub(crate) mod ranking;
pub(crate) mod text_vectors;
pub(crate) mod top;

pub use colbert_kernels::VectorFormat;

pub use document::Document;
pub use document_folder::DocumentFolder;
pub use encoded_documents::EncodedDocuments;
pub use exact::search_vectors;
pub use explanation::{DocumentToken, Explanation, TokenMatch};
pub use folders::FolderOptions;
#[cfg(feature = "index")]
pub use index::PlaidIndex;
pub use passages::Split;
pub use pretrained::RagPretrainedModel;
pub use ranking::{EncodedSource, Hit, Passage};
pub use text_vectors::{TextVectors, VectorBlock};

//! A trained model in use: encoding, reranking, search.

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

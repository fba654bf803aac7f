//! A trained model in use: encoding, reranking, search.

pub(crate) mod document_folder;
pub(crate) mod encoded_documents;
pub(crate) mod pretrained;
pub(crate) mod ranking;
pub(crate) mod text_vectors;

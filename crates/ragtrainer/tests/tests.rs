//! Tests of the facade, with a tiny model and texts of their own.

mod document_folder;
mod facade;
mod families;
mod heads_and_encoders;
mod hostile_bytes;
mod index;
mod support;

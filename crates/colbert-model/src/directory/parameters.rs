//! Reading of the parameters of an exported model whose encoder is not one of this crate's families.

use std::path::Path;

use colbert_kernels::KernelBackend;

use crate::colbert::Colbert;
use crate::encoder::Encoder;
use crate::error::ModelError;
use crate::head::files::HeadFiles;
use crate::weights::Weights;
use crate::weights::files::read_weights;
use crate::weights::layout::Layout;
use crate::weights::parameters::{parameter_names, replace_parameters};

/// Replaces every parameter of a model by those of a directory that
/// [`Export::write_checked`](crate::Export::write_checked) wrote. The folder of a run stands for the best model in it.
///
/// # Errors
/// A file or a tensor that is missing, or a tensor of another shape than the model's.
pub fn load_parameters<B: KernelBackend, E: Encoder<B>>(
    model: Colbert<B, E>,
    directory: &Path,
) -> Result<Colbert<B, E>, ModelError> {
    let layout = Layout::find(directory)?;
    let path = layout.encoder.join("model.safetensors");
    let Some(mut of_encoder) = read_weights(&layout.encoder)? else {
        return Err(ModelError::MissingFile { path, hint: "it holds the weights" });
    };
    let head = HeadFiles::read(&layout, model.encoder.hidden_size())?;
    let mut tensors = Vec::new();
    for field in parameter_names(&model) {
        let name = model.tensor_name(&field);
        let of_head = head.iter().flat_map(|head| &head.tensors).find(|(own, _)| *own == name);
        let tensor = match of_head {
            Some((_, tensor)) if !field.starts_with("encoder.") => tensor.clone(),
            _ => {
                let shape = of_encoder.shape(&name).unwrap_or_default().to_vec();
                of_encoder.take(&name, &shape)?
            }
        };
        tensors.push((field, tensor));
    }
    replace_parameters(model, &mut Weights::new(path, tensors))
}

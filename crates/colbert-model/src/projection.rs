//! The projection of a directory that PyLate or sentence-transformers wrote: a module folder of its own.

use std::path::Path;

use serde_json::Value;

use crate::error::ModelError;
use crate::load::read_json;
use crate::weight_files::read_weights;
use crate::weights::HostTensor;

/// The matrix in `1_Dense`, `[dim, hidden_size]`; none if there is no such folder.
///
/// # Errors
/// Weights that are missing or damaged; a bias, a residual, another activation than Identity or ReLU; a second Dense.
pub(crate) fn read_projection(directory: &Path) -> Result<Option<HostTensor>, ModelError> {
    let folder = directory.join("1_Dense");
    if !folder.is_dir() {
        return Ok(None);
    }
    let Some(mut weights) = read_weights(&folder)? else {
        let path = folder.join("model.safetensors");
        return Err(ModelError::MissingFile { path, hint: "it holds the projection" });
    };
    let path = weights.path().to_owned();
    let unsupported = |path, field, found: &str, expected: &str| {
        Err(ModelError::UnsupportedConfig { path, field, found: found.to_owned(), expected: expected.to_owned() })
    };
    if weights.contains("linear.bias") {
        return unsupported(path, "linear.bias", "present", "a projection without bias");
    }
    if directory.join("2_Dense").is_dir() {
        return unsupported(directory.join("2_Dense"), "modules", "a second projection", "one projection");
    }
    let config_path = folder.join("config.json");
    if config_path.is_file() {
        let config: Value = read_json(&config_path, "a JSON object")?;
        let activation = config["activation_function"].as_str().unwrap_or("torch.nn.modules.linear.Identity");
        if !activation.ends_with(".Identity") && !activation.ends_with(".ReLU") {
            return unsupported(config_path, "activation_function", activation, "Identity or ReLU");
        }
        if config["use_residual"] == Value::Bool(true) {
            return unsupported(config_path, "use_residual", "true", "false");
        }
    }
    let Some(shape) = weights.shape("linear.weight").map(<[usize]>::to_vec) else {
        return Err(ModelError::MissingTensor { path, name: "linear.weight".to_owned() });
    };
    weights.take("linear.weight", &shape).map(Some)
}

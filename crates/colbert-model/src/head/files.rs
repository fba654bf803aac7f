//! Reading and writing of a directory's head: the Dense modules of PyLate and sentence-transformers, each in a folder
//! of its own, and the one matrix that colbert-ai reads.

use std::path::{Path, PathBuf};

use crate::error::ModelError;
use crate::head::activation::Activation;
use crate::head::config::{DenseConfig, HeadConfig, module_folder, tensor_name};
use crate::settings::token_pooling::POOLING;
use crate::weights::files::read_weights;
use crate::weights::json::{Keys, optional_object};
use crate::weights::layout::Layout;
use crate::weights::{HostTensor, Weights};

/// Layers of a head, at most: published ones have one or two.
const MOST_LAYERS: usize = 16;

/// A head with its tensors, named as [`tensor_name`] names them.
#[derive(Debug, Clone)]
pub(crate) struct HeadFiles {
    pub(crate) config: HeadConfig,
    pub(crate) tensors: Vec<(String, HostTensor)>,
    /// Tensors of the module folders that the layers do not need.
    pub(crate) ignored: Vec<String>,
}

impl HeadFiles {
    /// Makes a head of one matrix, `[dim, hidden_size]`. That it has two axes is checked when a model is made.
    pub(crate) fn linear(matrix: HostTensor) -> Self {
        let size = |axis: usize| matrix.shape.get(axis).copied().unwrap_or_default();
        let config = HeadConfig::linear(size(1), size(0));
        Self { config, tensors: vec![("linear.weight".to_owned(), matrix)], ignored: Vec::new() }
    }

    /// Reads the Dense modules of a directory: those that `modules.json` lists, without it the folders `1_Dense`,
    /// `2_Dense` and so on. None if there are none, or if they follow a pooling: then they belong to a sentence
    /// encoder, with one vector for each text.
    ///
    /// # Errors
    /// A folder, file or tensor that is missing or damaged; an activation that is not done here; layers that do not fit
    /// together.
    pub(crate) fn read(layout: &Layout, hidden_size: usize) -> Result<Option<Self>, ModelError> {
        let folders = dense_folders(layout)?;
        if folders.is_empty() {
            return Ok(None);
        }
        let (mut layers, mut tensors, mut ignored) = (Vec::<DenseConfig>::new(), Vec::new(), Vec::new());
        for folder in folders {
            let expected = layers.last().map_or(hidden_size, |before| before.out_features);
            let (config, mut weights) = read_layer(&folder)?;
            if config.in_features != expected {
                return Err(ModelError::UnsupportedConfig {
                    path: folder.join("config.json"),
                    field: "in_features",
                    found: config.in_features.to_string(),
                    expected: format!("{expected}, the size of the vectors before it"),
                });
            }
            let place = layers.len();
            for (name, shape) in config.shapes() {
                tensors.push((tensor_name(place, name), weights.take(name, &shape)?));
            }
            ignored.extend(weights.names().map(|name| tensor_name(place, name)));
            layers.push(config);
        }
        Ok(Some(Self { config: HeadConfig { layers }, tensors, ignored }))
    }

    /// Returns a tensor of the layer at this place.
    pub(crate) fn tensor(&self, place: usize, name: &str) -> Option<&HostTensor> {
        tensor(&self.tensors, place, name)
    }
}

fn tensor<'a>(tensors: &'a [(String, HostTensor)], place: usize, name: &str) -> Option<&'a HostTensor> {
    let name = tensor_name(place, name);
    tensors.iter().find(|(own, _)| *own == name).map(|(_, tensor)| tensor)
}

/// Lists the folders of the Dense modules that work on tokens.
///
/// # Errors
/// A module that is not done here, or does its work elsewhere than here.
fn dense_folders(layout: &Layout) -> Result<Vec<PathBuf>, ModelError> {
    let path = layout.root.join("modules.json");
    let refused = |found: String, expected: String| {
        Err(ModelError::UnsupportedConfig { path: path.clone(), field: "type", found, expected })
    };
    let too_many = |found: usize| refused(found.to_string(), format!("{MOST_LAYERS} Dense modules at most"));
    let Some(modules) = &layout.modules else {
        let folders = (0..=MOST_LAYERS).map(|place| layout.root.join(module_folder(place)));
        let folders: Vec<PathBuf> = folders.take_while(|folder| folder.is_dir()).collect();
        return if folders.len() > MOST_LAYERS { too_many(folders.len()) } else { Ok(folders) };
    };
    // After a pooling, modules belong to a sentence encoder and work on one vector for each text.
    let pooling = modules.iter().position(|module| module.class == "Pooling").unwrap_or(modules.len());
    let (mut folders, mut unit_length, mut pooled) = (Vec::new(), false, false);
    for module in &modules[..pooling] {
        match module.class.as_str() {
            other if pooled => {
                return refused(format!("\"{other}\" behind {POOLING}"), format!("{POOLING} as the last module"));
            }
            POOLING if !unit_length => {
                return refused(
                    format!("no Normalize before {POOLING}"),
                    "a Normalize: likeness is a cosine".to_owned(),
                );
            }
            POOLING => pooled = true,
            "Dense" if unit_length => {
                return refused("Normalize".to_owned(), "a Normalize behind all of Dense".to_owned());
            }
            "Dense" if module.folder == layout.root => {
                let (field, found) = ("path", "\"\"".to_owned());
                let expected = "a folder of the directory".to_owned();
                return Err(ModelError::UnsupportedConfig { path, field, found, expected });
            }
            "Dense" => folders.push(module.folder.clone()),
            "Normalize" => unit_length = true,
            "Transformer" | "MultiVectorMask" => {}
            other => {
                let expected = "Transformer, Dense, Normalize, MultiVectorMask and HierarchicalTokenPooling: other \
                                modules change vectors";
                return refused(format!("\"{other}\""), expected.to_owned());
            }
        }
    }
    let masked = modules.iter().any(|module| module.class == "MultiVectorMask");
    if masked && !unit_length {
        return refused("no Normalize".to_owned(), "a Normalize: vectors have length 1 here".to_owned());
    }
    if folders.len() > MOST_LAYERS { too_many(folders.len()) } else { Ok(folders) }
}

/// Reads a module folder's layer and its tensors. Without `config.json`, the layer follows from the tensors.
fn read_layer(folder: &Path) -> Result<(DenseConfig, Weights), ModelError> {
    if !folder.is_dir() {
        return Err(ModelError::MissingFile { path: folder.to_owned(), hint: "modules.json names this folder" });
    }
    let Some(weights) = read_weights(folder)? else {
        let path = folder.join("model.safetensors");
        return Err(ModelError::MissingFile { path, hint: "it holds a layer of the head" });
    };
    let path = folder.join("config.json");
    let json = optional_object(&path)?;
    let keys = Keys { json: &json, path: &path };
    let shape = weights.shape("linear.weight").unwrap_or_default();
    let size = |field, axis: usize| -> Result<usize, ModelError> {
        Ok(keys.count(field)?.or_else(|| shape.get(axis).copied()).unwrap_or_default())
    };
    let has_bias = weights.contains("linear.bias");
    let named = keys.text("activation_function")?.unwrap_or("torch.nn.Identity");
    let Some(activation) = Activation::from_path(named) else {
        let known: Vec<&str> = Activation::ALL.into_iter().map(Activation::class).collect();
        let (found, expected) = (named.to_owned(), format!("of torch.nn one of {}", known.join(", ")));
        return Err(ModelError::UnsupportedConfig { path, field: "activation_function", found, expected });
    };
    let config = DenseConfig {
        in_features: size("in_features", 1)?,
        out_features: size("out_features", 0)?,
        bias: keys.flag("bias")?.unwrap_or(has_bias),
        activation,
        use_residual: keys.flag("use_residual")?.unwrap_or(false),
    };
    if has_bias && !config.bias {
        return Err(keys.unsupported("bias", &json["bias"], "true, as its weights have a bias"));
    }
    Ok((config, weights))
}

/// Returns the content of the module folders: the tensors of each layer, by their names there.
///
/// # Errors
/// A tensor that is not there. `path` appears in the message.
pub(crate) fn module_tensors(
    head: &HeadConfig,
    tensors: &[(String, HostTensor)],
    path: &Path,
) -> Result<Vec<Vec<(String, HostTensor)>>, ModelError> {
    let of_layer = |(place, layer): (usize, &DenseConfig)| {
        let named = layer.shapes().into_iter().map(|(name, _)| match tensor(tensors, place, name) {
            Some(tensor) => Ok((name.to_owned(), tensor.clone())),
            None => Err(ModelError::MissingTensor { path: path.to_owned(), name: tensor_name(place, name) }),
        });
        named.collect()
    };
    head.layers.iter().enumerate().map(of_layer).collect()
}

/// Returns the head as one matrix `[dim, hidden_size]`: the product of its matrices, with residuals added and biases
/// and activations left out. For a simple head this is its own matrix.
pub(crate) fn one_matrix(head: &HeadConfig, modules: &[Vec<(String, HostTensor)>]) -> HostTensor {
    let mut product: Option<Vec<f64>> = None;
    let columns = head.layers[0].in_features;
    for (layer, tensors) in head.layers.iter().zip(modules) {
        let mut own: Vec<f64> = tensors[0].1.values.iter().map(|value| f64::from(*value)).collect();
        if let Some((_, residual)) = tensors.iter().find(|(name, _)| name == "residual.weight") {
            own.iter_mut().zip(&residual.values).for_each(|(sum, value)| *sum += f64::from(*value));
        } else if layer.use_residual {
            (0..layer.out_features).for_each(|i| own[i * layer.in_features + i] += 1.0);
        }
        product = Some(match product {
            None => own,
            Some(before) => times(&own, &before, layer.in_features, columns),
        });
    }
    let values = product.expect("a head has a layer").into_iter().map(|value| value as f32).collect();
    HostTensor { shape: vec![head.dim(), columns], values }
}

/// Multiplies `[rows, inner]` by `[inner, columns]`.
fn times(left: &[f64], right: &[f64], inner: usize, columns: usize) -> Vec<f64> {
    let mut product = Vec::with_capacity(left.len() / inner.max(1) * columns);
    for row in left.chunks(inner.max(1)) {
        let mut sums = vec![0.0; columns];
        for (factor, right) in row.iter().zip(right.chunks(columns.max(1))) {
            sums.iter_mut().zip(right).for_each(|(sum, value)| *sum += factor * value);
        }
        product.extend(sums);
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, shape: [usize; 2], values: &[f32]) -> (String, HostTensor) {
        (name.to_owned(), HostTensor { shape: shape.to_vec(), values: values.to_vec() })
    }

    #[test]
    fn matrices_become_one() {
        let square = DenseConfig { use_residual: true, ..DenseConfig::linear(2, 2) };
        let wide = DenseConfig { use_residual: true, ..DenseConfig::linear(2, 3) };
        let head = HeadConfig { layers: vec![square, wide, DenseConfig::linear(3, 1)] };
        let modules = [
            vec![named("linear.weight", [2, 2], &[1.0, 2.0, 3.0, 4.0])],
            vec![
                named("linear.weight", [3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
                named("residual.weight", [3, 2], &[0.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
            ],
            vec![named("linear.weight", [1, 3], &[1.0, 10.0, 100.0])],
        ];
        // [[2, 2], [3, 5]]; times [[1, 1], [0, 1], [1, 1]]: [[5, 7], [3, 5], [5, 7]]; then 5 + 30 + 500 and 7 + 50 +
        // 700.
        assert_eq!(one_matrix(&head, &modules), HostTensor { shape: vec![1, 2], values: vec![535.0, 757.0] });
    }
}

//! A module's parameters by name, on the host: for export, checkpoints and averages.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use crate::error::ModelError;
use crate::weights::write::DeviceTensor;
use crate::weights::{HostTensor, Weights};

/// The names on the path to a parameter, in a checkpoint's spelling.
#[derive(Debug, Default)]
struct NamePath {
    parts: Vec<String>,
}

impl NamePath {
    fn enter(&mut self, name: &str, container: &str) {
        // The family of an encoder is not part of its tensors' names.
        self.parts.push(match name {
            _ if container.starts_with("Enum:") => String::new(),
            "self_" => "self".to_owned(),
            "layer_norm" => "LayerNorm".to_owned(),
            "w_qkv" => "Wqkv".to_owned(),
            "w_o" => "Wo".to_owned(),
            "w_i" => "Wi".to_owned(),
            other => other.to_owned(),
        });
    }

    fn name(&self) -> String {
        let parts: Vec<&str> = self.parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        // The first layer of a head, most often the only one, has the names of a projection: `linear.weight`.
        parts.strip_prefix(&["head", "dense", "0"]).unwrap_or(&parts).join(".")
    }
}

struct Collector<F> {
    path: NamePath,
    found: F,
}

impl<B: Backend, F: FnMut(String, &dyn Fn() -> DeviceTensor)> ModuleVisitor<B> for Collector<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.parts.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let lazy = || {
            let tensor = param.val();
            DeviceTensor::new(tensor.dims().to_vec(), move || {
                tensor.to_data().convert::<f32>().into_vec().expect("the data was converted to f32")
            })
        };
        (self.found)(self.path.name(), &lazy);
    }
}

/// Copies every parameter to the host, in the module's own order. Names are field paths:
/// `encoder.layer.0.attention.self.query.weight`.
///
/// # Shapes
/// Those of the parameters, such as `[out, in]` for a linear map.
pub fn named_parameters<B: Backend, M: Module<B>>(module: &M) -> Vec<(String, HostTensor)> {
    let mut all = Vec::new();
    let found = |name, lazy: &dyn Fn() -> DeviceTensor| {
        let DeviceTensor { shape, read } = lazy();
        all.push((name, HostTensor { shape, values: read() }));
    };
    module.visit(&mut Collector { path: NamePath::default(), found });
    all
}

/// Lists every parameter in the same order, to be copied one by one.
pub fn device_parameters<B: Backend, M: Module<B>>(module: &M) -> Vec<(String, DeviceTensor)> {
    let mut all = Vec::new();
    let found = |name, lazy: &dyn Fn() -> DeviceTensor| all.push((name, lazy()));
    module.visit(&mut Collector { path: NamePath::default(), found });
    all
}

/// Lists the names alone, in the same order, without copying anything.
pub fn parameter_names<B: Backend, M: Module<B>>(module: &M) -> Vec<String> {
    let mut all = Vec::new();
    let found = |name, _: &dyn Fn() -> DeviceTensor| all.push(name);
    module.visit(&mut Collector { path: NamePath::default(), found });
    all
}

struct Replacer<'a> {
    path: NamePath,
    weights: &'a mut Weights,
    error: Option<ModelError>,
}

impl<B: Backend> ModuleMapper<B> for Replacer<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.parts.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if self.error.is_some() {
            return param;
        }
        match self.weights.take(&self.path.name(), &param.shape().to_vec()) {
            Ok(tensor) => {
                let device = param.device();
                param.map(|old| {
                    let new = Tensor::from_data(TensorData::new(tensor.values, tensor.shape), &device);
                    new.set_require_grad(old.is_require_grad())
                })
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}

/// Replaces every parameter by `weights`, with the names of [`named_parameters`].
///
/// # Errors
/// A parameter that `weights` lacks or holds in another shape.
pub fn replace_parameters<B: Backend, M: Module<B>>(module: M, weights: &mut Weights) -> Result<M, ModelError> {
    let mut replacer = Replacer { path: NamePath::default(), weights, error: None };
    let module = module.map(&mut replacer);
    match replacer.error {
        None => Ok(module),
        Some(error) => Err(error),
    }
}

//! The layers that the families share, as nodes of a graph on `[batch, length, size]`.

use crate::error::ModelError;
use crate::onnx::graph::{Graph, Setting, Value};
use crate::weights::{HostTensor, Weights};

/// The value of a product that does not count, as in attention itself.
pub(crate) const NEVER: f32 = -1e30;

/// Inputs of a graph, int64 `[batch, length]`.
pub(crate) struct Inputs {
    pub(crate) ids: Value,
    pub(crate) token_types: Option<Value>,
}

/// Values that follow from the inputs alone.
pub(crate) struct Tokens {
    /// 0, 1, 2 and so on, int64 `[length]`.
    pub(crate) places: Value,
    /// Tokens that can be attended to, bool `[batch, 1, 1, length]`.
    pub(crate) attended: Value,
}

/// A graph and the tensors that its nodes use.
pub(crate) struct Nodes<'a> {
    pub(crate) graph: Graph,
    pub(crate) weights: &'a mut Weights,
}

/// Arguments of attention.
pub(crate) struct Mix<'a> {
    /// Query, key and value, `[batch, heads, length, head_size]`.
    pub(crate) parts: [Value; 3],
    /// Which columns a row may attend to, bool; broadcast to `[batch, heads, length, length]`.
    pub(crate) allowed: &'a Value,
    /// A row may have no column; it then gets zeros.
    pub(crate) may_be_empty: bool,
    /// Numbers to add to the scaled products, broadcast to `[batch, heads, length, length]`.
    pub(crate) bias: Option<&'a Value>,
    pub(crate) heads: usize,
    pub(crate) hidden: usize,
}

impl Nodes<'_> {
    /// Adds `x W^T`, plus a bias if there is one.
    pub(crate) fn linear(&mut self, name: &str, shape: [usize; 2], x: &Value) -> Result<Value, ModelError> {
        let [mapped] = self.linear_of_each(name, shape, [x])?;
        Ok(mapped)
    }

    /// Adds the same map for several inputs, its tensors stored once.
    pub(crate) fn linear_of_each<const N: usize>(
        &mut self,
        name: &str,
        [out, input]: [usize; 2],
        inputs: [&Value; N],
    ) -> Result<[Value; N], ModelError> {
        let weight = self.weights.take(&format!("{name}.weight"), &[out, input])?;
        let bias = format!("{name}.bias");
        let bias = if self.weights.contains(&bias) { Some(self.weights.take(&bias, &[out])?) } else { None };
        self.map_of_each(name, &weight, bias.as_ref(), inputs)
    }

    /// Adds `x W^T`, plus a bias, with tensors of the caller; `name` is their name in the graph.
    pub(crate) fn map(
        &mut self,
        name: &str,
        weight: &HostTensor,
        bias: Option<&HostTensor>,
        x: &Value,
    ) -> Result<Value, ModelError> {
        let [mapped] = self.map_of_each(name, weight, bias, [x])?;
        Ok(mapped)
    }

    fn map_of_each<const N: usize>(
        &mut self,
        name: &str,
        weight: &HostTensor,
        bias: Option<&HostTensor>,
        inputs: [&Value; N],
    ) -> Result<[Value; N], ModelError> {
        let weight = self.graph.weight(&format!("{name}.weight, transposed"), &transposed(weight))?;
        let bias = bias.map(|bias| self.graph.weight(&format!("{name}.bias"), bias)).transpose()?;
        Ok(inputs.map(|x| {
            let product = self.graph.op("MatMul", &[x, &weight]);
            match &bias {
                Some(bias) => self.graph.op("Add", &[&product, bias]),
                None => product,
            }
        }))
    }

    /// Adds a layer normalisation, with a bias if there is one.
    pub(crate) fn layer_norm(&mut self, name: &str, size: usize, eps: f64, x: &Value) -> Result<Value, ModelError> {
        let mut inputs = vec![x.clone()];
        for part in ["weight", "bias"] {
            let name = format!("{name}.{part}");
            if part == "weight" || self.weights.contains(&name) {
                let tensor = self.weights.take(&name, &[size])?;
                inputs.push(self.graph.weight(&name, &tensor)?);
            }
        }
        let settings = [("axis", Setting::Int(-1)), ("epsilon", Setting::Float(eps as f32))];
        Ok(self.graph.op_with("LayerNormalization", &inputs.iter().collect::<Vec<_>>(), &settings))
    }

    /// Adds the lookup of rows of a table.
    pub(crate) fn rows(&mut self, name: &str, shape: [usize; 2], places: &Value) -> Result<Value, ModelError> {
        let table = self.weights.take(name, &shape)?;
        let table = self.graph.weight(name, &table)?;
        Ok(self.graph.op("Gather", &[&table, places]))
    }

    /// GELU by the error function.
    pub(crate) fn gelu(&mut self, x: &Value) -> Value {
        let (root, half, one) =
            (self.graph.float(std::f32::consts::FRAC_1_SQRT_2), self.graph.float(0.5), self.graph.float(1.0));
        let scaled = self.graph.op("Mul", &[x, &root]);
        let error = self.graph.op("Erf", &[&scaled]);
        let sum = self.graph.op("Add", &[&error, &one]);
        let halved = self.graph.op("Mul", &[x, &half]);
        self.graph.op("Mul", &[&halved, &sum])
    }

    /// Adds SiLU: `x / (1 + e^-x)`.
    pub(crate) fn silu(&mut self, x: &Value) -> Value {
        let gate = self.graph.op("Sigmoid", &[x]);
        self.graph.op("Mul", &[x, &gate])
    }

    /// Adds the division by the root mean square of the last axis, which has `size` numbers.
    pub(crate) fn rms_norm(&mut self, name: &str, size: usize, eps: f64, x: &Value) -> Result<Value, ModelError> {
        let name = format!("{name}.weight");
        let weight = self.weights.take(&name, &[size])?;
        let weight = self.graph.weight(&name, &weight)?;
        let (axes, share, eps) =
            (self.graph.ints(&[-1]), self.graph.float(1.0 / size as f32), self.graph.float(eps as f32));
        let squares = self.graph.op("Mul", &[x, x]);
        let sum = self.graph.op_with("ReduceSum", &[&squares, &axes], &[("keepdims", Setting::Int(1))]);
        let mean = self.graph.op("Mul", &[&sum, &share]);
        let mean = self.graph.op("Add", &[&mean, &eps]);
        let root = self.graph.op("Sqrt", &[&mean]);
        let normal = self.graph.op("Div", &[x, &root]);
        Ok(self.graph.op("Mul", &[&normal, &weight]))
    }

    /// Adds 0, 1, 2 and so on, one for each token: int64 `[length]`.
    pub(crate) fn places(&mut self, ids: &Value) -> Value {
        let (zero, one) = (self.graph.int(0), self.graph.int(1));
        let shape = self.graph.op("Shape", &[ids]);
        let length = self.graph.op_with("Gather", &[&shape, &one], &[("axis", Setting::Int(0))]);
        self.graph.op("Range", &[&zero, &length, &one])
    }

    /// Adds places as a column and as a row, `[length, 1]` and `[1, length]`, to compare each token with each.
    pub(crate) fn column_and_row(&mut self, places: &Value) -> [Value; 2] {
        let (first, last) = (self.graph.ints(&[0]), self.graph.ints(&[1]));
        [self.graph.op("Unsqueeze", &[places, &last]), self.graph.op("Unsqueeze", &[places, &first])]
    }

    /// Splits heads: `[batch, length, hidden]` to `[batch, heads, length, head_size]`.
    pub(crate) fn split_heads(&mut self, x: &Value, heads: usize, hidden: usize) -> Value {
        let shape = self.graph.ints(&[0, 0, heads as i64, (hidden / heads) as i64]);
        let split = self.graph.op("Reshape", &[x, &shape]);
        self.graph.op_with("Transpose", &[&split], &[("perm", Setting::Ints(vec![0, 2, 1, 3]))])
    }

    /// Adds `softmax(Q K^T / sqrt(head_size)) V`, the heads joined again: `[batch, length, hidden]`.
    pub(crate) fn attention(&mut self, mix: &Mix<'_>) -> Value {
        let [query, key, value] = &mix.parts;
        let scale = self.graph.float(1.0 / ((mix.hidden / mix.heads) as f32).sqrt());
        let never = self.graph.float(NEVER);
        let key = self.graph.op_with("Transpose", &[key], &[("perm", Setting::Ints(vec![0, 1, 3, 2]))]);
        let products = self.graph.op("MatMul", &[query, &key]);
        let mut products = self.graph.op("Mul", &[&products, &scale]);
        if let Some(bias) = mix.bias {
            products = self.graph.op("Add", &[&products, bias]);
        }
        let products = self.graph.op("Where", &[mix.allowed, &products, &never]);
        let mut weights = self.graph.op_with("Softmax", &[&products], &[("axis", Setting::Int(-1))]);
        if mix.may_be_empty {
            let zero = self.graph.float(0.0);
            weights = self.graph.op("Where", &[mix.allowed, &weights, &zero]);
        }
        let mixed = self.graph.op("MatMul", &[&weights, value]);
        self.join_heads(&mixed, mix.hidden)
    }

    /// Joins heads, the inverse of [`split_heads`](Self::split_heads).
    pub(crate) fn join_heads(&mut self, x: &Value, hidden: usize) -> Value {
        let joined = self.graph.op_with("Transpose", &[x], &[("perm", Setting::Ints(vec![0, 2, 1, 3]))]);
        let shape = self.graph.ints(&[0, 0, hidden as i64]);
        self.graph.op("Reshape", &[&joined, &shape])
    }
}

/// Transposes `[out, in]` to `[in, out]`.
fn transposed(matrix: &HostTensor) -> HostTensor {
    let [rows, columns] = matrix.shape[..] else { panic!("a matrix has two axes") };
    let mut values = Vec::with_capacity(matrix.values.len());
    // An outline of a model has shapes and no values.
    let columns_with_values = if matrix.values.is_empty() { 0 } else { columns };
    for column in 0..columns_with_values {
        values.extend((0..rows).map(|row| matrix.values[row * columns + column]));
    }
    HostTensor { shape: vec![columns, rows], values }
}

//! A graph under construction: nodes in the order in which they are added, constants, inputs.

use std::collections::BTreeSet;

use colbert_config::ExportDtype;

use crate::error::ModelError;
use crate::onnx::proto::{
    AttributeProto, DimensionProto, GraphProto, NodeProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
    ValueInfoProto,
};
use crate::weights::{HostTensor, narrow};

/// Types of numbers, as ONNX counts them.
const FLOAT: i32 = 1;
pub(crate) const INT64: i32 = 7;
pub(crate) const BOOL: i32 = 9;
const FLOAT16: i32 = 10;
const BFLOAT16: i32 = 16;

/// The result of a node, a constant or an input, by its name.
#[derive(Debug, Clone)]
pub(crate) struct Value(String);

/// A setting of an operator.
pub(crate) enum Setting {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
}

/// A graph that is not finished.
pub(crate) struct Graph {
    graph: GraphProto,
    dtype: ExportDtype,
    constants: BTreeSet<String>,
}

impl Graph {
    /// Creates an empty graph. Weights are stored in `dtype`, and computed with in float32.
    pub(crate) fn new(dtype: ExportDtype) -> Self {
        let graph = GraphProto { name: "colbert".to_owned(), ..GraphProto::default() };
        Self { graph, dtype, constants: BTreeSet::new() }
    }

    /// Adds an input, int64 `[batch, length]`.
    pub(crate) fn input(&mut self, name: &str) -> Value {
        self.graph.input.push(described(name, INT64, None));
        Value(name.to_owned())
    }

    pub(crate) fn op(&mut self, operator: &str, inputs: &[&Value]) -> Value {
        self.op_with(operator, inputs, &[])
    }

    pub(crate) fn op_with(&mut self, operator: &str, inputs: &[&Value], settings: &[(&str, Setting)]) -> Value {
        self.ops(operator, inputs, settings, 1).remove(0)
    }

    /// Adds a node with several outputs.
    pub(crate) fn ops(
        &mut self,
        operator: &str,
        inputs: &[&Value],
        settings: &[(&str, Setting)],
        outputs: usize,
    ) -> Vec<Value> {
        let name = format!("{operator}_{}", self.graph.node.len());
        let output: Vec<String> = match outputs {
            1 => vec![name.clone()],
            _ => (0..outputs).map(|i| format!("{name}_{i}")).collect(),
        };
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|value| value.0.clone()).collect(),
            output: output.clone(),
            name,
            op_type: operator.to_owned(),
            attribute: settings.iter().map(|(name, setting)| attribute(name, setting)).collect(),
        });
        output.into_iter().map(Value).collect()
    }

    pub(crate) fn cast(&mut self, input: &Value, to: i32) -> Value {
        self.op_with("Cast", &[input], &[("to", Setting::Int(i64::from(to)))])
    }

    pub(crate) fn float32(&mut self, input: &Value) -> Value {
        self.cast(input, FLOAT)
    }

    /// Adds a tensor of the model, float32 wherever it is used.
    ///
    /// # Errors
    /// A number that the type cannot hold.
    pub(crate) fn weight(&mut self, name: &str, tensor: &HostTensor) -> Result<Value, ModelError> {
        let raw_data = narrow(&tensor.values, self.dtype).map_err(|value| ModelError::OutOfRange {
            name: name.to_owned(),
            value,
            dtype: self.dtype.torch_name(),
        })?;
        let data_type = match self.dtype {
            ExportDtype::F32 => FLOAT,
            ExportDtype::F16 => FLOAT16,
            ExportDtype::Bf16 => BFLOAT16,
        };
        let dims = tensor.shape.iter().map(|length| *length as i64).collect();
        self.graph.initializer.push(TensorProto { dims, data_type, name: name.to_owned(), raw_data });
        let stored = Value(name.to_owned());
        Ok(if data_type == FLOAT { stored } else { self.float32(&stored) })
    }

    /// Adds a number.
    pub(crate) fn float(&mut self, value: f32) -> Value {
        self.constant(format!("float {value:e}"), vec![], FLOAT, value.to_le_bytes().to_vec())
    }

    /// Adds an integer.
    pub(crate) fn int(&mut self, value: i64) -> Value {
        self.constant(format!("int {value}"), vec![], INT64, value.to_le_bytes().to_vec())
    }

    /// Adds a list of integers.
    pub(crate) fn ints(&mut self, values: &[i64]) -> Value {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(format!("ints {values:?}"), vec![values.len() as i64], INT64, bytes)
    }

    /// Adds a row of numbers, float32 `[1, values]`, whatever the type of the weights.
    pub(crate) fn row(&mut self, name: &str, values: &[f32]) -> Value {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name.to_owned(), vec![1, values.len() as i64], FLOAT, bytes)
    }

    fn constant(&mut self, name: String, dims: Vec<i64>, data_type: i32, raw_data: Vec<u8>) -> Value {
        if self.constants.insert(name.clone()) {
            self.graph.initializer.push(TensorProto { dims, data_type, name: name.clone(), raw_data });
        }
        Value(name)
    }

    /// Finishes the graph, whose output is `value`, float32 `[batch, length, size]`.
    pub(crate) fn finish(mut self, value: &Value, name: &str, size: usize) -> GraphProto {
        let last = self.graph.node.iter_mut().find(|node| node.output == [value.0.clone()]);
        last.expect("a node gives the output").output = vec![name.to_owned()];
        self.graph.output.push(described(name, FLOAT, Some(size)));
        self.graph
    }
}

/// Describes a value `[batch, length]`, with a third axis if a size is given.
fn described(name: &str, elem_type: i32, size: Option<usize>) -> ValueInfoProto {
    let named = |name: &str| DimensionProto { dim_param: Some(name.to_owned()), dim_value: None };
    let mut dim = vec![named("batch_size"), named("sequence_length")];
    dim.extend(size.map(|size| DimensionProto { dim_value: Some(size as i64), dim_param: None }));
    let tensor_type = Some(TensorTypeProto { elem_type, shape: Some(TensorShapeProto { dim }) });
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type }) }
}

fn attribute(name: &str, setting: &Setting) -> AttributeProto {
    let empty = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    match setting {
        Setting::Float(value) => AttributeProto { f: *value, r#type: 1, ..empty },
        Setting::Int(value) => AttributeProto { i: *value, r#type: 2, ..empty },
        Setting::Ints(values) => AttributeProto { ints: values.clone(), r#type: 7, ..empty },
    }
}

//! The messages of ONNX that our models need, by the names and field numbers of `onnx/onnx.proto3` (ONNX 1.12, IR
//! version 8). A reader skips the fields that are left out here.

use prost::Message;

/// A model: a graph, and its versions.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModelProto {
    /// Version of the format.
    #[prost(int64, tag = "1")]
    pub(crate) ir_version: i64,
    /// Program that wrote it.
    #[prost(string, tag = "2")]
    pub(crate) producer_name: String,
    /// Its version.
    #[prost(string, tag = "3")]
    pub(crate) producer_version: String,
    /// The computation.
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<GraphProto>,
    /// Versions of the operators.
    #[prost(message, repeated, tag = "8")]
    pub(crate) opset_import: Vec<OperatorSetIdProto>,
}

/// A set of operators.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OperatorSetIdProto {
    /// Empty: ONNX's own.
    #[prost(string, tag = "1")]
    pub(crate) domain: String,
    /// Version of the set.
    #[prost(int64, tag = "2")]
    pub(crate) version: i64,
}

/// Nodes in an order in which they can be computed.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GraphProto {
    /// Operations.
    #[prost(message, repeated, tag = "1")]
    pub(crate) node: Vec<NodeProto>,
    /// Name of the graph.
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    /// Constants.
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializer: Vec<TensorProto>,
    /// Inputs.
    #[prost(message, repeated, tag = "11")]
    pub(crate) input: Vec<ValueInfoProto>,
    /// Outputs.
    #[prost(message, repeated, tag = "12")]
    pub(crate) output: Vec<ValueInfoProto>,
}

/// One operation.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NodeProto {
    /// Names of its inputs.
    #[prost(string, repeated, tag = "1")]
    pub(crate) input: Vec<String>,
    /// Names of its outputs.
    #[prost(string, repeated, tag = "2")]
    pub(crate) output: Vec<String>,
    /// Name of the node.
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    /// Operator, such as `MatMul`.
    #[prost(string, tag = "4")]
    pub(crate) op_type: String,
    /// Settings of the operator.
    #[prost(message, repeated, tag = "5")]
    pub(crate) attribute: Vec<AttributeProto>,
}

/// A setting of an operator.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AttributeProto {
    /// Its name, such as `axis`.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// Value of kind 1.
    #[prost(float, tag = "2")]
    pub(crate) f: f32,
    /// Value of kind 2.
    #[prost(int64, tag = "3")]
    pub(crate) i: i64,
    /// Value of kind 7.
    #[prost(int64, repeated, tag = "8")]
    pub(crate) ints: Vec<i64>,
    /// Which of the values it has.
    #[prost(int32, tag = "20")]
    pub(crate) r#type: i32,
}

/// A constant.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorProto {
    /// Length of each axis; none for a single number.
    #[prost(int64, repeated, tag = "1")]
    pub(crate) dims: Vec<i64>,
    /// Type of its numbers: 1 float32, 7 int64, 10 float16, 16 bfloat16.
    #[prost(int32, tag = "2")]
    pub(crate) data_type: i32,
    /// Its name.
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    /// Numbers, little-endian, the last axis fastest.
    #[prost(bytes = "vec", tag = "9")]
    pub(crate) raw_data: Vec<u8>,
}

/// An input or output of a graph.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ValueInfoProto {
    /// Its name.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// Its type.
    #[prost(message, optional, tag = "2")]
    pub(crate) r#type: Option<TypeProto>,
}

/// A type; here always that of a tensor.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TypeProto {
    /// The tensor's.
    #[prost(message, optional, tag = "1")]
    pub(crate) tensor_type: Option<TensorTypeProto>,
}

/// Type and shape of a tensor.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorTypeProto {
    /// As [`TensorProto::data_type`].
    #[prost(int32, tag = "1")]
    pub(crate) elem_type: i32,
    /// Its axes.
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<TensorShapeProto>,
}

/// Axes of a tensor.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorShapeProto {
    /// One for each axis.
    #[prost(message, repeated, tag = "1")]
    pub(crate) dim: Vec<DimensionProto>,
}

/// Length of an axis: a number or a name.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DimensionProto {
    /// The number.
    #[prost(int64, optional, tag = "1")]
    pub(crate) dim_value: Option<i64>,
    /// The name; axes of one name have one length.
    #[prost(string, optional, tag = "2")]
    pub(crate) dim_param: Option<String>,
}

//! ONNX operators as the specification defines them, one value at a time, in f64. Integers and truth values are numbers
//! too.

use std::collections::BTreeMap;

use crate::onnx::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};
use half::{bf16, f16};

/// A tensor, the last axis fastest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) dims: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

impl Array {
    pub(crate) fn new(dims: &[usize], values: Vec<f64>) -> Self {
        assert_eq!(dims.iter().product::<usize>(), values.len(), "{dims:?}");
        Self { dims: dims.to_vec(), values }
    }

    fn constant(tensor: &TensorProto) -> Self {
        let bytes = &tensor.raw_data;
        let pairs = || bytes.as_chunks::<2>().0.iter();
        let values = match tensor.data_type {
            1 => bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            7 => bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            10 => pairs().map(|b| f16::from_le_bytes(*b).to_f64()).collect(),
            16 => pairs().map(|b| bf16::from_le_bytes(*b).to_f64()).collect(),
            other => panic!("{}: type {other}", tensor.name),
        };
        Self::new(&tensor.dims.iter().map(|length| *length as usize).collect::<Vec<_>>(), values)
    }

    fn map(&self, change: impl Fn(f64) -> f64) -> Self {
        Self { dims: self.dims.clone(), values: self.values.iter().map(|value| change(*value)).collect() }
    }

    /// The rows along the last axis, each computed separately.
    fn rows(&self, change: impl Fn(&[f64]) -> Vec<f64>) -> Self {
        let length = self.dims[self.dims.len() - 1];
        let values: Vec<f64> = self.values.chunks(length).flat_map(change).collect();
        let mut dims = self.dims.clone();
        *dims.last_mut().unwrap() = values.len() / (self.values.len() / length);
        Self::new(&dims, values)
    }

    fn strides(&self) -> Vec<usize> {
        (0..self.dims.len()).map(|axis| self.dims[axis + 1..].iter().product()).collect()
    }

    /// The value at a place of a larger shape to which this one is broadcast.
    fn spread(&self, place: &[usize]) -> f64 {
        let own = &place[place.len() - self.dims.len()..];
        let at = |(axis, stride): (usize, usize)| if self.dims[axis] == 1 { 0 } else { own[axis] * stride };
        self.values[self.strides().into_iter().enumerate().map(at).sum::<usize>()]
    }
}

fn places(dims: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    let lengths = dims.to_vec();
    (0..dims.iter().product::<usize>()).map(move |mut flat| {
        let mut place = vec![0; lengths.len()];
        for axis in (0..lengths.len()).rev() {
            (place[axis], flat) = (flat % lengths[axis], flat / lengths[axis]);
        }
        place
    })
}

fn together(inputs: &[&Array], join: impl Fn(&[f64]) -> f64) -> Array {
    let axes = inputs.iter().map(|input| input.dims.len()).max().unwrap();
    let length = |axis: usize| {
        let own = inputs.iter().filter_map(|input| input.dims.get((axis + input.dims.len()).checked_sub(axes)?));
        let own: Vec<usize> = own.copied().filter(|length| *length != 1).collect();
        assert!(own.windows(2).all(|pair| pair[0] == pair[1]), "shapes do not go together: {own:?}");
        own.first().copied().unwrap_or(1)
    };
    let dims: Vec<usize> = (0..axes).map(length).collect();
    let at = |place: Vec<usize>| join(&inputs.iter().map(|input| input.spread(&place)).collect::<Vec<_>>());
    Array::new(&dims, places(&dims).map(at).collect())
}

fn matmul(left: &Array, right: &Array) -> Array {
    let [.., rows, inner] = left.dims[..] else { panic!("{:?}", left.dims) };
    let [.., other, columns] = right.dims[..] else { panic!("{:?}", right.dims) };
    assert_eq!(inner, other);
    let batches = left.values.len() / (rows * inner);
    let mut values = Vec::new();
    // A right side with fewer batches is repeated for every batch: all texts, here always the first axis.
    let (others, size) = (right.values.len() / (inner * columns), inner * columns);
    for batch in 0..batches {
        let right = &right.values[batch % others * size..];
        for row in 0..rows {
            let left = &left.values[(batch * rows + row) * inner..][..inner];
            for column in 0..columns {
                values.push(left.iter().enumerate().map(|(i, value)| value * right[i * columns + column]).sum());
            }
        }
    }
    let dims = [&left.dims[..left.dims.len() - 1], &[columns]].concat();
    Array::new(&dims, values)
}

fn transpose(input: &Array, order: &[i64]) -> Array {
    let dims: Vec<usize> = order.iter().map(|axis| input.dims[*axis as usize]).collect();
    let value = |place: Vec<usize>| {
        let mut source = vec![0; place.len()];
        order.iter().zip(place).for_each(|(axis, at)| source[*axis as usize] = at);
        input.spread(&source)
    };
    Array::new(&dims, places(&dims).map(value).collect())
}

fn layer_norm(inputs: &[&Array], epsilon: f64) -> Array {
    inputs[0].rows(|row| {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / row.len() as f64;
        let bias = |i: usize| inputs.get(2).map_or(0.0, |bias| bias.values[i]);
        let root = (variance + epsilon).sqrt();
        row.iter().enumerate().map(|(i, value)| (value - mean) / root * inputs[1].values[i] + bias(i)).collect()
    })
}

fn cumulative(input: &Array, reverse: bool) -> Array {
    input.rows(|row| {
        let mut sum = 0.0;
        let mut add = |value: &f64| {
            sum += value;
            sum
        };
        let mut sums: Vec<f64> =
            if reverse { row.iter().rev().map(&mut add).collect() } else { row.iter().map(add).collect() };
        if reverse {
            sums.reverse();
        }
        sums
    })
}

/// By its series, which is exact enough up to 4; beyond that it is 1 to 2e-8.
fn erf(x: f64) -> f64 {
    if x.abs() > 4.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

fn apply(node: &NodeProto, inputs: &[&Array]) -> Vec<Array> {
    let setting = |name: &str| -> Option<&AttributeProto> { node.attribute.iter().find(|one| one.name == name) };
    let number = |name: &str| setting(name).unwrap_or_else(|| panic!("{}: no {name}", node.name)).i;
    let truth = |condition: bool| f64::from(u8::from(condition));
    let last = inputs[0].dims.len() as i64 - 1;
    let along_last = || assert!(number("axis") == -1 || number("axis") == last, "{}", node.name);
    let both = |join: fn(f64, f64) -> f64| together(inputs, |values| join(values[0], values[1]));
    let result = match node.op_type.as_str() {
        "Add" => both(|a, b| a + b),
        "Sub" => both(|a, b| a - b),
        "Mul" => both(|a, b| a * b),
        "Div" => both(|a, b| a / b),
        "Max" => both(f64::max),
        "Equal" => together(inputs, |values| truth(values[0] == values[1])),
        "Greater" => together(inputs, |values| truth(values[0] > values[1])),
        "LessOrEqual" => together(inputs, |values| truth(values[0] <= values[1])),
        "And" => together(inputs, |values| truth(values[0] != 0.0 && values[1] != 0.0)),
        "Where" => together(inputs, |values| if values[0] != 0.0 { values[1] } else { values[2] }),
        "Not" => inputs[0].map(|value| truth(value == 0.0)),
        "Cast" if number("to") == 9 => inputs[0].map(|value| truth(value != 0.0)),
        "Cast" => inputs[0].clone(),
        "Abs" => inputs[0].map(f64::abs),
        "Neg" => inputs[0].map(|value| -value),
        "Sqrt" => inputs[0].map(f64::sqrt),
        "Cos" => inputs[0].map(f64::cos),
        "Sin" => inputs[0].map(f64::sin),
        "Erf" => inputs[0].map(erf),
        "Tanh" => inputs[0].map(f64::tanh),
        "Relu" => inputs[0].map(|value| value.max(0.0)),
        "Sigmoid" => inputs[0].map(|value| 1.0 / (1.0 + (-value).exp())),
        "MatMul" => matmul(inputs[0], inputs[1]),
        "Transpose" => transpose(inputs[0], &setting("perm").unwrap().ints),
        "LayerNormalization" => {
            along_last();
            layer_norm(inputs, f64::from(setting("epsilon").unwrap().f))
        }
        "Softmax" => {
            along_last();
            inputs[0].rows(|row| {
                let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = row.iter().map(|value| (value - largest).exp()).collect();
                let sum: f64 = powers.iter().sum();
                powers.into_iter().map(|power| power / sum).collect()
            })
        }
        "ReduceSum" => {
            assert_eq!((&inputs[1].values[..], number("keepdims")), (&[-1.0][..], 1));
            inputs[0].rows(|row| vec![row.iter().sum()])
        }
        "CumSum" => {
            assert_eq!((inputs[0].dims.len(), inputs[1].values[0]), (2, 1.0));
            cumulative(inputs[0], setting("reverse").is_some_and(|reverse| reverse.i == 1))
        }
        "Shape" => Array::new(&[inputs[0].dims.len()], inputs[0].dims.iter().map(|length| *length as f64).collect()),
        "Range" => {
            let length = inputs[1].values[0] as usize;
            assert_eq!((inputs[0].values[0], inputs[2].values[0]), (0.0, 1.0));
            Array::new(&[length], (0..length).map(|i| i as f64).collect())
        }
        "Gather" => {
            let size: usize = inputs[0].dims[1..].iter().product();
            let row = |id: &f64| &inputs[0].values[*id as usize * size..][..size];
            let dims = [&inputs[1].dims[..], &inputs[0].dims[1..]].concat();
            Array::new(&dims, inputs[1].values.iter().flat_map(row).copied().collect())
        }
        "GatherElements" => {
            let (axis, rows) = (number("axis") as usize, inputs[1]);
            let value = |mut place: Vec<usize>| {
                place[axis] = rows.spread(&place) as usize;
                inputs[0].spread(&place)
            };
            Array::new(&rows.dims, places(&rows.dims).map(value).collect())
        }
        "Expand" => {
            let dims: Vec<usize> = inputs[1].values.iter().map(|length| *length as usize).collect();
            Array::new(&dims, places(&dims).map(|place| inputs[0].spread(&place)).collect())
        }
        "Squeeze" => {
            let mut dims = inputs[0].dims.clone();
            inputs[1].values.iter().rev().for_each(|axis| assert_eq!(dims.remove(*axis as usize), 1));
            Array::new(&dims, inputs[0].values.clone())
        }
        "Reshape" => {
            let length =
                |(axis, length): (usize, &f64)| if *length == 0.0 { inputs[0].dims[axis] } else { *length as usize };
            let dims: Vec<usize> = inputs[1].values.iter().enumerate().map(length).collect();
            Array::new(&dims, inputs[0].values.clone())
        }
        "Unsqueeze" => {
            let mut dims = inputs[0].dims.clone();
            inputs[1].values.iter().for_each(|axis| dims.insert(*axis as usize, 1));
            Array::new(&dims, inputs[0].values.clone())
        }
        "Concat" => {
            along_last();
            let length = inputs[0].dims[last as usize];
            assert_eq!(inputs[0].dims, inputs[1].dims);
            let rows = inputs[0].values.chunks(length).zip(inputs[1].values.chunks(length));
            let values = rows.flat_map(|(first, second)| [first, second].concat()).collect();
            let dims = [&inputs[0].dims[..last as usize], &[2 * length]].concat();
            Array::new(&dims, values)
        }
        "Split" => {
            along_last();
            let size = inputs[0].dims[last as usize] / node.output.len();
            return (0..node.output.len()).map(|i| inputs[0].rows(|row| row[i * size..][..size].to_vec())).collect();
        }
        other => panic!("{}: an operator that is not known: {other}", node.name),
    };
    vec![result]
}

/// The graph's output for these inputs.
pub(crate) fn run(graph: &GraphProto, inputs: BTreeMap<String, Array>) -> Array {
    let names: Vec<&String> = graph.input.iter().map(|input| &input.name).collect();
    assert!(names.iter().all(|name| inputs.contains_key(*name)), "{names:?}");
    let mut known: BTreeMap<String, Array> = inputs;
    known.extend(graph.initializer.iter().map(|tensor| (tensor.name.clone(), Array::constant(tensor))));
    for node in &graph.node {
        let given: Vec<&Array> = node.input.iter().map(|name| &known[name]).collect();
        let results = apply(node, &given);
        assert_eq!(results.len(), node.output.len());
        for (name, result) in node.output.iter().zip(results) {
            assert!(known.insert(name.clone(), result).is_none(), "{name} stands twice");
        }
    }
    known.remove(&graph.output[0].name).unwrap()
}

//! Numbers and results between processes, to the last bit.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use colbert_kernels::Kernels;

use crate::error::TrainError;
use crate::processes::Processes;
use crate::processes::devices::gather_matrices;

/// Words of every process, by rank.
pub(crate) fn gather_words(processes: &dyn Processes, own: &[u32]) -> Vec<Vec<u32>> {
    processes.all_to_all(&vec![own; processes.size()])
}

/// Gathers the numbers of every process, by rank.
pub(crate) fn gather_floats(processes: &dyn Processes, own: &[f32]) -> Vec<Vec<f32>> {
    let bits: Vec<u32> = own.iter().map(|value| value.to_bits()).collect();
    let floats = |bits: Vec<u32>| bits.into_iter().map(f32::from_bits).collect();
    gather_words(processes, &bits).into_iter().map(floats).collect()
}

/// Copies the values of a tensor to the host.
pub(crate) fn host_values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec::<f32>().expect("converted to f32")
}

/// Gathers a matrix of each process, by rank; `rows` says how many rows each has. Without rows there is none. They go
/// from device to device where these are linked, else through the host.
pub(crate) fn gather_tensors<B: Kernels>(
    processes: &dyn Processes,
    own: Option<Tensor<B, 2>>,
    rows: &[usize],
    device: &B::Device,
) -> Vec<Option<Tensor<B, 2>>> {
    let total: usize = rows.iter().sum();
    if let Some(link) = processes.device_link().filter(|_| total > 0) {
        let columns = own.as_ref().map_or(0, |own| own.dims()[1] as u64);
        let columns = processes.all_gather(&columns.to_le_bytes());
        let columns = columns.iter().map(|bytes| u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")));
        return gather_matrices(link, own, rows, columns.max().unwrap_or(0) as usize, device);
    }
    let gathered = gather_floats(processes, &own.map_or_else(Vec::new, host_values));
    let columns = gathered.iter().map(Vec::len).sum::<usize>() / total.max(1);
    let of_process = gathered.into_iter().zip(rows).map(|(values, rows)| {
        (*rows > 0).then(|| Tensor::from_data(TensorData::new(values, [*rows, columns]), device))
    });
    of_process.collect()
}

/// Returns whether one of the processes has something, given what this one has.
pub(crate) fn any(processes: &dyn Processes, own: bool) -> bool {
    processes.all_gather(&[own.into()]).concat().contains(&1)
}

/// Gathers the numbers of every process, by rank.
pub(crate) fn gather_doubles(processes: &dyn Processes, own: &[f64]) -> Vec<Vec<f64>> {
    let bytes: Vec<u8> = own.iter().flat_map(|value| value.to_le_bytes()).collect();
    processes.all_gather(&bytes).iter().map(|bytes| doubles(bytes)).collect()
}

/// Decodes numbers from bytes.
pub(crate) fn doubles(bytes: &[u8]) -> Vec<f64> {
    let eight = |bytes: &[u8]| bytes.try_into().expect("eight bytes each");
    bytes.chunks_exact(8).map(|bytes| f64::from_le_bytes(eight(bytes))).collect()
}

const DONE: u8 = 0;
const NOT_FINITE_QUERY: u8 = 1;
const NOT_FINITE_DOCUMENT: u8 = 2;
const INTERRUPTED: u8 = 3;

/// Gathers the results of every process, by rank. If one failed, all get its error.
///
/// # Errors
/// The error of the first process that has one. One that the others cannot have, such as a device that failed, is
/// returned at once: the process is to end, and the others end with it.
pub(crate) fn gather_results(
    processes: &dyn Processes,
    own: Result<Vec<f32>, TrainError>,
) -> Result<Vec<Vec<f32>>, TrainError> {
    if processes.size() == 1 {
        return own.map(|values| vec![values]);
    }
    let (state, id, values) = match own {
        Ok(values) => (DONE, String::new(), values),
        Err(TrainError::NonFiniteVectors { what: "query", id }) => (NOT_FINITE_QUERY, id, Vec::new()),
        Err(TrainError::NonFiniteVectors { id, .. }) => (NOT_FINITE_DOCUMENT, id, Vec::new()),
        Err(TrainError::Interrupted) => (INTERRUPTED, String::new(), Vec::new()),
        Err(error) => return Err(error),
    };
    let mut states = processes.all_gather(&[&[state], id.as_bytes()].concat()).into_iter();
    let error = states.find_map(|state| {
        let id = || String::from_utf8_lossy(&state[1..]).into_owned();
        match state[0] {
            NOT_FINITE_QUERY => Some(TrainError::NonFiniteVectors { what: "query", id: id() }),
            NOT_FINITE_DOCUMENT => Some(TrainError::NonFiniteVectors { what: "document", id: id() }),
            INTERRUPTED => Some(TrainError::Interrupted),
            _ => None,
        }
    });
    match error {
        Some(error) => Err(error),
        None => Ok(gather_floats(processes, &values)),
    }
}

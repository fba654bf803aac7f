//! The sum of what the pieces of a batch gave, in the order of the pieces, in the memory where the processes meet.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use colbert_kernels::Kernels;

use crate::processes::Processes;
use crate::processes::exchange::host_values;
use crate::step::device_sum::{DeviceSum, List};
use crate::step::ordered_sum::{NOTHING, OrderedSum};

/// A sum of lists over the pieces of a batch: some lists at a time, a bucket, are exchanged between the processes.
pub(crate) enum SumOfPieces<'a, B: Backend> {
    /// Through the hosts.
    OnHosts(OrderedSum<'a>, B::Device),
    /// From device to device.
    OnDevices(DeviceSum<'a, B>),
}

impl<'a, B: Kernels> SumOfPieces<'a, B> {
    pub(crate) fn new(processes: &'a dyn Processes, device: &B::Device) -> Self {
        match processes.device_link() {
            Some(link) => Self::OnDevices(DeviceSum::new(link, processes.size(), device)),
            None => Self::OnHosts(OrderedSum::new(processes), device.clone()),
        }
    }
}

impl<B: Backend> SumOfPieces<'_, B> {
    /// Adds, to the lists of bucket `place`, the own numbers of this process and those of all others, by rank. Buckets
    /// are met in the same order in every round, and are alike for every process.
    pub(crate) fn add(&mut self, place: usize, own: Vec<List<B>>) {
        match self {
            Self::OnDevices(sum) => sum.add(place, own),
            Self::OnHosts(sum, _) => {
                let values = |list: List<B>| list.values.map_or_else(|| vec![NOTHING; list.length], host_values);
                sum.add(place, &own.into_iter().map(values).collect::<Vec<_>>());
            }
        }
    }

    /// Returns the sums of the lists of bucket `place`, once.
    pub(crate) fn take(&mut self, place: usize) -> Vec<Tensor<B, 1>> {
        match self {
            Self::OnDevices(sum) => sum.take(place),
            Self::OnHosts(sum, device) => {
                let tensor = |values: Vec<f32>| {
                    let length = values.len();
                    Tensor::from_data(TensorData::new(values, [length]), &*device)
                };
                sum.take(place).into_iter().map(tensor).collect()
            }
        }
    }
}

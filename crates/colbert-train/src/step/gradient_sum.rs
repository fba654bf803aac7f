//! The sum of the gradients of a model over the pieces of a batch.

use burn::module::{AutodiffModule, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use colbert_kernels::Kernels;

use crate::processes::Processes;
use crate::step::device_sum::List;
use crate::step::ordered_sum::BUCKET;
use crate::step::sum_of_pieces::SumOfPieces;

/// The sum of the gradients of a model over the pieces of a batch.
pub(crate) enum GradientSum<'a, M, B: Kernels> {
    /// Of one process: on the device, as they come.
    Alone(GradientsAccumulator<M>),
    /// Of several.
    Shared(SharedSum<'a, B>),
}

/// The sum of the gradients of several processes.
pub(crate) struct SharedSum<'a, B: Kernels> {
    sum: SumOfPieces<'a, B>,
    processes: &'a dyn Processes,
    /// 1 for each parameter that had a gradient in some round of this process.
    present: Vec<u8>,
    /// Numbers in transit, at most, unless a parameter has more.
    at_once: usize,
}

impl<'a, M, B: Kernels> GradientSum<'a, M, B> {
    pub(crate) fn new(processes: &'a dyn Processes, device: &B::Device) -> Self {
        match processes.size() {
            1 => Self::Alone(GradientsAccumulator::new()),
            _ => Self::shared(processes, SumOfPieces::new(processes, device), BUCKET),
        }
    }

    fn shared(processes: &'a dyn Processes, sum: SumOfPieces<'a, B>, at_once: usize) -> Self {
        Self::Shared(SharedSum { sum, processes, present: Vec::new(), at_once })
    }

    /// Adds the gradients of a round: of this process those of its piece, or none where it has no piece in the round.
    pub(crate) fn add<AB: AutodiffBackend<InnerBackend = B>>(&mut self, model: &M, own: Option<GradientsParams>)
    where
        M: AutodiffModule<AB>,
    {
        match (self, own) {
            (Self::Alone(sum), Some(own)) => sum.accumulate(model, own),
            (Self::Alone(_), None) => {}
            (Self::Shared(shared), own) => {
                let gradients = own.unwrap_or_default();
                let mut sender = Sender { gradients, shared, parameter: 0, bucket: Vec::new(), numbers: 0, next: 0 };
                model.visit(&mut sender);
                sender.send();
            }
        }
    }

    /// Returns the sum, the same in every process.
    pub(crate) fn finish<AB: AutodiffBackend<InnerBackend = B>>(self, model: &M) -> GradientsParams
    where
        M: AutodiffModule<AB>,
    {
        match self {
            Self::Alone(mut sum) => sum.grads(),
            Self::Shared(SharedSum { sum, processes, present, .. }) => {
                let present = processes.all_gather(&present);
                let (gradients, bucket) = (GradientsParams::new(), Vec::new().into_iter());
                let mut receiver = Receiver { gradients, sum, present, parameter: 0, bucket, next: 0 };
                model.visit(&mut receiver);
                receiver.gradients
            }
        }
    }
}

/// A visitor that takes gradients out of a list, in the module's order, and adds them to a sum, bucket by bucket.
struct Sender<'s, 'a, B: Kernels> {
    gradients: GradientsParams,
    shared: &'s mut SharedSum<'a, B>,
    parameter: usize,
    /// Of each parameter that waits its gradient, and the numbers of all.
    bucket: Vec<List<B>>,
    numbers: usize,
    next: usize,
}

impl<B: Kernels> Sender<'_, '_, B> {
    fn send(&mut self) {
        if !self.bucket.is_empty() {
            self.shared.sum.add(self.next, std::mem::take(&mut self.bucket));
            (self.numbers, self.next) = (0, self.next + 1);
        }
    }
}

impl<AB: AutodiffBackend<InnerBackend: Kernels>> ModuleVisitor<AB> for Sender<'_, '_, AB::InnerBackend> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<AB, D>>) {
        let length = param.val().shape().num_elements();
        if self.numbers + length > self.shared.at_once {
            self.send();
        }
        if self.parameter == self.shared.present.len() {
            self.shared.present.push(0);
        }
        let gradient = self.gradients.remove::<AB::InnerBackend, D>(param.id);
        if gradient.is_some() {
            self.shared.present[self.parameter] = 1;
        }
        self.bucket.push(List { length, values: gradient.map(|gradient| gradient.reshape([length])) });
        self.numbers += length;
        self.parameter += 1;
    }
}

/// A visitor that takes sums, bucket by bucket, and makes gradients of them.
struct Receiver<'a, B: Kernels> {
    gradients: GradientsParams,
    sum: SumOfPieces<'a, B>,
    /// Of each process: 1 for each parameter that had a gradient.
    present: Vec<Vec<u8>>,
    parameter: usize,
    /// Sums of parameters to come.
    bucket: std::vec::IntoIter<Tensor<B, 1>>,
    next: usize,
}

impl<AB: AutodiffBackend<InnerBackend: Kernels>> ModuleVisitor<AB> for Receiver<'_, AB::InnerBackend> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<AB, D>>) {
        let values = self.bucket.next().unwrap_or_else(|| {
            self.bucket = self.sum.take(self.next).into_iter();
            self.next += 1;
            self.bucket.next().expect("a bucket has a parameter")
        });
        if self.present.iter().any(|present| present[self.parameter] == 1) {
            let gradient: Tensor<AB::InnerBackend, D> = values.reshape(param.val().shape());
            self.gradients.register::<AB::InnerBackend, D>(param.id, gradient);
        }
        self.parameter += 1;
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Distribution;
    use burn::tensor::backend::Backend;
    use test_backend::{TestAutodiff, TestBackend, device};

    use super::*;
    use crate::processes::OneProcess;
    use crate::processes::devices::DeviceExchange;
    use crate::processes::exchange::host_values;
    use crate::step::device_sum::DeviceSum;

    /// A device on its own.
    struct OneDevice;

    impl<B: Backend> DeviceExchange<B> for OneDevice {
        fn all_to_all(&self, parts: Tensor<B, 1>) -> Tensor<B, 1> {
            parts
        }

        fn all_gather(&self, own: Tensor<B, 1>) -> Tensor<B, 1> {
            own
        }
    }

    #[derive(Module, Debug)]
    struct Model<B: Backend> {
        first: Linear<B>,
        idle: Linear<B>,
        last: Linear<B>,
    }

    struct Values<'a>(&'a GradientsParams, Vec<Option<Vec<f32>>>);

    impl ModuleVisitor<TestAutodiff> for Values<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<TestAutodiff, D>>) {
            self.1.push(self.0.get::<TestBackend, D>(param.id).map(host_values));
        }
    }

    /// Whatever travels together: the same sums, and no gradient where there was none.
    #[test]
    fn buckets_of_any_size_give_every_parameter_its_sum() {
        let device = device();
        let linear = |from, to| LinearConfig::new(from, to).init::<TestAutodiff>(&device);
        let model = Model { first: linear(7, 30), idle: linear(3, 2), last: linear(30, 5) };
        let pieces: Vec<_> =
            (0..3).map(|_| Tensor::<TestAutodiff, 2>::random([4, 7], Distribution::Default, &device)).collect();
        let gradient = |piece: &Tensor<TestAutodiff, 2>| {
            let loss = model.last.forward(model.first.forward(piece.clone())).square().sum();
            GradientsParams::from_grads(loss.backward(), &model)
        };
        let sum = |mut sum: GradientSum<'_, Model<TestAutodiff>, TestBackend>| {
            pieces.iter().for_each(|piece| sum.add::<TestAutodiff>(&model, Some(gradient(piece))));
            let sum = sum.finish::<TestAutodiff>(&model);
            let mut values = Values(&sum, Vec::new());
            model.visit(&mut values);
            values.1
        };
        let expected = sum(GradientSum::new(&OneProcess, &device));
        assert_eq!(expected.iter().filter(|values| values.is_none()).count(), 2, "the idle layer");
        for at_once in [1, 31, 200, 240, 1_000_000] {
            let on_hosts = SumOfPieces::new(&OneProcess, &device);
            assert_eq!(sum(GradientSum::shared(&OneProcess, on_hosts, at_once)), expected, "{at_once}");
            let on_devices = SumOfPieces::OnDevices(DeviceSum::new(&OneDevice, 1, &device));
            assert_eq!(sum(GradientSum::shared(&OneProcess, on_devices, at_once)), expected, "{at_once}");
        }
    }
}

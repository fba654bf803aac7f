//! Fitting a run into a device's memory by trying: what a step takes there is known only by computing one.

use colbert_config::{MemoryLimit, TrainOptions};
use colbert_kernels::device::DeviceMemory;
use colbert_kernels::{KernelAutodiffBackend, Kernels};
use colbert_model::{Colbert, TrainingMemory};
use colbert_train::{Objective, Rehearsal, TrainError, TrainableEncoder, memory, on_device};

use crate::backend::Job;
use crate::error::Error;
use crate::run::base_model::Start;
use crate::run::encoder::RunEncoder;
use crate::run::fit::computed::{SHARE, divided, keeps_loss};
use crate::run::objective::RunObjective;

/// Factor of a run's memory over that of a tried step, as batches differ and blocks leave gaps: a tenth was found with
/// MiniLM-L6 on libtorch's CPU device, and is what the operators of flex are given.
const SLACK: f64 = 1.1;

/// Queries that are tried by themselves, to know what one more takes.
const ALONE: [usize; 3] = [1, 2, 4];

/// The options with the fewest micro-batches of which a step was seen to stay below the limit, and the bytes that it
/// took.
pub(crate) struct Fit<'a, O, E> {
    pub(crate) start: &'a Start<'a, E>,
    /// The options of training, in a precision that the device has.
    pub(crate) train: TrainOptions,
    pub(crate) objective: &'a RunObjective<'a, O>,
    pub(crate) limit: MemoryLimit,
    /// Bytes for other things than training steps.
    pub(crate) held: u64,
    /// Whether what was once taken on the device is not given back, and counts from then on.
    pub(crate) keeps: bool,
    /// Processes that share a batch. Each tries what one process would do with all of their micro-batches.
    pub(crate) processes: usize,
}

impl<O: Objective, E: RunEncoder> Job for Fit<'_, O, E> {
    type Output = Result<(TrainOptions, u64), Error>;

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Self::Output {
        let Self { start, train, objective, limit, held, keeps, processes } = self;
        let meter = Meter::<B>::new(device);
        let limit = meter.limit(limit)?;
        B::InnerBackend::return_freed_memory(device);
        let model = on_device::<B, _>("loading the model", || start.model::<B>(&train, device))??.0;
        let saving = meter.saving(start.memory(&model, train.precision));
        let measure = |queries, accumsteps| {
            meter.begin();
            rehearse(&model, &train, objective, [queries, accumsteps], device)?;
            let step = meter.taken()?.saturating_sub(meter.base) as f64 * SLACK;
            Ok(held + (meter.base + step as u64).max(saving))
        };
        let (pieces, bytes) = search(&train, processes, limit, keeps, measure)?;
        Ok((TrainOptions { accumsteps: pieces / processes, ..train }, bytes))
    }
}

/// After a step that did not fit: the most queries at a time with which one does; none if not even one.
pub(crate) struct MostThatFit<'a, O, E> {
    pub(crate) start: &'a Start<'a, E>,
    /// The options of training, with the precision and the micro-batches of the plan.
    pub(crate) train: TrainOptions,
    pub(crate) objective: &'a RunObjective<'a, O>,
}

impl<O: Objective, E: RunEncoder> Job for MostThatFit<'_, O, E> {
    type Output = Result<Option<usize>, Error>;

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Self::Output {
        let Self { start, train, objective } = self;
        B::memory_cleanup(device);
        let model = on_device::<B, _>("loading the model", || start.model::<B>(&train, device))??.0;
        for accumsteps in divided(&train, 1).filter(|accumsteps| *accumsteps > train.accumsteps) {
            match rehearse(&model, &train, objective, [train.batch_size, accumsteps], device) {
                Ok(()) => return Ok(Some(train.batch_size / accumsteps)),
                Err(Error::Train(TrainError::OutOfMemory { .. })) => B::memory_cleanup(device),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

fn rehearse<B: KernelAutodiffBackend, O: Objective, E: TrainableEncoder<B>>(
    model: &Colbert<B, E>,
    options: &TrainOptions,
    objective: &RunObjective<'_, O>,
    [queries, accumsteps]: [usize; 2],
    device: &B::Device,
) -> Result<(), Error> {
    let rehearsal = Rehearsal { options, queries, accumsteps };
    Ok(rehearsal.run(model, objective, device)?)
}

/// The memory that a run takes on a device: of the GPU as its driver counts it, or of the machine as the system does.
struct Meter<'a, B: KernelAutodiffBackend> {
    device: &'a B::Device,
    /// Where the tensors are, and the free bytes there before anything of this run was.
    before: DeviceMemory,
    /// In the memory of the process what it has before: program and data, which do not vary with batches.
    base: u64,
}

impl<'a, B: KernelAutodiffBackend> Meter<'a, B> {
    fn new(device: &'a B::Device) -> Self {
        let before = B::InnerBackend::device_memory(device);
        let base = match before {
            DeviceMemory::Host => memory::resident().unwrap_or(0),
            DeviceMemory::Own(_) => 0,
        };
        Self { device, before, base }
    }

    /// Bytes that are allowed.
    fn limit(&self, limit: MemoryLimit) -> Result<u64, Error> {
        let free = match (limit, self.before) {
            (_, DeviceMemory::Own(None)) => return Err(Error::NoDeviceMemoryReading),
            (MemoryLimit::Bytes(bytes), _) => return Ok(bytes),
            (MemoryLimit::Auto, DeviceMemory::Host) => memory::available(),
            (MemoryLimit::Auto, DeviceMemory::Own(free)) => free,
        };
        Ok((free.ok_or(Error::NoMemoryReading)? as f64 * SHARE) as u64)
    }

    /// Returns the bytes for writing a checkpoint, which happens in the machine's memory, with the model loaded.
    fn saving(&self, need: TrainingMemory) -> u64 {
        match self.before {
            DeviceMemory::Own(_) => 0,
            DeviceMemory::Host => memory::resident().unwrap_or(0) + need.to_save().saturating_sub(need.parameters),
        }
    }

    fn begin(&self) {
        match self.before {
            DeviceMemory::Own(_) => B::memory_cleanup(self.device),
            DeviceMemory::Host => memory::forget_peak(),
        }
    }

    /// The most since it began; of a device with memory of its own what is held there, as its allocators keep what they
    /// once had.
    fn taken(&self) -> Result<u64, Error> {
        let taken = match (self.before, B::InnerBackend::device_memory(self.device)) {
            (DeviceMemory::Own(Some(before)), DeviceMemory::Own(Some(now))) => Some(before.saturating_sub(now)),
            (DeviceMemory::Host, _) => memory::peak(),
            // A device that does not say is not measured by the machine's memory.
            (DeviceMemory::Own(_), _) => None,
        };
        taken.ok_or(Error::NoMemoryReading)
    }
}

/// Bytes by queries computed at once: a line through what the fewest took and what was tried last.
struct Line {
    first: (usize, u64),
    last: (usize, u64),
}

impl Line {
    fn at(&self, queries: usize) -> u64 {
        let ((few, least), (many, most)) = (self.first, self.last);
        let each = most.saturating_sub(least) as f64 / many.saturating_sub(few).max(1) as f64;
        least + (each * queries.saturating_sub(few) as f64) as u64
    }
}

/// The fewest micro-batches, of all processes together, that stay below the limit, and what they take. `measure` computes
/// a step of N queries in M micro-batches.
fn search(
    options: &TrainOptions,
    processes: usize,
    limit: u64,
    keeps: bool,
    mut measure: impl FnMut(usize, usize) -> Result<u64, Error>,
) -> Result<(usize, u64), Error> {
    let (batch, asked) = (options.batch_size, options.accumsteps * processes);
    // None: there is too little memory even to try it.
    let mut try_out = |queries, accumsteps| match measure(queries, accumsteps) {
        Err(Error::Train(TrainError::OutOfMemory { .. })) if queries > accumsteps => Ok(None),
        measured => measured.map(Some),
    };
    let mut line: Option<Line> = None;
    for queries in ALONE.into_iter().filter(|queries| *queries <= batch / asked) {
        let Some(bytes) = try_out(queries, 1)? else { break };
        line = Some(Line { first: line.map_or((queries, bytes), |line| line.first), last: (queries, bytes) });
        if bytes > limit {
            break;
        }
    }
    let mut line = line.expect("one query is tried, and is an error where it does not fit");

    let all: Vec<usize> = divided(options, processes).map(|accumsteps| accumsteps * processes).collect();
    // Places in that list: of the most micro-batches that do not fit, and of the fewest that do.
    let (mut fails, mut fits): (Option<usize>, Option<(usize, u64)>) = (None, None);
    let mut least = line.at(1);
    loop {
        let by_line = |range: std::ops::Range<usize>| range.into_iter().find(|i| line.at(batch / all[*i]) <= limit);
        let next = match (fails, fits) {
            (None, None) => by_line(0..all.len()).or(Some(all.len() - 1)),
            (None, Some((high, _))) => by_line(0..high),
            // Where nothing is given back, a reading after one that was too high says nothing.
            (Some(low), _) if keeps => {
                fits = by_line(low + 1..all.len()).map(|i| (i, line.at(batch / all[i])));
                None
            }
            // What was tried fits less or more than the line says, so halves are better than its word.
            (Some(low), high) => {
                let high = high.map_or(all.len(), |(high, _)| high);
                (high - low > 1).then_some(low.midpoint(high))
            }
        };
        let Some(next) = next else { break };
        let queries = batch / all[next];
        let bytes = try_out(batch, all[next])?;
        if let Some(bytes) = bytes {
            least = bytes;
            if queries > line.first.0 {
                line.last = (queries, bytes);
            }
        }
        match bytes {
            Some(bytes) if bytes <= limit => fits = Some((next, bytes)),
            _ => fails = Some(next),
        }
    }
    match fits.map(|(place, bytes)| (all[place], bytes)) {
        Some((pieces, _)) if pieces > asked && !keeps_loss(options) => {
            let asked = line.at(batch / asked);
            Err(Error::LimitChangesLoss { limit, asked, accumsteps: pieces / processes })
        }
        Some(found) => Ok(found),
        None => Err(Error::LimitTooLow { limit, least }),
    }
}

#[cfg(test)]
mod tests {
    use colbert_config::IbScope;

    use super::*;

    fn options(batch_size: usize, accumsteps: usize) -> TrainOptions {
        TrainOptions { batch_size, accumsteps, ..TrainOptions::default() }
    }

    fn out_of_memory() -> Error {
        TrainError::OutOfMemory { step: 0, batch_size: 8, micro_batch: 8, said: "no".to_owned() }.into()
    }

    /// 100 bytes, 10 a query at once, and 7 where there are micro-batches.
    fn bytes(queries: usize, accumsteps: usize) -> u64 {
        100 + 10 * (queries / accumsteps) as u64 + if accumsteps > 1 { 7 } else { 0 }
    }

    #[test]
    fn micro_batches_are_as_few_as_fit() {
        for (limit, accumsteps) in [(1_000, 1), (420, 1), (419, 2), (267, 2), (266, 4), (187, 4), (127, 16), (117, 32)]
        {
            let mut tried = Vec::new();
            let found = search(&options(32, 1), 1, limit, false, |queries, accumsteps| {
                tried.push((queries, accumsteps));
                Ok(bytes(queries, accumsteps))
            });
            assert_eq!(found.unwrap(), (accumsteps, bytes(32, accumsteps)), "{limit}");
            assert!(tried.len() <= 6, "{limit}: {tried:?}");
        }
        let error = search(&options(32, 1), 1, 116, false, |queries, accumsteps| Ok(bytes(queries, accumsteps)));
        assert!(matches!(error, Err(Error::LimitTooLow { limit: 116, least: 117 })), "{error:?}");
        assert_eq!(search(&options(32, 8), 1, 1_000, false, |q, a| Ok(bytes(q, a))).unwrap().0, 8, "never fewer");
        assert_eq!(search(&options(1, 1), 1, 110, false, |q, a| Ok(bytes(q, a))).unwrap(), (1, 110));
    }

    /// As on CubeCL, which takes memory in large pages: a query more seems to take nothing, or very much.
    #[test]
    fn memory_taken_in_pages_is_found_out_by_trying() {
        for page in [50, 64, 200] {
            let paged = |queries: usize, accumsteps: usize| bytes(queries, accumsteps).next_multiple_of(page);
            for limit in [200, 260, 300, 410, 600] {
                let fewest = divided(&options(32, 1), 1).find(|accumsteps| paged(32, *accumsteps) <= limit).unwrap();
                let found =
                    search(&options(32, 1), 1, limit, false, |queries, accumsteps| Ok(paged(queries, accumsteps)));
                let (accumsteps, taken) = found.unwrap();
                assert!(taken <= limit && accumsteps <= 2 * fewest, "{page} {limit}: {accumsteps}, not {fewest}");
            }
        }
    }

    /// As in libtorch on a GPU.
    #[test]
    fn memory_that_is_not_given_back_is_not_read_again() {
        let mut most = 0;
        let found = search(&options(32, 1), 1, 266, true, |queries, accumsteps| {
            most = most.max(bytes(queries, accumsteps));
            Ok(most)
        });
        assert_eq!(found.unwrap().0, 4);
    }

    #[test]
    fn a_step_that_runs_out_of_memory_is_one_that_does_not_fit() {
        let real = |queries: usize, accumsteps: usize| match bytes(queries, accumsteps) {
            bytes if bytes <= 200 => Ok(bytes),
            _ => Err(out_of_memory()),
        };
        assert_eq!(search(&options(32, 1), 1, 1_000_000, false, real).unwrap().0, 4);
        let none = search(&options(32, 1), 1, 1_000_000, false, |_, _| Err(out_of_memory()));
        assert!(matches!(none, Err(Error::Train(TrainError::OutOfMemory { .. }))), "{none:?}");
    }

    #[test]
    fn another_loss_is_not_taken_for_the_asked_one() {
        let micro = TrainOptions { ib_scope: IbScope::MicroBatch, ..options(32, 1) };
        let found = search(&micro, 1, 266, false, |queries, accumsteps| Ok(bytes(queries, accumsteps)));
        assert!(matches!(found, Err(Error::LimitChangesLoss { accumsteps: 4, .. })), "{found:?}");
        assert_eq!(search(&micro, 1, 1_000, false, |q, a| Ok(bytes(q, a))).unwrap().0, 1);
    }
}

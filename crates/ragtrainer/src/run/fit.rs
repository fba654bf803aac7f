//! The plan of a run, with micro-batches that fit a memory limit: computed by a formula, or tried out on the device.

pub(crate) mod computed;
pub(crate) mod tried;

use colbert_config::{Options, Plan, TrainOptions, resolve_for_processes};
use colbert_train::{EvaluationLimits, Objective, Processes, check_mix};

use crate::backend::Backend;
use crate::error::Error;
use crate::run::base_model::Start;
use crate::run::data::Prepared;
use crate::run::encoder::RunEncoder;
use crate::run::fit::computed::within_limit;
use crate::run::fit::tried::Fit;
use crate::run::objective::RunObjective;

impl<E: RunEncoder> Start<'_, E> {
    /// The plan on a backend: a precision that the device gains by, and as many micro-batches as memory asks for.
    pub(crate) fn plan<O: Objective>(
        &self,
        options: &Options,
        backend: Backend,
        prepared: &Prepared,
        objective: &RunObjective<'_, O>,
        processes: &dyn Processes,
    ) -> Result<Plan, Error> {
        let examples = prepared.set.examples.len();
        let (learning_rate, reason) = self.learning_rate(options);
        let train = TrainOptions {
            precision: backend.precision(options.train.precision)?,
            learning_rate: Some(learning_rate),
            ..options.train.clone()
        };
        let plan = |train: &TrainOptions| {
            let plan = resolve_for_processes(train, examples, processes.size())?;
            Ok::<_, Error>(Plan { learning_rate_reason: reason.map(str::to_owned), ..plan })
        };
        // What is wrong with the options is reported before anything is tried out.
        let asked = plan(&train)?;
        objective.check(&prepared.set.examples)?;
        check_mix(&prepared.set, &train)?;
        let TrainOptions { query_maxlen, dim, .. } = train;
        let held = EvaluationLimits::query_memory(prepared.queries_held(options), query_maxlen, dim);
        // What the operators of flex take is known of the families' sizes, not of another crate's encoder.
        let is_known = backend == Backend::Flex && self.encoder.own_name().is_none();
        let (train, bytes) = if is_known {
            // Where steps are tried out, what the data take is measured with them.
            let held = held + prepared.memory(options);
            within_limit(&train, self.known_memory(train.precision), held, processes)?
        } else {
            let Some(limit) = train.memory_limit else { return agreed(asked, processes) };
            // The buffers of flex wait to be used again.
            let keeps = backend.keeps_memory() || backend == Backend::Flex;
            let shared = Fit { start: self, train, objective, limit, held, keeps, processes: processes.size() };
            backend.run(shared)?
        };
        agreed(Plan { memory: Some(bytes), ..plan(&train)? }, processes)
    }
}

/// The plan of all processes: that with the most micro-batches, as each read its memory at a moment of its own.
fn agreed(own: Plan, processes: &dyn Processes) -> Result<Plan, Error> {
    if processes.size() == 1 {
        return Ok(own);
    }
    let json = serde_json::to_vec(&own).expect("a plan has a JSON form");
    let plans = processes
        .all_gather(&json)
        .into_iter()
        .enumerate()
        .map(|(rank, json)| serde_json::from_slice::<Plan>(&json).map_err(|_| Error::UnreadablePlan { rank }));
    // Of several with as many the first, so that all processes choose the same.
    let plans = plans.collect::<Result<Vec<_>, _>>()?.into_iter().rev();
    Ok(plans.max_by_key(|plan| plan.accumsteps).unwrap_or(own))
}

#[cfg(test)]
mod tests {
    use colbert_train::OneProcess;

    use super::*;

    /// The first of two processes, of which the other has plans of its own.
    #[derive(Debug)]
    struct Two(Vec<u8>);

    impl Processes for Two {
        fn rank(&self) -> usize {
            0
        }

        fn size(&self) -> usize {
            2
        }

        fn all_gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
            vec![own.to_vec(), self.0.clone()]
        }

        fn all_to_all(&self, _: &[&[u32]]) -> Vec<Vec<u32>> {
            unreachable!("a plan travels as bytes")
        }
    }

    #[test]
    fn processes_that_read_other_memory_take_the_most_micro_batches() {
        let with = |accumsteps| {
            let train = TrainOptions { accumsteps, ..TrainOptions::default() };
            resolve_for_processes(&train, 64, 2).unwrap()
        };
        let other = |accumsteps| Two(serde_json::to_vec(&with(accumsteps)).unwrap());
        for (own, theirs, expected) in [(1, 4, 4), (4, 1, 4), (2, 2, 2)] {
            assert_eq!(agreed(with(own), &other(theirs)).unwrap(), with(expected));
        }
        assert_eq!(agreed(with(2), &OneProcess).unwrap(), with(2));
        let error = agreed(with(1), &Two(b"no plan".to_vec())).unwrap_err().to_string();
        assert!(error.contains("process 1"), "{error}");
    }
}

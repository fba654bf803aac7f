//! The plan of a run, with micro-batches that fit a memory limit: computed by a formula, or tried out on the device.

pub(crate) mod computed;
pub(crate) mod tried;

use colbert_config::{Options, Plan, TrainOptions, resolve_for_processes};
use colbert_model::TrainingMemory;
use colbert_train::{Objective, Processes, check_mix, query_memory};

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
        let TrainOptions { query_maxlen, doc_maxlen, dim, .. } = train;
        let held = query_memory(prepared.queries_held(options), query_maxlen, dim);
        // What the operators of flex take is known of the families' sizes, not of another crate's encoder.
        let is_known = backend == Backend::Flex && self.encoder.own_name().is_none();
        let (train, bytes) = if is_known {
            // Where steps are tried out, what the data take is measured with them.
            let held = held + prepared.memory(options);
            let need = TrainingMemory::of(&self.pretrained.config, &self.head, query_maxlen.max(doc_maxlen));
            within_limit(&train, need, held, processes)?
        } else {
            let Some(limit) = train.memory_limit else { return Ok(asked) };
            // The buffers of flex wait to be used again.
            let keeps = backend.keeps_memory() || backend == Backend::Flex;
            let shared = Fit { start: self, train, objective, limit, held, keeps, processes: processes.size() };
            backend.run(shared)?
        };
        Ok(Plan { memory: Some(bytes), ..plan(&train)? })
    }
}

//! The distance between evaluations where `train.save_every` is automatic.

use colbert_config::{AutoSteps, Options, Plan};
use colbert_data::EvaluationSet;

/// The plan with the distance between evaluations that the dev queries ask for, if it is automatic. A run that is
/// resumed keeps the distance of its `earlier` plan, so that it is measured at the same steps as without a break.
pub(crate) fn spaced(plan: Plan, options: &Options, dev: Option<&EvaluationSet>, earlier: Option<&Plan>) -> Plan {
    if options.train.save_every != AutoSteps::Auto {
        return plan;
    }
    let save_every = match (earlier.filter(|earlier| earlier.steps == plan.steps), dev) {
        (Some(earlier), _) => earlier.save_every,
        (None, Some(dev)) => {
            let (query_maxlen, doc_maxlen) = (options.train.query_maxlen, options.train.doc_maxlen);
            let of_evaluation = tokens(dev.queries.len(), query_maxlen) + tokens(dev.collection.len(), doc_maxlen);
            let of_step = tokens(plan.batch_size, query_maxlen) + tokens(plan.batch_size * plan.nway, doc_maxlen);
            distance(&plan, of_evaluation, of_step)
        }
        (None, None) => plan.save_every,
    };
    Plan { save_every, ..plan }
}

/// Tokens of texts, each counted at its longest.
fn tokens(texts: usize, maxlen: usize) -> u128 {
    texts as u128 * maxlen as u128
}

/// Steps between evaluations: those of the plan, or more, so that an evaluation reads at most the tokens that are
/// trained on before it. A token costs about three times as much to train on as to read, so evaluations take about a
/// quarter of the time at most. Distances are about equal; a run has one evaluation at least, at its end.
fn distance(plan: &Plan, of_evaluation: u128, of_step: u128) -> usize {
    let least = of_evaluation.div_ceil(of_step.max(1));
    if least <= plan.save_every as u128 {
        return plan.save_every;
    }
    let steps = plan.steps as u128;
    let evaluations = (steps / least).max(1);
    usize::try_from(steps.div_ceil(evaluations)).expect("no more than the steps of the run")
}

#[cfg(test)]
mod tests {
    use colbert_config::{TrainOptions, resolve};

    use super::*;

    #[test]
    fn evaluations_read_at_most_what_is_trained_on_before_them() {
        // steps, tokens of an evaluation and of a step -> steps between evaluations
        for (steps, of_evaluation, of_step, expected) in [
            (400, 0, 100, 40),
            (400, 4_000, 100, 40),
            (400, 4_001, 100, 45), // at least 41: nine times
            (400, 10_000, 100, 100),
            (100, 4_500, 100, 50), // two evaluations, not at 45, 90 and 100
            (40, 1_500, 100, 20),
            (40, 2_100, 100, 40),
            (40, 1_000_000, 100, 40),
            (5, 100, 100, 1),
            (5, 200, 100, 3),
            (1, 200, 100, 1),
            (40, u128::MAX, 1, 40),
        ] {
            let plan = resolve(&TrainOptions { maxsteps: steps, ..TrainOptions::default() }, 32 * steps).unwrap();
            let every = distance(&plan, of_evaluation, of_step);
            assert_eq!(every, expected, "{steps} steps, {of_evaluation} / {of_step}");
            let judged = steps.div_ceil(every) as u128;
            assert!(every == plan.save_every || judged == 1 || judged * of_evaluation <= steps as u128 * of_step);
        }
    }
}

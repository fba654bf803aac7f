//! Trains on given triples in the given order, with the reference's schedule, and evaluates on a given pool: the
//! comparison with colbert-ai in docs/quality.md.
//!
//! ```text
//! cargo run --release -p ragtrainer-examples --example reproduce_reference -- MODEL TRIPLES.jsonl BEIR POOL.json SEED
//! ```
//! TRIPLES has lines `{"query", "positive", "negatives"}`; POOL names `queries` and `documents` of the BEIR folder's
//! test split.
#![allow(clippy::print_stdout, reason = "examples print for people")]

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, ensure};
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn_flex::{Flex, FlexDevice};
use ragtrainer::config::{AutoSteps, Metric, TrainOptions, Warmup, resolve};
use ragtrainer::data::{Collection, EvaluationSet, Example, Judgements, Queries, TrainingSet, read_evaluation_set};
use ragtrainer::model::{ColbertSettings, Pretrained};
use ragtrainer::train::{Begin, Event, Flow, Training, evaluate};

const STEPS: usize = 40;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, triples, beir, pool, seed] = arguments.as_slice() else {
        anyhow::bail!("expected MODEL TRIPLES.jsonl BEIR POOL.json SEED");
    };
    let options = TrainOptions {
        learning_rate: Some(2e-5),
        warmup_steps: Warmup::Steps(4),
        warmup_from_zero: true,
        schedule_horizon: AutoSteps::Steps(STEPS),
        maxsteps: STEPS,
        shuffle: false,
        ib_skip_known_positives: false,
        seed: seed.parse().context("SEED is not a number")?,
        ..TrainOptions::default()
    };
    let set = training_set(triples, STEPS * options.batch_size)?;
    let pool = evaluation_set(beir, pool)?;
    let plan = resolve(&options, set.examples.len())?;
    println!("{plan}");

    let device = FlexDevice;
    let settings = ColbertSettings::from(&options);
    let pretrained = Pretrained::read(Path::new(model))?;
    let tokenizer = pretrained.tokenizer(&settings)?;
    let (model, _) = pretrained.model::<Autodiff<Flex>>(&settings, None, options.seed, &device)?;
    let metric = Metric::Ndcg(10);
    let before = evaluate(&model.valid(), &tokenizer, &pool, metric, &device, &mut |_| Flow::Continue)?;
    let mut print_steps = |event: &Event| {
        if let Event::Step(record) = event {
            println!("step {} loss {:.4} {:.1} s", record.step, record.loss, record.seconds);
        }
        Flow::Continue
    };
    let training = Training::new(&set, &tokenizer, &options, &plan, &device).with_observer(&mut print_steps);
    let trained = training.run(model, Begin::New)?;
    let after = evaluate(&trained.model.valid(), &tokenizer, &pool, metric, &device, &mut |_| Flow::Continue)?;
    for (when, measured) in [("before", before), ("after", after)] {
        let value = |metric| measured.evaluation.value(metric).unwrap_or(f64::NAN);
        println!("seed {seed} {when}: ndcg@10 {:.4} mrr@10 {:.4}", value(metric), value(Metric::Mrr(10)));
    }
    println!("training {:.0} s", trained.training_seconds);
    Ok(())
}

/// The first `count` triples, in their order.
fn training_set(path: &str, count: usize) -> anyhow::Result<TrainingSet> {
    let (mut queries, mut collection) = (Queries::new(), Collection::new());
    let (mut examples, mut positives) = (Vec::new(), Judgements::new());
    for line in std::fs::read_to_string(path).with_context(|| path.to_owned())?.lines().take(count) {
        let row: serde_json::Value = serde_json::from_str(line)?;
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned).context("a text is missing");
        let query = queries.add(&text(&row["query"])?)?;
        let documents = vec![collection.add(&text(&row["positive"])?)?, collection.add(&text(&row["negatives"][0])?)?];
        positives.insert(query, documents[0], 1);
        examples.push(Example { query, documents, scores: None });
    }
    ensure!(examples.len() == count, "{path} has only {} triples", examples.len());
    Ok(TrainingSet { queries, collection, examples, positives, sources: Vec::new() })
}

/// The named queries and documents of a BEIR folder's test split.
fn evaluation_set(beir: &str, pool: &str) -> anyhow::Result<EvaluationSet> {
    let all = read_evaluation_set(Path::new(beir), "test")?;
    let pool: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(pool)?)?;
    let named = |list: &str| -> anyhow::Result<HashSet<String>> {
        let names = pool[list].as_array().with_context(|| format!("{list} is not a list"))?;
        Ok(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
    };
    let ids = |names: HashSet<String>, find: &dyn Fn(&str) -> Option<u32>| -> anyhow::Result<Vec<u32>> {
        let mut ids = Vec::new();
        for name in names {
            ids.push(find(&name).with_context(|| format!("{name} is not in {beir}"))?);
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    };
    let qids = ids(named("queries")?, &|name| all.queries.qid_of_id(name))?;
    let pids = ids(named("documents")?, &|name| all.collection.pid_of_id(name))?;
    Ok(all.restricted_to(&qids, Some(&pids))?)
}

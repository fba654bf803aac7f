//! Parts that recipes add to a run: blocks of the loss, groups of parameters, freezing, mixing, draws; and that a
//! resumed run has the same bits with all of them.

use std::collections::HashMap;

use colbert_config::{
    AutoSteps, DistillationLoss, MixBatches, NumberList, Schedule, ScoreScale, TrainOptions, Warmup, resolve,
};
use colbert_train::{Begin, ColbertObjective, Event, Flow, Step, TrainError, Update};
use tempfile::TempDir;

use crate::accumulation::{Found, assert_same};
use crate::losses::gradients_by_name;
use crate::run::{RESUME, Setup, ignore, options, run_folder};
use crate::support::{B, device, lines, parameters, state_of, tiny, training_set};

/// A run over two sources with rows of different kinds: with and without teacher scores, of two to four documents.
fn mixed(options: TrainOptions) -> Setup {
    let mut setup = Setup::new(TrainOptions { nway: 4, ..options });
    for (place, example) in setup.set.examples.iter_mut().enumerate() {
        let more = [(example.documents[0] + 7) % 40, (example.documents[0] + 11) % 40];
        example.documents.extend(
            more[..place % 3].iter().filter(|pid| !example.documents.contains(pid)).copied().collect::<Vec<_>>(),
        );
        if place % 2 == 0 {
            example.scores = Some((0..example.documents.len()).map(|at| 3.0 - at as f32).collect());
        }
    }
    setup
}

fn everything() -> TrainOptions {
    TrainOptions {
        temperature: 0.5,
        learn_temperature: true,
        distillation_loss: DistillationLoss::Kl,
        teacher_scores: ScoreScale::ZScore,
        student_scores: ScoreScale::MinMax,
        student_temperature: 0.5,
        cross_entropy_weight: Some(0.3),
        distillation_weight: 0.7,
        in_batch_weight: 0.5,
        schedule: Schedule::WarmupStableDecay,
        decay_steps: AutoSteps::Steps(3),
        head_rate_factor: 5.0,
        embeddings_rate_factor: 0.5,
        layer_rate_decay: 0.8,
        decay_biases_and_norms: false,
        freeze_encoder_steps: 2,
        draw_negatives: true,
        mix_exponent: 0.5,
        mix_batches: MixBatches::OneSource,
        save_every: AutoSteps::Steps(3),
        ..options()
    }
}

#[test]
fn a_resumed_run_of_a_recipe_ends_with_the_same_bits() {
    let folder = TempDir::new().unwrap();
    let mut setup = mixed(TrainOptions { nway: 4, ..everything() });
    setup.options.nway = 3;
    setup.set.sources = vec![0, 12];
    let straight = setup.run(None, &mut ignore, Begin::New).unwrap();
    let run = run_folder(&folder, "run");
    let mut stop = |event: &Event| match event {
        Event::Step(record) if record.step == 4 => Flow::Stop,
        _ => Flow::Continue,
    };
    setup.run(Some(&run), &mut stop, Begin::New).unwrap();
    let learned = state_of(&run)["learned"]["numbers"][0]["value"].as_f64().unwrap();
    assert!((learned - 0.5_f64.ln()).abs() > 1e-3, "the temperature moves: {learned}");
    let resumed = setup.run(Some(&run), &mut ignore, RESUME).unwrap();
    let (a, b) = (parameters(&straight.model), parameters(&resumed.model));
    for (name, values) in &a {
        assert!(values.iter().zip(&b[name]).all(|(x, y)| x.to_bits() == y.to_bits()), "{name} differs");
    }
}

/// Every option of a recipe is part of what a checkpoint is tied to.
#[test]
fn a_changed_recipe_is_not_resumed() {
    let folder = TempDir::new().unwrap();
    let run = run_folder(&folder, "run");
    let mut stop = |event: &Event| match event {
        Event::Step(record) if record.step == 3 => Flow::Stop,
        _ => Flow::Continue,
    };
    Setup::new(options()).run(Some(&run), &mut stop, Begin::New).unwrap();
    for (name, changed) in [
        ("train.temperature", TrainOptions { temperature: 0.5, ..options() }),
        ("train.schedule", TrainOptions { schedule: Schedule::Cosine, ..options() }),
        ("train.head_rate_factor", TrainOptions { head_rate_factor: 2.0, ..options() }),
        ("train.draw_negatives", TrainOptions { draw_negatives: true, ..options() }),
        ("train.mix_exponent", TrainOptions { mix_exponent: 0.5, ..options() }),
    ] {
        let error = Setup::new(changed).run(Some(&run), &mut ignore, RESUME).unwrap_err();
        assert!(matches!(error, TrainError::Changed { .. }) && error.to_string().contains(name), "{error}");
    }
}

/// Cached gradients over blocks of queries are those of all scores at once.
#[test]
fn a_loss_by_blocks_gives_the_gradient_of_the_whole_batch() {
    let learning = TrainOptions { learn_temperature: true, temperature: 0.5, ..TrainOptions::default() };
    for recipe in [TrainOptions::default(), learning] {
        let options = TrainOptions { batch_size: 8, accumsteps: 4, dim: 16, doc_maxlen: 64, shuffle: false, ..recipe };
        let set = training_set(&lines("triples.jsonl")[..8]);
        let plan = resolve(&options, 8).unwrap();
        let (model, tokenizer) = tiny(&options, Some(0.2));
        let device = device();
        let gradient = |most: usize| -> (Found, Vec<f64>) {
            let step = Step::<B, _>::new(&options, &plan, ColbertObjective::from(&options), &device);
            let step = step.with_most_winners(most);
            let found = step.gradient(&model, &step.batch(&set, &tokenizer, 0).unwrap());
            ((found.loss, gradients_by_name(&model, &found.parameters)), found.learned)
        };
        let (whole, of_learned) = gradient(usize::MAX);
        for queries in [1, 3, 5] {
            let (found, learned) = gradient(queries * 32 * 16);
            assert_same(&found, &whole);
            assert_eq!(learned.len(), of_learned.len());
            for (found, expected) in learned.iter().zip(&of_learned) {
                assert!((found - expected).abs() < 1e-5, "{found} and {expected}");
            }
        }
    }
}

/// Steps of a model with their gradients and the weights before and after each.
fn steps(options: &TrainOptions, count: usize) -> Vec<[HashMap<String, Vec<f32>>; 3]> {
    let set = training_set(&lines("triples.jsonl")[..8]);
    let plan = resolve(options, 400).unwrap();
    let (mut model, tokenizer) = tiny(options, None);
    let device = device();
    let mut step = Step::<B, _>::new(options, &plan, ColbertObjective::from(options), &device);
    (0..count)
        .map(|number| {
            let batch = step.batch(&set, &tokenizer, number).unwrap();
            let gradient = gradients_by_name(&model, &step.gradient(&model, &batch).parameters);
            let before = parameters(&model);
            let (next, outcome) = step.run(model.clone(), &batch).unwrap();
            assert_eq!(outcome.update, Update::Applied);
            model = next;
            [gradient, before, parameters(&model)]
        })
        .collect()
}

/// Rates, decay and freezing of every parameter, against AdamW in f64.
#[test]
fn groups_of_parameters_move_as_adamw_in_f64() {
    let options = TrainOptions {
        batch_size: 4,
        learning_rate: Some(1e-3),
        warmup_steps: Warmup::Constant,
        dim: 16,
        weight_decay: 0.1,
        clip_norm: 0.0,
        head_rate_factor: 3.0,
        embeddings_rate_factor: 0.5,
        layer_rate_decay: 0.7,
        decay_biases_and_norms: false,
        freeze_encoder_steps: 2,
        ..TrainOptions::default()
    };
    let steps = steps(&options, 4);
    let names: Vec<&String> = steps[0][1].keys().collect();
    let layer = |name: &str| name.split('.').find_map(|part| part.parse::<i32>().ok());
    let layers = names.iter().filter_map(|name| layer(name)).max().unwrap() + 1;
    let (mut moved, mut frozen) = (0, 0);
    for name in names {
        let is_head = name.starts_with("linear");
        let rate = match layer(name) {
            _ if is_head => 3.0,
            Some(layer) => 0.7_f64.powi(layers - 1 - layer),
            None if name.contains("embeddings") => 0.7_f64.powi(layers) * 0.5,
            None => 1.0,
        };
        let is_vector = name.ends_with("bias") || name.contains("LayerNorm");
        let (learning_rate, decay) = (1e-3 * rate, if is_vector { 0.0 } else { 0.1 });
        let count = steps[0][1][name].len();
        let (mut mean, mut square, mut updates) = (vec![0.0; count], vec![0.0; count], 0);
        for [gradient, before, after] in &steps {
            let Some(gradient) = gradient.get(name) else {
                assert_eq!(before[name], after[name], "{name} has no gradient and stays");
                frozen += 1;
                continue;
            };
            updates += 1;
            for place in 0..count {
                let g = f64::from(gradient[place]);
                mean[place] = 0.9 * mean[place] + 0.1 * g;
                square[place] = 0.999 * square[place] + 0.001 * g * g;
                let unbiased = |beta: f64| 1.0 - beta.powi(updates);
                let step = mean[place] / unbiased(0.9) / ((square[place] / unbiased(0.999)).sqrt() + 1e-8);
                let old = f64::from(before[name][place]);
                let expected = old * (1.0 - learning_rate * decay) - learning_rate * step;
                let found = f64::from(after[name][place]);
                assert!((found - expected).abs() < 2e-6, "{name}[{place}]: {found} instead of {expected}");
            }
            moved += 1;
        }
        if !is_head {
            assert!(updates <= 2, "{name} is frozen for two updates");
        }
    }
    assert!(moved > 60 && frozen > 60, "{moved} moved, {frozen} stayed");
}

#[test]
fn negatives_are_drawn_newly_each_time_and_again_the_same_after_a_stop() {
    let mut set = training_set(&lines("triples.jsonl")[..4]);
    for example in &mut set.examples {
        let positive = example.documents[0];
        example.documents = std::iter::once(positive).chain((0..12).filter(|pid| *pid != positive)).collect();
        example.scores = Some(example.documents.iter().map(|pid| *pid as f32).collect());
    }
    let options = TrainOptions { batch_size: 4, nway: 4, draw_negatives: true, epochs: 5, dim: 16, ..options() };
    let plan = resolve(&options, 4).unwrap();
    let (_, tokenizer) = tiny(&options, None);
    let device = device();
    let step = Step::<B, _>::new(&options, &plan, ColbertObjective::from(&options), &device);
    let mut drawn: HashMap<u32, Vec<Vec<u32>>> = HashMap::new();
    for number in 0..5 {
        let batch = step.batch(&set, &tokenizer, number).unwrap();
        assert_eq!(batch.rows, step.batch(&set, &tokenizer, number).unwrap().rows, "a function of seed and position");
        for row in batch.rows {
            let pool = set.examples.iter().find(|example| example.query == row.query).unwrap();
            assert_eq!((row.documents.len(), row.documents[0]), (4, pool.documents[0]));
            let mut distinct = row.documents.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), 4);
            for (pid, score) in row.documents.iter().zip(row.scores.unwrap()) {
                assert!(pool.documents.contains(pid));
                assert_eq!(score, *pid as f32, "scores go with their documents");
            }
            drawn.entry(row.query).or_default().push(row.documents);
        }
    }
    for rows in drawn.values() {
        assert!((1..rows.len()).any(|at| rows[at] != rows[0]), "{rows:?}");
    }
    let other = TrainOptions { seed: 1, ..options.clone() };
    let other = Step::<B, _>::new(&other, &plan, ColbertObjective::from(&other), &device);
    let rows = |step: &Step<'_, B, ColbertObjective>| step.batch(&set, &tokenizer, 0).unwrap().rows;
    assert_ne!(rows(&other), rows(&step));
}

#[test]
fn weights_that_are_not_one_for_each_source_end_the_run_at_its_start() {
    let mut setup = Setup::new(TrainOptions { mix_weights: NumberList(vec![1.0, 2.0]), ..options() });
    let error = setup.run(None, &mut ignore, Begin::New).unwrap_err();
    assert!(matches!(error, TrainError::MixWeights { found: 2, sources: 1 }), "{error}");
    setup.set.sources = vec![0, 12];
    setup.run(None, &mut ignore, Begin::New).unwrap();
}

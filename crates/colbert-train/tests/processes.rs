//! Several processes, here threads, against one that computes as many micro-batches as all of them: the same bits.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use colbert_config::{AutoSteps, IbScope, OnNonFinite, TrainOptions, resolve_for_processes};
use colbert_data::{Example, TrainingSet};
use colbert_model::{Colbert, HostTensor, PretrainedEncoder, Weights, named_parameters, replace_parameters};
use colbert_train::{
    Begin, ColbertObjective, Dev, Event, Flow, Processes, RefreshExamples, RunFolder, Step, StepRecord, TrainError,
    Trained, Training,
};
use tempfile::TempDir;

use crate::evaluation::dev_set;
use crate::run::{RESUME, Setup, ignore, options, run_folder, write_model};
use crate::support::{B, Inner, Model, device, lines, parameters, tiny, training_set};

/// The meeting point of a group, where threads exchange data.
#[derive(Debug, Default)]
struct Exchange {
    meeting: Mutex<Meeting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Meeting {
    given: Vec<Option<Vec<Vec<u8>>>>,
    taken: usize,
    /// Whether a thread has ended, after which nobody waits for it.
    left: bool,
}

/// Tells the others of a thread's end, by a panic too.
struct Leave<'a>(&'a Exchange);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.meeting.lock().unwrap_or_else(PoisonError::into_inner).left = true;
        self.0.changed.notify_all();
    }
}

/// A thread of a group, in place of a process.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    rank: usize,
    size: usize,
    exchange: Arc<Exchange>,
}

impl Member {
    fn exchange(&self, own: Vec<Vec<u8>>) -> Vec<Vec<Vec<u8>>> {
        let Exchange { meeting, changed } = &*self.exchange;
        let mut meeting = meeting.lock().unwrap();
        meeting = changed.wait_while(meeting, |now| now.given[self.rank].is_some() && !now.left).unwrap();
        meeting.given[self.rank] = Some(own);
        changed.notify_all();
        meeting = changed.wait_while(meeting, |now| now.given.iter().any(Option::is_none) && !now.left).unwrap();
        let all = meeting.given.iter().cloned().collect::<Option<_>>().expect("a thread of the group has ended");
        meeting.taken += 1;
        if meeting.taken == self.size {
            meeting.given.fill(None);
            meeting.taken = 0;
            changed.notify_all();
        }
        all
    }
}

impl Processes for Member {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
        self.exchange(vec![own.to_vec()]).into_iter().map(|mut given| given.swap_remove(0)).collect()
    }

    fn all_to_all(&self, parts: &[&[u32]]) -> Vec<Vec<u32>> {
        let bytes = |part: &&[u32]| part.iter().flat_map(|word| word.to_le_bytes()).collect();
        let words = |bytes: &[u8]| bytes.chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect();
        let all = self.exchange(parts.iter().map(bytes).collect());
        all.iter().map(|given| words(&given[self.rank])).collect()
    }
}

/// Runs `work` in each thread of a group, and returns the results by rank.
pub(crate) fn together<T: Send>(size: usize, work: impl Fn(&Member) -> T + Sync) -> Vec<T> {
    let exchange = Arc::new(Exchange::default());
    exchange.meeting.lock().unwrap().given = vec![None; size];
    thread::scope(|scope| {
        let threads: Vec<_> = (0..size)
            .map(|rank| {
                let member = Member { rank, size, exchange: Arc::clone(&exchange) };
                let work = &work;
                scope.spawn(move || {
                    let _leave = Leave(&member.exchange);
                    work(&member)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Losses of each step with their parts, and the bits of the weights at the end.
type Course = (Vec<(u64, Vec<(String, u64)>)>, Vec<(String, Vec<u32>)>);

fn bits(model: &Model) -> Vec<(String, Vec<u32>)> {
    let mut named: Vec<_> = parameters(model).into_iter().collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named.into_iter().map(|(name, values)| (name, values.iter().map(|value| value.to_bits()).collect())).collect()
}

/// Twelve steps on a set, `winners` of MaxSim at once.
fn course(set: &TrainingSet, options: &TrainOptions, winners: usize, processes: Option<&Member>) -> Course {
    let plan = resolve_for_processes(options, set.examples.len(), processes.map_or(1, |own| own.size)).unwrap();
    let (mut model, tokenizer) = tiny(options, options.dropout);
    let device = device();
    let step = Step::<B, _>::new(options, &plan, ColbertObjective::from(options), &device).with_most_winners(winners);
    let mut step = match processes {
        Some(processes) => step.with_processes(processes),
        None => step,
    };
    let mut losses = Vec::new();
    for number in 0..12 {
        let batch = step.batch(set, &tokenizer, number).unwrap();
        let (next, outcome) = step.run(model, &batch).unwrap();
        model = next;
        let parts = outcome.loss.parts.iter().map(|(name, part)| (name.to_string(), part.to_bits())).collect();
        losses.push((outcome.loss.total.to_bits(), parts));
    }
    (losses, bits(&model))
}

fn assert_same_bits(name: &str, set: &TrainingSet, options: &TrainOptions, winners: usize, shares: &[(usize, usize)]) {
    let pieces = shares[0].0 * shares[0].1;
    let alone = course(set, &TrainOptions { accumsteps: pieces, ..options.clone() }, winners, None);
    for &(size, accumsteps) in shares {
        assert_eq!(size * accumsteps, pieces, "the same micro-batches");
        let options = TrainOptions { accumsteps, ..options.clone() };
        let found = together(size, |own| course(set, &options, winners, Some(own)));
        for (rank, found) in found.iter().enumerate() {
            assert_eq!(found.0, alone.0, "{name}: losses of process {rank} of {size}");
            assert!(found.1 == alone.1, "{name}: weights of process {rank} of {size}");
        }
    }
}

fn contrastive() -> TrainOptions {
    TrainOptions { batch_size: 12, epochs: 20, maxsteps: 12, save_every: AutoSteps::Auto, ..options() }
}

#[test]
fn in_batch_negatives_of_the_whole_batch_have_the_bits_of_one_process() {
    let set = training_set(&lines("triples.jsonl")[..34]);
    assert_same_bits("in-batch", &set, &contrastive(), usize::MAX, &[(4, 1), (2, 2)]);
    assert_same_bits("three", &set, &contrastive(), usize::MAX, &[(3, 2), (2, 3), (6, 1)]);
    let learned = TrainOptions { learn_temperature: true, ..contrastive() };
    assert_same_bits("learned", &set, &learned, usize::MAX, &[(2, 1)]);
}

/// Twelve query tokens times some twenty documents: a block of a few queries at a time.
#[test]
fn a_loss_by_blocks_is_split_among_processes_with_the_bits_of_one() {
    let set = training_set(&lines("triples.jsonl")[..34]);
    let learned = TrainOptions { learn_temperature: true, ..contrastive() };
    for winners in [1, 1_200] {
        assert_same_bits("blocks", &set, &learned, winners, &[(2, 1)]);
        assert_same_bits("blocks", &set, &learned, winners, &[(3, 1)]);
        assert_same_bits("blocks", &set, &learned, winners, &[(4, 1), (2, 2)]);
    }
}

#[test]
fn losses_that_do_not_reach_across_have_the_bits_of_one_process() {
    let triples = training_set(&lines("triples.jsonl")[..34]);
    let micro = TrainOptions { ib_scope: IbScope::MicroBatch, ..contrastive() };
    assert_same_bits("micro", &triples, &micro, usize::MAX, &[(4, 1), (2, 2)]);
    let mut scored = training_set(&lines("triples_nway4_scores.jsonl"));
    let distilled = TrainOptions { nway: 4, use_ib_negatives: false, batch_size: 6, ..contrastive() };
    assert_same_bits("distillation", &scored, &distilled, usize::MAX, &[(3, 1)]);
    // Rows of different kinds: some pieces have a part of the loss that others lack.
    for Example { scores, .. } in scored.examples.iter_mut().step_by(2) {
        *scores = None;
    }
    let micro = TrainOptions { ib_scope: IbScope::MicroBatch, use_ib_negatives: true, ..distilled };
    assert_same_bits("mixed", &scored, &micro, usize::MAX, &[(6, 1), (2, 3), (3, 2)]);
}

/// A run of the loop with dev queries, as one of the processes or alone.
fn run(
    setup: &Setup,
    folder: &RunFolder,
    processes: Option<&Member>,
    observer: &mut dyn colbert_train::Observer,
    begin: Begin,
) -> Result<Trained<Model>, TrainError> {
    let size = processes.map_or(1, |own| own.size);
    let plan = resolve_for_processes(&setup.options, setup.set.examples.len(), size).unwrap();
    let (model, tokenizer) = tiny(&setup.options, setup.options.dropout);
    let device = device();
    let training = Training::new(&setup.set, &tokenizer, &setup.options, &plan, &device)
        .with_dev(setup.dev.as_ref().map(|set| Dev { set, options: &setup.evaluation }))
        .with_folder(Some(folder))
        .with_model_writer(&write_model)
        .with_observer(observer);
    match processes {
        Some(processes) => training.with_processes(processes).run(model, begin),
        None => training.run(model, begin),
    }
}

fn with_accumsteps(accumsteps: usize) -> Setup {
    let mut setup = Setup::new(TrainOptions { accumsteps, ..options() });
    setup.dev = Some(dev_set(20));
    setup.evaluation.average_best = 2;
    setup
}

/// Evaluation, choice of the best and the end of a run are those of one process; files are written once.
#[test]
fn a_run_of_several_processes_is_the_run_of_one() {
    let folder = TempDir::new().unwrap();
    let alone = run(&with_accumsteps(4), &run_folder(&folder, "alone"), None, &mut ignore, Begin::New).unwrap();
    for size in [2, 4] {
        let (setup, own) = (with_accumsteps(4 / size), run_folder(&folder, &size.to_string()));
        let found = together(size, |member| run(&setup, &own, Some(member), &mut ignore, Begin::New).unwrap());
        for trained in found {
            assert!(bits(&trained.model) == bits(&alone.model), "{size}");
            let measured = |trained: &Trained<Model>| {
                let best = trained.best.clone().unwrap();
                (best.step, best.made_of, best.measured, trained.baseline.clone(), trained.candidates.clone())
            };
            assert_eq!(measured(&trained), measured(&alone), "{size}");
        }
        let names = |run: &RunFolder| -> Vec<_> {
            run.list_checkpoints().unwrap().iter().map(|path| path.file_name().unwrap().to_owned()).collect()
        };
        let expected = RunFolder::open(&folder.path().join("alone")).unwrap();
        assert_eq!(names(&own), names(&expected));
        let weights = |run: &RunFolder| std::fs::read(run.best().join("model.safetensors")).unwrap();
        assert!(weights(&own) == weights(&expected), "the best model's file");
    }
}

/// A stop requested by one process ends all after the same step, and a run with another number of processes continues
/// from there.
#[test]
fn one_process_stops_all_and_another_number_resumes() {
    let folder = TempDir::new().unwrap();
    let straight = run(&with_accumsteps(4), &run_folder(&folder, "straight"), None, &mut ignore, Begin::New).unwrap();
    let (setup, own) = (with_accumsteps(1), run_folder(&folder, "run"));
    let found = together(4, |member| {
        let mut stop = |event: &Event| match event {
            Event::Step(StepRecord { step: 4, .. }) if member.rank == 2 => Flow::Stop,
            _ => Flow::Continue,
        };
        run(&setup, &own, Some(member), &mut stop, Begin::New).unwrap()
    });
    assert!(found.iter().all(|trained| trained.stopped && trained.steps == 4));
    let setup = with_accumsteps(2);
    let found = together(2, |member| run(&setup, &own, Some(member), &mut ignore, RESUME).unwrap());
    assert!(found.iter().all(|trained| bits(&trained.model) == bits(&straight.model)));
    // Other micro-batches would be other bits.
    let setup = with_accumsteps(1);
    let found = together(2, |member| run(&setup, &own, Some(member), &mut ignore, RESUME).err());
    assert!(found.iter().all(|error| matches!(error, Some(TrainError::Changed { .. }))), "{found:?}");
}

/// An evaluation that one process ends is ended by all.
#[test]
fn one_process_ends_the_evaluation_of_all() {
    let folder = TempDir::new().unwrap();
    let (setup, own) = (with_accumsteps(1), run_folder(&folder, "run"));
    let found = together(2, |member| {
        let mut stop = |event: &Event| match event {
            Event::Evaluating { .. } if member.rank == 1 => Flow::Stop,
            _ => Flow::Continue,
        };
        run(&setup, &own, Some(member), &mut stop, Begin::New).unwrap()
    });
    assert!(found.iter().all(|trained| trained.stopped && trained.steps == 0 && trained.best.is_none()));
}

/// A loss that is not finite is reported by all, and written down once.
#[test]
fn a_loss_that_is_not_finite_ends_all() {
    let folder = TempDir::new().unwrap();
    let mut setup = with_accumsteps(1);
    setup.dev = None;
    setup.options.on_nonfinite = OnNonFinite::Stop;
    setup.options.temperature = 1e-38;
    let own = run_folder(&folder, "run");
    let found = together(2, |member| run(&setup, &own, Some(member), &mut ignore, Begin::New).err());
    assert!(found.iter().all(|error| matches!(error, Some(TrainError::NonFinite { step: 1, .. }))), "{found:?}");
}

/// Weights that diverge, as on processors that round differently, are found after the step.
#[test]
fn processes_whose_weights_differ_are_told() {
    let set = training_set(&lines("triples.jsonl")[..34]);
    let options = contrastive();
    let plan = resolve_for_processes(&options, set.examples.len(), 2).unwrap();
    let found = together(2, |member| {
        let (model, tokenizer) = tiny(&options, options.dropout);
        let device = device();
        let mut step = Step::<B, _>::new(&options, &plan, ColbertObjective::from(&options), &device);
        step = step.with_processes(member);
        let batch = step.batch(&set, &tokenizer, 0).unwrap();
        let mut weights = Weights::new("weights", named_parameters::<B, _>(&model));
        if member.rank == 1 {
            weights = Weights::new("weights", moved(named_parameters::<B, _>(&model)));
        }
        step.run(replace_parameters::<B, _>(model, &mut weights).unwrap(), &batch).err()
    });
    assert!(found.iter().all(|error| matches!(error, Some(TrainError::ProcessesApart { step: 1 }))), "{found:?}");
}

/// One weight differs.
fn moved(mut tensors: Vec<(String, HostTensor)>) -> Vec<(String, HostTensor)> {
    tensors[0].1.values[0] += 1.0;
    tensors
}

/// Draws different examples in each process, as an unseeded miner would.
struct Unseeded<'a> {
    set: &'a TrainingSet,
    rank: usize,
}

impl RefreshExamples<B, PretrainedEncoder<B>> for Unseeded<'_> {
    fn examples(&mut self, _: Colbert<Inner, PretrainedEncoder<Inner>>, _: usize) -> Result<Vec<Example>, TrainError> {
        let mut examples = self.set.examples.clone();
        examples.rotate_left(self.rank);
        Ok(examples)
    }
}

#[test]
fn processes_that_choose_other_negatives_are_told() {
    let setup = Setup::new(TrainOptions { epochs: 2, ..options() });
    let plan = resolve_for_processes(&setup.options, setup.set.examples.len(), 2).unwrap();
    let found = together(2, |member| {
        let (model, tokenizer) = tiny(&setup.options, setup.options.dropout);
        let device = device();
        let mut refresh = Unseeded { set: &setup.set, rank: member.rank };
        let training = Training::new(&setup.set, &tokenizer, &setup.options, &plan, &device);
        let training = training.with_refresh(Some(&mut refresh)).with_processes(member);
        training.run(model, Begin::New).err().unwrap().to_string()
    });
    assert!(found.iter().all(|error| error.contains("negatives of epoch 2")), "{found:?}");
}

/// Processes with different inputs get an error before the first step.
#[test]
fn processes_with_other_data_are_refused() {
    let folder = TempDir::new().unwrap();
    let own = run_folder(&folder, "run");
    let found = together(2, |member| {
        let mut setup = with_accumsteps(1);
        if member.rank == 1 {
            setup.set.examples.swap(0, 1);
        }
        run(&setup, &own, Some(member), &mut ignore, Begin::New).err().unwrap().to_string()
    });
    assert!(found.iter().all(|error| error.contains("training data")), "{found:?}");
}

/// Processes tokenize texts for each other, so their tokenizers must agree.
#[test]
fn processes_with_other_tokenizers_are_refused() {
    let setup = with_accumsteps(1);
    let plan = resolve_for_processes(&setup.options, setup.set.examples.len(), 2).unwrap();
    let found = together(2, |member| {
        let (model, _) = tiny(&setup.options, setup.options.dropout);
        let doc_maxlen = setup.options.doc_maxlen - member.rank;
        let (_, tokenizer) = tiny(&TrainOptions { doc_maxlen, ..setup.options.clone() }, None);
        let device = device();
        let training = Training::new(&setup.set, &tokenizer, &setup.options, &plan, &device).with_processes(member);
        training.run(model, Begin::New).err().unwrap().to_string()
    });
    assert!(found.iter().all(|error| error.contains("tokenizer")), "{found:?}");
}

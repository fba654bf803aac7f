//! Negatives chosen again for every epoch: by the current weights, the same in every run, and in a resumed one.

use std::fs;
use std::sync::Arc;

use colbert_config::{AutoSteps, TrainOptions, Warmup, resolve};
use colbert_data::{Bm25Miner, Example, PrepareOptions, RawData, Remining, TrainingSet, prepare};
use colbert_model::{Colbert, ColbertTokenizer, PretrainedEncoder};
use colbert_train::mining::LateInteractionMiner;
use colbert_train::{Begin, Event, Flow, RefreshExamples, RunFolder, TrainError, Trained, Training};
use tempfile::TempDir;

use crate::run::RESUME;
use crate::support::{B, Inner, Model, device, lines, parameters, tiny, training_set};

/// 30 queries, one triple each, and 4 a batch: epoch 2 begins in step 8 (its batch has 2 examples of epoch 1), epoch 3
/// in step 16, on the edge.
fn options() -> TrainOptions {
    TrainOptions {
        batch_size: 4,
        epochs: 3,
        dim: 16,
        query_maxlen: 20,
        doc_maxlen: 32,
        learning_rate: Some(1e-3),
        warmup_steps: Warmup::Steps(2),
        save_every: AutoSteps::Steps(9),
        dropout: Some(0.1),
        ..TrainOptions::default()
    }
}

fn data() -> (TrainingSet, Remining) {
    let given = training_set(&lines("triples.jsonl"));
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for example in &given.examples {
        let query = given.queries.text(example.query);
        if pairs.len() < 30 && pairs.iter().all(|(known, _)| *known != query) {
            pairs.push((query, given.collection.text(example.documents[0])));
        }
    }
    let mut raw = RawData::from_pairs(pairs).unwrap();
    raw.add_documents(given.collection.iter()).unwrap();
    let mut options = PrepareOptions::default();
    options.negatives.num_new_negatives = 1;
    options.negatives.hard_negative_minimum_rank = 0;
    options.negatives.hard_negative_maximum_rank = 20;
    options.negatives.positive_score_share = None;
    let remining = Remining::of(&raw, &options).unwrap();
    (prepare(raw, &options, None).unwrap().0, remining)
}

/// Mines with the model itself, and records the epochs.
struct ByItself<'a> {
    set: &'a TrainingSet,
    remining: &'a Remining,
    tokenizer: &'a ColbertTokenizer,
    asked: Vec<usize>,
}

impl RefreshExamples<B, PretrainedEncoder<B>> for ByItself<'_> {
    fn examples(
        &mut self,
        model: Colbert<Inner, PretrainedEncoder<Inner>>,
        epoch: usize,
    ) -> Result<Vec<Example>, TrainError> {
        self.asked.push(epoch);
        let candidates = Arc::new(Bm25Miner::default());
        let miner = LateInteractionMiner::new(model, self.tokenizer.clone(), candidates, &device());
        Ok(self.remining.examples(self.set, epoch, Some(&miner), &|_, _, _| ())?.0)
    }
}

struct Ran {
    trained: Result<Trained<Model>, TrainError>,
    asked: Vec<usize>,
    /// (epoch, step, read back)
    refreshed: Vec<(usize, usize, bool)>,
}

fn run(folder: Option<&RunFolder>, refreshes: bool, stop_after: usize, begin: Begin) -> Ran {
    let (options, (set, remining)) = (options(), data());
    let plan = resolve(&options, set.examples.len()).unwrap();
    assert_eq!((set.examples.len(), plan.steps), (30, 22));
    let (model, tokenizer) = tiny(&options, options.dropout);
    let mut refreshed = Vec::new();
    let mut observer = |event: &Event| {
        if let Event::Refreshed { epoch, step, read, .. } = event {
            refreshed.push((*epoch, *step, *read));
        }
        match event {
            Event::Step(record) if record.step == stop_after => Flow::Stop,
            _ => Flow::Continue,
        }
    };
    let mut by_itself = ByItself { set: &set, remining: &remining, tokenizer: &tokenizer, asked: Vec::new() };
    let refresh =
        if refreshes { Some(&mut by_itself as &mut dyn RefreshExamples<B, PretrainedEncoder<B>>) } else { None };
    let trained = Training::new(&set, &tokenizer, &options, &plan, &device())
        .with_folder(folder)
        .with_observer(&mut observer)
        .with_refresh(refresh)
        .run(model, begin);
    Ran { trained, asked: by_itself.asked, refreshed }
}

#[test]
fn every_epoch_has_negatives_of_its_own_and_a_resumed_run_the_same() {
    let root = TempDir::new().unwrap();
    let folder = |name: &str| RunFolder::create(&root.path().join(name), false).unwrap();
    let weights = |ran: Ran| parameters(&ran.trained.unwrap().model);
    let whole = folder("whole");
    let ran = run(Some(&whole), true, usize::MAX, Begin::New);
    assert_eq!((ran.asked.clone(), ran.refreshed.clone()), (vec![1, 2], vec![(2, 7, false), (3, 15, false)]));
    let expected = weights(ran);
    let examples = |folder: &RunFolder, epoch: usize| {
        fs::read_to_string(folder.path().join(format!("negatives/epoch-{epoch:04}.jsonl"))).unwrap()
    };
    assert_ne!(examples(&whole, 1), examples(&whole, 2));
    assert_eq!(examples(&whole, 1).lines().count(), 30 + 1, "rows, and their checksum");
    assert_eq!(weights(run(None, true, usize::MAX, Begin::New)), expected, "without a folder, and once more");
    assert_ne!(weights(run(None, false, usize::MAX, Begin::New)), expected, "the negatives matter");

    // Stopped in the middle of epoch 2, and on the edge of epoch 3.
    for stop_after in [9, 15] {
        let part = folder(&format!("part-{stop_after}"));
        run(Some(&part), true, stop_after, Begin::New).trained.unwrap();
        let checkpoint = part.list_checkpoints().unwrap().pop().unwrap();
        assert!(checkpoint.ends_with(format!("step-{stop_after:06}")));
        let ran = run(Some(&part), true, usize::MAX, RESUME);
        assert_eq!(ran.asked, [2], "epoch 2 is read back");
        assert_eq!(weights(ran), expected, "stopped after step {stop_after}");
        assert_eq!(examples(&part, 2), examples(&whole, 2));
    }
}

#[test]
fn negatives_that_are_gone_or_damaged_are_told() {
    let root = TempDir::new().unwrap();
    let folder = RunFolder::create(&root.path().join("run"), false).unwrap();
    let weights = |ran: Ran| parameters(&ran.trained.unwrap().model);
    let expected = weights(run(None, true, usize::MAX, Begin::New));
    run(Some(&folder), true, 9, Begin::New).trained.unwrap();
    let file = folder.path().join("negatives/epoch-0001.jsonl");
    let message = || run(Some(&folder), true, usize::MAX, RESUME).trained.unwrap_err().to_string();
    let good = fs::read_to_string(&file).unwrap();
    let without_a_row = good.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>();
    let another_query = good.replacen('[', "[9", 1);
    let without_its_sum = good.lines().take(30).map(|line| format!("{line}\n")).collect::<String>();
    for damaged in [&without_a_row, &another_query, &without_its_sum, &good[..good.len() - 1], "[1,[2", ""] {
        fs::write(&file, damaged).unwrap();
        assert!(message().contains("epoch-0001.jsonl: damaged"), "{}", message());
    }
    // Any changed byte.
    for place in (0..good.len()).step_by(17) {
        let mut bytes = good.clone().into_bytes();
        bytes[place] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert!(message().contains("damaged"), "byte {place}: {}", message());
    }
    // If the run resumes before the epoch they are chosen again, as the message says.
    let newest = folder.list_checkpoints().unwrap().pop().unwrap();
    fs::rename(&newest, root.path().join("aside")).unwrap();
    let ran = run(Some(&folder), true, usize::MAX, RESUME);
    assert_eq!(ran.asked, [1, 2]);
    assert_eq!(weights(ran), expected);
    assert_eq!(fs::read_to_string(&file).unwrap(), good);

    let folder = RunFolder::create(&root.path().join("gone"), false).unwrap();
    run(Some(&folder), true, 9, Begin::New).trained.unwrap();
    fs::remove_file(folder.path().join("negatives/epoch-0001.jsonl")).unwrap();
    let message = run(Some(&folder), true, usize::MAX, RESUME).trained.unwrap_err().to_string();
    assert!(message.contains("negatives of epoch 2 are not in the folder"), "{message}");
}

/// Returns too few examples.
struct TooFew;

impl RefreshExamples<B, PretrainedEncoder<B>> for TooFew {
    fn examples(&mut self, _: Colbert<Inner, PretrainedEncoder<Inner>>, _: usize) -> Result<Vec<Example>, TrainError> {
        Ok(Vec::new())
    }
}

#[test]
fn a_refresh_that_breaks_its_contract_ends_the_run() {
    let (options, (set, _)) = (options(), data());
    let plan = resolve(&options, set.examples.len()).unwrap();
    let (model, tokenizer) = tiny(&options, options.dropout);
    let device = device();
    let mut too_few = TooFew;
    let training = Training::new(&set, &tokenizer, &options, &plan, &device).with_refresh(Some(&mut too_few));
    let error = training.run(model, Begin::New).unwrap_err().to_string();
    assert!(error.contains("epoch 2 give 0 examples"), "{error}");
}

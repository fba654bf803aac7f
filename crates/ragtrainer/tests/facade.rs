//! The facade, as a downstream crate uses it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use ragtrainer::Error;
use ragtrainer::config::{AutoSteps, DataOptions, ExportLayout, MODEL_LENGTH, NumberList, OptionSources, Options};
use ragtrainer::prelude::*;
use ragtrainer::run::{DirectoryChoice, evaluate_directory_with};
use ragtrainer::train::{Begin, Event, Flow, Processes, TrainError};

use crate::support::{backend, beir_folder, folder, pairs, pretrained, tiny_model};

pub(crate) fn options() -> TrainOptions {
    TrainOptions { batch_size: 4, dim: 16, doc_maxlen: 32, maxsteps: 2, ..TrainOptions::default() }
}

pub(crate) fn trainer(output: &std::path::Path) -> RagTrainer {
    RagTrainer::new("towns", tiny_model().to_str().unwrap()).with_backend(backend()).with_output(output, false)
}

pub(crate) fn resumed(trainer: &RagTrainer) -> RagTrainer {
    trainer.clone().with_begin(Begin::Resume { accept_changes: false })
}

/// Defects 19, 20 and 23 of the list in `docs/parity.md`: training starts from exported data, the folder is the
/// caller's.
#[test]
fn defect_19_training_starts_from_exported_data() {
    let here = folder();
    let mut first = trainer(&here.path().join("a"));
    first.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
    first.export_training_data(&here.path().join("data")).unwrap();
    let mut second = trainer(&here.path().join("b"));
    second.load_training_data(&here.path().join("data"), &PrepareOptions::default()).unwrap();
    assert_eq!(second.training_set().unwrap().examples.len(), first.training_set().unwrap().examples.len());
    assert_eq!(second.train(&options()).unwrap().best, here.path().join("b/best"));
}

/// Texts are in memory while the model is trained; splits of a folder share theirs. (Other backends than flex measure
/// what a step takes, and only if there is a limit.)
#[test]
fn the_plan_counts_the_texts() {
    let here = folder();
    let beir = BeirFolder::open(&beir_folder(here.path())).unwrap();
    let planned = |dev: &EvaluationSet, test: Option<&EvaluationSet>| {
        let mut trainer = trainer(&here.path().join("run")).with_backend("flex");
        trainer = trainer.with_dev(dev.clone(), EvaluationOptions::default());
        if let Some(test) = test {
            trainer = trainer.with_test(test.clone());
        }
        trainer.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
        trainer.plan(&options()).unwrap().plan.memory.unwrap()
    };
    let dev = beir.evaluation("dev").unwrap();
    let all: Vec<u32> = (0..12).collect();
    let half = dev.restricted_to(&all, Some(&all[..6])).unwrap();
    let (of_half, of_all) = (planned(&half, None), planned(&dev, None));
    let texts: usize = pairs()[6..].iter().map(|(_, document)| document.len()).sum();
    assert!(of_all - of_half > texts as u64, "{of_half} {of_all}, {texts}");
    let with_test = planned(&dev, Some(&beir.evaluation("test").unwrap()));
    let queries: usize = pairs().iter().map(|(query, _)| query.len()).sum();
    assert!(with_test - of_all > queries as u64, "{of_all} {with_test}, {queries}");
    let other = BeirFolder::open(&beir_folder(here.path())).unwrap().evaluation("test").unwrap();
    let with_other = planned(&dev, Some(&other));
    assert!(with_other - with_test > 2 * texts as u64, "documents of another folder: {with_test} {with_other}");
}

#[test]
fn training_before_preparing_is_an_error() {
    let here = folder();
    let trainer = trainer(&here.path().join("run"));
    assert!(matches!(trainer.train(&options()), Err(Error::NotPrepared)));
    assert!(matches!(trainer.plan(&options()), Err(Error::NotPrepared)));
    assert!(matches!(trainer.export_training_data(here.path()), Err(Error::NotPrepared)));
}

/// Defect 13: documents of one call do not leak into the next.
#[test]
fn defect_13_documents_count_for_one_call() {
    let here = folder();
    let mut trainer = trainer(&here.path().join("run"));
    trainer.add_documents(["An extra document."]);
    let count = |trainer: &mut RagTrainer| {
        trainer.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
        trainer.training_set().unwrap().collection.len()
    };
    assert_eq!(count(&mut trainer), 13);
    assert_eq!(count(&mut trainer), 12);
}

#[test]
fn the_outcome_has_the_measurements() {
    let here = folder();
    let beir = BeirFolder::open(&beir_folder(here.path())).unwrap();
    let (dev, test) = (beir.evaluation("dev").unwrap(), beir.evaluation("test").unwrap());
    let choice = EvaluationOptions { max_queries: Some(5), ..EvaluationOptions::default() };
    let mut trainer = trainer(&here.path().join("run")).with_dev(dev, choice).with_test(test);
    trainer.prepare_training_data(beir.into_raw("train").unwrap(), &PrepareOptions::default()).unwrap();
    let preview = trainer.plan(&options()).unwrap();
    assert_eq!(preview.plan.steps, 2);
    assert!(preview.loaded.initialised.is_empty());
    let outcome = trainer.train(&options()).unwrap();
    assert_eq!((outcome.steps, outcome.stopped), (2, false));
    let dev = outcome.dev.unwrap();
    assert_eq!(dev.start.queries, 5);
    assert!(
        dev.best.value(outcome.metric) >= dev.start.value(outcome.metric),
        "the best is never worse than the start"
    );
    let test = outcome.test.unwrap();
    assert_eq!((test.start.queries, test.bm25.documents), (12, 12));
}

/// The test judgements of a folder that is trained on are measured unless they are left out.
#[test]
fn test_queries_can_be_left_out() {
    let here = folder();
    let beir = beir_folder(here.path());
    let trained = |output: &str, skip_test: bool, named: bool| {
        let mut options = Options {
            pretrained_model_name: tiny_model().to_str().unwrap().to_owned(),
            backend: backend(),
            output: here.path().join(output),
            train: options(),
            ..Options::default()
        };
        options.data.train = beir.clone().into();
        options.data.test = named.then(|| beir.clone());
        options.data.skip_test = skip_test;
        let mut trainer = RagTrainer::from_options(options);
        let announced = trainer.read_data().unwrap().join("\n");
        let leaks = trainer.data_report().unwrap().findings.iter().any(|finding| finding.message.contains("test"));
        trainer.add_negatives(&|_, _, _| ()).unwrap();
        (trainer.train(&self::options()).unwrap().test.is_some(), announced, leaks)
    };
    let (measured, announced, leaks) = trained("measured", false, false);
    assert!(measured && leaks && announced.contains("test: 12 queries"), "{announced}");
    for (output, named) in [("skipped", false), ("skipped-named", true)] {
        let (measured, announced, leaks) = trained(output, true, named);
        assert!(!measured && !leaks, "{announced}");
        assert!(announced.contains("dev: 12 queries") && !announced.contains("test: "), "{announced}");
        assert!(announced.contains("data.skip_test is true"), "{announced}");
    }
    let set = BeirFolder::open(&beir).unwrap().evaluation("test").unwrap();
    let skip = Options { data: DataOptions { skip_test: true, ..DataOptions::default() }, ..Options::default() };
    let mut trainer = RagTrainer::from_options(skip).with_test(set);
    let announced = trainer.set_data(RawData::from_pairs(pairs()).unwrap()).unwrap().join("\n");
    assert!(!announced.contains("test: "), "{announced}");
}

/// Dev queries against many documents are measured less often than ten times, unless a number says how often.
#[test]
fn evaluations_leave_most_of_the_time_to_training() {
    let here = folder();
    let beir = BeirFolder::open(&beir_folder(here.path())).unwrap();
    let dev = beir.evaluation("dev").unwrap();
    let output = here.path().join("run");
    let mut without = trainer(&output);
    let mut with = trainer(&output).with_dev(dev, EvaluationOptions::default());
    for trainer in [&mut without, &mut with] {
        trainer.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
    }
    // 12 queries of 32 tokens and 12 documents of 32; a step has 12 texts: one evaluation takes two steps' tokens.
    let train = TrainOptions { epochs: 10, maxsteps: 8, ..options() };
    let every = |trainer: &RagTrainer, train: &TrainOptions| trainer.plan(train).unwrap().plan.save_every;
    assert_eq!((every(&without, &train), every(&with, &train)), (1, 2));
    let given = TrainOptions { save_every: AutoSteps::Steps(1), ..train.clone() };
    assert_eq!(every(&with, &given), 1);
    // A run that is resumed is measured at the steps that it began with, those of another rule included.
    with.train(&train).unwrap();
    let path = output.join("plan.json");
    let mut plan: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(plan["save_every"], 2);
    plan["save_every"] = 3.into();
    fs::write(&path, plan.to_string()).unwrap();
    assert_eq!(every(&resumed(&with), &train), 3);
    assert_eq!(every(&resumed(&with), &given), 1);
    let longer = TrainOptions { maxsteps: 12, ..train };
    assert_eq!(every(&resumed(&with), &longer), 2);
}

/// Defect 26: the library takes an option that has its default for one that was not set.
#[test]
fn defect_26_the_facade_inherits_too() {
    let here = folder();
    let mut trainer = trainer(&here.path().join("run"));
    trainer.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
    let small = TrainOptions { dim: 128, ..options() };
    assert_eq!(trainer.plan(&small).unwrap().loaded.initialised, Vec::<String>::new(), "dim comes from the projection");
    let error = trainer.with_inherited_settings(false).plan(&small).unwrap_err().to_string();
    assert!(error.contains("set dim = 16"), "{error}");
}

/// Markers, prompts and lengths of the model reach what is planned, trained, written and reported, in both layouts.
#[test]
fn prompts_and_layouts_reach_the_whole_run() {
    let here = folder();
    let train = TrainOptions {
        query_token_id: Some(String::new()),
        doc_token_id: Some("[D]".to_owned()),
        query_prompt: Some("search: ".to_owned()),
        query_expansion_length: Some(12),
        query_maxlen: MODEL_LENGTH,
        ..options()
    };
    for layout in [ExportLayout::All, ExportLayout::SentenceTransformers] {
        let output = here.path().join(format!("{layout:?}"));
        let mut trainer = RagTrainer::from_options(Options {
            pretrained_model_name: tiny_model().to_str().unwrap().to_owned(),
            backend: backend(),
            output: output.clone(),
            export_layout: layout,
            ..Options::default()
        });
        trainer.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
        let every = TrainOptions { query_expansion_length: None, ..train.clone() };
        let error = trainer.plan(&every).unwrap_err().to_string();
        assert!(error.contains("all positions of the encoder"), "{error}");
        assert_eq!(trainer.plan(&train).unwrap().loaded.initialised, ["embeddings of [D]"]);
        let outcome = trainer.train(&train).unwrap();
        let card = std::fs::read_to_string(outcome.best.join("README.md")).unwrap();
        for line in [
            "In front of queries: no marker, the prompt `search: `.",
            "In front of documents: the marker `[D]`, no prompt.",
            "Queries of fewer than 12 tokens are filled up",
            "queries of 512 tokens",
        ] {
            assert!(card.contains(line), "{line}: {card}");
        }
        let said = outcome.not_honoured.join("\n");
        let native = layout == ExportLayout::SentenceTransformers;
        assert_eq!(outcome.best.join("artifact.metadata").exists(), !native);
        assert_eq!(said.contains("PyLate: puts prompts in front of texts only when told to"), !native, "{said}");
        assert_eq!(said.contains("do not read the layout of sentence-transformers"), native, "{said}");
        // The directory says all of it to whoever uses it, this program too.
        let documents: Vec<String> = pairs().into_iter().map(|(_, document)| document).collect();
        let ranked = pretrained(&outcome.best).rerank(&pairs()[0].0, &documents, 3).unwrap();
        assert_eq!(ranked.len(), 3);
        let again = RagTrainer::new("next", outcome.best.to_str().unwrap()).inheritance().unwrap().to_string();
        assert!(again.contains("search: \", taken over") && again.contains("query_expansion_length = 12"), "{again}");
    }
}

/// What the data report advises can be followed: here the encoder has 64 positions and the texts have more tokens.
#[test]
fn advice_about_lengths_can_be_followed() {
    let encoder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../colbert-model/tests/families/roberta");
    let long = "a tor is a rocky hill on a moor and water flows by it ".repeat(6);
    let pairs: Vec<_> = pairs().into_iter().map(|(query, document)| (query, format!("{document} {long}"))).collect();
    let advice = |doc_maxlen: usize| {
        let mut trainer = RagTrainer::from_options(Options {
            pretrained_model_name: encoder.to_str().unwrap().to_owned(),
            backend: backend(),
            train: TrainOptions { doc_maxlen, dim: 16, ..TrainOptions::default() },
            ..Options::default()
        });
        trainer.set_data(RawData::from_pairs(pairs.clone()).unwrap()).unwrap();
        let report = trainer.data_report().unwrap();
        report.findings.iter().find(|finding| finding.name == "truncated_documents").unwrap().fix.clone()
    };
    assert!(advice(32).starts_with("train.doc_maxlen = 64, the most that the encoder takes"), "{}", advice(32));
    assert!(advice(64).contains("into parts") && !advice(64).contains("doc_maxlen"), "{}", advice(64));
}

/// One of two processes, of which the other is not there.
#[derive(Debug)]
struct OneOfTwo;

impl Processes for OneOfTwo {
    fn rank(&self) -> usize {
        1
    }

    fn size(&self) -> usize {
        2
    }

    fn all_gather(&self, _: &[u8]) -> Vec<Vec<u8>> {
        unreachable!("what costs nothing to check needs no other process")
    }

    fn all_to_all(&self, _: &[&[u32]]) -> Vec<Vec<u32>> {
        unreachable!("what costs nothing to check needs no other process")
    }
}

/// A second process may find the folder that the first has made.
#[test]
fn what_a_process_among_others_checks() {
    let here = folder();
    std::fs::create_dir_all(here.path().join("run/best")).unwrap();
    // On a GPU the second process would need a second one.
    let alone = trainer(&here.path().join("run")).with_backend("flex");
    assert!(matches!(alone.check(&[]).unwrap_err(), Error::Train(TrainError::NotARun { .. })));
    alone.clone().with_processes(Arc::new(OneOfTwo)).check(&[]).unwrap();
}

/// Each smaller size has copies of its own of all vectors in memory.
#[test]
fn the_plan_counts_the_sizes_of_vectors() {
    let here = folder();
    let mut trainer = trainer(&here.path().join("run")).with_backend("flex");
    trainer.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
    let memory = |dims: &[usize]| {
        // Large enough for a step to take more than a checkpoint.
        let large = TrainOptions { batch_size: 256, epochs: 100, ..options() };
        let options = TrainOptions { dims: NumberList(dims.to_vec()), ..large };
        trainer.plan(&options).unwrap().plan.memory.unwrap()
    };
    assert_eq!(memory(&[]), memory(&[16]));
    assert!(memory(&[16, 8]) > memory(&[16]) && memory(&[16, 8, 4]) > memory(&[16, 8]));
}

#[test]
fn devices_are_counted_as_the_reference_counts_them() {
    let here = folder();
    let mut trainer = RagTrainer::new("towns", tiny_model().to_str().unwrap())
        .with_backend(backend())
        .with_output(here.path().join("run"), false);
    trainer.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
    for alone in [-1, 0, 1] {
        trainer.clone().with_n_usable_gpus(alone).plan(&options()).unwrap();
    }
    for other in [-2, 2] {
        let error = trainer.clone().with_n_usable_gpus(other).plan(&options()).unwrap_err().to_string();
        assert!(error.contains(&format!("n_usable_gpus is {other}")) && error.contains("has 1 of"), "{error}");
    }
}

#[test]
fn what_nothing_can_be_trained_with_is_refused_with_the_plan() {
    let here = folder();
    let mut trainer = RagTrainer::new("towns", tiny_model().to_str().unwrap())
        .with_backend(backend())
        .with_output(here.path().join("run"), false);
    trainer.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
    let by_labels = TrainOptions { use_ib_negatives: false, ..options() };
    let by_nothing = TrainOptions { cross_entropy_weight: Some(0.0), ..by_labels.clone() };
    trainer.plan(&by_labels).unwrap();
    for error in [trainer.plan(&by_nothing).unwrap_err(), trainer.train(&by_nothing).unwrap_err()] {
        let error = error.to_string();
        assert!(error.contains("no example counts") && error.contains("cross_entropy_weight"), "{error}");
    }
    assert!(!here.path().join("run").exists());
    let with_in_batch = TrainOptions { use_ib_negatives: true, ..by_nothing };
    trainer.plan(&with_in_batch).unwrap();
    // Weights of sources that there are not are told as early.
    let weights = TrainOptions { mix_weights: NumberList(vec![1.0, 2.0]), ..options() };
    for error in [trainer.plan(&weights).unwrap_err(), trainer.train(&weights).unwrap_err()] {
        assert!(error.to_string().contains("2 weights for 1 sources"), "{error}");
    }
    assert!(!here.path().join("run").exists());
}

#[test]
fn an_automatic_learning_rate_follows_the_head() {
    let here = folder();
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart/model");
    for (model, dim, rate, reason) in [
        (tiny_model(), 16, 5e-6, "as training goes on from a trained ColBERT"),
        (plain, 128, 3e-5, "as the head is new"),
    ] {
        let mut trainer = RagTrainer::new("towns", model.to_str().unwrap())
            .with_backend(backend())
            .with_output(here.path().join("run"), false);
        trainer.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
        let automatic = TrainOptions { learning_rate: None, dim, ..options() };
        let plan = trainer.plan(&automatic).unwrap().plan;
        assert_eq!(plan.learning_rate, rate);
        assert!(
            plan.to_string().contains("The learning rate is automatic: ") && plan.to_string().contains(reason),
            "{plan}"
        );
        let fixed = trainer.plan(&TrainOptions { dim, ..options() }).unwrap().plan;
        assert_eq!((fixed.learning_rate, fixed.learning_rate_reason), (5e-6, None));
    }
}

/// Sizes are trained, written, reported, handed down, and used by whoever measures the model with one of them.
#[test]
fn sizes_of_vectors_reach_the_whole_run() {
    let here = folder();
    let beir = BeirFolder::open(&beir_folder(here.path())).unwrap();
    let test = beir.evaluation("test").unwrap();
    let train = TrainOptions { dims: NumberList(vec![16, 8, 4]), ..options() };
    for layout in [ExportLayout::All, ExportLayout::SentenceTransformers] {
        // Where the layout has a word for it, documents are pooled too.
        let pools = layout == ExportLayout::SentenceTransformers;
        let train = TrainOptions { pool_factor: pools.then_some(2.0), ..train.clone() };
        let mut trainer = RagTrainer::from_options(Options {
            pretrained_model_name: tiny_model().to_str().unwrap().to_owned(),
            backend: backend(),
            output: here.path().join(format!("{layout:?}")),
            export_layout: layout,
            ..Options::default()
        });
        trainer.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
        let plan = trainer.plan(&train).unwrap().plan;
        assert!(plan.to_string().contains("The loss is summed over vectors of 16, 8, 4 numbers."), "{plan}");
        let outcome = trainer.train(&train).unwrap();
        let card = fs::read_to_string(outcome.best.join("README.md")).unwrap();
        assert!(card.contains("the first 8 or 4 numbers of each vector"), "{card}");
        assert_eq!(card.contains("pooled to about one in 2"), pools, "{card}");
        if layout == ExportLayout::All {
            let metadata = fs::read_to_string(outcome.best.join("artifact.metadata")).unwrap();
            let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
            assert_eq!(metadata["meta"]["dims"], serde_json::json!([16, 8, 4]));
        }
        let model = pretrained(&outcome.best);
        assert_eq!(model.settings().dims, [16, 8, 4]);
        let text = &pairs()[0].1;
        let whole = pretrained(tiny_model()).document_vectors(&[text]).unwrap().tokens();
        assert_eq!(model.document_vectors(&[text]).unwrap().tokens() < whole, pools);
        let again = RagTrainer::new("next", outcome.best.to_str().unwrap()).inheritance().unwrap().to_string();
        assert!(again.contains("train.dims = [16,8,4], taken over"), "{again}");

        let documents: Vec<String> = (0..12).map(|pid| test.collection.text(pid).to_owned()).collect();
        for dim in [16, 4] {
            let choice = DirectoryChoice { dim: Some(dim), ..DirectoryChoice::default() };
            let measured = evaluate_directory_with(
                &outcome.best,
                &test,
                &EvaluationOptions::default(),
                &choice,
                "en",
                &backend(),
                &mut |_: &Event| Flow::Continue,
            )
            .unwrap();
            let model = pretrained(&outcome.best).with_dim(dim).unwrap();
            for query in &measured.model_queries {
                let hits = model.rerank(test.queries.text(query.qid), &documents, 3).unwrap();
                assert_eq!(hits[0].index, query.first[0] as usize, "{dim}: {hits:?} {query:?}");
            }
        }
        let too_large = DirectoryChoice { dim: Some(17), ..DirectoryChoice::default() };
        let (set, options) = (&test, EvaluationOptions::default());
        let mut ignore = |_: &Event| Flow::Continue;
        let error = evaluate_directory_with(&outcome.best, set, &options, &too_large, "en", &backend(), &mut ignore)
            .unwrap_err();
        assert!(error.to_string().contains("cannot be cut to 17 numbers; expected 1 to 16"), "{error}");
    }
}

/// The recipes name options that there are, and data and models that are in the repository or that another recipe makes.
#[test]
fn recipes_are_option_files_that_can_be_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let files: Vec<_> = std::fs::read_dir(root.join("examples/recipes")).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(files.len() >= 4);
    let read = |file: &std::path::PathBuf| OptionSources::new().file(file).unwrap().build().unwrap();
    let made: BTreeSet<_> = files.iter().map(|file| read(file).output.join("best")).collect();
    for file in &files {
        let options = read(file);
        options.validate().unwrap();
        let model = Path::new(&options.pretrained_model_name);
        assert!(made.contains(model) || root.join(model).is_dir(), "{}: {}", file.display(), model.display());
        for path in &options.data.train.0 {
            assert!(root.join(path).is_dir(), "{}: {}", file.display(), path.display());
        }
    }
}

/// `resume` continues where an observer stopped the run, and ends with the bytes of a run that was not stopped.
#[test]
fn a_stopped_run_is_resumed_by_the_facade() {
    let here = folder();
    let mut stopped = trainer(&here.path().join("a"));
    stopped.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
    let options = TrainOptions { epochs: 3, maxsteps: 6, dropout: Some(0.1), ..options() };
    let mut stop = |event: &Event| match event {
        Event::Step(record) if record.step == 4 => Flow::Stop,
        _ => Flow::Continue,
    };
    let half = stopped.train_observed(&options, &mut stop).unwrap();
    assert_eq!((half.stopped, half.steps), (true, 4));
    let error = stopped.train(&options).unwrap_err().to_string();
    assert!(error.contains("--resume"), "{error}");
    let other = TrainOptions { seed: 1, ..options.clone() };
    let error = resumed(&stopped).train(&other).unwrap_err().to_string();
    assert!(error.contains("train.seed was 12345, is 1"), "{error}");
    let whole = resumed(&stopped).train(&options).unwrap();
    assert_eq!((whole.stopped, whole.steps), (false, 6));

    let mut straight = trainer(&here.path().join("b"));
    straight.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
    let straight = straight.train(&options).unwrap();
    let bytes = |path: &std::path::Path| std::fs::read(path.join("model.safetensors")).unwrap();
    assert_eq!(bytes(&whole.best), bytes(&straight.best));
}

//! The facade, as a downstream crate uses it.

use ragtrainer::config::{EvaluationOptions, TrainOptions};
use ragtrainer::data::{BeirFolder, PrepareOptions, RawData};
use ragtrainer::{Error, RagTrainer};

use crate::support::{beir_folder, folder, pairs, tiny_model};

fn options() -> TrainOptions {
    TrainOptions { batch_size: 4, dim: 16, doc_maxlen: 32, maxsteps: 2, ..TrainOptions::default() }
}

fn trainer(output: &std::path::Path) -> RagTrainer {
    RagTrainer::new("towns", tiny_model().to_str().unwrap()).with_output(output, false)
}

/// Defects 19, 20 and 23 of the list in `docs/parity.md`: training starts from exported data, the folder is the caller's.
#[test]
fn defect_19_exported_data_can_be_taken_up() {
    let here = folder();
    let mut first = trainer(&here.path().join("a"));
    first.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
    first.export_training_data(&here.path().join("data")).unwrap();
    let mut second = trainer(&here.path().join("b"));
    second.load_training_data(&here.path().join("data"), &PrepareOptions::default()).unwrap();
    assert_eq!(second.training_set().unwrap().examples.len(), first.training_set().unwrap().examples.len());
    assert_eq!(second.train(&options()).unwrap().best, here.path().join("b/best"));
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
    let mut trainer = trainer(&here.path().join("run")).with_dev(&dev, choice).unwrap().with_test(test);
    trainer.prepare_training_data(beir.into_raw("train").unwrap(), &PrepareOptions::default()).unwrap();
    let preview = trainer.plan(&options()).unwrap();
    assert_eq!(preview.plan.steps, 2);
    assert!(preview.loaded.initialised.is_empty());
    let outcome = trainer.train(&options()).unwrap();
    assert_eq!((outcome.steps, outcome.stopped), (2, false));
    let [before, after] = outcome.dev.unwrap();
    assert_eq!(before.queries, 5);
    assert!(after.value(outcome.metric) >= before.value(outcome.metric), "the best is never worse than the start");
    let test = outcome.test.unwrap();
    assert_eq!((test.start.queries, test.bm25.documents), (12, 12));
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

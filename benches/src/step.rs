//! A whole optimizer step, as train_step and backends measure it.

use ragtrainer::config::{self, TrainOptions, resolve};
use ragtrainer::model::kernels::{KernelAutodiffBackend, Precision};
use ragtrainer::model::{Colbert, ColbertSettings, PretrainedEncoder, TokenSequence};
use ragtrainer::train::{Batch, ColbertObjective, Step, Update};

use crate::model::{Size, tokenizer, untrained};
use crate::texts::{DOCUMENT_WORDS, WordCount, training_set};
use crate::work::Work;

/// One batch, on which steps are computed.
#[derive(Debug)]
pub struct StepBatch {
    /// The encoder.
    pub size: Size,
    options: TrainOptions,
    batch: Batch,
}

impl StepBatch {
    /// Triples of made-up texts, documents cut at `doc_maxlen` tokens.
    pub fn new(size: Size, batch_size: usize, doc_maxlen: usize) -> Self {
        Self::of(size, batch_size, doc_maxlen, DOCUMENT_WORDS)
    }

    /// Triples whose documents all have `doc_maxlen` tokens.
    pub fn of_full_documents(size: Size, batch_size: usize, doc_maxlen: usize) -> Self {
        let words = WordCount { median: 1.0, sigma: 0.0, minimum: doc_maxlen, maximum: doc_maxlen };
        Self::of(size, batch_size, doc_maxlen, words)
    }

    fn of(size: Size, batch_size: usize, doc_maxlen: usize, of_documents: WordCount) -> Self {
        let options = TrainOptions { batch_size, doc_maxlen, ..TrainOptions::default() };
        let set = training_set(batch_size, of_documents, 3);
        let tokenizer = tokenizer(&ColbertSettings::from(&options));
        let batch = Batch::whole(&set, &tokenizer, &options, 0).expect("triples of known words");
        Self { size, batch, options }
    }

    /// Real tokens of its texts.
    pub fn tokens(&self) -> usize {
        self.batch.tokens()
    }

    /// Texts of the batch, queries first.
    pub fn texts(&self) -> impl Iterator<Item = &TokenSequence> {
        let part = &self.batch.parts[0];
        part.queries.iter().chain(&part.documents)
    }

    /// A description of the batch.
    pub fn shapes(&self) -> String {
        let part = &self.batch.parts[0];
        format!(
            "{:?}, {} queries of {} tokens, {} documents of at most {}, {} tokens in all",
            self.size,
            part.queries.len(),
            self.options.query_maxlen,
            part.documents.len(),
            self.options.doc_maxlen,
            self.tokens()
        )
    }

    /// Operations that a step has to do.
    pub fn work(&self) -> Work {
        Work::of_training(self.texts(), &self.size.sizes(), self.options.dim)
    }
}

/// A model in training, and its optimizer.
#[derive(Debug)]
pub struct Stepper<'a, B: KernelAutodiffBackend> {
    batch: &'a Batch,
    step: Step<'a, B, ColbertObjective>,
    model: Option<Colbert<B, PretrainedEncoder<B>>>,
    device: &'a B::Device,
}

impl<'a, B: KernelAutodiffBackend> Stepper<'a, B> {
    /// A model with random weights.
    pub fn new(batch: &'a StepBatch, dropout: bool, precision: Precision, device: &'a B::Device) -> Self {
        let precision = match precision {
            Precision::F32 => config::Precision::F32,
            Precision::Tf32 => config::Precision::Tf32,
            Precision::Bf16 => config::Precision::Bf16,
            Precision::F16 => config::Precision::F16,
        };
        let options = TrainOptions { precision, ..batch.options.clone() };
        let plan = resolve(&options, options.batch_size).expect("one batch of examples");
        // Any scale that leaves gradients finite: dividing them again is part of a step in float16.
        let step = Step::new(&options, &plan, ColbertObjective::from(&options), device).with_loss_scale(1024.0);
        let model = Some(untrained::<B>(batch.size, options.dim, dropout, device));
        Self { batch: &batch.batch, step, model, device }
    }

    /// Encode, MaxSim, loss, backward, clipping, AdamW; and waits for the device.
    pub fn step(&mut self) {
        let before = self.model.take().expect("the last step gave it back");
        let (after, outcome) = self.step.run(before, self.batch).expect("the device does its work");
        assert_eq!(outcome.update, Update::Applied, "a step that is left out takes less time");
        self.model = Some(after);
        B::sync(self.device).expect("the device answers");
    }
}

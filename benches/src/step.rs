//! A whole optimizer step, as train_step and backends measure it.

use ragtrainer::config::{TrainOptions, resolve};
use ragtrainer::model::kernels::{KernelAutodiffBackend, Precision};
use ragtrainer::model::{Bert, Colbert, ColbertSettings, TokenSequence};
use ragtrainer::train::{
    AdamW, Batch, Batcher, ColbertObjective, GradientPlan, batch_gradients, clip_factor, gradient_norm,
};

use crate::model::{Size, tokenizer, untrained};
use crate::texts::{DOCUMENT_WORDS, WordCount, training_set};
use crate::work::Work;

/// One batch, of which steps are made.
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
        let plan = resolve(&options, set.examples.len()).expect("one batch of examples");
        let tokenizer = tokenizer(&ColbertSettings::from(&options));
        let batch = Batcher::new(&set, &tokenizer, &plan, &options, false).expect("triples").batch(0);
        Self { size, batch: batch.expect("texts of known words"), options }
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

    /// What it is, in words.
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
        Work::of_training(self.texts(), &self.size.config(false), self.options.dim)
    }
}

/// A model on its way, and its optimizer.
#[derive(Debug)]
pub struct Stepper<'a, B: KernelAutodiffBackend> {
    batch: &'a StepBatch,
    objective: ColbertObjective,
    plan: GradientPlan,
    model: Option<Colbert<B, Bert<B>>>,
    optimizer: AdamW<B::InnerBackend>,
    device: &'a B::Device,
}

impl<'a, B: KernelAutodiffBackend> Stepper<'a, B> {
    /// A model with random weights.
    pub fn new(batch: &'a StepBatch, dropout: bool, precision: Precision, device: &'a B::Device) -> Self {
        let options = &batch.options;
        // Any that leaves gradients finite: that they are divided again is part of a step in float16.
        let loss_scale = if precision == Precision::F16 { 1024.0 } else { 1.0 };
        Self {
            batch,
            objective: ColbertObjective::from(options),
            plan: GradientPlan { accumsteps: 1, cached: false, seed: options.seed, precision, loss_scale },
            model: Some(untrained::<B>(batch.size, options.dim, dropout, device)),
            optimizer: AdamW::new(options.weight_decay),
            device,
        }
    }

    /// Encode, MaxSim, loss, backward, clipping, AdamW; and waits for the device.
    pub fn step(&mut self) {
        let options = &self.batch.options;
        let before = self.model.take().expect("the last step gave it back");
        let (_, gradients) = batch_gradients(&before, &self.batch.batch, &self.objective, self.plan, self.device);
        let factor = clip_factor(gradient_norm(&before, &gradients), options.clip_norm);
        self.model = Some(self.optimizer.step(before, gradients, options.learning_rate, factor));
        B::sync(self.device).expect("the device answers");
    }
}

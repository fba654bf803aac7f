//! An encoder of another crate under the ColBERT head: word vectors mixed with those of their neighbours, not
//! pretrained.
//!
//! Shows how to implement [`Encoder`] and hand it to a whole run, which keeps its folder, report and model card:
//!
//!     cargo run --release -p ragtrainer-examples --example custom_encoder
#![expect(clippy::print_stdout, reason = "an example prints for people")]

use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{Embedding, EmbeddingConfig, PaddingConfig1d};
use burn::prelude::*;
use ragtrainer::prelude::*;
use ragtrainer_examples::{DATA, MODEL};

/// `own + tanh(W [left, own, right])`
#[derive(Module, Debug)]
struct WordMix<B: Backend> {
    words: Embedding<B>,
    mix: Conv1d<B>,
}

impl<B: KernelBackend> Encoder<B> for WordMix<B> {
    fn forward(&self, input: &EncoderInput, device: &B::Device) -> Tensor<B, 2> {
        let (ids, attended) = input.padded::<B>(device);
        let own = self.words.forward(ids); // [texts, longest, size]
        // Tokens that are not attended to, and positions beyond the ends of a text, are not neighbours.
        let seen = own.clone() * attended.float().unsqueeze_dim(2);
        input.pack(own + self.mix.forward(seen.swap_dims(1, 2)).swap_dims(1, 2).tanh())
    }

    fn hidden_size(&self) -> usize {
        self.words.weight.dims()[1]
    }
}

struct WordMixEncoder;

impl EncoderBuilder for WordMixEncoder {
    type Encoder<B: KernelAutodiffBackend> = WordMix<B>;

    fn build<B: KernelAutodiffBackend>(&self, from: &Pretrained, device: &B::Device) -> Result<WordMix<B>, ModelError> {
        let size = from.config.hidden_size();
        let mix = Conv1dConfig::new(size, size, 3).with_padding(PaddingConfig1d::Same).init(device);
        Ok(WordMix { words: EmbeddingConfig::new(from.config.vocab_size(), size).init(device), mix })
    }
}

fn main() -> anyhow::Result<()> {
    let trainer = RagTrainer::new("custom-encoder", MODEL).with_output("runs/custom-encoder", true);
    let mut trainer = trainer.with_dev_split(40, EvaluationOptions::default()).with_encoder(WordMixEncoder);
    trainer.prepare_training_data(BeirFolder::open(DATA.as_ref())?.into_raw("train")?, &PrepareOptions::default())?;
    let options =
        TrainOptions { maxsteps: 80, learning_rate: Some(3e-3), dim: 64, doc_maxlen: 96, ..Default::default() };
    println!("{}", trainer.train(&options)?);
    Ok(())
}

//! A custom encoder under the ColBERT head: word vectors mixed with those of their neighbours, not pretrained.
//!
//! Shows how to implement [`Encoder`]; the same loop then trains it, and the loss falls:
//!
//!     cargo run --release -p ragtrainer-examples --example custom_encoder
#![expect(clippy::print_stdout, reason = "an example prints for people")]

use std::path::Path;

use burn::backend::Autodiff;
use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::activation::tanh;
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Int, Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use ragtrainer::config::{TrainOptions, resolve};
use ragtrainer::model::kernels::KernelBackend;
use ragtrainer::model::{Colbert, ColbertSettings, Encoder, EncoderInput, Head, Linear as Projection, Pretrained};
use ragtrainer::train::{Begin, Event, Flow, Training};
use ragtrainer_examples::{MODEL, triples};

/// `own + tanh(W [own, mean of left and right])`
#[derive(Module, Debug)]
struct NeighbourEncoder<B: Backend> {
    words: Embedding<B>,
    mix: Linear<B>,
    hidden_size: usize,
}

impl<B: Backend> NeighbourEncoder<B> {
    fn new(vocabulary: usize, hidden_size: usize, device: &B::Device) -> Self {
        Self {
            words: EmbeddingConfig::new(vocabulary, hidden_size).init(device),
            mix: LinearConfig::new(2 * hidden_size, hidden_size).init(device),
            hidden_size,
        }
    }
}

impl<B: KernelBackend> Encoder<B> for NeighbourEncoder<B> {
    fn forward(&self, input: &EncoderInput, device: &B::Device) -> Tensor<B, 2> {
        let tokens = input.ids.len();
        let ids: Vec<i32> = input.ids.iter().map(|id| *id as i32).collect();
        let ids = Tensor::<B, 2, Int>::from_data(TensorData::new(ids, [1, tokens]), device);
        let own = self.words.forward(ids).squeeze_dim::<2>(0); // [tokens, hidden_size]
        // Texts lie one after the other: a token has no neighbour beyond the ends of its own, nor one that is not attended.
        let (mut has_left, mut has_right) = (vec![0f32; tokens], vec![0f32; tokens]);
        for segment in input.segments.as_slice() {
            for place in 0..segment.length {
                has_left[segment.start + place] = f32::from(place > 0 && place <= segment.attended);
                has_right[segment.start + place] = f32::from(place + 1 < segment.attended);
            }
        }
        let column = |flags| Tensor::<B, 2>::from_data(TensorData::new(flags, [tokens, 1]), device);
        let beyond = Tensor::zeros([1, self.hidden_size], device);
        let left = Tensor::cat(vec![beyond.clone(), own.clone().narrow(0, 0, tokens - 1)], 0) * column(has_left);
        let right = Tensor::cat(vec![own.clone().narrow(0, 1, tokens - 1), beyond], 0) * column(has_right);
        let around = (left + right).div_scalar(2.0);
        own.clone() + tanh(self.mix.forward(Tensor::cat(vec![own, around], 1)))
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn tensor_prefix(&self) -> &'static str {
        "neighbours."
    }
}

type B = Autodiff<Flex>;

fn main() -> anyhow::Result<()> {
    let device = FlexDevice;
    B::seed(&device, 7); // burn draws new parameters from a global generator
    let set = triples()?;
    let options = TrainOptions {
        maxsteps: 80,
        learning_rate: 3e-3, // nothing here is pretrained
        dim: 64,
        doc_maxlen: 96,
        ..TrainOptions::default()
    };
    let plan = resolve(&options, set.examples.len())?;
    let settings = ColbertSettings::from(&options);
    // Only the tokenizer of the quickstart's model is used.
    let pretrained = Pretrained::read(Path::new(MODEL))?;
    let tokenizer = pretrained.tokenizer(&settings)?;
    let encoder = NeighbourEncoder::<B>::new(pretrained.config.vocab_size(), 96, &device);
    let projection = Tensor::random([settings.dim, encoder.hidden_size()], Distribution::Normal(0.0, 0.1), &device);
    let linear = Projection { weight: Param::from_tensor(projection), bias: None };
    let model = Colbert { encoder, head: Head::linear(linear, settings.use_relu) };
    println!("{} parameters\n{plan}", model.num_params());

    let mut losses = Vec::new();
    let mut keep = |event: &Event| {
        if let Event::Step(step) = event {
            losses.push(step.loss);
        }
        Flow::Continue
    };
    let training = Training::new(&set, &tokenizer, &options, &plan, &device).with_observer(&mut keep);
    let trained = training.run(model, Begin::Anew)?;
    for (place, losses) in losses.chunks(10).enumerate() {
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        println!("steps {:2} to {:2}: mean loss {mean:.3}", 10 * place + 1, 10 * place + losses.len());
    }
    println!("{} steps in {:.1} s", trained.steps, trained.training_seconds);
    Ok(())
}

//! Tests of training: against trajectories, losses and gradients recorded from colbert-ai 0.2.22 (see
//! `colbert-model/tests/parity/README.md`), and of properties that must not change a result.

mod accumulation;
mod evaluation;
mod float16;
mod losses;
mod matryoshka;
mod mining;
mod not_finite;
mod objective;
mod processes;
mod recipes;
mod refresh;
mod rehearsal;
mod resume;
mod run;
mod shared_mining;
mod support;
mod trajectories;

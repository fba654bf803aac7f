//! Tests of the public operators: values and gradients against double precision, the same bits on every run and thread
//! count.

mod biased;
mod exact;
mod float16;
mod gradients;
mod same_bits;
mod sublayers;
mod support;
mod windows;

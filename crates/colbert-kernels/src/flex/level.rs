//! The instructions of the processor, and functions compiled for each kind.

/// A kind of processor that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// AVX-512: F, BW, DQ, VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// The instructions that every processor has.
    Portable,
}

impl Level {
    /// Returns the best of [`available`](Self::available).
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if Self::has_avx512() {
                return Self::Avx512;
            }
            if Self::has_avx2() {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// Lists the levels that this processor can run.
    #[cfg(test)]
    pub(crate) fn available() -> Vec<Self> {
        let mut levels = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            levels.extend(Self::has_avx2().then_some(Self::Avx2));
            levels.extend(Self::has_avx512().then_some(Self::Avx512));
        }
        levels
    }

    /// Returns whether it has products of bfloat16 (AVX-512 BF16).
    pub(crate) fn has_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Avx512 {
            return is_x86_feature_detected!("avx512bf16");
        }
        false
    }

    #[cfg(target_arch = "x86_64")]
    fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    #[cfg(target_arch = "x86_64")]
    fn has_avx512() -> bool {
        Self::has_avx2()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
    }
}

/// Defines a function that runs `$body` compiled for the level that is its first argument.
///
/// `$body` is an `#[inline(always)]` function with a parameter `const FUSED: bool`: whether a fused multiply-add is one
/// instruction. Its loops are left to the compiler to vectorise.
macro_rules! for_each_level {
    ($(#[$meta:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $body:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name(level: $crate::flex::level::Level, $($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512($($arg: $type),*) $(-> $result)? {
                $body::<true>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) $(-> $result)? {
                $body::<true>($($arg),*)
            }
            match level {
                // SAFETY: `Level::detect` and `Level::available` give this level only where the processor has it.
                #[cfg(target_arch = "x86_64")]
                $crate::flex::level::Level::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::flex::level::Level::Avx2 => unsafe { avx2($($arg),*) },
                $crate::flex::level::Level::Portable => $body::<false>($($arg),*),
            }
        }
    };
}
pub(crate) use for_each_level;

/// Computes `a * b + c`, in one instruction where there is one.
#[inline(always)]
pub(crate) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Partial sums that a reduction keeps, so that it can be vectorised.
const LANES: usize = 16;

/// Sums `f(i)` for i below `count`, always in the same order.
#[inline(always)]
pub(crate) fn sum(count: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut partial = [0.0; LANES];
    let whole = count - count % LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, partial) in partial.iter_mut().enumerate() {
            *partial += f(start + lane);
        }
    }
    for (lane, i) in (whole..count).enumerate() {
        partial[lane] += f(i);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            partial[lane] += partial[lane + width];
        }
        width /= 2;
    }
    partial[0]
}

/// Returns the largest of `values`; negative infinity if there are none.
#[inline(always)]
pub(crate) fn largest(values: &[f32]) -> f32 {
    let mut partial = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (most, value) in partial.iter_mut().zip(chunk) {
            *most = if *value > *most { *value } else { *most };
        }
    }
    for (most, value) in partial.iter_mut().zip(rest) {
        *most = if *value > *most { *value } else { *most };
    }
    partial.into_iter().fold(f32::NEG_INFINITY, |most, value| if value > most { value } else { most })
}

/// Computes `e^x` for x at most 0 (and up to 88), with a relative error below 2e-7; 0 below -87.
///
/// 2^n times a polynomial on half an octave either side of 0; the coefficients are those of the Taylor series.
#[inline(always)]
pub(crate) fn exp<const FUSED: bool>(x: f32) -> f32 {
    /// Adding and subtracting this rounds to a whole number: 1.5 * 2^23.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 = HIGH + LOW, HIGH with few enough bits that its product with n is exact.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > -87.0 { x } else { -87.0 };
    let n = multiply_add::<FUSED>(clamped, std::f32::consts::LOG2_E, ROUND) - ROUND;
    let f = multiply_add::<FUSED>(n, -LOW, multiply_add::<FUSED>(n, -HIGH, clamped));
    let p = multiply_add::<FUSED>(f, 1.0 / 720.0, 1.0 / 120.0);
    let p = multiply_add::<FUSED>(p, f, 1.0 / 24.0);
    let p = multiply_add::<FUSED>(p, f, 1.0 / 6.0);
    let p = multiply_add::<FUSED>(p, f, 0.5);
    let p = multiply_add::<FUSED>(p, f, 1.0);
    let p = multiply_add::<FUSED>(p, f, 1.0);
    // SAFETY: n is between -126 and 127, so it fits an i32. (The checked conversion does not vectorise as well.)
    let n = unsafe { n.to_int_unchecked::<i32>() };
    let value = p * f32::from_bits(((n + 127) << 23) as u32);
    if x > -87.0 { value } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative error of the exponential.
    const EXP_ERROR: f64 = 3e-7;

    #[test]
    fn exponentials_sums_and_maxima_are_those_of_f64() {
        for i in 0..=80_000 {
            let x = -(i as f32) / 1000.0;
            let exact = f64::from(x).exp();
            for found in [exp::<true>(x), exp::<false>(x)] {
                assert!((f64::from(found) - exact).abs() <= EXP_ERROR * exact, "exp({x}) = {found}");
            }
        }
        assert_eq!(exp::<true>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp::<true>(0.0), 1.0);
        for count in [0, 1, 15, 16, 17, 100] {
            let values: Vec<f32> = (0..count).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
            assert_eq!(sum(count, |i| values[i]), values.iter().sum::<f32>());
            assert_eq!(largest(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}

// Tensor cores' matrices: lane 0 of a warp holds all numbers and computes. Its units wait for each other where they load
// or store a matrix, as a warp does in practice; those of a strict kernel do not, as PTX orders memory between them only
// at a barrier.
#pragma once
#include <cuda_runtime.h>

namespace nvcuda::wmma {
struct row_major {};
struct col_major {};
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32 {};
} // namespace precision

// Rounds to nearest, ties away from zero.
inline float __float_to_tf32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7f800000) != 0x7f800000) bits = (bits + 0x1000) & 0xffffe000;
    memcpy(&x, &bits, 4);
    return x;
}

template <class T> struct stored {
    using type = T;
};
template <> struct stored<precision::tf32> {
    using type = float;
};

template <class Use, int m, int n, int k, class T, class Layout = void> struct fragment {
    static constexpr int rows = std::is_same_v<Use, matrix_b> ? k : m;
    static constexpr int columns = std::is_same_v<Use, matrix_a> ? k : n;
    static constexpr int num_elements = rows * columns;
    typename stored<T>::type x[num_elements];
};

inline bool leads() { return current % 32 == 0; }

inline void wait_for_lanes(int line) {
    if (!strict) wait(Waits::for_warp, line);
}

template <class F, class V> void fill_fragment(F &to, V value) {
    if (leads())
        for (auto &x : to.x) x = value;
}

template <class F, class V> void load(F &to, const V *from, unsigned stride, bool by_rows) {
    wait_for_lanes(-3);
    if (leads())
        for (int i = 0; i < F::rows; i++)
            for (int j = 0; j < F::columns; j++)
                to.x[i * F::columns + j] = by_rows ? from[i * stride + j] : from[j * stride + i];
}
template <class Use, int m, int n, int k, class T, class Layout, class V>
void load_matrix_sync(fragment<Use, m, n, k, T, Layout> &to, const V *from, unsigned stride) {
    load(to, from, stride, std::is_same_v<Layout, row_major>);
}
template <class F, class V> void load_matrix_sync(F &to, const V *from, unsigned stride, layout_t layout) {
    load(to, from, stride, layout == mem_row_major);
}

template <class V, class F> void store_matrix_sync(V *to, const F &from, unsigned stride, layout_t layout) {
    // All lanes have read what was there before.
    wait_for_lanes(-5);
    if (leads())
        for (int i = 0; i < F::rows; i++)
            for (int j = 0; j < F::columns; j++)
                (layout == mem_row_major ? to[i * stride + j] : to[j * stride + i]) = from.x[i * F::columns + j];
    wait_for_lanes(-4);
}

template <class D, class A, class B, class C> void mma_sync(D &to, const A &a, const B &b, const C &c) {
    if (!leads()) return;
    D sums;
    for (int i = 0; i < D::rows; i++)
        for (int j = 0; j < D::columns; j++) {
            float sum = (float)c.x[i * D::columns + j];
            for (int l = 0; l < A::columns; l++)
                sum += (float)a.x[i * A::columns + l] * (float)b.x[l * B::columns + j];
            sums.x[i * D::columns + j] = sum;
        }
    to = sums;
}
} // namespace nvcuda::wmma

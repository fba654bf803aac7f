// What CubeCL's CUDA kernels use of CUDA C++, for the machine's own processor. Units of a cube run one after the other
// until the next barrier, on stacks of their own.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __grid_constant__
#define __launch_bounds__(units)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __forceinline__ inline __attribute__((always_inline))

using std::abs, std::ceil, std::cos, std::erf, std::exp, std::floor, std::fma, std::isinf, std::isnan, std::log,
    std::log1p, std::pow, std::round, std::rint, std::sin, std::sqrt, std::tan, std::tanh, std::trunc;

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
};

inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }

static uint3 blockIdx, threadIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
// As CUDA's fmin and fmax: the one that is a number.
template <> inline float min(float a, float b) { return std::fmin(a, b); }
template <> inline float max(float a, float b) { return std::fmax(a, b); }
// As CUDA computes it: the product is rounded.
inline float __expf(float x) { return std::exp2(x * 1.44269504f); }
inline float __logf(float x) { return std::log(x); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __frsqrt_rn(float x) { return 1.0f / std::sqrt(x); }
inline float rsqrt(float x) { return 1.0f / std::sqrt(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (uint64_t)a * b >> 32; }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }

// Units run one at a time.
template <class T, class U> T atomicAdd(T *at, U by) {
    T before = *at;
    *at = before + (T)by;
    return before;
}
template <class T, class U> T atomicMax(T *at, U with) {
    T before = *at;
    if (before < (T)with) *at = with;
    return before;
}
template <class T, class U> T atomicMin(T *at, U with) {
    T before = *at;
    if ((T)with < before) *at = with;
    return before;
}
template <class T, class U> T atomicExch(T *at, U with) {
    T before = *at;
    *at = with;
    return before;
}

// Stacks of units.
enum class Waits { no, for_warp, for_cube, done };
struct Unit {
    void *stack_pointer;
    char *stack;
    Waits waits;
    int line;
    uint3 index;
    uint64_t given;
};
static const unsigned MOST = 1024, STACK = 1 << 16;
static Unit units[MOST];
static unsigned count, current;
// Whether a warp's units wait for each other at barriers alone (mma.h).
static bool strict;
static void *scheduler;
static void (*body)(void **);
static void **arguments;

extern "C" void switch_stacks(void **from, void *to);
asm(R"(
.text
.local switch_stacks
.type switch_stacks, @function
switch_stacks:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");

inline void wait(Waits what, int line) {
    Unit &own = units[current];
    own.waits = what;
    own.line = line;
    switch_stacks(&own.stack_pointer, scheduler);
}

#define __syncthreads() wait(Waits::for_cube, __LINE__)
#define __syncwarp() wait(Waits::for_warp, __LINE__)
inline void __threadfence() {}

template <class T> T exchange(T value, unsigned lane, bool inside) {
    static_assert(sizeof(T) <= 8);
    Unit &own = units[current];
    memcpy(&own.given, &value, sizeof value);
    wait(Waits::for_warp, -1);
    unsigned other = current / 32 * 32 + lane;
    if (inside && other < count) memcpy(&value, &units[other].given, sizeof value);
    wait(Waits::for_warp, -2);
    return value;
}
template <class T> T __shfl_sync(unsigned, T value, int lane) { return exchange(value, lane & 31, true); }
template <class T> T __shfl_xor_sync(unsigned, T value, int by) { return exchange(value, (current & 31) ^ by, true); }
template <class T> T __shfl_up_sync(unsigned, T value, unsigned by) {
    return exchange(value, (current & 31) - by, (current & 31) >= by);
}
template <class T> T __shfl_down_sync(unsigned, T value, unsigned by) {
    return exchange(value, (current & 31) + by, (current & 31) + by < 32);
}

static void start() {
    body(arguments);
    wait(Waits::done, 0);
}

static void fail(const char *reason, int one, int other) {
    fprintf(stderr, "%s: %s (lines %d and %d)\n", __FILE__, reason, one, other);
    abort();
}

static void resume(unsigned unit) {
    current = unit;
    threadIdx = units[unit].index;
    units[unit].waits = Waits::no;
    switch_stacks(&scheduler, units[unit].stack_pointer);
}

// Runs the units of a warp until each waits for the cube or is done.
static void run_warp(unsigned first, unsigned end, bool backwards) {
    bool more = true;
    while (more) {
        for (unsigned i = first; i < end; i++) {
            unsigned unit = backwards ? first + end - 1 - i : i;
            if (units[unit].waits == Waits::no || units[unit].waits == Waits::for_warp) resume(unit);
        }
        more = false;
        for (unsigned unit = first; unit < end; unit++) more |= units[unit].waits == Waits::for_warp;
    }
}

static void run_cube(bool backwards) {
    for (unsigned unit = 0; unit < count; unit++) {
        Unit &own = units[unit];
        if (!own.stack) own.stack = (char *)aligned_alloc(64, STACK);
        // Six registers, the place to return to, and what lies above a called function's.
        void **top = (void **)(own.stack + STACK) - 2;
        *--top = nullptr;
        *--top = (void *)start;
        top -= 6;
        memset(top, 0, 6 * sizeof *top);
        own.stack_pointer = top;
        own.waits = Waits::no;
    }
    for (bool more = true; more;) {
        unsigned warps = (count + 31) / 32;
        for (unsigned i = 0; i < warps; i++) {
            unsigned first = (backwards ? warps - 1 - i : i) * 32;
            run_warp(first, first + 32 < count ? first + 32 : count, backwards);
        }
        more = false;
        int line = 0;
        for (unsigned unit = 0; unit < count; unit++) {
            Unit &own = units[unit];
            if (own.waits == Waits::done) continue;
            if (more && own.line != line) fail("units wait at different barriers", line, own.line);
            more = true;
            line = own.line;
            own.waits = Waits::no;
        }
    }
}

extern unsigned char dynamic_shared_mem[];
static const size_t SHARED = 232448;

template <class... A, size_t... I> void call(void (*kernel)(A...), void **from, std::index_sequence<I...>) {
    kernel(*(std::remove_cv_t<A> *)from[I]...);
}
template <class... A> void call(void (*kernel)(A...), void **from) {
    call(kernel, from, std::index_sequence_for<A...>{});
}

static void run_grid(const char *name, void (*kernel)(void **), void **from, const unsigned *counts, const unsigned *sizes,
                     unsigned char *shared) {
    body = kernel;
    arguments = from;
    gridDim = {counts[0], counts[1], counts[2]};
    blockDim = {sizes[0], sizes[1], sizes[2]};
    count = sizes[0] * sizes[1] * sizes[2];
    bool backwards = getenv("CUDA_STAND_IN_BACKWARDS");
    const char *named = getenv("CUDA_STAND_IN_STRICT");
    strict = named && strstr(name, named);
    unsigned unit = 0;
    for (unsigned z = 0; z < sizes[2]; z++)
        for (unsigned y = 0; y < sizes[1]; y++)
            for (unsigned x = 0; x < sizes[0]; x++) units[unit++].index = {x, y, z};
    for (unsigned z = 0; z < counts[2]; z++)
        for (unsigned y = 0; y < counts[1]; y++)
            for (unsigned x = 0; x < counts[0]; x++) {
                blockIdx = {x, y, z};
                // Shared memory is not set: NaN as float32.
                if (shared) memset(shared, 0xff, SHARED);
                run_cube(backwards);
            }
}

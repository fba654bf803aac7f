// bfloat16, computed in float32.
#pragma once
#include <cuda_runtime.h>

struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>> __nv_bfloat16(T value) {
        float x = value;
        uint32_t all;
        memcpy(&all, &x, 4);
        // To nearest, ties to even; NaN stays NaN.
        bits = x == x ? (all + 0x7fff + (all >> 16 & 1)) >> 16 : 0x7fff;
    }
    operator float() const {
        uint32_t all = (uint32_t)bits << 16;
        float x;
        memcpy(&x, &all, 4);
        return x;
    }
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
inline __nv_bfloat16 __hmax(__nv_bfloat16 a, __nv_bfloat16 b) { return std::fmax((float)a, (float)b); }
inline __nv_bfloat16 __hmin(__nv_bfloat16 a, __nv_bfloat16 b) { return std::fmin((float)a, (float)b); }

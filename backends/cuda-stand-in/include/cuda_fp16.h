// float16.
#pragma once
#include <cuda_runtime.h>

typedef _Float16 __half;
struct alignas(4) __half2 {
    __half x, y;
};
inline __half __hmax(__half a, __half b) { return std::fmax((float)a, (float)b); }
inline __half __hmin(__half a, __half b) { return std::fmin((float)a, (float)b); }

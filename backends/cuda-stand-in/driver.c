// A stand-in for NVIDIA's driver on a machine without a GPU: what CubeCL asks of libcuda, on the machine's memory. It
// accepts the code that NVRTC made and checks every launch against the limits of the device that it pretends to be, but
// computes nothing, so numbers that are read back are arbitrary. With a stand-in for NVRTC (nvrtc.c), the code is the
// machine's own, and kernels run.
//
//   CUDA_STAND_IN_CAPABILITY   compute capability, 80 by default
//   CUDA_STAND_IN_MEMORY       bytes of memory, 16 GiB by default
//   CUDA_STAND_IN_DEVICES      number of devices, 1 by default
//   CUDA_STAND_IN_FOLDER       a folder that receives each module, and a list of launches
#include <cuda.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHARED_A100 166912
#define SHARED_H100 232448
#define MOST_DEVICES 64

struct module {
    void *library;
};

struct function {
    char name[256];
    int shared;
    // Of code for this machine only.
    void (*run)(void **arguments, const unsigned *counts, const unsigned *sizes);
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t used;
static int modules;

static long number(const char *name, long otherwise) {
    const char *value = getenv(name);
    return value ? atol(value) : otherwise;
}

static size_t memory(void) { return (size_t)number("CUDA_STAND_IN_MEMORY", 1L << 34); }

static int shared_limit(void) { return number("CUDA_STAND_IN_CAPABILITY", 80) >= 90 ? SHARED_H100 : SHARED_A100; }

// Writes a line to a file of the folder, if there is one.
static void note(const char *file, const char *line) {
    const char *folder = getenv("CUDA_STAND_IN_FOLDER");
    if (!folder) return;
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *to = fopen(path, "a");
    if (!to) return;
    fprintf(to, "%s\n", line);
    fclose(to);
}

CUresult cuInit(unsigned flags) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) { *version = 13000; return CUDA_SUCCESS; }

static int devices(void) {
    long asked = number("CUDA_STAND_IN_DEVICES", 1);
    return asked < MOST_DEVICES ? (int)asked : MOST_DEVICES;
}

CUresult cuDeviceGetCount(int *count) { *count = devices(); return CUDA_SUCCESS; }

CUresult cuDeviceGet(CUdevice *device, int index) {
    *device = index;
    return index >= 0 && index < devices() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice device) {
    long capability = number("CUDA_STAND_IN_CAPABILITY", 80);
    switch (which) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = capability / 10; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = capability % 10; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = shared_limit(); break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: *value = 64; break;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: *value = 0x7fffffff; break;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y: *value = 65535; break;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: *value = 65535; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 108; break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: *value = 1; break;
    case CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID: *value = device + 1; break;
    case CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID: *value = 0; break;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) { *bytes = memory(); return CUDA_SUCCESS; }
CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
    *total = memory();
    *free = *total - used;
    return CUDA_SUCCESS;
}

static _Thread_local CUcontext current;
static char contexts[MOST_DEVICES];
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    *context = (CUcontext)&contexts[device];
    return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice *device) {
    *device = current ? (CUdevice)((char *)current - contexts) : 0;
    return current ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) { return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) { current = context; return CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext *context) { *context = current; return CUDA_SUCCESS; }

// Blocks begin with their size, 512 bytes before what the caller gets.
CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes) {
    pthread_mutex_lock(&lock);
    if (used + bytes > memory()) {
        pthread_mutex_unlock(&lock);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    char *block;
    if (posix_memalign((void **)&block, 512, bytes + 512)) {
        pthread_mutex_unlock(&lock);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    used += bytes;
    pthread_mutex_unlock(&lock);
    *(size_t *)block = bytes;
    *pointer = (CUdeviceptr)(block + 512);
    return CUDA_SUCCESS;
}

CUresult cuMemFree_v2(CUdeviceptr pointer) {
    char *block = (char *)pointer - 512;
    pthread_mutex_lock(&lock);
    used -= *(size_t *)block;
    pthread_mutex_unlock(&lock);
    free(block);
    return CUDA_SUCCESS;
}

CUresult cuMemAllocAsync(CUdeviceptr *pointer, size_t bytes, CUstream stream) { return cuMemAlloc_v2(pointer, bytes); }
CUresult cuMemFreeAsync(CUdeviceptr pointer, CUstream stream) { return cuMemFree_v2(pointer); }
CUresult cuMemAllocHost_v2(void **pointer, size_t bytes) {
    return posix_memalign(pointer, 512, bytes ? bytes : 1) ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}
CUresult cuMemFreeHost(void *pointer) { free(pointer); return CUDA_SUCCESS; }

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    memcpy((void *)to, from, bytes);
    return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    memcpy(to, (const void *)from, bytes);
    return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    memcpy((void *)to, (const void *)from, bytes);
    return CUDA_SUCCESS;
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
    memset((void *)to, value, bytes);
    return CUDA_SUCCESS;
}
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *copy, CUstream stream) {
    const char *from = copy->srcMemoryType == CU_MEMORYTYPE_HOST ? copy->srcHost : (const char *)copy->srcDevice;
    char *to = copy->dstMemoryType == CU_MEMORYTYPE_HOST ? copy->dstHost : (char *)copy->dstDevice;
    for (size_t row = 0; row < copy->Height; row++) {
        memcpy(to + (copy->dstY + row) * copy->dstPitch + copy->dstXInBytes,
               from + (copy->srcY + row) * copy->srcPitch + copy->srcXInBytes, copy->WidthInBytes);
    }
    return CUDA_SUCCESS;
}

// All work is done when it is asked for, but for that of the stand-in for NCCL (nccl.c): it is done when its stream is
// waited for, or an event of it recorded.
struct work {
    int (*perform)(void *);
    void *given;
};
struct CUstream_st {
    struct work work[16];
    int count;
};
int stand_in_enqueue(CUstream stream, int (*perform)(void *), void *given) {
    if (!stream || stream->count == 16) return 1;
    stream->work[stream->count++] = (struct work){perform, given};
    return 0;
}
CUresult cuStreamSynchronize(CUstream stream) {
    int failed = 0, count = stream ? stream->count : 0;
    if (stream) stream->count = 0;
    for (int place = 0; place < count; place++) failed |= stream->work[place].perform(stream->work[place].given);
    return failed ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS;
}
CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
    *stream = calloc(1, sizeof **stream);
    return CUDA_SUCCESS;
}
CUresult cuStreamDestroy_v2(CUstream stream) {
    CUresult result = cuStreamSynchronize(stream);
    free(stream);
    return result;
}
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) { return CUDA_SUCCESS; }
CUresult cuCtxSynchronize(void) { return CUDA_SUCCESS; }
CUresult cuEventCreate(CUevent *event, unsigned flags) { *event = malloc(1); return CUDA_SUCCESS; }
CUresult cuEventRecord(CUevent event, CUstream stream) { return cuStreamSynchronize(stream); }
CUresult cuEventSynchronize(CUevent event) { return CUDA_SUCCESS; }
CUresult cuEventDestroy_v2(CUevent event) { free(event); return CUDA_SUCCESS; }

static const char *message(CUresult result) {
    switch (result) {
    case CUDA_SUCCESS: return "CUDA_SUCCESS";
    case CUDA_ERROR_OUT_OF_MEMORY: return "CUDA_ERROR_OUT_OF_MEMORY";
    case CUDA_ERROR_INVALID_DEVICE: return "CUDA_ERROR_INVALID_DEVICE";
    case CUDA_ERROR_INVALID_IMAGE: return "CUDA_ERROR_INVALID_IMAGE";
    case CUDA_ERROR_NOT_FOUND: return "CUDA_ERROR_NOT_FOUND";
    case CUDA_ERROR_INVALID_CONTEXT: return "CUDA_ERROR_INVALID_CONTEXT";
    case CUDA_ERROR_LAUNCH_FAILED: return "CUDA_ERROR_LAUNCH_FAILED";
    default: return "CUDA_ERROR_INVALID_VALUE";
    }
}
CUresult cuGetErrorName(CUresult result, const char **name) { *name = message(result); return CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult result, const char **text) { *text = message(result); return CUDA_SUCCESS; }

// PTX begins with a comment or a directive; the stand-in for NVRTC gives the path of a library.
CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    struct module *own = calloc(1, sizeof *own);
    const char *text = image;
    if (text[0] == '/' && text[1] != '/') {
        own->library = dlopen(text, RTLD_NOW | RTLD_LOCAL);
        if (!own->library) {
            fprintf(stderr, "%s\n", dlerror());
            return CUDA_ERROR_INVALID_IMAGE;
        }
    } else if (!strstr(text, ".entry")) {
        return CUDA_ERROR_INVALID_IMAGE;
    }
    char name[32];
    pthread_mutex_lock(&lock);
    snprintf(name, sizeof name, "%05d.ptx", modules++);
    pthread_mutex_unlock(&lock);
    note(name, text);
    *module = (CUmodule)own;
    return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    struct function *own = calloc(1, sizeof *own);
    snprintf(own->name, sizeof own->name, "%s", name);
    void *library = ((struct module *)module)->library;
    if (library) {
        own->run = (void (*)(void **, const unsigned *, const unsigned *))dlsym(library, "run_kernel");
        if (!own->run) return CUDA_ERROR_NOT_FOUND;
    }
    *function = (CUfunction)own;
    return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute which, int value) {
    if (which == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES && value > shared_limit()) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    ((struct function *)function)->shared = value;
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned units_x, unsigned units_y,
                        unsigned units_z, unsigned shared, CUstream stream, void **arguments, void **extra) {
    struct function *own = (struct function *)function;
    char line[512];
    snprintf(line, sizeof line, "%s %u %u %u units %u %u %u shared %u", own->name, x, y, z, units_x, units_y, units_z,
             shared);
    note("launches", line);
    int fits = x && y && z && x <= 0x7fffffff && y <= 65535 && z <= 65535 && units_x && units_y && units_z &&
               units_x <= 1024 && units_y <= 1024 && units_z <= 64 &&
               (size_t)units_x * units_y * units_z <= 1024 && (int)shared <= own->shared;
    if (!fits) return CUDA_ERROR_INVALID_VALUE;
    if (own->run) {
        pthread_mutex_lock(&lock);
        own->run(arguments, (unsigned[]){x, y, z}, (unsigned[]){units_x, units_y, units_z});
        pthread_mutex_unlock(&lock);
    }
    return CUDA_SUCCESS;
}

// NVRTC asks for it where there is a driver. There is no table here.
CUresult cuGetExportTable(const void **table, const CUuuid *id) { return CUDA_ERROR_NOT_FOUND; }

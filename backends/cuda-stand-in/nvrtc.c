// A stand-in for NVRTC that compiles kernels for the machine's own processor, with the C++ compiler in CXX, c++ by
// default. The "PTX" is the path of a library, which the stand-in for the driver (driver.c) loads.
//
//   CUDA_STAND_IN_INCLUDE   the folder of include/cuda_runtime.h
//   CUDA_STAND_IN_CACHE     a folder for sources and libraries
//   CUDA_STAND_IN_NVRTC     the path of the real library: it compiles every kernel first, with CubeCL's options, and a
//                           kernel that it refuses is refused
//   CUDA_STAND_IN_FOLDER    a folder that receives the registers and shared memory of each kernel, as NVRTC reports them
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, COMPILATION = 6 };

struct program {
    char *source;
    char path[4096];
    char log[4096];
};

int nvrtcVersion(int *major, int *minor) { *major = 13; *minor = 0; return SUCCESS; }
const char *nvrtcGetErrorString(int result) { return result == SUCCESS ? "NVRTC_SUCCESS" : "NVRTC_ERROR_COMPILATION"; }

int nvrtcCreateProgram(struct program **program, const char *source, const char *name, int headers,
                       const char *const *texts, const char *const *names) {
    *program = calloc(1, sizeof **program);
    (*program)->source = strdup(source);
    return SUCCESS;
}

int nvrtcDestroyProgram(struct program **program) {
    free((*program)->source);
    free(*program);
    return SUCCESS;
}

// Compiles with the real library; returns whether it accepts the source.
static int accepted(struct program *program, const char *kernel, int count, const char *const *options) {
    const char *path = getenv("CUDA_STAND_IN_NVRTC"), *folder = getenv("CUDA_STAND_IN_FOLDER");
    if (!path) return 1;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(program->log, sizeof program->log, "%s", dlerror());
        return 0;
    }
    int (*create)(void **, const char *, const char *, int, void *, void *) = dlsym(library, "nvrtcCreateProgram");
    int (*compile)(void *, int, const char *const *) = dlsym(library, "nvrtcCompileProgram");
    int (*log_size)(void *, size_t *) = dlsym(library, "nvrtcGetProgramLogSize");
    int (*get_log)(void *, char *) = dlsym(library, "nvrtcGetProgramLog");
    int (*destroy)(void **) = dlsym(library, "nvrtcDestroyProgram");
    void *real;
    const char *all[32];
    int last = 0;
    while (last < count && last < 30) all[last] = options[last], last++;
    all[last++] = "--ptxas-options=-v";
    create(&real, program->source, NULL, 0, NULL, NULL);
    int result = compile(real, last, all);
    size_t bytes = 0;
    log_size(real, &bytes);
    char *log = calloc(1, bytes + 1);
    get_log(real, log);
    destroy(&real);
    snprintf(program->log, sizeof program->log, "%s", log);
    if (folder) {
        char name[4200];
        snprintf(name, sizeof name, "%s/nvrtc", folder);
        FILE *to = fopen(name, "a");
        if (to) {
            fprintf(to, "== %s %s %s\n%s\n", kernel, options[0], result == SUCCESS ? "compiled" : "REFUSED", log);
            fclose(to);
        }
    }
    free(log);
    return result == SUCCESS;
}

int nvrtcCompileProgram(struct program *program, int count, const char *const *options) {
    unsigned long hash = 1469598103934665603ul;
    for (const char *at = program->source; *at; at++) hash = (hash ^ (unsigned char)*at) * 1099511628211ul;
    const char *cache = getenv("CUDA_STAND_IN_CACHE"), *include = getenv("CUDA_STAND_IN_INCLUDE");
    const char *compiler = getenv("CXX");
    if (!cache || !include) {
        snprintf(program->log, sizeof program->log, "CUDA_STAND_IN_CACHE and CUDA_STAND_IN_INCLUDE name no folders");
        return COMPILATION;
    }
    snprintf(program->path, sizeof program->path, "%s/%016lx.so", cache, hash);
    // The kernel's name is between its launch bounds and its parameters.
    const char *start = strstr(program->source, "__launch_bounds__(");
    start = start ? strchr(start, ')') + 1 : program->source;
    const char *end = strchr(start, '(');
    char name[256] = "", text[4200], command[32768];
    for (const char *at = start; end && at < end; at++) {
        if (*at != ' ' && *at != '\n') strncat(name, at, 1);
    }
    if (!accepted(program, name, count, options)) return COMPILATION;
    if (access(program->path, R_OK) == 0) return SUCCESS;
    // Several processes, and threads of each, may compile the same kernel: each writes files of its own.
    static _Atomic int compiled;
    snprintf(text, sizeof text, "%s/%016lx-%d-%d.cpp", cache, hash, getpid(), compiled++);
    FILE *to = fopen(text, "w");
    if (!to) return COMPILATION;
    int shared = strstr(program->source, "dynamic_shared_mem") != NULL;
    fprintf(to, "%s\n\n%s\nstatic void unit(void **from) { call(%s, from); }\n", program->source,
            shared ? "alignas(1024) unsigned char dynamic_shared_mem[SHARED];" : "", name);
    fprintf(to, "extern \"C\" void run_kernel(void **from, const unsigned *counts, const unsigned *sizes) {\n"
                "    run_grid(\"%s\", unit, from, counts, sizes, %s);\n}\n",
            name, shared ? "dynamic_shared_mem" : "nullptr");
    fclose(to);
    snprintf(command, sizeof command,
             "%s -std=c++20 -O1 -fno-strict-aliasing -w -shared -fPIC -I'%s' '%s' -o '%s.part' >'%s.log' 2>&1 &&"
             " mv '%s.part' '%s'",
             compiler ? compiler : "c++", include, text, text, text, text, program->path);
    if (system(command) == 0) return SUCCESS;
    snprintf(command, sizeof command, "%s.log", text);
    FILE *from = fopen(command, "r");
    size_t read = from ? fread(program->log, 1, sizeof program->log - 1, from) : 0;
    program->log[read] = 0;
    if (from) fclose(from);
    return COMPILATION;
}

int nvrtcGetPTXSize(struct program *program, size_t *bytes) { *bytes = strlen(program->path) + 1; return SUCCESS; }
int nvrtcGetPTX(struct program *program, char *text) { strcpy(text, program->path); return SUCCESS; }
int nvrtcGetProgramLogSize(struct program *program, size_t *bytes) {
    *bytes = strlen(program->log) + 1;
    return SUCCESS;
}
int nvrtcGetProgramLog(struct program *program, char *text) { strcpy(text, program->log); return SUCCESS; }

// A stand-in for NCCL, between processes or threads of this machine, over Unix sockets; the stand-in for the driver
// (driver.c) must be loaded. It is stricter than NCCL where that would wait without end or read past a buffer: sends and
// receives are refused outside a group, and a message of another kind, type or length than is expected is an error. As
// on a GPU, nothing is exchanged before the stream is waited for; until then, what is received is NaN.
//
//   NCCL_STAND_IN_VERSION   the version that is told, 22703 by default
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, UNHANDLED_CUDA = 1, SYSTEM = 2, INTERNAL = 3, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE = 6 };
enum { FLOAT32 = 7, MOST = 64, SECONDS = 600 };

struct id { char internal[128]; };
struct hello { int rank, size, device; };
struct header { uint32_t kind, type; uint64_t count; };

struct comm {
    int rank, size;
    int sockets[MOST];
};

// A message to or from another rank.
struct message {
    struct comm *comm;
    int peer, receives;
    struct header header;
    char *at;
    void *stream;
};

// What a stream has to do.
struct work {
    int count;
    struct message messages[2 * MOST];
};

static _Thread_local int depth;
static _Thread_local struct work *pending;

static int fail(int result, const char *text) {
    fprintf(stderr, "NCCL's stand-in: %s\n", text);
    return result;
}

static void *driver(const char *name) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    if (!library) library = dlopen("libcuda.so", RTLD_NOW | RTLD_NOLOAD);
    return library ? dlsym(library, name) : NULL;
}

int ncclGetVersion(int *version) {
    const char *text = getenv("NCCL_STAND_IN_VERSION");
    *version = text ? atoi(text) : 22703;
    return SUCCESS;
}

const char *ncclGetErrorString(int result) {
    switch (result) {
    case SUCCESS: return "no error";
    case UNHANDLED_CUDA: return "unhandled cuda error";
    case SYSTEM: return "unhandled system error";
    case INVALID_ARGUMENT: return "invalid argument";
    case INVALID_USAGE: return "invalid usage";
    case REMOTE: return "remote process exited or there was a network error";
    default: return "internal error";
    }
}

int ncclGetUniqueId(struct id *id) {
    static int count;
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "nccl-stand-in-%d-%d-%ld", getpid(), count++, (long)time(NULL));
    return SUCCESS;
}

// Reads or writes all bytes.
static int whole(int socket, void *bytes, size_t count, int reads) {
    for (char *at = bytes; count;) {
        ssize_t done = reads ? recv(socket, at, count, 0) : send(socket, at, count, MSG_NOSIGNAL);
        if (done <= 0) return SYSTEM;
        at += done;
        count -= (size_t)done;
    }
    return SUCCESS;
}

static socklen_t name(struct sockaddr_un *to, const struct id *id, int rank) {
    memset(to, 0, sizeof *to);
    to->sun_family = AF_UNIX;
    // Without a file: the first byte stays 0.
    int length = snprintf(to->sun_path + 1, sizeof to->sun_path - 1, "%.90s.%d", id->internal, rank);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

// Connects to those of lower rank, and waits for those of higher.
int ncclCommInitRank(struct comm **made, int size, struct id id, int rank) {
    if (size < 1 || size > MOST || rank < 0 || rank >= size) return fail(INVALID_ARGUMENT, "no such rank");
    int (*get_device)(int *) = (int (*)(int *))driver("cuCtxGetDevice");
    struct hello own = {rank, size, -1};
    if (!get_device || get_device(&own.device)) return fail(UNHANDLED_CUDA, "no context is current");
    struct comm *comm = calloc(1, sizeof *comm);
    comm->rank = rank;
    comm->size = size;
    struct hello all[MOST];
    all[rank] = own;
    struct sockaddr_un address;
    int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t length = name(&address, &id, rank);
    if (listening < 0 || bind(listening, (void *)&address, length) || listen(listening, MOST)) {
        return fail(SYSTEM, "this rank is there already");
    }
    for (int met = 0; met < size - 1; met++) {
        int peer = met < rank ? met : -1, opened;
        if (peer >= 0) {
            opened = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
            length = name(&address, &id, peer);
            for (int tries = 0; connect(opened, (void *)&address, length); tries++) {
                if (tries > 100 * SECONDS) return fail(SYSTEM, "another rank does not come");
                usleep(10000);
            }
        } else {
            opened = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
        }
        struct hello other;
        if (whole(opened, &own, sizeof own, 0) || whole(opened, &other, sizeof other, 1)) {
            return fail(SYSTEM, "another rank has gone");
        }
        if (other.size != size) return fail(INVALID_ARGUMENT, "ranks disagree on their number");
        comm->sockets[other.rank] = opened;
        all[other.rank] = other;
    }
    close(listening);
    for (int one = 0; one < size; one++) {
        for (int other = 0; other < one; other++) {
            if (all[one].device == all[other].device) return fail(INVALID_USAGE, "two ranks use the same GPU");
        }
    }
    for (int peer = 0; peer < size; peer++) {
        if (peer != rank) fcntl(comm->sockets[peer], F_SETFL, O_NONBLOCK);
    }
    *made = comm;
    return SUCCESS;
}

int ncclCommAbort(struct comm *comm) {
    for (int peer = 0; peer < comm->size; peer++) {
        if (peer != comm->rank) close(comm->sockets[peer]);
    }
    free(comm);
    return SUCCESS;
}

int ncclCommDestroy(struct comm *comm) { return ncclCommAbort(comm); }

static size_t bytes(const struct message *message) { return message->header.count * 4; }

// Moves what the socket takes or has, of the header and then of the numbers. `done` counts the bytes of both.
static int advance(struct message *message, size_t *done, struct header *heard) {
    int socket = message->comm->sockets[message->peer];
    size_t all = sizeof(struct header) + bytes(message);
    while (*done < all) {
        int in_header = *done < sizeof(struct header);
        char *header = message->receives ? (char *)heard : (char *)&message->header;
        char *at = in_header ? header + *done : message->at + (*done - sizeof(struct header));
        size_t rest = (in_header ? sizeof(struct header) : all) - *done;
        ssize_t moved = message->receives ? recv(socket, at, rest, 0) : send(socket, at, rest, MSG_NOSIGNAL);
        if (moved < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return SUCCESS;
        if (moved <= 0) return fail(REMOTE, "another rank has gone");
        *done += (size_t)moved;
        if (message->receives && in_header && *done == sizeof(struct header) &&
            memcmp(heard, &message->header, sizeof(struct header))) {
            fprintf(stderr, "NCCL's stand-in: rank %d sends %llu numbers of type %u in call %u, rank %d expects %llu of %u"
                    " in %u\n", message->peer, (unsigned long long)heard->count, heard->type, heard->kind,
                    message->comm->rank, (unsigned long long)message->header.count, message->header.type,
                    message->header.kind);
            return INVALID_ARGUMENT;
        }
    }
    return SUCCESS;
}

// Whether an earlier message of the same direction and peer is not through.
static int waits(const struct work *work, const size_t *done, int place) {
    const struct message *own = &work->messages[place];
    for (int earlier = 0; earlier < place; earlier++) {
        const struct message *other = &work->messages[earlier];
        if (other->receives == own->receives && other->peer == own->peer &&
            done[earlier] < sizeof(struct header) + bytes(other)) return 1;
    }
    return 0;
}

// Does the work of a stream: a function for the driver, which returns 0 if it is done.
static int perform(void *given) {
    struct work *work = given;
    size_t done[2 * MOST] = {0};
    struct header heard[2 * MOST];
    int result = SUCCESS;
    // What a rank sends to itself.
    for (int from = 0; from < work->count; from++) {
        struct message *sent = &work->messages[from];
        if (sent->peer != sent->comm->rank || sent->receives) continue;
        int to = 0;
        while (to < work->count &&
               (!work->messages[to].receives || work->messages[to].peer != sent->peer || done[to])) to++;
        if (to == work->count || memcmp(&work->messages[to].header, &sent->header, sizeof(struct header))) {
            result = fail(INVALID_ARGUMENT, "what a rank sends to itself is not received");
            break;
        }
        memcpy(work->messages[to].at, sent->at, bytes(sent));
        done[from] = sizeof(struct header) + bytes(sent);
        done[to] = done[from];
    }
    for (time_t start = time(NULL); !result;) {
        struct pollfd wanted[2 * MOST];
        int open = 0;
        for (int place = 0; place < work->count && !result; place++) {
            struct message *message = &work->messages[place];
            if (done[place] == sizeof(struct header) + bytes(message) || waits(work, done, place)) continue;
            if (message->peer == message->comm->rank) {
                result = fail(INVALID_ARGUMENT, "a rank receives from itself what it does not send");
                break;
            }
            result = advance(message, &done[place], &heard[place]);
            if (done[place] < sizeof(struct header) + bytes(message)) {
                wanted[open].fd = message->comm->sockets[message->peer];
                wanted[open++].events = message->receives ? POLLIN : POLLOUT;
            }
        }
        if (result) break;
        if (!open) {
            int left = 0;
            for (int place = 0; place < work->count; place++) {
                left |= done[place] < sizeof(struct header) + bytes(&work->messages[place]);
            }
            if (!left) break;
            continue;
        }
        poll(wanted, (nfds_t)open, 1000);
        if (time(NULL) - start > SECONDS) result = fail(REMOTE, "another rank does not come");
    }
    free(work);
    return result;
}

int ncclGroupStart(void) { depth++; return SUCCESS; }

static int enqueue(struct work *work) {
    int (*give)(void *, int (*)(void *), void *) =
        (int (*)(void *, int (*)(void *), void *))driver("stand_in_enqueue");
    if (!give) return fail(INTERNAL, "the driver is not the stand-in");
    for (int place = 0; place < work->count; place++) {
        struct message *message = &work->messages[place];
        if (message->receives) memset(message->at, 0xff, bytes(message));
    }
    return give(work->messages[0].stream, perform, work) ? fail(INTERNAL, "the stream takes no more") : SUCCESS;
}

int ncclGroupEnd(void) {
    if (!depth) return fail(INVALID_USAGE, "no group is open");
    if (--depth || !pending) return SUCCESS;
    struct work *work = pending;
    pending = NULL;
    return enqueue(work);
}

static int add(struct comm *comm, int peer, int receives, const void *at, size_t count, int type, uint32_t kind,
               void *stream) {
    if (type != FLOAT32) return fail(INVALID_ARGUMENT, "only float32 is known here");
    if (peer < 0 || peer >= comm->size) return fail(INVALID_ARGUMENT, "no such rank");
    if (!pending) pending = calloc(1, sizeof *pending);
    if (pending->count == 2 * MOST) return fail(INTERNAL, "too many messages for a group");
    struct header header = {kind, (uint32_t)type, count};
    pending->messages[pending->count++] =
        (struct message){comm, peer, receives, header, (char *)(uintptr_t)at, stream};
    return SUCCESS;
}

int ncclSend(const void *from, size_t count, int type, int peer, struct comm *comm, void *stream) {
    if (!depth) return fail(INVALID_USAGE, "a send outside a group waits for its receive without end");
    return add(comm, peer, 0, from, count, type, 1, stream);
}

int ncclRecv(void *to, size_t count, int type, int peer, struct comm *comm, void *stream) {
    if (!depth) return fail(INVALID_USAGE, "a receive outside a group waits for its send without end");
    return add(comm, peer, 1, to, count, type, 1, stream);
}

int ncclAllGather(const void *from, void *to, size_t count, int type, struct comm *comm, void *stream) {
    ncclGroupStart();
    int result = SUCCESS;
    for (int peer = 0; peer < comm->size && !result; peer++) {
        result = add(comm, peer, 0, from, count, type, 2, stream);
        if (!result) result = add(comm, peer, 1, (char *)to + (size_t)peer * count * 4, count, type, 2, stream);
    }
    int ended = ncclGroupEnd();
    return result ? result : ended;
}

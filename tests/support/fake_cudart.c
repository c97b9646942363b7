/* A stand-in for the CUDA runtime: memory of the "GPU" is the host's, every address is checked, and copies to the host
 * happen only when the stream is waited for, so that whoever reads too early reads noise. */
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID = 1, OUT_OF_MEMORY = 2 };
enum { DEVICE = 1, PINNED = 2 };
enum { MOST = 65536 };

typedef struct { char *at; size_t size; int kind; } Block;
typedef struct { char *to; const char *from; size_t size; } Copy;

static Block blocks[MOST];
static Copy copies[MOST];
static int block_count, copy_count, streams;
int fake_capability = 89, fake_devices = 1;
long fake_allocations, fake_to_device, fake_to_host, fake_allocations_left = -1;

/* Policy and segmenter call from threads of their own, as they may. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
#define LOCKED(call) ({ pthread_mutex_lock(&lock); int status_ = (call); pthread_mutex_unlock(&lock); status_; })

static int holds(const char *at, size_t size, int kind) {
    for (int i = 0; i < block_count; i++)
        if (blocks[i].kind == kind && at >= blocks[i].at && at + size <= blocks[i].at + blocks[i].size) return 1;
    return 0;
}

static int take(void **at, size_t size, int kind) {
    if (fake_allocations_left == 0) return OUT_OF_MEMORY;
    if (fake_allocations_left > 0) fake_allocations_left--;
    if (!size || block_count == MOST || !(*at = malloc(size))) return INVALID;
    memset(*at, 0xAB, size);
    blocks[block_count++] = (Block){*at, size, kind};
    fake_allocations++;
    return SUCCESS;
}

static int give(void *at, int kind) {
    for (int i = 0; i < block_count; i++)
        if (blocks[i].at == at && blocks[i].kind == kind) {
            free(at);
            blocks[i] = blocks[--block_count];
            return SUCCESS;
        }
    return INVALID;
}

int fake_holds(void *at, size_t size) { return LOCKED(holds(at, size, DEVICE)); }
int fake_blocks(void) { return block_count; }
int fake_streams(void) { return streams; }

const char *cudaGetErrorString(int status) { return status == OUT_OF_MEMORY ? "out of memory" : "invalid argument"; }
int cudaGetDeviceCount(int *count) { *count = fake_devices; return SUCCESS; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? fake_capability / 10 : fake_capability % 10;
    return device ? INVALID : SUCCESS;
}
int cudaDeviceGetPCIBusId(char *name, int length, int device) {
    strncpy(name, "0000:65:00.0", length);
    return device ? INVALID : SUCCESS;
}
int cudaMemGetInfo(size_t *available, size_t *total) { *available = 3, *total = 4; return SUCCESS; }
int cudaMalloc(void **at, size_t size) { return LOCKED(take(at, size, DEVICE)); }
int cudaMallocHost(void **at, size_t size) { return LOCKED(take(at, size, PINNED)); }
int cudaFree(void *at) { return LOCKED(give(at, DEVICE)); }
int cudaFreeHost(void *at) { return LOCKED(give(at, PINNED)); }
static int change_streams(int by) { streams += by; return SUCCESS; }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) {
    LOCKED(change_streams(1));
    return (*stream = malloc(1)) && flags ? SUCCESS : INVALID;
}
int cudaStreamDestroy(void *stream) { free(stream); return LOCKED(change_streams(-1)); }
static int finish_copies(void) {
    for (int i = 0; i < copy_count; i++) memcpy(copies[i].to, copies[i].from, copies[i].size);
    copy_count = 0;
    return SUCCESS;
}
int cudaStreamSynchronize(void *stream) { return stream ? LOCKED(finish_copies()) : INVALID; }
static int copy(void *to, const void *from, size_t size, int kind) {
    int device = kind == 1;
    if (!holds(to, size, device ? DEVICE : PINNED) || !holds(from, size, device ? PINNED : DEVICE)) return INVALID;
    if (device) {
        memcpy(to, from, size);
        fake_to_device += size;
    } else {
        copies[copy_count++] = (Copy){to, from, size};
        fake_to_host += size;
    }
    return SUCCESS;
}
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    return stream ? LOCKED(copy(to, from, size, kind)) : INVALID;
}

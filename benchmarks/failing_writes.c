/* Counts what is written below a folder, and makes one of it fail once, for benchmarks/faults.py.

   cc -shared -fPIC -O2 -o failing_writes.so failing_writes.c -ldl
   LD_PRELOAD=failing_writes.so FAIL_BELOW=/folder/ FAIL_AT=7 FAIL_WITH=5 COMMAND

   The seventh write, or flush to the disk, of a file below /folder/ fails with error 5 (EIO). The environment is read at
   every call, so a forked child can be given its own; the count starts anew when a process asks for it to. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long seen;

long writes_seen(void) { return seen; }

void forget_writes(void) { seen = 0; }

static int fails(int file) {
    const char *below = getenv("FAIL_BELOW"), *at = getenv("FAIL_AT"), *with = getenv("FAIL_WITH");
    char link[64], path[4096];
    ssize_t length;
    if (!below) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, below, strlen(below))) return 0;
    if (length > 4 && !strcmp(path + length - 4, ".log")) return 0; /* what a command prints */
    if (atomic_fetch_add(&seen, 1) + 1 != (at ? atol(at) : 0)) return 0;
    errno = with ? atoi(with) : EIO;
    return 1;
}

#define GUARDED(type, name, parameters, arguments)                     \
    type name parameters {                                             \
        static type(*real) parameters;                                 \
        if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
        return fails(file) ? -1 : real arguments;                      \
    }

GUARDED(ssize_t, write, (int file, const void *data, size_t size), (file, data, size))
GUARDED(ssize_t, writev, (int file, const struct iovec *parts, int count), (file, parts, count))
GUARDED(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at))
GUARDED(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), (file, data, size, at))
GUARDED(int, fsync, (int file), (file))
GUARDED(int, fdatasync, (int file), (file))

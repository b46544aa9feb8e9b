/* bench.h - what a library must offer to be measured, and what the measured code shares.

   Each library has one file (casync.c, libuv.c, libev.c, epoll.c) that fills in `library` below and
   then includes rows.h, which holds the benchmarks and main. Everything is in one translation unit,
   so the calls through the constant table are direct ones. */
#ifndef BENCH_H
#define BENCH_H

#include "common.h"
#include <pthread.h>
#include <stddef.h>
#include <sys/resource.h>

/* Handles (timers, ...) are made by the rows as one zeroed array of n * x_size bytes. A library
   leaves out (NULL) what it does not have. */
typedef struct library {
    void (*init)(void);
    void (*run)(void);           /* turns until stop */
    void (*stop)(void);          /* called from a callback */
    void (*close)(void *handle); /* a library that keeps a list of handles: forget this one */
    void (*closed)(void);        /* what was closed is about to be freed */

    size_t timer_size;
    void (*timer_init)(void *timer);
    /* from the time the loop last looked at */
    void (*timer_start)(void *timer, int64_t delay);
    void (*timer_start_from_now)(void *timer, int64_t delay); /* from this moment */
    void (*timer_stop)(void *timer);
    bool (*timer_active)(const void *timer);

    size_t soon_size;
    void (*soon_init)(void *soon);
    void (*soon)(void *soon); /* call bench_fired in the next turn */

    size_t post_size;
    void (*post)(void *post); /* as soon, called from another thread */

    size_t watch_size;
    void (*watch)(void *watch, int fd); /* call bench_fired when it is readable */
    void (*unwatch)(void *watch);

    /* Each calls bench_fired when it is done. */
    void (*read_file)(int fd); /* its first 4 KiB */
    void (*look_up)(const char *host);
    void (*spawn)(const char *program); /* without arguments: done when it has ended */

    void (*round_trips)(void); /* of 1 KiB over TCP, both ends here; bench_fired after each */
    int (*echo)(void);         /* listen on 127.0.0.1, echo in run(); returns the port */
} library;

static uint64_t bench_count, bench_target;
static bool (*bench_again)(void); /* queues more and returns true, or returns false; may be NULL */

/* Every measured callback ends here. True: it was the last one awaited, stop the loop. */
static inline bool bench_fired(void) {
    return ++bench_count == bench_target && !(bench_again && bench_again());
}

static inline void bench_raise_file_limit(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

#endif

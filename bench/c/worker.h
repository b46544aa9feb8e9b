/* worker.h - the frame of a C worker, and what its rows share.

   It reads lines "row n" and answers each with {"ops", "time", "check"}: operations done, the
   nanoseconds they took together, and a value that must be the same for every implementation; and
   "memory", the bytes that the operations occupied together, where the row says so. The time is the
   thread's CPU time where one thread does it all without sleeping: other processes do not count in
   it. */
#ifndef WORKER_H
#define WORKER_H

#include "common.h"
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct row {
    const char *name;
    void (*prepare)(size_t n);
    uint64_t (*run)(size_t n);    /* the measured part; returns the operations done */
    uint64_t (*finish)(size_t n); /* returns what is to be checked */
    bool threads;                 /* it uses others than this one */
    bool fresh;                   /* each sample in a process of its own, which has no memory to
                                     use again */
} row;

static long long occupied; /* set by rows that measure memory, to bytes */

/* Zeroed by hand: calloc would leave the page faults to what is measured. */
static inline char *make_handles(size_t n, size_t size) {
    char *made = malloc(n * size);
    bench_check(made != NULL, "malloc");
    memset(made, 0, n * size);
    return made;
}

/* Not inlined: callgrind collects what runs inside it. */
static __attribute__((noinline)) uint64_t measured(const row *r, size_t n, int64_t *time) {
    clockid_t clock = r->threads ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID;
    int64_t start = bench_now(clock);
    uint64_t ops = r->run(n);
    *time = bench_now(clock) - start;
    return ops;
}

static void sample(const row *r, size_t n) {
    int64_t time;
    occupied = 0;
    r->prepare(n);
    uint64_t ops = measured(r, n, &time);
    uint64_t check = r->finish(n);
    printf("{\"ops\": %llu, \"time\": %lld, \"check\": %llu", (unsigned long long)ops,
           (long long)time, (unsigned long long)check);
    if (occupied) printf(", \"memory\": %lld", occupied);
    printf("}\n");
    fflush(stdout);
}

static void sample_apart(const row *r, size_t n) {
    pid_t child = fork();
    bench_check(child >= 0, "fork");
    if (child == 0) {
        sample(r, n);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void answer(const row *rows, size_t count) {
    char name[32];
    size_t n;
    while (scanf("%31s %zu", name, &n) == 2)
        for (size_t i = 0; i < count; i++)
            if (strcmp(name, rows[i].name) == 0)
                (rows[i].fresh ? sample_apart : sample)(&rows[i], n);
}

#endif

/* common.h - what every program here needs. */
#ifndef COMMON_H
#define COMMON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline void bench_check(bool ok, const char *what) {
    if (ok) return;
    perror(what);
    exit(1);
}

static inline int64_t bench_now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * (int64_t)1000000000 + t.tv_nsec;
}

#endif

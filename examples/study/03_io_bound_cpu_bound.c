/* I/O-bound beside CPU-bound, measured.

   Run it from the repository's root:   tcc -run examples/study/03_io_bound_cpu_bound.c

   I/O-bound work waits for others: its time does not depend on your CPU, and any number of waits can go on
   at once. For that a loop is enough, and it is cheaper than threads: a wait costs a struct (a casync_timer
   has 64 bytes), where a thread costs a stack and a place in the kernel's scheduler.
   CPU-bound work computes: as often at once as there are CPUs, and for that there must be threads. */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

enum { JOBS = 8 };

static casync_loop loop;
static int results;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void done(void *arg) {
    (void)arg;
    pthread_mutex_lock(&mutex); /* for the threads' sake */
    results++;
    pthread_mutex_unlock(&mutex);
}

static void *io_bound(void *arg) {
    struct timespec t = {0, 20000000}; /* 20 ms stand for an answer from the network */
    nanosleep(&t, NULL);
    done(arg);
    return NULL;
}

static void *cpu_bound(void *arg) {
    volatile int i;
    for (i = 0; i < 20000000; i++) continue;
    done(arg);
    return NULL;
}

static void cpu_bound_callback(void *arg) { cpu_bound(arg); }

static void one_by_one(void *(*work)(void *)) {
    int i;
    for (i = 0; i < JOBS; i++) work(NULL);
}

static void with_threads(void *(*work)(void *)) {
    pthread_t threads[JOBS];
    int i, started = 0;
    while (started < JOBS && pthread_create(&threads[started], NULL, work, NULL) == 0) started++;
    for (i = 0; i < started; i++) pthread_join(threads[i], NULL);
}

static void with_timers(void *(*work)(void *)) {
    static casync_timer timers[JOBS];
    int i;
    (void)work; /* waiting is all that it does */
    for (i = 0; i < JOBS; i++) casync_call_later(&loop, &timers[i], CASYNC_MS(20), done, NULL);
    casync_run_until_idle(&loop);
}

static void with_callbacks(void *(*work)(void *)) {
    int i;
    (void)work;
    for (i = 0; i < JOBS; i++) casync_call_soon(&loop, NULL, cpu_bound_callback, NULL);
    casync_run_until_idle(&loop);
}

static void timed(const char *name, void (*how)(void *(*)(void *)), void *(*work)(void *)) {
    int64_t start = casync_time(&loop);
    results = 0;
    how(work);
    printf("%s: %d ms, %d results\n", name, (int)((casync_time(&loop) - start) / CASYNC_MS(1)), results);
}

int main(void) {
    if (casync_loop_init(&loop, NULL) < 0) return 1;
    timed("I/O, one by one", one_by_one, io_bound);
    timed("I/O, threads", with_threads, io_bound);
    timed("I/O, timers of a loop", with_timers, io_bound);
    timed("CPU, one by one", one_by_one, cpu_bound);
    timed("CPU, callbacks of a loop", with_callbacks, cpu_bound);
    timed("CPU, threads", with_threads, cpu_bound);
    return casync_loop_close(&loop) < 0;
}

/* Prints:
     I/O, one by one: 161 ms, 8 results
     I/O, threads: 20 ms, 8 results
     I/O, timers of a loop: 20 ms, 8 results
     CPU, one by one: 80 ms, 8 results
     CPU, callbacks of a loop: 79 ms, 8 results
     CPU, threads: 40 ms, 8 results
*/

/* I/O-bound beside CPU-bound, measured.

   Run it from the repository's root:   tcc -run examples/study/03_io_bound_cpu_bound.c

   I/O-bound work waits for others: its time does not depend on your CPU, and any number of waits
   can go on at once. For that a loop is enough, and it is cheaper than threads: a wait costs a
   struct (a casync_timer has 64 bytes), where a thread costs a stack and a place in the kernel's
   scheduler.
   CPU-bound work computes: as often at once as there are CPUs, and for that there must be threads.

   casync_run_in_executor calls a function in a thread of a pool. A pool has so many threads and no
   more, so that many wait or compute at once; this one has 8. (A loop's own has 4 more than there
   are CPUs, 32 at most.) */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

enum { JOBS = 8 };

static casync_pool pool;

static int64_t io_bound(void *arg, void **ptr) {
    struct timespec t = {0, 20000000}; /* 20 ms stand for an answer from the network */
    (void)arg;
    (void)ptr;
    nanosleep(&t, NULL);
    return 1;
}

static int64_t cpu_bound(void *arg, void **ptr) {
    volatile int i;
    (void)arg;
    (void)ptr;
    for (i = 0; i < 20000000; i++) continue;
    return 1;
}

static int64_t io_bound_task(casync_loop *loop, void *arg) {
    int64_t result = casync_sleep(CASYNC_MS(20));
    (void)loop;
    (void)arg;
    return result < 0 ? result : 1;
}

static int64_t cpu_bound_task(casync_loop *loop, void *arg) {
    (void)loop;
    return cpu_bound(arg, NULL); /* a task makes it no faster, and nothing here waits */
}

static int one_by_one(casync_pool_function work) {
    int i, results = 0;
    for (i = 0; i < JOBS; i++) results += (int)work(NULL, NULL);
    return results;
}

static int with_pool(casync_loop *loop, casync_pool_function work) {
    casync_op ops[JOBS];
    casync_waiter calls[JOBS];
    int64_t gathered;
    int i, results = 0;
    memset(calls, 0, sizeof calls);
    for (i = 0; i < JOBS; i++)
        calls[i].future = casync_run_in_executor_op(loop, &pool, &ops[i], work, NULL, NULL);
    gathered = casync_gather(calls, JOBS, CASYNC_FIRST_ERROR);
    if (gathered < 0) return (int)gathered;
    for (i = 0; i < JOBS; i++) results += (int)casync_future_result(calls[i].future);
    return results;
}

static int with_tasks(casync_loop *loop, casync_coroutine work) {
    casync_task *tasks[JOBS];
    int i, results = 0;
    for (i = 0; i < JOBS; i++) tasks[i] = casync_spawn(loop, work, NULL);
    for (i = 0; i < JOBS; i++) results += (int)casync_join(tasks[i]);
    return results;
}

static void report(casync_loop *loop, const char *name, int64_t start, int results) {
    printf("%s: %d ms, %d results\n", name, (int)((casync_time(loop) - start) / CASYNC_MS(1)),
           results);
}

static int64_t amain(casync_loop *loop, void *arg) {
    casync_pool_desc desc = {.size = JOBS};
    int64_t start, result = casync_pool_init(&pool, &desc);
    (void)arg;
    if (result < 0) return result;
    with_pool(loop, io_bound); /* the threads start with the first work: not in the times below */

    start = casync_time(loop);
    report(loop, "I/O, one by one", start, one_by_one(io_bound));
    start = casync_time(loop);
    report(loop, "I/O, threads", start, with_pool(loop, io_bound));
    start = casync_time(loop);
    report(loop, "I/O, tasks", start, with_tasks(loop, io_bound_task));
    start = casync_time(loop);
    report(loop, "CPU, one by one", start, one_by_one(cpu_bound));
    start = casync_time(loop);
    report(loop, "CPU, tasks", start, with_tasks(loop, cpu_bound_task));
    start = casync_time(loop);
    report(loop, "CPU, threads", start, with_pool(loop, cpu_bound));
    return casync_pool_shutdown(&pool);
}

int main(void) { return casync_run(amain, NULL) < 0; }

/* Prints:
     I/O, one by one: 161 ms, 8 results
     I/O, threads: 20 ms, 8 results
     I/O, tasks: 20 ms, 8 results
     CPU, one by one: 80 ms, 8 results
     CPU, tasks: 79 ms, 8 results
     CPU, threads: 40 ms, 8 results
*/

/* Work for the processor beside a loop that stays responsive: the work runs in a pool of threads, its
   results come back as futures, and what waits too long in the queue is cancelled before it ran.

   Run it from the repository's root:   tcc -run examples/cpu_bound.c
   It prints how many primes each call found, and that the loop never stood still. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <stdio.h>

enum { CALLS = 6, PATIENCE = 4 }; /* nobody waits for the calls after the fourth result */

typedef struct call {
    casync_op op;
    int limit;
} call;

static casync_loop loop;
static casync_pool pool;
static casync_timer heartbeat;
static casync_op shutdown_op;
static call calls[CALLS];
static int results, beats;

static bool is_prime(int n) {
    int i;
    for (i = 2; i * i <= n; i++)
        if (n % i == 0) return false;
    return n > 1;
}

/* In a thread of the pool. */
static int64_t count_primes(void *arg, void **ptr) {
    int limit = ((call *)arg)->limit, i, primes = 0;
    (void)ptr;
    for (i = 0; i < limit; i++) primes += is_prime(i);
    return primes;
}

/* In the loop's thread, like everything below. */
static void all_threads_ended(void *arg) {
    (void)arg;
    casync_timer_stop(&heartbeat);
}

static void give_up(void) {
    int i;
    for (i = 0; i < CALLS; i++) casync_future_cancel(&calls[i].op.future);
    casync_pool_shutdown_op(&loop, &pool, &shutdown_op);
    casync_future_add_done_callback(&shutdown_op.future, NULL, all_threads_ended, NULL);
}

static void counted(void *arg) {
    call *c = (call *)arg;
    int64_t result = casync_future_result(&c->op.future);
    if (result == -ECANCELED) {
        printf("nobody waited for the primes below %d\n", c->limit);
        return;
    }
    if (result < 0)
        fprintf(stderr, "cpu_bound: %s\n", casync_strerror(result));
    else
        printf("%lld primes below %d\n", (long long)result, c->limit);
    if (++results == PATIENCE) give_up();
}

static void beat(void *arg) {
    (void)arg;
    beats++;
}

static int64_t start(void) {
    casync_pool_desc desc = {.size = 1, .name = "primes"};
    int64_t result = casync_pool_init(&pool, &desc);
    int i;
    if (result < 0) return result;
    for (i = 0; i < CALLS && result >= 0; i++) {
        casync_future *future;
        calls[i].limit = 100000 * (i + 1);
        future = casync_run_in_executor_op(&loop, &pool, &calls[i].op, count_primes, &calls[i], NULL);
        result = casync_future_add_done_callback(future, NULL, counted, &calls[i]);
    }
    return result < 0 ? result : casync_timer_start(&loop, &heartbeat, 0, CASYNC_MS(1), beat, NULL);
}

int main(void) {
    int64_t result = casync_loop_init(&loop, NULL);
    if (result >= 0) result = start();
    if (result >= 0) result = casync_run_until_idle(&loop);
    printf("meanwhile the loop did %d other things\n", beats);
    casync_pool_close(&pool);
    if (result >= 0) result = casync_loop_close(&loop);
    if (result < 0) fprintf(stderr, "cpu_bound: %s\n", casync_strerror(result));
    return result < 0;
}

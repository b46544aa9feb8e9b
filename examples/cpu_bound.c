/* Work for the processor beside a loop that stays responsive: the work runs in a pool of threads,
   and the tasks that need its results wait for them as for anything else.

   Run it from the repository's root:   tcc -run examples/cpu_bound.c
   It prints how many primes each call found, and that the loop never stood still. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <errno.h>
#include <stdio.h>

static bool is_prime(int n) {
    int i;
    for (i = 2; i * i <= n; i++)
        if (n % i == 0) return false;
    return n > 1;
}

/* In a thread of the pool. It must not touch the loop, nor what the loop's thread may write
   meanwhile. */
static int64_t count_primes(void *arg, void **ptr) {
    int limit = *(int *)arg, i, primes = 0;
    (void)ptr;
    for (i = 0; i < limit; i++) primes += is_prime(i);
    return primes;
}

/* A task, in the loop's thread, as all that follows. NULL is the loop's default pool, made at first
   use. */
static int64_t find_primes(casync_loop *loop, void *limit) {
    int64_t primes = casync_run_in_executor(NULL, count_primes, limit, NULL, NULL);
    (void)loop;
    if (primes >= 0) printf("%lld primes below %d\n", (long long)primes, *(int *)limit);
    return primes;
}

/* Without the pool it could not count: nothing else runs in a loop while a task computes. */
static int64_t count_beats(casync_loop *loop, void *beats) {
    int64_t result;
    (void)loop;
    while ((result = casync_sleep(CASYNC_MS(1))) >= 0) ++*(int *)beats;
    return result;
}

static int64_t find_all(void) {
    /* static: a call that nobody waits for goes on */
    static int limits[] = {400000, 300000, 200000, 100000};
    casync_task_group calls;
    int64_t result = casync_task_group_begin(&calls);
    int i;
    if (result < 0) return result;
    for (i = 0; i < 4 && result >= 0; i++)
        if (!casync_task_group_spawn(&calls, find_primes, &limits[i])) result = -ENOMEM;
    return casync_task_group_end(&calls, result);
}

static int64_t amain(casync_loop *loop, void *arg) {
    int beats = 0;
    int64_t result;
    casync_task *heart = casync_spawn(loop, count_beats, &beats);
    (void)arg;
    if (!heart) return -ENOMEM;
    result = find_all();
    casync_task_cancel(heart);
    if (casync_join(heart) == -ECANCELED) printf("meanwhile the loop did %d other things\n", beats);
    return result;
}

int main(void) {
    int64_t result = casync_run(amain, NULL);
    if (result < 0) fprintf(stderr, "cpu_bound: %s\n", casync_strerror(result));
    return result < 0;
}

/* Threads that compute while the loop goes on. Their way into the loop is
   casync_call_soon_threadsafe.

   Run it from the repository's root:   tcc -run examples/threads.c
   It prints how many primes each thread found, and that the loop never stood still. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <pthread.h>
#include <stdio.h>

typedef struct worker {
    pthread_t thread;
    casync_job finished; /* queued by the thread; a job of our own, so nothing is allocated */
    int limit;
    int primes;
} worker;

static casync_loop loop;
static casync_timer heartbeat;
static int running, beats;

/* In the loop's thread. What the worker wrote before it posted the job can be read here. */
static void finished(void *arg) {
    worker *w = (worker *)arg;
    printf("%d primes below %d\n", w->primes, w->limit);
    if (--running == 0) casync_stop(&loop);
}

static bool is_prime(int n) {
    int i;
    for (i = 2; i * i <= n; i++)
        if (n % i == 0) return false;
    return n > 1;
}

/* In the worker's thread. */
static void *work(void *arg) {
    worker *w = (worker *)arg;
    int64_t result;
    int i;
    for (i = 0; i < w->limit; i++) w->primes += is_prime(i);
    result = casync_call_soon_threadsafe(&loop, &w->finished, finished, w);
    if (result < 0) fprintf(stderr, "threads: %s\n", casync_strerror(result));
    return NULL;
}

static void beat(void *arg) {
    (void)arg;
    beats++;
}

/* The loop knows nothing of the threads: it runs until the last of them has said that it is
   done. */
static int64_t run(void) {
    worker workers[3] = {{.limit = 100000}, {.limit = 200000}, {.limit = 300000}};
    int started = 0, error = 0;
    int64_t result;
    if ((result = casync_loop_init(&loop, NULL)) < 0) return result;
    result = casync_timer_start(&loop, &heartbeat, 0, CASYNC_MS(1), beat, NULL);
    if (result < 0) return result;
    while (started < 3 && error == 0) {
        error = pthread_create(&workers[started].thread, NULL, work, &workers[started]);
        if (error == 0) started++;
    }
    running = started;
    if (running > 0) result = casync_run_forever(&loop);
    while (started > 0) pthread_join(workers[--started].thread, NULL);
    printf("meanwhile the loop did %d other things\n", beats);
    return error ? -error : result;
}

int main(void) {
    int64_t result = run();
    if (result >= 0) result = casync_loop_close(&loop);
    if (result < 0) fprintf(stderr, "threads: %s\n", casync_strerror(result));
    return result < 0;
}

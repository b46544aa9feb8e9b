/* Gather: wait for many.

   Run it from the repository's root:   tcc -run examples/study/10_gather.c

   It asks each future to call back and counts them down. When the last is done its own future is
   done, too. So it takes as long as the slowest. The results stand in the futures, in the order in
   which you have them, whoever ended first.

   The first error is passed on at once, and the others just go on: nobody waits for them any more.
   That is asyncio's choice; a task group ends them (page 15).

   `our_gather` is made of a future and a counter. casync_gather does the same (and who cancels it
   cancels all that it waits for); its struct is yours, too: an array of casync_waiter, much as
   poll(2) has its array of struct pollfd. With such an array one may also wait for the first that
   is done (casync_wait, casync_select), or get one after the other (casync_as_completed,
   casync_completion_next). */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

enum { MAX = 4 };

typedef struct gathering {
    casync_future future; /* done with 0 when all are, or failed with the first error */
    casync_future **futures;
    int count, left;
} gathering;

static void one_is_done(void *arg) {
    gathering *g = (gathering *)arg;
    int i;
    g->left--;
    for (i = 0; i < g->count; i++) {
        if (!casync_future_done(g->futures[i]) || casync_future_result(g->futures[i]) >= 0)
            continue;
        casync_future_set_result(&g->future, casync_future_result(g->futures[i]), NULL);
    }
    /* no effect if there was an error */
    if (g->left == 0) casync_future_set_result(&g->future, 0, NULL);
}

static int64_t our_gather(casync_loop *loop, casync_future **futures, int count) {
    gathering g;
    casync_job jobs[MAX];
    int64_t result;
    int i;
    memset(jobs, 0, sizeof jobs);
    g.futures = futures;
    g.count = g.left = count;
    casync_future_init(loop, &g.future);
    for (i = 0; i < count; i++)
        casync_future_add_done_callback(futures[i], &jobs[i], one_is_done, &g);
    result = casync_await(&g.future);
    /* after an error: g goes, so nobody may call */
    for (i = 0; i < count; i++) casync_job_cancel(&jobs[i]);
    casync_future_close(&g.future);
    return result;
}

static int64_t their_gather(casync_loop *loop, casync_future **futures, int count) {
    casync_waiter waiters[MAX];
    int i;
    (void)loop;
    memset(waiters, 0, sizeof waiters);
    for (i = 0; i < count; i++) waiters[i].future = futures[i];
    return casync_gather(waiters, (size_t)count, CASYNC_FIRST_ERROR);
}

typedef struct fetch {
    const char *name;
    int milliseconds;
    int64_t result;
} fetch;

static int64_t run_fetch(casync_loop *loop, void *arg) {
    fetch *f = (fetch *)arg;
    int64_t result = casync_sleep(CASYNC_MS(f->milliseconds));
    (void)loop;
    if (result < 0) return result;
    printf("  %s is there\n", f->name);
    return f->result;
}

static void show(casync_loop *loop, int64_t (*gather)(casync_loop *, casync_future **, int)) {
    fetch fast = {"fast", 20, 2}, slow = {"slow", 100, 1}, bad = {"bad", 50, -ENOENT};
    casync_task *tasks[2];
    casync_future *futures[2];
    int64_t result;

    tasks[0] = casync_spawn(loop, run_fetch, &slow);
    tasks[1] = casync_spawn(loop, run_fetch, &fast);
    futures[0] = &tasks[0]->future; /* a task is a future */
    futures[1] = &tasks[1]->future;
    result = gather(loop, futures, 2);
    printf("  gather: %d, results: %d %d\n", (int)result, (int)futures[0]->result,
           (int)futures[1]->result);
    casync_task_release(tasks[0]);
    casync_task_release(tasks[1]);

    tasks[0] = casync_spawn(loop, run_fetch, &slow);
    tasks[1] = casync_spawn(loop, run_fetch, &bad);
    futures[0] = &tasks[0]->future;
    futures[1] = &tasks[1]->future;
    result = gather(loop, futures, 2);
    printf("  gather: %s\n", casync_strerror(result));
    casync_ignore(casync_join(tasks[0])); /* it went on */
    casync_task_release(tasks[1]);
}

static int64_t amain(casync_loop *loop, void *arg) {
    (void)arg;
    printf("ours:\n");
    show(loop, our_gather);
    printf("casync_gather:\n");
    show(loop, their_gather);
    return 0;
}

int main(void) {
    casync_loop_desc desc = {.clock = CASYNC_CLOCK_VIRTUAL}; /* page 12 */
    return casync_run_with(&desc, amain, NULL) < 0;
}

/* Prints:
     ours:
       fast is there
       slow is there
       gather: 0, results: 1 2
       bad is there
       gather: No such file or directory
       slow is there
     casync_gather:
       fast is there
       slow is there
       gather: 0, results: 1 2
       bad is there
       gather: No such file or directory
       slow is there
*/

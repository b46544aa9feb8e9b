/* Gather: wait for many.

   Run it from the repository's root:   tcc -run examples/study/10_gather.c

   It asks each future to call back and counts them down. When the last is done its own future is done, too.
   So it takes as long as the slowest. The results stand in the futures, in the order in which you have them,
   whoever ended first.

   The first error is passed on at once, and the others just go on: nobody waits for them any more. That is
   asyncio's choice; a task group ends them (page 15). */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

static casync_loop loop;

enum { MAX = 4 };

typedef struct gathering {
    casync_future future; /* done with 0 when all are, or failed with the first error */
    casync_future *of[MAX];
    casync_job jobs[MAX];
    int count, left;
} gathering;

static void one_is_done(void *arg) {
    gathering *g = (gathering *)arg;
    int i;
    g->left--;
    if (casync_future_done(&g->future)) return;
    for (i = 0; i < g->count; i++) {
        if (!casync_future_done(g->of[i]) || casync_future_result(g->of[i]) >= 0) continue;
        casync_future_set_result(&g->future, casync_future_result(g->of[i]), NULL);
        return;
    }
    if (g->left == 0) casync_future_set_result(&g->future, 0, NULL);
}

static casync_future *gather(gathering *g, int count) {
    int i;
    casync_future_close(&g->future);
    casync_future_init(&loop, &g->future);
    g->count = g->left = count;
    for (i = 0; i < count; i++) casync_future_add_done_callback(g->of[i], &g->jobs[i], one_is_done, g);
    if (count == 0) casync_future_set_result(&g->future, 0, NULL);
    return &g->future;
}

/* Something that takes its time: its timer makes its future done. */
typedef struct fetch {
    const char *name;
    casync_future future;
    casync_timer timer;
    int64_t result;
} fetch;

static void there(void *arg) {
    fetch *f = (fetch *)arg;
    printf("  %s is there\n", f->name);
    casync_future_set_result(&f->future, f->result, NULL);
}

/* A future that is used again must be closed first; one that was never used, all zeros, may be. */
static casync_future *start(fetch *f, int milliseconds) {
    casync_future_close(&f->future);
    casync_future_init(&loop, &f->future);
    casync_call_later(&loop, &f->timer, CASYNC_MS(milliseconds), there, f);
    return &f->future;
}

int main(void) {
    static fetch slow = {.name = "slow", .result = 1}, fast = {.name = "fast", .result = 2};
    static fetch bad = {.name = "bad", .result = -ENOENT};
    static gathering g;
    int64_t result;
    casync_loop_desc desc = {.clock = CASYNC_CLOCK_VIRTUAL}; /* page 12 */
    if (casync_loop_init(&loop, &desc) < 0) return 1;

    g.of[0] = start(&slow, 100);
    g.of[1] = start(&fast, 20);
    result = casync_run_until_complete(gather(&g, 2));
    printf("gather: %d; results: %d %d\n", (int)result, (int)slow.future.result, (int)fast.future.result);

    g.of[0] = start(&slow, 100);
    g.of[1] = start(&bad, 20);
    result = casync_run_until_complete(gather(&g, 2));
    printf("gather: %s; slow is done: %s\n", casync_strerror(result),
           casync_future_done(&slow.future) ? "yes" : "no");
    casync_run_until_complete(&slow.future); /* it went on */

    printf("gather of nothing: %d\n", (int)casync_run_until_complete(gather(&g, 0)));
    return casync_loop_close(&loop) < 0;
}

/* Prints:
       fast is there
       slow is there
     gather: 0; results: 1 2
       bad is there
     gather: No such file or directory; slow is done: no
       slow is there
     gather of nothing: 0
*/

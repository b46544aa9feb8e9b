/* Structured concurrency.

   Run it from the repository's root:   tcc -run examples/study/15_structured_concurrency.c

   To start something that goes on by itself is like goto: who waits for it, who sees its error, who ends it if
   the rest fails, and when may the memory that it uses go? A group answers all four:

   - it is done when the last of its members has ended: no member outlives it, so after that all that they
     used may go. In C that is not tidiness, it is what keeps a callback out of freed memory;
   - if a member fails, the others are cancelled, and awaited, and then the group fails with that error;
   - if the group is cancelled, so are its members.

   Here is one by hand, of members that can be told to end (`cancel`) and that say when they have (`ended`).
   A member may take its time to end: it cleans up first. */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

enum { MAX = 4 };

static casync_loop loop;

typedef struct group {
    casync_future future; /* done when all have ended */
    struct member *members[MAX];
    int count, left;
    int64_t error; /* the first */
} group;

/* Some work: it takes a while, and then has a result. When cancelled it cleans up for 10 ms. */
typedef struct member {
    const char *name;
    int milliseconds;
    int64_t result;
    group *group;
    casync_timer timer;
    bool cancelled;
} member;

static int now(void) { return (int)(casync_time(&loop) / CASYNC_MS(1)); }

static void group_cancel(group *g);

static void ended(void *arg) {
    member *m = (member *)arg;
    group *g = m->group;
    int64_t result = m->cancelled ? -ECANCELED : m->result;
    printf("  %s: %s, at %d\n", m->name, result < 0 ? casync_strerror(result) : "has ended", now());
    m->group = NULL; /* it has left */
    g->left--;
    if (result < 0 && g->error == 0) {
        g->error = result;
        group_cancel(g); /* the others: nobody wants their results now */
    }
    if (g->left == 0) casync_future_set_result(&g->future, g->error, NULL);
}

static void group_cancel(group *g) {
    int i;
    if (g->error == 0) g->error = -ECANCELED;
    for (i = 0; i < g->count; i++) {
        member *m = g->members[i];
        if (!m->group || m->cancelled) continue;
        m->cancelled = true;
        casync_timer_start(&loop, &m->timer, CASYNC_MS(10), 0, ended, m); /* this is its cleaning up */
    }
}

static void group_start(group *g, member *m) {
    if (g->count == 0) casync_future_init(&loop, &g->future);
    g->members[g->count++] = m;
    g->left++;
    m->group = g;
    casync_call_later(&loop, &m->timer, CASYNC_MS(m->milliseconds), ended, m);
}

/* Waits for the end of the block. From outside, a function with a group in it is an ordinary function. */
static void join(group *g) {
    int64_t result = casync_run_until_complete(&g->future);
    printf("  the block ends: %s, at %d; still running: %d\n", casync_strerror(result), now(), g->left);
    casync_future_close(&g->future);
}

static void all_is_well(void) {
    group g = {0};
    member a = {.name = "short", .milliseconds = 10}, b = {.name = "long", .milliseconds = 50};
    group_start(&g, &a);
    group_start(&g, &b);
    join(&g); /* their memory goes now: they are on the stack */
}

static void one_fails(void) {
    group g = {0};
    member a = {.name = "bad", .milliseconds = 20, .result = -EIO},
           b = {.name = "sibling", .milliseconds = 50};
    group_start(&g, &a);
    group_start(&g, &b);
    join(&g);
}

static void cancel(void *arg) { group_cancel((group *)arg); }

static void block_is_cancelled(void) {
    group g = {0};
    member a = {.name = "child", .milliseconds = 1000};
    casync_timer impatience = {0};
    group_start(&g, &a);
    casync_call_later(&loop, &impatience, CASYNC_MS(5), cancel, &g);
    join(&g);
}

static void run(const char *name, void (*block)(void)) {
    casync_loop_desc desc = {.clock = CASYNC_CLOCK_VIRTUAL}; /* page 12 */
    if (casync_loop_init(&loop, &desc) < 0) abort();
    printf("%s:\n", name);
    block();
    casync_loop_close(&loop);
}

int main(void) {
    run("all is well", all_is_well);
    run("one fails", one_fails);
    run("the block is cancelled", block_is_cancelled);
    return 0;
}

/* Prints:
     all is well:
       short: has ended, at 10
       long: has ended, at 50
       the block ends: success, at 50; still running: 0
     one fails:
       bad: Input/output error, at 20
       sibling: Operation canceled, at 30
       the block ends: Input/output error, at 30; still running: 0
     the block is cancelled:
       child: Operation canceled, at 15
       the block ends: Operation canceled, at 15; still running: 0
*/

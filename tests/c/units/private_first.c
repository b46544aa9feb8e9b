/* A unit with a static copy of its own. */
#define CASYNC_IMPLEMENTATION
#define CASYNC_STATIC
#include "casync.h"

int use_first_copy(void);

static void add_one(void *arg) { ++*(int *)arg; }
static int64_t sleep_a_turn(casync_loop *loop, void *arg) {
    return (void)loop, (void)arg, casync_sleep(0);
}

int use_first_copy(void) {
    casync_loop loop;
    int calls = 0;
    if (casync_loop_init(&loop, NULL) < 0) return -1;
    if (casync_call_later(&loop, NULL, CASYNC_US(1), add_one, &calls) < 0) return -1;
    if (casync_run_until_idle(&loop) < 0) return -1;
    if (casync_loop_close(&loop) < 0 || casync_run(sleep_a_turn, NULL) != 0) return -1;
    return calls;
}

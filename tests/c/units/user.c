/* A unit that only uses casync: the API half needs nothing, also after other headers. */
#include <stdio.h>

#include "casync.h"

int use_library(void);

static void add_one(void *arg) { ++*(int *)arg; }

int use_library(void) {
    casync_loop loop;
    int calls = 0;
    if (casync_loop_init(&loop, NULL) < 0) return -1;
    if (casync_call_soon(&loop, NULL, add_one, &calls) < 0) return -1;
    if (casync_run_until_idle(&loop) < 0) return -1;
    if (casync_loop_close(&loop) < 0) return -1;
    return calls;
}

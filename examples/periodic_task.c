/* A background task that does something every 100 ms, without drift, until it is cancelled.

   Run it from the repository's root:   tcc -run examples/periodic_task.c
   It reports on the work of another task, and ends with it. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <errno.h>
#include <stdio.h>

/* Sleeps until a time, not for a time: how long the printing took does not matter, and what came
   late is made up for. */
static int64_t report(casync_loop *loop, void *arg) {
    const int *done = (const int *)arg;
    int64_t next = casync_time(loop), result = 0;
    while (result >= 0) {
        printf("%d steps done\n", *done);
        next += CASYNC_MS(100);
        result = casync_sleep(next - casync_time(loop));
    }
    if (result == -ECANCELED) printf("the last report: %d steps done\n", *done);
    return result;
}

static int64_t work(int *done) {
    int64_t result = 0;
    while (*done < 20 && result >= 0) {
        result = casync_sleep(CASYNC_MS(25)); /* stands for the work */
        if (result >= 0) ++*done;
    }
    return result;
}

/* The report reads `done`, which is ours: so it is cancelled and waited for before we return. */
static int64_t amain(casync_loop *loop, void *arg) {
    int done = 0;
    int64_t result, reported;
    casync_task *reporter = casync_spawn(loop, report, &done);
    (void)arg;
    if (!reporter) return -ENOMEM;
    result = work(&done);
    casync_task_cancel(reporter);
    reported = casync_join(reporter);
    if (reported != -ECANCELED) fprintf(stderr, "periodic_task: %s\n", casync_strerror(reported));
    return result;
}

int main(void) {
    int64_t result = casync_run(amain, NULL);
    if (result < 0) fprintf(stderr, "periodic_task: %s\n", casync_strerror(result));
    return result < 0;
}

/* Cancellation.

   Run it from the repository's root:   tcc -run examples/study/13_cancellation.c

   A thread cannot be stopped from outside in a way that is safe: it may hold a lock, or be half through
   (pthread_cancel has its own page of warnings). What waits in a loop can: it is only a struct in some list.

   - jobs, timers, watchers, signals: cancel or stop takes them out of the list. No call follows; their memory
     is yours at once.
   - operations: casync_future_cancel. Who waits for them gets -ECANCELED, and their buffer is yours at once:
     what would have been read stays where it is, for the next read.
   - a timeout is a timer that cancels.
   - what a thread has begun goes on: one can only stop waiting for it. */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

static casync_loop loop;
static casync_stream ours, theirs;
static casync_op reading;
static char buffer[16];

static void never(void *arg) { printf("%s was called\n", (const char *)arg); }

static void callbacks(void) {
    static casync_job job;
    static casync_timer timer;
    casync_call_soon(&loop, &job, never, "the job");
    casync_call_later(&loop, &timer, 0, never, "the timer");
    printf("cancel a job: %d", (int)casync_job_cancel(&job));
    printf(", and again: %d\n", (int)casync_job_cancel(&job));
    printf("stop a timer: %d\n", (int)casync_timer_stop(&timer));
    casync_run_until_idle(&loop);
}

static void tell(void *arg) {
    int64_t result = casync_future_result((casync_future *)arg);
    if (result < 0)
        printf("  the read ended: %s\n", casync_strerror(result));
    else
        printf("  the read got: %.*s\n", (int)result, buffer);
}

static casync_future *start_reading(void) {
    casync_future *future = casync_read_op(&theirs, &reading, buffer, sizeof buffer);
    casync_future_add_done_callback(future, NULL, tell, future);
    return future;
}

static void cancel(void *arg) { casync_future_cancel((casync_future *)arg); }

static void operations(void) {
    casync_future *future;
    printf("an operation:\n");
    future = start_reading();
    printf("  cancelled: %d\n", (int)casync_future_cancel(future));
    casync_run_until_idle(&loop);
    printf("  once it is done there is nothing to cancel: %d\n", (int)casync_future_cancel(future));
    casync_write(&ours, "late", 4); /* the read that was cancelled has not taken it away */
    start_reading();
    casync_run_until_idle(&loop);
}

static void timeouts(void) {
    static casync_timer timeout;
    casync_future *future;
    printf("a timeout:\n");
    future = start_reading();
    casync_call_later(&loop, &timeout, CASYNC_MS(10), cancel, future);
    casync_run_until_idle(&loop);
    printf("in time:\n");
    casync_write(&ours, "quick", 5);
    future = start_reading();
    casync_call_later(&loop, &timeout, CASYNC_SECONDS(3600), cancel, future);
    casync_run_until_complete(future);
    printf("  the timer is not needed any more: %d\n", (int)casync_timer_stop(&timeout));
    casync_run_until_idle(&loop);
}

int main(void) {
    if (casync_loop_init(&loop, NULL) < 0) return 1;
    if (casync_socketpair(&loop, &ours, &theirs, NULL, NULL) < 0) return 1;
    callbacks();
    operations();
    timeouts();
    casync_close(&ours);
    casync_close(&theirs);
    return casync_loop_close(&loop) < 0;
}

/* Prints:
     cancel a job: 1, and again: 0
     stop a timer: 1
     an operation:
       cancelled: 1
       the read ended: Operation canceled
       once it is done there is nothing to cancel: 0
       the read got: late
     a timeout:
       the read ended: Operation canceled
     in time:
       the read got: quick
       the timer is not needed any more: 1
*/

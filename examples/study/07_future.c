/* A future: a result that is not there yet.

   Run it from the repository's root:   tcc -run examples/study/07_future.c

   Who has the result calls casync_future_set_result; who wants it adds a callback, or is a task
   that awaits it. It is done once and for ever, with a value (>= 0), an error (< 0) or by being
   cancelled.

   - The callbacks go through the ready queue. set_result calls nobody: whoever calls it cannot be
     surprised by code that runs inside the call, and a chain of futures does not grow the stack.
   - The struct is yours: no allocation, no reference counts. So you say when its use ends:
     casync_future_close, before its memory is used for something else.
   - An error that nobody asked for is told to the loop's exception handler when the future is
     closed.

   tiny.c builds one from nothing. */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

typedef struct waiter {
    const char *name;
    casync_future *future;
    casync_job job; /* its place in the future's list */
} waiter;

static casync_loop loop;
static casync_future future, failed;
static waiter ann = {.name = "ann", .future = &future};
static waiter ben = {.name = "ben", .future = &future};
static waiter eve = {.name = "eve", .future = &failed};

static void tell(void *arg) {
    waiter *w = (waiter *)arg;
    int64_t result = casync_future_result(w->future);
    if (result < 0)
        printf("  %s got an error: %s\n", w->name, casync_strerror(result));
    else
        printf("  %s got %d\n", w->name, (int)result);
}

static void wait_for(waiter *w) { casync_future_add_done_callback(w->future, &w->job, tell, w); }

/* A task waits in the middle of a function; what tell() and its job do for callbacks, its step does
   (page 8). */
static int64_t await_it(casync_loop *running, void *arg) {
    int64_t result = casync_await((casync_future *)arg);
    (void)running;
    printf("  the task got %d\n", (int)result);
    return result;
}

static void produce(void *arg) {
    (void)arg;
    printf("set_result(42)\n");
    casync_future_set_result(&future, 42, NULL);
    printf("set_result has returned, nobody has run yet\n");
}

static const char *allowed(int64_t result) {
    return result == CASYNC_INVALID_STATE ? "invalid state" : "allowed";
}

static void report(casync_loop *l, const casync_exception *exception, void *arg) {
    (void)l;
    (void)arg;
    printf("exception handler: %s\n", casync_strerror(exception->error));
}

int main(void) {
    int64_t result;
    if (casync_loop_init(&loop, NULL) < 0) return 1;
    casync_set_exception_handler(&loop, report, NULL);

    casync_future_init(&loop, &future);
    printf("too early: %s\n", allowed(casync_future_result(&future)));
    wait_for(&ann);
    wait_for(&ben);
    if (casync_spawn_detached(&loop, await_it, &future) < 0) return 1;
    casync_call_soon(&loop, NULL, produce, NULL);
    casync_run_until_idle(&loop);
    result = casync_run_until_complete(&future);
    printf("run_until_complete gives it, too: %d\n", (int)result);
    printf("too late: %s\n", allowed(casync_future_set_result(&future, 43, NULL)));
    casync_future_close(&future);

    casync_future_init(&loop, &failed);
    wait_for(&eve);
    casync_future_set_result(&failed, -EHOSTUNREACH, NULL);
    casync_run_until_idle(&loop);
    casync_future_close(&failed);

    casync_future_init(&loop, &failed);
    casync_future_set_result(&failed, -ETIMEDOUT, NULL);
    casync_future_close(&failed); /* nobody has asked for this error */
    return casync_loop_close(&loop) < 0;
}

/* Prints:
     too early: invalid state
     set_result(42)
     set_result has returned, nobody has run yet
       ann got 42
       ben got 42
       the task got 42
     run_until_complete gives it, too: 42
     too late: invalid state
       eve got an error: No route to host
     exception handler: Connection timed out
*/

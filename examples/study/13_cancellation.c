/* Cancellation.

   Run it from the repository's root:   tcc -run examples/study/13_cancellation.c

   A thread cannot be stopped from outside in a way that is safe: it may hold a lock, or be half
   through (pthread_cancel has its own page of warnings). What waits in a loop can: it is only in
   some list.

   - jobs, timers, watchers, signals: cancel or stop takes them out of the list. No call follows;
     their memory is yours at once.
   - operations: casync_future_cancel. Who waits for them gets -ECANCELED, and their buffer is yours
     at once: what would have been read stays where it is, for the next read.
   - tasks: casync_task_cancel is a request. The await in which the task stands, or its next one,
     returns -ECANCELED, once. The task cleans up, which may take awaits, and returns. Await it to
     know that it has. Who does not look at what a wait returns swallows the request, and cannot be
     cancelled. So gcc and clang warn of a result that nobody looks at; casync_ignore says that it
     is meant.
   - the request goes down the chain of awaits to what really waits; casync_shield keeps it from
     going further down. A timeout is a timer that cancels: casync_wait_for, casync_timeout_begin.
   - what a thread has begun goes on: one can only stop waiting for it. casync_run_in_executor takes
     a function, `discard`, that frees what it brings when nobody waits any more. */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

static void never(void *arg) { printf("%s was called\n", (const char *)arg); }

static void callbacks(casync_loop *loop) {
    casync_job job = {0};
    casync_timer timer = {0};
    casync_call_soon(loop, &job, never, "the job");
    casync_call_later(loop, &timer, 0, never, "the timer");
    printf("cancel a job: %d", (int)casync_job_cancel(&job));
    printf(", and again: %d\n", (int)casync_job_cancel(&job));
    printf("stop a timer: %d\n", (int)casync_timer_stop(&timer));
    casync_ignore(casync_sleep(CASYNC_MS(1))); /* nobody called, and both may go */
}

static void operations(casync_loop *loop) {
    static casync_stream ours, theirs;
    casync_op op;
    casync_future *reading;
    char buffer[16];
    int64_t n;
    casync_socketpair(loop, &ours, &theirs, NULL, NULL);
    reading = casync_read_op(&theirs, &op, buffer, sizeof buffer);
    casync_future_cancel(reading);
    printf("a read: %s\n", casync_strerror(casync_await(reading)));
    casync_write(&ours, "late", 4); /* the read that was cancelled does not take it away */
    n = casync_await(casync_read_op(&theirs, &op, buffer, sizeof buffer));
    printf("the next read: %.*s\n", (int)n, buffer);
    casync_close(&ours);
    casync_close(&theirs);
}

static int64_t worker(casync_loop *loop, void *arg) {
    const char *name = (const char *)arg;
    int64_t result;
    (void)loop;
    printf("  %s begins\n", name);
    result = casync_sleep(CASYNC_SECONDS(3600));
    if (result == -ECANCELED) printf("  %s is cancelled where it stands\n", name);
    printf("  %s cleans up\n", name);
    return result;
}

static int64_t outer(casync_loop *loop, void *arg) {
    return casync_join(casync_spawn(loop, worker, arg));
}

static int64_t stubborn(casync_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    casync_ignore(casync_sleep(CASYNC_SECONDS(3600)));
    return 42;
}

static int64_t wait_shielded(casync_loop *loop, void *arg) {
    (void)loop;
    return casync_shield((casync_future *)arg);
}

static casync_task *spawn_and_start(casync_loop *loop, casync_coroutine coroutine, void *arg) {
    casync_task *task = casync_spawn(loop, coroutine, arg);
    casync_ignore(casync_sleep(0)); /* nobody cancels this one */
    casync_ignore(casync_sleep(0));
    return task;
}

static void tasks(casync_loop *loop) {
    casync_task *task = spawn_and_start(loop, outer, "inner");
    casync_future saving;
    printf("cancel a task: %d\n", (int)casync_task_cancel(task));
    printf("who awaits it sees it: %s\n", casync_strerror(casync_join(task)));

    task = casync_spawn(loop, worker, "never begun");
    casync_task_cancel(task); /* before its first step: then not a line of it runs */
    printf("cancelled before it began: %s\n", casync_strerror(casync_join(task)));

    task = spawn_and_start(loop, stubborn, NULL);
    casync_task_cancel(task);
    printf("one that does not listen: %d\n", (int)casync_join(task));

    task = casync_spawn(loop, worker, "slow");
    printf("a timeout: %s\n", casync_strerror(casync_wait_for(&task->future, CASYNC_MS(10))));
    casync_task_release(task);

    casync_future_init(loop, &saving);
    task = spawn_and_start(loop, wait_shielded, &saving);
    casync_task_cancel(task);
    printf("who waits before the shield: %s\n", casync_strerror(casync_join(task)));
    casync_future_set_result(&saving, 1, NULL);
    printf("what is behind it: %d\n", (int)casync_await(&saving));
    casync_future_close(&saving);
}

static int64_t amain(casync_loop *loop, void *arg) {
    (void)arg;
    callbacks(loop);
    operations(loop);
    tasks(loop);
    return 0;
}

int main(void) { return casync_run(amain, NULL) < 0; }

/* Prints:
     cancel a job: 1, and again: 0
     stop a timer: 1
     a read: Operation canceled
     the next read: late
       inner begins
     cancel a task: 1
       inner is cancelled where it stands
       inner cleans up
     who awaits it sees it: Operation canceled
     cancelled before it began: Operation canceled
     one that does not listen: 42
       slow begins
       slow is cancelled where it stands
       slow cleans up
     a timeout: Connection timed out
     who waits before the shield: Operation canceled
     what is behind it: 1
*/

/* groups_fixture.h - futures, and tasks in their place, that are waited for together. */
#ifndef GROUPS_FIXTURE_H
#define GROUPS_FIXTURE_H

#include "loop_fixture.h"

/* Futures a to e, and the same as what is waited for. */
enum { FUTURES = 5 };
HELPER casync_future futures[FUTURES];
HELPER casync_waiter waiters[FUTURES];

HELPER void init_futures(void) {
    int i;
    memset(waiters, 0, sizeof waiters);
    for (i = 0; i < FUTURES; i++) {
        EQ(casync_future_init(&loop, &futures[i]), 0);
        waiters[i].future = &futures[i];
    }
}

HELPER void open_loop_and_futures(void) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    init_futures();
}

HELPER void set_result(int number, int64_t result) {
    EQ(casync_future_set_result(&futures[number], result, NULL), 0);
}

/* Sleepers in the place of the futures. */
HELPER casync_task *tasks[FUTURES];
HELPER void spawn_as(int number, casync_coroutine coroutine, int milliseconds) {
    tasks[number] = spawn(coroutine, MILLISECONDS(milliseconds));
    waiters[number].future = &tasks[number]->future;
}

/* A stackless task that awaits one future. */
typedef struct stackless {
    casync_task task;
    casync_future *awaited;
    int64_t got;
} stackless;
HELPER int64_t await_step(casync_task *task) {
    stackless *s = (stackless *)(void *)task;
    CASYNC_BEGIN(task);
    CASYNC_AWAIT(task, s->got, s->awaited);
    CASYNC_END(task, s->got);
}

HELPER casync_wait_set set;

HELPER casync_future *gather(size_t count, int mode) {
    return casync_gather_op(&loop, &set, waiters, count, mode);
}

HELPER void join_all(int count) {
    int i;
    for (i = 0; i < count; i++) casync_ignore(casync_join(tasks[i]));
}

HELPER int64_t says_that_it_runs(casync_loop *where, void *arg) {
    (void)where;
    say(arg);
    return 0;
}

#endif /* GROUPS_FIXTURE_H */

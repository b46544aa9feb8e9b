/* tasks_fixture.h - an actor, which is the same task written both ways; something to wait for. */
#ifndef TASKS_FIXTURE_H
#define TASKS_FIXTURE_H

#define CASYNC_SYSCALL_TABLE
#include "loop_fixture.h"

/* Under a sanitizer frames are larger, and a stack has a shadow. */
#if !defined(__has_feature)
#define __has_feature(name) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
enum { SANITIZED = true, SANITIZED_THREADS = true };
#elif defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
enum { SANITIZED = true, SANITIZED_THREADS = false };
#else
enum { SANITIZED = false, SANITIZED_THREADS = false };
#endif

/* Awaits some futures one after the other (NULL: a turn), and remembers what came of each. Its
   result is the last of these, or the first -ECANCELED unless it goes on after that. */
enum { MAX_AWAITED = 4 };
typedef struct actor {
    casync_task stackless; /* first: it is the task of the stackless one */
    casync_task *task;     /* whichever it is */
    casync_future *awaited[MAX_AWAITED];
    int64_t got[MAX_AWAITED];
    int count;                           /* how many it awaits */
    int awaits;                          /* which of these it awaits now */
    bool goes_on;                        /* after it was cancelled */
    void (*before)(struct actor *actor); /* called in the task before each await, or NULL */
    int64_t result;                      /* instead of the last await's, if not 0 */
} actor;

/* Does it end here? Then *result is set. */
HELPER bool act_ends(actor *a, int64_t *result) {
    int64_t got = a->got[a->awaits++];
    bool cancelled = got == -ECANCELED && !a->goes_on;
    *result = a->result && !cancelled ? a->result : got;
    return cancelled || a->awaits >= a->count;
}

HELPER int64_t act_stackful(casync_loop *where, void *arg) {
    actor *a = (actor *)arg;
    int64_t result = 0;
    (void)where;
    for (;;) {
        casync_future *future = a->awaited[a->awaits];
        if (a->before) a->before(a);
        a->got[a->awaits] = future ? casync_await(future) : casync_sleep(0);
        if (act_ends(a, &result)) return result;
    }
}

HELPER int64_t act_stackless(casync_task *task) {
    actor *a = (actor *)(void *)task;
    int64_t result = 0;
    CASYNC_BEGIN(task);
    for (;;) {
        if (a->before) a->before(a);
        CASYNC_AWAIT(task, a->got[a->awaits], a->awaited[a->awaits]);
        if (act_ends(a, &result)) break;
    }
    CASYNC_END(task, result);
}

HELPER void start(actor *a, bool stackful) {
    if (a->count == 0) a->count = 1;
    if (stackful) {
        a->task = spawn(act_stackful, a);
        return;
    }
    EQ(casync_task_start(&loop, &a->stackless, act_stackless), 0);
    a->task = &a->stackless;
}

/* Gives its handle back, after it has ended. */
HELPER void finish(actor *a) {
    EXPECT(casync_future_done(&a->task->future));
    if (a->task == &a->stackless)
        casync_future_close(&a->stackless.future);
    else
        casync_task_release(a->task);
}

HELPER int64_t run(actor *a) { return casync_run_until_complete(&a->task->future); }

/* A test of both kinds of task. */
#define TEST_BOTH(name)                                                                            \
    static void both_##name(bool stackful);                                                        \
    TEST(stackful_##name) { both_##name(true); }                                                   \
    TEST(stackless_##name) { both_##name(false); }                                                 \
    static void both_##name(bool stackful)

HELPER int advice_refused, maps_left;
HELPER int64_t refusing_madvise(void *page, size_t size, int advice) {
    return advice == advice_refused ? -EINVAL : casync__direct_madvise(page, size, advice);
}

HELPER void refuse_guard_install(void) {
    advice_refused = 102; /* MADV_GUARD_INSTALL */
    casync_syscalls.madvise = refusing_madvise;
}

HELPER casync_future gate; /* something to wait for */
HELPER actor actors[3];    /* zeroed, as each test is a process of its own */

HELPER void open_loop_and_gate(void) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_future_init(&loop, &gate), 0);
}

HELPER void start_at_gate(actor *a, bool stackful) {
    a->awaited[0] = &gate;
    start(a, stackful);
    turns(1);
    EXPECT(!casync_future_done(&a->task->future));
}

HELPER void say_number_of_await(actor *a) { say_number("await", a->awaits); }

typedef struct ticker {
    casync_task task;
    casync_timer_op op;
    int64_t n;
} ticker;
HELPER int64_t tick(casync_task *task) {
    ticker *t = (ticker *)(void *)task;
    int64_t slept;
    CASYNC_BEGIN(task);
    for (t->n = 0; t->n < 3; t->n++) {
        CASYNC_AWAIT(task, slept, casync_sleep_op(task->future.loop, &t->op, CASYNC_MS(10)));
        if (slept < 0) return slept;
        CASYNC_YIELD(task, slept);
        if (slept < 0) return slept;
    }
    CASYNC_END(task, t->n);
}

HELPER char values[8][2] = {"0", "1", "2", "3", "4", "5", "6", "7"};
HELPER casync_context_var variable = {values[0]}, another = {NULL};

HELPER int64_t run_with_test_allocator(casync_coroutine coroutine, void *arg) {
    casync_loop_desc desc = ZERO;
    int64_t result;
    int descriptors = open_descriptors();
    desc.allocator = test_allocator();
    desc.clock = CASYNC_CLOCK_VIRTUAL;
    desc.exception_handler = say_exception;
    result = casync_run_with(&desc, coroutine, arg);
    EQ(memory.live, 0);
    EQ(open_descriptors(), descriptors);
    PTR_EQ(casync_get_running_loop(), NULL);
    return result;
}

#endif /* TASKS_FIXTURE_H */

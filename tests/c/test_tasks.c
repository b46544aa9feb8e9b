/* >> tasks: stackful and stackless ones, awaiting and cancelling, names, contexts, generators,
   casync_run. */
#define CASYNC_SYSCALL_TABLE
#include "support.h"

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

/* >> an actor: the same task written both ways ------------------------------------------------ */

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
static bool act_ends(actor *a, int64_t *result) {
    int64_t got = a->got[a->awaits++];
    bool cancelled = got == -ECANCELED && !a->goes_on;
    *result = a->result && !cancelled ? a->result : got;
    return cancelled || a->awaits >= a->count;
}

static int64_t act_stackful(casync_loop *where, void *arg) {
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

static int64_t act_stackless(casync_task *task) {
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

static void start(actor *a, bool stackful) {
    if (a->count == 0) a->count = 1;
    if (stackful) {
        a->task = spawn(act_stackful, a);
        return;
    }
    EQ(casync_task_start(&loop, &a->stackless, act_stackless), 0);
    a->task = &a->stackless;
}

/* Gives its handle back, after it has ended. */
static void finish(actor *a) {
    EXPECT(casync_future_done(&a->task->future));
    if (a->task == &a->stackless)
        casync_future_close(&a->stackless.future);
    else
        casync_task_release(a->task);
}

static int64_t run(actor *a) { return casync_run_until_complete(&a->task->future); }

/* A test of both kinds of task. */
#define TEST_BOTH(name)                                                                            \
    static void both_##name(bool stackful);                                                        \
    TEST(stackful_##name) { both_##name(true); }                                                   \
    TEST(stackless_##name) { both_##name(false); }                                                 \
    static void both_##name(bool stackful)

/* >> a kernel that refuses -------------------------------------------------------------------- */

static int advice_refused, maps_left;
static int64_t refusing_madvise(void *page, size_t size, int advice) {
    return advice == advice_refused ? -EINVAL : casync__direct_madvise(page, size, advice);
}
static int64_t refusing_mprotect(void *page, size_t size, int rights) {
    (void)page, (void)size, (void)rights;
    return -ENOMEM;
}
static int64_t refusing_map(size_t size) {
    return maps_left-- > 0 ? casync__direct_map(size) : -ENOMEM;
}

static void refuse_guard_install(void) {
    advice_refused = 102; /* MADV_GUARD_INSTALL */
    casync_syscalls.madvise = refusing_madvise;
}
static void refuse_mprotect(void) { casync_syscalls.mprotect = refusing_mprotect; }

/* >> a loop, and something to wait for -------------------------------------------------------- */

static casync_future gate; /* something to wait for */
static actor actors[3];    /* zeroed, as each test is a process of its own */

static void open_loop_and_gate(void) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_future_init(&loop, &gate), 0);
}

static void start_at_gate(actor *a, bool stackful) {
    a->awaited[0] = &gate;
    start(a, stackful);
    run_turns(1);
    EXPECT(!casync_future_done(&a->task->future));
}

/* >> awaiting --------------------------------------------------------------------------------- */

static void say_number_of_await(actor *a) { say_number("await", a->awaits); }

TEST_BOTH(task_begins_in_the_next_turn) {
    actor *a = &actors[0];
    open_loop_and_gate();
    a->before = say_number_of_await;
    a->awaited[0] = &gate;
    start(a, stackful);
    SAID("");
    run_turns(1);
    SAID("await=0");
    EQ(casync_future_set_result(&gate, 7, NULL), 0);
    EQ(run(a), 7);
    EQ(a->task->future.state, CASYNC_FUTURE_DONE);
    finish(a);
    close_loop();
}

TEST_BOTH(await_of_what_is_done_costs_no_turn) {
    actor *a = &actors[0];
    int i;
    open_loop_and_gate();
    EQ(casync_future_set_result(&gate, 1, NULL), 0);
    for (i = 0; i < MAX_AWAITED; i++) a->awaited[i] = &gate;
    a->count = MAX_AWAITED;
    start(a, stackful);
    run_turns(1);
    EXPECT(casync_future_done(&a->task->future));
    EQ(run(a), 1);
    finish(a);
    close_loop();
}

TEST_BOTH(await_of_nothing_takes_a_turn) {
    actor *a = &actors[0];
    open_loop_and_gate();
    a->count = 3;
    start(a, stackful);
    run_turns(3);
    EXPECT(!casync_future_done(&a->task->future));
    run_turns(1);
    EQ(run(a), 0);
    finish(a);
    close_loop();
}

/* The awaiting task and the awaited one: all four combinations. */
static void await_task(bool stackful, bool inner_stackful) {
    actor *outer = &actors[0], *inner = &actors[1];
    open_loop_and_gate();
    inner->awaited[0] = &gate;
    start(inner, inner_stackful);
    outer->awaited[0] = &inner->task->future;
    start(outer, stackful);
    run_turns(2);
    EQ(casync_future_set_result(&gate, 42, NULL), 0);
    EQ(run(outer), 42);
    finish(outer);
    finish(inner);
    close_loop();
}
TEST_BOTH(task_awaits_a_stackful_one) { await_task(stackful, true); }
TEST_BOTH(task_awaits_a_stackless_one) { await_task(stackful, false); }

TEST_BOTH(await_gives_the_error_which_counts_as_retrieved) {
    actor *a = &actors[0];
    open_loop_and_gate();
    start_at_gate(a, stackful);
    EQ(casync_future_set_result(&gate, -EIO, NULL), 0);
    EQ(run(a), -EIO);
    EQ(a->task->future.state, CASYNC_FUTURE_FAILED);
    finish(a);
    casync_future_close(&gate);
    close_loop();
}

TEST_BOTH(failure_that_nobody_retrieves_is_reported) {
    actor *a = &actors[0];
    open_loop_and_gate();
    a->result = -EDOM;
    start_at_gate(a, stackful);
    EQ(casync_future_set_result(&gate, 0, NULL), 0);
    run_turns(1);
    SAID("");
    finish(a);
    SAID("exception=-33");
    close_loop();
}

TEST_BOTH(cancelled_future_cancels_the_task_that_awaits_it) {
    actor *a = &actors[0];
    open_loop_and_gate();
    start_at_gate(a, stackful);
    EQ(casync_future_cancel(&gate), 1);
    EQ(run(a), -ECANCELED);
    EQ(a->task->future.state, CASYNC_FUTURE_CANCELLED);
    EQ(a->task->cancel_requests, 0);
    finish(a);
    close_loop();
}

static void say_end(void *word) { say(word); }

TEST_BOTH(all_that_wait_for_a_future_go_on_once_and_in_order) {
    static casync_job jobs[3];
    static char words[3][2] = {"0", "1", "2"};
    int i;
    open_loop_and_gate();
    for (i = 0; i < 3; i++) {
        start_at_gate(&actors[i], stackful);
        EQ(casync_future_add_done_callback(&actors[i].task->future, &jobs[i], say_end, words[i]),
           0);
    }
    EQ(casync_future_set_result(&gate, 5, NULL), 0);
    EQ(casync_future_set_result(&gate, 6, NULL), CASYNC_INVALID_STATE);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("0 1 2");
    for (i = 0; i < 3; i++) {
        EQ(run(&actors[i]), 5);
        EQ(actors[i].awaits, 1);
        finish(&actors[i]);
    }
    close_loop();
}

static actor *expected_current;
static void expect_to_be_current(actor *a) {
    PTR_EQ(casync_current_task(), a->task);
    expected_current = a;
}
TEST_BOTH(current_task_is_the_one_that_runs) {
    int i;
    open_loop_and_gate();
    PTR_EQ(casync_current_task(), NULL);
    for (i = 0; i < 2; i++) {
        actors[i].count = 3;
        actors[i].before = expect_to_be_current;
        start(&actors[i], stackful == (i == 0));
    }
    EQ(casync_run_until_idle(&loop), 0);
    PTR_EQ(casync_current_task(), NULL);
    PTR_EQ(expected_current, &actors[1]);
    finish(&actors[0]);
    finish(&actors[1]);
    close_loop();
}

TEST_BOTH(run_that_is_stopped_leaves_the_task_pending) {
    actor *a = &actors[0];
    open_loop_and_gate();
    start_at_gate(a, stackful);
    casync_stop(&loop);
    EQ(run(a), CASYNC_INVALID_STATE);
    EXPECT(!casync_future_done(&a->task->future));
    EQ(casync_task_cancel(a->task), 1);
    EQ(run(a), -ECANCELED);
    finish(a);
    close_loop();
}

/* >> sleeping --------------------------------------------------------------------------------- */

IN_TASK(sleep_takes_its_time) {
    EQ(casync_sleep(CASYNC_MS(50)), 0);
    EQ(casync_time(&loop), CASYNC_MS(50));
    EQ(casync_sleep(CASYNC_MS(50)), 0);
    EQ(casync_time(&loop), CASYNC_MS(100));
}

/* Each zero sleep lets the others run once. */
static int64_t counts_turns(casync_loop *where, void *word) {
    int i;
    (void)where;
    for (i = 0; i < 3; i++) {
        say(word);
        EQ(casync_sleep(i == 1 ? -1 : 0), 0);
    }
    return 0;
}
IN_TASK(sleep_of_nothing_lets_the_others_run_for_a_turn) {
    casync_task *a = spawn(counts_turns, WORD("a")), *b = spawn(counts_turns, WORD("b"));
    EQ(casync_join(a), 0);
    EQ(casync_join(b), 0);
    EQ(casync_time(&loop), 0);
    SAID("a b a b a b");
}

IN_TASK(sleepers_wake_in_the_order_of_their_deadlines) {
    static const int delays[] = {30, 10, 20, 10};
    casync_task *tasks[4];
    int i;
    for (i = 0; i < 4; i++) tasks[i] = spawn(sleeps, MILLISECONDS(delays[i]));
    for (i = 0; i < 4; i++) {
        EQ(casync_join(tasks[i]), delays[i]);
        if (i == 0) EQ(casync_time(&loop), CASYNC_MS(30));
    }
}

IN_TASK(cancelled_sleep_takes_its_timer_back) {
    casync_task *task = spawn(sleeps, MILLISECONDS(1000000));
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_task_cancel(task), 1);
    EQ(casync_join(task), -ECANCELED);
    EQ(loop.active, 0);
    EQ(casync_time(&loop), CASYNC_MS(1));
}

TEST(closed_sleep_takes_its_timer_back) {
    casync_timer_op op;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    PTR_EQ(casync_sleep_op(&loop, &op, CASYNC_SECONDS(1)), &op.future);
    casync_future_close(&op.future);
    EXPECT(!casync_loop_alive(&loop));
    close_loop();
}

typedef struct ticker {
    casync_task task;
    casync_timer_op op;
    int64_t n;
} ticker;
static int64_t tick(casync_task *task) {
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
TEST(stackless_task_sleeps_in_a_loop) {
    static ticker t;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_task_start(&loop, &t.task, tick), 0);
    EQ(casync_run_until_complete(&t.task.future), 3);
    EQ(casync_time(&loop), CASYNC_MS(30));
    casync_future_close(&t.task.future);
    close_loop();
}

/* >> cancelling ------------------------------------------------------------------------------- */

TEST_BOTH(cancelled_task_ends) {
    actor *a = &actors[0];
    open_loop_and_gate();
    start_at_gate(a, stackful);
    EQ(casync_task_cancel(a->task), 1);
    EQ(gate.state, CASYNC_FUTURE_CANCELLED);
    EXPECT(!casync_future_done(&a->task->future)); /* it hears of it in its turn */
    EQ(a->task->cancel_requests, 1);
    EQ(run(a), -ECANCELED);
    EQ(a->task->future.state, CASYNC_FUTURE_CANCELLED);
    EQ(casync_task_cancel(a->task), 0);
    EQ(casync_future_cancel(&a->task->future), 0);
    finish(a);
    close_loop();
}

TEST_BOTH(task_cancelled_before_it_ran_ends_without_running) {
    actor *a = &actors[0];
    open_loop_and_gate();
    a->before = say_number_of_await;
    start(a, stackful);
    EQ(casync_future_cancel(&a->task->future), 1); /* the same as casync_task_cancel */
    EQ(run(a), -ECANCELED);
    SAID("");
    finish(a);
    close_loop();
}

TEST_BOTH(task_may_catch_its_cancellation_and_return) {
    actor *a = &actors[0];
    open_loop_and_gate();
    a->goes_on = true;
    a->result = 42;
    start_at_gate(a, stackful);
    EQ(casync_task_cancel(a->task), 1);
    EQ(run(a), 42);
    EQ(a->got[0], -ECANCELED);
    EQ(a->task->future.state, CASYNC_FUTURE_DONE);
    finish(a);
    close_loop();
}

TEST_BOTH(task_is_cancelled_once_for_a_request) {
    casync_future next;
    actor *a = &actors[0];
    open_loop_and_gate();
    EQ(casync_future_init(&loop, &next), 0);
    a->goes_on = true;
    a->count = 2;
    a->awaited[1] = &next;
    start_at_gate(a, stackful);
    EQ(casync_task_cancel(a->task), 1);
    run_turns(3);
    EQ(next.state, CASYNC_FUTURE_PENDING);
    EQ(casync_future_set_result(&next, 42, NULL), 0);
    EQ(run(a), 42);
    finish(a);
    close_loop();
}

TEST_BOTH(request_between_two_turns_waits_for_the_next_await) {
    casync_future next;
    actor *a = &actors[0];
    open_loop_and_gate();
    EQ(casync_future_init(&loop, &next), 0);
    a->count = 2;
    a->awaited[1] = &next;
    start_at_gate(a, stackful);
    EQ(casync_future_set_result(&gate, 7, NULL), 0);
    EQ(casync_task_cancel(a->task), 1);
    EQ(run(a), -ECANCELED);
    EQ(a->got[0], 7); /* what was done is not lost */
    EQ(a->got[1], -ECANCELED);
    EQ(next.state, CASYNC_FUTURE_CANCELLED);
    finish(a);
    close_loop();
}

TEST_BOTH(request_is_kept_across_awaits_that_do_not_wait) {
    actor *a = &actors[0];
    open_loop_and_gate();
    a->count = 4;
    a->awaited[1] = a->awaited[2] = &gate;
    start_at_gate(a, stackful);
    EQ(casync_future_set_result(&gate, 7, NULL), 0);
    EQ(casync_task_cancel(a->task), 1);
    EQ(run(a), -ECANCELED);
    EQ(a->got[2], 7);
    EQ(a->got[3], -ECANCELED); /* a turn */
    finish(a);
    close_loop();
}

static void cancel_oneself(actor *a) { EQ(casync_task_cancel(a->task), 1); }

TEST_BOTH(task_that_cancels_itself_is_cancelled_in_its_next_await) {
    actor *a = &actors[0];
    open_loop_and_gate();
    a->before = cancel_oneself;
    a->awaited[0] = &gate;
    start(a, stackful);
    EQ(run(a), -ECANCELED);
    EQ(gate.state, CASYNC_FUTURE_CANCELLED);
    finish(a);
    close_loop();
}

TEST_BOTH(task_that_cancels_itself_at_its_end_is_cancelled) {
    actor *a = &actors[0];
    open_loop_and_gate();
    EQ(casync_future_set_result(&gate, 12, NULL), 0);
    a->before = cancel_oneself;
    a->awaited[0] = &gate;
    start(a, stackful);
    EQ(run(a), -ECANCELED);
    EQ(a->task->future.state, CASYNC_FUTURE_CANCELLED);
    finish(a);
    close_loop();
}

TEST_BOTH(failure_is_not_hidden_by_a_request_to_cancel) {
    actor *a = &actors[0];
    open_loop_and_gate();
    EQ(casync_future_set_result(&gate, 12, NULL), 0);
    a->before = cancel_oneself;
    a->awaited[0] = &gate;
    a->result = -EIO;
    start(a, stackful);
    EQ(run(a), -EIO);
    EQ(a->task->future.state, CASYNC_FUTURE_FAILED);
    finish(a);
    close_loop();
}

TEST_BOTH(cancel_ends_a_turn_of_waiting) {
    actor *a = &actors[0];
    open_loop_and_gate();
    a->count = 3;
    start(a, stackful);
    run_turns(1);
    EQ(casync_task_cancel(a->task), 1);
    EQ(run(a), -ECANCELED);
    EQ(a->awaits, 1);
    finish(a);
    close_loop();
}

TEST_BOTH(cancelling_both_the_future_and_the_task) {
    actor *a = &actors[0];
    open_loop_and_gate();
    start_at_gate(a, stackful);
    EQ(casync_future_cancel(&gate), 1);
    EQ(casync_task_cancel(a->task), 1);
    EQ(run(a), -ECANCELED);
    finish(a);
    close_loop();
}

/* A chain of tasks is cancelled at its far end, and hears of it one after the other. */
static void cancel_chain(bool stackful, bool inner_stackful) {
    actor *outer = &actors[0], *inner = &actors[1];
    open_loop_and_gate();
    start_at_gate(inner, inner_stackful);
    outer->awaited[0] = &inner->task->future;
    start(outer, stackful);
    run_turns(1);
    EQ(casync_task_cancel(outer->task), 1);
    EQ(gate.state, CASYNC_FUTURE_CANCELLED);
    EQ(outer->task->cancel_requests, 1);
    EQ(inner->task->cancel_requests, 1);
    EQ(run(outer), -ECANCELED);
    EQ(run(inner), -ECANCELED);
    finish(outer);
    finish(inner);
    close_loop();
}
TEST_BOTH(cancel_reaches_a_stackful_task_that_is_awaited) { cancel_chain(stackful, true); }
TEST_BOTH(cancel_reaches_a_stackless_task_that_is_awaited) { cancel_chain(stackful, false); }

TEST_BOTH(inner_task_that_catches_keeps_the_outer_one_going) {
    actor *outer = &actors[0], *inner = &actors[1];
    open_loop_and_gate();
    inner->goes_on = true;
    inner->result = 3;
    start_at_gate(inner, stackful);
    outer->awaited[0] = &inner->task->future;
    start(outer, stackful);
    run_turns(1);
    EQ(casync_task_cancel(outer->task), 1);
    EQ(run(outer), 3);
    finish(outer);
    finish(inner);
    close_loop();
}

/* The request is pending when the await begins: it goes to the awaited task at once. */
TEST_BOTH(pending_request_cancels_the_task_that_is_awaited_next) {
    actor *outer = &actors[0], *inner = &actors[1];
    open_loop_and_gate();
    start_at_gate(inner, stackful);
    outer->before = cancel_oneself;
    outer->awaited[0] = &inner->task->future;
    start(outer, stackful);
    EQ(run(outer), -ECANCELED);
    EQ(run(inner), -ECANCELED);
    EQ(gate.state, CASYNC_FUTURE_CANCELLED);
    finish(outer);
    finish(inner);
    close_loop();
}

/* Those who await each other wait for ever; but they can be cancelled. */
TEST_BOTH(tasks_that_await_each_other_can_be_cancelled) {
    actor *a = &actors[0], *b = &actors[1], *before_them = &actors[2];
    open_loop_and_gate();
    a->awaited[0] = b->awaited[0] = &gate;
    start(a, stackful);
    start(b, stackful);
    a->awaited[0] = &b->task->future;
    b->awaited[0] = &a->task->future;
    before_them->awaited[0] = &a->task->future;
    start(before_them, stackful);
    run_turns(1);
    EQ(casync_task_cancel(before_them->task), 1);
    EQ(run(before_them), -ECANCELED);
    EQ(run(a), -ECANCELED);
    EQ(run(b), -ECANCELED);
    finish(a);
    finish(b);
    finish(before_them);
    close_loop();
}

TEST_BOTH(task_whose_future_is_closed_is_cancelled) {
    actor *a = &actors[0];
    open_loop_and_gate();
    start_at_gate(a, stackful);
    casync_future_close(&gate);
    memset(&gate, 0xdd, sizeof gate);
    EQ(run(a), -ECANCELED);
    finish(a);
    close_loop();
}

TEST_BOTH(task_that_awaits_a_closed_task_is_cancelled) {
    actor *outer = &actors[0], *inner = &actors[1];
    open_loop_and_gate();
    start_at_gate(inner, false);
    outer->awaited[0] = &inner->task->future;
    start(outer, stackful);
    run_turns(1);
    casync_future_close(&inner->task->future);
    memset(inner, 0xdd, sizeof *inner);
    EQ(run(outer), -ECANCELED);
    EQ(outer->task->cancel_requests, 0);
    finish(outer);
    close_loop();
}

TEST_BOTH(uncancel_takes_a_request_back) {
    actor *a = &actors[0];
    open_loop_and_gate();
    start_at_gate(a, stackful);
    EQ(casync_future_set_result(&gate, 42, NULL), 0);
    EQ(casync_task_cancel(a->task), 1);
    EQ(casync_task_cancel(a->task), 1);
    EQ(a->task->cancel_requests, 2);
    EQ(casync_task_uncancel(a->task), 1);
    EQ(casync_task_uncancel(a->task), 0);
    EQ(casync_task_uncancel(a->task), 0);
    EQ(run(a), 42);
    EQ(a->task->future.state, CASYNC_FUTURE_DONE);
    finish(a);
    close_loop();
}

TEST_BOTH(uncancelled_task_can_be_cancelled_again) {
    casync_future next;
    actor *a = &actors[0];
    open_loop_and_gate();
    EQ(casync_future_init(&loop, &next), 0);
    a->goes_on = true;
    a->count = 2;
    a->awaited[1] = &next;
    start_at_gate(a, stackful);
    EQ(casync_task_cancel(a->task), 1);
    run_turns(1);
    EQ(casync_task_uncancel(a->task), 0);
    EQ(casync_task_cancel(a->task), 1);
    EQ(a->task->cancel_requests, 1);
    EQ(run(a), -ECANCELED);
    EQ(casync_task_uncancel(a->task), 0); /* too late */
    EQ(a->task->future.state, CASYNC_FUTURE_CANCELLED);
    finish(a);
    close_loop();
}

TEST_BOTH(cleaning_up_may_await) {
    actor *a = &actors[0];
    casync_timer_op op;
    open_loop_and_gate();
    a->goes_on = true;
    a->count = 2;
    a->awaited[1] = casync_sleep_op(&loop, &op, CASYNC_MS(10));
    start_at_gate(a, stackful);
    EQ(casync_task_cancel(a->task), 1);
    EQ(run(a), 0);
    EQ(casync_time(&loop), CASYNC_MS(10));
    finish(a);
    close_loop();
}

/* >> handles ---------------------------------------------------------------------------------- */

IN_TASK(handles_are_counted) {
    casync_task *task = spawn(sleeps, MILLISECONDS(5));
    PTR_EQ(casync_task_retain(task), task);
    EQ(casync_join(task), 5);
    EQ(casync_await(&task->future), 5); /* awaiting does not consume */
    casync_task_release(task);
}

IN_TASK(task_without_a_handle_goes_on_and_reports_its_failure) {
    casync_task_release(spawn(fails_after, MILLISECONDS(5)));
    casync_task_release(spawn(sleeps, MILLISECONDS(5)));
    EQ(casync_sleep(CASYNC_MS(4)), 0);
    SAID("");
    EQ(casync_sleep(CASYNC_MS(2)), 0);
    SAID("exception=-5");
}

/* The handle is given back while somebody awaits the task. */
static int64_t awaits(casync_loop *where, void *future) {
    (void)where;
    return casync_await((casync_future *)future);
}
IN_TASK(who_awaits_a_task_keeps_it) {
    casync_task *task = spawn(fails_after, MILLISECONDS(5));
    casync_task *waiter = spawn(awaits, &task->future);
    EQ(casync_sleep(0), 0);
    casync_task_release(task);
    EQ(casync_join(waiter), -EIO);
}

IN_TASK(cancelled_join_gives_the_reference_back) {
    casync_task *task = spawn(sleeps, MILLISECONDS(5));
    EQ(casync_task_cancel(casync_current_task()), 1);
    EQ(casync_join(task), -ECANCELED); /* the loop could not be closed if there were one left */
}

TEST(a_loop_with_stackful_tasks_cannot_be_closed) {
    casync_task *task;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    task = spawn(sleeps, MILLISECONDS(5));
    EQ(casync_loop_close(&loop), CASYNC_STILL_OPEN);
    EQ(casync_run_until_complete(&task->future), 5);
    casync_task_release(task);
    close_loop();
}

TEST(spawn_refuses_what_makes_no_sense) {
    casync_task_desc desc = ZERO;
    casync_task *task = NULL;
    casync_loop closed = ZERO;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    PTR_EQ(casync_spawn(&loop, NULL, NULL), NULL);
    EQ(casync_spawn_with(&loop, &desc, &task), -EINVAL);
    desc.coroutine = sleeps;
    desc.stack_size = SIZE_MAX;
    EQ(casync_spawn_with(&loop, &desc, &task), -EINVAL);
    desc.stack_size = 0;
    EQ(casync_spawn_with(&closed, &desc, &task), -EINVAL);
    PTR_EQ(task, NULL);
    EXPECT(!casync_loop_alive(&loop));
    close_loop();
}

TEST(start_refuses_what_makes_no_sense) {
    casync_task task;
    casync_loop closed = ZERO;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_task_start(&loop, &task, NULL), -EINVAL);
    EQ(casync_task_start(&closed, &task, tick), -EINVAL);
    close_loop();
}

/* -- stackless tasks that are closed before they end -- */

TEST(closed_stackless_task_takes_no_further_step) {
    actor *a = &actors[0];
    open_loop_and_gate();
    a->before = say_number_of_await;
    start(a, false);
    casync_future_close(&a->stackless.future);
    run_turns(2);
    SAID("");
    start_at_gate(a, false);
    SAID("await=0");
    casync_future_close(&a->stackless.future);
    EQ(casync_future_set_result(&gate, 0, NULL), 0);
    run_turns(2);
    EQ(a->awaits, 0);
    close_loop();
}

TEST(closed_stackless_task_lets_go_of_what_it_awaits) {
    actor *a = &actors[0];
    casync_task *task;
    open_loop_and_gate();
    task = spawn(sleeps, MILLISECONDS(5));
    a->awaited[0] = &task->future;
    start(a, false);
    run_turns(2);
    casync_future_close(&a->stackless.future);
    casync_task_release(task);
    EQ(casync_run_until_idle(&loop), 0);
    close_loop();
}

TEST(closed_loop_drops_stackless_tasks) {
    actor *a = &actors[0];
    open_loop_and_gate();
    start_at_gate(a, false);
    EQ(casync_task_set_name(a->task, "dropped"), 0);
    close_loop();
}

TEST(stackless_task_may_start_again_from_its_end) {
    actor *a = &actors[0];
    int i;
    open_loop_and_gate();
    for (i = 0; i < 3; i++) {
        memset(a, 0, sizeof *a);
        start(a, false);
        EQ(run(a), 0);
        finish(a);
    }
    close_loop();
}

static int64_t loses_its_place(casync_task *task) {
    int64_t result = 1;
    CASYNC_BEGIN(task);
    switch (result) { /* the label of the await belongs to this switch */
    case 1:
        CASYNC_YIELD(task, result);
    }
    CASYNC_END(task, result);
}
TEST(await_in_a_switch_is_an_invalid_state) {
    static casync_task task;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_task_start(&loop, &task, loses_its_place), 0);
    EQ(casync_run_until_complete(&task.future), CASYNC_INVALID_STATE);
    casync_future_close(&task.future);
    close_loop();
}

static int64_t returns_at_once(casync_task *task) {
    (void)task;
    return 9;
}
TEST(step_may_return_at_once) {
    static casync_task task;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_task_start(&loop, &task, returns_at_once), 0);
    EQ(casync_run_until_complete(&task.future), 9);
    casync_future_close(&task.future);
    close_loop();
}

/* >> functions that wait, where nothing can wait ---------------------------------------------- */

static casync_task *somebody;

static void expect_that_nothing_waits(void *arg) {
    casync_waiter waiters[1] = ZERO;
    casync_generator generator = ZERO;
    casync_task_group group;
    casync_timeout timeout;
    void *value;
    (void)arg;
    waiters[0].future = &gate;
    EQ(casync_await(&gate), -EPERM);
    EQ(casync_join(somebody), -EPERM); /* and the reference is still ours */
    EQ(casync_sleep(0), -EPERM);
    EQ(casync_sleep(CASYNC_MS(1)), -EPERM);
    EQ(casync_gather(waiters, 1, CASYNC_FIRST_ERROR), -EPERM);
    EQ(casync_wait(waiters, 1, CASYNC_ALL_COMPLETED, 0), -EPERM);
    EQ(casync_select(waiters, 1, 0), -EPERM);
    EQ(casync_wait_for(&gate, 0), -EPERM);
    EQ(casync_wait_for(&gate, CASYNC_MS(1)), -EPERM);
    EQ(casync_shield(&gate), -EPERM);
    EQ(casync_generator_start(&loop, &generator, sleeps, NULL), 0);
    EQ(casync_generator_next(&generator, &value), -EPERM);
    EQ(casync_generator_yield(&generator, NULL), -EPERM);
    EQ(casync_generator_close(&generator), -EPERM);
    casync_task_cancel(generator.task);
    casync_task_release(generator.task);
    if (casync_current_task()) return;
    EQ(casync_timeout_begin(&timeout, CASYNC_MS(1)), -EPERM);
    EQ(casync_task_group_begin(&group), -EPERM);
    PTR_EQ(casync_task_group_spawn(&group, sleeps, NULL), NULL);
    EQ(casync_task_group_end(&group, 0), -EPERM);
}

static int64_t expects_that_nothing_waits(casync_task *task) {
    (void)task;
    expect_that_nothing_waits(NULL);
    return 0;
}

TEST(outside_of_a_stackful_task_nothing_waits) {
    casync_task step;
    open_loop_and_gate();
    somebody = spawn(sleeps, MILLISECONDS(1));
    expect_that_nothing_waits(NULL);
    SAID("exception=-1"); /* once */
    EQ(casync_call_soon(&loop, NULL, expect_that_nothing_waits, NULL), 0);
    run_turns(1);
    EQ(casync_task_start(&loop, &step, expects_that_nothing_waits), 0);
    EQ(casync_run_until_complete(&step.future), 0);
    casync_future_close(&step.future);
    EQ(gate.state, CASYNC_FUTURE_PENDING);
    EQ(casync_run_until_complete(&somebody->future), 1);
    casync_task_release(somebody);
    EQ(casync_run_until_idle(&loop), 0);
    close_loop();
}

IN_TASK(task_cannot_await_itself) {
    casync_task *self = casync_current_task();
    EQ(casync_await(&self->future), -EDEADLK);
    EQ(casync_join(self), -EDEADLK);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
}

static int64_t awaits_itself(casync_task *task) {
    int64_t result;
    CASYNC_BEGIN(task);
    CASYNC_AWAIT(task, result, &task->future);
    CASYNC_END(task, result);
}
TEST(stackless_task_cannot_await_itself) {
    casync_task task;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_task_start(&loop, &task, awaits_itself), 0);
    EQ(casync_run_until_complete(&task.future), -EDEADLK);
    casync_future_close(&task.future);
    close_loop();
}

static int64_t returns_waiting(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return CASYNC_WAITING;
}
TEST(whatever_a_coroutine_returns_is_its_result) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(run_task(returns_waiting, NULL), CASYNC_WAITING);
    close_loop();
}

/* >> nested loops ----------------------------------------------------------------------------- */

static int64_t runs_inside(casync_loop *where, void *arg) {
    casync_task *task;
    (void)arg;
    EXPECT(where != &loop);
    PTR_EQ(casync_get_running_loop(), where);
    EQ(casync_await(&gate), -EPERM); /* a future of the outer loop */
    task = casync_spawn(where, sleeps, MILLISECONDS(1));
    EXPECT(task);
    return casync_join(task);
}
static int64_t runs_a_loop(casync_loop *where, void *arg) {
    casync_task *self = casync_current_task();
    (void)where, (void)arg;
    EQ(casync_run(runs_inside, NULL), 1);
    PTR_EQ(casync_get_running_loop(), &loop);
    PTR_EQ(casync_current_task(), self);
    EQ(casync_run_until_idle(&loop), -EBUSY);
    return casync_sleep(CASYNC_MS(1));
}
TEST(task_may_run_another_loop) {
    casync_task *other;
    open_loop_and_gate();
    other = spawn(sleeps, MILLISECONDS(1));
    EQ(run_task(runs_a_loop, NULL), 0);
    EQ(casync_run_until_complete(&other->future), 1);
    casync_task_release(other);
    SAID("exception=-1");
    close_loop();
}

static int64_t step_runs_a_loop(casync_task *task) {
    int64_t result;
    CASYNC_BEGIN(task);
    EQ(casync_run(runs_inside, NULL), 1);
    PTR_EQ(casync_current_task(), task);
    CASYNC_YIELD(task, result);
    CASYNC_END(task, result);
}
TEST(stackless_task_may_run_another_loop) {
    casync_task task;
    open_loop_and_gate();
    EQ(casync_task_start(&loop, &task, step_runs_a_loop), 0);
    EQ(casync_run_until_complete(&task.future), 0);
    casync_future_close(&task.future);
    SAID("exception=-1");
    close_loop();
}

/* Loops in threads of their own share the process's stacks' bookkeeping. */
static int64_t spawns_many(casync_loop *where, void *arg) {
    casync_task *tasks[100];
    int i;
    (void)arg;
    for (i = 0; i < 100; i++) {
        tasks[i] = casync_spawn(where, sleeps, MILLISECONDS(i % 3));
        EXPECT(tasks[i]);
    }
    for (i = 0; i < 100; i++) EQ(casync_join(tasks[i]), i % 3);
    return 0;
}
static void *run_in_thread(void *arg) {
    (void)arg;
    EQ(casync_run(spawns_many, NULL), 0);
    return NULL;
}
TEST(loops_in_several_threads_run_tasks) {
    pthread_t threads[4];
    int i;
    for (i = 0; i < 4; i++) threads[i] = start_thread(run_in_thread, NULL);
    for (i = 0; i < 4; i++) join_thread(threads[i]);
}

TEST(loops_in_several_threads_without_guard_install) {
    pthread_t threads[4];
    int i;
    refuse_guard_install();
    for (i = 0; i < 4; i++) threads[i] = start_thread(run_in_thread, NULL);
    for (i = 0; i < 4; i++) join_thread(threads[i]);
}

/* >> fork ------------------------------------------------------------------------------------- */

static int64_t forks(casync_loop *where, void *arg) {
    casync_task *child_of_both = spawn(sleeps, MILLISECONDS(5));
    pid_t pid;
    (void)arg;
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    pid = fork_child();
    if (pid == 0) {
        EQ(casync_loop_fork(where), 0);
        EQ(casync_join(child_of_both), 5);
        return 1;
    }
    EQ(child_status(pid), 0);
    EQ(casync_join(child_of_both), 5);
    return 0;
}
TEST(tasks_go_on_in_a_forked_child) {
    if (SANITIZED_THREADS) SKIP("after a fork it takes the child's tasks for threads that race");
    open_loop(CASYNC_CLOCK_VIRTUAL);
    if (run_task(forks, NULL) == 1) {
        close_loop();
        _exit(0);
    }
    close_loop();
}

/* >> stacks ----------------------------------------------------------------------------------- */

/* Uses this many KiB of stack and then waits, or returns 0. */
static int64_t use_stack(int64_t kib, int64_t sleep) {
    volatile char frame[1024];
    int64_t result;
    size_t i;
    for (i = 0; i < sizeof frame; i++) frame[i] = (char)kib;
    if (kib <= 1) return sleep ? casync_sleep(sleep) : 0;
    result = use_stack(kib - 1, sleep);
    return result + frame[0] - (char)kib;
}
static int64_t uses_stack(casync_loop *where, void *kib) {
    (void)where;
    return use_stack((intptr_t)kib, CASYNC_MS(1));
}

static casync_task *spawn_sized(casync_coroutine coroutine, int kib, size_t stack_size) {
    casync_task_desc desc = ZERO;
    casync_task *task = NULL;
    desc.coroutine = coroutine;
    desc.arg = (void *)(intptr_t)kib;
    desc.stack_size = stack_size;
    desc.name = "sized";
    EQ(casync_spawn_with(&loop, &desc, &task), 0);
    return task;
}

TEST(stacks_have_the_size_that_was_asked_for) {
    static const int kib[] = {1, 16, 64, 100, 1024, 4096};
    casync_task *tasks[6];
    int i;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    for (i = 0; i < 6; i++)
        tasks[i] = spawn_sized(uses_stack, SANITIZED ? 1 : kib[i] / 2, (size_t)kib[i] * 1024);
    for (i = 0; i < 6; i++) {
        EQ(casync_run_until_complete(&tasks[i]->future), 0);
        casync_task_release(tasks[i]);
    }
    close_loop();
}

TEST(stack_used_is_the_most_that_was_used) {
    casync_task *little, *much;
    actor *a = &actors[0];
    open_loop_and_gate();
    if (SANITIZED) SKIP("frames have another size here");
    start_at_gate(a, false);
    EQ(casync_task_stack_used(a->task), 0);
    little = spawn_sized(uses_stack, 1, 0);
    much = spawn_sized(uses_stack, 40, 0);
    run_turns(1);
    EXPECT(casync_task_stack_used(little) >= 1024);
    EXPECT(casync_task_stack_used(little) < 20 * 1024);
    EXPECT(casync_task_stack_used(much) >= 40 * 1024);
    EXPECT(casync_task_stack_used(much) <= 64 * 1024);
    EQ(casync_run_until_complete(&much->future), 0);
    EXPECT(casync_task_stack_used(much) >= 40 * 1024); /* also when it is done */
    EQ(casync_run_until_complete(&little->future), 0);
    casync_task_release(little);
    casync_task_release(much);
    close_loop();
}

TEST(stacks_are_used_again) {
    int64_t allocations;
    int i;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(run_task(sleeps, NULL), 0);
    allocations = memory.allocations;
    for (i = 0; i < 1000; i++) EQ(run_task(sleeps, NULL), 0);
    EQ(memory.allocations, allocations);
    close_loop();
}

/* Waves of tasks: slabs come and go, and whatever is left is found again. */
TEST(stacks_in_waves) {
    enum { MOST = 600 };
    static casync_task *tasks[MOST];
    int wave, i, kept = 0;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    for (wave = 0; wave < (test_quick ? 3 : 20); wave++) {
        int count = 1 + (int)random_below(MOST);
        for (i = kept; i < count; i++) tasks[i] = spawn(sleeps, MILLISECONDS(random_below(3)));
        if (count > kept) kept = count;
        EQ(casync_run_until_idle(&loop), 0);
        for (i = 0; i < kept;) {
            if (random_below(4) == 0) {
                i++;
                continue;
            }
            casync_task_release(tasks[i]);
            tasks[i] = tasks[--kept];
        }
    }
    while (kept > 0) casync_task_release(tasks[--kept]);
    close_loop();
}

/* -- when the kernel refuses -- */

static int64_t spawns_and_joins(casync_loop *where, void *arg) {
    casync_task *tasks[40]; /* more than a slab has */
    int i;
    (void)where, (void)arg;
    for (i = 0; i < 40; i++) {
        tasks[i] = casync_spawn(&loop, sleeps, MILLISECONDS(1));
        if (!tasks[i]) break;
    }
    while (i > 0) EQ(casync_join(tasks[--i]), 1);
    return 0;
}

static void run_some_tasks(void) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(run_task(spawns_and_joins, NULL), 0);
    close_loop();
}

TEST(kernel_without_huge_pages) {
    advice_refused = MADV_NOHUGEPAGE;
    casync_syscalls.madvise = refusing_madvise;
    run_some_tasks();
}
TEST(kernel_without_guard_install) {
    refuse_guard_install();
    run_some_tasks();
    run_some_tasks();
    EQ(casync__process.mprotect_guards, 0); /* the budget was given back */
}
TEST(kernel_without_guard_install_and_mprotect) {
    refuse_guard_install();
    refuse_mprotect();
    run_some_tasks();
    EQ(casync__process.mprotect_guards, 0);
}
TEST(kernel_without_memory_for_stacks) {
    casync_task_desc desc = ZERO;
    casync_task *task = NULL;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    casync_syscalls.map = refusing_map;
    maps_left = 0;
    desc.coroutine = sleeps;
    EQ(casync_spawn_with(&loop, &desc, &task), -ENOMEM);
    PTR_EQ(task, NULL);
    maps_left = 1;
    EQ(run_task(spawns_and_joins, NULL), 0);
    close_loop();
}

/* -- overflow: each case in a child, whose words on stderr are looked at -- */

static volatile int64_t overflow_in_kib = 80; /* of 64 */

static int64_t overflows(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return use_stack(overflow_in_kib, CASYNC_MS(1));
}
static void overflow(void) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    (void)spawn_sized(overflows, 0, 0);
    (void)casync_run_until_idle(&loop);
}
static void overflow_reported(void) {
    EQ(casync_report_overflow(), 0);
    EQ(casync_report_overflow(), 0); /* once more does no harm */
    overflow();
}
static void expect_overflow_message(void) {
    int status = run_in_child(overflow_reported);
    EXPECT(status != 0);
    if (!SANITIZED) EQ(status, -SIGSEGV);
    EXPECT(strstr(words_on_stderr, "casync: stack overflow in task sized;"));
}

TEST(overflow_faults) {
    EXPECT(run_in_child(overflow) != 0);
    skip_under_qemu("qemu-user says a word of its own");
    if (!SANITIZED) STR_EQ(words_on_stderr, "");
}
TEST(overflow_is_reported_if_asked_for) { expect_overflow_message(); }
TEST(overflow_is_reported_without_guard_install) {
    refuse_guard_install();
    expect_overflow_message();
}

/* Without any guard page the pattern at the end of the stack tells, when the task waits. Frames are
   larger than 1 KiB by an unknown amount: go deeper step by step. */
static void overflow_a_little(void) {
    for (overflow_in_kib = 32; overflow_in_kib < 80; overflow_in_kib++) {
        open_loop(CASYNC_CLOCK_VIRTUAL);
        (void)spawn_sized(overflows, 0, 0);
        (void)casync_run_until_idle(&loop);
    }
}
TEST(overflow_without_guards_is_found) {
#if defined(CASYNC__UCONTEXT)
    SKIP("a saved ucontext is larger than the step, and has holes that leave the pattern alone");
#endif
    if (SANITIZED) SKIP("frames have another size here");
    refuse_guard_install();
    refuse_mprotect();
    EQ(run_in_child(overflow_a_little), -SIGABRT);
    EXPECT(strstr(words_on_stderr, "casync: task sized used more than its stack of 65536 bytes"));
}

static int64_t refusing_sigaltstack(const stack_t *stack, stack_t *old) {
    return stack ? -ENOMEM : casync__direct_sigaltstack(stack, old);
}
static int64_t refusing_sigaction(int signum, const struct sigaction *action,
                                  struct sigaction *old) {
    (void)signum, (void)action, (void)old;
    return -EINVAL;
}
TEST(report_of_overflows_that_the_kernel_refuses) {
    if (SANITIZED) SKIP("the sanitizer has a signal stack already");
    casync_syscalls.map = refusing_map;
    EQ(casync_report_overflow(), -ENOMEM);
    casync_syscalls.map = casync__direct_map;
    casync_syscalls.sigaltstack = refusing_sigaltstack;
    EQ(casync_report_overflow(), -ENOMEM);
    casync_syscalls.sigaltstack = casync__direct_sigaltstack;
    casync_syscalls.sigaction = refusing_sigaction;
    EQ(casync_report_overflow(), -EINVAL);
    casync_syscalls.sigaction = casync__direct_sigaction;
    EQ(casync_report_overflow(), 0);
}

static void dump_on_signal(void) {
    casync_signal watcher = ZERO;
    open_loop_and_gate();
    EQ(casync_dump_on_signal(&loop, &watcher, SIGUSR1), 0);
    EXPECT(!casync_loop_alive(&loop)); /* the watcher keeps no loop running */
    start_at_gate(&actors[0], false);
    EQ(casync_task_set_name(actors[0].task, "dumped"), 0);
    EQ(raise(SIGUSR1), 0);
    run_turns(3); /* it is heard, told to the loop, and dumped */
    EQ(casync_signal_stop(&watcher), 1);
}
TEST(dump_comes_with_a_signal) {
    casync_signal watcher = ZERO;
    EQ(run_in_child(dump_on_signal), 0);
    EXPECT(strstr(words_on_stderr, "task dumped awaits future "));
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_dump_on_signal(&loop, &watcher, 0), -EINVAL);
    close_loop();
}

static void segfault(void) {
    EQ(casync_report_overflow(), 0);
    (void)raise(SIGSEGV);
}
static void segfault_in_task(void) {
    EQ(casync_report_overflow(), 0);
    open_loop(CASYNC_CLOCK_VIRTUAL);
    (void)kill(getpid(), SIGSEGV);
}
static void exit_with_7(int signum) {
    (void)signum;
    _exit(7);
}
static void overflow_with_a_handler(void) {
    struct sigaction action = ZERO;
    action.sa_handler = exit_with_7;
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGSEGV, &action, NULL);
    overflow_reported();
}
TEST(other_faults_go_where_they_went) {
    int status = run_in_child(segfault);
    EXPECT(status != 0);
    EXPECT(!strstr(words_on_stderr, "casync"));
    EXPECT(run_in_child(segfault_in_task) != 0);
    EXPECT(!strstr(words_on_stderr, "casync"));
    status = run_in_child(overflow_with_a_handler);
    if (!under_valgrind()) EQ(status, 7); /* for which the overflow is an error of its own */
    EXPECT(strstr(words_on_stderr, "casync: stack overflow in task sized;"));
}

/* >> many ------------------------------------------------------------------------------------- */

TEST(many_live_stackful_tasks) {
    int i, count = test_quick || SANITIZED ? 1000 : 100000;
    int64_t sum = 0;
    casync_task **tasks = (casync_task **)calloc((size_t)count, sizeof *tasks);
    open_loop_and_gate();
    for (i = 0; i < count; i++) {
        casync_task_desc desc = ZERO;
        desc.coroutine = awaits;
        desc.arg = &gate;
        desc.stack_size = 16384;
        EQ(casync_spawn_with(&loop, &desc, &tasks[i]), 0);
    }
    run_turns(1);
    EQ(casync_future_set_result(&gate, 3, NULL), 0);
    EQ(casync_run_until_idle(&loop), 0);
    for (i = 0; i < count; i++) {
        sum += casync_future_result(&tasks[i]->future);
        casync_task_release(tasks[i]);
    }
    EQ(sum, (int64_t)count * 3);
    free(tasks);
    close_loop();
}

static int64_t steps_through_the_gate(casync_task *task) {
    int64_t result;
    CASYNC_BEGIN(task);
    CASYNC_AWAIT(task, result, &gate);
    CASYNC_END(task, result);
}
TEST(many_live_stackless_tasks) {
    int i, count = test_quick ? 10000 : 1000000;
    int64_t sum = 0;
    casync_task *tasks = (casync_task *)calloc((size_t)count, sizeof *tasks);
    open_loop_and_gate();
    for (i = 0; i < count; i++) EQ(casync_task_start(&loop, &tasks[i], steps_through_the_gate), 0);
    run_turns(1);
    EQ(memory.allocations, 0);
    EQ(casync_future_set_result(&gate, 3, NULL), 0);
    EQ(casync_run_until_idle(&loop), 0);
    for (i = 0; i < count; i++) {
        sum += casync_future_result(&tasks[i].future);
        casync_future_close(&tasks[i].future);
    }
    EQ(sum, (int64_t)count * 3);
    free(tasks);
    close_loop();
}

/* >> names, and what casync_dump says --------------------------------------------------------- */

TEST_BOTH(task_has_a_name) {
    actor *a = &actors[0];
    open_loop_and_gate();
    start_at_gate(a, stackful);
    STR_EQ(casync_task_name(a->task), "task");
    EQ(casync_task_set_name(a->task, "one"), 0);
    STR_EQ(casync_task_name(a->task), "one");
    EQ(casync_task_set_name(a->task, "two"), 0);
    STR_EQ(casync_task_name(a->task), "two");
    EQ(casync_task_set_name(a->task, NULL), 0);
    STR_EQ(casync_task_name(a->task), "task");
    EQ(casync_task_cancel(a->task), 1);
    EQ(run(a), -ECANCELED);
    finish(a);
    close_loop();
}

static actor *named;
static void name_oneself_and_start_another(actor *a) {
    EQ(casync_task_set_name(a->task, "parent"), 0);
    start(named, named == &actors[1]);
    STR_EQ(casync_task_name(named->task), "task");
}
TEST_BOTH(name_is_not_inherited) {
    actor *a = &actors[0];
    open_loop_and_gate();
    named = stackful ? &actors[1] : &actors[2];
    a->before = name_oneself_and_start_another;
    start(a, stackful);
    EQ(casync_run_until_idle(&loop), 0);
    finish(a);
    finish(named);
    close_loop();
}

/* The dump of the loop in one string. */
static char dumped[1 << 14];
static const char *dump(void) {
    FILE *file = tmpfile();
    size_t size;
    EXPECT(file);
    EQ(casync_dump(&loop, fileno(file)), 0);
    rewind(file);
    size = fread(dumped, 1, sizeof dumped - 1, file);
    dumped[size] = 0;
    fclose(file);
    return dumped;
}

TEST(dump_tells_what_tasks_wait_for_and_who_awaits_whom) {
    casync_task *tasks[4];
    char expected[256];
    actor *a = &actors[0];
    open_loop_and_gate();
    STR_EQ(dump(), "");
    tasks[0] = spawn(sleeps, MILLISECONDS(5));
    EQ(casync_task_set_name(tasks[0], "sleeper"), 0);
    STR_EQ(dump(), "task sleeper is ready\n");
    tasks[1] = spawn(awaits, &tasks[0]->future);
    start_at_gate(a, false);
    EQ(casync_task_set_name(a->task, "stackless"), 0);
    snprintf(expected, sizeof expected,
             "task sleeper awaits sleep, 5000 us left\n"
             "task task awaits task sleeper awaits sleep, 5000 us left\n"
             "task stackless awaits future %p\n",
             (void *)&gate);
    STR_EQ(dump(), expected);
    EQ(casync_future_set_result(&gate, 0, NULL), 0);
    EXPECT(strstr(dump(), "task stackless is ready\n"));
    EQ(casync_run_until_idle(&loop), 0);
    STR_EQ(dump(), "");
    casync_task_release(tasks[0]);
    casync_task_release(tasks[1]);
    finish(a);
    close_loop();
}

static int64_t waits_for_many(casync_loop *where, void *arg) {
    casync_waiter waiters[2] = ZERO;
    (void)where, (void)arg;
    waiters[0].future = &gate;
    waiters[1].future = &actors[0].stackless.future;
    casync_ignore(casync_gather(waiters, 2, CASYNC_RETURN_ERRORS));
    return 0;
}
static int64_t shields(casync_loop *where, void *arg) {
    (void)where;
    return casync_shield((casync_future *)arg);
}
static int64_t in_group(casync_loop *where, void *arg) {
    casync_task_group group;
    (void)where, (void)arg;
    EQ(casync_task_group_begin(&group), 0);
    EXPECT(casync_task_group_spawn(&group, awaits, &gate));
    return casync_task_group_end(&group, 0);
}
IN_TASK(dump_tells_what_stands_for_several) {
    casync_task *gathers, *shielding, *grouping;
    EQ(casync_future_init(&loop, &gate), 0);
    start(&actors[0], false);
    actors[0].awaited[0] = &gate;
    gathers = spawn(waits_for_many, NULL);
    shielding = spawn(shields, &gathers->future);
    grouping = spawn(in_group, NULL);
    EQ(casync_task_set_name(gathers, "gathers"), 0);
    EQ(casync_task_set_name(shielding, "shielding"), 0);
    EQ(casync_task_set_name(grouping, "grouping"), 0);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EXPECT(strstr(dump(), "task task runs\n"));
    EXPECT(strstr(dumped, "task gathers awaits 2 of 2 futures, task task\n"));
    EXPECT(strstr(dumped, "task shielding awaits task gathers\n"));
    EXPECT(strstr(dumped, "task grouping awaits children, task task\n"));
    EQ(casync_future_set_result(&gate, 0, NULL), 0);
    EQ(casync_join(gathers), 0);
    EQ(casync_join(shielding), 0);
    EQ(casync_join(grouping), 0);
    finish(&actors[0]);
}

IN_TASK(dump_cuts_what_is_too_long) {
    static char name[2000];
    casync_task *chain[100];
    int i;
    memset(name, 'n', sizeof name - 1);
    EQ(casync_task_set_name(casync_current_task(), name), 0);
    chain[0] = spawn(sleeps, MILLISECONDS(1));
    for (i = 1; i < 100; i++) chain[i] = spawn(awaits, &chain[i - 1]->future);
    EQ(casync_sleep(0), 0);
    EXPECT(strstr(dump(), "task nnnnnnnn"));
    EXPECT(strstr(dumped, " ...\n"));
    for (i = 100; i-- > 0;) EQ(casync_join(chain[i]), 1);
}

TEST(dump_to_a_descriptor_that_cannot_be_written_is_an_error) {
    actor *a = &actors[0];
    open_loop_and_gate();
    EQ(casync_dump(&loop, -1), 0); /* no task: nothing is written */
    start_at_gate(a, false);
    EQ(casync_dump(&loop, -1), -EBADF);
    close_loop();
}

static void count_task(int kind, void *object, void *arg) {
    (void)object;
    if (kind == CASYNC_KIND_TASK) ++*(int *)arg;
}
IN_TASK(walk_visits_tasks) {
    casync_task *other = spawn(sleeps, MILLISECONDS(1));
    int count = 0;
    casync_walk(&loop, count_task, &count);
    EQ(count, 2);
    EQ(casync_join(other), 1);
}

/* >> context variables ------------------------------------------------------------------------ */

static char values[8][2] = {"0", "1", "2", "3", "4", "5", "6", "7"};
static casync_context_var variable = {values[0]}, another = {NULL};

TEST(context_outside_of_a_task_is_the_default) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    STR_EQ((const char *)casync_context_get(&variable), "0");
    PTR_EQ(casync_context_get(&another), NULL);
    EQ(casync_context_set(&variable, values[1]), -EPERM);
    STR_EQ((const char *)casync_context_get(&variable), "0");
    close_loop();
}

static int64_t sees_and_sets(casync_loop *where, void *seen) {
    EQ(sleeps(where, MILLISECONDS(1)), 1);
    STR_EQ((const char *)casync_context_get(&variable), (const char *)seen);
    EQ(casync_context_set(&variable, values[7]), 0);
    EQ(casync_context_set(&another, values[6]), 0);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    STR_EQ((const char *)casync_context_get(&variable), "7");
    return 0;
}
IN_TASK(task_begins_with_its_makers_values_and_keeps_its_own) {
    casync_task *before, *after;
    before = spawn(sees_and_sets, values[0]);
    EQ(casync_context_set(&variable, values[1]), 0);
    after = spawn(sees_and_sets, values[1]);
    EQ(casync_context_set(&variable, values[2]), 0);
    EQ(casync_join(before), 0);
    EQ(casync_join(after), 0);
    STR_EQ((const char *)casync_context_get(&variable), "2");
    PTR_EQ(casync_context_get(&another), NULL);
    EQ(casync_context_set(&variable, NULL), 0);
    PTR_EQ(casync_context_get(&variable), NULL);
}

static int64_t checks_its_own(casync_loop *where, void *arg) {
    int i;
    for (i = 0; i < 10; i++) {
        EQ(casync_context_set(&variable, values[((intptr_t)arg + i) % 8]), 0);
        EXPECT(sleeps(where, MILLISECONDS(random_below(5))) >= 0);
        PTR_EQ(casync_context_get(&variable), values[((intptr_t)arg + i) % 8]);
    }
    return 0;
}
IN_TASK(a_hundred_tasks_each_have_their_own_value) {
    casync_task *tasks[100];
    int i;
    for (i = 0; i < 100; i++) tasks[i] = spawn(checks_its_own, (void *)(intptr_t)i);
    for (i = 0; i < 100; i++) EQ(casync_join(tasks[i]), 0);
    STR_EQ((const char *)casync_context_get(&variable), "0");
}

static void set_and_look(actor *a) {
    PTR_EQ(casync_context_get(&variable), values[a->awaits]);
    EQ(casync_context_set(&variable, values[a->awaits + 1]), 0);
    EQ(casync_task_set_name(a->task, values[a->awaits]), 0);
}
TEST_BOTH(values_live_across_awaits) {
    open_loop_and_gate();
    actors[0].count = actors[1].count = 4;
    actors[0].before = actors[1].before = set_and_look;
    start(&actors[0], stackful);
    start(&actors[1], stackful);
    EQ(casync_run_until_idle(&loop), 0);
    finish(&actors[0]);
    finish(&actors[1]);
    close_loop();
}

static void look_in_callback(void *arg) {
    (void)arg;
    STR_EQ((const char *)casync_context_get(&variable), "0");
    EQ(casync_context_set(&variable, values[3]), -EPERM);
    say(WORD("called"));
}
IN_TASK(callbacks_have_no_context) {
    EQ(casync_context_set(&variable, values[1]), 0);
    EQ(casync_call_soon(&loop, NULL, look_in_callback, NULL), 0);
    EQ(casync_sleep(0), 0);
    SAID("called");
    STR_EQ((const char *)casync_context_get(&variable), "1");
}

/* >> generators ------------------------------------------------------------------------------- */

static casync_generator numbers;

/* Yields 0 to 3 and returns `result`. */
static int64_t gives_numbers(casync_loop *where, void *result) {
    int i;
    (void)where;
    for (i = 0; i < 4; i++) {
        int64_t yielded;
        EQ(casync_sleep(CASYNC_MS(1)), 0);
        yielded = casync_generator_yield(&numbers, values[i]);
        if (yielded < 0) {
            say_number("cleanup", yielded);
            EQ(casync_sleep(CASYNC_MS(1)), 0);
            say(WORD("cleaned"));
            return yielded;
        }
    }
    return (intptr_t)result;
}

IN_TASK(generator_gives_values_then_ends) {
    void *value;
    EQ(casync_generator_start(&loop, &numbers, gives_numbers, NULL), 0);
    while (casync_generator_next(&numbers, &value) == 1) say(value);
    SAID("0 1 2 3");
    EQ(casync_generator_next(&numbers, &value), 0);
    EQ(casync_generator_close(&numbers), 0);
    EQ(casync_generator_close(&numbers), 0);
    EQ(casync_generator_next(&numbers, &value), CASYNC_INVALID_STATE);
}

IN_TASK(generator_runs_when_it_is_asked_only) {
    void *value;
    EQ(casync_generator_start(&loop, &numbers, gives_numbers, NULL), 0);
    EQ(casync_sleep(CASYNC_MS(10)), 0);
    EQ(casync_generator_next(&numbers, &value), 1);
    EQ(casync_time(&loop), CASYNC_MS(11));
    EQ(casync_sleep(CASYNC_MS(10)), 0);
    EQ(casync_generator_next(&numbers, &value), 1);
    EQ(casync_time(&loop), CASYNC_MS(22));
    EQ(casync_generator_close(&numbers), 0);
    SAID("cleanup=-125 cleaned");
}

IN_TASK(generator_gives_its_error_once) {
    void *value;
    int i;
    EQ(casync_generator_start(&loop, &numbers, gives_numbers, (void *)(intptr_t)-EIO), 0);
    for (i = 0; i < 4; i++) EQ(casync_generator_next(&numbers, &value), 1);
    EQ(casync_generator_next(&numbers, &value), -EIO);
    EQ(casync_generator_next(&numbers, &value), 0);
    casync_ignore(casync_generator_close(&numbers));
}

IN_TASK(generator_that_was_never_asked_is_closed_without_running) {
    EQ(casync_generator_start(&loop, &numbers, gives_numbers, NULL), 0);
    EQ(casync_generator_close(&numbers), 0);
    EQ(casync_generator_start(&loop, &numbers, gives_numbers, NULL), 0);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_generator_close(&numbers), 0);
    SAID("");
}

static int64_t insists(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    EXPECT(casync_generator_yield(&numbers, values[0]) < 0);
    EXPECT(casync_generator_yield(&numbers, values[1]) < 0); /* nobody will ask for this one */
    return 0;
}
IN_TASK(generator_that_yields_while_it_is_closed_gets_an_error) {
    void *value;
    EQ(casync_generator_start(&loop, &numbers, insists, NULL), 0);
    EQ(casync_generator_next(&numbers, &value), 1);
    EQ(casync_generator_close(&numbers), 0);
}

static int64_t consumes(casync_loop *where, void *arg) {
    int64_t result;
    void *value = NULL;
    (void)where, (void)arg;
    result = casync_generator_next(&numbers, &value);
    say_number("next", result);
    return result;
}

IN_TASK(cancelled_consumer_cancels_the_generator) {
    casync_task *consumer;
    void *value;
    EQ(casync_generator_start(&loop, &numbers, sleeps, MILLISECONDS(1000)), 0);
    consumer = spawn(consumes, NULL);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_generator_next(&numbers, &value), -EBUSY);
    EQ(casync_task_cancel(consumer), 1);
    EQ(casync_join(consumer), -ECANCELED);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_generator_next(&numbers, &value), 0); /* it has ended */
    EQ(casync_generator_close(&numbers), 0);
    EQ(casync_time(&loop), CASYNC_MS(2));
    SAID("next=-125");
}

IN_TASK(generator_closed_while_it_is_asked) {
    casync_task *consumer;
    EQ(casync_generator_start(&loop, &numbers, sleeps, MILLISECONDS(1000)), 0);
    consumer = spawn(consumes, NULL);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_generator_close(&numbers), 0);
    EQ(casync_join(consumer), -ECANCELED);
    SAID("next=-125");
}

static int64_t closes(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return casync_generator_close(&numbers);
}
static int64_t starts_and_consumes(casync_loop *where, void *arg) {
    EQ(casync_generator_start(where, &numbers, gives_numbers, NULL), 0);
    return consumes(where, arg);
}
IN_TASK(generator_closed_in_the_turn_in_which_it_is_first_asked) {
    casync_task *consumer = spawn(starts_and_consumes, NULL), *closer = spawn(closes, NULL);
    EQ(casync_join(closer), 0);
    EXPECT(casync_join(consumer) <= 0);
    said_size = 0;
    said[0] = 0;
}

static int64_t yields_to_nobody(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return casync_generator_yield(&numbers, NULL);
}
IN_TASK(yield_is_for_the_generator_itself) {
    EQ(casync_generator_start(&loop, &numbers, gives_numbers, NULL), 0);
    EQ(casync_generator_yield(&numbers, NULL), -EPERM);
    EQ(casync_join(spawn(yields_to_nobody, NULL)), -EPERM);
    EQ(casync_generator_close(&numbers), 0);
    EQ(casync_generator_start(&loop, &numbers, NULL, NULL), -EINVAL);
}

/* >> casync_run ------------------------------------------------------------------------------- */

static int64_t returns_arg(casync_loop *where, void *arg) {
    EXPECT(where);
    PTR_EQ(casync_get_running_loop(), where);
    STR_EQ(casync_task_name(casync_current_task()), "main");
    return (intptr_t)arg;
}
static int64_t run_with_test_allocator(casync_coroutine coroutine, void *arg) {
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
TEST(run_returns_what_main_returns) {
    EQ(casync_run(returns_arg, (void *)(intptr_t)7), 7);
    EQ(casync_run(returns_arg, (void *)(intptr_t)-EIO), -EIO);
    EQ(casync_run(returns_arg, (void *)(intptr_t)-ECANCELED), -ECANCELED);
    EQ(casync_run(NULL, NULL), -EINVAL);
    EQ(run_with_test_allocator(returns_arg, (void *)(intptr_t)5), 5);
    SAID("");
}

static int64_t says_how_it_ends(casync_loop *where, void *arg) {
    int64_t slept = sleeps(where, MILLISECONDS(1000000));
    say_number("slept", slept);
    slept = casync_sleep(CASYNC_MS(1)); /* cleaning up */
    say_number((const char *)arg, slept);
    return slept;
}
static casync_task left_stackless;
static casync_timer_op left_op;
static int64_t left_step(casync_task *task) {
    int64_t slept;
    CASYNC_BEGIN(task);
    CASYNC_AWAIT(task, slept, casync_sleep_op(task->future.loop, &left_op, CASYNC_SECONDS(1000)));
    say_number("step", slept);
    CASYNC_END(task, slept);
}
static int64_t leaves_tasks(casync_loop *where, void *arg) {
    casync_task_release(casync_spawn(where, says_how_it_ends, WORD("end")));
    casync_task_release(casync_spawn(where, fails_if_cancelled, MILLISECONDS(1000)));
    EQ(casync_task_start(where, &left_stackless, left_step), 0);
    EQ(casync_sleep(0), 0);
    return (intptr_t)arg;
}
TEST(run_cancels_the_tasks_that_are_left_and_waits_for_them) {
    EQ(run_with_test_allocator(leaves_tasks, (void *)(intptr_t)3), 3);
    SAID("slept=-125 exception=-33 step=-125 end=0");
    EQ(run_with_test_allocator(leaves_tasks, (void *)(intptr_t)-EIO), -EIO);
    SAID("slept=-125 exception=-33 step=-125 end=0");
}

static int64_t stops_the_loop(casync_loop *where, void *arg) {
    (void)arg;
    casync_stop(where);
    return sleeps(where, MILLISECONDS(1000000));
}
TEST(run_whose_loop_is_stopped_cancels_main) {
    EQ(run_with_test_allocator(stops_the_loop, NULL), -ECANCELED);
}

static int64_t spawns_when_cancelled(casync_loop *where, void *arg) {
    int64_t slept = sleeps(where, MILLISECONDS(1000000));
    casync_task_release(casync_spawn(where, says_how_it_ends, arg));
    return slept;
}
static int64_t leaves_one_that_spawns(casync_loop *where, void *arg) {
    casync_task_release(casync_spawn(where, spawns_when_cancelled, arg));
    return casync_sleep(0);
}
TEST(run_cancels_tasks_that_were_made_by_cleaning_up) {
    EQ(run_with_test_allocator(leaves_one_that_spawns, WORD("late")), 0);
    SAID("slept=-125 late=0"); /* it had begun, and was asked then */
}

static int64_t keeps_a_handle(casync_loop *where, void *arg) {
    casync_task *tasks[64];
    int i;
    (void)arg;
    for (i = 0; i < 64; i++) {
        tasks[i] = casync_spawn(where, sleeps, NULL);
        EXPECT(tasks[i]);
    }
    for (i = 0; i < 64; i++)
        if (i % 40 != 0) EQ(casync_join(tasks[i]), 0);
    return 7;
}
TEST(run_ends_although_a_handle_was_not_released) {
    EQ(run_with_test_allocator(keeps_a_handle, NULL), 7);
}

static int64_t leaves_streams_open(casync_loop *where, void *arg) {
    static casync_stream streams[2];
    static casync_server server;
    casync_listen_desc desc = ZERO;
    int ends[2];
    (void)arg;
    make_socketpair(ends);
    EQ(casync_stream_open(where, &streams[0], ends[0], NULL, NULL), 0);
    EQ(casync_stream_open(where, &streams[1], ends[1], NULL, NULL), 0);
    desc.host = "127.0.0.1";
    EQ(casync_listen(where, &server, &desc), 0);
    return 0;
}
TEST(run_closes_what_is_open) { EQ(run_with_test_allocator(leaves_streams_open, NULL), 0); }

static int64_t runs_inside_run(casync_loop *where, void *arg) {
    casync_loop *inner = casync_get_running_loop();
    (void)arg;
    PTR_EQ(inner, where);
    EQ(casync_run(returns_arg, (void *)(intptr_t)4), 4);
    PTR_EQ(casync_get_running_loop(), where);
    return casync_sleep(CASYNC_MS(1));
}
TEST(run_inside_run) { EQ(run_with_test_allocator(runs_inside_run, NULL), 0); }

/* >> without memory --------------------------------------------------------------------------- */

/* All that tasks allocate for. The first error ends it. */
static int64_t needs_memory_in_group(casync_loop *where, void *arg) {
    casync_task_group group;
    casync_timeout limit;
    casync_task child;
    int64_t result;
    (void)where, (void)arg;
    result = casync_task_group_begin(&group);
    if (result < 0) return result;
    result = casync_timeout_begin(&limit, CASYNC_SECONDS(100));
    if (result < 0) return casync_task_group_end(&group, result);
    if (!casync_task_group_spawn(&group, sleeps, MILLISECONDS(1))) result = -ENOMEM;
    if (result == 0) result = casync_task_group_start(&group, &child, returns_at_once);
    result = casync_task_group_end(&group, result);
    return casync_timeout_end(&limit, result);
}
static int64_t needs_memory(casync_loop *where, void *arg) {
    casync_task *tasks[40];
    casync_task step;
    int64_t result = casync_context_set(&variable, values[1]);
    int i, count = 0;
    (void)arg;
    if (result < 0) return result;
    result = casync_task_start(where, &step, returns_at_once);
    if (result < 0) return result;
    result = casync_task_set_name(&step, "step");
    EXPECT(casync_await(&step.future) == 9);
    casync_future_close(&step.future);
    for (i = 0; i < 40 && result == 0; i++) {
        tasks[count] = casync_spawn(where, i % 2 ? sleeps : needs_memory_in_group, MILLISECONDS(1));
        if (tasks[count])
            count++;
        else
            result = -ENOMEM;
    }
    while (count > 0) {
        int64_t joined = casync_join(tasks[--count]);
        if (joined < 0) result = joined;
    }
    if (result == 0) result = casync_context_set(&another, values[1]);
    return result;
}
TEST(without_memory_tasks_say_so_and_lose_nothing) {
    int64_t result, n = 0;
    do {
        casync_task *task;
        open_loop(CASYNC_CLOCK_VIRTUAL);
        fail_allocation(++n, 1);
        task = casync_spawn(&loop, needs_memory, NULL);
        result = task ? casync_run_until_complete(&task->future) : -ENOMEM;
        EXPECT(result == 0 || result == -ENOMEM);
        if (task) casync_task_release(task);
        EQ(casync_run_until_idle(&loop), 0);
        close_loop();
    } while (result == -ENOMEM);
    EXPECT(n > 10);
}
IN_TASK(without_memory_nothing_waits) {
    casync_generator generator = ZERO;
    casync_task *self = casync_current_task(), *child;
    fail_allocation(1, 0);
    EQ(casync_sleep(CASYNC_SECONDS(1)), -ENOMEM); /* the timer wheel's first level */
    EQ(casync_context_set(&variable, values[1]), -ENOMEM);
    EQ(casync_sleep(0), 0);
    fail_no_allocation();
    STR_EQ((const char *)casync_context_get(&variable), "0");
    EQ(casync_context_set(&variable, values[1]), 0);
    child = spawn(sleeps, NULL); /* shares the context: now it must be copied to be changed */
    fail_allocation(1, 0);
    EQ(casync_context_set(&variable, values[2]), -ENOMEM);
    EQ(casync_task_set_name(self, "stackful tasks need no memory for a name"), 0);
    STR_EQ((const char *)casync_context_get(&variable), "1");
    EQ(casync_generator_start(&loop, &generator, NULL, NULL), -EINVAL);
    fail_no_allocation();
    EQ(casync_join(child), 0);
}

TEST(without_memory_run_says_so) {
    int64_t n = 0, result;
    do {
        memory.allocations = 0;
        fail_allocation(++n, 0);
        result = run_with_test_allocator(sleeps, MILLISECONDS(1));
    } while (result == -ENOMEM);
    EQ(result, 1);
    EXPECT(n > 2);
}

/* >> descriptors ------------------------------------------------------------------------------ */

static int pipe_ends[2];
static int64_t waits_to_read(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return casync_wait_readable(pipe_ends[0]);
}

IN_TASK(any_number_waits_for_one_descriptor) {
    casync_task *first, *second;
    casync_op op;
    make_socketpair(pipe_ends);
    first = spawn(waits_to_read, NULL);
    second = spawn(waits_to_read, NULL);
    EQ(casync_sleep(0), 0);
    EQ(casync_wait_writable(pipe_ends[0]), 0);
    EXPECT(!casync_future_done(&first->future));
    EQ(casync_task_cancel(second), 1);
    EQ(casync_join(second), -ECANCELED);
    EQ(write(pipe_ends[1], "x", 1), 1);
    EQ(casync_join(first), 0);
    EXPECT(casync_watcher_find(&loop, pipe_ends[0]) == NULL);
    EQ(casync_await(casync_wait_readable_op(&loop, &op, -1)), -EBADF);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

IN_TASK(cancelled_read_exactly_leaves_its_bytes_to_the_next_read) {
    casync_stream a = ZERO, b = ZERO;
    char bytes[8];
    EQ(casync_socketpair(&loop, &a, &b, NULL, NULL), 0);
    EQ(casync_write(&b, "abc", 3), 3);
    EQ(casync_read_exactly_timeout(&a, bytes, 6, CASYNC_MS(5)), -ETIMEDOUT);
    EQ(casync_write(&b, "def", 3), 3);
    EQ(casync_read_exactly(&a, bytes, 6), 6);
    EQ(memcmp(bytes, "abcdef", 6), 0);
    casync_close(&a);
    casync_close(&b);
}

static void nothing_to_do(void *arg) { (void)arg; }
static int64_t leaves_a_timer(casync_loop *where, void *arg) {
    static casync_timer timer;
    static casync_hook hook;
    (void)arg;
    EQ(casync_hook_start(where, &hook, CASYNC_HOOK_AFTER_POLL, 0, nothing_to_do, NULL), 0);
    return casync_call_later(where, &timer, CASYNC_SECONDS(1000), never, NULL);
}
TEST(run_drops_what_main_left) { EQ(run_with_test_allocator(leaves_a_timer, NULL), 0); }

/* >> what fails changes nothing --------------------------------------------------------------- */

static casync_task not_started;

/* A named task's context is copied for those it makes. */
static int64_t start_without_memory(casync_task *task) {
    EQ(casync_task_set_name(task, "maker"), 0);
    fail_allocation(1, 0);
    EQ(casync_task_start(&loop, &not_started, start_without_memory), -ENOMEM);
    fail_no_allocation();
    return 0;
}

TEST(task_that_could_not_be_started_may_be_closed) {
    casync_task task;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_task_start(&loop, &task, start_without_memory), 0);
    EQ(casync_run_until_complete(&task.future), 0);
    EQ(casync_task_cancel(&not_started), 0);
    casync_future_close(&not_started.future);
    casync_future_close(&task.future);
    close_loop();
}

IN_TASK(nothing_may_be_released_joined_cancelled_and_awaited) {
    casync_task_release(NULL);
    /* which says that there is none by NULL */
    casync_task_release(casync_spawn(&loop, NULL, NULL));
    PTR_EQ(casync_task_retain(NULL), NULL);
    EXPECT(casync_join(NULL) < 0);
    EXPECT(casync_await(NULL) < 0);
    EQ(casync_task_cancel(NULL), 0);
    EQ(casync_future_cancel(NULL), 0);
    casync_future_close(NULL);
}

TEST_MAIN

/* >> tasks: stackful and stackless ones, what they await, and where nothing can wait. */
#include "tasks_fixture.h"

/* >> awaiting --------------------------------------------------------------------------------- */

TEST_BOTH(task_begins_in_the_next_turn) {
    actor *a = &actors[0];
    open_loop_and_gate();
    a->before = say_number_of_await;
    a->awaited[0] = &gate;
    start(a, stackful);
    SAID("");
    turns(1);
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
    turns(1);
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
    turns(3);
    EXPECT(!casync_future_done(&a->task->future));
    turns(1);
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
    turns(2);
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
    turns(1);
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

TEST(stackless_task_sleeps_in_a_loop) {
    static ticker t;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_task_start(&loop, &t.task, tick), 0);
    EQ(casync_run_until_complete(&t.task.future), 3);
    EQ(casync_time(&loop), CASYNC_MS(30));
    casync_future_close(&t.task.future);
    close_loop();
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
    turns(1);
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

/* >> context variables ------------------------------------------------------------------------ */

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

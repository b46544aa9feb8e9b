/* >> structured concurrency: task groups. */
#include "groups_fixture.h"

static casync_task_group group;

/* >> task groups ------------------------------------------------------------------------------ */

static void forget_what_was_said(void) {
    said[0] = 0;
    said_size = 0;
}

static casync_task *child(casync_task_group *of, casync_coroutine coroutine, int milliseconds) {
    casync_task *task = casync_task_group_spawn(of, coroutine, MILLISECONDS(milliseconds));
    EXPECT(task);
    return task;
}

IN_TASK(group_waits_for_its_children) {
    casync_task *a, *b;
    EQ(casync_task_group_begin(&group), 0);
    a = casync_task_retain(child(&group, sleeps, 100));
    EQ(casync_sleep(CASYNC_MS(150)), 0);
    b = casync_task_retain(child(&group, sleeps, 200));
    EQ(group.children, 1);
    EQ(casync_task_group_end(&group, 5), 5);
    EQ(casync_time(&loop), CASYNC_MS(350));
    EQ(group.children, 0);
    EQ(casync_join(a), 100);
    EQ(casync_join(b), 200);
}

IN_TASK(group_of_no_children) {
    EQ(casync_task_group_begin(&group), 0);
    EQ(casync_task_group_end(&group, 3), 3);
    EQ(casync_task_group_begin(&group), 0);
    EQ(casync_task_group_end(&group, -EIO), -EIO);
    EQ(group.error_count, 1);
    EQ(group.errors[0], -EIO);
}

IN_TASK(cancelled_child_is_no_failure) {
    casync_task *a;
    EQ(casync_task_group_begin(&group), 0);
    a = casync_task_retain(child(&group, sleeps, 1000));
    EQ(casync_sleep(CASYNC_MS(150)), 0);
    EQ(casync_task_cancel(a), 1);
    child(&group, sleeps, 200);
    EQ(casync_task_group_end(&group, 0), 0);
    EQ(casync_join(a), -ECANCELED);
    EQ(casync_time(&loop), CASYNC_MS(350));
}

IN_TASK(failing_child_cancels_its_siblings_and_the_parent) {
    casync_task *sibling;
    int64_t slept;
    EQ(casync_task_group_begin(&group), 0);
    child(&group, fails_after, 100);
    sibling = casync_task_retain(child(&group, sleeps, 1000));
    slept = casync_sleep(CASYNC_SECONDS(10));
    EQ(slept, -ECANCELED);
    EQ(casync_time(&loop), CASYNC_MS(100));
    EQ(casync_task_group_end(&group, slept), -EIO);
    EQ(group.error_count, 1);
    EQ(group.errors[0], -EIO);
    EQ(casync_join(sibling), -ECANCELED);
    EQ(casync_current_task()->cancel_requests, 0);
    EQ(casync_sleep(CASYNC_MS(1)), 0); /* nothing of it is left */
}

IN_TASK(child_that_fails_while_the_group_ends) {
    casync_task *sibling;
    EQ(casync_task_group_begin(&group), 0);
    child(&group, fails_after, 100);
    sibling = casync_task_retain(child(&group, sleeps, 1000));
    EQ(casync_task_group_end(&group, 7), -EIO);
    EQ(casync_time(&loop), CASYNC_MS(100));
    EQ(casync_join(sibling), -ECANCELED);
    EQ(casync_current_task()->cancel_requests, 0);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
}

IN_TASK(errors_are_collected_in_their_order) {
    int i;
    EQ(casync_task_group_begin(&group), 0);
    for (i = 0; i < 3; i++) child(&group, fails_after, 100);
    for (i = 0; i < 10; i++) child(&group, fails_if_cancelled, 1000);
    EQ(casync_sleep(0), 0);
    EQ(casync_task_group_end(&group, -ERANGE), -EDOM); /* the block failed: all are cancelled */
    EQ(group.error_count, 11);
    for (i = 0; i < CASYNC_GROUP_ERRORS; i++) EQ(group.errors[i], -EDOM);
}

IN_TASK(the_blocks_own_error_comes_last) {
    EQ(casync_task_group_begin(&group), 0);
    child(&group, fails_after, 100);
    EQ(casync_sleep(CASYNC_SECONDS(10)), -ECANCELED);
    EQ(casync_task_group_end(&group, -ERANGE), -EIO);
    EQ(group.error_count, 2);
    EQ(group.errors[0], -EIO);
    EQ(group.errors[1], -ERANGE);
}

IN_TASK(failing_block_cancels_the_children) {
    casync_task *a, *b;
    EQ(casync_task_group_begin(&group), 0);
    a = casync_task_retain(child(&group, sleeps, 1000));
    EQ(casync_sleep(CASYNC_MS(100)), 0);
    b = casync_task_retain(child(&group, says_that_it_runs, 0));
    EQ(casync_task_group_end(&group, -EIO), -EIO);
    EQ(casync_join(a), -ECANCELED);
    EQ(casync_join(b), -ECANCELED); /* it never ran */
    EQ(casync_time(&loop), CASYNC_MS(100));
}

/* -- a parent that is cancelled -- */

static int64_t says_its_cancellation(casync_loop *where, void *ms) {
    int64_t slept = sleeps(where, ms);
    if (slept == -ECANCELED) say(WORD("child"));
    return slept;
}

/* A runner: a group with five children, and a block that sleeps some time itself. */
typedef struct runner {
    casync_coroutine child;
    int block_ms;        /* how long the block sleeps */
    int64_t block_error; /* what it makes of its cancellation; 0: that */
    int cleanup_ms;
} runner;
static int64_t runs_group(casync_loop *where, void *arg) {
    const runner *r = (const runner *)arg;
    casync_task_group own;
    int64_t result = 0;
    int i;
    EQ(casync_task_group_begin(&own), 0);
    for (i = 0; i < 5 && r->child; i++) child(&own, r->child, 5000);
    if (r->block_ms) result = sleeps(where, MILLISECONDS(r->block_ms));
    if (result == -ECANCELED) {
        say(WORD("block"));
        if (r->cleanup_ms) EQ(sleeps(where, MILLISECONDS(r->cleanup_ms)), r->cleanup_ms);
        if (r->block_error) result = r->block_error;
    }
    result = casync_task_group_end(&own, result);
    EQ(own.children, 0);
    return result;
}
static int64_t cancel_runner(runner r) {
    casync_task *task = spawn(runs_group, &r);
    int64_t result;
    EQ(casync_sleep(CASYNC_MS(100)), 0);
    EXPECT(!casync_future_done(&task->future));
    EQ(casync_task_cancel(task), 1);
    result = casync_join(task);
    EQ(loop.active, 0);
    return result;
}
static runner a_runner(casync_coroutine coroutine, int block_ms, int64_t block_error) {
    runner r;
    r.child = coroutine;
    r.block_ms = block_ms;
    r.block_error = block_error;
    r.cleanup_ms = 0;
    return r;
}

IN_TASK(parent_cancelled_at_the_end_cancels_the_children) {
    EQ(cancel_runner(a_runner(says_its_cancellation, 0, 0)), -ECANCELED);
    SAID("child child child child child");
}
IN_TASK(parent_cancelled_in_its_block_cancels_the_children) {
    EQ(cancel_runner(a_runner(says_its_cancellation, 1000, 0)), -ECANCELED);
    SAID("block child child child child child");
}
IN_TASK(children_that_fail_when_cancelled_win) {
    EQ(cancel_runner(a_runner(fails_if_cancelled, 1000, 0)), -EDOM);
    EQ(cancel_runner(a_runner(fails_if_cancelled, 0, 0)), -EDOM);
    SAID("block");
}
IN_TASK(cancelled_group_without_children) {
    EQ(cancel_runner(a_runner(NULL, 1000, 0)), -ECANCELED);
    SAID("block");
}
IN_TASK(block_that_makes_an_error_of_its_cancellation) {
    EQ(cancel_runner(a_runner(NULL, 1000, -EIO)), -EIO);
    EQ(cancel_runner(a_runner(sleeps, 1000, -EIO)), -EIO);
    SAID("block block");
}
/* The children cannot hold the group up: a second request finds them cancelled already. */
IN_TASK(children_outlast_a_second_cancellation) {
    runner r = a_runner(sleeps_on, 0, 0);
    casync_task *task = spawn(runs_group, &r);
    EQ(casync_sleep(CASYNC_MS(10)), 0);
    EQ(casync_task_cancel(task), 1);
    EQ(casync_sleep(CASYNC_MS(10)), 0);
    (void)casync_task_cancel(task);
    EQ(casync_join(task), -ECANCELED);
    EQ(casync_time(&loop), CASYNC_SECONDS(5));
}

/* A child fails while the block cleans up after its cancellation. */
static int64_t cancelled_while_child_fails(casync_loop *where, void *arg) {
    casync_task_group own;
    int64_t slept;
    (void)arg;
    EQ(casync_task_group_begin(&own), 0);
    child(&own, fails_after, 300);
    slept = sleeps(where, MILLISECONDS(10000));
    EQ(slept, -ECANCELED);
    EQ(sleeps(where, MILLISECONDS(500)), -ECANCELED); /* by the child's failure, 200 ms later */
    EQ(casync_time(where), CASYNC_MS(300));
    return casync_task_group_end(&own, slept);
}
IN_TASK(child_fails_while_the_cancelled_block_cleans_up) {
    casync_task *task = spawn(cancelled_while_child_fails, NULL);
    EQ(casync_sleep(CASYNC_MS(100)), 0);
    EQ(casync_task_cancel(task), 1);
    EQ(casync_join(task), -EIO);
}
IN_TASK(the_same_through_a_task_that_awaits_it) {
    casync_task *inner = spawn(cancelled_while_child_fails, NULL),
                *outer = spawn(awaits, &inner->future);
    EQ(casync_sleep(CASYNC_MS(100)), 0);
    EQ(casync_task_cancel(outer), 1);
    EQ(casync_join(outer), -EIO);
    EQ(casync_join(inner), -EIO);
}

/* asyncio's test_error_and_cancel: both happen; the error goes first, the cancellation follows. */
static int64_t hears_of_both(casync_loop *where, void *arg) {
    casync_task_group own;
    int64_t slept;
    (void)where, (void)arg;
    EQ(casync_task_group_begin(&own), 0);
    child(&own, fails_after, 100);
    slept = casync_sleep(CASYNC_SECONDS(1));
    EQ(casync_task_group_end(&own, slept), -EIO);
    EQ(casync_current_task()->cancel_requests, 1);
    say(WORD("error"));
    return casync_sleep(CASYNC_SECONDS(1));
}
static void cancel_now(void *task) { EQ(casync_task_cancel((casync_task *)task), 1); }
IN_TASK(error_and_cancellation_at_the_same_time) {
    casync_timer timer = ZERO;
    casync_task *task = spawn(hears_of_both, NULL);
    EQ(casync_call_later(&loop, &timer, CASYNC_MS(100), cancel_now, task), 0);
    EQ(casync_join(task), -ECANCELED);
    SAID("error");
}

/* -- groups in groups -- */

static int64_t runs_nested_groups(casync_loop *where, void *arg) {
    casync_task_group outer, inner;
    const int *delays = (const int *)arg; /* after which a child of the outer and of the inner
                                             one fails */
    int64_t result;
    (void)where;
    EQ(casync_task_group_begin(&outer), 0);
    child(&outer, fails_after, delays[0]);
    EQ(casync_task_group_begin(&inner), 0);
    child(&inner, fails_if_cancelled, delays[1]);
    result = casync_task_group_end(&inner, 0);
    say_number("inner", result);
    result = casync_task_group_end(&outer, result);
    say_number("outer", result);
    EQ(casync_current_task()->cancel_requests, 0);
    return result;
}
IN_TASK(failure_in_the_outer_group_ends_the_inner_one) {
    static const int delays[] = {100, 10000};
    EQ(casync_join(spawn(runs_nested_groups, WORD(delays))), -EIO);
    SAID("inner=-33 outer=-5");
    EQ(casync_time(&loop), CASYNC_MS(100));
}
static int64_t fails_in_the_inner_group(casync_loop *where, void *arg) {
    casync_task_group outer, inner;
    int64_t result;
    (void)where, (void)arg;
    EQ(casync_task_group_begin(&outer), 0);
    child(&outer, sleeps, 10000);
    EQ(casync_task_group_begin(&inner), 0);
    child(&inner, fails_after, 100);
    result = casync_task_group_end(&inner, 0);
    return casync_task_group_end(&outer, result);
}
IN_TASK(failure_in_the_inner_group_ends_the_outer_one) {
    EQ(casync_join(spawn(fails_in_the_inner_group, NULL)), -EIO);
    EQ(casync_time(&loop), CASYNC_MS(100));
}

static int64_t both_groups_fail(casync_loop *where, void *arg) {
    casync_task_group outer, inner;
    (void)where, (void)arg;
    EQ(casync_task_group_begin(&outer), 0);
    EQ(casync_task_group_begin(&inner), 0);
    child(&inner, fails_after, 10);
    child(&outer, fails_after, 10);
    EQ(casync_task_group_end(&inner, 0), -EIO);
    EQ(casync_current_task()->cancel_requests, 1); /* the outer one's */
    EQ(casync_task_group_end(&outer, 0), -EIO);
    EQ(casync_current_task()->cancel_requests, 0);
    return casync_sleep(CASYNC_MS(1));
}
IN_TASK(both_of_two_nested_groups_fail) { EQ(casync_join(spawn(both_groups_fail, NULL)), 0); }

IN_TASK(children_may_spawn_siblings) {
    static casync_task_group *of = &group;
    casync_task *a;
    EQ(casync_task_group_begin(of), 0);
    a = child(of, sleeps, 100);
    (void)a;
    EQ(casync_sleep(CASYNC_MS(50)), 0);
    child(of, sleeps, 200);
    EQ(casync_task_group_end(of, 0), 0);
    EQ(casync_time(&loop), CASYNC_MS(250));
}

static int hydras;
static int64_t hydra(casync_loop *where, void *ms) {
    int64_t slept;
    hydras++;
    slept = sleeps(where, ms);
    if (slept < 0) return slept;
    (void)casync_task_group_spawn(&group, hydra, ms); /* none after a failure */
    (void)casync_task_group_spawn(&group, hydra, ms);
    return 0;
}
static int64_t hercules(casync_loop *where, void *ms) {
    while (hydras < 10) EQ(sleeps(where, ms), (intptr_t)ms);
    return -EIO;
}
IN_TASK(children_that_spawn_siblings_while_the_group_ends) {
    EQ(casync_task_group_begin(&group), 0);
    child(&group, hydra, 10);
    child(&group, hercules, 15);
    EQ(casync_task_group_end(&group, 0), -EIO);
    EXPECT(hydras >= 10);
    EQ(group.children, 0);
}

static int64_t refuses_siblings(casync_loop *where, void *ms) {
    EQ(sleeps(where, ms), -ECANCELED);
    PTR_EQ(casync_task_group_spawn(&group, sleeps, NULL), NULL);
    say(WORD("refused"));
    return 0;
}
IN_TASK(no_child_after_a_failure_or_after_the_end) {
    casync_task step;
    EQ(casync_task_group_begin(&group), 0);
    child(&group, fails_after, 1);
    child(&group, refuses_siblings, 1000);
    EQ(casync_task_group_end(&group, 0), -EIO);
    SAID("refused");
    PTR_EQ(casync_task_group_spawn(&group, sleeps, NULL), NULL);
    EQ(casync_task_group_start(&group, &step, await_step), CASYNC_INVALID_STATE);
    EQ(casync_task_group_begin(&group), 0);
    EQ(casync_task_group_end(&group, 0), 0);
    PTR_EQ(casync_task_group_spawn(&group, sleeps, NULL), NULL);
    EQ(casync_task_group_start(&group, &step, await_step), CASYNC_INVALID_STATE);
}

IN_TASK(group_refuses_what_makes_no_sense) {
    casync_task step;
    EQ(casync_task_group_begin(&group), 0);
    PTR_EQ(casync_task_group_spawn(&group, NULL, NULL), NULL);
    EQ(casync_task_group_start(&group, &step, NULL), -EINVAL);
    EQ(group.children, 0);
    EQ(casync_task_group_end(&group, 0), 0);
}

IN_TASK(stackless_children) {
    static stackless a, b;
    init_futures();
    a.awaited = &futures[0];
    b.awaited = &futures[1];
    EQ(casync_task_group_begin(&group), 0);
    EQ(casync_task_group_start(&group, &a.task, await_step), 0);
    EQ(casync_task_group_start(&group, &b.task, await_step), 0);
    EQ(casync_sleep(0), 0);
    set_result(0, -EIO);
    EQ(casync_task_group_end(&group, 0), -EIO);
    EQ(futures[1].state, CASYNC_FUTURE_CANCELLED);
    memset(&a, 0xff, sizeof a); /* the memory is ours again */
    memset(&b, 0xff, sizeof b);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    forget_what_was_said();
}

typedef struct parent {
    casync_task task;
    casync_task_group group;
    casync_timer_op op;
    stackless child;
    int64_t slept;
} parent;
static int64_t parent_step(casync_task *task) {
    parent *p = (parent *)(void *)task;
    int64_t result;
    CASYNC_BEGIN(task);
    EQ(casync_task_group_begin(&p->group), 0);
    child(&p->group, fails_after, 10);
    EQ(casync_task_group_start(&p->group, &p->child.task, await_step), 0);
    CASYNC_AWAIT(task, p->slept, casync_sleep_op(&loop, &p->op, CASYNC_SECONDS(10)));
    CASYNC_AWAIT(task, result, casync_task_group_end_op(&p->group, p->slept));
    CASYNC_END(task, result);
}
static void start_parent(parent *p) {
    p->child.awaited = &futures[0];
    EQ(casync_task_start(&loop, &p->task, parent_step), 0);
}
TEST(stackless_parent) {
    static parent p;
    open_loop_and_futures();
    start_parent(&p);
    EQ(casync_run_until_complete(&p.task.future), -EIO);
    EQ(p.slept, -ECANCELED);
    EQ(p.task.cancel_requests, 0);
    EQ(futures[0].state, CASYNC_FUTURE_CANCELLED);
    casync_future_close(&p.task.future);
    close_loop();
}
TEST(stackless_parent_is_cancelled) {
    static parent p;
    open_loop_and_futures();
    start_parent(&p);
    turns(2);
    EQ(casync_task_cancel(&p.task), 1);
    EQ(casync_run_until_complete(&p.task.future), -ECANCELED);
    EQ(p.group.children, 0);
    casync_future_close(&p.task.future);
    close_loop();
}

static int64_t parent_of_stackless_step(casync_task *task) {
    parent *p = (parent *)(void *)task;
    int64_t result;
    CASYNC_BEGIN(task);
    EQ(casync_task_group_begin(&p->group), 0);
    EQ(casync_task_group_start(&p->group, &p->child.task, await_step), 0);
    CASYNC_AWAIT(task, result, casync_task_group_end_op(&p->group, 0));
    CASYNC_END(task, result);
}
TEST(closed_loop_drops_a_group_of_stackless_tasks) {
    static parent p;
    open_loop_and_futures();
    p.child.awaited = &futures[0];
    EQ(casync_task_start(&loop, &p.task, parent_of_stackless_step), 0);
    turns(2);
    EQ(p.group.children, 1);
    close_loop();
}

/* -- with timeouts -- */

static int64_t limited_group(casync_coroutine coroutine) {
    casync_timeout limit;
    int64_t result;
    EQ(casync_timeout_begin(&limit, CASYNC_MS(10)), 0);
    EQ(casync_task_group_begin(&group), 0);
    child(&group, coroutine, 2000);
    result = casync_task_group_end(&group, 0);
    result = casync_timeout_end(&limit, result);
    EQ(casync_current_task()->cancel_requests, 0);
    EQ(casync_time(&loop) % CASYNC_MS(10), 0);
    EQ(casync_sleep(0), 0);
    return result;
}
IN_TASK(group_in_a_timeout) {
    EQ(limited_group(sleeps), -ETIMEDOUT);
    EQ(limited_group(fails_if_cancelled), -EDOM);
}

IN_TASK(timeout_in_a_group) {
    casync_timeout limit;
    EQ(casync_task_group_begin(&group), 0);
    child(&group, sleeps, 100);
    EQ(casync_timeout_begin(&limit, CASYNC_MS(10)), 0);
    EQ(casync_timeout_end(&limit, casync_sleep(CASYNC_SECONDS(1))), -ETIMEDOUT);
    EQ(casync_task_group_end(&group, 0), 0); /* the child was none of its business */
    EQ(casync_time(&loop), CASYNC_MS(100));
}

/* >> without memory --------------------------------------------------------------------------- */

IN_TASK(without_memory_there_are_no_limits_and_no_children) {
    casync_timeout limit;
    casync_task step;
    casync_timer_op op;
    init_futures();
    fail_allocation(1, 0);
    /* the wheel's level */
    EQ(casync_wait(waiters, 2, CASYNC_ALL_COMPLETED, CASYNC_SECONDS(1)), -ENOMEM);
    EQ(casync_select(waiters, 2, CASYNC_SECONDS(1)), -ENOMEM);
    EQ(casync_wait_for(&futures[3], CASYNC_SECONDS(1)), -ENOMEM);
    EQ(casync_timeout_begin(&limit, CASYNC_SECONDS(1)), -ENOMEM);
    EQ(casync_timeout_end(&limit, 5), 5);
    EQ(casync_await(casync_sleep_op(&loop, &op, CASYNC_SECONDS(1))), -ENOMEM);
    EQ(futures[3].state, CASYNC_FUTURE_PENDING);
    EQ(casync_task_group_begin(&group), -ENOMEM);
    fail_no_allocation();
    EQ(casync_task_group_begin(&group), 0);
    fail_allocation(1, 0);
    PTR_EQ(casync_task_group_spawn(&group, sleeps, NULL), NULL);
    EQ(casync_task_group_start(&group, &step, await_step), -ENOMEM);
    EQ(group.children, 0);
    EQ(casync_task_group_end(&group, 0), 0);
    set_result(4, 9);
    waiters[0].future = &futures[4];
    EQ(casync_gather(waiters, 1, CASYNC_FIRST_ERROR), 0); /* these need none */
    EQ(casync_wait(waiters, 1, CASYNC_ALL_COMPLETED, CASYNC_FOREVER), 1);
    EQ(casync_shield(&futures[4]), 9);
    EQ(casync_wait_for(&futures[4], CASYNC_FOREVER), 9);
    fail_no_allocation();
}

static casync_context_var variable;
static int64_t looks_at_variable(casync_loop *where, void *expected) {
    (void)where;
    PTR_EQ(casync_context_get(&variable), expected);
    return 0;
}
IN_TASK(children_have_their_parents_context) {
    EQ(casync_context_set(&variable, WORD("value")), 0);
    EQ(casync_task_group_begin(&group), 0);
    EXPECT(casync_task_group_spawn(&group, looks_at_variable, casync_context_get(&variable)));
    EQ(casync_task_group_end(&group, 0), 0);
}

static int64_t forgets_its_group(casync_loop *where, void *arg) {
    casync_task_group forgotten;
    (void)where;
    EQ(casync_task_group_begin(&forgotten), 0);
    EXPECT(casync_task_group_spawn(&forgotten, sleeps, arg) != NULL);
    return casync_sleep(0);
}

TEST(task_that_forgets_its_group_is_told_and_its_children_are_cancelled) {
    casync_task *task;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    task = spawn(forgets_its_group, MILLISECONDS(1000000));
    EQ(casync_run_until_idle(&loop), 0);
    EQ(casync_time(&loop), 0); /* nobody slept on */
    casync_task_release(task);
    SAID("exception=-5004");
    close_loop();
}

/* >> who waits in a circle -------------------------------------------------------------------- */

static casync_task *ancestor;

static int64_t awaits_ancestor(casync_loop *where, void *ms) {
    (void)where;
    if (ms && casync_sleep(CASYNC_MS((intptr_t)ms)) < 0) return -ECANCELED;
    return casync_await(&ancestor->future);
}

/* A parent that ends its group after so many milliseconds. */
static int64_t waits_for_children(casync_loop *where, void *ms) {
    casync_task_group own;
    EQ(casync_task_group_begin(&own), 0);
    EXPECT(casync_task_group_spawn(&own, awaits_ancestor, MILLISECONDS(5)));
    return casync_task_group_end(&own, sleeps(where, ms));
}

static int64_t waits_for_grandchildren(casync_loop *where, void *ms) {
    casync_task_group own;
    (void)where;
    EQ(casync_task_group_begin(&own), 0);
    EXPECT(casync_task_group_spawn(&own, waits_for_children, ms));
    return casync_task_group_end(&own, 0);
}

/* Nobody of the family would ever be done: who closes the circle is told. */
static void expect_deadlock(casync_coroutine family, void *ms) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    ancestor = spawn(family, ms);
    EQ(casync_run_until_complete(&ancestor->future), -EDEADLK);
    casync_task_release(ancestor);
    close_loop();
}

TEST(child_that_awaits_its_waiting_parent_is_a_deadlock) {
    expect_deadlock(waits_for_children, MILLISECONDS(0));
}

TEST(parent_that_waits_for_a_child_that_awaits_it_is_a_deadlock) {
    expect_deadlock(waits_for_children, MILLISECONDS(10));
}

TEST(grandchild_that_awaits_its_waiting_grandparent_is_a_deadlock) {
    expect_deadlock(waits_for_grandchildren, MILLISECONDS(0));
    expect_deadlock(waits_for_grandchildren, MILLISECONDS(10));
}

static int64_t awaits_a_sibling(casync_loop *where, void *sibling) {
    (void)where;
    return casync_await(&((casync_task *)sibling)->future);
}

IN_TASK(child_that_awaits_its_sibling_is_none) {
    casync_task *sibling;
    EQ(casync_task_group_begin(&group), 0);
    sibling = casync_task_group_spawn(&group, sleeps, MILLISECONDS(5));
    EXPECT(casync_task_group_spawn(&group, awaits_a_sibling, sibling));
    EQ(casync_task_group_end(&group, 0), 0);
}

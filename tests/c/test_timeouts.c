/* >> structured concurrency: wait_for, shield, timeouts. */
#include "groups_fixture.h"

static int64_t cleans_up_for(casync_loop *where, void *ms) {
    int64_t slept = sleeps(where, MILLISECONDS(100000));
    while (casync_sleep(CASYNC_MS((intptr_t)ms)) < 0) continue;
    return slept;
}

/* >> wait_for --------------------------------------------------------------------------------- */

IN_TASK(wait_for_gives_the_result) {
    spawn_as(0, sleeps, 10);
    EQ(casync_wait_for(waiters[0].future, CASYNC_FOREVER), 10);
    EQ(casync_wait_for(waiters[0].future, 0), 10); /* what is done needs no time */
    EQ(casync_wait_for(waiters[0].future, -1), 10);
    EQ(casync_join(tasks[0]), 10);
    spawn_as(0, sleeps, 10);
    EQ(casync_wait_for(waiters[0].future, CASYNC_MS(20)), 10);
    EQ(loop.active, 0);
    join_all(1);
}

IN_TASK(wait_for_cancels_what_takes_too_long) {
    spawn_as(0, sleeps, 1000);
    EQ(casync_wait_for(waiters[0].future, CASYNC_MS(100)), -ETIMEDOUT);
    EQ(casync_time(&loop), CASYNC_MS(100));
    EQ(waiters[0].future->state, CASYNC_FUTURE_CANCELLED);
    EQ(casync_current_task()->cancel_requests, 0);
    join_all(1);
}

IN_TASK(wait_for_no_time_cancels_at_once) {
    int64_t timeout;
    for (timeout = 0; timeout >= -1; timeout--) {
        casync_task *never_run = spawn(says_that_it_runs, WORD("ran"));
        spawn_as(0, sleeps, 1000);
        EQ(casync_wait_for(&never_run->future, timeout), -ETIMEDOUT);
        EQ(casync_wait_for(waiters[0].future, timeout), -ETIMEDOUT);
        EQ(waiters[0].future->state, CASYNC_FUTURE_CANCELLED);
        casync_task_release(never_run);
        join_all(1);
    }
    SAID("");
    EQ(casync_time(&loop), 0);
}

IN_TASK(wait_for_waits_until_the_cancelled_is_done) {
    spawn_as(0, sleeps_on, 100);
    EQ(casync_wait_for(waiters[0].future, CASYNC_MS(1)), 100); /* which took no notice */
    EQ(casync_time(&loop), CASYNC_MS(100));
    join_all(1);
    spawn_as(0, sleeps_on, 100);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_wait_for(waiters[0].future, 0), 100);
    EQ(casync_time(&loop), CASYNC_MS(200));
    join_all(1);
}

IN_TASK(wait_for_gives_the_error_that_came_of_cancelling) {
    spawn_as(0, fails_if_cancelled, 200);
    EQ(casync_wait_for(waiters[0].future, CASYNC_MS(1)), -EDOM);
    EQ(casync_current_task()->cancel_requests, 0);
    join_all(1);
}

static int64_t waits_for_first(casync_loop *where, void *timeout_ms) {
    int64_t ms = (intptr_t)timeout_ms;
    (void)where;
    return casync_wait_for(waiters[0].future, ms < 0 ? CASYNC_FOREVER : CASYNC_MS(ms));
}
static void cancel_wait_for(int timeout) {
    casync_task *waiting;
    spawn_as(0, sleeps, 100000);
    EQ(casync_sleep(0), 0);
    waiting = spawn(waits_for_first, MILLISECONDS(timeout));
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_task_cancel(waiting), 1);
    EQ(casync_join(waiting), -ECANCELED);
    EQ(waiters[0].future->state, CASYNC_FUTURE_CANCELLED);
    EQ(loop.active, 0);
    join_all(1);
}
IN_TASK(cancelled_wait_for_cancels_what_it_waits_for) {
    cancel_wait_for(-1);
    cancel_wait_for(60000);
}

IN_TASK(wait_for_no_time_can_be_cancelled_while_it_waits) {
    casync_task *waiting;
    spawn_as(0, cleans_up_for, 50);
    EQ(casync_sleep(0), 0);
    waiting = spawn(waits_for_first, NULL);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_task_cancel(waiting), 1);
    EQ(casync_join(waiting), -ECANCELED);
    join_all(1);
}
IN_TASK(wait_for_can_be_cancelled_after_its_timeout) {
    casync_task *waiting;
    spawn_as(0, cleans_up_for, 50);
    waiting = spawn(waits_for_first, MILLISECONDS(5));
    EQ(casync_sleep(CASYNC_MS(10)), 0);
    EQ(casync_task_cancel(waiting), 1);
    EQ(casync_join(waiting), -ECANCELED);
    join_all(1);
}

static int64_t waits_then_sleeps(casync_loop *where, void *arg) {
    int64_t result = casync_wait_for(waiters[0].future, CASYNC_SECONDS(100));
    (void)where, (void)arg;
    say_number("waited", result);
    result = casync_sleep(CASYNC_SECONDS(1));
    if (result < 0) return result;
    say(WORD("reached-the-end"));
    return 0;
}
/* The future is done, then the task is cancelled, in the same turn: it gets the result, and is
   cancelled in its next await. */
IN_TASK(wait_for_and_a_cancellation_at_the_same_time) {
    casync_task *waiting;
    init_futures();
    waiting = spawn(waits_then_sleeps, NULL);
    EQ(casync_sleep(0), 0);
    set_result(0, 7);
    EQ(casync_task_cancel(waiting), 1);
    EQ(casync_join(waiting), -ECANCELED);
    SAID("waited=7");
}

IN_TASK(wait_for_a_future_that_is_done_as_time_runs_out) {
    casync_timer_op op;
    EQ(casync_wait_for(casync_sleep_op(&loop, &op, CASYNC_MS(5)), CASYNC_MS(5)), 0);
    EQ(casync_current_task()->cancel_requests, 0);
    EQ(casync_sleep(CASYNC_MS(1)), 0); /* no request is left over */
}

/* >> shield ----------------------------------------------------------------------------------- */

static casync_shielded shielded;

TEST(shield_passes_on_what_comes) {
    static casync_shielded cancelled;
    int value;
    open_loop_and_futures();
    (void)casync_shield_op(&shielded, &futures[0]);
    EQ(casync_future_set_result(&futures[0], 42, &value), 0);
    EQ(casync_run_until_complete(&shielded.future), 42);
    PTR_EQ(shielded.future.ptr, &value);
    (void)casync_shield_op(&shielded, &futures[1]);
    set_result(1, -EIO);
    EQ(casync_run_until_complete(&shielded.future), -EIO);
    (void)casync_shield_op(&cancelled, &futures[2]);
    EQ(casync_future_cancel(&futures[2]), 1);
    EQ(casync_run_until_complete(&cancelled.future), -ECANCELED);
    EQ(cancelled.future.state, CASYNC_FUTURE_CANCELLED);
    close_loop();
}

TEST(cancelled_shield_leaves_the_future_alone) {
    open_loop_and_futures();
    (void)casync_shield_op(&shielded, &futures[0]);
    EQ(casync_future_cancel(&shielded.future), 1);
    EQ(shielded.future.state, CASYNC_FUTURE_CANCELLED);
    EQ(futures[0].state, CASYNC_FUTURE_PENDING);
    memset(&shielded, 0xff, sizeof shielded); /* it is out of the list */
    set_result(0, 1);
    turns(1);
    close_loop();
}

static int64_t shields_first(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return casync_shield(waiters[0].future);
}
IN_TASK(shielded_task_goes_on) {
    casync_task *shielding;
    spawn_as(0, sleeps, 100);
    shielding = spawn(shields_first, NULL);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_task_cancel(shielding), 1);
    EQ(casync_join(shielding), -ECANCELED);
    EQ(tasks[0]->cancel_requests, 0);
    EQ(casync_join(tasks[0]), 100);
}

IN_TASK(shield_of_what_is_done_is_its_result) {
    init_futures();
    set_result(0, 42);
    EQ(casync_shield(&futures[0]), 42);
}

TEST(shielded_gather_goes_on) {
    open_loop_and_futures();
    (void)casync_shield_op(&shielded, gather(2, CASYNC_FIRST_ERROR));
    EQ(casync_future_cancel(&shielded.future), 1);
    set_result(0, 1);
    set_result(1, 2);
    EQ(casync_run_until_complete(&set.future), 0);
    close_loop();
}

TEST(gathered_shields_are_cancelled_but_not_what_they_shield) {
    static casync_shielded shields[2];
    open_loop_and_futures();
    waiters[0].future = casync_shield_op(&shields[0], &futures[0]);
    waiters[1].future = casync_shield_op(&shields[1], &futures[1]);
    (void)gather(2, CASYNC_FIRST_ERROR);
    EQ(casync_future_cancel(&set.future), 1);
    EQ(casync_run_until_complete(&set.future), -ECANCELED);
    EQ(futures[0].state, CASYNC_FUTURE_PENDING);
    EQ(futures[1].state, CASYNC_FUTURE_PENDING);
    close_loop();
}

IN_TASK(wait_for_a_shield_does_not_cancel_what_it_shields) {
    spawn_as(0, sleeps, 100);
    EQ(casync_wait_for(casync_shield_op(&shielded, waiters[0].future), 0), -ETIMEDOUT);
    EQ(casync_wait_for(casync_shield_op(&shielded, waiters[0].future), CASYNC_MS(10)), -ETIMEDOUT);
    EXPECT(!casync_future_done(waiters[0].future));
    EQ(casync_wait_for(casync_shield_op(&shielded, waiters[0].future), CASYNC_FOREVER), 100);
    join_all(1);
}

/* >> timeouts --------------------------------------------------------------------------------- */

IN_TASK(timeout_ends_what_takes_too_long) {
    casync_timeout limit;
    EQ(casync_timeout_begin(&limit, CASYNC_MS(10)), 0);
    EQ(casync_sleep(CASYNC_SECONDS(10)), -ECANCELED);
    EXPECT(casync_timeout_expired(&limit));
    EQ(casync_timeout_end(&limit, -ECANCELED), -ETIMEDOUT);
    EXPECT(casync_timeout_expired(&limit));
    EQ(casync_time(&loop), CASYNC_MS(10));
    EQ(casync_current_task()->cancel_requests, 0);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
}

IN_TASK(timeout_that_is_not_needed_changes_nothing) {
    casync_timeout limit;
    EQ(casync_timeout_begin(&limit, CASYNC_SECONDS(10)), 0);
    EQ(casync_timeout_end(&limit, casync_sleep(CASYNC_MS(10))), 0);
    EXPECT(!casync_timeout_expired(&limit));
    EQ(loop.active, 0);
    EQ(casync_timeout_begin(&limit, CASYNC_FOREVER), 0);
    EQ(casync_timeout_end(&limit, casync_sleep(CASYNC_MS(10))), 0);
    EXPECT(!casync_timeout_expired(&limit));
}

IN_TASK(timeout_of_nothing_ends_the_first_wait) {
    int64_t delay;
    for (delay = 0; delay >= -CASYNC_SECONDS(11); delay -= CASYNC_SECONDS(11)) {
        casync_timeout limit;
        EQ(casync_timeout_begin(&limit, delay), 0);
        EQ(casync_timeout_end(&limit, casync_sleep(CASYNC_SECONDS(10))), -ETIMEDOUT);
        EQ(casync_timeout_begin(&limit, delay), 0);
        EQ(casync_timeout_end(&limit, casync_sleep(0)), -ETIMEDOUT);
    }
    EQ(casync_time(&loop), 0);
}

IN_TASK(nested_timeouts_at_the_same_time_end_the_outer_one) {
    casync_timeout outer, inner;
    int64_t result;
    EQ(casync_timeout_begin(&outer, CASYNC_MS(10)), 0);
    EQ(casync_timeout_begin(&inner, CASYNC_MS(10)), 0);
    result = casync_timeout_end(&inner, casync_sleep(CASYNC_SECONDS(10)));
    EQ(result, -ECANCELED);
    EQ(casync_timeout_end(&outer, result), -ETIMEDOUT);
    EXPECT(casync_timeout_expired(&outer));
    EXPECT(casync_timeout_expired(&inner));
    EQ(casync_current_task()->cancel_requests, 0);
}

IN_TASK(inner_timeout_is_the_shorter_one) {
    casync_timeout outer, inner;
    EQ(casync_timeout_begin(&outer, CASYNC_MS(100)), 0);
    EQ(casync_timeout_begin(&inner, CASYNC_MS(10)), 0);
    EQ(casync_timeout_end(&inner, casync_sleep(CASYNC_SECONDS(10))), -ETIMEDOUT);
    EQ(casync_timeout_end(&outer, casync_sleep(CASYNC_SECONDS(10))), -ETIMEDOUT);
    EQ(casync_time(&loop), CASYNC_MS(100));
}

IN_TASK(outer_timeout_is_the_shorter_one) {
    casync_timeout outer, inner;
    int64_t result;
    EQ(casync_timeout_begin(&outer, CASYNC_MS(10)), 0);
    EQ(casync_timeout_begin(&inner, CASYNC_MS(100)), 0);
    result = casync_timeout_end(&inner, casync_sleep(CASYNC_SECONDS(10)));
    EQ(result, -ECANCELED);
    EQ(casync_timeout_end(&outer, result), -ETIMEDOUT);
    EXPECT(!casync_timeout_expired(&inner));
    EQ(casync_time(&loop), CASYNC_MS(10));
}

IN_TASK(errors_of_the_block_pass_through_a_timeout) {
    casync_timeout limit;
    EQ(casync_timeout_begin(&limit, CASYNC_MS(10)), 0);
    EQ(casync_timeout_end(&limit, -EIO), -EIO);
    EQ(casync_timeout_begin(&limit, CASYNC_MS(10)), 0);
    EQ(casync_sleep(CASYNC_SECONDS(1)), -ECANCELED);
    EQ(casync_timeout_end(&limit, -EIO), -EIO); /* also when time was up */
    EQ(casync_current_task()->cancel_requests, 0);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
}

IN_TASK(who_takes_no_notice_of_a_timeout_has_its_result) {
    casync_timeout limit;
    EQ(casync_timeout_begin(&limit, CASYNC_MS(10)), 0);
    EQ(casync_sleep(CASYNC_SECONDS(1)), -ECANCELED);
    EQ(casync_timeout_end(&limit, 5), 5);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
}

/* Time is up in the turn in which the block ends: nothing of the request may be left. */
IN_TASK(timeout_in_the_turn_of_the_end) {
    casync_timeout limit;
    casync_timer_op op;
    casync_future *slept = casync_sleep_op(&loop, &op, CASYNC_MS(10));
    EQ(casync_timeout_begin(&limit, CASYNC_MS(10)), 0);
    EQ(casync_timeout_end(&limit, casync_await(slept)), 0);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_current_task()->cancel_requests, 0);
}

IN_TASK(cancellation_by_others_is_no_timeout) {
    casync_timeout limit;
    EQ(casync_timeout_begin(&limit, CASYNC_SECONDS(10)), 0);
    EQ(casync_task_cancel(casync_current_task()), 1);
    EQ(casync_timeout_end(&limit, casync_sleep(CASYNC_SECONDS(10))), -ECANCELED);
    EXPECT(!casync_timeout_expired(&limit));
    EQ(casync_task_uncancel(casync_current_task()), 0);
}

static int64_t times_out_slowly(casync_loop *where, void *arg) {
    casync_timeout limit;
    int64_t result;
    (void)arg;
    EQ(casync_timeout_begin(&limit, CASYNC_MS(10)), 0);
    result = cleans_up_for(where, MILLISECONDS(50));
    return casync_timeout_end(&limit, result);
}
IN_TASK(cancellation_after_a_timeout_is_a_cancellation) {
    casync_task *task = spawn(times_out_slowly, NULL);
    EQ(casync_sleep(CASYNC_MS(20)), 0);
    EQ(casync_task_cancel(task), 1);
    EQ(casync_join(task), -ECANCELED);
}

IN_TASK(timeout_after_a_cancellation) {
    casync_timeout limit;
    EQ(casync_task_cancel(casync_current_task()), 1);
    EQ(casync_sleep(CASYNC_SECONDS(1)), -ECANCELED); /* and is not taken back */
    EQ(casync_timeout_begin(&limit, 0), 0);
    EQ(casync_timeout_end(&limit, casync_sleep(CASYNC_SECONDS(1))), -ETIMEDOUT);
    EQ(casync_timeout_begin(&limit, CASYNC_SECONDS(1)), 0);
    EQ(casync_task_cancel(casync_current_task()), 1);
    EQ(casync_timeout_end(&limit, casync_sleep(CASYNC_SECONDS(2))), -ECANCELED);
    EQ(casync_task_uncancel(casync_current_task()), 1);
    EQ(casync_task_uncancel(casync_current_task()), 0);
}

IN_TASK(timeout_in_the_cleaning_up_of_another) {
    casync_timeout outer, inner;
    int64_t result;
    EQ(casync_timeout_begin(&outer, CASYNC_MS(10)), 0);
    result = casync_sleep(CASYNC_SECONDS(1));
    EQ(casync_timeout_begin(&inner, CASYNC_MS(10)), 0);
    EQ(casync_timeout_end(&inner, casync_sleep(CASYNC_SECONDS(10))), -ETIMEDOUT);
    EQ(casync_timeout_end(&outer, result), -ETIMEDOUT);
    EQ(casync_time(&loop), CASYNC_MS(20));
}

IN_TASK(timeout_can_be_moved) {
    casync_timeout limit;
    EQ(casync_timeout_begin(&limit, CASYNC_MS(10)), 0);
    EQ(casync_timeout_reschedule(&limit, CASYNC_MS(30)), 0);
    EQ(casync_sleep(CASYNC_MS(20)), 0);
    EQ(casync_timeout_reschedule(&limit, CASYNC_FOREVER), 0);
    EQ(casync_sleep(CASYNC_MS(100)), 0);
    EQ(casync_timeout_reschedule(&limit, CASYNC_MS(5)), 0);
    EQ(casync_sleep(CASYNC_SECONDS(1)), -ECANCELED);
    EQ(casync_time(&loop), CASYNC_MS(125));
    EQ(casync_timeout_reschedule(&limit, CASYNC_MS(5)), CASYNC_INVALID_STATE); /* time was up */
    EQ(casync_timeout_end(&limit, -ECANCELED), -ETIMEDOUT);
    EQ(casync_timeout_reschedule(&limit, CASYNC_MS(5)), CASYNC_INVALID_STATE);
    EQ(casync_timeout_begin(&limit, CASYNC_MS(10)), 0); /* but it can be used again */
    EQ(casync_timeout_end(&limit, 0), 0);
    EQ(casync_timeout_reschedule(&limit, CASYNC_MS(5)), CASYNC_INVALID_STATE);
    EQ(casync_timeout_end(&limit, 3), 3); /* once more does no harm */
    EQ(loop.active, 0);
}

typedef struct limited {
    casync_task task;
    casync_timeout limit;
    casync_timer_op op;
} limited;
static int64_t limited_step(casync_task *task) {
    limited *t = (limited *)(void *)task;
    int64_t result;
    CASYNC_BEGIN(task);
    EQ(casync_timeout_begin(&t->limit, CASYNC_MS(10)), 0);
    CASYNC_AWAIT(task, result, casync_sleep_op(&loop, &t->op, CASYNC_SECONDS(10)));
    result = casync_timeout_end(&t->limit, result);
    CASYNC_END(task, result);
}
TEST(stackless_task_times_out) {
    static limited t;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_task_start(&loop, &t.task, limited_step), 0);
    EQ(casync_run_until_complete(&t.task.future), -ETIMEDOUT);
    EQ(t.task.cancel_requests, 0);
    EQ(loop.active, 0);
    casync_future_close(&t.task.future);
    close_loop();
}

/* Far enough for a level of the wheel that nobody has used. */
#define FAR_AWAY CASYNC_SECONDS(100000000)

IN_TASK(timeout_that_cannot_be_moved_stays) {
    casync_timeout limit;
    EQ(casync_timeout_begin(&limit, CASYNC_MS(10)), 0);
    fail_allocation(1, 0);
    EQ(casync_timeout_reschedule(&limit, FAR_AWAY), -ENOMEM);
    fail_no_allocation();
    EQ(casync_sleep(CASYNC_SECONDS(1)), -ECANCELED);
    EQ(casync_time(&loop), CASYNC_MS(10));
    EQ(casync_timeout_end(&limit, -ECANCELED), -ETIMEDOUT);
}

IN_TASK(timeout_that_is_over_at_once_stays_so_if_it_cannot_be_moved) {
    casync_timeout limit;
    EQ(casync_timeout_begin(&limit, CASYNC_MS(10)), 0);
    EQ(casync_timeout_reschedule(&limit, 0), 0);
    fail_allocation(1, 0);
    EQ(casync_timeout_reschedule(&limit, FAR_AWAY), -ENOMEM);
    fail_no_allocation();
    EQ(casync_sleep(CASYNC_SECONDS(1)), -ECANCELED);
    EQ(casync_time(&loop), 0);
    EQ(casync_timeout_end(&limit, -ECANCELED), -ETIMEDOUT);
}

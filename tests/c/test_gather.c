/* >> structured concurrency: several futures at once: gather, wait, select, as_completed. */
#include "groups_fixture.h"

/* >> gather ----------------------------------------------------------------------------------- */

static void start_stackless(stackless *s, casync_future *awaited) {
    s->awaited = awaited;
    EQ(casync_task_start(&loop, &s->task, await_step), 0);
}

static void gather_succeeds(int mode) {
    casync_future *all;
    open_loop_and_futures();
    all = gather(3, mode);
    PTR_EQ(all, &set.future);
    set_result(1, 1);
    set_result(0, 2);
    turns(2);
    EXPECT(!casync_future_done(all));
    set_result(2, 3);
    EQ(casync_run_until_complete(all), 0);
    EQ(casync_future_result(&futures[0]), 2);
    close_loop();
}
TEST(gather_is_done_when_all_are) { gather_succeeds(CASYNC_FIRST_ERROR); }
TEST(gather_of_errors_is_done_when_all_are) { gather_succeeds(CASYNC_RETURN_ERRORS); }

TEST(gather_of_nothing_is_done) {
    open_loop_and_futures();
    EQ(casync_run_until_complete(gather(0, CASYNC_FIRST_ERROR)), 0);
    EQ(casync_run_until_complete(gather(0, CASYNC_RETURN_ERRORS)), 0);
    close_loop();
}

TEST(gather_of_what_is_done_already) {
    open_loop_and_futures();
    set_result(0, 1);
    set_result(1, 2);
    EQ(casync_run_until_complete(gather(2, CASYNC_FIRST_ERROR)), 0);
    close_loop();
}

TEST(gather_fails_with_the_first_error_and_the_others_go_on) {
    casync_future *all;
    open_loop_and_futures();
    all = gather(5, CASYNC_FIRST_ERROR);
    set_result(0, 1);
    set_result(1, -EIO);
    EQ(casync_run_until_complete(all), -EIO);
    EQ(all->state, CASYNC_FUTURE_FAILED);
    EQ(futures[2].state, CASYNC_FUTURE_PENDING);
    set_result(2, 3);
    EQ(casync_future_cancel(&futures[3]), 1);
    set_result(4, -EDOM);
    turns(2);
    casync_future_close(&futures[1]); /* the gather retrieved its error */
    SAID("");
    close_loop();
}

TEST(gather_returns_errors) {
    casync_future *all;
    open_loop_and_futures();
    all = gather(4, CASYNC_RETURN_ERRORS);
    set_result(1, 1);
    set_result(2, -EIO);
    set_result(0, 3);
    turns(2);
    EXPECT(!casync_future_done(all));
    set_result(3, -EDOM);
    EQ(casync_run_until_complete(all), 0);
    EQ(futures[0].result, 3);
    EQ(futures[1].result, 1);
    EQ(futures[2].result, -EIO);
    EQ(futures[3].result, -EDOM);
    casync_future_close(&futures[2]);
    casync_future_close(&futures[3]);
    SAID("");
    close_loop();
}

/* asyncio: a child that is cancelled is as one that failed; the gather itself is not cancelled. */
TEST(gather_fails_when_one_is_cancelled) {
    casync_future *all;
    open_loop_and_futures();
    all = gather(3, CASYNC_FIRST_ERROR);
    set_result(0, 1);
    EQ(casync_future_cancel(&futures[1]), 1);
    EQ(casync_run_until_complete(all), -ECANCELED);
    EQ(all->state, CASYNC_FUTURE_FAILED);
    EQ(futures[2].state, CASYNC_FUTURE_PENDING);
    close_loop();
}

TEST(gather_returns_cancellations_as_errors) {
    casync_future *all;
    open_loop_and_futures();
    all = gather(3, CASYNC_RETURN_ERRORS);
    EQ(casync_future_cancel(&futures[0]), 1);
    set_result(1, -EIO);
    turns(2);
    EXPECT(!casync_future_done(all));
    EQ(casync_future_cancel(&futures[2]), 1);
    EQ(casync_run_until_complete(all), 0);
    close_loop();
}

TEST(the_same_future_may_be_gathered_twice) {
    open_loop_and_futures();
    waiters[1].future = waiters[0].future;
    set_result(0, 4);
    EQ(casync_run_until_complete(gather(2, CASYNC_FIRST_ERROR)), 0);
    close_loop();
}

IN_TASK(cancelled_gather_cancels_all_and_waits_for_them) {
    casync_task *gathering;
    stackless one = ZERO;
    init_futures();
    spawn_as(0, sleeps, 1000);
    spawn_as(1, sleeps_on, 50); /* takes its time */
    start_stackless(&one, &futures[4]);
    waiters[2].future = &one.task.future;
    gathering = spawn(awaits, gather(3, CASYNC_FIRST_ERROR));
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_task_cancel(gathering), 1);
    EQ(casync_join(gathering), -ECANCELED);
    EQ(casync_time(&loop), CASYNC_MS(50));
    EQ(set.future.state, CASYNC_FUTURE_CANCELLED);
    EQ(casync_join(tasks[0]), -ECANCELED);
    EQ(casync_join(tasks[1]), 50);
    EQ(casync_future_result(&one.task.future), -ECANCELED);
    EQ(futures[4].state, CASYNC_FUTURE_CANCELLED);
    EQ(casync_future_cancel(&set.future), 0);
}

/* asyncio's test_cancel_gather_1: once all children are done there is nothing left to cancel. */
TEST(gather_of_what_is_done_refuses_to_be_cancelled) {
    casync_future *all;
    open_loop_and_futures();
    all = gather(1, CASYNC_FIRST_ERROR);
    set_result(0, 42);
    EQ(casync_future_cancel(all), 0);
    EQ(casync_run_until_complete(all), 0);
    close_loop();
}

static int64_t gathers_again_and_again(casync_loop *where, void *arg) {
    int i;
    (void)where, (void)arg;
    for (i = 0; i < 20; i++) {
        casync_timer_op op;
        casync_waiter waiter = ZERO;
        int64_t result;
        waiter.future = casync_sleep_op(&loop, &op, CASYNC_MS(50));
        result = casync_gather(&waiter, 1, CASYNC_RETURN_ERRORS);
        if (result < 0) return result;
    }
    return 0;
}
IN_TASK(gather_of_errors_still_hears_of_its_own_cancellation) {
    casync_task *task = spawn(gathers_again_and_again, NULL);
    EQ(casync_sleep(CASYNC_MS(220)), 0);
    EQ(casync_task_cancel(task), 1);
    EQ(casync_join(task), -ECANCELED);
    EQ(casync_time(&loop), CASYNC_MS(220));
}

TEST(closed_gather_leaves_its_futures_alone) {
    casync_future *all;
    open_loop_and_futures();
    all = gather(2, CASYNC_FIRST_ERROR);
    set_result(0, 1);
    casync_future_close(all);
    set_result(1, -EIO);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(set.pending, 2); /* nobody counted */
    close_loop();
}

TEST(gather_of_a_closed_future_is_an_error) {
    casync_future *all;
    open_loop_and_futures();
    casync_future_close(&futures[1]);
    all = gather(3, CASYNC_FIRST_ERROR);
    EQ(casync_future_result(all), -EINVAL);
    set_result(0, 1);
    EQ(casync_run_until_idle(&loop), 0);
    close_loop();
}

TEST(gathers_nest) {
    casync_wait_set inner;
    casync_waiter outer[2] = ZERO;
    open_loop_and_futures();
    outer[0].future = casync_gather_op(&loop, &inner, waiters, 2, CASYNC_FIRST_ERROR);
    outer[1].future = &futures[2];
    (void)casync_gather_op(&loop, &set, outer, 2, CASYNC_FIRST_ERROR);
    EQ(casync_future_cancel(&set.future), 1);
    EQ(casync_run_until_complete(&set.future), -ECANCELED);
    EQ(futures[0].state, CASYNC_FUTURE_CANCELLED);
    EQ(futures[1].state, CASYNC_FUTURE_CANCELLED);
    EQ(futures[2].state, CASYNC_FUTURE_CANCELLED);
    close_loop();
}

/* The gatherer is awaited by what it gathers. */
TEST(gather_in_a_circle_can_be_cancelled) {
    static stackless gatherer, gathered;
    open_loop_and_futures();
    start_stackless(&gathered, &gatherer.task.future);
    waiters[0].future = &gathered.task.future;
    start_stackless(&gatherer, gather(1, CASYNC_FIRST_ERROR));
    turns(1);
    EQ(casync_task_cancel(&gatherer.task), 1);
    EQ(casync_run_until_complete(&gatherer.task.future), -ECANCELED);
    EQ(casync_run_until_complete(&gathered.task.future), -ECANCELED);
    casync_future_close(&gatherer.task.future);
    casync_future_close(&gathered.task.future);
    close_loop();
}

TEST(stackless_task_gathers) {
    static stackless s;
    open_loop_and_futures();
    start_stackless(&s, gather(2, CASYNC_FIRST_ERROR));
    turns(1);
    set_result(0, 1);
    set_result(1, -EDOM);
    EQ(casync_run_until_complete(&s.task.future), -EDOM);
    casync_future_close(&s.task.future);
    close_loop();
}

/* >> wait ------------------------------------------------------------------------------------- */

IN_TASK(wait_for_all) {
    spawn_as(0, sleeps, 100);
    spawn_as(1, sleeps, 150);
    EQ(casync_wait(waiters, 2, CASYNC_ALL_COMPLETED, CASYNC_FOREVER), 2);
    EQ(casync_time(&loop), CASYNC_MS(150));
    EQ(casync_wait(waiters, 2, CASYNC_ALL_COMPLETED, CASYNC_FOREVER), 2); /* takes no time */
    EQ(casync_time(&loop), CASYNC_MS(150));
    join_all(2);
}

IN_TASK(wait_for_the_first) {
    spawn_as(0, sleeps, 10000);
    spawn_as(1, sleeps, 100);
    EQ(casync_wait(waiters, 2, CASYNC_FIRST_COMPLETED, CASYNC_FOREVER), 1);
    EQ(casync_time(&loop), CASYNC_MS(100));
    EXPECT(!casync_future_done(waiters[0].future));
    EXPECT(casync_future_done(waiters[1].future));
    join_all(2);
}

/* Several may be done by the time the wait is over. */
TEST(wait_counts_all_that_are_done) {
    open_loop_and_futures();
    (void)casync_wait_op(&loop, &set, waiters, 3, CASYNC_FIRST_COMPLETED, CASYNC_FOREVER);
    set_result(2, 0);
    set_result(0, 0);
    EQ(casync_run_until_complete(&set.future), 2);
    close_loop();
}

IN_TASK(wait_for_the_first_exception) {
    spawn_as(0, sleeps, 10000);
    spawn_as(1, sleeps, 10);
    spawn_as(2, fails_after, 20);
    EQ(casync_wait(waiters, 3, CASYNC_FIRST_EXCEPTION, CASYNC_FOREVER), 2);
    EQ(casync_time(&loop), CASYNC_MS(20));
    /* it has failed already */
    EQ(casync_wait(waiters, 3, CASYNC_FIRST_EXCEPTION, CASYNC_FOREVER), 2);
    EQ(casync_time(&loop), CASYNC_MS(20));
    join_all(3);
}

IN_TASK(wait_for_an_exception_that_does_not_come) {
    spawn_as(0, sleeps, 10);
    spawn_as(1, sleeps, 20);
    EQ(casync_wait(waiters, 2, CASYNC_FIRST_EXCEPTION, CASYNC_FOREVER), 2);
    join_all(2);
}

TEST(cancelled_future_is_no_exception) {
    open_loop_and_futures();
    (void)casync_wait_op(&loop, &set, waiters, 2, CASYNC_FIRST_EXCEPTION, CASYNC_FOREVER);
    EQ(casync_future_cancel(&futures[0]), 1);
    turns(2);
    EXPECT(!casync_future_done(&set.future));
    set_result(1, -EIO);
    EQ(casync_run_until_complete(&set.future), 2);
    close_loop();
}

IN_TASK(wait_with_an_exception_among_all) {
    spawn_as(0, sleeps, 100);
    spawn_as(1, fails_after, 150);
    EQ(casync_wait(waiters, 2, CASYNC_ALL_COMPLETED, CASYNC_FOREVER), 2);
    EQ(casync_time(&loop), CASYNC_MS(150));
    join_all(2);
}

IN_TASK(wait_with_a_timeout) {
    spawn_as(0, sleeps, 100);
    spawn_as(1, sleeps, 150);
    EQ(casync_wait(waiters, 2, CASYNC_ALL_COMPLETED, CASYNC_MS(110)), 1);
    EQ(casync_time(&loop), CASYNC_MS(110));
    EQ(tasks[1]->cancel_requests, 0);
    EQ(casync_wait(waiters, 2, CASYNC_ALL_COMPLETED, 0), 1);
    EQ(casync_wait(waiters, 2, CASYNC_ALL_COMPLETED, -1), 1);
    EQ(casync_wait(waiters, 2, CASYNC_ALL_COMPLETED, CASYNC_MS(1000)), 2);
    EQ(casync_time(&loop), CASYNC_MS(150));
    EQ(loop.active, 0); /* the timer is gone */
    join_all(2);
}

TEST(wait_refuses_what_makes_no_sense) {
    open_loop_and_futures();
    EQ(casync_run_until_complete(
           casync_wait_op(&loop, &set, waiters, 0, CASYNC_ALL_COMPLETED, CASYNC_FOREVER)),
       -EINVAL);
    close_loop();
}

IN_TASK(the_same_future_may_be_waited_for_twice) {
    spawn_as(0, sleeps, 10);
    spawn_as(1, sleeps, 20);
    waiters[2].future = waiters[0].future;
    EQ(casync_wait(waiters, 3, CASYNC_ALL_COMPLETED, CASYNC_FOREVER), 3);
    join_all(2);
}

static int64_t waits_for_two(casync_loop *where, void *timeout_ms) {
    int64_t ms = (intptr_t)timeout_ms;
    (void)where;
    return casync_wait(waiters, 2, CASYNC_ALL_COMPLETED, ms ? CASYNC_MS(ms) : CASYNC_FOREVER);
}
static void cancel_wait(int timeout) {
    casync_task *waiting = spawn(waits_for_two, MILLISECONDS(timeout));
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_task_cancel(waiting), 1);
    EQ(casync_join(waiting), -ECANCELED);
    EQ(loop.active, 0);
    EQ(futures[0].state, CASYNC_FUTURE_PENDING);
    EXPECT(!futures[0].callbacks.next || futures[0].callbacks.next == &futures[0].callbacks);
}
IN_TASK(cancelled_wait_cancels_none) {
    init_futures();
    cancel_wait(0);
    cancel_wait(1000);
}

TEST(wait_retrieves_no_error) {
    open_loop_and_futures();
    (void)casync_wait_op(&loop, &set, waiters, 1, CASYNC_ALL_COMPLETED, CASYNC_FOREVER);
    set_result(0, -EIO);
    EQ(casync_run_until_complete(&set.future), 1);
    casync_future_close(&futures[0]);
    SAID("exception=-5");
    close_loop();
}

IN_TASK(waits_refuse_modes_they_do_not_know) {
    init_futures();
    EQ(casync_wait(waiters, 1, 77, CASYNC_FOREVER), -EINVAL);
    EQ(casync_gather(waiters, 1, CASYNC_FIRST_COMPLETED), -EINVAL);
}

/* >> select ----------------------------------------------------------------------------------- */

IN_TASK(select_cancels_those_that_did_not_happen) {
    casync_timer_op soon, late;
    init_futures();
    waiters[1].future = casync_sleep_op(&loop, &soon, CASYNC_MS(10));
    waiters[2].future = casync_sleep_op(&loop, &late, CASYNC_MS(20));
    EQ(casync_select(waiters, 3, CASYNC_FOREVER), 1);
    EQ(casync_time(&loop), CASYNC_MS(10));
    EQ(futures[0].state, CASYNC_FUTURE_CANCELLED);
    EQ(soon.future.state, CASYNC_FUTURE_DONE);
    EQ(late.future.state, CASYNC_FUTURE_CANCELLED);
    EQ(loop.active, 0);
}

IN_TASK(select_may_find_several) {
    init_futures();
    set_result(0, 1);
    set_result(1, -EIO);
    EQ(casync_select(waiters, 3, CASYNC_FOREVER), 2);
    EQ(casync_future_result(&futures[1]), -EIO);
    EQ(futures[2].state, CASYNC_FUTURE_CANCELLED);
}

IN_TASK(select_that_times_out_cancels_all) {
    init_futures();
    EQ(casync_select(waiters, 3, CASYNC_MS(5)), 0);
    EQ(casync_time(&loop), CASYNC_MS(5));
    EQ(futures[0].state, CASYNC_FUTURE_CANCELLED);
    EQ(futures[2].state, CASYNC_FUTURE_CANCELLED);
    EQ(casync_select(waiters, 0, 0), -EINVAL);
}

static int64_t selects(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return casync_select(waiters, 2, CASYNC_FOREVER);
}
IN_TASK(cancelled_select_cancels_all) {
    casync_task *selecting;
    init_futures();
    selecting = spawn(selects, NULL);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_task_cancel(selecting), 1);
    EQ(casync_join(selecting), -ECANCELED);
    EQ(futures[0].state, CASYNC_FUTURE_CANCELLED);
    EQ(futures[1].state, CASYNC_FUTURE_CANCELLED);
}

/* A read that did not happen leaves the byte to the next. */
IN_TASK(select_over_reads_loses_no_byte) {
    casync_stream streams[2][2];
    casync_op ops[2];
    char bytes[2], byte;
    int i;
    memset(streams, 0, sizeof streams);
    memset(waiters, 0, sizeof waiters);
    for (i = 0; i < 2; i++) {
        int ends[2];
        make_socketpair(ends);
        EQ(casync_stream_open(&loop, &streams[i][0], ends[0], NULL, NULL), 0);
        EQ(casync_stream_open(&loop, &streams[i][1], ends[1], NULL, NULL), 0);
        waiters[i].future = casync_read_op(&streams[i][0], &ops[i], &bytes[i], 1);
    }
    EQ(casync_write(&streams[1][1], "b", 1), 1);
    EQ(casync_select(waiters, 2, CASYNC_FOREVER), 1);
    EQ(casync_future_result(&ops[1].future), 1);
    EQ(bytes[1], 'b');
    EQ(ops[0].future.state, CASYNC_FUTURE_CANCELLED);
    EQ(casync_write(&streams[0][1], "a", 1), 1);
    EQ(casync_read(&streams[0][0], &byte, 1), 1);
    EQ(byte, 'a');
    for (i = 0; i < 4; i++) casync_close(&streams[i / 2][i % 2]);
}

/* >> as_completed ----------------------------------------------------------------------------- */

static casync_completion completion;

enum { NO_MORE = -1 };

/* The number of the next, NO_MORE, or an error. */
static int64_t next_number(void) {
    casync_future *future = NULL;
    int64_t result = casync_completion_next(&completion, &future);
    int i;
    for (i = 0; i < FUTURES && result == 1; i++)
        if (waiters[i].future == future) return i;
    return result == 0 ? (int64_t)NO_MORE : result;
}

IN_TASK(as_completed_gives_them_in_the_order_in_which_they_end) {
    spawn_as(0, sleeps, 150);
    spawn_as(1, sleeps, 10);
    spawn_as(2, fails_after, 15);
    EQ(casync_as_completed(&loop, &completion, waiters, 3), 0);
    EQ(next_number(), 1);
    EQ(casync_time(&loop), CASYNC_MS(10));
    EQ(next_number(), 2);
    EQ(casync_future_result(waiters[2].future), -EIO);
    EQ(casync_sleep(CASYNC_MS(500)), 0); /* it need not be asked at once */
    EQ(next_number(), 0);
    EQ(next_number(), NO_MORE);
    EQ(next_number(), NO_MORE);
    join_all(3);
}

IN_TASK(as_completed_of_nothing_and_of_what_is_done) {
    init_futures();
    EQ(casync_as_completed(&loop, &completion, waiters, 0), 0);
    EQ(next_number(), NO_MORE);
    set_result(1, 0);
    set_result(0, 0);
    EQ(casync_as_completed(&loop, &completion, waiters, 2), 0);
    EXPECT(next_number() >= 0);
    EXPECT(next_number() >= 0);
    EQ(next_number(), NO_MORE);
}

IN_TASK(as_completed_may_be_stopped) {
    init_futures();
    EQ(casync_as_completed(&loop, &completion, waiters, 3), 0);
    set_result(2, 0);
    set_result(1, 0);
    EQ(next_number(), 2);
    casync_completion_stop(&completion);
    memset(&completion, 0xff, sizeof completion); /* the memory is ours again */
    memset(waiters, 0xff, sizeof waiters);
    set_result(0, 0);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
}

static int64_t asks_for_next(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return next_number();
}
IN_TASK(cancelled_as_completed_gives_nothing) {
    casync_task *asking;
    init_futures();
    EQ(casync_as_completed(&loop, &completion, waiters, 3), 0);
    asking = spawn(asks_for_next, NULL);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_task_cancel(asking), 1);
    EQ(casync_join(asking), -ECANCELED);
    EQ(futures[0].state, CASYNC_FUTURE_PENDING);
    casync_completion_stop(&completion);
    memset(waiters, 0xff, sizeof waiters);
    set_result(0, 0);
}

IN_TASK(as_completed_in_a_timeout) {
    casync_timeout limit;
    spawn_as(0, sleeps, 100);
    spawn_as(1, sleeps, 150);
    EQ(casync_as_completed(&loop, &completion, waiters, 2), 0);
    EQ(casync_timeout_begin(&limit, CASYNC_MS(120)), 0);
    EQ(next_number(), 0);
    EQ(casync_timeout_end(&limit, next_number()), -ETIMEDOUT);
    casync_completion_stop(&completion);
    EQ(casync_time(&loop), CASYNC_MS(120));
    join_all(2);
}

IN_TASK(the_same_future_completes_as_often_as_it_is_there) {
    init_futures();
    waiters[1].future = &futures[0];
    EQ(casync_as_completed(&loop, &completion, waiters, 2), 0);
    set_result(0, 0);
    EQ(next_number(), 0);
    EQ(next_number(), 0);
    EQ(next_number(), NO_MORE);
}

TEST(as_completed_outside_of_a_task_does_nothing) {
    open_loop_and_futures();
    EQ(casync_as_completed(&loop, &completion, waiters, 1), 0);
    EQ(next_number(), -EPERM);
    SAID("exception=-1");
    EQ(completion.set.pending, 1);
    casync_completion_stop(&completion);
    close_loop();
}

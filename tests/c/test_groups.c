/* >> structured concurrency: gather, wait, select, as_completed, wait_for, shield, timeouts,
   task groups. */
#include "support.h"

/* Futures a to e, and the same as what is waited for. */
enum { FUTURES = 5 };
static casync_future futures[FUTURES];
static casync_waiter waiters[FUTURES];

static void init_futures(void) {
    int i;
    memset(waiters, 0, sizeof waiters);
    for (i = 0; i < FUTURES; i++) {
        EQ(casync_future_init(&loop, &futures[i]), 0);
        waiters[i].future = &futures[i];
    }
}

static void open_loop_and_futures(void) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    init_futures();
}

static void set_result(int number, int64_t result) {
    EQ(casync_future_set_result(&futures[number], result, NULL), 0);
}

/* Sleepers in the place of the futures. */
static casync_task *tasks[FUTURES];
static void spawn_as(int number, casync_coroutine coroutine, int milliseconds) {
    tasks[number] = spawn(coroutine, MILLISECONDS(milliseconds));
    waiters[number].future = &tasks[number]->future;
}

static void forget_what_was_said(void) {
    said[0] = 0;
    said_size = 0;
}

/* A stackless task that awaits one future. */
typedef struct stackless {
    casync_task task;
    casync_future *awaited;
    int64_t got;
} stackless;
static int64_t await_step(casync_task *task) {
    stackless *s = (stackless *)(void *)task;
    CASYNC_BEGIN(task);
    CASYNC_AWAIT(task, s->got, s->awaited);
    CASYNC_END(task, s->got);
}
static void start_stackless(stackless *s, casync_future *awaited) {
    s->awaited = awaited;
    EQ(casync_task_start(&loop, &s->task, await_step), 0);
}

static int64_t awaits(casync_loop *where, void *future) {
    (void)where;
    return casync_await((casync_future *)future);
}

/* >> gather ----------------------------------------------------------------------------------- */

static casync_wait_set set;

static casync_future *gather(size_t count, int mode) {
    return casync_gather_op(&loop, &set, waiters, count, mode);
}

static void gather_succeeds(int mode) {
    casync_future *all;
    open_loop_and_futures();
    all = gather(3, mode);
    PTR_EQ(all, &set.future);
    set_result(1, 1);
    set_result(0, 2);
    run_turns(2);
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
    run_turns(2);
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
    run_turns(2);
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
    run_turns(2);
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
    run_turns(1);
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
    run_turns(1);
    set_result(0, 1);
    set_result(1, -EDOM);
    EQ(casync_run_until_complete(&s.task.future), -EDOM);
    casync_future_close(&s.task.future);
    close_loop();
}

/* >> wait ------------------------------------------------------------------------------------- */

static void join_all(int count) {
    int i;
    for (i = 0; i < count; i++) casync_ignore(casync_join(tasks[i]));
}

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
    run_turns(2);
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

static int64_t says_that_it_runs(casync_loop *where, void *arg) {
    (void)where;
    say(arg);
    return 0;
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

static int64_t cleans_up_for(casync_loop *where, void *ms) {
    int64_t slept = sleeps(where, MILLISECONDS(100000));
    while (casync_sleep(CASYNC_MS((intptr_t)ms)) < 0) continue;
    return slept;
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
    run_turns(1);
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

/* >> task groups ------------------------------------------------------------------------------ */

static casync_task_group group;

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
    run_turns(2);
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
    run_turns(2);
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

IN_TASK(waits_refuse_modes_they_do_not_know) {
    init_futures();
    EQ(casync_wait(waiters, 1, 77, CASYNC_FOREVER), -EINVAL);
    EQ(casync_gather(waiters, 1, CASYNC_FIRST_COMPLETED), -EINVAL);
}

/* >> what fails changes nothing; what cannot end is told -------------------------------------- */

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

TEST_MAIN

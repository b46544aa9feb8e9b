/* >> futures: a result that may not be there yet, and those who wait for it. */
#include "loop_fixture.h"

static casync_future future;

static void open_future(void) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_future_init(&loop, &future), 0);
}

static void close_future(void) {
    casync_future_close(&future);
    close_loop();
}

TEST(a_future_is_pending_at_first) {
    memset((void *)&future, 0xa5, sizeof future);
    open_future();
    EQ(future.state, CASYNC_FUTURE_PENDING);
    EXPECT(!casync_future_done(&future));
    EQ(casync_future_result(&future), CASYNC_INVALID_STATE);
    close_future();
}

TEST(a_closed_loop_has_no_futures) {
    casync_loop closed = ZERO;
    EQ(casync_future_init(&closed, &future), -EINVAL);
}

TEST(a_result_makes_it_done) {
    int thing;
    open_future();
    EQ(casync_future_set_result(&future, 7, &thing), 0);
    EQ(future.state, CASYNC_FUTURE_DONE);
    EXPECT(casync_future_done(&future));
    EQ(casync_future_result(&future), 7);
    EQ(future.result, 7);
    PTR_EQ(future.ptr, &thing);
    close_future();
}

TEST(an_error_makes_it_failed) {
    open_future();
    EQ(casync_future_set_result(&future, -EIO, NULL), 0);
    EQ(future.state, CASYNC_FUTURE_FAILED);
    EXPECT(casync_future_done(&future));
    EQ(casync_future_result(&future), -EIO);
    close_future();
}

TEST(awaiting_does_not_consume_the_result) {
    open_future();
    EQ(casync_future_set_result(&future, 7, NULL), 0);
    EQ(casync_future_result(&future), 7);
    EQ(casync_future_result(&future), 7);
    close_future();
}

TEST(a_result_is_set_once) {
    open_future();
    EQ(casync_future_set_result(&future, 7, NULL), 0);
    EQ(casync_future_set_result(&future, 8, NULL), CASYNC_INVALID_STATE);
    EQ(casync_future_set_result(&future, -EIO, NULL), CASYNC_INVALID_STATE);
    EQ(casync_future_cancel(&future), 0);
    EQ(casync_future_result(&future), 7);
    close_future();
}

TEST(cancel_ends_a_pending_future) {
    open_future();
    EQ(casync_future_cancel(&future), 1);
    EQ(future.state, CASYNC_FUTURE_CANCELLED);
    EXPECT(casync_future_done(&future));
    EQ(casync_future_result(&future), -ECANCELED);
    EQ(casync_future_cancel(&future), 0);
    EQ(casync_future_set_result(&future, 1, NULL), CASYNC_INVALID_STATE);
    close_future();
}

TEST(done_callbacks_run_by_the_ready_queue_in_their_order) {
    casync_job job = ZERO;
    open_future();
    EQ(casync_future_add_done_callback(&future, NULL, say, WORD("1")), 0);
    EQ(casync_future_add_done_callback(&future, &job, say, WORD("2")), 0);
    EQ(casync_future_add_done_callback(&future, NULL, say, WORD("3")), 0);
    turn();
    SAID("");
    EQ(casync_call_soon(&loop, NULL, say, WORD("before")), 0);
    EQ(casync_future_set_result(&future, 0, NULL), 0);
    EQ(casync_call_soon(&loop, NULL, say, WORD("after")), 0);
    SAID("");
    turn();
    SAID("before 1 2 3 after");
    close_future();
}

TEST(a_callback_added_to_a_done_future_runs_in_the_next_turn) {
    open_future();
    EQ(casync_future_set_result(&future, 0, NULL), 0);
    EQ(casync_future_add_done_callback(&future, NULL, say, WORD("late")), 0);
    SAID("");
    turn();
    SAID("late");
    close_future();
}

TEST(cancellation_and_failure_call_back_too) {
    open_future();
    EQ(casync_future_add_done_callback(&future, NULL, say, WORD("cancelled")), 0);
    EQ(casync_future_cancel(&future), 1);
    turn();
    SAID("cancelled");
    casync_future_close(&future);
    EQ(casync_future_init(&loop, &future), 0);
    EQ(casync_future_add_done_callback(&future, NULL, say, WORD("failed")), 0);
    EQ(casync_future_set_result(&future, -EIO, NULL), 0);
    turn();
    SAID("failed");
    EQ(casync_future_result(&future), -EIO);
    close_future();
}

TEST(a_done_callback_can_be_removed) {
    casync_job job = ZERO, queued = ZERO;
    open_future();
    EQ(casync_future_add_done_callback(&future, &job, never, NULL), 0);
    EXPECT(casync_job_pending(&job));
    EQ(casync_job_cancel(&job), 1);
    EQ(casync_job_cancel(&job), 0);
    EQ(casync_future_add_done_callback(&future, &queued, never, NULL), 0);
    EQ(casync_future_set_result(&future, 0, NULL), 0);
    EQ(casync_job_cancel(&queued), 1);
    turn();
    close_future();
}

TEST(a_job_that_is_queued_cannot_wait_for_a_future) {
    casync_job job = ZERO;
    open_future();
    EQ(casync_call_soon(&loop, &job, say, WORD("call")), 0);
    EQ(casync_future_add_done_callback(&future, &job, never, NULL), -EALREADY);
    EQ(casync_future_add_done_callback(&future, NULL, NULL, NULL), -EINVAL);
    turn();
    SAID("call");
    EQ(casync_future_set_result(&future, 0, NULL), 0);
    turn();
    close_future();
}

TEST(without_memory_a_pooled_callback_is_not_added) {
    open_future();
    fail_allocation(1, 0);
    EQ(casync_future_add_done_callback(&future, NULL, never, NULL), -ENOMEM);
    fail_no_allocation();
    EQ(casync_future_set_result(&future, 0, NULL), 0);
    turn();
    close_future();
}

TEST(close_drops_callbacks_that_have_not_run) {
    casync_job job = ZERO;
    open_future();
    EQ(casync_future_add_done_callback(&future, &job, never, NULL), 0);
    EQ(casync_future_add_done_callback(&future, NULL, never, NULL), 0);
    casync_future_close(&future);
    EXPECT(!casync_job_pending(&job));
    EXPECT(!casync_loop_alive(&loop));
    turn();
    EQ(casync_call_soon(&loop, &job, say, WORD("reused")), 0);
    turn();
    SAID("reused");
    close_loop();
}

TEST(callbacks_of_a_done_future_are_jobs_of_the_loop) {
    casync_job job = ZERO, cancelled = ZERO;
    open_future();
    EQ(casync_future_add_done_callback(&future, &job, say, WORD("runs")), 0);
    EQ(casync_future_add_done_callback(&future, &cancelled, never, NULL), 0);
    EQ(casync_future_set_result(&future, 1, NULL), 0);
    casync_future_close(&future);
    EQ(casync_job_cancel(&cancelled), 1);
    turn();
    SAID("runs");
    close_loop();
}

TEST(an_error_that_nobody_retrieved_is_told_to_the_exception_handler) {
    open_future();
    EQ(casync_future_set_result(&future, -EIO, NULL), 0);
    turn();
    SAID("");
    casync_future_close(&future);
    SAID("exception=-5");
    casync_future_close(&future);
    SAID("");
    close_loop();
}

TEST(retrieved_errors_and_cancellations_are_nobodys_business) {
    open_future();
    EQ(casync_future_set_result(&future, -EIO, NULL), 0);
    EQ(casync_future_result(&future), -EIO);
    casync_future_close(&future);
    EQ(casync_future_init(&loop, &future), 0);
    EQ(casync_future_cancel(&future), 1);
    casync_future_close(&future);
    EQ(casync_future_init(&loop, &future), 0);
    casync_future_close(&future);
    close_loop();
}

static void close_the_future(void *arg) {
    say(arg);
    casync_future_close(&future);
}

TEST(a_callback_may_close_its_future) {
    open_future();
    EQ(casync_future_add_done_callback(&future, NULL, close_the_future, WORD("closed")), 0);
    EQ(casync_future_add_done_callback(&future, NULL, say, WORD("next")), 0);
    EQ(casync_future_set_result(&future, 1, NULL), 0);
    turn();
    SAID("closed next");
    close_loop();
}

static void set_second(void *arg) {
    EQ(casync_future_set_result((casync_future *)arg, 1, NULL), 0);
    say(WORD("first"));
}

TEST(a_callback_may_complete_another_future) {
    casync_future second;
    open_future();
    EQ(casync_future_init(&loop, &second), 0);
    EQ(casync_future_add_done_callback(&future, NULL, set_second, &second), 0);
    EQ(casync_future_add_done_callback(&second, NULL, say, WORD("second")), 0);
    EQ(casync_future_set_result(&future, 1, NULL), 0);
    turn();
    SAID("first");
    turn();
    SAID("second");
    casync_future_close(&second);
    close_future();
}

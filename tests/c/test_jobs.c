/* >> jobs: callbacks that the next turn runs, in the order in which they were queued. */
#include "callbacks_fixture.h"

TEST(calls_run_in_the_order_they_were_queued) {
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, say, WORD("1")), 0);
    EQ(casync_call_soon(&loop, &job, say, WORD("2")), 0);
    EQ(casync_call_soon(&loop, NULL, say, WORD("3")), 0);
    EXPECT(casync_job_pending(&job));
    EQ(casync_run_nowait(&loop), 0);
    EXPECT(!casync_job_pending(&job));
    SAID("1 2 3");
    close_loop();
}

static void queue_word(void *arg) {
    say(WORD("first"));
    EQ(casync_call_soon(&loop, NULL, say, arg), 0);
}

TEST(what_a_callback_queues_waits_for_the_next_turn) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, queue_word, WORD("third")), 0);
    EQ(casync_call_soon(&loop, NULL, say, WORD("second")), 0);
    EQ(casync_run_nowait(&loop), 0);
    SAID("first second");
    EQ(casync_run_nowait(&loop), 0);
    SAID("third");
    close_loop();
}

TEST(a_queued_job_cannot_be_queued_again) {
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, &job, say, WORD("first")), 0);
    EQ(casync_call_soon(&loop, &job, never, NULL), -EALREADY);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("first");
    EQ(casync_call_soon(&loop, &job, say, WORD("again")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("again");
    close_loop();
}

TEST(a_call_without_a_callback_is_an_error) {
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, &job, NULL, NULL), -EINVAL);
    EQ(casync_call_soon(&loop, NULL, NULL, NULL), -EINVAL);
    EXPECT(!casync_loop_alive(&loop));
    EQ(memory.live, 0);
    close_loop();
}

static casync_job self;
static void queue_itself(void *arg) {
    say(arg);
    if (++count < 3) EQ(casync_call_soon(&loop, &self, queue_itself, arg), 0);
}

TEST(a_job_may_queue_itself_again) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, &self, queue_itself, WORD("me")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("me me me");
    close_loop();
}

static void free_job(void *arg) {
    free(arg);
    say(WORD("freed"));
}

TEST(a_job_may_free_itself) {
    casync_job *job = (casync_job *)calloc(1, sizeof *job);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, job, free_job, job), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("freed");
    close_loop();
}

TEST(cancel_says_whether_the_job_was_queued) {
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_job_cancel(&job), 0);
    EQ(casync_call_soon(&loop, &job, never, NULL), 0);
    EQ(casync_job_cancel(&job), 1);
    EXPECT(!casync_job_pending(&job));
    EQ(casync_job_cancel(&job), 0);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(casync_call_soon(&loop, &job, say, WORD("ran")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(casync_job_cancel(&job), 0);
    SAID("ran");
    close_loop();
}

static void cancel_job(void *arg) { say_number("cancelled", casync_job_cancel((casync_job *)arg)); }

TEST(a_callback_may_cancel_a_later_one_of_its_turn) {
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, cancel_job, &job), 0);
    EQ(casync_call_soon(&loop, &job, never, NULL), 0);
    EQ(casync_call_soon(&loop, NULL, say, WORD("rest")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("cancelled=1 rest");
    close_loop();
}

TEST(a_running_job_is_in_no_queue) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, &self, cancel_job, &self), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("cancelled=0");
    close_loop();
}

TEST(the_pool_is_reused) {
    int round, i;
    int64_t allocations;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    for (i = 0; i < 1000; i++) EQ(casync_call_soon(&loop, NULL, count_up, NULL), 0);
    EQ(casync_run_until_idle(&loop), 0);
    allocations = memory.allocations;
    for (round = 0; round < 10; round++) {
        for (i = 0; i < 1000; i++) EQ(casync_call_soon(&loop, NULL, count_up, NULL), 0);
        EQ(casync_run_until_idle(&loop), 0);
    }
    EQ(count, 11000);
    EQ(memory.allocations, allocations);
    close_loop();
}

TEST(without_memory_a_pooled_call_fails_and_an_own_job_does_not) {
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    fail_allocation(1, 0);
    EQ(casync_call_soon(&loop, NULL, never, NULL), -ENOMEM);
    EXPECT(!casync_loop_alive(&loop));
    EQ(casync_call_soon(&loop, &job, say, WORD("own")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    fail_no_allocation();
    EQ(casync_call_soon(&loop, NULL, say, WORD("pooled")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("own pooled");
    close_loop();
}

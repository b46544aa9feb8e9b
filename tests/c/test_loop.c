/* >> loop & ready queue: states, runs, the order of a turn, jobs, hooks, hosting, fork. */
#include "support.h"

/* >> init and close --------------------------------------------------------------------------- */

TEST(a_loop_is_closed_until_it_is_made) {
    casync_loop zeroed = ZERO;
    EQ(zeroed.state, CASYNC_LOOP_CLOSED);
    EQ(casync_loop_close(&zeroed), 0);
    EQ(casync_run_forever(&zeroed), -EINVAL);
}

TEST(init_takes_whatever_memory_there_was) {
    memset((void *)&loop, 0xa5, sizeof loop);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(loop.state, CASYNC_LOOP_INIT);
    EQ(loop.turns, 0);
    close_loop();
}

TEST(init_without_a_description_uses_the_defaults) {
    casync_loop plain;
    EQ(casync_loop_init(&plain, NULL), 0);
    EQ(plain.clock, CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&plain, NULL, say, WORD("ran")), 0);
    EQ(casync_run_until_idle(&plain), 0);
    SAID("ran");
    EQ(casync_loop_close(&plain), 0);
}

TEST(init_allocates_no_memory) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(memory.allocations, 0);
    close_loop();
}

TEST(init_without_descriptors_fails_and_leaks_none) {
    casync_loop other;
    int before = open_descriptors(), spare;
    forbid_descriptors();
    EQ(casync_loop_init(&other, NULL), -EMFILE);
    allow_descriptors();
    EQ(open_descriptors(), before);

    /* room for one descriptor, but not for the second */
    spare = dup(0);
    forbid_descriptors();
    close(spare);
    EQ(casync_loop_init(&other, NULL), -EMFILE);
    allow_descriptors();
    EQ(open_descriptors(), before);
}

static void say_state(void *arg) {
    (void)arg;
    say_number("state", loop.state);
}

TEST(the_states_follow_the_loops_life) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    say_state(NULL);
    EQ(casync_call_soon(&loop, NULL, say_state, NULL), 0);
    EQ(casync_run_until_idle(&loop), 0);
    say_state(NULL);
    SAID("state=1 state=2 state=3");
    close_loop();
    EQ(loop.state, CASYNC_LOOP_CLOSED);
}

TEST(close_drops_what_is_left_without_a_call) {
    static casync_job job;
    static casync_timer timer;
    static casync_watcher watcher;
    static casync_signal sig;
    static casync_hook hook;
    int ends[2];
    make_pipe(ends);
    put_byte(ends[1]);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, &job, never, NULL), 0);
    EQ(casync_call_soon(&loop, NULL, never, NULL), 0);
    EQ(casync_call_later(&loop, &timer, 0, never, NULL), 0);
    EQ(casync_call_later(&loop, NULL, CASYNC_SECONDS(10), never, NULL), 0);
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), 0);
    EQ(casync_signal_start(&loop, &sig, SIGUSR1, 0, never, NULL), 0);
    EQ(casync_hook_start(&loop, &hook, CASYNC_HOOK_IDLE, 0, never, NULL), 0);
    EQ(casync_call_soon_threadsafe(&loop, NULL, never, NULL), 0);
    EQ(casync_loop_close(&loop), 0);
    EQ(memory.live, 0);
    close_both(ends);
    EQ(open_descriptors(), descriptors_before); /* but for the two of signals and the pipe */
}

TEST(a_closed_loop_may_be_closed_again) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    close_loop();
    EQ(casync_loop_close(&loop), 0);
}

TEST(a_closed_loop_refuses_work) {
    static casync_job job;
    static casync_timer timer;
    static casync_hook hook;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    close_loop();
    EQ(casync_run_forever(&loop), -EINVAL);
    EQ(casync_run_until_idle(&loop), -EINVAL);
    EQ(casync_run_once(&loop), -EINVAL);
    EQ(casync_run_nowait(&loop), -EINVAL);
    EQ(casync_call_soon(&loop, &job, never, NULL), -EINVAL);
    EQ(casync_call_soon(&loop, NULL, never, NULL), -EINVAL);
    EQ(casync_call_later(&loop, &timer, 0, never, NULL), -EINVAL);
    EQ(casync_call_at(&loop, &timer, 0, never, NULL), -EINVAL);
    EQ(casync_hook_start(&loop, &hook, CASYNC_HOOK_IDLE, 0, never, NULL), -EINVAL);
    EXPECT(!casync_job_pending(&job));
    EXPECT(!casync_loop_alive(&loop));
}

TEST(a_closed_loop_can_be_made_again) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, never, NULL), 0);
    close_loop();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_run_until_idle(&loop), 0);
    close_loop();
}

static void close_inside(void *arg) {
    (void)arg;
    EQ(casync_loop_close(&loop), -EBUSY);
    say(WORD("busy"));
}

TEST(close_is_busy_while_the_loop_runs_or_a_stream_is_open) {
    static casync_stream a, b;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, close_inside, NULL), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("busy");
    EQ(casync_socketpair(&loop, &a, &b, NULL, NULL), 0);
    EQ(casync_loop_close(&loop), CASYNC_STILL_OPEN);
    casync_close(&a);
    EQ(casync_loop_close(&loop), CASYNC_STILL_OPEN);
    casync_close(&b);
    close_loop();
}

/* >> runs ------------------------------------------------------------------------------------- */

static int count;
static void count_up(void *arg) {
    (void)arg;
    count++;
}

static void queue_again(void *arg) {
    (void)arg;
    count++;
    EQ(casync_call_soon(&loop, NULL, queue_again, NULL), 0);
}

static void stop_at_ten(void *arg) {
    (void)arg;
    if (++count == 10) casync_stop(&loop);
    EQ(casync_call_soon(&loop, NULL, stop_at_ten, NULL), 0);
}

TEST(run_forever_ends_by_stop) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, stop_at_ten, NULL), 0);
    EQ(casync_run_forever(&loop), 0);
    EQ(count, 10);
    EQ(loop.state, CASYNC_LOOP_STOPPED);
    close_loop();
}

TEST(stop_lets_the_turn_end) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, stop_loop, NULL), 0);
    EQ(casync_call_soon(&loop, NULL, say, WORD("after")), 0);
    EQ(casync_run_forever(&loop), 0);
    SAID("after");
    close_loop();
}

TEST(stop_before_a_run_ends_it_after_one_turn) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    casync_stop(&loop);
    EQ(casync_call_soon(&loop, NULL, queue_again, NULL), 0);
    EQ(casync_run_forever(&loop), 0);
    EQ(count, 1);
    EQ(loop.turns, 1);
    casync_stop(&loop);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(count, 2);
    close_loop();
}

static int ends[2];
static casync_watcher watcher;

static void read_byte(void *arg) {
    get_byte(ends[0]);
    say(arg);
}

static void read_and_remove(void *arg) {
    read_byte(arg);
    casync_remove_reader(&watcher);
}

TEST(stop_and_run_delivers_io) {
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_byte, WORD("io")), 0);
    EQ(casync_call_soon(&loop, NULL, queue_again, NULL), 0);
    for (count = 0; count < 100;) {
        put_byte(ends[1]);
        casync_stop(&loop);
        EQ(casync_run_forever(&loop), 0);
        SAID("io");
    }
    close_loop();
    close_both(ends);
}

TEST(until_idle_ends_when_nothing_is_left) {
    make_pipe(ends);
    put_byte(ends[1]);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(casync_call_soon(&loop, NULL, say, WORD("soon")), 0);
    EQ(casync_call_later(&loop, NULL, CASYNC_MS(1), say, WORD("later")), 0);
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_and_remove, WORD("io")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("soon io later");
    EQ(casync_run_until_idle(&loop), 0);
    close_loop();
    close_both(ends);
}

static void chain(void *arg) {
    int *left = (int *)arg;
    if (--*left > 0) EQ(casync_call_soon(&loop, NULL, chain, left), 0);
}

TEST(until_idle_runs_what_callbacks_queue) {
    int left = 1000;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, chain, &left), 0);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(left, 0);
    EQ(loop.turns, 1000);
    close_loop();
}

TEST(break_ends_the_turn_at_once_and_keeps_the_order) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, say, WORD("one")), 0);
    EQ(casync_call_soon(&loop, NULL, (casync_callback)(void (*)(void))casync_break, &loop), 0);
    EQ(casync_call_soon(&loop, NULL, say, WORD("two")), 0);
    EQ(casync_call_soon(&loop, NULL, say, WORD("three")), 0);
    EQ(casync_run_forever(&loop), 0);
    SAID("one");
    EXPECT(casync_loop_alive(&loop));
    EQ(casync_call_soon(&loop, NULL, say, WORD("four")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("two three four");
    close_loop();
}

static void break_loop(void *arg) {
    casync_break(&loop);
    say(arg);
    EQ(casync_call_soon(&loop, NULL, say, WORD("queued-by-it")), 0);
}

TEST(break_keeps_the_rest_before_what_was_queued_in_the_turn) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, break_loop, WORD("break")), 0);
    EQ(casync_call_soon(&loop, NULL, say, WORD("rest")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("break");
    EQ(casync_run_until_idle(&loop), 0);
    SAID("rest queued-by-it");
    close_loop();
}

TEST(run_once_waits_for_something_to_do) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_later(&loop, NULL, CASYNC_MS(2), say, WORD("timer")), 0);
    EQ(casync_run_once(&loop), 0);
    while (said_size == 0) EQ(casync_run_once(&loop), 0); /* a wait may end early, never late */
    SAID("timer");
    close_loop();
}

TEST(run_once_does_not_wait_for_nothing) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_run_once(&loop), 0);
    EQ(loop.turns, 1);
    close_loop();
}

TEST(run_nowait_does_not_wait) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_later(&loop, NULL, CASYNC_SECONDS(1000), never, NULL), 0);
    EQ(casync_call_soon(&loop, NULL, say, WORD("soon")), 0);
    EQ(casync_run_nowait(&loop), 0);
    EQ(casync_run_nowait(&loop), 0);
    EQ(loop.turns, 2);
    SAID("soon");
    close_loop();
}

static void complete(void *arg) { EQ(casync_future_set_result((casync_future *)arg, 42, NULL), 0); }

TEST(run_until_complete_returns_the_futures_result) {
    casync_future future;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_future_init(&loop, &future), 0);
    EQ(casync_call_later(&loop, NULL, CASYNC_SECONDS(1), complete, &future), 0);
    EQ(casync_run_until_complete(&future), 42);
    EQ(casync_run_until_complete(&future), 42);
    casync_future_close(&future);
    close_loop();
}

TEST(run_until_complete_says_when_the_loop_was_stopped_before) {
    casync_future future;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_future_init(&loop, &future), 0);
    EQ(casync_call_soon(&loop, NULL, stop_loop, NULL), 0);
    EQ(casync_run_until_complete(&future), CASYNC_INVALID_STATE);
    EXPECT(!casync_future_done(&future));
    EQ(casync_call_soon(&loop, NULL, complete, &future), 0);
    EQ(casync_run_until_complete(&future), 42);
    casync_future_close(&future);
    close_loop();
}

TEST(run_until_complete_retrieves_the_error) {
    casync_future future;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_future_init(&loop, &future), 0);
    EQ(casync_future_set_result(&future, -EIO, NULL), 0);
    EQ(casync_run_until_complete(&future), -EIO);
    casync_future_close(&future);
    close_loop();
}

static void run_inside(void *arg) {
    casync_future future;
    (void)arg;
    EQ(casync_run_forever(&loop), -EBUSY);
    EQ(casync_run_until_idle(&loop), -EBUSY);
    EQ(casync_run_once(&loop), -EBUSY);
    EQ(casync_run_nowait(&loop), -EBUSY);
    EQ(casync_future_init(&loop, &future), 0);
    EQ(casync_run_until_complete(&future), -EBUSY);
    casync_future_close(&future);
    say(WORD("busy"));
}

TEST(a_loop_does_not_run_inside_itself) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, run_inside, NULL), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("busy");
    close_loop();
}

static void *run_in_thread(void *arg) {
    (void)arg;
    EQ(casync_run_nowait(&loop), -EBUSY);
    return NULL;
}

static void run_elsewhere(void *arg) {
    join_thread(start_thread(run_in_thread, NULL));
    say(arg);
}

TEST(a_loop_does_not_run_in_two_threads) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, run_elsewhere, WORD("busy")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("busy");
    close_loop();
}

static casync_loop inner;

static void in_inner(void *arg) {
    PTR_EQ(casync_get_running_loop(), &inner);
    say(arg);
}

static void in_outer(void *arg) {
    PTR_EQ(casync_get_running_loop(), &loop);
    EQ(casync_call_soon(&inner, NULL, in_inner, WORD("inner")), 0);
    EQ(casync_run_until_idle(&inner), 0);
    PTR_EQ(casync_get_running_loop(), &loop);
    say(arg);
}

TEST(each_thread_knows_the_loop_it_runs) {
    PTR_EQ(casync_get_running_loop(), NULL);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_loop_init(&inner, NULL), 0);
    PTR_EQ(casync_get_running_loop(), NULL);
    EQ(casync_call_soon(&loop, NULL, in_outer, WORD("outer")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    PTR_EQ(casync_get_running_loop(), NULL);
    SAID("inner outer");
    EQ(casync_loop_close(&inner), 0);
    close_loop();
}

TEST(alive_means_that_something_is_left_to_do) {
    casync_timer timer = ZERO;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EXPECT(!casync_loop_alive(&loop));
    EQ(casync_call_soon(&loop, NULL, do_nothing, NULL), 0);
    EXPECT(casync_loop_alive(&loop));
    EQ(casync_run_until_idle(&loop), 0);
    EXPECT(!casync_loop_alive(&loop));
    EQ(casync_call_later(&loop, &timer, 1, do_nothing, NULL), 0);
    EXPECT(casync_loop_alive(&loop));
    casync_timer_ref(&timer, false);
    EXPECT(!casync_loop_alive(&loop));
    EQ(casync_timer_stop(&timer), 1);
    EXPECT(!casync_loop_alive(&loop));
    close_loop();
}

TEST(unreferenced_objects_work_but_keep_nothing_running) {
    casync_timer timer = ZERO, other = ZERO;
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_later(&loop, &timer, CASYNC_SECONDS(1000), never, NULL), 0);
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), 0);
    casync_timer_ref(&timer, false);
    casync_watcher_ref(&watcher, false);
    casync_watcher_ref(&watcher, false); /* once is enough */
    EQ(casync_run_until_idle(&loop), 0);
    EQ(casync_run_once(&loop), 0);
    casync_timer_ref(&timer, true);
    EXPECT(casync_loop_alive(&loop));
    EQ(casync_timer_stop(&timer), 1);
    casync_watcher_ref(&watcher, true);
    EXPECT(casync_loop_alive(&loop));
    EQ(casync_remove_reader(&watcher), 1);
    EXPECT(!casync_loop_alive(&loop));
    EQ(casync_call_later(&loop, &other, 0, say, WORD("unreferenced")), 0);
    casync_timer_ref(&other, false);
    EQ(casync_call_later(&loop, NULL, CASYNC_MS(1), say, WORD("referenced")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("unreferenced referenced");
    close_loop();
    close_both(ends);
}

/* >> jobs ------------------------------------------------------------------------------------- */

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

/* >> a turn ----------------------------------------------------------------------------------- */

TEST(a_turn_runs_soon_then_io_then_timers) {
    int i;
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_byte, WORD("io")), 0);
    for (i = 0; i < 100; i++) {
        EQ(casync_call_later(&loop, NULL, 0, say, WORD("later")), 0);
        EQ(casync_call_soon(&loop, NULL, say, WORD("soon")), 0);
        put_byte(ends[1]);
        EQ(casync_call_soon(&loop, NULL, say, WORD("soon")), 0);
        casync_stop(&loop);
        EQ(casync_run_forever(&loop), 0);
        SAID("soon soon io later");
    }
    close_loop();
    close_both(ends);
}

static void arm_now(void *arg) {
    say(WORD("callback"));
    EQ(casync_call_later(&loop, NULL, -5, say, arg), 0);
}

TEST(timers_armed_in_a_turn_wait_for_the_next) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_call_later(&loop, NULL, 0, arm_now, WORD("overdue")), 0);
    EQ(casync_run_nowait(&loop), 0);
    SAID("callback");
    EQ(casync_run_nowait(&loop), 0);
    SAID("overdue");
    close_loop();
}

static void stop_after_100000(void *arg) {
    casync_job *job = (casync_job *)arg;
    if (++count == 100000) return;
    EQ(casync_call_soon(&loop, job, stop_after_100000, job), 0);
}

TEST(while_busy_polls_that_find_nothing_are_skipped_but_bounded) {
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, &job, stop_after_100000, &job), 0);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(loop.turns, 100000);
    EXPECT(loop.polls < loop.turns / 2);
    EXPECT(loop.polls * (CASYNC__MAX_SKIPPED_POLLS + 1) >= loop.turns);
    close_loop();
}

/* Stays in the queue for 40 turns, notes in which of them the poll was first skipped, and watches
   the pipe in the one that it is told. */
static uint64_t first_skipped, watch_in;
static void note_skip(void *arg) {
    if (!first_skipped && loop.polls < loop.turns) first_skipped = loop.turns;
    if (loop.turns == watch_in) EQ(casync_add_reader(&loop, &watcher, ends[0], count_up, NULL), 0);
    if (loop.turns == 40) casync_stop(&loop);
    EQ(casync_call_soon(&loop, (casync_job *)arg, note_skip, arg), 0);
}

static uint64_t first_skipped_turn(uint64_t watched_in) {
    casync_job job = ZERO;
    first_skipped = 0;
    watch_in = watched_in;
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, &job, note_skip, &job), 0);
    EQ(casync_run_forever(&loop), 0);
    close_loop();
    close_both(ends);
    return first_skipped;
}

/* A machine that stalls for 100 us between two turns makes the later one poll once more: of many
   runs the earliest skip is the loop's own. */
static uint64_t earliest_skipped_turn(uint64_t watched_in) {
    uint64_t turn, earliest = UINT64_MAX;
    int run;
    for (run = 0; run < 50; run++) {
        turn = first_skipped_turn(watched_in);
        if (turn != 0 && turn < earliest) earliest = turn;
    }
    return earliest;
}

TEST(sixteen_polls_that_find_nothing_come_before_one_is_skipped) {
    EQ(earliest_skipped_turn(0), 17);
}

TEST(what_is_watched_anew_is_asked_for_sixteen_times) { EQ(earliest_skipped_turn(12), 29); }

/* Each byte is there before the turn that finds it. */
static void find_byte(void *arg) {
    uint64_t *sent = (uint64_t *)arg;
    EQ(loop.turns - *sent, 1);
    get_byte(ends[0]);
    if (++count == 200) casync_stop(&loop);
    *sent = loop.turns;
    put_byte(ends[1]);
}

static void stay_busy(void *arg) {
    EQ(casync_call_soon(&loop, (casync_job *)arg, stay_busy, arg), 0);
}

TEST(a_ready_descriptor_waits_one_turn_while_polls_find_something) {
    uint64_t sent = 0;
    casync_job job = ZERO;
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_add_reader(&loop, &watcher, ends[0], find_byte, &sent), 0);
    EQ(casync_call_soon(&loop, &job, stay_busy, &job), 0);
    put_byte(ends[1]);
    EQ(casync_run_forever(&loop), 0);
    EQ(count, 200);
    EQ(loop.polls, loop.turns);
    close_loop();
    close_both(ends);
}

static void find_byte_late(void *arg) {
    (void)arg;
    get_byte(ends[0]);
    casync_stop(&loop);
}

static void put_byte_late(void *arg) {
    *(uint64_t *)arg = loop.turns;
    put_byte(ends[1]);
}

static void busy_until_byte(void *arg) {
    uint64_t *sent = (uint64_t *)arg;
    if (loop.turns == 1000) put_byte_late(sent);
    EQ(casync_call_soon(&loop, NULL, busy_until_byte, sent), 0);
}

TEST(io_is_not_starved_by_a_busy_loop) {
    uint64_t sent = 0;
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_add_reader(&loop, &watcher, ends[0], find_byte_late, NULL), 0);
    EQ(casync_call_soon(&loop, NULL, busy_until_byte, &sent), 0);
    EQ(casync_run_forever(&loop), 0);
    EQ(sent, 1000);
    EXPECT(loop.turns - sent <= CASYNC__MAX_SKIPPED_POLLS + 1);
    close_loop();
    close_both(ends);
}

TEST(the_first_turn_of_a_run_always_polls) {
    int i;
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, &job, stay_busy, &job), 0);
    for (i = 1; i <= 100; i++) {
        casync_stop(&loop);
        EQ(casync_run_forever(&loop), 0);
        EQ(loop.turns, i);
        EQ(loop.polls, i);
    }
    close_loop();
}

/* >> hooks ------------------------------------------------------------------------------------ */

static casync_hook hook1, hook2, hook3, hook4;

TEST(hooks_run_around_the_poll_by_priority_then_order) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_hook_start(&loop, &hook1, CASYNC_HOOK_AFTER_POLL, 0, say, WORD("after")), 0);
    EQ(casync_hook_start(&loop, &hook2, CASYNC_HOOK_BEFORE_POLL, -1, say, WORD("low")), 0);
    EQ(casync_hook_start(&loop, &hook3, CASYNC_HOOK_BEFORE_POLL, 0, say, WORD("middle")), 0);
    EQ(casync_hook_start(&loop, &hook4, CASYNC_HOOK_BEFORE_POLL, 0, say, WORD("middle-too")), 0);
    EQ(casync_call_soon(&loop, NULL, say, WORD("job")), 0);
    EQ(casync_run_nowait(&loop), 0);
    SAID("middle middle-too low after job");
    close_loop();
}

TEST(hooks_run_in_every_turn_also_when_the_poll_is_skipped) {
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_hook_start(&loop, &hook1, CASYNC_HOOK_BEFORE_POLL, 0, count_up, NULL), 0);
    EQ(casync_hook_start(&loop, &hook2, CASYNC_HOOK_AFTER_POLL, 0, count_up, NULL), 0);
    EQ(casync_call_soon(&loop, &job, stay_busy, &job), 0);
    EQ(casync_call_later(&loop, NULL, CASYNC_MS(1), stop_loop, NULL), 0);
    EQ(casync_run_forever(&loop), 0);
    EQ(count, 2 * loop.turns);
    close_loop();
}

static void queue_from_hook(void *arg) {
    if (count++ == 0) EQ(casync_call_soon(&loop, NULL, say, arg), 0);
}

TEST(a_call_from_a_hook_before_the_poll_runs_in_this_turn) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_hook_start(&loop, &hook1, CASYNC_HOOK_BEFORE_POLL, 0, queue_from_hook, WORD("now")),
       0);
    EQ(casync_run_nowait(&loop), 0);
    SAID("now");
    close_loop();
}

TEST(only_idle_hooks_keep_the_loop_running) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_hook_start(&loop, &hook1, CASYNC_HOOK_BEFORE_POLL, 0, do_nothing, NULL), 0);
    EQ(casync_hook_start(&loop, &hook2, CASYNC_HOOK_AFTER_POLL, 0, do_nothing, NULL), 0);
    EXPECT(!casync_loop_alive(&loop));
    EQ(casync_run_until_idle(&loop), 0);
    EQ(casync_hook_start(&loop, &hook3, CASYNC_HOOK_IDLE, 0, do_nothing, NULL), 0);
    EXPECT(casync_loop_alive(&loop));
    EQ(casync_hook_stop(&hook3), 1);
    EXPECT(!casync_loop_alive(&loop));
    close_loop();
}

static void idle_three_times(void *arg) {
    say(arg);
    if (++count == 3) EQ(casync_hook_stop(&hook1), 1);
}

TEST(an_idle_hook_keeps_the_loop_from_waiting) {
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), 0);
    casync_watcher_ref(&watcher, false);
    EQ(casync_hook_start(&loop, &hook1, CASYNC_HOOK_IDLE, 0, idle_three_times, WORD("idle")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("idle idle idle");
    close_loop();
    close_both(ends);
}

TEST(idle_hooks_run_only_in_turns_that_begin_with_nothing_ready) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_hook_start(&loop, &hook1, CASYNC_HOOK_IDLE, 0, say, WORD("idle")), 0);
    EQ(casync_call_soon(&loop, NULL, say, WORD("job")), 0);
    EQ(casync_run_nowait(&loop), 0);
    SAID("job");
    EQ(casync_run_nowait(&loop), 0);
    SAID("idle");
    close_loop();
}

static void start_hook(void *arg) {
    if (count++ == 0)
        EQ(casync_hook_start(&loop, &hook2, CASYNC_HOOK_BEFORE_POLL, -1, say, arg), 0);
}

TEST(a_hook_started_while_its_kind_runs_is_first_called_in_the_next_turn) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_hook_start(&loop, &hook1, CASYNC_HOOK_BEFORE_POLL, 0, start_hook, WORD("new")), 0);
    EQ(casync_run_nowait(&loop), 0);
    SAID("");
    EQ(casync_run_nowait(&loop), 0);
    SAID("new");
    close_loop();
}

static void stop_hooks(void *arg) {
    say(arg);
    EQ(casync_hook_stop(&hook1), 1);
    EQ(casync_hook_stop(&hook2), 1);
}

TEST(a_hook_may_stop_itself_and_others) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_hook_start(&loop, &hook1, CASYNC_HOOK_AFTER_POLL, 0, stop_hooks, WORD("stopping")),
       0);
    EQ(casync_hook_start(&loop, &hook2, CASYNC_HOOK_AFTER_POLL, 0, never, NULL), 0);
    EQ(casync_hook_start(&loop, &hook3, CASYNC_HOOK_AFTER_POLL, 0, say, WORD("other")), 0);
    EQ(casync_run_nowait(&loop), 0);
    EQ(casync_run_nowait(&loop), 0);
    SAID("stopping other other");
    close_loop();
}

TEST(hook_errors_change_nothing) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_hook_stop(&hook1), 0);
    EQ(casync_hook_start(&loop, &hook1, CASYNC_HOOK_IDLE + 1, 0, never, NULL), -EINVAL);
    EQ(casync_hook_start(&loop, &hook1, -1, 0, never, NULL), -EINVAL);
    EQ(casync_hook_start(&loop, &hook1, CASYNC_HOOK_IDLE, 0, NULL, NULL), -EINVAL);
    EXPECT(!casync_loop_alive(&loop));
    EQ(casync_hook_start(&loop, &hook1, CASYNC_HOOK_AFTER_POLL, 0, say, WORD("hook")), 0);
    EQ(casync_hook_start(&loop, &hook1, CASYNC_HOOK_IDLE, 0, never, NULL), -EALREADY);
    EQ(casync_run_nowait(&loop), 0);
    SAID("hook");
    EQ(casync_hook_stop(&hook1), 1);
    EQ(casync_hook_stop(&hook1), 0);
    EQ(casync_run_nowait(&loop), 0);
    close_loop();
}

/* >> walk ------------------------------------------------------------------------------------- */

static struct {
    int kind;
    void *object;
} seen[32];
static int seen_count;

static void remember(int kind, void *object, void *arg) {
    PTR_EQ(arg, &seen);
    EXPECT(seen_count < 32);
    seen[seen_count].kind = kind;
    seen[seen_count++].object = object;
}

static bool saw(int kind, void *object) {
    int i;
    for (i = 0; i < seen_count; i++)
        if (seen[i].kind == kind && (!object || seen[i].object == object)) return true;
    return false;
}

TEST(walk_visits_every_live_object_once) {
    casync_job job = ZERO;
    casync_timer timer = ZERO;
    casync_signal sig = ZERO;
    casync_stream a = ZERO, b = ZERO;
    casync_server server = ZERO;
    casync_listen_desc desc = ZERO;
    int i, j;
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    expect_signal_descriptors();
    casync_walk(&loop, remember, &seen);
    EQ(seen_count, 0);

    EQ(casync_call_soon(&loop, &job, never, NULL), 0);
    EQ(casync_call_later(&loop, &timer, CASYNC_SECONDS(9), never, NULL), 0);
    EQ(casync_hook_start(&loop, &hook1, CASYNC_HOOK_IDLE, 0, never, NULL), 0);
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), 0);
    EQ(casync_add_writer(&loop, &watcher, ends[0], never, NULL), 0);
    EQ(casync_signal_start(&loop, &sig, SIGUSR1, 0, never, NULL), 0);
    EQ(casync_socketpair(&loop, &a, &b, NULL, NULL), 0);
    desc.host = "127.0.0.1";
    EQ(casync_listen(&loop, &server, &desc), 0);
    casync_walk(&loop, remember, &seen);

    EXPECT(saw(CASYNC_KIND_JOB, &job));
    EXPECT(saw(CASYNC_KIND_TIMER, &timer));
    EXPECT(saw(CASYNC_KIND_HOOK, &hook1));
    EXPECT(saw(CASYNC_KIND_WATCHER, &watcher));
    EXPECT(saw(CASYNC_KIND_SIGNAL, &sig));
    EXPECT(saw(CASYNC_KIND_STREAM, &a));
    EXPECT(saw(CASYNC_KIND_STREAM, &b));
    EXPECT(saw(CASYNC_KIND_SERVER, &server));
    EQ(seen_count, 8);
    for (i = 0; i < seen_count; i++)
        for (j = 0; j < i; j++) EXPECT(seen[i].object != seen[j].object);

    casync_close(&a);
    casync_close(&b);
    casync_server_close(&server);
    close_loop();
    close_both(ends);
}

/* >> the exception handler -------------------------------------------------------------------- */

static void hear(casync_loop *where, const casync_exception *exception, void *arg) {
    PTR_EQ(where, &loop);
    say(arg);
    say_number(exception->message, exception->error);
}

TEST(the_exception_handler_can_be_set) {
    casync_exception exception = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    exception.message = "broken";
    exception.error = -EIO;
    casync_call_exception_handler(&loop, &exception);
    SAID("exception=-5");
    casync_set_exception_handler(&loop, hear, WORD("heard"));
    casync_call_exception_handler(&loop, &exception);
    SAID("heard broken=-5");
    close_loop();
}

static void before_wait_said(void *arg, int64_t timeout) {
    (void)timeout;
    say(arg);
}

TEST(the_exception_handlers_argument_is_its_own) {
    casync_loop_desc desc = ZERO;
    desc.before_wait = before_wait_said;
    desc.arg = WORD("desc.arg");
    open_loop_with(desc);
    casync_set_exception_handler(&loop, hear, WORD("other"));
    EQ(casync_run_nowait(&loop), 0);
    SAID("desc.arg");
    close_loop();
}

TEST(by_default_exceptions_are_a_line_on_stderr) {
    char line[512] = "";
    casync_exception exception = ZERO;
    ssize_t n;
    make_pipe(ends);
    EXPECT(dup2(ends[1], STDERR_FILENO) >= 0);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    casync_set_exception_handler(&loop, NULL, NULL);
    exception.message = "the sky is falling";
    exception.error = -EIO;
    casync_call_exception_handler(&loop, &exception);
    fflush(stderr);
    n = read(ends[0], line, sizeof line - 1);
    EXPECT(n > 0);
    EXPECT(strstr(line, "the sky is falling"));
    EXPECT(strstr(line, casync_strerror(-EIO)));
    PTR_EQ(strchr(line, '\n'), line + n - 1);
    close_loop();
}

/* >> hosting ---------------------------------------------------------------------------------- */

static void host_until_idle(void) {
    struct pollfd wait;
    int64_t timeout;
    wait.fd = casync_loop_fd(&loop);
    wait.events = POLLIN;
    while (casync_loop_alive(&loop)) {
        timeout = casync_loop_timeout(&loop);
        EXPECT(timeout >= 0);
        if (timeout != CASYNC_FOREVER) timeout = (timeout + 999999) / 1000000;
        EXPECT(poll(&wait, 1, timeout == CASYNC_FOREVER ? -1 : (int)timeout) >= 0);
        EQ(casync_run_nowait(&loop), 0);
    }
}

static void *post_from_thread(void *arg) {
    EQ(casync_call_soon_threadsafe(&loop, NULL, say, arg), 0);
    return NULL;
}

static casync_watcher second_watcher;
static int second_ends[2];

static void *write_from_thread(void *arg) {
    put_byte(*(int *)arg);
    return NULL;
}

static void io_then_io(void *arg) {
    read_and_remove(arg);
    EQ(casync_add_reader(&loop, &second_watcher, second_ends[0], say, WORD("second")), 0);
}

static void end_second(void *arg) {
    get_byte(second_ends[0]);
    casync_remove_reader(&second_watcher);
    say(arg);
}

TEST(a_foreign_loop_can_host) {
    pthread_t thread;
    make_pipe(ends);
    make_pipe(second_ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_later(&loop, NULL, CASYNC_MS(1), say, WORD("timer")), 0);
    host_until_idle();
    SAID("timer");
    EQ(casync_call_soon(&loop, NULL, say, WORD("soon")), 0);
    EQ(casync_loop_timeout(&loop), 0);
    host_until_idle();
    SAID("soon");
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_and_remove, WORD("io")), 0);
    EQ(casync_loop_timeout(&loop), CASYNC_FOREVER);
    thread = start_thread(write_from_thread, &ends[1]);
    host_until_idle();
    join_thread(thread);
    SAID("io");
    close_loop();
    close_both(ends);
    close_both(second_ends);
}

TEST(a_hosted_loop_hears_of_interest_that_a_turn_added) {
    pthread_t thread;
    make_pipe(ends);
    make_pipe(second_ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    put_byte(ends[1]);
    EQ(casync_add_reader(&loop, &watcher, ends[0], io_then_io, WORD("first")), 0);
    EQ(casync_add_reader(&loop, &second_watcher, second_ends[0], end_second, WORD("unused")), 0);
    EQ(casync_remove_reader(&second_watcher), 1);
    EQ(casync_run_nowait(&loop), 0);
    SAID("first");
    EQ(casync_add_reader(&loop, &second_watcher, second_ends[0], end_second, WORD("second")), 0);
    thread = start_thread(write_from_thread, &second_ends[1]);
    host_until_idle();
    join_thread(thread);
    SAID("second");
    close_loop();
    close_both(ends);
    close_both(second_ends);
}

TEST(a_post_ends_a_foreign_loops_wait) {
    struct pollfd wait;
    pthread_t thread;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_loop_timeout(&loop), CASYNC_FOREVER);
    thread = start_thread(post_from_thread, WORD("posted"));
    wait.fd = casync_loop_fd(&loop);
    wait.events = POLLIN;
    EQ(poll(&wait, 1, -1), 1);
    EQ(casync_run_nowait(&loop), 0);
    join_thread(thread);
    SAID("posted");
    close_loop();
}

TEST(a_hosts_timeout_is_never_late) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_loop_timeout(&loop), CASYNC_FOREVER);
    EQ(casync_call_later(&loop, NULL, CASYNC_SECONDS(100), do_nothing, NULL), 0);
    EXPECT(casync_loop_timeout(&loop) <= CASYNC_SECONDS(100));
    EXPECT(casync_loop_timeout(&loop) > 0);
    EQ(casync_call_later(&loop, NULL, 0, do_nothing, NULL), 0);
    EQ(casync_loop_timeout(&loop), 0);
    EQ(casync_run_nowait(&loop), 0);
    EQ(casync_call_soon(&loop, NULL, do_nothing, NULL), 0);
    EQ(casync_loop_timeout(&loop), 0);
    close_loop();
}

/* >> the hooks around the wait ---------------------------------------------------------------- */

static void before_wait(void *arg, int64_t timeout) {
    say(arg);
    if (timeout == 0)
        say(WORD("before=0"));
    else if (timeout == CASYNC_FOREVER)
        say(WORD("before=forever"));
    else
        say(WORD("before=some"));
}

static void after_wait(void *arg, int64_t timeout) {
    (void)arg;
    if (timeout == 0)
        say(WORD("after=0"));
    else if (timeout == CASYNC_FOREVER)
        say(WORD("after=forever"));
    else
        say(WORD("after=some"));
}

TEST(wait_functions_learn_the_timeout) {
    casync_loop_desc desc = ZERO;
    pthread_t thread;
    desc.before_wait = before_wait;
    desc.after_wait = after_wait;
    desc.arg = WORD("wait:");
    make_pipe(ends);
    open_loop_with(desc);
    EQ(casync_run_nowait(&loop), 0);
    SAID("wait: before=0 after=0");
    EQ(casync_call_soon(&loop, NULL, say, WORD("job")), 0);
    EQ(casync_run_once(&loop), 0);
    SAID("wait: before=0 after=0 job");
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_and_remove, WORD("io")), 0);
    thread = start_thread(write_from_thread, &ends[1]);
    EQ(casync_run_once(&loop), 0);
    join_thread(thread);
    SAID("wait: before=forever after=forever io");
    close_loop();
    close_both(ends);
}

/* >> fork ------------------------------------------------------------------------------------- */

TEST(a_forked_child_must_remake_the_loop) {
    pid_t pid;
    skip_under_qemu("qemu-user does not zero pages in a child");
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, say, WORD("ran")), 0);
    pid = fork_child();
    if (pid == 0) {
        EQ(casync_run_forever(&loop), -ECHILD);
        EQ(casync_run_nowait(&loop), -ECHILD);
        SAID("");
        EQ(casync_loop_fork(&loop), 0);
        EQ(casync_run_until_idle(&loop), 0);
        SAID("ran");
        close_loop();
        exit(0);
    }
    EQ(child_status(pid), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("ran");
    close_loop();
}

TEST(loop_fork_without_a_fork_does_nothing) {
    int fd;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    fd = casync_loop_fd(&loop);
    EQ(casync_loop_fork(&loop), 0);
    EQ(casync_loop_fd(&loop), fd);
    close_loop();
}

TEST(parent_and_child_each_see_their_own_events) {
    pid_t pid;
    skip_under_qemu("qemu-user does not zero pages in a child");
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_and_remove, WORD("io")), 0);
    EQ(casync_call_later(&loop, NULL, CASYNC_MS(1), say, WORD("timer")), 0);
    pid = fork_child();
    if (pid == 0) {
        EQ(casync_loop_fork(&loop), 0);
        EQ(casync_remove_reader(&watcher), 1);
        EQ(casync_run_until_idle(&loop), 0);
        SAID("timer");
        EQ(casync_add_reader(&loop, &watcher, ends[0], read_and_remove, WORD("child-io")), 0);
        put_byte(ends[1]);
        EQ(casync_run_until_idle(&loop), 0);
        SAID("child-io");
        close_loop();
        exit(0);
    }
    EQ(child_status(pid), 0);
    put_byte(ends[1]);
    EQ(casync_run_until_idle(&loop), 0);
    EXPECT(strcmp(said, "io timer") == 0 || strcmp(said, "timer io") == 0);
    said[0] = 0;
    said_size = 0;
    close_loop();
    close_both(ends);
}

TEST(a_child_may_close_the_inherited_loop) {
    pid_t pid;
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_and_remove, WORD("io")), 0);
    pid = fork_child();
    if (pid == 0) {
        EQ(casync_loop_close(&loop), 0);
        EQ(memory.live, 0);
        exit(0);
    }
    EQ(child_status(pid), 0);
    put_byte(ends[1]);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("io");
    close_loop();
    close_both(ends);
}

TEST(posts_reach_a_remade_loop) {
    pid_t pid;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    pid = fork_child();
    if (pid == 0) {
        pthread_t thread;
        casync_timer keep = ZERO;
        EQ(casync_loop_fork(&loop), 0);
        EQ(casync_call_later(&loop, &keep, CASYNC_SECONDS(1000), never, NULL), 0);
        thread = start_thread(post_from_thread, WORD("posted"));
        while (said_size == 0) EQ(casync_run_once(&loop), 0);
        join_thread(thread);
        SAID("posted");
        close_loop();
        exit(0);
    }
    EQ(child_status(pid), 0);
    close_loop();
}

static void fork_inside(void *arg) {
    pid_t pid = fork_child();
    if (pid == 0) {
        EQ(casync_loop_fork(&loop), 0);
        say(WORD("child"));
        return;
    }
    EQ(child_status(pid), 0);
    say(arg);
}

TEST(a_callback_may_fork) {
    pid_t parent = getpid();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, fork_inside, WORD("parent")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID(getpid() == parent ? "parent" : "child");
    close_loop();
}

TEST(exec_inherits_no_descriptor) {
    casync_stream a = ZERO, b = ZERO;
    casync_signal sig = ZERO;
    DIR *directory;
    struct dirent *entry;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    expect_signal_descriptors();
    EQ(casync_socketpair(&loop, &a, &b, NULL, NULL), 0);
    EQ(casync_signal_start(&loop, &sig, SIGUSR1, 0, never, NULL), 0);
    directory = opendir("/proc/self/fd");
    while ((entry = readdir(directory))) {
        int fd = atoi(entry->d_name);
        if (fd > STDERR_FILENO && fd != dirfd(directory) && !(fcntl(fd, F_GETFD) & FD_CLOEXEC)) {
            char path[64], target[256];
            ssize_t n;
            snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
            n = readlink(path, target, sizeof target - 1);
            target[n > 0 ? n : 0] = 0;
            EXPECT(!strstr(target, "event")); /* eventfd, eventpoll */
            EXPECT(!strstr(target, "signalfd"));
        }
    }
    closedir(directory);
    EXPECT(fcntl(a.endpoint.watcher.fd, F_GETFD) & FD_CLOEXEC);
    EXPECT(fcntl(b.endpoint.watcher.fd, F_GETFD) & FD_CLOEXEC);
    casync_close(&a);
    casync_close(&b);
    EQ(casync_signal_stop(&sig), 1);
    close_loop();
}

/* >> errors have names ------------------------------------------------------------------------ */

TEST(every_error_has_a_name) {
    static const int64_t own[] = {
        CASYNC_EOF,           CASYNC_INCOMPLETE_READ, CASYNC_LIMIT_OVERRUN,
        CASYNC_INVALID_STATE, CASYNC_QUEUE_SHUT_DOWN, CASYNC_BROKEN_BARRIER,
        CASYNC_NOT_NUMERIC,   CASYNC_STILL_OPEN};
    const int codes = sizeof own / sizeof *own;
    int i, j;
    STR_EQ(casync_strerror(0), "success");
    STR_EQ(casync_strerror(7), "success");
    STR_EQ(casync_strerror(-ENOENT), strerror(ENOENT));
    STR_EQ(casync_strerror(-ECONNRESET), strerror(ECONNRESET));
    for (i = 0; i < codes; i++) {
        EXPECT(strcmp(casync_strerror(own[i]), casync_strerror(-999999)) != 0);
        EXPECT(own[i] < -4095);
        for (j = 0; j < i; j++)
            EXPECT(strcmp(casync_strerror(own[i]), casync_strerror(own[j])) != 0);
    }
    EXPECT(casync_strerror(-4000)[0]);
    EXPECT(casync_strerror(-999999)[0]);
    EXPECT(casync_strerror(INT64_MIN)[0]);
}

/* >> what reviews found ----------------------------------------------------------------------- */

TEST(a_future_may_be_closed_after_its_loop) {
    casync_future future;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_future_init(&loop, &future), 0);
    EQ(casync_future_add_done_callback(&future, NULL, never, NULL), 0);
    close_loop();
    casync_future_close(&future);
}

/* casync_walk hands out timers, whose job comes first: cancelling that is stopping the timer. */
TEST(cancelling_a_timers_job_stops_the_timer) {
    casync_timer timer = ZERO;
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_call_later(&loop, &timer, 5, never, NULL), 0);
    EQ(casync_job_cancel(&timer.job), 1);
    EXPECT(!casync_loop_alive(&loop));
    EQ(casync_loop_timeout(&loop), CASYNC_FOREVER);
    EQ(casync_clock_advance(&loop, 10), 0);
    EQ(casync_run_nowait(&loop), 0);
    EQ(casync_loop_timeout(&loop), CASYNC_FOREVER);
    close_loop();
}

static void cancel_found(int kind, void *object, void *arg) {
    (void)arg;
    if (kind == CASYNC_KIND_JOB || kind == CASYNC_KIND_TIMER) remember(kind, object, &seen);
}

TEST(what_walk_finds_can_be_cancelled_without_a_leak) {
    int i;
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_call_soon(&loop, NULL, never, NULL), 0);
    EQ(casync_call_later(&loop, NULL, 5, never, NULL), 0);
    EQ(casync_call_soon_threadsafe(&loop, &job, never, NULL), 0);
    casync_walk(&loop, cancel_found, NULL);
    EQ(seen_count, 3);
    for (i = 0; i < seen_count; i++) EQ(casync_job_cancel((casync_job *)seen[i].object), 1);
    EXPECT(!casync_loop_alive(&loop));
    close_loop();
}

static void stay_busy_for_5_ms(void *arg) {
    int64_t until = casync_time(&loop) + CASYNC_MS(5);
    while (casync_time(&loop) < until) continue;
    EQ(casync_call_soon(&loop, (casync_job *)arg, stay_busy_for_5_ms, arg), 0);
}

static void io_after_slow_callbacks(void *arg) {
    get_byte(ends[0]);
    EXPECT(loop.turns - *(uint64_t *)arg <= 2);
    if (++count == 5) {
        casync_stop(&loop);
        return;
    }
    *(uint64_t *)arg = loop.turns;
    put_byte(ends[1]);
}

TEST(slow_callbacks_keep_io_waiting_for_two_turns_at_most) {
    casync_job job = ZERO;
    uint64_t turn_before = 0;
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_add_reader(&loop, &watcher, ends[0], io_after_slow_callbacks, &turn_before), 0);
    EQ(casync_call_soon(&loop, &job, stay_busy_for_5_ms, &job), 0);
    put_byte(ends[1]);
    EQ(casync_run_forever(&loop), 0);
    close_loop();
    close_both(ends);
}

static void never_mind(void *arg) { (void)arg; }

/* Posts as soon as the loop is about to wait, so that it certainly does. */
static void *post_to_sleeper(void *job) {
    while (!casync__atomic_load(&loop.sleeping)) sched_yield();
    EQ(casync_call_soon_threadsafe(&loop, (casync_job *)job, stop_loop, NULL), 0);
    return NULL;
}

TEST(metrics_count_what_the_loop_does) {
    casync_loop_desc desc = ZERO;
    casync_metrics metrics;
    casync_job job = ZERO;
    pthread_t thread;
    int64_t i;
    desc.metrics = true;
    EQ(casync_loop_init(&loop, &desc), 0);
    for (i = 0; i < 10; i++) EQ(casync_call_soon(&loop, NULL, never_mind, NULL), 0);
    thread = start_thread(post_to_sleeper, &job);
    EQ(casync_run_forever(&loop), 0);
    join_thread(thread);
    casync_loop_metrics(&loop, &metrics);
    EQ(metrics.callbacks, 11);
    EQ(metrics.turns, loop.turns);
    EQ(metrics.polls, loop.polls);
    EQ(metrics.tasks, 0);
    EXPECT(metrics.idle_time > 0);
    EXPECT(metrics.busy_time > 0);
    EXPECT(metrics.longest_turn > 0 && metrics.longest_turn <= metrics.busy_time);
    EQ(casync_loop_close(&loop), 0);
}

TEST_MAIN

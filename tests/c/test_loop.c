/* >> loop: its states, errors and metrics. */
#include "loop_fixture.h"

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

/* >> metrics ---------------------------------------------------------------------------------- */

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

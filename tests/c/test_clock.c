/* >> clock: where a loop's time comes from, and how a test moves it. */
#include "loop_fixture.h"

static void say_time(void *arg) {
    (void)arg;
    say_number("at", casync_time(&loop));
}

TEST(units_are_nanoseconds) {
    EQ(CASYNC_US(3), 3000);
    EQ(CASYNC_MS(3), 3000000);
    EQ(CASYNC_SECONDS(3), INT64_C(3000000000));
    EQ(CASYNC_FOREVER, INT64_MAX);
}

static int64_t system_time(void) {
    struct timespec now;
    EQ(clock_gettime(CLOCK_MONOTONIC, &now), 0);
    return CASYNC_SECONDS(now.tv_sec) + now.tv_nsec;
}

TEST(time_is_the_systems_monotonic_clock) {
    int64_t before, time;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    before = system_time();
    time = casync_time(&loop);
    EXPECT(before <= time);
    EXPECT(time <= system_time());
    close_loop();
}

TEST(the_systems_clock_cannot_be_moved) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_clock_advance(&loop, 1), -EPERM);
    close_loop();
}

TEST(time_does_not_run_backwards) {
    int i;
    int64_t last, time;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    last = casync_time(&loop);
    for (i = 0; i < 1000; i++) {
        time = casync_time(&loop);
        EXPECT(last <= time);
        last = time;
    }
    close_loop();
}

TEST(a_manual_clock_starts_at_zero_and_moves_by_hand_alone) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_time(&loop), 0);
    EQ(casync_clock_advance(&loop, CASYNC_MS(5)), 0);
    EQ(casync_time(&loop), CASYNC_MS(5));
    EQ(casync_run_nowait(&loop), 0);
    EQ(casync_time(&loop), CASYNC_MS(5));
    EQ(casync_clock_advance(&loop, 0), 0);
    EQ(casync_time(&loop), CASYNC_MS(5));
    close_loop();
}

TEST(a_negative_advance_is_an_error_and_moves_nothing) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_clock_advance(&loop, -1), -EINVAL);
    EQ(casync_clock_advance(&loop, INT64_MIN), -EINVAL);
    EQ(casync_time(&loop), 0);
    close_loop();
}

TEST(an_advance_to_the_end_of_time_does_not_wrap) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_clock_advance(&loop, CASYNC_FOREVER - 1), 0);
    EQ(casync_clock_advance(&loop, CASYNC_FOREVER - 1), 0);
    EXPECT(casync_time(&loop) >= CASYNC_FOREVER - 1);
    close_loop();
}

TEST(timers_that_an_advance_makes_due_run_in_the_next_turn) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_call_later(&loop, NULL, CASYNC_MS(10), say, WORD("late")), 0);
    EQ(casync_call_later(&loop, NULL, CASYNC_MS(5), say, WORD("early")), 0);
    EQ(casync_clock_advance(&loop, CASYNC_MS(10) - 1), 0);
    SAID("");
    EQ(casync_run_nowait(&loop), 0);
    SAID("early");
    EQ(casync_clock_advance(&loop, 1), 0);
    EQ(casync_run_nowait(&loop), 0);
    SAID("late");
    close_loop();
}

static int64_t first_now;

static void look_at_now(void *arg) {
    if (!first_now) first_now = casync_now(&loop);
    while (casync_time(&loop) <= first_now) continue;
    EQ(casync_now(&loop), first_now);
    say(arg);
}

TEST(now_is_the_time_this_turns_timers_were_looked_at) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, look_at_now, WORD("one")), 0);
    EQ(casync_call_soon(&loop, NULL, look_at_now, WORD("two")), 0);
    EQ(casync_run_nowait(&loop), 0);
    SAID("one two");
    close_loop();
}

TEST(with_a_manual_clock_now_is_the_time) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_clock_advance(&loop, 5), 0);
    EQ(casync_now(&loop), 5);
    close_loop();
}

static void advance_in_callback(void *arg) {
    (void)arg;
    EQ(casync_clock_advance(&loop, CASYNC_MS(5)), 0);
    say(WORD("advanced"));
}

TEST(a_callback_may_advance_the_clock) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_call_later(&loop, NULL, CASYNC_MS(5), say, WORD("due")), 0);
    EQ(casync_call_soon(&loop, NULL, advance_in_callback, NULL), 0);
    EQ(casync_run_nowait(&loop), 0);
    SAID("advanced");
    EQ(casync_run_nowait(&loop), 0);
    SAID("due");
    close_loop();
}

TEST(deadlines_come_from_the_live_clock_not_the_turns) {
    casync_timer timer = ZERO;
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_run_nowait(&loop), 0);
    EQ(casync_clock_advance(&loop, CASYNC_MS(7)), 0);
    EQ(casync_call_later(&loop, &timer, CASYNC_MS(1), never, NULL), 0);
    EQ(timer.deadline, CASYNC_MS(8));
    close_loop();
}

TEST(a_virtual_clock_jumps_from_deadline_to_deadline) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_call_later(&loop, NULL, CASYNC_SECONDS(3600), say_time, NULL), 0);
    EQ(casync_call_later(&loop, NULL, CASYNC_SECONDS(86400) + 1, say_time, NULL), 0);
    EQ(casync_call_later(&loop, NULL, 3, say_time, NULL), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("at=3 at=3600000000000 at=86400000000001");
    close_loop();
}

static void arm_again(void *arg) {
    (void)arg;
    say_time(NULL);
    if (casync_time(&loop) < 3) casync_call_later(&loop, NULL, 1, arm_again, NULL);
}

TEST(a_virtual_clock_stands_still_while_callbacks_are_ready) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_call_later(&loop, NULL, 1, arm_again, NULL), 0);
    EQ(casync_call_soon(&loop, NULL, say_time, NULL), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("at=0 at=1 at=2 at=3");
    close_loop();
}

TEST(a_virtual_clock_moves_by_hand_too) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_clock_advance(&loop, 10), 0);
    EQ(casync_call_later(&loop, NULL, 5, say_time, NULL), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("at=15");
    close_loop();
}

/* A watched pipe that the callback empties and gives up. */
static int ends[2];
static casync_watcher watcher;

static void read_and_remove(void *arg) {
    get_byte(ends[0]);
    casync_remove_reader(&watcher);
    say(arg);
}

static void *write_from_thread(void *arg) {
    (void)arg;
    put_byte(ends[1]);
    return NULL;
}

TEST(a_virtual_clock_waits_for_the_outside_world) {
    pthread_t thread;
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_and_remove, WORD("io")), 0);
    EQ(casync_call_later(&loop, NULL, CASYNC_SECONDS(3600), say, WORD("timer")), 0);
    thread = start_thread(write_from_thread, NULL);
    EQ(casync_run_until_idle(&loop), 0);
    join_thread(thread);
    SAID("io timer");
    EXPECT(casync_time(&loop) >= CASYNC_SECONDS(3600));
    close_loop();
    close_both(ends);
}

static void remove_watcher(void *arg) {
    casync_remove_reader(&watcher);
    say(arg);
}

TEST(with_the_outside_awaited_virtual_deadlines_pass_in_real_time) {
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), 0);
    EQ(casync_call_later(&loop, NULL, CASYNC_MS(2), remove_watcher, WORD("timer")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("timer");
    EXPECT(casync_time(&loop) >= CASYNC_MS(2));
    close_loop();
    close_both(ends);
}

TEST(a_forced_virtual_clock_jumps_although_the_outside_is_awaited) {
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_VIRTUAL_FORCED);
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), 0);
    EQ(casync_call_later(&loop, NULL, CASYNC_SECONDS(3600), remove_watcher, WORD("timer")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("timer");
    EQ(casync_time(&loop), CASYNC_SECONDS(3600));
    close_loop();
    close_both(ends);
}

TEST(a_forced_virtual_clock_takes_what_is_ready_before_it_jumps) {
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_VIRTUAL_FORCED);
    put_byte(ends[1]);
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_and_remove, WORD("io")), 0);
    EQ(casync_call_later(&loop, NULL, 1, say, WORD("timer")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("io timer");
    close_loop();
    close_both(ends);
}

TEST(an_unknown_clock_is_an_error) {
    casync_loop_desc desc = ZERO;
    casync_loop other;
    desc.clock = CASYNC_CLOCK_VIRTUAL_FORCED + 1;
    EQ(casync_loop_init(&other, &desc), -EINVAL);
    desc.clock = -1;
    EQ(casync_loop_init(&other, &desc), -EINVAL);
}

static void *wake_loop(void *arg) {
    (void)arg;
    casync_wake(&loop);
    return NULL;
}

static int waits;
static pthread_t waker;

static void wake_the_first_wait(void *arg, int64_t timeout) {
    (void)arg;
    if (timeout > 0 && waits++ == 0) waker = start_thread(wake_loop, NULL);
}

TEST(a_wake_does_not_make_virtual_time_jump_while_the_outside_is_awaited) {
    casync_loop_desc desc = ZERO;
    int64_t start;
    desc.clock = CASYNC_CLOCK_VIRTUAL;
    desc.before_wait = wake_the_first_wait;
    make_pipe(ends);
    open_loop_with(desc);
    start = system_time();
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), 0);
    EQ(casync_call_later(&loop, NULL, CASYNC_MS(50), remove_watcher, WORD("timer")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    EXPECT(system_time() - start >= CASYNC_MS(50));
    join_thread(waker);
    SAID("timer");
    close_loop();
    close_both(ends);
}

TEST(virtual_time_jumps_again_after_a_signal_was_watched) {
    casync_signal sig = ZERO;
    int64_t start;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    expect_signal_descriptors();
    EQ(casync_signal_start(&loop, &sig, SIGUSR1, 0, never, NULL), 0);
    EQ(casync_signal_stop(&sig), 1);
    start = system_time();
    EQ(casync_call_later(&loop, NULL, CASYNC_SECONDS(1000), say, WORD("timer")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    EXPECT(system_time() - start < CASYNC_SECONDS(1000));
    SAID("timer");
    close_loop();
}

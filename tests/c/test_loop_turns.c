/* >> loop: the order of a turn, hooks, and loops in foreign ones. */
#include "callbacks_fixture.h"

static void stay_busy(void *arg) {
    EQ(casync_call_soon(&loop, (casync_job *)arg, stay_busy, arg), 0);
}

static void *write_from_thread(void *arg) {
    put_byte(*(int *)arg);
    return NULL;
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
    EXPECT(loop.polls * (CASYNC__TURN_SKIPPED_POLLS_MAX + 1) >= loop.turns);
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
    EXPECT(loop.turns - sent <= CASYNC__TURN_SKIPPED_POLLS_MAX + 1);
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

/* >> hooks ------------------------------------------------------------------------------------ */

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

static casync_watcher second_watcher;
static int second_ends[2];

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

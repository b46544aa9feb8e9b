/* >> loop: runs, what begins and ends them, what they tell, and what keeps them going. */
#include "callbacks_fixture.h"

/* >> runs ------------------------------------------------------------------------------------- */

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

TEST(ready_means_that_the_next_turn_has_work) {
    casync_job posted = ZERO;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EXPECT(!casync_loop_ready(&loop));
    EQ(casync_call_later(&loop, NULL, CASYNC_SECONDS(1), say, WORD("later")), 0);
    EXPECT(!casync_loop_ready(&loop));
    EQ(casync_call_soon(&loop, NULL, say, WORD("soon")), 0);
    EXPECT(casync_loop_ready(&loop));
    turn();
    EXPECT(!casync_loop_ready(&loop));
    EQ(casync_call_soon_threadsafe(&loop, &posted, say, WORD("posted")), 0);
    EXPECT(casync_loop_ready(&loop));
    EQ(casync_run_until_idle(&loop), 0);
    EXPECT(!casync_loop_ready(&loop));
    SAID("soon posted later");
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

TEST(walk_visits_what_was_posted_and_leaves_it_there) {
    static casync_job posted[3];
    static const char *const words[3] = {"0", "1", "2"};
    int i;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    for (i = 0; i < 3; i++)
        EQ(casync_call_soon_threadsafe(&loop, &posted[i], say, (void *)(uintptr_t)words[i]), 0);
    casync_walk(&loop, remember, &seen);
    EQ(seen_count, 3);
    for (i = 0; i < 3; i++) EXPECT(saw(CASYNC_KIND_JOB, &posted[i]));
    EXPECT(!posted[0].link.next); /* in no queue of the loop yet */
    turn();
    SAID("0 1 2");
    close_loop();
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

/* >> signals: one registry for any number of loops and watchers; masks and actions are put back. */
#include "signals_fixture.h"

/* >> watching --------------------------------------------------------------------------------- */

TEST(a_signal_calls_back) {
    open_signal_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say_and_stop, WORD("usr1")), 0);
    EQ(watcher.signum, SIGUSR1);
    SAID("");
    kill(getpid(), SIGUSR1);
    EQ(casync_run_forever(&loop), 0);
    SAID("usr1");
    kill(getpid(), SIGUSR1);
    EQ(casync_run_forever(&loop), 0);
    SAID("usr1");
    EQ(casync_signal_stop(&watcher), 1);
    close_loop();
}

TEST(a_signal_wakes_a_loop_that_waits) {
    pid_t pid;
    open_signal_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say_and_stop, WORD("usr1")), 0);
    pid = fork_child();
    if (pid == 0) {
        kill(getppid(), SIGUSR1);
        _exit(0);
    }
    EQ(casync_run_forever(&loop), 0);
    SAID("usr1");
    EQ(child_status(pid), 0);
    close_loop();
}

TEST(several_signals_are_told_apart) {
    open_signal_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say, WORD("usr1")), 0);
    EQ(casync_signal_start(&loop, &second, SIGUSR2, 0, say, WORD("usr2")), 0);
    EQ(casync_signal_start(&loop, &third, SIGRTMIN + 1, 0, say, WORD("rt")), 0);
    kill(getpid(), SIGUSR2);
    run_until_said("usr2");
    kill(getpid(), SIGRTMIN + 1);
    run_until_said("rt");
    kill(getpid(), SIGUSR1);
    run_until_said("usr1");
    close_loop();
}

TEST(several_watchers_of_a_signal_are_each_told_once) {
    open_signal_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say, WORD("1")), 0);
    EQ(casync_signal_start(&loop, &second, SIGUSR1, 0, say, WORD("2")), 0);
    EQ(casync_signal_start(&loop, &third, SIGUSR1, 0, say, WORD("3")), 0);
    kill(getpid(), SIGUSR1);
    run_until_said("1 2 3");
    EQ(casync_signal_stop(&second), 1);
    kill(getpid(), SIGUSR1);
    run_until_said("1 3");
    close_loop();
}

TEST(deliveries_before_the_callback_are_merged) {
    int i;
    open_signal_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say, WORD("usr1")), 0);
    for (i = 0; i < 10; i++) kill(getpid(), SIGUSR1);
    run_until_said("usr1");
    for (i = 0; i < 5; i++) turn();
    SAID("");
    close_loop();
}

TEST(several_loops_watch_one_signal) {
    open_signal_loop();
    EQ(casync_loop_init(&other, NULL), 0);
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say, WORD("one")), 0);
    EQ(casync_signal_start(&other, &second, SIGUSR1, 0, say, WORD("two")), 0);
    kill(getpid(), SIGUSR1);
    while (!strstr(said, "one")) EQ(casync_run_once(&loop), 0);
    while (!strstr(said, "two")) EQ(casync_run_once(&other), 0);
    SAID("one two");
    kill(getpid(), SIGUSR1);
    while (!strstr(said, "two")) EQ(casync_run_once(&other), 0);
    while (!strstr(said, "one")) EQ(casync_run_once(&loop), 0);
    SAID("two one");
    EQ(casync_loop_close(&other), 0);
    kill(getpid(), SIGUSR1);
    run_until_said("one");
    close_loop();
}

static void stop_other(void *arg) {
    (void)arg;
    casync_stop(&other);
}

static void *run_other(void *arg) {
    sigset_t mask;
    (void)arg;
    sigemptyset(&mask);
    EQ(pthread_sigmask(SIG_SETMASK, &mask, NULL), 0);
    EQ(casync_loop_init(&other, NULL), 0);
    EQ(casync_signal_start(&other, &second, SIGUSR1, 0, stop_other, NULL), 0);
    EQ(casync_call_soon_threadsafe(&loop, &watcher.job, stop_loop, NULL), 0);
    EQ(casync_run_forever(&other), 0);
    EQ(casync_signal_stop(&second), 1);
    EXPECT(!is_blocked(SIGUSR1));
    EQ(casync_loop_close(&other), 0);
    return NULL;
}

TEST(loops_in_several_threads_watch_one_signal) {
    pthread_t thread;
    casync_signal mine = ZERO;
    open_signal_loop();
    EQ(casync_signal_start(&loop, &mine, SIGUSR1, 0, say_and_stop, WORD("here")), 0);
    thread = start_thread(run_other, NULL);
    EQ(casync_run_forever(&loop), 0); /* until the other is ready */
    kill(getpid(), SIGUSR1);
    EQ(casync_run_forever(&loop), 0);
    SAID("here");
    join_thread(thread);
    close_loop();
}

TEST(once_stops_before_the_first_callback) {
    open_signal_loop();
    signal(SIGUSR1, SIG_IGN);
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, CASYNC_SIGNAL_ONCE, say_and_stop,
                           WORD("once")),
       0);
    kill(getpid(), SIGUSR1);
    EQ(casync_run_forever(&loop), 0);
    SAID("once");
    EQ(casync_signal_stop(&watcher), 0);
    EXPECT(!casync_loop_alive(&loop));
    EXPECT(handler_of(SIGUSR1) == SIG_IGN);
    close_loop();
}

static void start_again(void *arg) {
    say(arg);
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, CASYNC_SIGNAL_ONCE, say_and_stop,
                           WORD("again")),
       0);
    kill(getpid(), SIGUSR1);
}

TEST(a_once_callback_may_start_it_again) {
    open_signal_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, CASYNC_SIGNAL_ONCE, start_again, WORD("once")),
       0);
    kill(getpid(), SIGUSR1);
    EQ(casync_run_forever(&loop), 0);
    SAID("once again");
    close_loop();
}

static void stop_both(void *arg) {
    EQ(casync_signal_stop(&watcher), 1);
    EQ(casync_signal_stop(&second), 1);
    say(arg);
}

TEST(a_callback_may_stop_watchers_that_are_due_too) {
    open_signal_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, stop_both, WORD("stopped")), 0);
    EQ(casync_signal_start(&loop, &second, SIGUSR1, 0, stop_both, WORD("stopped")), 0);
    kill(getpid(), SIGUSR1);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("stopped");
    close_loop();
}

static casync_signal *mine;

static void free_watcher(void *arg) {
    EQ(casync_signal_stop(mine), 1);
    free(mine);
    say(arg);
}

TEST(a_watcher_may_free_itself) {
    mine = (casync_signal *)calloc(1, sizeof *mine);
    open_signal_loop();
    EQ(casync_signal_start(&loop, mine, SIGUSR1, 0, free_watcher, WORD("freed")), 0);
    kill(getpid(), SIGUSR1);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("freed");
    close_loop();
}

TEST(an_unreferenced_watcher_works_but_keeps_nothing_running) {
    open_signal_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say, WORD("usr1")), 0);
    EXPECT(casync_loop_alive(&loop));
    casync_signal_ref(&watcher, false);
    EXPECT(!casync_loop_alive(&loop));
    EQ(casync_run_until_idle(&loop), 0);
    kill(getpid(), SIGUSR1);
    while (said_size == 0) turn();
    SAID("usr1");
    casync_signal_ref(&watcher, true);
    EXPECT(casync_loop_alive(&loop));
    EQ(casync_signal_stop(&watcher), 1);
    EXPECT(!casync_loop_alive(&loop));
    close_loop();
}

TEST(bad_arguments_change_nothing) {
    casync_loop closed = ZERO;
    void (*before)(int) = handler_of(SIGUSR1);
    open_signal_loop();
    EQ(casync_signal_stop(&watcher), 0);
    EQ(casync_signal_start(&loop, &watcher, 0, 0, never, NULL), -EINVAL);
    EQ(casync_signal_start(&loop, &watcher, -1, 0, never, NULL), -EINVAL);
    EQ(casync_signal_start(&loop, &watcher, 65, 0, never, NULL), -EINVAL);
    EQ(casync_signal_start(&loop, &watcher, 1 << 20, 0, never, NULL), -EINVAL);
    EQ(casync_signal_start(&loop, &watcher, SIGKILL, 0, never, NULL), -EINVAL);
    EQ(casync_signal_start(&loop, &watcher, SIGSTOP, 0, never, NULL), -EINVAL);
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, NULL, NULL), -EINVAL);
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 128, never, NULL), -EINVAL);
    EQ(casync_signal_start(&closed, &watcher, SIGUSR1, 0, never, NULL), -EINVAL);
    EXPECT(!is_blocked(SIGUSR1));
    EXPECT(handler_of(SIGUSR1) == before);
    EXPECT(!casync_loop_alive(&loop));

    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say_and_stop, WORD("kept")), 0);
    EQ(casync_signal_start(&loop, &watcher, SIGUSR2, 0, never, NULL), -EALREADY);
    EQ(watcher.signum, SIGUSR1);
    kill(getpid(), SIGUSR1);
    EQ(casync_run_forever(&loop), 0);
    SAID("kept");
    close_loop();
}

/* Signals 32 and 33 belong to the C library's threads. */
TEST(signals_that_the_kernel_refuses_are_an_error) {
    int signum;
    open_signal_loop();
    for (signum = 1; signum <= 64; signum++) {
        int64_t result = casync_signal_start(&loop, &watcher, signum, 0, never, NULL);
        if (result == 0)
            EQ(casync_signal_stop(&watcher), 1);
        else
            EQ(result, -EINVAL);
        EXPECT((signum != SIGKILL && signum != SIGSTOP && signum != 32 && signum != 33) ||
               result < 0);
    }
    close_loop();
}

TEST(a_new_watcher_is_not_told_of_a_signal_from_before) {
    open_guest_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, never, NULL), 0);
    kill(getpid(), SIGUSR1);
    EQ(casync_signal_stop(&watcher), 1);
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, never, NULL), 0);
    turn();
    turn();
    close_loop();
}

/* >> what is put back ------------------------------------------------------------------------- */

TEST(mask_and_action_are_put_back_when_the_last_watcher_goes) {
    open_signal_loop();
    signal(SIGUSR1, SIG_IGN);
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, never, NULL), 0);
    EQ(casync_signal_start(&loop, &second, SIGUSR1, 0, never, NULL), 0);
    EXPECT(is_blocked(SIGUSR1));
    EQ(casync_signal_stop(&watcher), 1);
    EXPECT(is_blocked(SIGUSR1));
    EQ(casync_signal_stop(&second), 1);
    EXPECT(!is_blocked(SIGUSR1));
    EXPECT(handler_of(SIGUSR1) == SIG_IGN);
    close_loop();
}

TEST(a_signal_that_was_blocked_stays_blocked) {
    sigset_t set;
    open_signal_loop();
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say_and_stop, WORD("usr1")), 0);
    kill(getpid(), SIGUSR1);
    EQ(casync_run_forever(&loop), 0);
    SAID("usr1");
    EQ(casync_signal_stop(&watcher), 1);
    EXPECT(is_blocked(SIGUSR1));
    close_loop();
}

TEST(a_signal_that_is_still_pending_at_the_stop_does_not_kill) {
    open_signal_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGTERM, 0, never, NULL), 0);
    kill(getpid(), SIGTERM);
    EQ(casync_signal_stop(&watcher), 1);
    EXPECT(handler_of(SIGTERM) == SIG_DFL);
    EXPECT(!is_blocked(SIGTERM));
    turn();
    close_loop();
}

TEST(close_puts_everything_back) {
    void (*before)(int) = handler_of(SIGINT); /* ignored in what a shell started in the
                                                 background */
    open_signal_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGTERM, 0, never, NULL), 0);
    EQ(casync_signal_start(&loop, &second, SIGINT, 0, never, NULL), 0);
    kill(getpid(), SIGINT);
    close_loop();
    EXPECT(!is_blocked(SIGTERM));
    EXPECT(!is_blocked(SIGINT));
    EXPECT(handler_of(SIGTERM) == SIG_DFL);
    EXPECT(handler_of(SIGINT) == before);
}

TEST(other_loops_keep_the_signal_when_one_closes) {
    open_signal_loop();
    EQ(casync_loop_init(&other, NULL), 0);
    EQ(casync_signal_start(&other, &second, SIGTERM, 0, never, NULL), 0);
    EQ(casync_signal_start(&loop, &watcher, SIGTERM, 0, say_and_stop, WORD("term")), 0);
    EQ(casync_loop_close(&other), 0);
    kill(getpid(), SIGTERM);
    EQ(casync_run_forever(&loop), 0);
    SAID("term");
    close_loop();
}

static void later_handler(int signum) { (void)signum; }

TEST(a_handler_that_somebody_installed_later_is_not_overwritten) {
    open_guest_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, never, NULL), 0);
    signal(SIGUSR1, later_handler);
    EQ(casync_signal_stop(&watcher), 1);
    EXPECT(handler_of(SIGUSR1) == later_handler);
    close_loop();
}

/* >> threads ---------------------------------------------------------------------------------- */

static int ready[2], done[2];

static void *wait_unblocked(void *arg) {
    char byte;
    sigset_t mask;
    (void)arg;
    sigemptyset(&mask);
    EQ(pthread_sigmask(SIG_SETMASK, &mask, NULL), 0);
    put_byte(ready[1]);
    while (read(done[0], &byte, 1) != 1) continue;
    return NULL;
}

#if defined(__SANITIZE_THREAD__)
#define HOLDS_SIGNALS_BACK                                                                         \
    true /* TSan delivers a signal when the thread's next call returns: here, never */
#else
#define HOLDS_SIGNALS_BACK false
#endif

TEST(a_signal_that_lands_in_another_thread_is_passed_on) {
    pthread_t thread;
    if (HOLDS_SIGNALS_BACK) SKIP("TSan holds back the signals of a thread that waits");
    EQ(pipe(ready), 0);
    EQ(pipe(done), 0);
    open_signal_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGTERM, 0, say_and_stop, WORD("term")), 0);
    thread = start_thread(wait_unblocked, NULL);
    get_byte(ready[0]);
    EQ(pthread_kill(thread, SIGTERM), 0);
    EQ(casync_run_forever(&loop), 0);
    SAID("term");
    kill(getpid(), SIGTERM); /* to whichever thread does not block it */
    EQ(casync_run_forever(&loop), 0);
    SAID("term");
    put_byte(done[1]);
    join_thread(thread);
    EQ(casync_signal_stop(&watcher), 1);
    close_loop();
}

static void *live_with_signals(void *arg) {
    int i;
    (void)arg;
    for (i = 0; i < (test_quick ? 20 : 200); i++) {
        casync_loop mine_alone;
        casync_signal one = ZERO, two = ZERO;
        EQ(casync_loop_init(&mine_alone, NULL), 0);
        EQ(casync_signal_start(&mine_alone, &one, SIGUSR1, 0, do_nothing, NULL), 0);
        EQ(casync_signal_start(&mine_alone, &two, SIGUSR2, 0, do_nothing, NULL), 0);
        EQ(casync_signal_stop(&one), 1);
        EQ(casync_loop_close(&mine_alone), 0);
    }
    return NULL;
}

TEST(loops_with_signals_come_and_go_in_threads) {
    pthread_t threads[3];
    int i;
    if (HOLDS_SIGNALS_BACK) SKIP("TSan takes two threads' system calls on one signalfd for a race");
    for (i = 0; i < 3; i++) threads[i] = start_thread(live_with_signals, NULL);
    for (i = 0; i < 3; i++) join_thread(threads[i]);
    EXPECT(handler_of(SIGUSR1) == SIG_DFL);
    EXPECT(handler_of(SIGUSR2) == SIG_DFL);
}

/* >> resources -------------------------------------------------------------------------------- */

TEST(without_descriptors_nothing_is_watched) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    forbid_descriptors();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, never, NULL), -EMFILE);
    allow_descriptors();
    EXPECT(!is_blocked(SIGUSR1));
    EXPECT(handler_of(SIGUSR1) == SIG_DFL);
    EXPECT(!casync_loop_alive(&loop));
    EQ(memory.live, 0);
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say_and_stop, WORD("usr1")), 0);
    expect_signal_descriptors();
    kill(getpid(), SIGUSR1);
    EQ(casync_run_forever(&loop), 0);
    SAID("usr1");
    close_loop();
}

TEST(without_memory_nothing_is_watched) {
    int64_t n;
    open_signal_loop();
    for (n = 1;; n++) {
        int64_t result;
        fail_allocation(n, 1);
        result = casync_signal_start(&loop, &watcher, SIGUSR1, 0, never, NULL);
        fail_no_allocation();
        if (result == 0) break;
        EQ(result, -ENOMEM);
        EXPECT(!is_blocked(SIGUSR1));
        EXPECT(handler_of(SIGUSR1) == SIG_DFL);
        EXPECT(!casync_loop_alive(&loop));
    }
    EXPECT(n > 1);
    close_loop();
}

TEST(sigpipe_can_be_watched_like_any_other) {
    int ends[2];
    make_pipe(ends);
    open_signal_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGPIPE, 0, say_and_stop, WORD("pipe")), 0);
    close(ends[0]);
    EQ(write(ends[1], "x", 1), -1);
    EQ(errno, EPIPE);
    EQ(casync_run_forever(&loop), 0);
    SAID("pipe");
    close(ends[1]);
    descriptors_before -= 2;
    close_loop();
}

TEST(a_start_that_fails_leaves_the_watcher_as_it_was) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    watcher.signum = 77;
    forbid_descriptors();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, never, NULL), -EMFILE);
    allow_descriptors();
    EQ(watcher.signum, 77);
    EXPECT(watcher.callback == NULL);
    close_loop();
}

/* >> signals: one registry for any number of loops and watchers; masks and actions are put back. */
#include "support.h"

static casync_signal watcher, second, third;
static casync_loop other;

static void open_signal_loop(void) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    expect_signal_descriptors();
}

static void open_guest_loop(void) {
    casync_loop_desc desc = ZERO;
    desc.guest = true;
    open_loop_with(desc);
    expect_signal_descriptors();
}

static bool is_blocked(int signum) {
    sigset_t mask;
    EQ(pthread_sigmask(SIG_BLOCK, NULL, &mask), 0);
    return sigismember(&mask, signum) == 1;
}

static void (*handler_of(int signum))(int) {
    struct sigaction action;
    EQ(sigaction(signum, NULL, &action), 0);
    return action.sa_handler;
}

static void say_and_stop(void *arg) {
    say(arg);
    casync_stop(&loop);
}

static void turn(void) { EQ(casync_run_nowait(&loop), 0); }

static void run_until_said(const char *sentence) {
    while (strcmp(said, sentence) != 0) EQ(casync_run_once(&loop), 0);
    SAID(sentence);
}

/* >> a plain loop ----------------------------------------------------------------------------- */

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

/* >> threads that do not block the signal ----------------------------------------------------- */

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

/* >> children --------------------------------------------------------------------------------- */

static int reaped;
static pid_t children[8];

static void reap(void *arg) {
    pid_t pid;
    int status, i;
    (void)arg;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (i = 0; i < 8; i++)
            if (children[i] == pid) EQ(WEXITSTATUS(status), i);
        if (++reaped == 8) casync_stop(&loop);
    }
}

TEST(children_are_reaped_by_sigchld) {
    int i;
    open_signal_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGCHLD, 0, reap, NULL), 0);
    for (i = 0; i < 8; i++) {
        children[i] = fork_child();
        if (children[i] == 0) _exit(i);
    }
    EQ(casync_run_forever(&loop), 0);
    EQ(reaped, 8);
    close_loop();
}

TEST(a_forked_child_has_signals_of_its_own) {
    pid_t pid;
    skip_under_qemu("qemu-user does not zero pages in a child");
    open_signal_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say_and_stop, WORD("usr1")), 0);
    pid = fork_child();
    if (pid == 0) {
        EQ(casync_loop_fork(&loop), 0);
        kill(getpid(), SIGUSR1);
        EQ(casync_run_forever(&loop), 0);
        SAID("usr1");
        EQ(casync_signal_stop(&watcher), 1);
        close_loop();
        exit(0);
    }
    EQ(child_status(pid), 0);
    turn();
    SAID(""); /* the child's signal was not the parent's */
    kill(getpid(), SIGUSR1);
    EQ(casync_run_forever(&loop), 0);
    SAID("usr1");
    close_loop();
}

TEST(a_child_that_closes_the_loop_leaves_the_parents_signals) {
    pid_t pid;
    skip_under_qemu("qemu-user does not zero pages in a child");
    open_signal_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say_and_stop, WORD("usr1")), 0);
    pid = fork_child();
    if (pid == 0) {
        EQ(casync_loop_close(&loop), 0);
        EQ(memory.live, 0);
        EXPECT(!is_blocked(SIGUSR1));
        exit(0);
    }
    EQ(child_status(pid), 0);
    kill(getpid(), SIGUSR1);
    EQ(casync_run_forever(&loop), 0);
    SAID("usr1");
    close_loop();
}

/* >> guests ----------------------------------------------------------------------------------- */

static volatile sig_atomic_t previous_called;
static void previous_handler(int signum) { previous_called = signum; }

static void previous_action(int signum, siginfo_t *info, void *context) {
    (void)context;
    if (info->si_signo == signum && info->si_pid == getpid()) previous_called = signum;
}

TEST(a_guest_leaves_masks_alone_and_chains_to_the_handler_before) {
    open_guest_loop();
    signal(SIGUSR1, previous_handler);
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say_and_stop, WORD("guest")), 0);
    EXPECT(!is_blocked(SIGUSR1));
    kill(getpid(), SIGUSR1);
    EQ(previous_called, SIGUSR1);
    EQ(casync_run_forever(&loop), 0);
    SAID("guest");
    EQ(casync_signal_stop(&watcher), 1);
    EXPECT(handler_of(SIGUSR1) == previous_handler);
    close_loop();
}

TEST(a_guest_passes_siginfo_on) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = previous_action;
    action.sa_flags = SA_SIGINFO;
    EQ(sigaction(SIGUSR1, &action, NULL), 0);
    open_guest_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say_and_stop, WORD("guest")), 0);
    kill(getpid(), SIGUSR1);
    EQ(previous_called, SIGUSR1);
    EQ(casync_run_forever(&loop), 0);
    SAID("guest");
    close_loop();
}

TEST(a_guests_signal_does_not_kill_although_its_default_would) {
    open_guest_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGTERM, 0, say_and_stop, WORD("term")), 0);
    kill(getpid(), SIGTERM);
    EQ(casync_run_forever(&loop), 0);
    SAID("term");
    EQ(casync_signal_stop(&watcher), 1);
    EXPECT(handler_of(SIGTERM) == SIG_DFL);
    close_loop();
}

TEST(a_guest_and_a_plain_loop_share_a_signal) {
    casync_loop_desc desc = ZERO;
    desc.guest = true;
    open_signal_loop();
    EQ(casync_loop_init(&other, &desc), 0);
    EQ(casync_signal_start(&other, &second, SIGUSR1, 0, say, WORD("guest")), 0);
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say, WORD("plain")), 0);
    kill(getpid(), SIGUSR1);
    while (!strstr(said, "plain")) EQ(casync_run_once(&loop), 0);
    while (!strstr(said, "guest")) EQ(casync_run_once(&other), 0);
    SAID("plain guest");
    EQ(casync_signal_stop(&watcher), 1);
    EXPECT(!is_blocked(SIGUSR1));
    kill(getpid(), SIGUSR1);
    while (!strstr(said, "guest")) EQ(casync_run_once(&other), 0);
    SAID("guest");
    EQ(casync_loop_close(&other), 0);
    EXPECT(handler_of(SIGUSR1) == SIG_DFL);
    close_loop();
}

TEST(a_signal_that_a_foreign_signalfd_takes_is_busy) {
    sigset_t set;
    int fd;
    open_guest_loop();
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
    fd = signalfd(-1, &set, SFD_CLOEXEC);
    EXPECT(fd >= 0);
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, never, NULL), -EBUSY);
    EXPECT(handler_of(SIGUSR1) == SIG_DFL);
    EXPECT(!casync_loop_alive(&loop));
    EQ(casync_signal_start(&loop, &watcher, SIGUSR2, 0, say_and_stop, WORD("usr2")), 0);
    kill(getpid(), SIGUSR2);
    EQ(casync_run_forever(&loop), 0);
    SAID("usr2");
    close(fd);
    close_loop();
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

/* >> what reviews found ----------------------------------------------------------------------- */

TEST(a_guest_keeps_how_the_signal_interrupts) {
    struct sigaction action, now;
    memset(&action, 0, sizeof action);
    action.sa_handler = previous_handler;
    action.sa_flags = SA_ONSTACK; /* and without SA_RESTART */
    EQ(sigaction(SIGUSR1, &action, NULL), 0);
    open_guest_loop();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, never, NULL), 0);
    EQ(sigaction(SIGUSR1, NULL, &now), 0);
    EQ(now.sa_flags & (SA_ONSTACK | SA_RESTART), SA_ONSTACK);
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

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FORKS_WITH_THREADS                                                                         \
    false /* gcc 12's sanitizers do not release their own locks in the child */
#else
#define FORKS_WITH_THREADS true
#endif

static volatile bool threads_go_on = true;

static void *start_and_stop(void *arg) {
    casync_loop mine_alone;
    casync_signal one = ZERO;
    (void)arg;
    EQ(casync_loop_init(&mine_alone, NULL), 0);
    while (threads_go_on) {
        EQ(casync_signal_start(&mine_alone, &one, SIGUSR2, 0, do_nothing, NULL), 0);
        EQ(casync_signal_stop(&one), 1);
    }
    EQ(casync_loop_close(&mine_alone), 0);
    return NULL;
}

TEST(a_fork_while_a_thread_is_in_the_registry_leaves_a_child_that_works) {
    pthread_t thread;
    int i;
    casync_loop before;
    skip_under_qemu("qemu-user does not zero pages in a child");
    if (!FORKS_WITH_THREADS) SKIP("the sanitizer's own locks do not survive a fork with threads");
    EQ(casync_loop_init(&before, NULL), 0);
    thread = start_thread(start_and_stop, NULL);
    for (i = 0; i < (test_quick ? 10 : 100); i++) {
        pid_t pid = fork_child();
        if (pid == 0) {
            casync_loop child_loop;
            casync_signal one = ZERO;
            EQ(casync_loop_init(&child_loop, NULL), 0);
            EQ(casync_signal_start(&child_loop, &one, SIGUSR1, 0, do_nothing, NULL), 0);
            EQ(casync_loop_close(&child_loop), 0);
            raise(SIGKILL); /* no exit: a leak checker would miss what only the other thread knew */
        }
        EQ(child_status(pid), -SIGKILL);
    }
    threads_go_on = false;
    join_thread(thread);
    EQ(casync_loop_close(&before), 0);
}

/* >> handlers: for programs that start others -------------------------------------------------- */

static void open_handler_loop(void) {
    casync_loop_desc desc = ZERO;
    desc.signal_handlers = true;
    open_loop_with(desc);
    expect_signal_descriptors();
}

/* The mask that a program finds which writes its status to `out`. */
static uint64_t blocked_in(FILE *out) {
    static const char begin[] = "SigBlk:";
    uint64_t mask = 0;
    char line[256];
    bool found = false;
    EXPECT(out);
    while (fgets(line, sizeof line, out)) {
        if (strncmp(line, begin, sizeof begin - 1) != 0) continue;
        mask = strtoull(line + sizeof begin - 1, NULL, 16);
        found = true;
    }
    EXPECT(found);
    return mask;
}

static uint64_t blocked_after_popen(void) {
    FILE *out = popen("exec cat /proc/self/status", "r");
    uint64_t mask = blocked_in(out);
    EQ(pclose(out), 0);
    return mask;
}

static uint64_t blocked_after_system(void) {
    char line[64];
    FILE *out;
    uint64_t mask;
    int ends[2];
    EQ(pipe(ends), 0);
    snprintf(line, sizeof line, "exec cat /proc/self/status >/dev/fd/%d", ends[1]);
    EQ(system(line), 0);
    close(ends[1]);
    out = fdopen(ends[0], "r");
    mask = blocked_in(out);
    fclose(out);
    return mask;
}

static uint64_t blocked_after_exec(void) {
    uint64_t mask;
    FILE *out;
    int ends[2];
    pid_t pid;
    EQ(pipe(ends), 0);
    pid = fork_child();
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close_both(ends);
        execlp("cat", "cat", "/proc/self/status", (char *)NULL);
        _exit(1);
    }
    close(ends[1]);
    out = fdopen(ends[0], "r");
    mask = blocked_in(out);
    fclose(out);
    EQ(child_status(pid), 0);
    return mask;
}

/* Watched: SIGTERM and SIGUSR1. Of what the test runs under, the rest may be blocked. */
static void watch_two(void) {
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say_and_stop, WORD("usr1")), 0);
    EQ(casync_signal_start(&loop, &second, SIGTERM, 0, say_and_stop, WORD("term")), 0);
}
static const uint64_t watched_mask =
    ((uint64_t)1 << (SIGUSR1 - 1)) | ((uint64_t)1 << (SIGTERM - 1));

/* A shell may clear its mask, so what is blocked is looked for without one. */
TEST(programs_inherit_what_a_plain_loop_blocks) {
    skip_under_qemu("the mask is that of qemu-user");
    open_signal_loop();
    watch_two();
    EQ(blocked_after_exec() & watched_mask, watched_mask);
    close_loop();
    EQ(blocked_after_exec() & watched_mask, 0);
}

TEST(programs_inherit_no_blocked_signal_of_a_loop_with_handlers) {
    skip_under_qemu("the mask is that of qemu-user");
    open_handler_loop();
    watch_two();
    EXPECT(!is_blocked(SIGUSR1));
    EXPECT(!is_blocked(SIGTERM));
    EQ(blocked_after_exec() & watched_mask, 0);
    EQ(blocked_after_system() & watched_mask, 0);
    EQ(blocked_after_popen() & watched_mask, 0);
    close_loop();
}

TEST(a_loop_with_handlers_is_told_of_signals) {
    open_handler_loop();
    watch_two();
    kill(getpid(), SIGTERM);
    EQ(casync_run_forever(&loop), 0);
    SAID("term");
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGUSR1);
    EQ(casync_run_forever(&loop), 0);
    SAID("usr1");
    EQ(casync_signal_stop(&watcher), 1);
    EXPECT(handler_of(SIGUSR1) == SIG_DFL);
    close_loop();
    EXPECT(handler_of(SIGTERM) == SIG_DFL);
}

TEST(a_loop_with_handlers_goes_on_being_told_after_it_started_programs) {
    skip_under_qemu("the mask is that of qemu-user");
    open_handler_loop();
    watch_two();
    EQ(blocked_after_system() & watched_mask, 0);
    kill(getpid(), SIGTERM);
    EQ(casync_run_forever(&loop), 0);
    SAID("term");
    close_loop();
}

TEST(a_loop_with_handlers_chains_to_the_handler_before) {
    open_handler_loop();
    signal(SIGUSR1, previous_handler);
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say_and_stop, WORD("both")), 0);
    kill(getpid(), SIGUSR1);
    EQ(previous_called, SIGUSR1);
    EQ(casync_run_forever(&loop), 0);
    SAID("both");
    EQ(casync_signal_stop(&watcher), 1);
    EXPECT(handler_of(SIGUSR1) == previous_handler);
    close_loop();
}

static void set_event(void *arg) { casync_event_set((casync_event *)arg); }
static int64_t raises_and_waits(casync_loop *where, void *arg) {
    casync_event event = ZERO;
    (void)arg;
    EQ(casync_signal_start(where, &watcher, SIGTERM, CASYNC_SIGNAL_ONCE, set_event, &event), 0);
    EXPECT(!is_blocked(SIGTERM));
    kill(getpid(), SIGTERM);
    return casync_event_wait(&event);
}
TEST(a_run_may_have_handlers) {
    casync_loop_desc desc = ZERO;
    desc.signal_handlers = true;
    EQ(casync_run_with(&desc, raises_and_waits, NULL), 0);
}

/* A plain loop blocks the signal for both; each is told once. */
TEST(a_loop_with_handlers_and_a_plain_one_share_a_signal) {
    open_handler_loop();
    EQ(casync_loop_init(&other, NULL), 0);
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, say, WORD("handlers")), 0);
    EQ(casync_signal_start(&other, &second, SIGUSR1, 0, say, WORD("plain")), 0);
    kill(getpid(), SIGUSR1);
    run_until_said("handlers");
    while (said_size == 0) EQ(casync_run_once(&other), 0);
    SAID("plain");
    EQ(casync_signal_stop(&second), 1);
    EQ(casync_loop_close(&other), 0);
    EXPECT(!is_blocked(SIGUSR1));
    kill(getpid(), SIGUSR1);
    run_until_said("handlers");
    close_loop();
}

TEST_MAIN

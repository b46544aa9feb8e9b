/* >> signals: in forked children, in guests, and in programs that start others. */
#include "signals_fixture.h"

#include <sys/signalfd.h>

static volatile sig_atomic_t previous_called;
static void previous_handler(int signum) { previous_called = signum; }

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

/* >> guests ----------------------------------------------------------------------------------- */

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

/* >> handlers: for programs that start others ------------------------------------------------- */

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

/* >> terminals: their modes, which are put back whatever ends the process; and pseudoterminals. */
#include "loop_fixture.h"

#include <sys/ioctl.h>
#include <termios.h>

static int pty[2];

static void open_pty(void) { EQ(casync_openpty(pty, 80, 24), 0); }

static bool terminal_is_normal(void) {
    struct termios mode;
    EQ(tcgetattr(pty[1], &mode), 0);
    return (mode.c_lflag & (ICANON | ECHO | ISIG)) == (ICANON | ECHO | ISIG);
}

static bool terminal_has(tcflag_t local_flags) {
    struct termios mode;
    EQ(tcgetattr(pty[1], &mode), 0);
    return (mode.c_lflag & local_flags) == local_flags;
}

TEST(a_terminal_has_three_modes) {
    open_pty();
    EXPECT(terminal_is_normal());
    EQ(casync_terminal_set_mode(pty[1], CASYNC_TERMINAL_CBREAK), 0);
    EXPECT(!terminal_has(ECHO) && !terminal_has(ICANON) && terminal_has(ISIG));
    EQ(casync_terminal_set_mode(pty[1], CASYNC_TERMINAL_RAW), 0);
    EXPECT(!terminal_has(ECHO) && !terminal_has(ICANON) && !terminal_has(ISIG));
    EQ(casync_terminal_set_mode(pty[1], CASYNC_TERMINAL_CBREAK), 0);
    EXPECT(terminal_has(ISIG));
    EQ(casync_terminal_set_mode(pty[1], CASYNC_TERMINAL_NORMAL), 0);
    EXPECT(terminal_is_normal());
    EQ(casync_terminal_set_mode(pty[1], CASYNC_TERMINAL_NORMAL), 0);
    close_both(pty);
}

TEST(what_is_no_terminal_or_no_mode_is_refused) {
    int ends[2], second[2], size;
    open_pty();
    make_pipe(ends);
    EQ(casync_terminal_set_mode(ends[0], CASYNC_TERMINAL_RAW), -ENOTTY);
    EQ(casync_terminal_set_mode(-1, CASYNC_TERMINAL_RAW), -EBADF);
    EQ(casync_terminal_set_mode(pty[1], 3), -EINVAL);
    EQ(casync_terminal_size(ends[0], &size, &size), -ENOTTY);
    EQ(casync_openpty(second, -1, 1), -EINVAL);
    EQ(casync_openpty(second, 1, 65536), -EINVAL);
    EQ(casync_openpty(second, 1, 1), 0);
    EQ(casync_terminal_set_mode(pty[1], CASYNC_TERMINAL_RAW), 0);
    EQ(casync_terminal_set_mode(second[1], CASYNC_TERMINAL_RAW), -EBUSY);
    EQ(casync_terminal_set_mode(second[1], CASYNC_TERMINAL_NORMAL), 0); /* as it is */
    EXPECT(!terminal_is_normal());
    EQ(casync_terminal_set_mode(pty[1], CASYNC_TERMINAL_NORMAL), 0);
    close_both(ends);
    close_both(second);
    close_both(pty);
}

TEST(a_pseudoterminal_has_a_size_and_echoes) {
    char text[16] = "";
    int columns = 0, rows = 0;
    open_pty();
    EXPECT(fcntl(pty[0], F_GETFD) & FD_CLOEXEC);
    EXPECT(fcntl(pty[1], F_GETFD) & FD_CLOEXEC);
    EQ(casync_terminal_size(pty[1], &columns, &rows), 0);
    EQ(columns, 80);
    EQ(rows, 24);
    EQ(write(pty[0], "hi\n", 3), 3);
    EQ(read(pty[1], text, sizeof text), 3);
    STR_EQ(text, "hi\n");
    EQ(read(pty[0], text, sizeof text), 4);
    EXPECT(memcmp(text, "hi\r\n", 4) == 0);
    close_both(pty);
}

/* >> whatever ends the process ----------------------------------------------------------------- */

/* A child that sets the terminal, says so, and then does what it is to do. */
static pid_t start_child(void (*act)(void)) {
    int ready[2];
    pid_t child;
    char byte;
    if (under_valgrind()) SKIP("valgrind does not end by the signal of a handler");
    EQ(pipe2(ready, O_CLOEXEC), 0);
    child = fork();
    if (child == 0) {
        EQ(setpgid(0, 0), 0); /* so that it can be stopped: its parent is of another group */
        EQ(casync_terminal_set_mode(pty[1], CASYNC_TERMINAL_RAW), 0);
        EQ(write(ready[1], "x", 1), 1);
        act();
        for (;;) pause();
    }
    EXPECT(child > 0);
    EQ(read(ready[0], &byte, 1), 1);
    close_both(ready);
    return child;
}

static void wait_for(void) { pause(); }
static void exit_at_once(void) { exit(0); }
static void abort_at_once(void) { abort(); }

static void wait_for_end(pid_t child, int signum) {
    int status;
    EQ(waitpid(child, &status, 0), child);
    if (signum)
        EQ(WTERMSIG(status), signum);
    else
        EQ(status, 0);
    EXPECT(terminal_is_normal());
}

TEST(an_exit_makes_the_terminal_normal) {
    open_pty();
    wait_for_end(start_child(exit_at_once), 0);
    close_both(pty);
}

TEST(a_signal_makes_the_terminal_normal_and_does_what_it_does) {
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGSEGV, SIGUSR1};
    size_t i;
    struct rlimit none = {0, 0};
    EQ(setrlimit(RLIMIT_CORE, &none), 0);
    skip_under_qemu("qemu-user dumps core of its own");
    open_pty();
    for (i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction action;
        pid_t child;
        EQ(sigaction(signals[i], NULL, &action), 0);
        if (action.sa_handler != SIG_DFL) continue; /* a sanitizer's */
        child = start_child(wait_for);
        EXPECT(!terminal_is_normal());
        EQ(kill(child, signals[i]), 0);
        wait_for_end(child, signals[i]);
    }
    wait_for_end(start_child(abort_at_once), SIGABRT);
    close_both(pty);
}

TEST(a_process_that_stops_leaves_the_terminal_normal_until_it_goes_on) {
    pid_t child;
    int status;
    open_pty();
    child = start_child(wait_for);
    EQ(kill(child, SIGTSTP), 0);
    EQ(waitpid(child, &status, WUNTRACED), child);
    EXPECT(WIFSTOPPED(status));
    EXPECT(terminal_is_normal());
    EQ(kill(child, SIGCONT), 0);
    while (terminal_is_normal()) sched_yield();
    EQ(kill(child, SIGTERM), 0);
    wait_for_end(child, SIGTERM);
    close_both(pty);
}

static int handled;
static void handle(int signum) { handled = signum; }

TEST(handlers_of_others_decide_by_themselves) {
    struct sigaction action;
    open_pty();
    EXPECT(signal(SIGUSR1, handle) != SIG_ERR);
    EQ(casync_terminal_set_mode(pty[1], CASYNC_TERMINAL_RAW), 0);
    EQ(raise(SIGUSR1), 0);
    EQ(handled, SIGUSR1);
    EXPECT(!terminal_is_normal());
    EXPECT(signal(SIGUSR2, handle) != SIG_ERR); /* in the place of ours */
    EQ(casync_terminal_set_mode(pty[1], CASYNC_TERMINAL_NORMAL), 0);
    EQ(sigaction(SIGUSR2, NULL, &action), 0);
    EXPECT(action.sa_handler == handle);
    EQ(sigaction(SIGTERM, NULL, &action), 0);
    EXPECT(action.sa_handler == SIG_DFL); /* ours are gone */
    close_both(pty);
}

TEST(a_forked_child_that_exits_leaves_the_terminal_alone) {
    pid_t child;
    int status;
    open_pty();
    EQ(casync_terminal_set_mode(pty[1], CASYNC_TERMINAL_RAW), 0);
    child = fork();
    if (child == 0) exit(0);
    EQ(waitpid(child, &status, 0), child);
    EXPECT(!terminal_is_normal());
    EQ(casync_terminal_set_mode(pty[1], CASYNC_TERMINAL_NORMAL), 0);
    close_both(pty);
}

/* >> as streams -------------------------------------------------------------------------------- */

TEST(the_side_of_the_user_is_a_stream) {
    static casync_stream user;
    casync_op op;
    char text[16] = "";
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_pty();
    EQ(casync_stream_open(&loop, &user, pty[0], NULL, NULL), 0);
    EQ(write(pty[1], "$ ", 2), 2);
    EQ(casync_run_until_complete(casync_read_op(&user, &op, text, sizeof text)), 2);
    STR_EQ(text, "$ ");
    close(pty[1]);
    EQ(casync_run_until_complete(casync_read_op(&user, &op, text, sizeof text)), -EIO);
    casync_close(&user);
    close_loop();
}

/* >> processes: their end is told once, to all who ask, and no zombie is left. */
#include "processes_fixture.h"

static void start_shell(const char *command) {
    desc.shell = command;
    EQ(casync_process_start(&loop, &process, &desc), 0);
}

/* A child that runs until its input ends. */
static void start_waiting(void) {
    desc.in = CASYNC_STDIO_PIPE;
    start_shell("read line; exit 4");
}

static int64_t wait_for_process(void) {
    return casync_run_until_complete(casync_process_wait_op(&process, &ops[0]));
}

TEST(all_who_wait_are_told) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    start_waiting();
    casync_process_wait_op(&process, &ops[1]);
    casync_process_wait_op(&process, &ops[2]);
    casync_process_wait_op(&process, &ops[3]);
    EQ(casync_future_cancel(&ops[2].future), 1);
    casync_close(&process.in);
    EQ(wait_for_process(), 4);
    EQ(casync_future_result(&ops[1].future), 4);
    EQ(casync_future_result(&ops[2].future), -ECANCELED);
    EQ(casync_future_result(&ops[3].future), 4);
    EQ(wait_for_process(), 4);
    close_processes();
}

TEST(an_exit_code_is_not_a_signal) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    start_shell("exit 143");
    EQ(wait_for_process(), 143);
    EQ(casync_process_signal(143), 0);
    casync_process_close(&process);
    start_shell("kill -TERM $$");
    EQ(wait_for_process(), 256 + SIGTERM);
    EQ(casync_process_signal(256 + SIGTERM), SIGTERM);
    close_processes();
}

TEST(signals_reach_the_child_until_it_has_ended) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_process_terminate(&process), CASYNC_INVALID_STATE);
    start_waiting();
    EQ(casync_process_send_signal(&process, 1000), -EINVAL);
    EQ(casync_process_send_signal(&process, 0), 0);
    EQ(casync_process_terminate(&process), 0);
    EQ(wait_for_process(), 256 + SIGTERM);
    EQ(casync_process_kill(&process), -ESRCH);
    casync_process_close(&process);
    start_waiting();
    EQ(casync_process_kill(&process), 0);
    EQ(wait_for_process(), 256 + SIGKILL);
    close_processes();
}

TEST(a_process_keeps_the_loop_running_until_it_is_closed) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    start_waiting();
    EXPECT(casync_loop_alive(&loop));
    casync_process_wait_op(&process, &ops[1]);
    casync_process_close(&process);
    EQ(casync_future_result(&ops[1].future), -ECONNABORTED);
    EXPECT(!casync_loop_alive(&loop) || casync_loop_ready(&loop));
    casync_process_close(&process);
    close_processes();
}

TEST(a_closed_process_is_reaped_when_it_ends) {
    siginfo_t info;
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    start_waiting();
    casync_process_close(&process); /* its input ends with it */
    memset(&process, 0xff, sizeof process);
    memset(&info, 0, sizeof info);
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0) casync_run_nowait(&loop);
    memset(&process, 0, sizeof process);
    close_processes();
}

TEST(a_loop_that_closes_kills_its_processes) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    start_shell("while :; do :; done");
    EQ(casync_loop_close(&loop), 0);
    expect_no_child();
    EQ(casync_process_terminate(&process), -ESRCH);
    EQ(open_descriptors(), descriptors_before);
}

TEST(a_detached_process_goes_on_and_is_reaped_by_a_thread) {
    int ends[2], pid;
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(pipe2(ends, O_CLOEXEC), 0);
    desc.detached = true;
    desc.in = CASYNC_STDIO_FD;
    desc.in_fd = ends[0];
    start_shell("read line");
    pid = process.pid;
    EQ(casync_loop_close(&loop), 0);
    EQ(kill(pid, 0), 0);
    close_both(ends); /* now it ends */
    wait_for_no_child();
}

/* >> statuses that others take ----------------------------------------------------------------- */

TEST(a_status_that_was_taken_is_an_error_of_its_own) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    start_shell("exit 9");
    EQ(waitpid(process.pid, NULL, 0), process.pid);
    EQ(wait_for_process(), CASYNC_NO_STATUS);
    EQ(casync_process_kill(&process), -ESRCH);
    casync_process_close(&process);
    EXPECT(signal(SIGCHLD, SIG_IGN) != SIG_ERR);
    start_waiting();
    casync_close(&process.in);
    EQ(wait_for_process(), CASYNC_NO_STATUS);
    close_processes();
}

TEST(other_children_are_left_alone) {
    int status;
    pid_t other;
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    other = fork();
    if (other == 0) _exit(3);
    start_shell("exit 5");
    EQ(wait_for_process(), 5);
    EQ(waitpid(other, &status, 0), other);
    EQ(WEXITSTATUS(status), 3);
    close_processes();
}

/* >> without pidfds ---------------------------------------------------------------------------- */

static int64_t refuse_pidfd(int pid) {
    (void)pid;
    return -ENOSYS;
}

static void open_without_pidfds(void) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    casync_syscalls.pidfd_open = refuse_pidfd;
}

TEST(without_a_pidfd_a_thread_waits) {
    open_without_pidfds();
    start_waiting();
    casync_close(&process.in);
    EQ(wait_for_process(), 4);
    casync_process_close(&process);
    start_waiting();
    EQ(casync_process_kill(&process), 0);
    EQ(wait_for_process(), 256 + SIGKILL);
    EQ(casync_process_kill(&process), -ESRCH);
    close_processes();
}

TEST(without_a_pidfd_too_closing_leaves_nothing) {
    open_without_pidfds();
    start_waiting();
    casync_process_close(&process);
    EXPECT(!casync_loop_alive(&loop));
    wait_for_no_child();
    desc.in = CASYNC_STDIO_NULL;
    start_shell("while :; do :; done");
    EQ(casync_loop_close(&loop), 0);
    wait_for_no_child();
}

TEST(without_a_pidfd_many_are_waited_for_at_once) {
    static casync_process many[50];
    int i;
    open_without_pidfds();
    desc.shell = "read line; exit 1";
    desc.in = CASYNC_STDIO_PIPE;
    for (i = 0; i < 50; i++) EQ(casync_process_start(&loop, &many[i], &desc), 0);
    for (i = 49; i >= 0; i--) {
        casync_close(&many[i].in);
        EQ(casync_run_until_complete(casync_process_wait_op(&many[i], &ops[0])), 1);
        casync_process_close(&many[i]);
    }
    close_processes();
}

/* >> many, and from several threads ------------------------------------------------------------ */

TEST(a_thousand_children_at_once) {
    static casync_process many[1000];
    int i, count = test_quick ? 50 : 1000;
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.shell = "read line; exit 1";
    desc.in = CASYNC_STDIO_FD;
    desc.in_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (i = 0; i < count; i++) EQ(casync_process_start(&loop, &many[i], &desc), 0);
    for (i = 0; i < count; i++) {
        EQ(casync_run_until_complete(casync_process_wait_op(&many[i], &ops[0])), 1);
        casync_process_close(&many[i]);
    }
    close(desc.in_fd);
    close_processes();
}

static void *start_in_thread(void *arg) {
    casync_loop own;
    int i;
    (void)arg;
    EQ(casync_loop_init(&own, NULL), 0);
    for (i = 0; i < (test_quick ? 5 : 50); i++) {
        casync_process child = ZERO;
        casync_op op;
        EQ(casync_process_start(&own, &child, &desc), 0);
        EQ(casync_run_until_complete(casync_process_wait_op(&child, &op)), 6);
        casync_process_close(&child);
    }
    EQ(casync_loop_close(&own), 0);
    return NULL;
}

TEST(loops_of_several_threads_have_their_own) {
    pthread_t threads[4];
    int i;
    desc.shell = "exit 6";
    for (i = 0; i < 4; i++) EQ(pthread_create(&threads[i], NULL, start_in_thread, NULL), 0);
    for (i = 0; i < 4; i++) EQ(pthread_join(threads[i], NULL), 0);
    expect_no_child();
}

/* >> walking and forking ----------------------------------------------------------------------- */

static void note_process(int kind, void *object, void *arg) {
    (void)arg;
    if (kind != CASYNC_KIND_PROCESS) return;
    PTR_EQ(object, &process);
    say(WORD("process"));
}

TEST(a_walk_meets_processes) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    start_waiting();
    casync_walk(&loop, note_process, NULL);
    SAID("process");
    close_processes();
}

TEST(a_forked_child_leaves_its_parents_processes_alone) {
    int status;
    pid_t forked;
    skip_under_qemu("qemu-user does not zero pages in a child");
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    start_waiting();
    forked = fork();
    if (forked == 0) {
        EQ(casync_loop_fork(&loop), 0);
        EXPECT(casync_process_kill(&process) < 0); /* it is its parent's */
        casync_process_close(&process);
        EQ(casync_loop_close(&loop), 0);
        _exit(0);
    }
    EQ(waitpid(forked, &status, 0), forked);
    EQ(status, 0);
    casync_close(&process.in);
    EQ(wait_for_process(), 4);
    close_processes();
}

/* >> processes that are no children ------------------------------------------------------------ */

TEST(the_end_of_any_process_can_be_waited_for) {
    open_pool_loop(CASYNC_CLOCK_VIRTUAL_FORCED);
    start_waiting();
    casync_wait_pid_op(&loop, &ops[1], process.pid);
    casync_wait_pid_op(&loop, &ops[2], process.pid);
    EQ(casync_future_cancel(&ops[2].future), 1);
    casync_close(&process.in);
    EQ(casync_run_until_complete(&ops[1].future), 0);
    EQ(wait_for_process(), 4); /* the status was left to its parent */
    EQ(casync_future_result(casync_wait_pid_op(&loop, &ops[1], process.pid)), -ESRCH);
    EQ(casync_future_result(casync_wait_pid_op(&loop, &ops[1], 0)), -EINVAL);
    EQ(casync_future_result(casync_wait_pid_op(&loop, &ops[1], -1)), -EINVAL);
    casync_wait_pid_op(&loop, &ops[1], getpid()); /* and the loop is closed meanwhile */
    close_processes();
}

TEST(without_a_pidfd_a_process_is_looked_for) {
    open_pool_loop(CASYNC_CLOCK_VIRTUAL_FORCED);
    casync_syscalls.pidfd_open = refuse_pidfd;
    start_waiting();
    casync_wait_pid_op(&loop, &ops[1], process.pid);
    casync_close(&process.in);
    EQ(wait_for_process(), 4);
    EQ(casync_run_until_complete(&ops[1].future), 0);
    close_processes();
}

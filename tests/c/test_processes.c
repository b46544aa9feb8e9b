/* >> processes: a child starts as its desc says, or the start fails and says why. */
#include "processes_fixture.h"

/* >> starting ---------------------------------------------------------------------------------- */

TEST(a_program_runs_and_its_exit_code_comes_back) {
    static const char *const args[] = {"sh", "-c", "exit 7", NULL};
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.args = args;
    EQ(casync_process_start(&loop, &process, &desc), 0);
    EXPECT(process.pid > 0);
    EQ(run_task(communicates, NULL), 7);
    EQ(run_task(communicates, NULL), 7); /* it is known from now on */
    close_processes();
}

TEST(a_program_that_is_missing_is_an_error_of_start) {
    static const char *const args[] = {"no-such-program-anywhere", NULL};
    casync_op op;
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.args = args;
    EQ(casync_process_start(&loop, &process, &desc), -ENOENT);
    STR_EQ(process.step, "execve");
    EQ(process.pid, 0);
    desc.program = "/no/such/file";
    EQ(casync_process_start(&loop, &process, &desc), -ENOENT);
    desc.program = "/etc/passwd"; /* no program */
    EQ(casync_process_start(&loop, &process, &desc), -EACCES);
    STR_EQ(process.step, "execve");
    EQ(casync_future_result(casync_process_wait_op(&process, &op)), CASYNC_INVALID_STATE);
    close_processes();
}

TEST(an_option_that_cannot_be_had_is_an_error_of_start) {
    static const char *const args[] = {"true", NULL};
    static const casync_process_fd closed = {1000, 5};
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.args = args;
    desc.cwd = "/no/such/directory";
    EQ(casync_process_start(&loop, &process, &desc), -ENOENT);
    STR_EQ(process.step, "chdir");
    desc.cwd = NULL;
    desc.fds = &closed;
    desc.fd_count = 1;
    EQ(casync_process_start(&loop, &process, &desc), -EBADF);
    STR_EQ(process.step, "fcntl");
    desc.fd_count = 0;
    desc.set_process_group = true;
    desc.process_group = 1; /* of another session */
    EQ(casync_process_start(&loop, &process, &desc), -EPERM);
    STR_EQ(process.step, "setpgid");
    close_processes();
}

TEST(a_descriptor_that_is_not_open_is_an_error_of_start) {
    int closed = dup(0), i;
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.shell = "echo 0123456789abcdef0123456789abcdef";
    for (i = 0; i < 4; i++) { /* the numbers that the start would open next */
        closed = dup(0);
        close(closed);
        desc.out = CASYNC_STDIO_FD;
        desc.out_fd = closed + i;
        EQ(casync_process_start(&loop, &process, &desc), -EBADF);
        EQ(process.pid, 0);
    }
    close_processes();
}

/* A process that was forked while a start had its pipes open has them too. */
static void *fork_all_the_time(void *arg) {
    pid_t *holders = (pid_t *)arg;
    int i;
    for (i = 0; i < 50; i++) {
        holders[i] = fork();
        if (holders[i] == 0) {
            for (;;) pause();
        }
    }
    return NULL;
}

TEST(a_start_does_not_wait_for_processes_of_others) {
    static pid_t holders[50];
    pthread_t thread;
    int i;
#ifdef __SANITIZE_THREAD__
    SKIP("TSan makes a copy for vfork");
#endif
    if (under_valgrind()) SKIP("valgrind makes a copy for vfork");
    skip_under_qemu("qemu-user makes a copy for vfork");
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.shell = "true";
    EQ(pthread_create(&thread, NULL, fork_all_the_time, holders), 0);
    for (i = 0; i < 50; i++) {
        EQ(casync_process_start(&loop, &process, &desc), 0);
        EQ(run_task(communicates, NULL), 0);
        casync_process_close(&process);
    }
    EQ(pthread_join(thread, NULL), 0);
    for (i = 0; i < 50; i++) {
        EQ(kill(holders[i], SIGKILL), 0);
        EQ(waitpid(holders[i], NULL, 0), holders[i]);
    }
    close_processes();
}

TEST(a_bad_desc_is_refused) {
    static const char *const args[] = {"true", NULL};
    static const char *const none[] = {NULL};
    static casync_process_fd fds[] = {{0, 1}};
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_process_start(&loop, &process, &desc), -EINVAL);
    desc.args = none;
    EQ(casync_process_start(&loop, &process, &desc), -EINVAL);
    desc.args = args;
    desc.shell = "true";
    EQ(casync_process_start(&loop, &process, &desc), -EINVAL);
    desc.shell = NULL;
    desc.in = CASYNC_STDIO_STDOUT;
    EQ(casync_process_start(&loop, &process, &desc), -EINVAL);
    desc.in = CASYNC_STDIO_FD;
    desc.in_fd = -1;
    EQ(casync_process_start(&loop, &process, &desc), -EINVAL);
    desc.in = 0;
    desc.fd_count = 1;
    EQ(casync_process_start(&loop, &process, &desc), -EINVAL);
    desc.fds = fds; /* as 1, which is desc.out */
    EQ(casync_process_start(&loop, &process, &desc), -EINVAL);
    desc.fd_count = 0;
    desc.limit_count = 1;
    EQ(casync_process_start(&loop, &process, &desc), -EINVAL);
    close_processes();
}

TEST(a_process_that_runs_cannot_be_started_again) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.shell = "read line";
    desc.in = CASYNC_STDIO_PIPE;
    EQ(casync_process_start(&loop, &process, &desc), 0);
    EQ(casync_process_start(&loop, &process, &desc), -EALREADY);
    EQ(run_task(communicates, NULL), 1); /* the end of the input */
    EQ(casync_process_start(&loop, &process, &desc), 0);
    EQ(run_task(communicates, NULL), 1);
    close_processes();
}

TEST(want_of_memory_and_descriptors_leaves_nothing) {
    int n;
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.shell = "true";
    desc.in = desc.out = desc.err = CASYNC_STDIO_PIPE;
    EQ(run_process(), 0); /* tables have grown */
    casync_process_output_free(&output);
    for (n = 1; n <= 3; n++) {
        fail_allocation(n, 1);
        EQ(casync_process_start(&loop, &process, &desc), -ENOMEM);
        fail_no_allocation();
        EQ(process.pid, 0);
    }
    forbid_descriptors();
    EQ(casync_process_start(&loop, &process, &desc), -EMFILE);
    allow_descriptors();
    close_processes();
}

/* >> where a program is ------------------------------------------------------------------------ */

TEST(a_program_is_searched_in_the_path_of_its_environment) {
    static const char *const nowhere[] = {"PATH=/no/such/directory", NULL};
    static const char *const somewhere[] = {"X=1", "PATH=/nowhere:/etc/passwd:/usr/bin:/bin", NULL};
    static const char *const args[] = {"sh", "-c", "echo $X-$0", "zero", NULL};
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.args = args;
    desc.env = nowhere;
    EQ(casync_process_start(&loop, &process, &desc), -ENOENT);
    desc.env = somewhere;
    EQ(run_process(), 0);
    wrote(&output.out, "1-zero\n");
    casync_process_output_free(&output);
    close_processes();
}

TEST(a_program_may_have_another_name_than_its_file) {
    static const char *const args[] = {"another name", "-c", "echo $0", NULL};
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.args = args;
    desc.program = "/bin/sh";
    EQ(run_process(), 0);
    wrote(&output.out, "another name\n");
    casync_process_output_free(&output);
    close_processes();
}

/* >> standard descriptors ---------------------------------------------------------------------- */

TEST(pipes_are_streams) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.shell = "cat; echo done >&2";
    desc.in = desc.err = CASYNC_STDIO_PIPE;
    input.ptr = "some input";
    input.len = 10;
    EQ(run_process(), 0);
    wrote(&output.out, "some input");
    wrote(&output.err, "done\n");
    casync_process_output_free(&output);
    close_processes();
}

TEST(the_error_output_may_go_where_the_output_goes) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.err = CASYNC_STDIO_STDOUT;
    shell_writes("echo one; echo two >&2; echo three", "one\ntwo\nthree\n");
    close_processes();
}

TEST(null_reads_nothing_and_keeps_nothing) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.in = desc.err = CASYNC_STDIO_NULL;
    shell_writes("cat; echo lost >&2; echo seen", "seen\n");
    close_processes();
}

TEST(any_descriptor_can_be_given) {
    int pipe_ends[2];
    char text[8] = "";
    casync_process_fd further;
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
    desc.err = CASYNC_STDIO_FD;
    desc.err_fd = pipe_ends[1];
    shell_writes("echo hi >&2", "");
    EQ(read(pipe_ends[0], text, sizeof text), 3);
    STR_EQ(text, "hi\n");
    desc.err = 0;
    further.fd = pipe_ends[1];
    further.as = 9;
    desc.fds = &further;
    desc.fd_count = 1;
    shell_writes("echo nine >&9", "");
    EQ(read(pipe_ends[0], text, sizeof text), 5);
    close_both(pipe_ends);
    close_processes();
}

static void make_high_pipe(int high[2]) {
    int low[2], i;
    EQ(pipe2(low, O_CLOEXEC), 0);
    for (i = 0; i < 2; i++) high[i] = fcntl(low[i], F_DUPFD_CLOEXEC, 20);
    close_both(low);
}

TEST(descriptors_may_change_places) {
    int one[2], two[2];
    char text[8] = "";
    casync_process_fd swapped[2];
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    make_high_pipe(one);
    make_high_pipe(two);
    EQ(dup3(one[1], 7, O_CLOEXEC), 7);
    EQ(dup3(two[1], 8, O_CLOEXEC), 8);
    swapped[0].fd = swapped[1].as = 7;
    swapped[0].as = swapped[1].fd = 8;
    desc.fds = swapped;
    desc.fd_count = 2;
    shell_writes("echo seven >&7; echo 8 >&8", "");
    EQ(read(two[0], text, sizeof text), 6);
    EQ(read(one[0], text, sizeof text), 2);
    close(7);
    close(8);
    close_both(one);
    close_both(two);
    close_processes();
}

TEST(no_other_descriptor_reaches_the_child) {
    int open_one, high;
    casync_process_fd kept;
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    open_one = open("/dev/null", O_RDONLY); /* not close-on-exec */
    high = fcntl(open_one, F_DUPFD, 300);
    kept.fd = open_one;
    kept.as = 20;
    desc.fds = &kept;
    desc.fd_count = 1;
    desc.in = CASYNC_STDIO_NULL;
    desc.err = CASYNC_STDIO_NULL;
    shell_writes("for n in 3 4 5 6 7 8 9; do test -e /proc/$$/fd/$n && echo $n; done; "
                 "test -e /proc/$$/fd/300 && echo 300; test -e /proc/$$/fd/20 && echo 20",
                 "20\n");
    desc.keep_fds = true;
    shell_writes("test -e /proc/$$/fd/300 && echo 300", "300\n");
    close(open_one);
    close(high);
    close_processes();
}

static int64_t refuse_close_range(unsigned first, unsigned last) {
    (void)first, (void)last;
    return -ENOSYS;
}

static int64_t (*open_before)(const char *path, int flags, int mode);
static int64_t open_without_proc(const char *path, int flags, int mode) {
    return strncmp(path, "/proc", 5) == 0 ? -ENOENT : open_before(path, flags, mode);
}

TEST(without_close_range_descriptors_are_closed_one_by_one) {
    int open_one, high;
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    open_one = open("/dev/null", O_RDONLY);
    high = fcntl(open_one, F_DUPFD, 300);
    casync_syscalls.close_range = refuse_close_range;
    shell_writes("test -e /proc/$$/fd/300 || echo closed", "closed\n");
    open_before = casync_syscalls.open;
    casync_syscalls.open = open_without_proc;
    shell_writes("test -e /proc/$$/fd/300 || echo closed", "closed\n");
    close(open_one);
    close(high);
    close_processes();
}

/* >> the other options ------------------------------------------------------------------------- */

TEST(the_environment_and_the_directory_are_as_asked) {
    static const char *const env[] = {"ONE=1", "TWO=2", NULL};
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.env = env;
    desc.cwd = "/usr";
    shell_writes("echo $ONE $TWO $HOME; pwd", "1 2\n/usr\n");
    close_processes();
}

TEST(session_group_umask_and_limits_are_as_asked) {
    casync_process_limit limit = {RLIMIT_NOFILE, 77, 99};
    char expected[64];
    if (under_valgrind()) SKIP("valgrind's limit of descriptors is not the kernel's");
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.set_umask = true;
    desc.umask = 027;
    desc.limits = &limit;
    desc.limit_count = 1;
    shell_writes("umask; ulimit -Sn; ulimit -Hn", "0027\n77\n99\n");
    desc.new_session = true;
    shell_writes("set -- $(cat /proc/$$/stat); test $5 = $$ && test $6 = $$ && echo leads",
                 "leads\n");
    desc.new_session = false;
    desc.set_process_group = true;
    snprintf(expected, sizeof expected, "leads %d\n", (int)getsid(0));
    shell_writes("set -- $(cat /proc/$$/stat); test $5 = $$ && echo leads $6", expected);
    close_processes();
}

TEST(priority_and_ids_are_as_asked) {
    static const uint32_t groups[] = {7, 8};
    char expected[64];
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    if (getuid() != 0) SKIP("not root");
    skip_under_qemu("ids go through its own tables");
    desc.nice = 3;
    desc.set_user = desc.set_group = true;
    desc.user = 65534;
    desc.group = 65533;
    desc.groups = groups;
    desc.group_count = 2;
    snprintf(expected, sizeof expected, "65534\n65533\n65533 7 8\n%d\n",
             getpriority(PRIO_PROCESS, 0) + 3);
    shell_writes("id -u; id -g; id -G; nice", expected);
    EQ(prctl(PR_GET_DUMPABLE), 1); /* this process's memory was not the other user's */
    close_processes();
}

static void note_signal(int signum) { (void)signum; }

TEST(a_child_has_no_signal_blocked_ignored_or_handled) {
    sigset_t set;
    struct sigaction action;
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    memset(&action, 0, sizeof action);
    action.sa_handler = note_signal;
    EQ(sigaction(SIGUSR1, &action, NULL), 0);
    EXPECT(signal(SIGHUP, SIG_IGN) != SIG_ERR);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    EQ(sigprocmask(SIG_BLOCK, &set, NULL), 0);
    shell_writes("while read name value; do case $name in Sig[BI]*) echo $name $value;; esac; "
                 "done < /proc/$$/status",
                 "SigBlk: 0000000000000000\nSigIgn: 0000000000000000\n");
    EQ(sigprocmask(SIG_SETMASK, NULL, &set), 0); /* this process's is as before */
    EXPECT(sigismember(&set, SIGUSR2));
    EXPECT(!sigismember(&set, SIGTERM));
    close_processes();
}

static int64_t reads_screen(casync_loop *where, void *arg) {
    char *text = (char *)arg;
    int64_t n, size = 0;
    (void)where;
    while ((n = casync_read(&process.in, text + size, (size_t)(250 - size))) > 0) size += n;
    text[size] = 0;
    return n;
}

TEST(a_child_may_have_a_terminal_of_its_own) {
    char screen[256];
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.shell = "read line; echo \"[$line]\"; test -t 0 && test -t 2 && stty size < /dev/tty";
    desc.terminal = true;
    desc.columns = 99;
    desc.rows = 33;
    EQ(casync_process_start(&loop, &process, &desc), 0);
    EQ(casync_write(&process.in, "hello\n", 6), 6);
    EQ(run_task(reads_screen, screen), -EIO);
    STR_EQ(screen, "hello\r\n[hello]\r\n33 99\r\n");
    casync_close(&process.in);
    EQ(run_task(communicates, NULL), 0);
    casync_process_close(&process);
    desc.out = CASYNC_STDIO_PIPE;
    EQ(casync_process_start(&loop, &process, &desc), -EINVAL);
    close_processes();
}

/* >> output ------------------------------------------------------------------------------------ */

TEST(much_goes_both_ways_at_the_same_time) {
    static char megabyte[1 << 20];
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    memset(megabyte, 'x', sizeof megabyte);
    desc.shell = "cat; exit 5";
    desc.in = CASYNC_STDIO_PIPE;
    input.ptr = megabyte;
    input.len = sizeof megabyte;
    EQ(run_process(), 5);
    EQ(output.out.len, sizeof megabyte);
    EXPECT(memcmp(output.out.ptr, megabyte, sizeof megabyte) == 0);
    casync_process_output_free(&output);
    close_processes();
}

TEST(a_child_that_does_not_read_is_no_error) {
    static char megabyte[1 << 20];
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.shell = "echo enough";
    desc.in = CASYNC_STDIO_PIPE;
    input.ptr = megabyte;
    input.len = sizeof megabyte;
    EQ(run_process(), 0);
    wrote(&output.out, "enough\n");
    casync_process_output_free(&output);
    close_processes();
}

static int64_t communicates_within(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return casync_process_communicate_timeout(&process, input, &output, 100, CASYNC_MS(20));
}

TEST(a_process_may_be_closed_while_a_task_communicates_with_it) {
    static char megabyte[1 << 20];
    casync_process *own = (casync_process *)calloc(1, sizeof *own);
    casync_task *task;
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.shell = "exec sleep 1000";
    desc.in = desc.out = CASYNC_STDIO_PIPE;
    input.ptr = megabyte;
    input.len = sizeof megabyte;
    EQ(casync_process_start(&loop, own, &desc), 0);
    task = spawn(communicates_with, own);
    EQ(casync_run_nowait(&loop), 0);
    EQ(casync_process_kill(own), 0);
    casync_process_close(own);
    free(own);
    EQ(casync_run_until_complete(&task->future), -ECONNABORTED);
    casync_task_release(task);
    SAID("exception=-103"); /* what was not sent */
    casync_process_output_free(&output);
    EQ(casync_loop_close(&loop), 0);
    wait_for_no_child();
}

TEST(output_is_limited_in_bytes_and_in_time) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    desc.shell = "yes";
    desc.out = CASYNC_STDIO_PIPE;
    EQ(casync_process_start(&loop, &process, &desc), 0);
    EQ(run_task(communicates_within, NULL), CASYNC_LIMIT_OVERRUN);
    EQ(output.out.len, 100);
    casync_process_output_free(&output);
    EQ(casync_process_kill(&process), 0);
    casync_close(&process.out);
    EQ(run_task(communicates, NULL), 256 + SIGKILL);
    casync_process_close(&process);
    desc.shell = "echo so far; exec sleep 1000";
    EQ(casync_process_start(&loop, &process, &desc), 0);
    EQ(run_task(communicates_within, NULL), -ETIMEDOUT);
    EQ(casync_process_kill(&process), 0);
    casync_process_output_free(&output);
    EQ(run_task(communicates, NULL), 256 + SIGKILL);
    casync_process_output_free(&output);
    close_processes();
}

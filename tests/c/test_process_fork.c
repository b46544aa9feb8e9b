/* >> process state & fork: a child makes its loop anew, and its parent's goes on. */
#include "callbacks_fixture.h"

TEST(a_forked_child_must_remake_the_loop) {
    pid_t pid;
    skip_under_qemu("qemu-user does not zero pages in a child");
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, say, WORD("ran")), 0);
    pid = fork_child();
    if (pid == 0) {
        EQ(casync_run_forever(&loop), -ECHILD);
        EQ(casync_run_nowait(&loop), -ECHILD);
        SAID("");
        EQ(casync_loop_fork(&loop), 0);
        EQ(casync_run_until_idle(&loop), 0);
        SAID("ran");
        close_loop();
        exit(0);
    }
    EQ(child_status(pid), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("ran");
    close_loop();
}

TEST(loop_fork_without_a_fork_does_nothing) {
    int fd;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    fd = casync_loop_fd(&loop);
    EQ(casync_loop_fork(&loop), 0);
    EQ(casync_loop_fd(&loop), fd);
    close_loop();
}

TEST(parent_and_child_each_see_their_own_events) {
    pid_t pid;
    skip_under_qemu("qemu-user does not zero pages in a child");
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_and_remove, WORD("io")), 0);
    EQ(casync_call_later(&loop, NULL, CASYNC_MS(1), say, WORD("timer")), 0);
    pid = fork_child();
    if (pid == 0) {
        EQ(casync_loop_fork(&loop), 0);
        EQ(casync_remove_reader(&watcher), 1);
        EQ(casync_run_until_idle(&loop), 0);
        SAID("timer");
        EQ(casync_add_reader(&loop, &watcher, ends[0], read_and_remove, WORD("child-io")), 0);
        put_byte(ends[1]);
        EQ(casync_run_until_idle(&loop), 0);
        SAID("child-io");
        close_loop();
        exit(0);
    }
    EQ(child_status(pid), 0);
    put_byte(ends[1]);
    EQ(casync_run_until_idle(&loop), 0);
    EXPECT(strcmp(said, "io timer") == 0 || strcmp(said, "timer io") == 0);
    said[0] = 0;
    said_size = 0;
    close_loop();
    close_both(ends);
}

TEST(a_child_may_close_the_inherited_loop) {
    pid_t pid;
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_and_remove, WORD("io")), 0);
    pid = fork_child();
    if (pid == 0) {
        EQ(casync_loop_close(&loop), 0);
        EQ(memory.live, 0);
        exit(0);
    }
    EQ(child_status(pid), 0);
    put_byte(ends[1]);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("io");
    close_loop();
    close_both(ends);
}

TEST(posts_reach_a_remade_loop) {
    pid_t pid;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    pid = fork_child();
    if (pid == 0) {
        pthread_t thread;
        casync_timer keep = ZERO;
        EQ(casync_loop_fork(&loop), 0);
        EQ(casync_call_later(&loop, &keep, CASYNC_SECONDS(1000), never, NULL), 0);
        thread = start_thread(post_from_thread, WORD("posted"));
        while (said_size == 0) EQ(casync_run_once(&loop), 0);
        join_thread(thread);
        SAID("posted");
        close_loop();
        exit(0);
    }
    EQ(child_status(pid), 0);
    close_loop();
}

static void fork_inside(void *arg) {
    pid_t pid = fork_child();
    if (pid == 0) {
        EQ(casync_loop_fork(&loop), 0);
        say(WORD("child"));
        return;
    }
    EQ(child_status(pid), 0);
    say(arg);
}

TEST(a_callback_may_fork) {
    pid_t parent = getpid();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, NULL, fork_inside, WORD("parent")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID(getpid() == parent ? "parent" : "child");
    close_loop();
}

TEST(exec_inherits_no_descriptor) {
    casync_stream a = ZERO, b = ZERO;
    casync_signal sig = ZERO;
    DIR *directory;
    struct dirent *entry;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    expect_signal_descriptors();
    EQ(casync_socketpair(&loop, &a, &b, NULL, NULL), 0);
    EQ(casync_signal_start(&loop, &sig, SIGUSR1, 0, never, NULL), 0);
    directory = opendir("/proc/self/fd");
    while ((entry = readdir(directory))) {
        int fd = atoi(entry->d_name);
        if (fd > STDERR_FILENO && fd != dirfd(directory) && !(fcntl(fd, F_GETFD) & FD_CLOEXEC)) {
            char path[64], target[256];
            ssize_t n;
            snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
            n = readlink(path, target, sizeof target - 1);
            target[n > 0 ? n : 0] = 0;
            EXPECT(!strstr(target, "event")); /* eventfd, eventpoll */
            EXPECT(!strstr(target, "signalfd"));
        }
    }
    closedir(directory);
    EXPECT(fcntl(a.endpoint.watcher.fd, F_GETFD) & FD_CLOEXEC);
    EXPECT(fcntl(b.endpoint.watcher.fd, F_GETFD) & FD_CLOEXEC);
    casync_close(&a);
    casync_close(&b);
    EQ(casync_signal_stop(&sig), 1);
    close_loop();
}

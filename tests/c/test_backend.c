/* >> backend: epoll, with what the kernel refuses, or does not know. */
#include "refusals_fixture.h"

/* >> waiting ---------------------------------------------------------------------------------- */

TEST(a_kernel_without_epoll_pwait2_still_keeps_time) {
    casync_timer timer = ZERO;
    int64_t start;
    int i;
    fail_calls("epoll_pwait2", 0, 1, -ENOSYS);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    for (i = 0; i < 5; i++) {
        start = casync_time(&loop);
        EQ(casync_call_later(&loop, &timer, CASYNC_US(300), say, WORD("timer")), 0);
        EQ(casync_run_until_idle(&loop), 0);
        SAID("timer");
        EXPECT(casync_time(&loop) - start >= CASYNC_US(300));
    }
    EQ(calls("epoll_pwait2"), 1); /* asked once */
    close_loop();
}

TEST(an_interrupted_wait_is_no_error) {
    casync_timer timer = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_later(&loop, &timer, CASYNC_MS(1), say, WORD("timer")), 0);
    fail_calls("epoll_pwait2", 0, 3, -EINTR);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("timer");
    close_loop();
}

TEST(a_wait_that_the_kernel_refuses_ends_the_run) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_later(&loop, NULL, CASYNC_SECONDS(1000), never, NULL), 0);
    fail_calls("epoll_pwait2", 0, 1, -EBADF);
    EQ(casync_run_forever(&loop), -EBADF);
    EQ(loop.state, CASYNC_LOOP_STOPPED);
    fail_calls("epoll_wait", 0, 1, -EBADF);
    EQ(casync_run_nowait(&loop), -EBADF);
    EQ(casync_run_nowait(&loop), 0);
    close_loop();
}

static char large[200000];

static int64_t stop_in_epoll_ctl(int epfd, int operation, int fd, casync__epoll_event *event) {
    casync_stop(&loop); /* as a signal handler would, between the last look and the sleep */
    casync_wake(&loop);
    return casync__direct_epoll_ctl(epfd, operation, fd, event);
}

TEST(a_stop_and_wake_just_before_the_sleep_is_not_slept_through) {
    casync_watcher watcher = ZERO;
    int fds[2];
    make_socketpair(fds);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_add_reader(&loop, &watcher, fds[0], never, NULL), 0);
    EQ(casync_run_nowait(&loop), 0);
    while (write(fds[0], large, sizeof large) > 0) continue; /* not writable */
    EQ(casync_add_writer(&loop, &watcher, fds[0], never, NULL), 0);
    casync_syscalls.epoll_ctl = stop_in_epoll_ctl;
    EQ(casync_run_forever(&loop), 0);
    close_loop();
    close_both(fds);
}

/* >> changes that are refused ----------------------------------------------------------------- */

TEST(a_watch_that_the_kernel_refuses_changes_nothing) {
    casync_watcher watcher = ZERO;
    int fds[2];
    make_pipe(fds);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    fail_calls("epoll_ctl", 0, 1, -ENOSPC);
    EQ(casync_add_reader(&loop, &watcher, fds[0], never, NULL), -ENOSPC);
    EXPECT(!casync_loop_alive(&loop));
    PTR_EQ(casync_watcher_find(&loop, fds[0]), NULL);
    EQ(casync_add_reader(&loop, &watcher, fds[0], say, WORD("io")), 0);
    put_byte(fds[1]);
    turn();
    SAID("io");
    close_loop();
    close_both(fds);
}

TEST(a_change_that_the_kernel_refuses_is_told_and_tried_again) {
    casync_watcher watcher = ZERO;
    int fds[2];
    make_socketpair(fds);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_add_reader(&loop, &watcher, fds[0], never, NULL), 0);
    EQ(casync_add_writer(&loop, &watcher, fds[0], say, WORD("io")), 0);
    fail_calls("epoll_ctl", 0, 1, -ENOMEM);
    turn();
    SAID("exception=-12");
    turn();
    SAID("io");
    close_loop();
    close_both(fds);
}

static int exceptions;

static void count_exception(casync_loop *where, const casync_exception *exception, void *arg) {
    (void)where;
    (void)exception;
    (void)arg;
    exceptions++;
}

TEST(a_descriptor_that_was_closed_before_it_was_removed_is_told_once) {
    casync_watcher watcher = ZERO;
    int fds[2];
    make_socketpair(fds);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    casync_set_exception_handler(&loop, count_exception, NULL);
    EQ(casync_add_reader(&loop, &watcher, fds[0], do_nothing, NULL), 0);
    turn();
    EQ(casync_add_writer(&loop, &watcher, fds[0], do_nothing, NULL), 0);
    close_both(fds);
    descriptors_before -= 2;
    turns(50);
    EXPECT(exceptions <= 2);
    casync_remove_reader(&watcher);
    casync_remove_writer(&watcher);
    turns(2);
    close_loop();
}

/* >> watches that are refused for a while are tried again, for good are told to who waits ----- */

/* A change that was just refused is not waited for without end. */
static void expect_short_wait(void *arg, int64_t timeout) {
    (void)arg;
    if (last_failed[0]) EXPECT(timeout <= CASYNC_MS(100));
    last_failed[0] = 0;
}

static void open_refused_loop(void) {
    casync_loop_desc desc = ZERO;
    desc.before_wait = expect_short_wait;
    install_faults();
    open_loop_with(desc);
}

static void run_until_anything_was_said(void) {
    while (said_size == 0) EQ(casync_run_once(&loop), 0);
}

/* Begins to wait for what is ready, or will be, and makes the kernel refuse to watch it. */
static void begin_refused(void (*begin)(void), int64_t refusals, int64_t error) {
    open_refused_loop();
    casync_set_exception_handler(&loop, ignore_exception, NULL);
    begin();
    last_failed[0] = 0;
    fail_calls("epoll_ctl", 0, refusals, error);
    run_until_anything_was_said();
    fault.count = 0;
}

#define REFUSED_FOR_A_WHILE(name, begin, end, comes)                                               \
    TEST(name##_refused_for_a_while) {                                                             \
        begin_refused(begin, 2, -ENOMEM);                                                          \
        SAID(comes);                                                                               \
        end();                                                                                     \
        close_loop();                                                                              \
    }
#define REFUSED_FOR_GOOD(name, begin, end, fails)                                                  \
    TEST(name##_refused_for_good) {                                                                \
        begin_refused(begin, FOR_GOOD, -ENOSPC);                                                   \
        SAID(fails);                                                                               \
        end();                                                                                     \
        close_loop();                                                                              \
        begin_refused(begin, FOR_GOOD, -EPERM);                                                    \
        EXPECT(strstr(said, "=-1"));                                                               \
        SAID(said);                                                                                \
        end();                                                                                     \
        close_loop();                                                                              \
    }
#define REFUSED(name, begin, end, comes, fails)                                                    \
    REFUSED_FOR_A_WHILE(name, begin, end, comes)                                                   \
    REFUSED_FOR_GOOD(name, begin, end, fails)

static void begin_read(void) {
    open_pair(NULL);
    peer_says("hello");
    await_op(casync_read_op(&a, &the_op, text, 5));
}
REFUSED(a_read, begin_read, close_pair, "done=5", "done=-28")

static void begin_read_until(void) {
    open_pair(NULL);
    peer_says("hello");
    await_op(casync_read_until_op(&a, &the_op, "o", 1));
}
REFUSED(a_read_of_a_frame, begin_read_until, close_pair, "done=5", "done=-28")

static void begin_protocol(void) {
    protocol = saying_protocol();
    open_pair(&protocol);
    peer_says("hello");
}
REFUSED(a_protocol, begin_protocol, close_pair, "hello", "lost=-28")

static void begin_drain(void) {
    open_pair(NULL);
    EQ(casync_set_write_limits(&a, 0, 0), 0);
    fill(&a);
    await_op(casync_drain_op(&a, &the_op));
    drain_descriptor(peer);
}
REFUSED(a_drain, begin_drain, close_pair, "done=0", "done=-28")

static void begin_finish(void) {
    open_pair(NULL);
    fill(&a);
    await_op(casync_finish_op(&a, &the_op));
    drain_descriptor(peer);
}
REFUSED(a_finish, begin_finish, close_pair, "done=0", "done=-28")

static void begin_accept(void) {
    listen_somewhere(NULL, false);
    connect_client();
    await_op(casync_accept_op(&server, &the_op, &a));
}

REFUSED(an_accept, begin_accept, end_accept, "done=0", "done=-28")

REFUSED_FOR_A_WHILE(a_server, begin_server, end_accept, "made")

static void begin_connect(void) {
    listen_somewhere(NULL, true);
    client = dup(0); /* nobody else connects */
    await_op(casync_connect_op(&loop, &a, &the_op, &connect_desc));
}
REFUSED(a_connect, begin_connect, end_accept, "done=0", "done=-28")

static void begin_connect_with_protocol(void) {
    protocol = saying_protocol();
    connect_desc.protocol = &protocol;
    listen_somewhere(NULL, true);
    client = dup(0);
    EQ(casync_connect_start(&loop, &a, &connect_desc), 0);
}
REFUSED(a_protocol_that_connects, begin_connect_with_protocol, end_accept, "made", "lost=-28")

static void begin_receive(void) {
    open_datagram_pair();
    peer_says("hello");
    await_op(casync_datagram_receive_op(&here, &the_op, text, sizeof text, NULL));
}
REFUSED(a_receive, begin_receive, close_datagram, "done=5", "done=-28")

static void begin_send(void) {
    open_datagram_pair();
    while (casync_datagram_try_write(&here, "another", 7, NULL) > 0) continue;
    await_op(casync_datagram_send_op(&here, &the_op, "hello", 5, NULL));
    drain_descriptor(peer);
}
REFUSED(a_send, begin_send, close_datagram, "done=5", "done=-28")

static void begin_datagram_protocol(void) {
    datagram_protocol.datagram_received = said_datagram;
    datagram_protocol.error_received = said_datagram_error;
    open_datagram_pair();
    peer_says("hello");
}
REFUSED_FOR_A_WHILE(a_datagram_protocol, begin_datagram_protocol, close_datagram, "received")

/* Who comes second to a descriptor: the first interest is told to the kernel at once, this one
   later. */
static casync_op earlier;
static int waited_for;

static void begin_second_wait(void) {
    int fds[2];
    make_socketpair(fds);
    peer = fds[1];
    waited_for = fds[0];
    (void)casync_wait_readable_op(&loop, &earlier, waited_for);
    await_op(casync_wait_writable_op(&loop, &the_op, waited_for));
}

static void end_second_wait(void) {
    casync_future_close(&earlier.future);
    casync_future_close(&the_op.future);
    close(waited_for);
    close(peer);
}
REFUSED(a_second_wait, begin_second_wait, end_second_wait, "done=0", "done=-28")

TEST(a_foreign_loop_does_not_wait_long_for_what_was_refused) {
    open_refused_loop();
    begin_read();
    fail_calls("epoll_ctl", 0, 1, -ENOMEM);
    EXPECT(casync_loop_timeout(&loop) <= CASYNC_MS(100));
    SAID("exception=-12");
    EQ(casync_loop_timeout(&loop), CASYNC_FOREVER); /* it is not refused any more */
    EQ(casync_run_nowait(&loop), 0);
    last_failed[0] = 0;
    run_until_said("done=5");
    close_pair();
    close_loop();
}

/* A file that was closed while a duplicate lives, and an instance that cannot be made anew: the
   loop is woken for nothing again and again, which somebody should know. */
TEST(an_event_that_cannot_be_ended_is_told_once) {
    casync_watcher watcher = ZERO;
    int fds[2], duplicate;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    make_pipe(fds);
    put_byte(fds[1]);
    EQ(casync_add_reader(&loop, &watcher, fds[0], never, NULL), 0);
    duplicate = dup(fds[0]);
    close(fds[0]);
    EQ(casync_remove_reader(&watcher), 1);
    fail_calls("epoll_create", 0, FOR_GOOD, -EMFILE);
    turns(20);
    SAID("exception=-24");
    fault.count = 0;
    close(duplicate);
    close(fds[1]);
    turns(2);
    close_loop();
}

/* >> an epoll instance made anew -------------------------------------------------------------- */

static bool refuse_wakeup;

static int64_t refuse_wakeup_in_epoll_ctl(int epfd, int operation, int fd,
                                          casync__epoll_event *event) {
    if (refuse_wakeup && fd == loop.wakeup_fd) return -ENOMEM;
    return casync__direct_epoll_ctl(epfd, operation, fd, event);
}

static void *post_stop(void *arg) {
    (void)arg;
    EQ(casync_call_soon_threadsafe(&loop, NULL, stop_loop, NULL), 0);
    return NULL;
}

TEST(wakeups_survive_a_new_epoll_instance_that_could_not_be_made) {
    casync_watcher watcher = ZERO;
    pthread_t thread;
    int fds[2], dup_fd;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    make_pipe(fds);
    put_byte(fds[1]);
    EQ(casync_add_reader(&loop, &watcher, fds[0], never, NULL), 0);
    dup_fd = dup(fds[0]);
    close(fds[0]);
    casync_remove_reader(&watcher); /* too late: the next event is stale */
    casync_syscalls.epoll_ctl = refuse_wakeup_in_epoll_ctl;
    refuse_wakeup = true;
    (void)casync_run_nowait(&loop);
    (void)casync_run_nowait(&loop);
    SAID("exception=-12"); /* once */
    refuse_wakeup = false;
    thread = start_thread(post_stop, NULL);
    EQ(casync_run_forever(&loop), 0);
    join_thread(thread);
    close(dup_fd);
    close(fds[1]);
    close_loop();
}

static void remake_without_descriptors(void) {
    int64_t result;
    fail_calls("epoll_create", 0, 1, -EMFILE);
    EQ(casync_loop_fork(&loop), -EMFILE);
    result = casync_loop_fork(&loop); /* of no use, or made after all; but then it works */
    EQ(casync_run_nowait(&loop) < 0, result < 0);
    EQ(casync_loop_close(&loop), 0);
    _exit(0);
}

TEST(a_loop_that_could_not_be_made_anew_is_not_said_to_be_fine) {
    pid_t pid;
    skip_under_qemu("qemu-user does not zero pages in a child");
    open_loop(CASYNC_CLOCK_MONOTONIC);
    pid = fork_child();
    if (pid == 0) remake_without_descriptors();
    EQ(child_status(pid), 0);
    close_loop();
}

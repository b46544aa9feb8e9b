/* >> streams: opening, and what is as it was when they are closed. */
#include "streams_fixture.h"

static casync_protocol protocol;
static casync_stream_options options;

/* >> opening ---------------------------------------------------------------------------------- */

TEST(open_takes_a_descriptor_as_its_own) {
    int fds[2];
    EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    peer = fds[1];
    open_loop(CASYNC_CLOCK_MONOTONIC);
    descriptors_before--;
    protocol = saying_protocol();
    options.user = &protocol;
    EXPECT(!casync_stream_is_open(&a));
    EQ(casync_stream_open(&loop, &a, fds[0], &protocol, &options), 0);
    EXPECT(casync_stream_is_open(&a));
    EQ(a.endpoint.watcher.fd, fds[0]);
    PTR_EQ(a.user, &protocol);
    PTR_EQ(a.protocol, &protocol);
    EXPECT(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
    EXPECT(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
    turn();
    SAID(""); /* no connection_made: it was open when the call returned */
    casync_close(&a);
    EXPECT(!casync_stream_is_open(&a));
    peer_hears_the_end();
    close(peer);
    descriptors_before--;
    close_loop();
}

TEST(open_errors_change_nothing) {
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), fds[2];
    casync_framing framing = ZERO;
    casync_watcher watcher = ZERO;
    casync_loop closed = ZERO;
    make_socketpair(fds);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_stream_open(&loop, &a, file, NULL, NULL), -EPERM);
    EQ(casync_stream_open(&loop, &a, -1, NULL, NULL), -EBADF);
    EQ(casync_stream_open(&loop, &a, 1000, NULL, NULL), -EBADF);
    EQ(casync_stream_open(&closed, &a, fds[0], NULL, NULL), -EINVAL);
    EQ(casync_add_reader(&loop, &watcher, fds[0], never, NULL), 0);
    EQ(casync_stream_open(&loop, &a, fds[0], NULL, NULL), -EEXIST);
    EQ(casync_remove_reader(&watcher), 1);
    options.low_water = 10;
    options.high_water = 9;
    EQ(casync_stream_open(&loop, &a, fds[0], NULL, &options), -EINVAL);
    memset(&options, 0, sizeof options);
    options.framing = &framing; /* of no kind */
    EQ(casync_stream_open(&loop, &a, fds[0], NULL, &options), -EINVAL);
    EXPECT(!casync_stream_is_open(&a));
    EXPECT(!casync_loop_alive(&loop));
    EQ(write(fds[0], "x", 1), 1); /* it stayed open, and ours */

    EQ(casync_stream_open(&loop, &a, fds[0], NULL, NULL), 0);
    EQ(casync_stream_open(&loop, &a, fds[1], NULL, NULL), -EALREADY);
    EQ(casync_stream_open(&loop, &b, fds[0], NULL, NULL), -EEXIST);
    EQ(a.endpoint.watcher.fd, fds[0]);
    casync_close(&a);
    close(fds[1]);
    close(file);
    descriptors_before -= 3;
    close_loop();
}

TEST(a_kept_descriptor_is_not_closed) {
    int fds[2];
    make_socketpair(fds);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    options.keep_fd = true;
    EQ(casync_stream_open(&loop, &a, fds[0], NULL, &options), 0);
    casync_close(&a);
    EQ(write(fds[0], "x", 1), 1);
    EQ(casync_stream_open(&loop, &a, fds[0], NULL, &options), 0);
    EQ(result_of(casync_finish_op(&a, &the_op)), 0);
    EQ(write(fds[0], "x", 1), 1);
    close_loop();
    close_both(fds);
}

TEST(pairs_are_joined) {
    char text[8] = "";
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_socketpair(&loop, &a, &b, NULL, NULL), 0);
    EQ(write_text(&a, "to b"), 4);
    EQ(result_of(casync_read_op(&b, &the_op, text, sizeof text)), 4);
    STR_EQ(text, "to b");
    EQ(write_text(&b, "to a"), 4);
    EQ(result_of(casync_read_op(&a, &the_op, text, sizeof text)), 4);
    STR_EQ(text, "to a");
    EQ(casync_socketpair(&loop, &a, &b, NULL, NULL), -EALREADY);
    casync_close(&a);
    casync_close(&b);

    EQ(casync_pipe(&loop, &a, &b, NULL, NULL), 0);
    EQ(write_text(&b, "pipe"), 4);
    EQ(result_of(casync_read_op(&a, &the_op, text, sizeof text)), 4);
    STR_EQ(text, "pipe");
    casync_close(&a);
    casync_close(&b);
    forbid_descriptors();
    EQ(casync_socketpair(&loop, &a, &b, NULL, NULL), -EMFILE);
    EQ(casync_pipe(&loop, &a, &b, NULL, NULL), -EMFILE);
    allow_descriptors();
    close_loop();
}

TEST(without_memory_a_pair_is_not_opened) {
    int64_t n;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    for (n = 1;; n++) {
        int64_t result;
        fail_allocation(n, 1);
        result = casync_socketpair(&loop, &a, &b, NULL, NULL);
        fail_no_allocation();
        if (result == 0) break;
        EQ(result, -ENOMEM);
        EXPECT(!casync_stream_is_open(&a) && !casync_stream_is_open(&b));
        EQ(open_descriptors(), descriptors_before + 2);
    }
    EXPECT(n > 1);
    casync_close(&a);
    casync_close(&b);
    close_loop();
}

static char text[256];

TEST(an_operation_of_a_stream_that_was_never_opened_fails) {
    static casync_stream never_opened;
    EQ(casync_read_op(&never_opened, &the_op, text, 1)->state, CASYNC_FUTURE_FAILED);
    EQ(casync_future_result(&the_op.future), CASYNC_INVALID_STATE);
    casync_future_close(&the_op.future);
    EQ(casync_future_result(casync_finish_op(&never_opened, &the_op)), CASYNC_INVALID_STATE);
    casync_future_close(&the_op.future);
    EQ(casync_future_result(casync_drain_op(&never_opened, &the_op)), CASYNC_INVALID_STATE);
    casync_future_close(&the_op.future);
}

/* >> ref -------------------------------------------------------------------------------------- */

TEST(an_unreferenced_stream_keeps_nothing_running) {
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    EXPECT(casync_loop_alive(&loop));
    casync_stream_ref(&a, false);
    EXPECT(!casync_loop_alive(&loop));
    EQ(casync_run_until_idle(&loop), 0);
    peer_says("works");
    turns(2);
    SAID("works");
    casync_stream_ref(&a, true);
    EXPECT(casync_loop_alive(&loop));
    casync_close(&a);
    EXPECT(!casync_loop_alive(&loop));
    close_with_peer();
}

/* >> descriptors that were there before ------------------------------------------------------- */

TEST(typing_at_a_terminal_that_is_written_to_does_not_end_it) {
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC), slave;
    if (master < 0) SKIP("no pseudo terminal here");
    EQ(grantpt(master), 0);
    EQ(unlockpt(master), 0);
    slave = open(ptsname(master), O_WRONLY | O_NOCTTY | O_CLOEXEC);
    EXPECT(slave >= 0);
    protocol = saying_protocol();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_stream_open(&loop, &a, slave, &protocol, NULL), 0);
    EQ(write(master, "typed\n", 6), 6);
    turns(5);
    EXPECT(!strstr(said, "lost=0"));
    said_size = 0;
    said[0] = 0;
    casync_close(&a);
    descriptors_before--;
    close_loop();
    close(master);
}

TEST(a_kept_descriptor_blocks_again_if_it_did) {
    int fds[2];
    EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    options.keep_fd = true;
    EQ(casync_stream_open(&loop, &a, fds[0], NULL, &options), 0);
    EXPECT(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
    casync_close(&a);
    EXPECT(!(fcntl(fds[0], F_GETFL) & O_NONBLOCK));
    close_loop();
    close_both(fds);
}

/* >> streams: what the kernel refuses, and what no memory has room for. */
#include "refusals_fixture.h"

/* >> reading and writing ---------------------------------------------------------------------- */

TEST(a_descriptor_is_not_passed_with_the_error_told) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_pair(NULL);
    fail_calls("getsockopt", 0, 1, -ENOBUFS);
    EQ(casync_send_fd(&a, 0, "x", 1), -ENOBUFS);
    EQ(casync_send_fd(&a, 0, "x", 1), 1);
    close_pair();
    close_loop();
}

TEST(an_end_that_cannot_be_sent_ends_the_stream) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    protocol = saying_protocol();
    open_pair(&protocol);
    fail_calls("shutdown", 0, 1, -ENOBUFS);
    (void)casync_write_eof(&a);
    run_until_said("lost=-105");
    close_pair();
    open_pair(&protocol);
    fail_calls("shutdown", 0, 1, -ENOTCONN); /* the other side is gone, which reading tells */
    EQ(casync_write_eof(&a), 0);
    turns(3);
    SAID("");
    close(peer);
    run_until_said("eof lost=0");
    peer = dup(0);
    close_pair();
    close_loop();
}

/* >> calls that a sandbox does not know ------------------------------------------------------- */

TEST(a_pipe_is_written_where_pwritev2_is_not_allowed) {
    signal(SIGPIPE, SIG_DFL);
    fail_calls("pwritev2", 0, FOR_GOOD, -EPERM);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_pipe(&loop, &a, &b, NULL, NULL), 0);
    EQ(write_text(&b, "hello"), 5);
    casync_close(&a);
    EQ(write_text(&b, "hello"), -EPIPE);
    casync_close(&b);
    EQ(calls("writev"), 2);
    close_loop();
}

static int64_t refuse_writev(int fd, const struct iovec *spans, int count) {
    (void)fd, (void)spans, (void)count;
    return -EPERM;
}

TEST(a_pipe_that_may_not_be_written_at_all_says_so) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_pipe(&loop, &a, &b, NULL, NULL), 0);
    fail_calls("pwritev2", 0, 1, -EPERM);
    casync_syscalls.writev = refuse_writev;
    EQ(write_text(&b, "hello"), -EPERM);
    casync_close(&a);
    casync_close(&b);
    close_loop();
}

/* >> descriptors that cannot be prepared ------------------------------------------------------ */

/* A descriptor that might hold up the loop, or reach other programs, is none for the loop: it stays
   the caller's. */
static void expect_refused_stream(int fd) {
    EQ(casync_stream_open(&loop, &a, fd, NULL, NULL), -EACCES);
    EXPECT(!casync_stream_is_open(&a));
    PTR_EQ(casync_watcher_find(&loop, fd), NULL);
    EXPECT(fcntl(fd, F_GETFD) >= 0);
}

TEST(a_descriptor_that_cannot_be_prepared_is_no_stream) {
    static const int commands[] = {F_GETFL, F_SETFL, F_SETFD};
    size_t i;
    for (i = 0; i < 3; i++) {
        int fds[2];
        open_loop(CASYNC_CLOCK_MONOTONIC);
        EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        refuse_fcntl(commands[i]);
        expect_refused_stream(fds[0]);
        close_both(fds);
        EQ(pipe(fds), 0);
        expect_refused_stream(fds[0]);
        expect_refused_stream(fds[1]);
        close_both(fds);
        close_loop();
    }
}

TEST(a_descriptor_that_cannot_be_looked_at_is_no_stream) {
    int fds[2];
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(pipe(fds), 0);
    fail_calls("fstat", 0, 1, -EACCES);
    expect_refused_stream(fds[1]);
    close_both(fds);
    close_loop();
}

/* >> frames when memory is short -------------------------------------------------------------- */

static size_t taken_by_the_kernel;

static int64_t take_a_part(int fd, const struct msghdr *message) {
    size_t first = message->msg_iov[0].iov_len, rest;
    int64_t sent, more;
    if (taken_by_the_kernel <= first)
        return casync__direct_send(fd, message->msg_iov[0].iov_base, taken_by_the_kernel);
    rest = taken_by_the_kernel - first;
    sent = casync__direct_send(fd, message->msg_iov[0].iov_base, first);
    if (sent < 0) return sent;
    more = casync__direct_send(fd, message->msg_iov[1].iov_base, rest);
    return more < 0 ? more : sent + more;
}

/* A frame of which a part is sent cannot be left at that. */
TEST(a_frame_that_cannot_be_queued_ends_the_stream) {
    casync_framing framing;
    memset(&framing, 0, sizeof framing);
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = 8;
    for (taken_by_the_kernel = 1; taken_by_the_kernel < 15; taken_by_the_kernel++) {
        open_loop(CASYNC_CLOCK_MONOTONIC);
        protocol = saying_protocol();
        open_pair(&protocol);
        casync_syscalls.sendmsg = take_a_part;
        fail_allocation(1, 1);
        EQ(casync_write_frame(&a, &framing, "payload", 7), -ENOMEM);
        fail_no_allocation();
        EXPECT(!casync_stream_is_open(&a));
        run_until_said("lost=-12");
        close(peer);
        casync_syscalls.sendmsg = casync__direct_sendmsg;
        close_loop();
    }
}

/* If none of it is sent, nothing has happened. */
TEST(a_frame_of_which_nothing_was_sent_may_be_tried_again) {
    casync_framing framing;
    memset(&framing, 0, sizeof framing);
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = 1;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_pair(NULL);
    fail_calls("sendmsg", 0, 1, -EAGAIN);
    fail_allocation(1, 1);
    EQ(casync_write_frame(&a, &framing, "payload", 7), -ENOMEM);
    fail_no_allocation();
    EQ(casync_write_frame(&a, &framing, "payload", 7), 7);
    peer_hears("\007payload");
    casync_close(&a);
    close(peer);
    close_loop();
}

/* >> lengths that no memory has --------------------------------------------------------------- */

TEST(bytes_longer_than_memory_are_not_written) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    /* of what is not sent in the end */
    casync_set_exception_handler(&loop, ignore_exception, NULL);
    open_pair(NULL);
    fill(&a); /* so that the kernel is not asked */
    make_wrapping_spans();
    EQ(casync_writev(&a, wrapping, 2), -EINVAL);
    EQ(casync_write(&a, text, SIZE_MAX), -EINVAL);
    EQ(casync_write_ref(&a, text, SIZE_MAX, never, NULL), -EINVAL);
    EQ(casync_send_fd(&a, 0, text, SIZE_MAX), -EINVAL);
    EXPECT(casync_stream_is_open(&a));
    casync_close_reset(&a);
    close(peer);
    close_loop();
}

TEST(bytes_longer_than_memory_are_not_sent) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_pair(NULL);
    make_wrapping_spans();
    forget_calls();
    install_faults();
    EQ(casync_writev(&a, wrapping, 2), -EINVAL);
    EQ(casync_write(&a, text, SIZE_MAX), -EINVAL);
    EQ(casync_try_write(&a, text, SIZE_MAX), -EINVAL);
    EQ(calls("send") + calls("sendmsg"), 0);
    EXPECT(casync_stream_is_open(&a));
    casync_close(&a);
    close(peer);
    close_loop();
}

TEST(bytes_longer_than_memory_are_not_queued) {
    casync_allocator allocator = test_allocator();
    casync_outbuf out;
    make_wrapping_spans();
    casync_outbuf_init(&out, &allocator);
    EXPECT(casync_outbuf_append(&out, wrapping, 2) < 0);
    EXPECT(casync_outbuf_append(&out, wrapping, 1) < 0);
    EXPECT(casync_outbuf_append_ref(&out, text, SIZE_MAX, never, NULL) < 0);
    EQ(out.size, 0);
    EQ(casync_outbuf_append_ref(&out, text, PTRDIFF_MAX, NULL, NULL), 0);
    EXPECT(casync_outbuf_append_ref(&out, text, PTRDIFF_MAX, never, NULL) < 0); /* in sum */
    EQ(out.size, PTRDIFF_MAX);
    casync_outbuf_clear(&out);
    EQ(memory.live, 0);
}

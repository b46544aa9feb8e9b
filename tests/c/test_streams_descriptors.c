/* >> streams: descriptors are passed with bytes and with frames. */
#include "streams_fixture.h"

static char text[256];

/* >> with frames ------------------------------------------------------------------------------ */

static char block[1 << 20];
static casync_framing framing;

static void frame_by_length(void) {
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = 4;
}

enum { PASSED = 7 };
static int pipes[PASSED][2];

static void open_pair_for_descriptors(void) {
    casync_stream_options options = ZERO;
    options.receive_fds = true;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_socketpair(&loop, &a, &b, NULL, &options), 0);
    frame_by_length();
}
static void close_pair_for_descriptors(void) {
    casync_close(&a);
    casync_close(&b);
    close_loop();
}
static void send_pipe(int i) {
    char frame[16];
    int size = snprintf(frame, sizeof frame, "frame %d", i);
    make_pipe(pipes[i]);
    EQ(casync_send_fd_frame(&b, pipes[i][0], &framing, frame, (size_t)size), size);
    EQ(close(pipes[i][0]), 0); /* it was duplicated */
}
/* The frame, and the descriptor that came with it: the other end of its pipe. */
static void expect_pipe(int i) {
    int fd;
    EQ(result_of(casync_read_frame_op(&a, &the_op, &framing)), 7);
    snprintf(text, sizeof text, "frame %d", i);
    MEM_EQ((const char *)the_op.future.ptr, text, 7);
    fd = (int)casync_receive_fd(&a);
    EXPECT(fd >= 0);
    put_byte(pipes[i][1]);
    get_byte(fd);
    close(fd);
    close(pipes[i][1]);
}

TEST(a_descriptor_is_passed_with_a_frame) {
    open_pair_for_descriptors();
    send_pipe(0);
    expect_pipe(0);
    EQ(casync_receive_fd(&a), -EAGAIN);
    close_pair_for_descriptors();
}

TEST(frames_and_their_descriptors_keep_their_order) {
    int i;
    open_pair_for_descriptors();
    for (i = 0; i < PASSED; i++) send_pipe(i);
    for (i = 0; i < PASSED; i++) expect_pipe(i);
    EQ(casync_receive_fd(&a), -EAGAIN);
    close_pair_for_descriptors();
}

/* Between others, all of which have to be queued. */
TEST(queued_frames_and_their_descriptors_keep_their_order) {
    int64_t before;
    int i;
    open_pair_for_descriptors();
    squeeze(&b);
    before = fill(&b);
    for (i = 0; i < PASSED; i++) {
        EQ(casync_write_frame(&b, &framing, "between", 7), 7);
        send_pipe(i);
    }
    while (before > 0)
        before -= result_of(
            casync_read_op(&a, &the_op, block, (size_t)(before < 10000 ? before : 10000)));
    for (i = 0; i < PASSED; i++) {
        EQ(result_of(casync_read_frame_op(&a, &the_op, &framing)), 7);
        MEM_EQ((const char *)the_op.future.ptr, "between", 7);
        expect_pipe(i);
    }
    close_pair_for_descriptors();
}

TEST(a_frame_without_bytes_may_carry_a_descriptor) {
    int fd;
    open_pair_for_descriptors();
    make_pipe(pipes[0]);
    EQ(casync_send_fd_frame(&b, pipes[0][0], &framing, NULL, 0), 0);
    EQ(result_of(casync_read_frame_op(&a, &the_op, &framing)), 0);
    fd = (int)casync_receive_fd(&a);
    EXPECT(fd >= 0);
    close(fd);
    close_both(pipes[0]);
    close_pair_for_descriptors();
}

TEST(frames_that_cannot_carry_a_descriptor_are_refused) {
    casync_framing fixed = ZERO;
    open_pair_for_descriptors();
    make_pipe(pipes[0]);
    EQ(casync_send_fd_frame(&b, -1, &framing, "x", 1), -EBADF);
    EQ(casync_send_fd_frame(NULL, pipes[0][0], &framing, "x", 1) < 0, true);
    EQ(casync_send_fd_frame(&b, pipes[0][0], NULL, "x", 1), -EINVAL);
    fixed.kind = CASYNC_FRAMING_FIXED;
    fixed.size = 4;
    EQ(casync_send_fd_frame(&b, pipes[0][0], &fixed, "four", 4), -EINVAL);
    framing.size = 1;
    EQ(casync_send_fd_frame(&b, pipes[0][0], &framing, block, 256), -EMSGSIZE);
    fail_allocation(1, 0);
    EQ(casync_send_fd_frame(&b, pipes[0][0], &framing, "x", 1), -ENOMEM);
    fail_no_allocation();
    EXPECT(casync_stream_is_open(&b));
    frame_by_length();
    send_pipe(1); /* nothing of these was sent */
    expect_pipe(1);
    EQ(casync_receive_fd(&a), -EAGAIN);
    close_both(pipes[0]);
    close_pair_for_descriptors();
}

TEST(a_pipe_passes_no_descriptor) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    frame_by_length();
    EQ(casync_pipe(&loop, &a, &b, NULL, NULL), 0);
    EQ(casync_send_fd_frame(&b, 0, &framing, "x", 1), -EOPNOTSUPP);
    close_pair_for_descriptors();
}

/* >> with bytes ------------------------------------------------------------------------------- */

static casync_stream_options options;

static casync_future *read_op(void) {
    memset(text, 0, sizeof text);
    return casync_read_op(&a, &the_op, text, sizeof text - 1);
}

static char large[100000];

TEST(descriptors_are_passed_with_bytes) {
    int pipe_ends[2], fd;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    options.receive_fds = true;
    EQ(casync_socketpair(&loop, &a, &b, NULL, &options), 0);
    EQ(casync_receive_fd(&a), -EAGAIN);
    make_pipe(pipe_ends);
    EQ(casync_send_fd(&b, pipe_ends[0], "fd", 2), 2);
    EQ(close(pipe_ends[0]), 0); /* it was duplicated */
    EQ(result_of(read_op()), 2);
    STR_EQ(text, "fd");
    fd = (int)casync_receive_fd(&a);
    EXPECT(fd >= 0);
    EXPECT(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    EQ(casync_receive_fd(&a), -EAGAIN);
    put_byte(pipe_ends[1]);
    get_byte(fd);
    close(fd);
    close(pipe_ends[1]);
    casync_close(&a);
    casync_close(&b);
    close_loop();
}

TEST(queued_descriptors_arrive_in_order) {
    int i, fds[5][2];
    int64_t before;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    options.receive_fds = true;
    EQ(casync_socketpair(&loop, &a, &b, NULL, &options), 0);
    squeeze(&b);
    before = fill(&b);
    for (i = 0; i < 5; i++) {
        make_pipe(fds[i]);
        EQ(casync_send_fd(&b, fds[i][0], "x", 1), 1);
        close(fds[i][0]);
    }
    while (before > 0)
        before -= result_of(
            casync_read_op(&a, &the_op, large, (size_t)(before < 100000 ? before : 100000)));
    EQ(before, 0);
    for (i = 0; i < 5; i++) {
        int fd;
        EQ(result_of(casync_read_op(&a, &the_op, text, 1)), 1);
        EQ(text[0], 'x');
        fd = (int)casync_receive_fd(&a);
        put_byte(fds[i][1]);
        get_byte(fd);
        close(fd);
        close(fds[i][1]);
    }
    casync_close(&a);
    casync_close(&b);
    close_loop();
}

TEST(descriptors_that_nobody_took_are_closed) {
    int pipe_ends[2];
    open_loop(CASYNC_CLOCK_MONOTONIC);
    options.receive_fds = true;
    EQ(casync_socketpair(&loop, &a, &b, NULL, &options), 0);
    make_pipe(pipe_ends);
    EQ(casync_send_fd(&b, pipe_ends[0], "1", 1), 1);
    EQ(casync_send_fd(&b, pipe_ends[0], "2", 1), 1);
    EQ(result_of(casync_read_exactly_op(&a, &the_op, text, 1)), 1);
    squeeze(&b);
    fill(&b);
    EQ(casync_send_fd(&b, pipe_ends[0], "3", 1), 1); /* queued, never sent */
    EQ(casync_send_fd(&b, -1, "3", 1), -EBADF);
    close_both(pipe_ends);
    casync_close(&a);
    casync_close(&b);
    SAID("exception=-103");
    EQ(casync_send_fd(&b, 0, "3", 1), CASYNC_INVALID_STATE);
    close_loop();
}

/* >> a peer that passes descriptors ----------------------------------------------------------- */

/* Sends one byte with as many descriptors as are taken with one read. */
static void peer_passes_descriptors(void) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control;
    struct msghdr message;
    struct iovec iov;
    char letter[] = "x";
    int fds[16], i;
    for (i = 0; i < 16; i++) fds[i] = peer;
    memset(&message, 0, sizeof message);
    memset(&control, 0, sizeof control);
    iov.iov_base = letter;
    iov.iov_len = 1;
    message.msg_iov = &iov;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    control.header.cmsg_len = CMSG_LEN(sizeof fds);
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(&control.header), fds, sizeof fds);
    EQ(sendmsg(peer, &message, MSG_NOSIGNAL), 1);
}

static int64_t close_received(void) {
    int64_t fd = casync_receive_fd(&a);
    if (fd >= 0) close((int)fd);
    return fd;
}

TEST(descriptors_that_are_not_taken_end_the_stream) {
    int i, before;
    int64_t result = 1;
    options.receive_fds = true;
    open_with_peer(NULL, &options);
    before = open_descriptors();
    for (i = 0; i < 100 && result == 1; i++) {
        peer_passes_descriptors();
        result = result_of(casync_read_op(&a, &the_op, text, 1));
        (void)close_received(); /* one of 16 */
        EXPECT(open_descriptors() - before <= 1000);
    }
    EXPECT(result < 0);
    EXPECT(!casync_stream_is_open(&a));
    close(peer);
    casync_close(&a);
    EQ(open_descriptors(), before - 2);
    close_loop();
}

TEST(descriptors_that_are_taken_may_come_for_ever) {
    int i, before;
    options.receive_fds = true;
    open_with_peer(NULL, &options);
    before = open_descriptors();
    for (i = 0; i < 100; i++) {
        int taken = 0;
        peer_passes_descriptors();
        EQ(result_of(casync_read_op(&a, &the_op, text, 1)), 1);
        while (close_received() >= 0) taken++;
        EQ(taken, 16);
    }
    EQ(open_descriptors(), before);
    close_with_peer();
}

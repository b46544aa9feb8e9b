/* >> whole transfers: write_all, time limits of what waits for streams and servers, descriptors
   with frames. */
#include "stream_support.h"

static char block[1 << 20], text[64];
static casync_server server;
static casync_listen_desc listen_desc;
static casync_framing framing;
static const void *data;

/* In a task `a` and `b` are joined; the clock jumps although descriptors are waited for. */
#define WITH_PAIR(name)                                                                            \
    static void with_pair_##name(void);                                                            \
    static int64_t main_of_##name(casync_loop *where, void *arg) {                                 \
        (void)where, (void)arg;                                                                    \
        with_pair_##name();                                                                        \
        return 0;                                                                                  \
    }                                                                                              \
    TEST(name) {                                                                                   \
        open_loop(CASYNC_CLOCK_VIRTUAL_FORCED);                                                    \
        EQ(casync_socketpair(&loop, &a, &b, NULL, NULL), 0);                                       \
        EQ(run_task(main_of_##name, NULL), 0);                                                     \
        casync_abort(&a);                                                                          \
        casync_close(&a);                                                                          \
        casync_close(&b);                                                                          \
        close_loop();                                                                              \
    }                                                                                              \
    static void with_pair_##name(void)

/* >> write_all -------------------------------------------------------------------------------- */

static size_t most_queued;
static int64_t reads_all(casync_loop *where, void *arg) {
    static char bytes[65536];
    int64_t n, total = 0;
    (void)where, (void)arg;
    while ((n = casync_read(&b, bytes, sizeof bytes)) > 0) {
        int64_t i;
        for (i = 0; i < n; i++) EQ((uint8_t)bytes[i], (uint8_t)((total + i) * 7 / 3));
        total += n;
        if (a.out.size > most_queued) most_queued = a.out.size;
    }
    return n < 0 ? n : total;
}
static void fill_block(void) {
    size_t i;
    for (i = 0; i < sizeof block; i++) block[i] = (char)(i * 7 / 3);
}

WITH_PAIR(write_all_sends_everything) {
    casync_task *reader = spawn(reads_all, NULL);
    fill_block();
    EQ(casync_write_all(&a, block, sizeof block), sizeof block);
    EQ(a.out.size, 0);
    EQ(casync_finish(&a), 0);
    EQ(casync_join(reader), sizeof block);
}

WITH_PAIR(write_all_queues_little_at_a_time) {
    casync_task *reader = spawn(reads_all, NULL);
    fill_block();
    EQ(casync_set_write_limits(&a, 10000, 5000), 0);
    EQ(casync_write_all(&a, block, sizeof block), sizeof block);
    EQ(casync_finish(&a), 0);
    EQ(casync_join(reader), sizeof block);
    EXPECT(most_queued <= 65536);
}

WITH_PAIR(write_all_waits_for_what_was_queued_before) {
    casync_task *reader = spawn(reads_all, NULL);
    fill_block();
    EQ(casync_write(&a, block, sizeof block - 5), sizeof block - 5);
    EXPECT(a.out.size > 0);
    EQ(casync_write_all(&a, block + sizeof block - 5, 5), 5);
    EQ(a.out.size, 0);
    EQ(casync_finish(&a), 0);
    EQ(casync_join(reader), sizeof block);
}

WITH_PAIR(write_all_of_nothing_waits_too) {
    casync_task *reader = spawn(reads_all, NULL);
    fill_block();
    EQ(casync_write_all(&a, NULL, 0), 0);
    EQ(casync_write(&a, block, sizeof block), sizeof block);
    EQ(casync_write_all(&a, NULL, 0), 0);
    EQ(a.out.size, 0);
    EQ(casync_finish(&a), 0);
    EQ(casync_join(reader), sizeof block);
}

static int64_t writes_all(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return casync_write_all(&a, block, sizeof block);
}
WITH_PAIR(a_cancelled_write_all_still_sends_what_was_queued) {
    casync_task *writer = spawn(writes_all, NULL), *reader;
    fill_block();
    EQ(casync_sleep(0), 0);
    EXPECT(a.out.size > 0);
    EQ(casync_task_cancel(writer), 1);
    EQ(casync_join(writer), -ECANCELED);
    reader = spawn(reads_all, NULL);
    EQ(casync_finish(&a), 0);
    EXPECT(casync_join(reader) > 0);
}

WITH_PAIR(write_all_hears_of_an_error) {
    casync_task *writer = spawn(writes_all, NULL);
    EQ(casync_sleep(0), 0);
    casync_close(&b);
    EQ(casync_join(writer), -EPIPE);
}

WITH_PAIR(write_all_hears_of_an_abort) {
    casync_task *writer = spawn(writes_all, NULL);
    EQ(casync_sleep(0), 0);
    EQ(casync_abort(&a), 0);
    EQ(casync_join(writer), -ECONNABORTED);
    EXPECT(casync_write_all(&a, "x", 1) < 0);
}

/* >> time limits ------------------------------------------------------------------------------ */

static int64_t begun;
static void begin(void) { begun = casync_time(&loop); }
static void expect_second(void) { EQ(casync_time(&loop) - begun, CASYNC_SECONDS(1)); }

WITH_PAIR(write_all_has_a_time_limit) {
    begin();
    EQ(casync_write_all_timeout(&a, block, sizeof block, CASYNC_SECONDS(1)), -ETIMEDOUT);
    expect_second();
    EXPECT(casync_stream_is_open(&a));
}
WITH_PAIR(write_all_in_time_gives_the_size) {
    EQ(casync_write_all_timeout(&a, "hello", 5, CASYNC_SECONDS(1)), 5);
    EQ(casync_read(&b, text, sizeof text), 5);
    MEM_EQ(text, "hello", 5);
}

WITH_PAIR(a_drain_has_a_time_limit) {
    EQ(casync_set_write_limits(&a, 0, 0), 0);
    fill(&a);
    begin();
    EQ(casync_drain_timeout(&a, CASYNC_SECONDS(1)), -ETIMEDOUT);
    expect_second();
    EXPECT(casync_stream_is_open(&a));
    while (a.out.size > 0) EXPECT(casync_read(&b, block, sizeof block) > 0);
    EQ(casync_drain_timeout(&a, CASYNC_SECONDS(1)), 0);
}

WITH_PAIR(a_finish_has_a_time_limit) {
    fill(&a);
    begin();
    EQ(casync_finish_timeout(&a, CASYNC_SECONDS(1)), -ETIMEDOUT);
    expect_second();
    EXPECT(!casync_stream_is_open(&a));
}
WITH_PAIR(a_finish_in_time_is_zero) {
    EQ(write_text(&a, "hello"), 5);
    EQ(casync_finish_timeout(&a, CASYNC_SECONDS(1)), 0);
    EXPECT(!casync_stream_is_open(&a));
    EQ(casync_read(&b, text, sizeof text), 5);
    EQ(casync_read(&b, text, sizeof text), 0);
}

static void frame_by_length(void) {
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = 4;
}
WITH_PAIR(reads_have_a_time_limit) {
    frame_by_length();
    begin();
    EQ(casync_read_timeout(&a, text, 1, CASYNC_SECONDS(1)), -ETIMEDOUT);
    expect_second();
    EQ(write_text(&b, "he"), 2);
    begin();
    EQ(casync_read_exactly_timeout(&a, text, 5, CASYNC_SECONDS(1)), -ETIMEDOUT);
    expect_second();
    begin();
    EQ(casync_read_until_timeout(&a, "\n", 1, &data, CASYNC_SECONDS(1)), -ETIMEDOUT);
    expect_second();
    begin();
    EQ(write_text(&b, "llo\n"), 4);
    EQ(casync_read_until_timeout(&a, "\n", 1, &data, CASYNC_SECONDS(1)), 6);
    MEM_EQ((const char *)data, "hello\n", 6);
}

WITH_PAIR(read_frame_has_a_time_limit_and_loses_nothing) {
    frame_by_length();
    EQ(casync_write(&b, "\0\0\0\5he", 6), 6);
    begin();
    EQ(casync_read_frame_timeout(&a, &framing, &data, CASYNC_SECONDS(1)), -ETIMEDOUT);
    expect_second();
    EQ(write_text(&b, "llo"), 3);
    EQ(casync_read_frame_timeout(&a, &framing, &data, CASYNC_SECONDS(1)), 5);
    MEM_EQ((const char *)data, "hello", 5);
}

static int64_t accepts(casync_loop *where, void *arg) {
    casync_connect_desc desc = ZERO;
    casync_address address;
    (void)arg;
    listen_desc.host = desc.host = "127.0.0.1";
    EQ(casync_listen(where, &server, &listen_desc), 0);
    begin();
    EQ(casync_accept_timeout(&server, &a, CASYNC_SECONDS(1)), -ETIMEDOUT);
    expect_second();
    EXPECT(!casync_stream_is_open(&a));
    EQ(casync_server_address(&server, &address), 0);
    desc.port = casync_address_port(&address);
    EQ(casync_connect_timeout(where, &b, &desc, CASYNC_FOREVER), 0);
    EQ(casync_accept_timeout(&server, &a, CASYNC_FOREVER), 0);
    EXPECT(casync_stream_is_open(&a));
    EQ(casync_server_wait_clients_timeout(&server, CASYNC_SECONDS(1)),
       0); /* an accepted one is not its own */
    return 0;
}
TEST(an_accept_has_a_time_limit) {
    open_loop(CASYNC_CLOCK_VIRTUAL_FORCED);
    EQ(run_task(accepts, NULL), 0);
    casync_close(&a);
    casync_close(&b);
    casync_server_close(&server);
    close_loop();
}

static int64_t expects_the_request_to_be_heard(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    frame_by_length();
    EQ(casync_read_frame_timeout(&a, &framing, &data, CASYNC_SECONDS(1)), -ECANCELED);
    return 0;
}
WITH_PAIR(a_request_to_cancel_is_not_taken_for_the_limit) {
    casync_task *task = spawn(expects_the_request_to_be_heard, NULL);
    EQ(casync_sleep(0), 0);
    EQ(casync_task_cancel(task), 1);
    EQ(casync_join(task), 0);
}

/* >> descriptors with frames ------------------------------------------------------------------ */

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

TEST_MAIN

/* >> streams: bytes in and out over sockets and pipes; what callers are told; how streams end. */
#include "stream_support.h"

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

/* >> protocols: reading ----------------------------------------------------------------------- */

TEST(a_protocol_is_given_bytes_and_the_end) {
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    peer_says("hello");
    run_until_said("hello");
    peer_says("again");
    run_until_said("again");
    EQ(shutdown(peer, SHUT_WR), 0);
    run_until_said("eof lost=0"); /* eof_received returned false */
    peer_hears_the_end();
    EXPECT(!casync_stream_is_open(&a));
    close_with_peer();
}

TEST(eof_received_may_keep_the_stream_for_writing) {
    protocol = saying_protocol();
    keep_open_at_eof = true;
    open_with_peer(&protocol, NULL);
    EQ(shutdown(peer, SHUT_WR), 0);
    run_until_said("eof");
    turns(3);
    SAID("");
    EQ(write_text(&a, "still here"), 10);
    peer_hears("still here");
    EQ(casync_finish_start(&a), 0);
    run_until_said("lost=0");
    close_with_peer();
}

TEST(without_eof_received_the_end_finishes_the_stream) {
    protocol = saying_protocol();
    protocol.eof_received = NULL;
    open_with_peer(&protocol, NULL);
    EQ(shutdown(peer, SHUT_WR), 0);
    run_until_said("lost=0");
    close_with_peer();
}

TEST(reading_can_be_paused_and_resumed) {
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    EQ(casync_pause_reading(&a), 0);
    EQ(casync_pause_reading(&a), 0);
    peer_says("waiting");
    turns(5);
    SAID("");
    EQ(casync_resume_reading(&a), 0);
    run_until_said("waiting");
    EQ(casync_resume_reading(&a), 0);
    close_with_peer();
    EQ(casync_pause_reading(&a), CASYNC_INVALID_STATE);
    EQ(casync_resume_reading(&a), CASYNC_INVALID_STATE);
}

TEST(a_stream_may_start_paused) {
    protocol = saying_protocol();
    options.start_paused = true;
    open_with_peer(&protocol, &options);
    peer_says("waiting");
    turns(5);
    SAID("");
    EQ(casync_resume_reading(&a), 0);
    run_until_said("waiting");
    close_with_peer();
}

static void say_and_pause(casync_stream *stream, casync_span data) {
    said_data(stream, data);
    EQ(casync_pause_reading(stream), 0);
}

TEST(no_data_comes_after_a_callback_has_paused) {
    casync_framing framing = ZERO;
    protocol = saying_protocol();
    protocol.data_received = say_and_pause;
    framing.kind = CASYNC_FRAMING_FIXED;
    framing.size = 1;
    options.framing = &framing;
    open_with_peer(&protocol, &options);
    peer_says("abc");
    run_until_said("a");
    turns(5);
    SAID("");
    EQ(casync_resume_reading(&a), 0);
    run_until_said("b");
    EQ(shutdown(peer, SHUT_WR), 0);
    EQ(casync_resume_reading(&a), 0);
    run_until_said("c");
    turns(5);
    SAID("");
    EQ(casync_resume_reading(&a), 0);
    run_until_said("eof lost=0");
    close_with_peer();
}

static casync_protocol other_protocol;

static void switch_protocol(casync_stream *stream, casync_span data) {
    said_data(stream, data);
    EQ(casync_set_protocol(stream, &other_protocol), 0);
}

static void shout(casync_stream *stream, casync_span data) {
    say(WORD("new:"));
    said_data(stream, data);
}

TEST(the_protocol_can_be_changed) {
    protocol = saying_protocol();
    other_protocol = saying_protocol();
    protocol.data_received = switch_protocol;
    other_protocol.data_received = shout;
    open_with_peer(&protocol, NULL);
    peer_says("one");
    run_until_said("one");
    peer_says("two");
    run_until_said("new: two");
    close_with_peer();
    EQ(casync_set_protocol(&a, &protocol), CASYNC_INVALID_STATE);
}

static void feed_myself(casync_stream *stream, casync_span data) {
    (void)data;
    (void)stream;
    put_byte(peer);
}

TEST(a_stream_that_is_always_readable_leaves_room_for_others) {
    protocol = saying_protocol();
    protocol.data_received = feed_myself;
    open_with_peer(&protocol, NULL);
    put_byte(peer);
    turns(100); /* each ends */
    EQ(casync_call_later(&loop, NULL, CASYNC_MS(1), stop_loop, NULL), 0);
    EQ(casync_run_forever(&loop), 0);
    close_with_peer();
}

/* >> buffered protocols ----------------------------------------------------------------------- */

static char own_buffer[64];
static size_t own_size;
static int buffers_lent;

static casync_buffer get_buffer(casync_stream *stream, int64_t size_hint) {
    casync_buffer buffer;
    (void)stream;
    (void)size_hint;
    buffer.ptr = own_buffer;
    buffer.len = own_size;
    EQ(buffers_lent++, 0);
    return buffer;
}

static void buffer_updated(casync_stream *stream, size_t size) {
    casync_span data;
    EQ(--buffers_lent, 0);
    data.ptr = own_buffer;
    data.len = size;
    if (size > 0) said_data(stream, data);
}

static void open_buffered(size_t size) {
    protocol = saying_protocol();
    protocol.data_received = NULL;
    protocol.get_buffer = get_buffer;
    protocol.buffer_updated = buffer_updated;
    own_size = size;
    open_with_peer(&protocol, NULL);
}

TEST(a_buffered_protocol_reads_into_its_own_memory) {
    open_buffered(sizeof own_buffer);
    peer_says("hello");
    run_until_said("hello");
    EQ(shutdown(peer, SHUT_WR), 0);
    run_until_said("eof lost=0");
    EQ(buffers_lent, 0);
    close_with_peer();
}

TEST(a_buffer_that_is_full_is_asked_for_again) {
    open_buffered(3);
    peer_says("abcdefgh");
    run_until_said("abc def gh");
    close_with_peer();
}

TEST(a_buffer_of_no_length_ends_the_stream) {
    open_buffered(0);
    peer_says("hello");
    run_until_said("lost=-105"); /* ENOBUFS */
    EQ(ENOBUFS, 105);
    close_with_peer();
}

static int asked;
static casync_buffer not_now(casync_stream *stream, int64_t size_hint) {
    casync_buffer buffer;
    if (++asked > 3) return get_buffer(stream, size_hint);
    buffers_lent++;
    buffer.ptr = CASYNC_NOT_NOW;
    buffer.len = 0;
    return buffer;
}

TEST(a_protocol_may_say_that_it_has_no_buffer_now) {
    open_buffered(6);
    protocol.get_buffer = not_now;
    peer_says("hello");
    run_until_said("hello");
    EQ(asked, 4);
    EXPECT(casync_stream_is_open(&a));
    close_with_peer();
}

static casync_buffer close_in_get_buffer(casync_stream *stream, int64_t size_hint) {
    casync_buffer buffer = get_buffer(stream, size_hint);
    casync_close(stream);
    return buffer;
}

static void close_in_buffer_updated(casync_stream *stream, size_t size) {
    buffer_updated(stream, size);
    casync_close(stream);
}

TEST(a_buffered_protocol_may_close_in_its_callbacks) {
    open_buffered(sizeof own_buffer);
    protocol.buffer_updated = close_in_buffer_updated;
    peer_says("hello");
    run_until_said("hello");
    EXPECT(!casync_stream_is_open(&a));
    turns(3);
    SAID("");
    close_with_peer();

    buffers_lent = 0;
    open_buffered(sizeof own_buffer);
    protocol.get_buffer = close_in_get_buffer;
    peer_says("hello");
    turns(3);
    SAID("");
    EXPECT(!casync_stream_is_open(&a));
    close_with_peer();
}

/* >> framing ---------------------------------------------------------------------------------- */

static casync_framing framing;

static void open_framed(int kind, size_t size, const char *delimiter) {
    framing.kind = kind;
    framing.size = size;
    framing.delimiter = delimiter;
    options.framing = &framing;
    protocol = saying_protocol();
    open_with_peer(&protocol, &options);
}

static void say_byte_by_byte(const char *text) {
    for (; *text; text++) {
        EQ(write(peer, text, 1), 1);
        turn();
    }
}

TEST(fixed_frames) {
    open_framed(CASYNC_FRAMING_FIXED, 3, NULL);
    peer_says("abcdefg");
    run_until_said("abc def");
    say_byte_by_byte("hijk");
    run_until_said("ghi");
    close_with_peer();
}

TEST(delimited_frames) {
    open_framed(CASYNC_FRAMING_DELIMITER, 2, "\r\n");
    peer_says("one\r\ntwo\r\n\r\nth");
    run_until_said("one\r\n two\r\n \r\n");
    say_byte_by_byte("ree\r\n");
    run_until_said("three\r\n");
    say_byte_by_byte("a\rb\r\r\nc");
    run_until_said("a\rb\r\r\n");
    close_with_peer();
}

TEST(length_frames) {
    open_framed(CASYNC_FRAMING_LENGTH, 1, NULL);
    peer_says("\3abc\1d\5ef");
    run_until_said("abc d");
    say_byte_by_byte("ghi\2jk");
    run_until_said("efghi jk");
    close_with_peer();
}

static int64_t frames_seen, frame_bytes;

static void check_frame(casync_stream *stream, casync_span data) {
    const unsigned char *bytes = (const unsigned char *)data.ptr;
    size_t i;
    (void)stream;
    for (i = 0; i < data.len; i++) EQ(bytes[i], (frames_seen + (int64_t)i) & 255);
    frame_bytes += (int64_t)data.len;
    frames_seen++;
}

static void exchange_frames(size_t prefix, bool little_endian) {
    static unsigned char data[70000];
    int64_t sent = 0, sent_bytes = 0;
    size_t i;
    memset(&framing, 0, sizeof framing);
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = prefix;
    framing.little_endian = little_endian;
    options.framing = &framing;
    options.read_limit = 70000;
    protocol = saying_protocol();
    protocol.data_received = check_frame;
    frames_seen = frame_bytes = 0;
    EQ(casync_socketpair(&loop, &a, &b, &protocol, &options), 0);
    squeeze(&a);
    while (sent < 300) {
        size_t size = (size_t)random_below(prefix == 1 ? 256 : random_below(10) ? 1000 : 65536);
        for (i = 0; i < size; i++) data[i] = (unsigned char)((uint64_t)sent + i);
        EQ(casync_write_frame(&a, &framing, data, size), size);
        sent++;
        sent_bytes += (int64_t)size;
        if (random_below(3) == 0) turn();
        said_size = 0; /* pause and resume */
        said[0] = 0;
    }
    while (frames_seen < sent) EQ(casync_run_once(&loop), 0);
    EQ(frame_bytes, sent_bytes);
    said_size = 0;
    said[0] = 0;
    casync_close(&a);
    casync_close(&b);
}

TEST(write_frame_puts_the_prefix_that_length_framing_reads) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    exchange_frames(1, false);
    exchange_frames(2, false);
    exchange_frames(2, true);
    exchange_frames(4, false);
    exchange_frames(4, true);
    exchange_frames(8, false);
    exchange_frames(8, true);
    close_loop();
}

TEST(the_prefix_is_in_network_order_unless_asked_otherwise) {
    open_with_peer(NULL, NULL);
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = 4;
    EQ(casync_write_frame(&a, &framing, "abc", 3), 3);
    {
        char raw[8];
        EQ(read(peer, raw, sizeof raw), 7);
        MEM_EQ(raw, "\0\0\0\3abc", 7);
        framing.little_endian = true;
        EQ(casync_write_frame(&a, &framing, "abc", 3), 3);
        EQ(read(peer, raw, sizeof raw), 7);
        MEM_EQ(raw, "\3\0\0\0abc", 7);
    }
    close_with_peer();
}

TEST(a_frame_that_its_prefix_cannot_hold_is_refused) {
    static char data[65536];
    open_with_peer(NULL, NULL);
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = 1;
    EQ(casync_write_frame(&a, &framing, data, 256), -EMSGSIZE);
    framing.size = 2;
    EQ(casync_write_frame(&a, &framing, data, 65536), -EMSGSIZE);
    framing.size = 3;
    EQ(casync_write_frame(&a, &framing, data, 1), -EINVAL);
    framing.kind = CASYNC_FRAMING_FIXED;
    EQ(casync_write_frame(&a, &framing, data, 1), -EINVAL);
    EQ(drain_descriptor(peer), 0);
    close_with_peer();
}

TEST(a_frame_over_the_limit_ends_a_protocols_stream) {
    options.read_limit = 8;
    open_framed(CASYNC_FRAMING_DELIMITER, 1, "\n");
    peer_says("1234567\n");
    run_until_said("1234567\n");
    peer_says("12345678\n");
    run_until_said("lost=-5003");
    close_with_peer();
    open_framed(CASYNC_FRAMING_LENGTH, 1, NULL);
    peer_says("\11");
    run_until_said("lost=-5003");
    close_with_peer();
}

TEST(a_limit_is_noticed_without_a_delimiter_too) {
    options.read_limit = 8;
    open_framed(CASYNC_FRAMING_DELIMITER, 1, "\n");
    say_byte_by_byte("1234567");
    SAID("");
    peer_says("8"); /* whatever comes now, no frame within the limit is possible */
    run_until_said("lost=-5003");
    close_with_peer();
}

/* >> operations: reading ---------------------------------------------------------------------- */

static char text[256];

static casync_future *read_op(void) {
    memset(text, 0, sizeof text);
    return casync_read_op(&a, &the_op, text, sizeof text - 1);
}

TEST(read_gives_what_there_is) {
    open_with_peer(NULL, NULL);
    peer_says("hello");
    EQ(result_of(read_op()), 5);
    STR_EQ(text, "hello");
    peer_says("abcdef");
    EQ(result_of(casync_read_op(&a, &the_op, text, 2)), 2);
    EQ(result_of(read_op()), 4);
    STR_EQ(text, "cdef");
    close_with_peer();
}

TEST(read_waits_for_the_first_byte) {
    casync_future *future;
    open_with_peer(NULL, NULL);
    future = read_op();
    turns(3);
    EXPECT(!casync_future_done(future));
    peer_says("late");
    EQ(result_of(future), 4);
    STR_EQ(text, "late");
    close_with_peer();
}

TEST(read_is_zero_at_the_end_again_and_again) {
    open_with_peer(NULL, NULL);
    peer_says("last");
    EQ(shutdown(peer, SHUT_WR), 0);
    EQ(result_of(read_op()), 4);
    EQ(result_of(read_op()), 0);
    EQ(result_of(read_op()), 0);
    EQ(write_text(&a, "answer"), 6);
    peer_hears("answer");
    close_with_peer();
}

TEST(one_read_at_a_time) {
    casync_op second;
    casync_future *first;
    open_with_peer(NULL, NULL);
    first = read_op();
    EQ(result_of(casync_read_op(&a, &second, text, 1)), -EBUSY);
    EQ(result_of(casync_read_until_op(&a, &second, "\n", 1)), -EBUSY);
    peer_says("mine");
    EQ(result_of(first), 4);
    close_with_peer();
}

/* With bytes that were not sent, which is told. */
static void close_losing(void) {
    casync_close(&a);
    SAID("exception=-103");
    close_with_peer();
}

TEST(bad_reads_are_refused) {
    static char delimiter[65];
    open_with_peer(NULL, NULL);
    EQ(result_of(casync_read_op(&a, &the_op, NULL, 5)), -EINVAL);
    EQ(result_of(casync_read_until_op(&a, &the_op, "", 0)), -EINVAL);
    EQ(result_of(casync_read_until_op(&a, &the_op, NULL, 1)), -EINVAL);
    EQ(result_of(casync_read_until_op(&a, &the_op, delimiter, 65)), -EINVAL);
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = 3;
    EQ(result_of(casync_read_frame_op(&a, &the_op, &framing)), -EINVAL);
    peer_says("fine");
    EQ(result_of(read_op()), 4);
    close_with_peer();
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    EQ(result_of(read_op()), CASYNC_INVALID_STATE);
    close_with_peer();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(result_of(read_op()), CASYNC_INVALID_STATE);
    close_loop();
}

TEST(read_exactly_gathers_pieces) {
    casync_future *future;
    open_with_peer(NULL, NULL);
    memset(text, 0, sizeof text);
    future = casync_read_exactly_op(&a, &the_op, text, 6);
    say_byte_by_byte("abcde");
    EXPECT(!casync_future_done(future));
    peer_says("fgh");
    EQ(result_of(future), 6);
    STR_EQ(text, "abcdef");
    EQ(result_of(read_op()), 2);
    STR_EQ(text, "gh");
    close_with_peer();
}

TEST(read_exactly_tells_an_end_inside_from_one_before) {
    open_with_peer(NULL, NULL);
    peer_says("abc");
    EQ(shutdown(peer, SHUT_WR), 0);
    EQ(result_of(casync_read_exactly_op(&a, &the_op, text, 6)), CASYNC_INCOMPLETE_READ);
    EQ(the_op.done, 3);
    MEM_EQ(text, "abc", 3);
    EQ(result_of(casync_read_exactly_op(&a, &the_op, text, 6)), CASYNC_EOF);
    EQ(the_op.done, 0);
    close_with_peer();
}

static void expect_bytes(casync_future *future, const char *expected) {
    run_until_done(future);
    EQ(casync_future_result(future), strlen(expected));
    MEM_EQ(future->ptr, expected, strlen(expected));
    casync_future_close(future);
}

TEST(read_until_gives_the_line_with_its_delimiter) {
    casync_future *future;
    open_with_peer(NULL, NULL);
    peer_says("one\r\ntwo\r\nrest");
    expect_bytes(casync_read_until_op(&a, &the_op, "\r\n", 2), "one\r\n");
    expect_bytes(casync_read_until_op(&a, &the_op, "\r\n", 2), "two\r\n");
    EQ(result_of(casync_read_op(&a, &the_op, text, 2)), 2);
    MEM_EQ(text, "re", 2);
    future = casync_read_until_op(&a, &the_op, "\r\n", 2);
    say_byte_by_byte("\r\r\n");
    expect_bytes(future, "st\r\r\n");
    close_with_peer();
}

TEST(read_until_tells_an_end_inside_from_one_before) {
    open_with_peer(NULL, NULL);
    peer_says("line\npart");
    EQ(shutdown(peer, SHUT_WR), 0);
    expect_bytes(casync_read_until_op(&a, &the_op, "\n", 1), "line\n");
    EQ(result_of(casync_read_until_op(&a, &the_op, "\n", 1)), CASYNC_INCOMPLETE_READ);
    EQ(result_of(read_op()), 4);
    STR_EQ(text, "part");
    EQ(result_of(casync_read_until_op(&a, &the_op, "\n", 1)), CASYNC_EOF);
    close_with_peer();
}

TEST(read_until_over_the_limit_leaves_the_bytes) {
    options.read_limit = 4;
    open_with_peer(NULL, &options);
    peer_says("123\n");
    expect_bytes(casync_read_until_op(&a, &the_op, "\n", 1), "123\n");
    peer_says("12345\n");
    EQ(result_of(casync_read_until_op(&a, &the_op, "\n", 1)), CASYNC_LIMIT_OVERRUN);
    EQ(result_of(read_op()), 6);
    STR_EQ(text, "12345\n");
    peer_says("67\n");
    expect_bytes(casync_read_until_op(&a, &the_op, "\n", 1), "67\n");
    close_with_peer();
}

TEST(read_frame_gives_a_frame) {
    open_with_peer(NULL, NULL);
    peer_says("\3abcdefg\nx");
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = 1;
    expect_bytes(casync_read_frame_op(&a, &the_op, &framing), "abc");
    framing.kind = CASYNC_FRAMING_FIXED;
    framing.size = 2;
    expect_bytes(casync_read_frame_op(&a, &the_op, &framing), "de");
    framing.kind = CASYNC_FRAMING_DELIMITER;
    framing.size = 1;
    framing.delimiter = "\n";
    expect_bytes(casync_read_frame_op(&a, &the_op, &framing), "fg\n");
    EQ(shutdown(peer, SHUT_WR), 0);
    EQ(result_of(casync_read_frame_op(&a, &the_op, &framing)), CASYNC_INCOMPLETE_READ);
    close_with_peer();
}

TEST(a_cancelled_read_takes_nothing) {
    casync_future *future;
    open_with_peer(NULL, NULL);
    future = read_op();
    EQ(casync_future_cancel(future), 1);
    EQ(result_of(future), -ECANCELED);
    peer_says("kept");
    turns(3);
    EQ(result_of(read_op()), 4);
    STR_EQ(text, "kept");
    future = casync_read_until_op(&a, &the_op, "\n", 1);
    peer_says("half ");
    turns(3);
    EQ(casync_future_cancel(future), 1);
    casync_future_close(future);
    peer_says("line\n");
    expect_bytes(casync_read_until_op(&a, &the_op, "\n", 1), "half line\n");
    close_with_peer();
}

TEST(closing_an_operations_future_ends_the_operation) {
    casync_future *future;
    open_with_peer(NULL, NULL);
    future = read_op();
    casync_future_close(future);
    peer_says("kept");
    EQ(result_of(read_op()), 4);
    close_with_peer();
}

TEST(close_fails_what_waits) {
    casync_op drain;
    casync_future *read_future, *drain_future;
    open_with_peer(NULL, NULL);
    squeeze(&a);
    EQ(casync_set_write_limits(&a, 0, 0), 0);
    fill(&a);
    read_future = read_op();
    drain_future = casync_drain_op(&a, &drain);
    EXPECT(!casync_future_done(read_future) && !casync_future_done(drain_future));
    casync_close(&a);
    EQ(result_of(read_future), -ECONNABORTED);
    EQ(result_of(drain_future), -ECONNABORTED);
    SAID("exception=-103");
    close_with_peer();
}

TEST(without_memory_a_read_fails_and_leaks_nothing) {
    int64_t n;
    for (n = 1; n < 6; n++) {
        int64_t result;
        open_with_peer(NULL, NULL);
        peer_says("line\nrest");
        fail_allocation(n, 1);
        result = result_of(casync_read_until_op(&a, &the_op, "\n", 1));
        fail_no_allocation();
        if (result < 0)
            EQ(result, -ENOMEM);
        else
            EQ(result, 5);
        close_with_peer();
    }
}

/* >> writing ---------------------------------------------------------------------------------- */

TEST(write_tries_the_socket_at_once) {
    open_with_peer(NULL, NULL);
    EQ(write_text(&a, "hello"), 5);
    EQ(a.out.size, 0);
    peer_hears("hello");
    EQ(casync_write(&a, NULL, 0), 0);
    close_with_peer();
}

TEST(writev_joins_spans) {
    casync_span spans[3];
    spans[0].ptr = "one ";
    spans[0].len = 4;
    spans[1].ptr = NULL;
    spans[1].len = 0;
    spans[2].ptr = "two";
    spans[2].len = 3;
    open_with_peer(NULL, NULL);
    EQ(casync_writev(&a, spans, 3), 7);
    peer_hears("one two");
    EQ(casync_writev(&a, spans, 0), 0);
    close_with_peer();
}

TEST(writev_takes_more_spans_than_the_kernel_does) {
    static casync_span spans[3000];
    static char many[3001], heard[3001];
    size_t i;
    for (i = 0; i < 3000; i++) {
        many[i] = (char)('a' + i % 26);
        spans[i].ptr = &many[i];
        spans[i].len = 1;
    }
    open_with_peer(NULL, NULL);
    EQ(casync_writev(&a, spans, 3000), 3000);
    for (i = 0; i < 3000;) {
        ssize_t n = read(peer, heard + i, sizeof heard - i);
        if (n > 0)
            i += (size_t)n;
        else
            turn();
    }
    STR_EQ(heard, many);
    close_with_peer();
}

TEST(what_the_socket_does_not_take_is_queued_and_sent_later) {
    int64_t written, heard = 0;
    open_with_peer(NULL, NULL);
    squeeze(&a);
    written = fill(&a);
    EXPECT(a.out.size > 0);
    while (heard < written) {
        heard += drain_descriptor(peer);
        turn();
    }
    EQ(heard, written);
    EQ(a.out.size, 0);
    close_with_peer();
}

TEST(try_write_queues_nothing) {
    open_with_peer(NULL, NULL);
    squeeze(&a);
    EQ(casync_try_write(&a, "hello", 5), 5);
    peer_hears("hello");
    fill(&a);
    EQ(casync_try_write(&a, "hello", 5), -EAGAIN);
    {
        size_t queued = a.out.size;
        EQ(casync_try_write(&a, "hello", 5), -EAGAIN);
        EQ(a.out.size, queued);
    }
    close_losing();
}

static char large[100000];

TEST(a_reference_is_released_when_it_is_sent) {
    open_with_peer(NULL, NULL);
    EQ(casync_write_ref(&a, "small", 5, release_says, WORD("released")), 5);
    SAID("released");
    peer_hears("small");
    squeeze(&a);
    EQ(casync_write_ref(&a, large, sizeof large, release_says, WORD("released")), sizeof large);
    SAID("");
    while (said_size == 0) {
        drain_descriptor(peer);
        turn();
    }
    SAID("released");
    close_with_peer();
}

TEST(a_reference_is_released_once_by_close_abort_and_errors) {
    casync_span more;
    more.ptr = "x";
    more.len = 1;
    open_with_peer(NULL, NULL);
    squeeze(&a);
    EQ(casync_write_ref(&a, large, sizeof large, release_says, WORD("closed")), sizeof large);
    EQ(casync_writev(&a, &more, 1), 1);
    casync_close(&a);
    SAID("closed exception=-103");
    close_with_peer();

    open_with_peer(NULL, NULL);
    squeeze(&a);
    EQ(casync_write_ref(&a, large, sizeof large, release_says, WORD("aborted")), sizeof large);
    EQ(casync_abort(&a), 0);
    turns(3);
    SAID("aborted");
    close_with_peer();

    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    squeeze(&a);
    EQ(casync_write_ref(&a, large, sizeof large, release_says, WORD("broken")), sizeof large);
    SAID("pause");
    close(peer);
    turns(5);
    EXPECT(strcmp(said, "broken lost=-32") == 0 || strcmp(said, "broken lost=-104") == 0);
    said_size = 0;
    said[0] = 0;
    peer = dup(0);
    close_with_peer();
}

TEST(a_write_that_fails_does_not_release) {
    open_with_peer(NULL, NULL);
    casync_close(&a);
    EQ(casync_write_ref(&a, large, sizeof large, never, NULL), CASYNC_INVALID_STATE);
    EQ(casync_write_ref(&a, "small", 5, never, NULL), CASYNC_INVALID_STATE);
    close_with_peer();
    open_with_peer(NULL, NULL);
    squeeze(&a);
    fill(&a);
    fail_allocation(1, 0);
    EQ(casync_write_ref(&a, large, sizeof large, never, NULL), -ENOMEM);
    fail_no_allocation();
    close_losing();
}

TEST(without_memory_a_write_takes_what_the_socket_took) {
    int64_t taken;
    open_with_peer(NULL, NULL);
    squeeze(&a);
    fail_allocation(1, 0);
    taken = casync_write(&a, large, sizeof large);
    EXPECT(taken > 0 && taken < (int64_t)sizeof large);
    EQ(a.out.size, 0);
    EQ(casync_write(&a, large, sizeof large), -ENOMEM);
    fail_no_allocation();
    EQ(drain_descriptor(peer), taken);
    EXPECT(casync_stream_is_open(&a));
    EQ(write_text(&a, "fine"), 4);
    peer_hears("fine");
    close_with_peer();
}

/* >> flow control ----------------------------------------------------------------------------- */

TEST(water_marks_pause_and_resume_with_hysteresis) {
    protocol = saying_protocol();
    options.high_water = 50000;
    options.low_water = 1000;
    open_with_peer(&protocol, &options);
    squeeze(&a);
    fill(&a);
    while (a.out.size <= 50000) {
        SAID("");
        EQ(casync_write(&a, large, 1000), 1000);
    }
    SAID("pause");
    EQ(casync_write(&a, large, 1000), 1000);
    SAID("");
    while (a.out.size > 1000) {
        SAID("");
        drain_descriptor(peer);
        turn();
    }
    SAID("resume");
    close_with_peer();
}

TEST(the_default_marks_are_asyncios) {
    open_with_peer(NULL, NULL);
    EQ(a.endpoint.high_water, 65536);
    EQ(a.endpoint.low_water, 16384);
    close_with_peer();
}

TEST(zero_limits_pause_at_the_first_queued_byte) {
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    squeeze(&a);
    EQ(casync_set_write_limits(&a, 0, 0), 0);
    EQ(write_text(&a, "sent at once"), 12);
    SAID("");
    fill(&a);
    SAID("pause");
    while (a.out.size > 0) {
        SAID("");
        drain_descriptor(peer);
        turn();
    }
    SAID("resume");
    close_with_peer();
}

TEST(new_limits_take_effect_at_once) {
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    squeeze(&a);
    fill(&a);
    SAID("");
    EQ(casync_set_write_limits(&a, 0, 0), 0);
    SAID("pause");
    EQ(casync_set_write_limits(&a, 1000000, 1000000), 0);
    SAID("resume");
    EQ(casync_set_write_limits(&a, 1, 2), -EINVAL);
    SAID("");
    EQ(a.endpoint.high_water, 1000000);
    close_losing();
}

TEST(drain_waits_while_writing_is_paused) {
    casync_op second;
    casync_future *first_future, *second_future;
    open_with_peer(NULL, NULL);
    EQ(result_of(casync_drain_op(&a, &the_op)), 0);
    squeeze(&a);
    EQ(casync_set_write_limits(&a, 0, 0), 0);
    fill(&a);
    first_future = casync_drain_op(&a, &the_op);
    second_future = casync_drain_op(&a, &second);
    turns(3);
    EXPECT(!casync_future_done(first_future));
    EXPECT(!casync_future_done(second_future));
    while (!casync_future_done(first_future)) {
        drain_descriptor(peer);
        turn();
    }
    EQ(result_of(first_future), 0);
    EQ(result_of(second_future), 0);
    close_with_peer();
}

TEST(a_cancelled_drain_changes_nothing_for_others) {
    casync_op second;
    casync_future *first_future, *second_future;
    open_with_peer(NULL, NULL);
    squeeze(&a);
    EQ(casync_set_write_limits(&a, 0, 0), 0);
    fill(&a);
    first_future = casync_drain_op(&a, &the_op);
    second_future = casync_drain_op(&a, &second);
    EQ(casync_future_cancel(first_future), 1);
    while (!casync_future_done(second_future)) {
        drain_descriptor(peer);
        turn();
    }
    EQ(result_of(second_future), 0);
    EQ(result_of(first_future), -ECANCELED);
    close_with_peer();
}

/* >> the end ---------------------------------------------------------------------------------- */

TEST(write_eof_sends_the_end_and_reading_goes_on) {
    open_with_peer(NULL, NULL);
    EQ(write_text(&a, "last"), 4);
    EQ(casync_write_eof(&a), 0);
    EQ(casync_write_eof(&a), 0);
    EQ(write_text(&a, "more"), -EPIPE);
    peer_hears("last");
    peer_hears_the_end();
    peer_says("answer");
    EQ(result_of(read_op()), 6);
    close_with_peer();
    EQ(casync_write_eof(&a), CASYNC_INVALID_STATE);
}

TEST(write_eof_comes_after_what_is_queued) {
    int64_t written, heard = 0;
    char byte;
    open_with_peer(NULL, NULL);
    squeeze(&a);
    written = fill(&a);
    EQ(casync_write_eof(&a), 0);
    while (heard < written) {
        heard += drain_descriptor(peer);
        turn();
    }
    EQ(read(peer, &byte, 1), 0);
    EXPECT(casync_stream_is_open(&a));
    close_with_peer();
}

TEST(finish_sends_what_is_queued_then_closes) {
    int64_t written, heard = 0;
    protocol = saying_protocol();
    options.high_water = 1 << 20;
    open_with_peer(&protocol, &options);
    squeeze(&a);
    written = fill(&a);
    EQ(casync_finish_start(&a), 0);
    EQ(casync_finish_start(&a), 0);
    EQ(write_text(&a, "more"), -EPIPE);
    peer_says("unheard");
    turns(3);
    SAID("");
    while (heard < written) {
        heard += drain_descriptor(peer);
        turn();
    }
    run_until_said("lost=0");
    EXPECT(!casync_stream_is_open(&a));
    EQ(heard, written);
    close_with_peer();
}

TEST(finish_op_is_done_when_the_stream_is_closed) {
    casync_future *future;
    open_with_peer(NULL, NULL);
    squeeze(&a);
    fill(&a);
    future = casync_finish_op(&a, &the_op);
    turns(3);
    EXPECT(!casync_future_done(future));
    while (!casync_future_done(future)) {
        drain_descriptor(peer);
        turn();
    }
    EQ(result_of(future), 0);
    EXPECT(!casync_stream_is_open(&a));
    EQ(result_of(casync_finish_op(&a, &the_op)), CASYNC_INVALID_STATE);
    EQ(casync_finish_start(&a), CASYNC_INVALID_STATE);
    close_with_peer();
}

TEST(finish_of_a_broken_stream_tells_the_error) {
    casync_future *future;
    open_with_peer(NULL, NULL);
    squeeze(&a);
    fill(&a);
    future = casync_finish_op(&a, &the_op);
    close(peer);
    EQ(result_of(future) < 0, true);
    EXPECT(!casync_stream_is_open(&a));
    peer = dup(0);
    close_with_peer();
}

TEST(abort_drops_what_is_queued_and_tells_by_the_queue) {
    protocol = saying_protocol();
    options.high_water = 1 << 20;
    open_with_peer(&protocol, &options);
    squeeze(&a);
    fill(&a);
    EQ(casync_abort(&a), 0);
    SAID("");
    EXPECT(!casync_stream_is_open(&a));
    EQ(casync_abort(&a), CASYNC_INVALID_STATE);
    turn();
    SAID("lost=-103");
    EQ(ECONNABORTED, 103);
    turns(3);
    SAID("");
    close_with_peer();
}

TEST(abort_ends_a_finish_that_takes_too_long) {
    protocol = saying_protocol();
    options.high_water = 1 << 20;
    open_with_peer(&protocol, &options);
    squeeze(&a);
    fill(&a);
    EQ(casync_finish_start(&a), 0);
    turns(2);
    EQ(casync_abort(&a), 0);
    run_until_said("lost=-103");
    close_with_peer();
}

TEST(after_close_no_callback_follows) {
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    peer_says("unheard");
    casync_close(&a);
    casync_close(&a);
    turns(3);
    SAID("");
    close_with_peer();
    open_with_peer(&protocol, NULL);
    EQ(casync_abort(&a), 0);
    casync_close(&a);
    turns(3);
    SAID("");
    close_with_peer();
}

TEST(a_closed_stream_can_be_opened_again) {
    int i;
    protocol = saying_protocol();
    for (i = 0; i < 3; i++) {
        open_with_peer(&protocol, NULL);
        peer_says("hello");
        run_until_said("hello");
        close_with_peer();
    }
}

TEST(close_of_a_zeroed_stream_does_nothing) {
    casync_stream zeroed = ZERO;
    casync_close(&zeroed);
    casync_close_reset(&zeroed);
    EXPECT(!casync_stream_is_open(&zeroed));
    EQ(casync_write(&zeroed, "x", 1), CASYNC_INVALID_STATE);
    EQ(casync_try_write(&zeroed, "x", 1), CASYNC_INVALID_STATE);
    EQ(casync_abort(&zeroed), CASYNC_INVALID_STATE);
    EQ(casync_finish_start(&zeroed), CASYNC_INVALID_STATE);
}

/* A stream on the heap that its callbacks close and free: use after free shows under ASan. */
static casync_stream *heap;
static const char *close_in;

static void close_and_free(const char *where) {
    if (strcmp(where, close_in) != 0) return;
    casync_close(heap);
    memset((void *)heap, 0xee, sizeof *heap);
    free(heap);
    heap = NULL;
    say(WORD(where));
}

static void data_closes(casync_stream *stream, casync_span data) {
    (void)stream;
    (void)data;
    close_and_free("data");
}
static bool eof_closes(casync_stream *stream) {
    (void)stream;
    close_and_free("eof");
    return false;
}
static void pause_closes(casync_stream *stream) {
    (void)stream;
    close_and_free("pause");
}
static void resume_closes(casync_stream *stream) {
    (void)stream;
    close_and_free("resume");
}
static void lost_closes(casync_stream *stream, int64_t error) {
    (void)stream;
    (void)error;
    close_and_free("lost");
}

static void open_heap(const char *where) {
    int fds[2];
    protocol = no_protocol();
    protocol.data_received = data_closes;
    protocol.eof_received = eof_closes;
    protocol.pause_writing = pause_closes;
    protocol.resume_writing = resume_closes;
    protocol.connection_lost = lost_closes;
    close_in = where;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    make_socketpair(fds);
    peer = fds[1];
    heap = (casync_stream *)calloc(1, sizeof *heap);
    EQ(casync_stream_open(&loop, heap, fds[0], &protocol, &options), 0);
}

TEST(a_stream_may_be_closed_and_freed_in_data_received) {
    open_heap("data");
    peer_says("hello");
    run_until_said("data");
    close_with_peer();
}

TEST(a_stream_may_be_closed_and_freed_in_data_received_of_a_frame) {
    framing.kind = CASYNC_FRAMING_FIXED;
    framing.size = 1;
    options.framing = &framing;
    open_heap("data");
    peer_says("several frames");
    run_until_said("data");
    close_with_peer();
}

TEST(a_stream_may_be_closed_and_freed_in_eof_received) {
    open_heap("eof");
    EQ(shutdown(peer, SHUT_WR), 0);
    run_until_said("eof");
    close_with_peer();
}

TEST(a_stream_may_be_closed_and_freed_in_pause_writing) {
    open_heap("pause");
    squeeze(heap);
    EQ(casync_write(heap, large, sizeof large), sizeof large);
    SAID("exception=-103 pause");
    turns(3);
    close_with_peer();
}

TEST(a_stream_may_be_closed_and_freed_in_resume_writing) {
    open_heap("resume");
    squeeze(heap);
    EQ(casync_write(heap, large, sizeof large), sizeof large);
    while (heap) {
        drain_descriptor(peer);
        turn();
    }
    SAID("exception=-103 resume");
    close_with_peer();
}

TEST(a_stream_may_be_freed_in_connection_lost) {
    open_heap("lost");
    EQ(casync_finish_start(heap), 0);
    run_until_said("lost");
    close_with_peer();
    open_heap("lost");
    EQ(casync_abort(heap), 0);
    run_until_said("lost");
    close_with_peer();
    open_heap("lost");
    EQ(shutdown(peer, SHUT_RDWR), 0);
    run_until_said("lost");
    close_with_peer();
}

static void reopen_in_lost(casync_stream *stream, int64_t error) {
    int fds[2];
    said_lost(stream, error);
    make_socketpair(fds);
    close(peer);
    peer = fds[1];
    protocol.connection_lost = said_lost;
    EQ(casync_stream_open(&loop, stream, fds[0], &protocol, NULL), 0);
}

TEST(a_stream_may_be_opened_again_in_connection_lost) {
    protocol = saying_protocol();
    protocol.connection_lost = reopen_in_lost;
    open_with_peer(&protocol, NULL);
    EQ(casync_abort(&a), 0);
    run_until_said("lost=-103");
    EXPECT(casync_stream_is_open(&a));
    peer_says("new life");
    run_until_said("new life");
    close_with_peer();
}

static void abort_in_data(casync_stream *stream, casync_span data) {
    said_data(stream, data);
    EQ(casync_abort(stream), 0);
}

static void finish_in_data(casync_stream *stream, casync_span data) {
    said_data(stream, data);
    EQ(write_text(stream, "bye"), 3);
    EQ(casync_finish_start(stream), 0);
}

TEST(a_callback_may_abort_or_finish) {
    protocol = saying_protocol();
    protocol.data_received = abort_in_data;
    open_with_peer(&protocol, NULL);
    peer_says("hello");
    run_until_said("hello lost=-103");
    close_with_peer();
    protocol.data_received = finish_in_data;
    open_with_peer(&protocol, NULL);
    peer_says("hello");
    run_until_said("hello lost=0");
    peer_hears("bye");
    peer_hears_the_end();
    close_with_peer();
}

/* >> errors of the other side ----------------------------------------------------------------- */

TEST(writing_to_a_stream_whose_other_side_is_gone_is_epipe_and_no_signal) {
    signal(SIGPIPE, SIG_DFL);
    protocol = saying_protocol();
    keep_open_at_eof = true;
    open_with_peer(&protocol, NULL);
    close(peer);
    EQ(write_text(&a, "hello"), -EPIPE);
    EXPECT(!casync_stream_is_open(&a));
    EQ(write_text(&a, "hello"), -EPIPE);
    run_until_said("lost=-32");
    EQ(EPIPE, 32);
    peer = dup(0);
    close_with_peer();
}

TEST(a_pipe_writer_whose_reader_is_gone_gets_epipe_and_no_signal) {
    int i;
    signal(SIGPIPE, SIG_DFL);
    protocol = saying_protocol();
    for (i = 0; i < 3; i++) {
        open_loop(CASYNC_CLOCK_MONOTONIC);
        EQ(casync_pipe(&loop, &a, &b, &protocol, NULL), 0);
        casync_close(&a);
        EQ(write_text(&b, "hello"), -EPIPE);
        run_until_said("lost=-32");
        close_loop();
    }
}

TEST(an_idle_pipe_writer_learns_that_its_reader_is_gone) {
    protocol = no_protocol();
    protocol.connection_lost = said_lost;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_pipe(&loop, &a, &b, &protocol, NULL), 0);
    turn();
    casync_close(&a);
    run_until_said("lost=0");
    close_loop();
}

TEST(a_pipe_is_finished_not_half_closed) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_pipe(&loop, &a, &b, NULL, NULL), 0);
    EQ(casync_write_eof(&b), -EOPNOTSUPP);
    EQ(write_text(&b, "last"), 4);
    EQ(result_of(casync_finish_op(&b, &the_op)), 0);
    EQ(result_of(read_op()), 4);
    EQ(result_of(read_op()), 0);
    casync_close(&a);
    close_loop();
}

/* >> addresses and options -------------------------------------------------------------------- */

TEST(addresses_of_a_pair_have_no_name) {
    casync_address address;
    char words[CASYNC_ADDRESS_TEXT];
    open_with_peer(NULL, NULL);
    EQ(casync_local_address(&a, &address), 0);
    PTR_EQ(casync_address_text(&address, words), words);
    STR_EQ(words, "");
    EQ(casync_address_port(&address), 0);
    EQ(casync_peer_address(&a, &address), 0);
    STR_EQ(casync_address_text(&address, words), "");
    EXPECT(casync_set_nodelay(&a, true) < 0); /* no TCP */
    EXPECT(casync_set_keepalive(&a, 5) <= 0);
    close_with_peer();
    EXPECT(casync_local_address(&a, &address) < 0);
}

static void set_address(casync_address *address, const void *sockaddr, size_t size) {
    memset(address, 0, sizeof *address);
    memcpy(address->storage.bytes, sockaddr, size);
    address->size = (uint32_t)size;
}

TEST(addresses_in_words) {
    casync_address address;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
    char words[CASYNC_ADDRESS_TEXT];
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_port = htons(80);
    EQ(inet_pton(AF_INET, "127.0.0.1", &in.sin_addr), 1);
    set_address(&address, &in, sizeof in);
    STR_EQ(casync_address_text(&address, words), "127.0.0.1:80");
    EQ(casync_address_port(&address), 80);

    memset(&in6, 0, sizeof in6);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(65535);
    EQ(inet_pton(AF_INET6, "::1", &in6.sin6_addr), 1);
    set_address(&address, &in6, sizeof in6);
    STR_EQ(casync_address_text(&address, words), "[::1]:65535");
    EQ(casync_address_port(&address), 65535);

    memset(&un, 0, sizeof un);
    un.sun_family = AF_UNIX;
    strcpy(un.sun_path, "/run/x.sock");
    set_address(&address, &un, offsetof(struct sockaddr_un, sun_path) + 12);
    STR_EQ(casync_address_text(&address, words), "/run/x.sock");
    memcpy(un.sun_path, "\0abstract", 9);
    set_address(&address, &un, offsetof(struct sockaddr_un, sun_path) + 9);
    STR_EQ(casync_address_text(&address, words), "@abstract");
    memset(un.sun_path, 'x', sizeof un.sun_path); /* no room for its terminator */
    set_address(&address, &un, sizeof un);
    EQ(strlen(casync_address_text(&address, words)), sizeof un.sun_path);
    EQ(casync_address_port(&address), 0);
}

/* >> passing descriptors ---------------------------------------------------------------------- */

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

/* >> filters ---------------------------------------------------------------------------------- */

/* Each byte becomes its complement. */
typedef struct xor_filter {
    casync_filter filter;
    int closed;
} xor_filter;

static int64_t xor_received(casync_filter *filter, casync_span raw) {
    uint8_t bytes[512];
    size_t i, done, size;
    for (done = 0; done < raw.len; done += size) {
        int64_t result;
        size = raw.len - done < sizeof bytes ? raw.len - done : sizeof bytes;
        for (i = 0; i < size; i++) bytes[i] = (uint8_t) ~((const uint8_t *)raw.ptr)[done + i];
        result = casync_filter_receive(filter, bytes, size);
        if (result < 0) return result;
    }
    return 0;
}

static int64_t xor_write(casync_filter *filter, const casync_span *spans, size_t count) {
    size_t i, j;
    for (i = 0; i < count; i++) {
        for (j = 0; j < spans[i].len; j++) {
            uint8_t byte = (uint8_t) ~((const uint8_t *)spans[i].ptr)[j];
            int64_t result = casync_filter_send(filter, &byte, 1);
            if (result < 0) return result;
        }
    }
    return 0;
}

static void xor_close(casync_filter *filter) { ((xor_filter *)filter)->closed++; }

static void set_xor_filter(casync_stream *stream, xor_filter *xor_of) {
    memset(xor_of, 0, sizeof *xor_of);
    xor_of->filter.received = xor_received;
    xor_of->filter.write = xor_write;
    xor_of->filter.close = xor_close;
    EQ(casync_set_filter(stream, &xor_of->filter), 0);
    PTR_EQ(xor_of->filter.stream, stream);
}

TEST(a_filter_turns_bytes_both_ways) {
    xor_filter one;
    char raw[8] = "";
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    set_xor_filter(&a, &one);
    EQ(casync_set_filter(&a, &one.filter), CASYNC_INVALID_STATE);
    peer_says("\x9e\x9d\x9c"); /* ~"abc" */
    run_until_said("abc");
    EQ(write_text(&a, "abc"), 3);
    EQ(read(peer, raw, sizeof raw), 3);
    STR_EQ(raw, "\x9e\x9d\x9c");
    EQ(one.closed, 0);
    casync_close(&a);
    EQ(one.closed, 1);
    close_with_peer();
    EQ(one.closed, 1);
    EQ(casync_set_filter(&a, &one.filter), CASYNC_INVALID_STATE);
}

TEST(filtered_streams_read_by_operations_too) {
    xor_filter one, two;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_socketpair(&loop, &a, &b, NULL, NULL), 0);
    set_xor_filter(&a, &one);
    set_xor_filter(&b, &two);
    EQ(write_text(&b, "one\ntwo"), 7);
    expect_bytes(casync_read_until_op(&a, &the_op, "\n", 1), "one\n");
    EQ(result_of(casync_read_exactly_op(&a, &the_op, text, 3)), 3);
    MEM_EQ(text, "two", 3);
    EQ(result_of(casync_finish_op(&b, &the_op)), 0);
    EQ(result_of(read_op()), 0);
    casync_close(&a);
    EQ(one.closed, 1);
    EQ(two.closed, 1);
    close_loop();
}

TEST(filtered_bytes_fill_the_buffers_of_a_buffered_protocol) {
    xor_filter one;
    open_buffered(2);
    set_xor_filter(&a, &one);
    peer_says("\x9e\x9d\x9c");
    run_until_said("ab c");
    close_with_peer();
}

TEST(a_filtered_buffered_protocol_may_close_in_its_callbacks) {
    xor_filter one;
    open_buffered(2);
    set_xor_filter(&a, &one);
    protocol.buffer_updated = close_in_buffer_updated;
    peer_says("\x9e\x9d\x9c");
    run_until_said("ab");
    turns(2);
    close_with_peer();
    buffers_lent = 0;
    open_buffered(2);
    set_xor_filter(&a, &one);
    protocol.get_buffer = close_in_get_buffer;
    peer_says("\x9e\x9d\x9c");
    turns(3);
    SAID("");
    EXPECT(!casync_stream_is_open(&a));
    close_with_peer();
}

/* The filter gives each byte apart; after the first the protocol has paused. */
static int64_t single_bytes(casync_filter *filter, casync_span raw) {
    size_t i;
    for (i = 0; i < raw.len; i++) {
        int64_t result = casync_filter_receive(filter, (const char *)raw.ptr + i, 1);
        if (result < 0) return result;
    }
    return 0;
}

TEST(filtered_bytes_wait_while_reading_is_paused) {
    casync_filter filter = ZERO;
    filter.received = single_bytes;
    protocol = saying_protocol();
    protocol.data_received = say_and_pause;
    open_with_peer(&protocol, NULL);
    EQ(casync_set_filter(&a, &filter), 0);
    peer_says("ab");
    run_until_said("a");
    turns(3);
    SAID("");
    EQ(casync_resume_reading(&a), 0);
    run_until_said("b");
    close_with_peer();
}

TEST(no_filtered_bytes_follow_a_finish) {
    casync_filter filter = ZERO;
    filter.received = single_bytes;
    protocol = saying_protocol();
    protocol.data_received = finish_in_data;
    open_with_peer(&protocol, NULL);
    EQ(casync_set_filter(&a, &filter), 0);
    peer_says("ab");
    run_until_said("a lost=0");
    close_with_peer();
}

TEST(a_filtered_stream_may_be_closed_and_freed_in_data_received) {
    casync_filter filter = ZERO;
    filter.received = single_bytes;
    open_heap("data");
    EQ(casync_set_filter(heap, &filter), 0);
    peer_says("several bytes");
    turns(3);
    SAID("data");
    close_with_peer();
}

/* An expanding filter: bytes go as two hexadecimal digits each, the end as a full stop. */
typedef struct hex_filter {
    casync_filter filter;
    int digits, value;
    bool ended;
} hex_filter;

static int64_t hex_received(casync_filter *filter, casync_span raw) {
    hex_filter *hex = (hex_filter *)filter;
    size_t i;
    for (i = 0; i < raw.len; i++) {
        char digit = ((const char *)raw.ptr)[i];
        if (digit == '.') {
            hex->ended = true;
            continue;
        }
        if (hex->ended || !strchr("0123456789abcdef", digit)) return -EILSEQ;
        hex->value = hex->value * 16 + (digit <= '9' ? digit - '0' : digit - 'a' + 10);
        if (++hex->digits == 2) {
            char byte = (char)hex->value;
            int64_t result;
            hex->digits = hex->value = 0;
            result = casync_filter_receive(filter, &byte, 1);
            if (result < 0) return result;
        }
    }
    return 0;
}

static int64_t hex_received_eof(casync_filter *filter) {
    return ((hex_filter *)filter)->ended ? 0 : -EPROTO;
}

static int64_t hex_write(casync_filter *filter, const casync_span *spans, size_t count) {
    size_t i, j;
    for (i = 0; i < count; i++) {
        for (j = 0; j < spans[i].len; j++) {
            char digits[3];
            int64_t result;
            snprintf(digits, sizeof digits, "%02x", ((const unsigned char *)spans[i].ptr)[j]);
            result = casync_filter_send(filter, digits, 2);
            if (result < 0) return result;
        }
    }
    return 0;
}

static int64_t hex_write_eof(casync_filter *filter) {
    int64_t result = casync_filter_send(filter, ".", 1);
    return result < 0 ? result : 0;
}

static void set_hex_filter(casync_stream *stream, hex_filter *hex) {
    memset(hex, 0, sizeof *hex);
    hex->filter.received = hex_received;
    hex->filter.received_eof = hex_received_eof;
    hex->filter.write = hex_write;
    hex->filter.write_eof = hex_write_eof;
    EQ(casync_set_filter(stream, &hex->filter), 0);
}

TEST(a_filter_may_expand_and_have_a_last_word) {
    hex_filter hex;
    protocol = saying_protocol();
    keep_open_at_eof = true;
    open_with_peer(&protocol, NULL);
    set_hex_filter(&a, &hex);
    EQ(write_text(&a, "abc"), 3);
    peer_hears("616263");
    EQ(casync_write_eof(&a), 0);
    peer_hears(".");
    peer_hears_the_end();
    peer_says("78.");
    run_until_said("x");
    EQ(shutdown(peer, SHUT_WR), 0);
    run_until_said("eof");
    close_with_peer();
}

TEST(finish_sends_the_filters_last_word) {
    hex_filter hex;
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    set_hex_filter(&a, &hex);
    EQ(write_text(&a, "abc"), 3);
    EQ(casync_finish_start(&a), 0);
    run_until_said("lost=0");
    peer_hears("616263.");
    peer_hears_the_end();
    close_with_peer();
}

TEST(a_filters_error_ends_the_stream) {
    hex_filter hex;
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    set_hex_filter(&a, &hex);
    peer_says("6xyz");
    run_until_said("lost=-84"); /* EILSEQ */
    close_with_peer();
    open_with_peer(&protocol, NULL);
    set_hex_filter(&a, &hex);
    peer_says("61");
    EQ(shutdown(peer, SHUT_WR), 0);
    run_until_said("a lost=-71"); /* EPROTO: no full stop before the end */
    close_with_peer();
}

TEST(references_through_a_filter_are_released_at_once) {
    xor_filter one;
    open_with_peer(NULL, NULL);
    set_xor_filter(&a, &one);
    squeeze(&a);
    EQ(casync_write_ref(&a, large, sizeof large, release_says, WORD("released")), sizeof large);
    SAID("released");
    close_losing();
}

/* >> bulk: every byte arrives, in order, however the kernel cuts ------------------------------- */

static uint64_t sent_place, heard_place, total_bytes;

static uint8_t byte_at(uint64_t place) { return (uint8_t)((place * 2654435761u) >> 13); }

static void check_bulk(casync_stream *stream, casync_span data) {
    const uint8_t *bytes = (const uint8_t *)data.ptr;
    size_t i;
    for (i = 0; i < data.len; i++)
        if (bytes[i] != byte_at(heard_place + i)) EQ(bytes[i], byte_at(heard_place + i));
    heard_place += data.len;
    if (random_below(50) == 0) {
        EQ(casync_pause_reading(stream), 0);
        EQ(casync_resume_reading(stream), 0);
    }
}

static bool may_send;

static void bulk_pause(casync_stream *stream) {
    (void)stream;
    may_send = false;
}

static void bulk_resume(casync_stream *stream) {
    (void)stream;
    may_send = true;
}

static void send_bulk(casync_stream *stream) {
    while (may_send && sent_place < total_bytes) {
        static uint8_t data[40000];
        size_t size = 1 + (size_t)random_below(random_below(4) ? 2000 : sizeof data), i;
        for (i = 0; i < size; i++) data[i] = byte_at(sent_place + i);
        sent_place += size;
        if (random_below(2)) {
            EQ(casync_write(stream, data, size), size);
        } else {
            void *copy = malloc(size);
            memcpy(copy, data, size);
            EQ(casync_write_ref(stream, copy, size, free, copy), size);
        }
    }
}

static void exchange_bulk(casync_stream *from) {
    total_bytes = test_quick ? 300000 : 5000000;
    sent_place = heard_place = 0;
    may_send = true;
    do {
        send_bulk(from);
        EQ(casync_run_nowait(&loop), 0);
    } while (heard_place < sent_place || sent_place < total_bytes);
    EQ(heard_place, sent_place);
}

static casync_protocol bulk_protocol(void) {
    casync_protocol bulk = no_protocol();
    bulk.data_received = check_bulk;
    bulk.pause_writing = bulk_pause;
    bulk.resume_writing = bulk_resume;
    return bulk;
}

TEST(bulk_over_a_squeezed_pair) {
    protocol = bulk_protocol();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_socketpair(&loop, &a, &b, &protocol, NULL), 0);
    squeeze(&a);
    squeeze(&b);
    exchange_bulk(&a);
    casync_close(&a);
    casync_close(&b);
    close_loop();
}

TEST(bulk_over_a_pipe) {
    protocol = bulk_protocol();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_pipe(&loop, &a, &b, &protocol, NULL), 0);
    exchange_bulk(&b);
    casync_close(&a);
    casync_close(&b);
    close_loop();
}

TEST(bulk_through_filters) {
    xor_filter one, two;
    protocol = bulk_protocol();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_socketpair(&loop, &a, &b, &protocol, NULL), 0);
    set_xor_filter(&a, &one);
    set_xor_filter(&b, &two);
    test_quick = true; /* the filter sends byte by byte */
    exchange_bulk(&a);
    casync_close(&a);
    casync_close(&b);
    close_loop();
}

/* >> what reviews found ----------------------------------------------------------------------- */

TEST(a_length_that_no_memory_could_hold_is_over_every_limit) {
    options.read_limit = SIZE_MAX;
    open_framed(CASYNC_FRAMING_LENGTH, 8, NULL);
    EQ(write(peer, "\xff\xff\xff\xff\xff\xff\xff\xff", 8), 8);
    run_until_said("lost=-5003");
    close_with_peer();
}

TEST(a_frame_that_was_read_stays_until_the_next_read) {
    casync_filter filter = ZERO;
    casync_future *future;
    filter.received = single_bytes;
    open_with_peer(NULL, NULL);
    EQ(casync_set_filter(&a, &filter), 0);
    future = casync_read_until_op(&a, &the_op, "\n", 1);
    peer_says("one\ntwo and much more that needs another piece of memory, and then some\n");
    expect_bytes(future, "one\n");
    expect_bytes(casync_read_until_op(&a, &the_op, " ", 1), "two ");
    close_with_peer();
}

static casync_buffer lend_buffer(casync_stream *stream, int64_t size_hint) {
    casync_buffer buffer;
    (void)stream;
    (void)size_hint;
    buffer.ptr = own_buffer;
    buffer.len = sizeof own_buffer;
    return buffer;
}

TEST(any_function_of_a_protocol_may_be_missing) {
    protocol = no_protocol();
    protocol.get_buffer = lend_buffer;
    open_with_peer(&protocol, NULL);
    peer_says("hello");
    turns(3);
    MEM_EQ(own_buffer, "hello", 5);
    close_with_peer();
    framing.kind = CASYNC_FRAMING_FIXED;
    framing.size = 1;
    options.framing = &framing;
    open_with_peer(&protocol, &options);
    peer_says("hello");
    EQ(shutdown(peer, SHUT_WR), 0);
    turns(3);
    close_with_peer();
}

TEST(a_new_protocol_gets_what_was_read_ahead) {
    protocol = saying_protocol();
    open_with_peer(NULL, NULL);
    peer_says("upgrade\nfirst,");
    expect_bytes(casync_read_until_op(&a, &the_op, "\n", 1), "upgrade\n");
    EQ(casync_set_protocol(&a, &protocol), 0);
    SAID("");
    run_until_said("first,");
    peer_says("second");
    run_until_said("second");
    close_with_peer();
}

static int64_t failing_write_eof(casync_filter *filter) {
    (void)filter;
    return -EPROTO;
}

TEST(finish_is_done_although_the_filters_last_word_fails) {
    casync_filter filter = ZERO;
    filter.write_eof = failing_write_eof;
    open_with_peer(NULL, NULL);
    EQ(casync_set_filter(&a, &filter), 0);
    EQ(result_of(casync_finish_op(&a, &the_op)), -EPROTO);
    EXPECT(!casync_stream_is_open(&a));
    peer_hears_the_end();
    close_with_peer();
}

static void close_the_stream(casync_loop *where, const casync_exception *exception, void *arg) {
    (void)where;
    (void)arg;
    if (exception->stream) casync_close(exception->stream);
    say(WORD("told"));
}

/* More descriptors than are taken at once, at a stream that the exception handler closes. */
TEST(an_exception_handler_may_close_the_stream) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(40 * sizeof(int))];
    } control;
    struct msghdr message;
    struct iovec iov;
    char byte = 'x';
    int i, fds[40];
    skip_under_qemu("qemu-user keeps descriptors open that were cut off");
    for (i = 0; i < 40; i++) fds[i] = STDIN_FILENO;
    memset(&message, 0, sizeof message);
    memset(&control, 0, sizeof control);
    iov.iov_base = &byte;
    iov.iov_len = 1;
    message.msg_iov = &iov;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    control.header.cmsg_len = CMSG_LEN(sizeof fds);
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(&control.header), fds, sizeof fds);
    options.receive_fds = true;
    open_heap("never");
    casync_close(heap);
    close(peer);
    {
        int ends[2];
        make_socketpair(ends);
        peer = ends[1];
        EQ(casync_stream_open(&loop, heap, ends[0], &protocol, &options), 0);
    }
    casync_set_exception_handler(&loop, close_the_stream, NULL);
    EQ(sendmsg(peer, &message, 0), 1);
    turns(3);
    said_size = 0;
    said[0] = 0;
    casync_close(heap);
    free(heap);
    close_with_peer();
}

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

static void close_a(void *arg) {
    casync_close(&a);
    say(arg);
}

TEST(a_release_inside_close_may_close_again) {
    int fd, reused;
    open_with_peer(NULL, NULL);
    squeeze(&a);
    EQ(casync_write_ref(&a, large, sizeof large, close_a, WORD("released")), sizeof large);
    fd = a.endpoint.watcher.fd;
    casync_close(&a);
    SAID("released exception=-103");
    reused = dup(STDIN_FILENO); /* the number is free once */
    EQ(reused, fd);
    turns(2);
    EXPECT(fcntl(reused, F_GETFD) >= 0);
    close(reused);
    close_with_peer();
}

static void free_loop(void *arg) {
    casync_loop **own = (casync_loop **)arg;
    EQ(casync_loop_close(*own), 0);
    free(*own);
    *own = NULL;
}

TEST(a_release_inside_close_may_free_the_loop) {
    casync_loop *own = (casync_loop *)malloc(sizeof *own);
    int fds[2];
    make_socketpair(fds);
    EQ(casync_loop_init(own, NULL), 0);
    EQ(casync_stream_open(own, &a, fds[0], NULL, NULL), 0);
    squeeze(&a);
    EQ(casync_write_ref(&a, large, sizeof large, free_loop, &own), sizeof large);
    EQ(casync_write_ref(&a, large, sizeof large, release_says, WORD("released")), sizeof large);
    casync_close(&a);
    PTR_EQ(own, NULL);
    SAID("released");
    close(fds[1]);
}

static int64_t two_pieces_at_eof(casync_filter *filter) {
    int64_t result = casync_filter_receive(filter, "one", 3);
    return result < 0 ? result : casync_filter_receive(filter, "two", 3);
}

TEST(the_end_comes_after_data_that_waits_for_resume) {
    casync_filter filter = ZERO;
    filter.received_eof = two_pieces_at_eof;
    protocol = saying_protocol();
    protocol.data_received = say_and_pause;
    open_with_peer(&protocol, NULL);
    EQ(casync_set_filter(&a, &filter), 0);
    EQ(shutdown(peer, SHUT_WR), 0);
    run_until_said("one");
    turns(3);
    SAID("");
    EQ(casync_resume_reading(&a), 0);
    run_until_said("two");
    turns(3);
    SAID("");
    EQ(casync_resume_reading(&a), 0);
    run_until_said("eof lost=0");
    close_with_peer();
}

static int64_t end_at_full_stop(casync_filter *filter, casync_span raw) {
    int64_t result = casync_filter_receive(filter, raw.ptr, raw.len - 1);
    return result < 0 ? result : (int64_t)CASYNC_EOF;
}

TEST(a_filter_may_say_that_the_stream_ended) {
    casync_filter filter = ZERO;
    filter.received = end_at_full_stop;
    keep_open_at_eof = true;
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    EQ(casync_set_filter(&a, &filter), 0);
    peer_says("last words.");
    run_until_said("last words eof");
    EQ(write_text(&a, "answer"), 6);
    peer_hears("answer");
    close_with_peer();
}

/* What came with the line before is plain text that somebody may have smuggled in front of what is
   encrypted. */
TEST(a_filter_is_not_set_while_bytes_wait_that_it_should_have_seen) {
    casync_filter filter = ZERO;
    filter.received = xor_received;
    open_with_peer(NULL, NULL);
    peer_says("STARTTLS\n\x9e\x9d");
    expect_bytes(casync_read_until_op(&a, &the_op, "\n", 1), "STARTTLS\n");
    EQ(casync_set_filter(&a, &filter), -EBUSY);
    EQ(result_of(casync_read_op(&a, &the_op, text, sizeof text)), 2);
    EQ(casync_set_filter(&a, &filter), 0);
    peer_says("\x9e\x9d");
    EQ(result_of(casync_read_exactly_op(&a, &the_op, text, 2)), 2);
    MEM_EQ(text, "ab", 2);
    close_with_peer();
}

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

/* >> reads of nothing ------------------------------------------------------------------------- */

static void expect_reads_of_nothing(int64_t result) {
    EQ(result_of(casync_read_op(&a, &the_op, text, 0)), result);
    EQ(result_of(casync_read_op(&a, &the_op, NULL, 0)), result);
    EQ(result_of(casync_read_exactly_op(&a, &the_op, text, 0)), result);
    EQ(result_of(casync_read_exactly_op(&a, &the_op, NULL, 0)), result);
}

TEST(a_read_of_nothing_is_done_at_once) {
    open_with_peer(NULL, NULL);
    EXPECT(casync_future_done(casync_read_op(&a, &the_op, text, 0)));
    EXPECT(casync_future_done(casync_read_exactly_op(&a, &the_op, NULL, 0)));
    expect_reads_of_nothing(0);
    peer_says("hello");
    expect_reads_of_nothing(0);
    EQ(result_of(casync_read_exactly_op(&a, &the_op, text, 5)), 5);
    MEM_EQ(text, "hello", 5);
    EQ(shutdown(peer, SHUT_WR), 0);
    EQ(result_of(read_op()), 0);
    expect_reads_of_nothing(0); /* at the end, too */
    close_with_peer();
}

TEST(a_read_of_nothing_leaves_what_was_read_ahead) {
    open_with_peer(NULL, NULL);
    peer_says("line\nrest");
    expect_bytes(casync_read_until_op(&a, &the_op, "\n", 1), "line\n");
    expect_reads_of_nothing(0);
    EQ(result_of(casync_read_exactly_op(&a, &the_op, text, 4)), 4);
    MEM_EQ(text, "rest", 4);
    close_with_peer();
}

TEST(a_read_of_nothing_tells_what_is_wrong_with_the_stream) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    expect_reads_of_nothing(CASYNC_INVALID_STATE);
    close_loop();
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    expect_reads_of_nothing(CASYNC_INVALID_STATE);
    close_with_peer();
    open_with_peer(NULL, NULL);
    EQ(write_text(&a, "unread"), 6);
    close(peer);
    EQ(result_of(read_op()), -ECONNRESET);
    expect_reads_of_nothing(-ECONNRESET);
    peer = dup(0);
    close_with_peer();
}

static int64_t read_nothing(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    EQ(casync_read(&a, text, 0), 0);
    EQ(casync_read_exactly(&a, NULL, 0), 0);
    EQ(casync_read_timeout(&a, text, 0, CASYNC_SECONDS(1)), 0);
    EQ(casync_read_exactly_timeout(&a, text, 0, CASYNC_SECONDS(1)), 0);
    return 0;
}

TEST(tasks_read_nothing_too) {
    open_with_peer(NULL, NULL);
    EQ(run_task(read_nothing, NULL), 0);
    close_with_peer();
}

/* >> how long bytes stay ---------------------------------------------------------------------- */

/* Memory that is given back is overwritten, and not used again before the test's end. */
typedef union given_back {
    struct {
        size_t size;
        union given_back *next;
    } block;
    uint64_t align[2];
} given_back;
static given_back *all_given_back;

static void give_back(given_back *block) {
    memset(block + 1, 0xdd, block->block.size);
    block->block.next = all_given_back;
    all_given_back = block;
    memory.live--;
}

static void *spoiling_allocator(void *user, void *ptr, size_t size) {
    given_back *old = (given_back *)ptr, *fresh = NULL;
    (void)user;
    if (size > 0) {
        fresh = (given_back *)malloc(sizeof *fresh + size);
        EXPECT(fresh);
        fresh->block.size = size;
        memory.live++;
    }
    if (old && size > 0)
        memcpy(fresh + 1, old, old[-1].block.size < size ? old[-1].block.size : size);
    if (old) give_back(old - 1);
    return fresh ? fresh + 1 : NULL;
}

static void open_spoiling_with_peer(const casync_protocol *its_protocol,
                                    const casync_stream_options *its_options) {
    int fds[2];
    open_loop(CASYNC_CLOCK_MONOTONIC);
    loop.allocator.function = spoiling_allocator; /* nothing is allocated yet */
    make_socketpair(fds);
    peer = fds[1];
    EQ(casync_stream_open(&loop, &a, fds[0], its_protocol, its_options), 0);
}

static void close_spoiling_with_peer(void) {
    close_with_peer();
    while (all_given_back) {
        given_back *block = all_given_back;
        all_given_back = block->block.next;
        free(block);
    }
}

TEST(a_frame_that_was_read_outlives_a_close) {
    casync_future *future;
    int64_t live;
    open_spoiling_with_peer(NULL, NULL);
    future = casync_read_until_op(&a, &the_op, "\n", 1);
    peer_says("line\nand more");
    run_until_done(future);
    casync_close(&a);
    EQ(casync_future_result(future), 5);
    MEM_EQ(future->ptr, "line\n", 5);
    live = memory.live;
    turns(2);
    EXPECT(memory.live < live); /* but not for ever */
    close_spoiling_with_peer();
}

TEST(a_frame_that_was_read_ends_with_the_loop) {
    open_spoiling_with_peer(NULL, NULL);
    peer_says("line\nand more");
    run_until_done(casync_read_until_op(&a, &the_op, "\n", 1));
    casync_close(&a);
    close_spoiling_with_peer();
}

static void close_in_the_next_turn(void *arg) {
    (void)arg;
    EQ(casync_call_soon(&loop, NULL, close_a, WORD("closed")), 0);
}

static int64_t look_at_line(casync_loop *where, void *arg) {
    const void *line = NULL;
    (void)where, (void)arg;
    EQ(casync_read_until(&a, "\n", 1, &line), 5);
    EXPECT(!casync_stream_is_open(&a));
    MEM_EQ(line, "line\n", 5);
    return 0;
}

/* Between the end of the read and the task's turn. */
TEST(a_task_has_the_frame_that_it_read_although_somebody_closed_the_stream) {
    casync_task *task;
    open_spoiling_with_peer(NULL, NULL);
    task = spawn(look_at_line, NULL);
    turns(2);
    peer_says("line\n");
    EQ(casync_call_soon(&loop, NULL, close_in_the_next_turn, WORD("closed")), 0);
    EQ(casync_run_until_complete(&task->future), 0);
    casync_task_release(task);
    SAID("closed");
    close_spoiling_with_peer();
}

static int64_t look_at_frame(casync_loop *where, void *arg) {
    const void *frame = NULL;
    (void)where, (void)arg;
    EQ(casync_read_frame(&a, &framing, &frame), 4);
    EXPECT(!casync_stream_is_open(&a));
    MEM_EQ(frame, "fram", 4);
    return 0;
}

TEST(a_task_has_the_frame_that_it_read_although_somebody_aborted_the_stream) {
    casync_task *task;
    framing.kind = CASYNC_FRAMING_FIXED;
    framing.size = 4;
    open_spoiling_with_peer(NULL, NULL);
    task = spawn(look_at_frame, NULL);
    turns(2);
    peer_says("fram");
    EQ(casync_call_soon(&loop, NULL, close_in_the_next_turn, WORD("closed")), 0);
    EQ(casync_run_until_complete(&task->future), 0);
    casync_task_release(task);
    SAID("closed");
    close_spoiling_with_peer();
}

static void close_and_look(casync_stream *stream, casync_span data) {
    casync_close(stream);
    EQ(data.len, 5);
    MEM_EQ(data.ptr, "frame", 5);
    say(WORD("seen"));
}

TEST(the_bytes_of_a_callback_stay_until_it_returns_although_it_closes_the_stream) {
    protocol = no_protocol();
    protocol.data_received = close_and_look;
    framing.kind = CASYNC_FRAMING_FIXED;
    framing.size = 5;
    options.framing = &framing;
    open_spoiling_with_peer(&protocol, &options);
    peer_says("frameframe");
    run_until_said("seen");
    close_spoiling_with_peer();
    options.framing = NULL;
    open_spoiling_with_peer(&protocol, &options);
    peer_says("frame");
    run_until_said("seen");
    close_spoiling_with_peer();
}

static void read_and_look(casync_stream *stream, casync_span data) {
    EQ(casync_set_protocol(stream, NULL), 0);
    EXPECT(!casync_future_done(casync_read_op(stream, &the_op, text, 1)));
    MEM_EQ(data.ptr, "frame", 5);
    say(WORD("seen"));
}

TEST(the_bytes_of_a_callback_stay_until_it_returns_although_it_reads_on) {
    protocol = no_protocol();
    protocol.data_received = read_and_look;
    framing.kind = CASYNC_FRAMING_FIXED;
    framing.size = 5;
    options.framing = &framing;
    open_spoiling_with_peer(&protocol, &options);
    peer_says("frame");
    run_until_said("seen");
    peer_says("x");
    EQ(result_of(&the_op.future), 1);
    close_spoiling_with_peer();
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

/* >> a protocol that does not read ------------------------------------------------------------ */

static casync_protocol protocol_that_does_not_read(void) {
    casync_protocol ends = no_protocol();
    ends.eof_received = said_eof;
    ends.connection_lost = said_lost;
    return ends;
}

TEST(a_protocol_that_does_not_read_hears_of_the_end) {
    protocol = protocol_that_does_not_read();
    open_with_peer(&protocol, NULL);
    turns(3);
    SAID("");
    EQ(shutdown(peer, SHUT_WR), 0);
    run_until_said("eof lost=0");
    close_with_peer();
    open_with_peer(&protocol, NULL);
    close(peer); /* before the loop was run */
    run_until_said("eof lost=0");
    peer = dup(0);
    close_with_peer();
    protocol.eof_received = NULL;
    open_with_peer(&protocol, NULL);
    close(peer);
    run_until_said("lost=0");
    peer = dup(0);
    close_with_peer();
}

TEST(a_protocol_that_does_not_read_may_go_on_writing_after_the_end) {
    protocol = protocol_that_does_not_read();
    keep_open_at_eof = true;
    open_with_peer(&protocol, NULL);
    EQ(shutdown(peer, SHUT_WR), 0);
    run_until_said("eof");
    turns(3);
    SAID("");
    EQ(write_text(&a, "answer"), 6);
    peer_hears("answer");
    EQ(casync_finish_start(&a), 0);
    run_until_said("lost=0");
    close_with_peer();
}

/* Who reads hears of the end by reading. */
TEST(a_protocol_that_does_not_read_leaves_the_bytes_to_operations) {
    protocol = protocol_that_does_not_read();
    open_with_peer(&protocol, NULL);
    EXPECT(!casync_future_done(casync_read_op(&a, &the_op, text, 2)));
    peer_says("hello");
    EQ(result_of(&the_op.future), 2);
    EQ(shutdown(peer, SHUT_WR), 0);
    turns(3);
    EQ(result_of(casync_read_exactly_op(&a, &the_op, text + 2, 3)), 3);
    MEM_EQ(text, "hello", 5);
    EQ(result_of(read_op()), 0);
    turns(3);
    SAID("");
    EQ(write_text(&a, "answer"), 6);
    peer_hears("answer");
    close_with_peer();
}

TEST(a_protocol_that_does_not_read_hears_of_the_end_behind_bytes) {
    protocol = protocol_that_does_not_read();
    open_with_peer(&protocol, NULL);
    peer_says("hello");
    turns(3);
    SAID("");
    peer_says("hello again");
    EQ(shutdown(peer, SHUT_WR), 0);
    run_until_said("eof lost=0");
    close_with_peer();
}

/* Nothing is read for it while it is paused. */
TEST(a_protocol_that_does_not_read_may_be_paused) {
    uint64_t before;
    protocol = protocol_that_does_not_read();
    open_with_peer(&protocol, NULL);
    EQ(casync_pause_reading(&a), 0);
    peer_says("hello");
    EQ(shutdown(peer, SHUT_WR), 0);
    turns(3);
    SAID("");
    before = loop.events;
    turns(100);
    EXPECT(loop.events - before <= 2); /* nor does the loop spin */
    EQ(casync_resume_reading(&a), 0);
    run_until_said("eof lost=0");
    close_with_peer();
}

TEST(a_protocol_that_does_not_read_from_a_pipe_hears_of_the_end) {
    protocol = protocol_that_does_not_read();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_pipe(&loop, &a, &b, &protocol, NULL), 0);
    EQ(casync_set_protocol(&b, NULL), 0);
    turns(3);
    SAID("");
    casync_close(&b);
    run_until_said("eof lost=0");
    casync_close(&a);
    close_loop();
}

/* >> zones ------------------------------------------------------------------------------------ */

TEST(a_zone_is_a_name_or_a_number_and_nothing_else) {
    static const char *const bad[] = {"fe80::1%-1",
                                      "fe80::1%+1",
                                      "fe80::1%1x",
                                      "fe80::1% 2",
                                      "fe80::1%2 ",
                                      "fe80::1%",
                                      "fe80::1%0",
                                      "fe80::1%0x1",
                                      "fe80::1%4294967297",
                                      "fe80::1%4294967296",
                                      "fe80::1%99999999999999999999",
                                      "fe80::1%no-such-interface"};
    casync_address address;
    char words[CASYNC_ADDRESS_TEXT];
    size_t i;
    memset(&address, 0, sizeof address);
    for (i = 0; i < sizeof bad / sizeof *bad; i++)
        if (casync_address_from_host(&address, bad[i], 1) != -EINVAL) STR_EQ(bad[i], "refused");
    EQ(address.size, 0);
    EQ(casync_address_from_host(&address, "fe80::1%1", 80), 0);
    STR_EQ(casync_address_text(&address, words), "[fe80::1%1]:80");
    EQ(casync_address_from_host(&address, "fe80::1%4294967295", 80), 0);
    STR_EQ(casync_address_text(&address, words), "[fe80::1%4294967295]:80");
    EQ(casync_address_from_host(&address, "fe80::1%lo", 80), 0);
}

TEST_MAIN

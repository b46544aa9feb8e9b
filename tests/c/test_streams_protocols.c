/* >> streams: what protocols are told. */
#include "protocols_fixture.h"

/* >> reading ---------------------------------------------------------------------------------- */

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

static void goes_on_writing_after_the_end(void) {
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

TEST(eof_received_may_keep_the_stream_for_writing) {
    protocol = saying_protocol();
    goes_on_writing_after_the_end();
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

static casync_framing framing;

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

/* >> buffered protocols ----------------------------------------------------------------------- */

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
    goes_on_writing_after_the_end();
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

/* >> streams: finish, abort and close, and the other side's end. */
#include "protocols_fixture.h"

/* >> the end ---------------------------------------------------------------------------------- */

static casync_framing framing;

static char large[100000];

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

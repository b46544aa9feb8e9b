/* protocols_fixture.h - protocols, buffers and filters for tests of streams; a stream that its
   callbacks free. */
#ifndef PROTOCOLS_FIXTURE_H
#define PROTOCOLS_FIXTURE_H

#include "streams_fixture.h"

HELPER casync_protocol protocol;
HELPER casync_stream_options options;

HELPER void say_and_pause(casync_stream *stream, casync_span data) {
    said_data(stream, data);
    EQ(casync_pause_reading(stream), 0);
}

HELPER char own_buffer[64];
HELPER size_t own_size;
HELPER int buffers_lent;

HELPER casync_buffer get_buffer(casync_stream *stream, int64_t size_hint) {
    casync_buffer buffer;
    (void)stream;
    (void)size_hint;
    buffer.ptr = own_buffer;
    buffer.len = own_size;
    EQ(buffers_lent++, 0);
    return buffer;
}

HELPER void buffer_updated(casync_stream *stream, size_t size) {
    casync_span data;
    EQ(--buffers_lent, 0);
    data.ptr = own_buffer;
    data.len = size;
    if (size > 0) said_data(stream, data);
}

HELPER void open_buffered(size_t size) {
    protocol = saying_protocol();
    protocol.data_received = NULL;
    protocol.get_buffer = get_buffer;
    protocol.buffer_updated = buffer_updated;
    own_size = size;
    open_with_peer(&protocol, NULL);
}

HELPER casync_buffer close_in_get_buffer(casync_stream *stream, int64_t size_hint) {
    casync_buffer buffer = get_buffer(stream, size_hint);
    casync_close(stream);
    return buffer;
}

HELPER void close_in_buffer_updated(casync_stream *stream, size_t size) {
    buffer_updated(stream, size);
    casync_close(stream);
}

HELPER void say_byte_by_byte(const char *text) {
    for (; *text; text++) {
        EQ(write(peer, text, 1), 1);
        turn();
    }
}

HELPER char text[256];

HELPER casync_future *read_op(void) {
    memset(text, 0, sizeof text);
    return casync_read_op(&a, &the_op, text, sizeof text - 1);
}

/* With bytes that were not sent, which is told. */
HELPER void close_losing(void) {
    casync_close(&a);
    SAID("exception=-103");
    close_with_peer();
}

HELPER void expect_bytes(casync_future *future, const char *expected) {
    run_until_done(future);
    EQ(casync_future_result(future), strlen(expected));
    MEM_EQ(future->ptr, expected, strlen(expected));
    casync_future_close(future);
}

/* A stream on the heap that its callbacks close and free: use after free shows under ASan. */
HELPER casync_stream *heap;
HELPER const char *close_in;

HELPER void close_and_free(const char *where) {
    if (strcmp(where, close_in) != 0) return;
    casync_close(heap);
    memset((void *)heap, 0xee, sizeof *heap);
    free(heap);
    heap = NULL;
    say(WORD(where));
}

HELPER void data_closes(casync_stream *stream, casync_span data) {
    (void)stream;
    (void)data;
    close_and_free("data");
}
HELPER bool eof_closes(casync_stream *stream) {
    (void)stream;
    close_and_free("eof");
    return false;
}
HELPER void pause_closes(casync_stream *stream) {
    (void)stream;
    close_and_free("pause");
}
HELPER void resume_closes(casync_stream *stream) {
    (void)stream;
    close_and_free("resume");
}
HELPER void lost_closes(casync_stream *stream, int64_t error) {
    (void)stream;
    (void)error;
    close_and_free("lost");
}

HELPER void open_heap(const char *where) {
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

HELPER void finish_in_data(casync_stream *stream, casync_span data) {
    said_data(stream, data);
    EQ(write_text(stream, "bye"), 3);
    EQ(casync_finish_start(stream), 0);
}

/* Each byte becomes its complement. */
typedef struct xor_filter {
    casync_filter filter;
    int closed;
} xor_filter;

HELPER int64_t xor_received(casync_filter *filter, casync_span raw) {
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

HELPER int64_t xor_write(casync_filter *filter, const casync_span *spans, size_t count) {
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

HELPER void xor_close(casync_filter *filter) { ((xor_filter *)filter)->closed++; }

HELPER void set_xor_filter(casync_stream *stream, xor_filter *xor_of) {
    memset(xor_of, 0, sizeof *xor_of);
    xor_of->filter.received = xor_received;
    xor_of->filter.write = xor_write;
    xor_of->filter.close = xor_close;
    EQ(casync_set_filter(stream, &xor_of->filter), 0);
    PTR_EQ(xor_of->filter.stream, stream);
}

/* The filter gives each byte apart; after the first the protocol has paused. */
HELPER int64_t single_bytes(casync_filter *filter, casync_span raw) {
    size_t i;
    for (i = 0; i < raw.len; i++) {
        int64_t result = casync_filter_receive(filter, (const char *)raw.ptr + i, 1);
        if (result < 0) return result;
    }
    return 0;
}

HELPER void close_a(void *arg) {
    casync_close(&a);
    say(arg);
}

#endif /* PROTOCOLS_FIXTURE_H */

/* streams_fixture.h - two streams, and a protocol that says what it is told. */
#ifndef STREAMS_FIXTURE_H
#define STREAMS_FIXTURE_H

#include "loop_fixture.h"

HELPER casync_stream a, b; /* most tests join these two */
HELPER bool keep_open_at_eof;

HELPER void said_made(casync_stream *stream) {
    (void)stream;
    say(WORD("made"));
}

HELPER void said_data(casync_stream *stream, casync_span data) {
    char text[256];
    (void)stream;
    EXPECT(data.len < sizeof text);
    memcpy(text, data.ptr, data.len);
    text[data.len] = 0;
    say(text);
}

HELPER bool said_eof(casync_stream *stream) {
    (void)stream;
    say(WORD("eof"));
    return keep_open_at_eof;
}

HELPER void said_pause(casync_stream *stream) {
    (void)stream;
    say(WORD("pause"));
}

HELPER void said_resume(casync_stream *stream) {
    (void)stream;
    say(WORD("resume"));
}

HELPER void said_lost(casync_stream *stream, int64_t error) {
    (void)stream;
    say_number("lost", error);
}

/* A protocol without functions; tests fill in what they need. */
HELPER casync_protocol no_protocol(void) {
    casync_protocol protocol;
    memset(&protocol, 0, sizeof protocol);
    return protocol;
}

HELPER casync_protocol saying_protocol(void) {
    casync_protocol protocol = no_protocol();
    protocol.connection_made = said_made;
    protocol.data_received = said_data;
    protocol.eof_received = said_eof;
    protocol.pause_writing = said_pause;
    protocol.resume_writing = said_resume;
    protocol.connection_lost = said_lost;
    return protocol;
}

HELPER int64_t write_text(casync_stream *stream, const char *text) {
    return casync_write(stream, text, strlen(text));
}

/* The kernel's buffers of this stream become as small as they can be. */
HELPER void squeeze(casync_stream *stream) {
    int smallest = 1;
    EQ(setsockopt(stream->endpoint.watcher.fd, SOL_SOCKET, SO_SNDBUF, &smallest, sizeof smallest),
       0);
    EQ(setsockopt(stream->endpoint.watcher.fd, SOL_SOCKET, SO_RCVBUF, &smallest, sizeof smallest),
       0);
}

/* Writes until something has to be queued; returns the number of bytes. */
HELPER int64_t fill(casync_stream *stream) {
    static char block[10000];
    int64_t total = 0;
    while (stream->out.size == 0) {
        int64_t n = casync_write(stream, block, sizeof block);
        EQ(n, sizeof block);
        total += n;
    }
    return total;
}

/* Reads and forgets what has come to a descriptor; returns the number of bytes. */
HELPER int64_t drain_descriptor(int fd) {
    static char block[65536];
    int64_t total = 0;
    ssize_t n;
    while ((n = read(fd, block, sizeof block)) > 0) total += n;
    return total;
}

HELPER void release_says(void *arg) { say(arg); }

/* A stream over one end of a socketpair; the test plays the other side by plain system calls. */
HELPER int peer;

HELPER void open_with_peer(const casync_protocol *protocol, const casync_stream_options *options) {
    int fds[2];
    open_loop(CASYNC_CLOCK_MONOTONIC);
    make_socketpair(fds);
    peer = fds[1];
    EQ(casync_stream_open(&loop, &a, fds[0], protocol, options), 0);
}

HELPER void peer_says(const char *text) { EQ(write(peer, text, strlen(text)), strlen(text)); }

HELPER void peer_hears(const char *text) {
    char heard[256] = "";
    EQ(read(peer, heard, sizeof heard - 1), strlen(text));
    STR_EQ(heard, text);
}

HELPER void peer_hears_the_end(void) {
    char byte;
    EQ(read(peer, &byte, 1), 0);
}

HELPER void close_with_peer(void) {
    casync_close(&a);
    close(peer);
    close_loop();
}

#endif /* STREAMS_FIXTURE_H */

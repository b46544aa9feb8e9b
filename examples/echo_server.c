/* A TCP echo server, written as a protocol: a table of callbacks.

   Run it from the repository's root:   tcc -run examples/echo_server.c [port]
   Talk to it:                          nc -N 127.0.0.1 7000
   Ctrl-C ends it. The default port is 7000; 0 takes any free one. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static casync_loop loop;
static casync_server server;
static casync_signal interrupt, terminate;

static void connection_made(casync_stream *stream) {
    casync_address address;
    char text[CASYNC_ADDRESS_TEXT];
    /* gone already: connection_lost follows */
    if (casync_peer_address(stream, &address) < 0) return;
    printf("connection from %s\n", casync_address_text(&address, text));
}

static void data_received(casync_stream *stream, casync_span data) {
    if (casync_write(stream, data.ptr, data.len) != (int64_t)data.len) casync_abort(stream);
}

/* A client that sends and does not read would fill our memory with its echoes: as long as too much
   waits to be sent to it, we do not read from it either. These two fail only if the stream is
   ending. */
static void pause_writing(casync_stream *stream) { casync_pause_reading(stream); }
static void resume_writing(casync_stream *stream) { casync_resume_reading(stream); }

static void connection_lost(casync_stream *stream, int64_t error) {
    (void)stream;
    printf("connection ended: %s\n", casync_strerror(error));
}

static const casync_protocol echo = {
    .connection_made = connection_made,
    .data_received = data_received,
    .pause_writing = pause_writing,
    .resume_writing = resume_writing,
    .connection_lost = connection_lost,
};

static void quit(void *arg) {
    (void)arg;
    casync_server_abort_clients(&server);
    casync_server_close(&server);
}

static int64_t watch_signal(casync_signal *signal, int signum) {
    int64_t result = casync_signal_start(&loop, signal, signum, CASYNC_SIGNAL_ONCE, quit, NULL);
    if (result >= 0) casync_signal_ref(signal, false); /* the signal alone is no reason to go on */
    return result;
}

static int64_t serve(int port) {
    casync_listen_desc desc = {.host = "127.0.0.1", .port = port, .protocol = &echo};
    casync_address address;
    char text[CASYNC_ADDRESS_TEXT];
    int64_t result;
    if ((result = casync_loop_init(&loop, NULL)) < 0) return result;
    if ((result = watch_signal(&interrupt, SIGINT)) < 0) return result;
    if ((result = watch_signal(&terminate, SIGTERM)) < 0) return result;
    if ((result = casync_listen(&loop, &server, &desc)) < 0) return result;
    if ((result = casync_server_address(&server, &address)) < 0) return result;
    printf("listening on %s\n", casync_address_text(&address, text));
    return casync_run_until_idle(&loop); /* ends when the server and all connections are closed */
}

int main(int argc, char **argv) {
    int64_t result;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* line by line, into a pipe too */
    result = serve(argc > 1 ? atoi(argv[1]) : 7000);
    casync_server_close(&server); /* after an error it may be open still */
    if (result >= 0) result = casync_loop_close(&loop);
    if (result < 0) fprintf(stderr, "echo_server: %s\n", casync_strerror(result));
    return result < 0;
}

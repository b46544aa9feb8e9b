/* A TCP echo server, written as plain sequential code: each connection is a task, which waits where it
   reads and where it drains. examples/echo_server.c is the same by callbacks.

   Run it from the repository's root:   tcc -run examples/echo_tasks.c [port]
   Talk to it:                          nc -N 127.0.0.1 7000
   Ctrl-C ends it. The default port is 7000; 0 takes any free one. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static casync_server server;
static casync_signal interrupt, terminate;

/* A client that sends and does not read would fill our memory with its echoes: drain waits while too much
   is queued for it, and as long as we wait we read no more. */
static int64_t send_all(casync_stream *stream, const void *data, int64_t size) {
    int64_t sent = casync_write(stream, data, (size_t)size);
    if (sent < 0) return sent;
    return sent == size ? casync_drain(stream) : -ENOMEM;
}

/* The server makes the connection, runs this for it, and closes it when this returns. An error that is
   returned is printed by the loop's exception handler. */
static int64_t echo(casync_loop *loop, void *connection) {
    casync_stream *stream = (casync_stream *)connection;
    char buffer[4096];
    int64_t n, result, total = 0;
    (void)loop;
    while ((n = casync_read(stream, buffer, sizeof buffer)) > 0) {
        if ((result = send_all(stream, buffer, n)) < 0) return result;
        total += n;
    }
    if (n < 0) return n;
    result = casync_finish(stream); /* the client has sent all: close when the rest is on its way to it */
    if (result >= 0) printf("echoed %lld bytes\n", (long long)total);
    return result;
}

static void quit(void *arg) {
    (void)arg;
    casync_server_close(&server);
}

/* When this returns, casync_run closes what is open and cancels the tasks that are left: the casync_read
   in which a connection waits returns -ECANCELED. */
static int64_t serve(casync_loop *loop, void *port) {
    casync_listen_desc desc = {.host = "127.0.0.1", .port = *(int *)port, .task = echo};
    casync_address address;
    char text[CASYNC_ADDRESS_TEXT];
    int64_t result;
    if ((result = casync_signal_start(loop, &interrupt, SIGINT, 0, quit, NULL)) < 0) return result;
    if ((result = casync_signal_start(loop, &terminate, SIGTERM, 0, quit, NULL)) < 0) return result;
    if ((result = casync_listen(loop, &server, &desc)) < 0) return result;
    if ((result = casync_server_address(&server, &address)) < 0) return result;
    printf("listening on %s\n", casync_address_text(&address, text));
    return casync_server_join(&server); /* until quit closes it */
}

int main(int argc, char **argv) {
    int port = argc > 1 ? atoi(argv[1]) : 7000;
    int64_t result;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* line by line, into a pipe too */
    result = casync_run(serve, &port);
    if (result < 0) fprintf(stderr, "echo_tasks: %s\n", casync_strerror(result));
    return result < 0;
}

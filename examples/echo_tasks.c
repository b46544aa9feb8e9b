/* A TCP echo server, written as plain sequential code: each connection is a task, which waits where
   it reads and where it writes. examples/echo_server.c is the same by callbacks.

   Run it from the repository's root:   tcc -run examples/echo_tasks.c [port]
   Talk to it:                          nc -N 127.0.0.1 7000
   Ctrl-C ends it. The default port is 7000; 0 takes any free one. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static casync_server server;
static casync_signal interrupt, terminate;

/* The server makes the connection, runs this for it, and closes it in order when this returns. An
   error that is returned is printed by the loop's exception handler, and says whose connection it
   was. A client that sends and does not read would fill our memory with its echoes: write_all waits
   until the kernel has them, and as long as we wait we read no more. */
static int64_t echo(casync_loop *loop, void *connection) {
    casync_stream *stream = (casync_stream *)connection;
    char buffer[4096];
    int64_t n, result, total = 0;
    (void)loop;
    while ((n = casync_read(stream, buffer, sizeof buffer)) > 0) {
        if ((result = casync_write_all(stream, buffer, (size_t)n)) < 0) return result;
        total += n;
    }
    if (n == 0) printf("echoed %lld bytes\n", (long long)total); /* the client has sent all */
    return n;
}

static void quit(void *arg) {
    (void)arg;
    casync_server_close(&server);
}

/* When this returns, casync_run cancels the tasks that are left (the casync_read in which a
   connection waits returns -ECANCELED), and finishes their connections. examples/graceful_tasks.c
   lets the tasks go on. */
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

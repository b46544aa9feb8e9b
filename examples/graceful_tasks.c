/* Ending a server in order, by tasks: at SIGINT or SIGTERM it accepts nothing more and lets the
   tasks of its connections come to their end. Those that are not done in time are cut short; a
   second signal kills. examples/graceful_shutdown.c is the same by callbacks.

   Run it from the repository's root:   tcc -run examples/graceful_tasks.c [port] [seconds]
   Ask it:                              echo question | nc 127.0.0.1 7000 | wc -c
   A line is a request, answered by 16 MiB after a second. Press Ctrl-C before the answer is there.
   The default port is 7000, and the time for an end in order 5 seconds. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static casync_server server;
static casync_signal interrupt, terminate;

static char page[16 << 20]; /* more than a kernel's buffers take: most of it waits in ours */

static void not_needed(void *arg) { (void)arg; } /* the page stays */

/* A connection's task. It just returns: what it wrote is still sent, and then the connection is
   closed. For that a client has 30 seconds, if casync_listen_desc.finish_timeout does not say
   otherwise. */
static int64_t answer(casync_loop *loop, void *connection) {
    casync_stream *stream = (casync_stream *)connection;
    const void *request;
    int64_t result = casync_read_until(stream, "\n", 1, &request);
    (void)loop;
    if (result < 0) return result == CASYNC_EOF ? 0 : result; /* it came, and asked for nothing */
    printf("working on a request\n");
    if ((result = casync_sleep(CASYNC_SECONDS(1))) < 0) return result; /* stands for the work */
    result = casync_write_ref(stream, page, sizeof page, not_needed, NULL);
    if (result >= 0) printf("answered a request\n");
    return result < 0 || result == sizeof page ? result : -ENOMEM;
}

/* A second signal does what it would do without us: it kills. */
static void stop(void *arg) {
    (void)arg;
    casync_signal_stop(&interrupt);
    casync_signal_stop(&terminate);
    casync_server_close(&server);
}

/* After the close there are still those connections, and the server still leads to them. */
static int64_t end_in_order(int64_t limit) {
    int64_t result;
    printf("stopping\n");
    result = casync_server_wait_clients_timeout(&server, limit);
    if (result == -ETIMEDOUT) {
        printf("aborted: %d\n", (int)casync_server_abort_clients(&server));
        return 0;
    }
    if (result >= 0) printf("all were served\n");
    return result;
}

static int64_t serve(casync_loop *loop, void *arg) {
    char **argv = (char **)arg; /* of which the last is NULL */
    const char *port = argv[1] ? argv[1] : "7000", *seconds = argv[1] && argv[2] ? argv[2] : "5";
    casync_listen_desc desc = {.host = "127.0.0.1", .port = atoi(port), .task = answer};
    casync_address address;
    char text[CASYNC_ADDRESS_TEXT];
    int64_t result;
    if ((result = casync_signal_start(loop, &interrupt, SIGINT, 0, stop, NULL)) < 0) return result;
    if ((result = casync_signal_start(loop, &terminate, SIGTERM, 0, stop, NULL)) < 0) return result;
    if ((result = casync_listen(loop, &server, &desc)) < 0) return result;
    if ((result = casync_server_address(&server, &address)) < 0) return result;
    printf("listening on %s\n", casync_address_text(&address, text));
    if ((result = casync_server_join(&server)) < 0) return result; /* until stop closes it */
    return end_in_order(CASYNC_SECONDS(atoi(seconds)));
}

int main(int argc, char **argv) {
    int64_t result;
    (void)argc;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* line by line, into a pipe too */
    result = casync_run(serve, argv);
    if (result < 0) fprintf(stderr, "graceful_tasks: %s\n", casync_strerror(result));
    return result < 0;
}

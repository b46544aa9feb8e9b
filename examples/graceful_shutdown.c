/* Ending a server in order: at SIGINT or SIGTERM it accepts nothing more, answers the requests it
   is working on, closes its connections when all is sent, and ends. A second signal, or five
   seconds, cut that short. examples/graceful_tasks.c is the same by tasks.

   Run it from the repository's root:   tcc -run examples/graceful_shutdown.c [port]
   Ask it:                              echo question | nc 127.0.0.1 7000
   Each line is a request, answered after a second. Press Ctrl-C before the answer is there. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

/* The server allocates one for each connection, zeroed, and frees it after connection_lost. */
typedef struct connection {
    casync_stream stream; /* first, so that a pointer to it is a pointer to the connection */
    struct connection *next;
    casync_timer work; /* stands for whatever takes its time to find the answer */
    bool working;
} connection;

static casync_loop loop;
static casync_server server;
static casync_signal interrupt, terminate;
static casync_timer deadline;
static connection *connections;
static bool stopping;

/* Sends what is queued, then closes. */
static void finish(connection *c) {
    if (casync_finish_start(&c->stream) < 0) casync_abort(&c->stream);
}

static void connection_made(casync_stream *stream) {
    connection *c = (connection *)stream;
    c->next = connections;
    connections = c;
}

static void answer(void *arg) {
    connection *c = (connection *)arg;
    c->working = false;
    printf("answered a request\n");
    if (casync_write(&c->stream, "answer\n", 7) != 7)
        casync_abort(&c->stream);
    else if (stopping)
        finish(c);
    else if (casync_resume_reading(&c->stream) < 0)
        casync_abort(&c->stream);
}

/* One request at a time: we read on when it is answered. */
static void data_received(casync_stream *stream, casync_span line) {
    connection *c = (connection *)stream;
    (void)line;
    if (casync_pause_reading(stream) < 0 ||
        casync_call_later(&loop, &c->work, CASYNC_SECONDS(1), answer, c) < 0) {
        casync_abort(stream);
        return;
    }
    c->working = true;
    printf("working on a request\n");
}

static void connection_lost(casync_stream *stream, int64_t error) {
    connection *c = (connection *)stream;
    connection **link = &connections;
    while (*link != c) link = &(*link)->next;
    *link = c->next;
    casync_timer_stop(&c->work); /* nobody waits for the answer any more */
    printf("connection ended: %s\n", casync_strerror(error));
}

static const casync_protocol protocol = {
    .connection_made = connection_made,
    .data_received = data_received,
    .connection_lost = connection_lost,
};

static const casync_framing lines = {
    .kind = CASYNC_FRAMING_DELIMITER, .size = 1, .delimiter = "\n"};

/* Closed, the server still leads to its connections. */
static void give_up(void *arg) {
    (void)arg;
    printf("aborting what is left\n");
    casync_server_abort_clients(&server);
}

/* finish does not call connection_lost itself (the loop does, later): the list stays whole. */
static void stop(void *arg) {
    connection *c;
    (void)arg;
    if (stopping) {
        give_up(NULL);
        return;
    }
    stopping = true;
    printf("stopping\n");
    casync_server_close(&server);
    for (c = connections; c; c = c->next)
        if (!c->working) finish(c);
    if (casync_call_later(&loop, &deadline, CASYNC_SECONDS(5), give_up, NULL) < 0)
        give_up(NULL);
    else
        casync_timer_ref(&deadline, false); /* when all is done, the loop does not wait for it */
}

static int64_t watch_signal(casync_signal *signal, int signum) {
    int64_t result = casync_signal_start(&loop, signal, signum, 0, stop, NULL);
    if (result >= 0) casync_signal_ref(signal, false); /* the signal alone is no reason to go on */
    return result;
}

static int64_t serve(int port) {
    casync_listen_desc desc = {
        .host = "127.0.0.1",
        .port = port,
        .protocol = &protocol,
        .conn_size = sizeof(connection),
        .options = {.framing = &lines},
    };
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
    if (result < 0) fprintf(stderr, "graceful_shutdown: %s\n", casync_strerror(result));
    return result < 0;
}

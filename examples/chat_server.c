/* A chat server: lines, names, a list of clients, and what to do about a client that reads too
   slowly.

   Run it from the repository's root:   tcc -run examples/chat_server.c [port]
   Join from several terminals:         nc 127.0.0.1 7000
   The first line is your name, /quit leaves. Ctrl-C ends the server; the default port is 7000. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The server allocates one for each connection, zeroed, and frees it after connection_lost. */
typedef struct client {
    casync_stream stream; /* first, so that a pointer to it is a pointer to the client */
    struct client *next;
    char name[32];
    bool joined;
    bool slow;       /* more waits to be sent to it than the high-water mark allows */
    unsigned missed; /* messages it was not sent because of that */
} client;

static casync_loop loop;
static casync_server server;
static casync_signal interrupt, terminate;
static client *clients; /* those who joined */

/* A client that does not read must not cost us memory without end: it misses messages instead. */
static void send_text(client *to, const char *text, size_t size) {
    if (to->slow)
        to->missed++;
    else if (casync_write(&to->stream, text, size) != (int64_t)size)
        casync_abort(&to->stream); /* connection_lost comes later, so `clients` stays as it is */
}

/* Sends a message to everybody but `from` (may be NULL), and to our own log. */
static void broadcast(const client *from, const char *format, ...) {
    char text[1200]; /* name and line fit in */
    va_list values;
    client *to;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    fputs(text, stdout);
    for (to = clients; to; to = to->next)
        if (to != from) send_text(to, text, strlen(text));
}

static void ask_name(client *c) { send_text(c, "Your name?\n", 11); }

static void join(client *c, const char *name, int length) {
    if (length == 0 || length >= (int)sizeof c->name) {
        ask_name(c);
        return;
    }
    memcpy(c->name, name, (size_t)length);
    c->joined = true;
    c->next = clients;
    clients = c;
    broadcast(c, "* %s joined\n", c->name);
}

static void leave(client *c) {
    client **link = &clients;
    if (!c->joined) return;
    while (*link != c) link = &(*link)->next;
    *link = c->next;
    c->joined = false;
    broadcast(NULL, "* %s left\n", c->name);
}

static void connection_made(casync_stream *stream) { ask_name((client *)stream); }

/* `data` is one line, because of the framing that the server's options ask for. */
static void data_received(casync_stream *stream, casync_span data) {
    client *c = (client *)stream;
    const char *line = (const char *)data.ptr;
    int length = (int)data.len - 1; /* without its newline */
    if (length > 0 && line[length - 1] == '\r') length--;
    if (!c->joined) {
        join(c, line, length);
    } else if (length == 5 && memcmp(line, "/quit", 5) == 0) {
        leave(c);
        if (casync_finish_start(stream) < 0) casync_abort(stream);
    } else {
        broadcast(c, "%s: %.*s\n", c->name, length, line);
    }
}

/* It will send no more. It has left before the stream is finished, so nothing is written to it
   then. */
static bool eof_received(casync_stream *stream) {
    leave((client *)stream);
    return false;
}

static void pause_writing(casync_stream *stream) { ((client *)stream)->slow = true; }

static void resume_writing(casync_stream *stream) {
    client *c = (client *)stream;
    char text[64];
    c->slow = false;
    if (!c->joined || c->missed == 0) return;
    snprintf(text, sizeof text, "* you were too slow and missed %u messages\n", c->missed);
    c->missed = 0;
    send_text(c, text, strlen(text));
}

static void connection_lost(casync_stream *stream, int64_t error) {
    if (error < 0) printf("# a connection ended: %s\n", casync_strerror(error));
    leave((client *)stream);
}

static const casync_protocol chat = {
    .connection_made = connection_made,
    .data_received = data_received,
    .eof_received = eof_received,
    .pause_writing = pause_writing,
    .resume_writing = resume_writing,
    .connection_lost = connection_lost,
};

static const casync_framing lines = {
    .kind = CASYNC_FRAMING_DELIMITER, .size = 1, .delimiter = "\n"};

/* Clients still get what was said. A second Ctrl-C kills, should one of them never read it. */
static void quit(void *arg) {
    (void)arg;
    broadcast(NULL, "* the server ends\n");
    casync_server_close(&server);
    casync_server_finish_clients(&server);
}

static int64_t watch_signal(casync_signal *signal, int signum) {
    int64_t result = casync_signal_start(&loop, signal, signum, CASYNC_SIGNAL_ONCE, quit, NULL);
    if (result >= 0) casync_signal_ref(signal, false); /* the signal alone is no reason to go on */
    return result;
}

static int64_t serve(int port) {
    casync_listen_desc desc = {
        .host = "127.0.0.1",
        .port = port,
        .protocol = &chat,
        .conn_size = sizeof(client),
        .options = {.framing = &lines, .read_limit = 1000},
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
    if (result < 0) fprintf(stderr, "chat_server: %s\n", casync_strerror(result));
    return result < 0;
}

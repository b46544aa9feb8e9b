/* A port forwarder: what comes to a port goes on to a host and port elsewhere, by name, and what
   comes back is returned. When one side sends no more, the other hears of it, and may go on.

   Something to forward to:             python3 -m http.server --bind 127.0.0.1 8000
   Run it from the repository's root:   tcc -run examples/port_forwarder.c 7000 localhost 8000
   Ask it:                              curl http://127.0.0.1:7000/ */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static const char *target_host;
static int target_port;

typedef struct pump {
    casync_stream *from, *to;
} pump;

/* One direction, to its end. write_all waits for a slow reader, so nothing piles up. */
static int64_t pump_bytes(casync_loop *loop, void *arg) {
    pump *p = (pump *)arg;
    char buffer[16384];
    int64_t n;
    (void)loop;
    while ((n = casync_read(p->from, buffer, sizeof buffer)) > 0)
        if ((n = casync_write_all(p->to, buffer, (size_t)n)) < 0) return n;
    return n < 0 ? n : casync_write_eof(p->to);
}

/* Both directions: if one fails, the group cancels the other. */
static int64_t forward(casync_stream *client, casync_stream *target) {
    pump there = {client, target}, back = {target, client};
    casync_task_group group;
    int64_t result = casync_task_group_begin(&group);
    if (result < 0) return result;
    result = casync_task_group_spawn(&group, pump_bytes, &there) &&
                     casync_task_group_spawn(&group, pump_bytes, &back)
                 ? 0
                 : -ENOMEM;
    return casync_task_group_end(&group, result);
}

static int64_t serve(casync_loop *loop, void *connection) {
    casync_connect_desc desc = {.host = target_host, .port = target_port};
    casync_stream target = {0};
    int64_t result = casync_connect(loop, &target, &desc);
    if (result < 0) {
        printf("cannot reach %s: %s\n", target_host, casync_strerror(result));
        return result;
    }
    result = forward((casync_stream *)connection, &target);
    casync_close(&target);
    return result;
}

static casync_server server;

static void stop(void *arg) {
    (void)arg;
    casync_server_close(&server);
}

static int64_t amain(casync_loop *loop, void *arg) {
    casync_listen_desc desc = {.host = "127.0.0.1", .port = atoi((char *)arg), .task = serve};
    casync_signal interrupt = {0};
    casync_address address;
    char text[CASYNC_ADDRESS_TEXT];
    int64_t result = casync_listen(loop, &server, &desc);
    if (result >= 0) result = casync_server_address(&server, &address);
    if (result >= 0)
        result = casync_signal_start(loop, &interrupt, SIGINT, CASYNC_SIGNAL_ONCE, stop, NULL);
    if (result < 0) return result;
    printf("listening on %s\n", casync_address_text(&address, text));
    fflush(stdout);
    result = casync_server_join(&server);
    casync_signal_stop(&interrupt);
    return result;
}

int main(int argc, char **argv) {
    int64_t result;
    if (argc != 4) {
        fprintf(stderr, "usage: port_forwarder port host port\n");
        return 2;
    }
    target_host = argv[2];
    target_port = atoi(argv[3]);
    result = casync_run(amain, argv[1]);
    if (result < 0) fprintf(stderr, "port_forwarder: %s\n", casync_strerror(result));
    return result < 0;
}

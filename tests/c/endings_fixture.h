/* endings_fixture.h - servers whose connections end; what the exception handler heard of it. */
#ifndef ENDINGS_FIXTURE_H
#define ENDINGS_FIXTURE_H

#include "streams_fixture.h"

HELPER casync_server server;
HELPER casync_listen_desc listen_desc;
HELPER int client = -1; /* the other side of the connection: a plain descriptor */
HELPER char client_name[CASYNC_ADDRESS_TEXT];
HELPER casync_stream *served; /* the server's side, while it is there */
HELPER casync_task *serving;
HELPER char block[1 << 20]; /* what is written */

/* What the exception handler heard: said as "told=ERROR", the rest is here. */
HELPER struct {
    int times;
    size_t unsent;
    casync_stream *stream;
    casync_datagram *datagram;
    char peer[CASYNC_ADDRESS_TEXT];
} told;

HELPER void (*when_told)(casync_stream *stream);

HELPER void hear(casync_loop *where, const casync_exception *exception, void *arg) {
    casync_address address;
    EXPECT(arg == NULL && exception->message[0]);
    PTR_EQ(where, &loop);
    say_number("told", exception->error);
    told.times++;
    told.unsent = exception->unsent;
    told.stream = exception->stream;
    told.datagram = exception->datagram;
    told.peer[0] = 0;
    if (exception->peer)
        casync_address_text(exception->peer, told.peer);
    else if (exception->stream && casync_peer_address(exception->stream, &address) == 0)
        casync_address_text(&address, told.peer);
    if (when_told) when_told(exception->stream);
}

HELPER void open_hearing_loop(int clock) {
    casync_loop_desc desc = ZERO;
    desc.clock = clock;
    desc.exception_handler = hear;
    open_loop_with(desc);
}

HELPER int connect_client(void) {
    struct sockaddr_in local;
    casync_address address;
    socklen_t size = sizeof local;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;
    EQ(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    EQ(casync_server_address(&server, &address), 0);
    memset(&local, 0, sizeof local);
    local.sin_family = AF_INET;
    local.sin_port = htons((uint16_t)casync_address_port(&address));
    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EQ(connect(fd, (struct sockaddr *)&local, sizeof local), 0);
    EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    EQ(getsockname(fd, (struct sockaddr *)&local, &size), 0);
    snprintf(client_name, sizeof client_name, "127.0.0.1:%d", ntohs(local.sin_port));
    return fd;
}

HELPER void listen_for_tasks(casync_coroutine task) {
    listen_desc.host = "127.0.0.1";
    listen_desc.task = task;
    EQ(casync_listen(&loop, &server, &listen_desc), 0);
}

/* A server with one connection, whose task has begun and waits, or is done. */
HELPER void serve_one_by(int clock, casync_coroutine task) {
    open_hearing_loop(clock);
    listen_for_tasks(task);
    client = connect_client();
    while (!served) turn();
}

HELPER int64_t begin_to_serve(void *connection) {
    served = (casync_stream *)connection;
    serving = casync_current_task();
    return 0;
}

/* Reads until the end; returns how many bytes came. Runs the loop meanwhile. */
HELPER int64_t client_reads_all(void) {
    static char bytes[1 << 16];
    int64_t total = 0;
    for (;;) {
        ssize_t n = read(client, bytes, sizeof bytes);
        if (n == 0) return total;
        if (n > 0) total += n;
        if (n < 0 && errno != EAGAIN) return -errno;
        turn();
    }
}

HELPER void end(void) {
    casync_server_close(&server);
    if (client >= 0) close(client);
    turns(3);
    close_loop();
}

/* More than the kernel takes while the client does not read. */
enum { MUCH = 16 << 20 };
HELPER int64_t write_much(casync_stream *stream, int64_t size) {
    int64_t written;
    for (written = 0; written < size; written += (int64_t)sizeof block)
        EQ(casync_write_ref(stream, block, sizeof block, NULL, NULL), sizeof block);
    return size;
}

HELPER int64_t writes_and_sleeps(casync_loop *where, void *connection) {
    int64_t slept;
    (void)where;
    begin_to_serve(connection);
    write_much(served, MUCH);
    slept = casync_sleep(CASYNC_SECONDS(1000000));
    serving = NULL;
    return slept;
}

HELPER casync_datagram datagram;

#endif /* ENDINGS_FIXTURE_H */

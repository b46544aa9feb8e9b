/* refusals_fixture.h - connections and sockets for tests in which the kernel refuses something. */
#ifndef REFUSALS_FIXTURE_H
#define REFUSALS_FIXTURE_H

#include "syscalls_fixture.h"
#include "streams_fixture.h"

#define FOR_GOOD INT64_MAX /* so many refusals */

HELPER casync_protocol protocol;
HELPER char text[256];

HELPER void say_result(void *op) {
    say_number("done", casync_future_result(&((casync_op *)op)->future));
}

/* Says what comes of the operation. */
HELPER void await_op(casync_future *future) {
    PTR_EQ(future, &the_op.future);
    EQ(casync_future_add_done_callback(future, NULL, say_result, &the_op), 0);
}

HELPER void open_pair(const casync_protocol *its_protocol) {
    int fds[2];
    make_socketpair(fds);
    peer = fds[1];
    EQ(casync_stream_open(&loop, &a, fds[0], its_protocol, NULL), 0);
}

HELPER void close_pair(void) {
    casync_close(&a);
    casync_future_close(&the_op.future);
    close(peer);
}

HELPER casync_server server;
HELPER casync_connect_desc connect_desc;
HELPER int client;

HELPER void listen_somewhere(const casync_protocol *its_protocol, bool paused) {
    casync_listen_desc desc = ZERO;
    casync_address address;
    desc.host = connect_desc.host = "127.0.0.1";
    desc.protocol = its_protocol;
    desc.start_paused = paused;
    EQ(casync_listen(&loop, &server, &desc), 0);
    EQ(casync_server_address(&server, &address), 0);
    connect_desc.port = casync_address_port(&address);
}

/* A client of the test's own, whose connection waits in the kernel. */
HELPER void connect_client(void) {
    struct sockaddr_in local;
    memset(&local, 0, sizeof local);
    local.sin_family = AF_INET;
    local.sin_port = htons((uint16_t)connect_desc.port);
    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EQ(connect(client, (struct sockaddr *)&local, sizeof local), 0);
}

HELPER void end_accept(void) {
    casync_close(&a);
    casync_server_close(&server);
    casync_future_close(&the_op.future);
    close(client);
}

HELPER void said_and_closed(casync_stream *stream) {
    say(WORD("made"));
    casync_close(stream);
}

HELPER void begin_server(void) {
    protocol = no_protocol();
    protocol.connection_made = said_and_closed;
    listen_somewhere(&protocol, false);
    connect_client();
}

HELPER casync_datagram here;
HELPER casync_datagram_protocol datagram_protocol;

HELPER void open_datagram_pair(void) {
    casync_datagram_desc desc = ZERO;
    int fds[2];
    EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    peer = fds[1];
    desc.fd = fds[0];
    desc.use_fd = true;
    desc.protocol = &datagram_protocol;
    EQ(casync_datagram_open(&loop, &here, &desc), 0);
}

HELPER void close_datagram(void) {
    casync_datagram_close(&here);
    casync_future_close(&the_op.future);
    close(peer);
}

HELPER void said_datagram(casync_datagram *datagram, casync_span data, const casync_address *from) {
    (void)datagram, (void)data, (void)from;
    say(WORD("received"));
}

HELPER void said_datagram_error(casync_datagram *datagram, int64_t error) {
    (void)datagram;
    say_number("error", error);
}

HELPER int refused_command;

HELPER int64_t refuse_command(int fd, int command, int argument) {
    return command == refused_command ? -EACCES : casync__direct_fcntl(fd, command, argument);
}

HELPER void refuse_fcntl(int command) {
    refused_command = command;
    casync_syscalls.fcntl = refuse_command;
}

/* The sum of these is small if it is let wrap. */
HELPER casync_span wrapping[2];

HELPER void make_wrapping_spans(void) {
    wrapping[0].ptr = wrapping[1].ptr = text;
    wrapping[0].len = SIZE_MAX - 2;
    wrapping[1].len = 10;
}

#endif /* REFUSALS_FIXTURE_H */

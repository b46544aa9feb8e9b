/* servers_fixture.h - a server, and a client that leads there. */
#ifndef SERVERS_FIXTURE_H
#define SERVERS_FIXTURE_H

#include "streams_fixture.h"

HELPER casync_protocol protocol;
HELPER casync_server server;
HELPER casync_listen_desc listen_desc;
HELPER casync_connect_desc connect_desc;
HELPER casync_address address;
HELPER char words[CASYNC_ADDRESS_TEXT];

/* Listens at `host` and makes connect_desc lead there. */
HELPER void listen_at(const char *host) {
    listen_desc.host = host;
    EQ(casync_listen(&loop, &server, &listen_desc), 0);
    EQ(casync_server_address(&server, &address), 0);
    connect_desc.host = host;
    connect_desc.port = casync_address_port(&address);
    EXPECT(connect_desc.port > 0);
}

HELPER void close_all(void) {
    casync_close(&a);
    casync_close(&b);
    casync_server_close(&server);
    close_loop();
}

HELPER char text[256];

HELPER int accepted_fd = -1;

HELPER void accepted(casync_server *by, int fd, const casync_address *from) {
    PTR_EQ(by, &server);
    EQ(strncmp(casync_address_text(from, words), "127.0.0.1:", 10), 0);
    EXPECT(fcntl(fd, F_GETFL) & O_NONBLOCK);
    EXPECT(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    accepted_fd = fd;
}

#endif /* SERVERS_FIXTURE_H */

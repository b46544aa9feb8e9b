/* echo.h - an echo connection on a bare non-blocking socket, for loops that bring no streams. */
#include "bench.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* What was read and not yet written waits in `pending`; meanwhile nothing more is read. */
typedef struct echo {
    int fd;
    char *pending;
    size_t start, size;
} echo;

typedef enum echo_state { ECHO_READS, ECHO_WRITES, ECHO_ENDED } echo_state;

static inline int echo_listen(int *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bench_check(fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0 &&
                    listen(fd, 4096) == 0,
                "listen");
    getsockname(fd, (struct sockaddr *)&address, &size);
    *port = ntohs(address.sin_port);
    return fd;
}

/* The next connection, or NULL. */
static inline echo *echo_accept(int listener, size_t size) {
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return NULL;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    echo *e = calloc(1, size);
    bench_check(e != NULL, "calloc");
    e->fd = fd;
    return e;
}

static inline int echo_connect(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_port = htons((uint16_t)port);
    bench_check(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0,
                "connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static inline void echo_free(echo *e) {
    close(e->fd);
    free(e->pending);
    free(e);
}

static inline echo_state echo_keep(echo *e, const char *data, size_t size) {
    e->pending = malloc(size);
    bench_check(e->pending != NULL, "malloc");
    memcpy(e->pending, data, size);
    e->start = 0;
    e->size = size;
    return ECHO_WRITES;
}

static inline echo_state echo_read(echo *e) {
    static char buffer[262144];
    ssize_t n = read(e->fd, buffer, sizeof buffer);
    if (n < 0 && errno == EAGAIN) return ECHO_READS;
    if (n <= 0) return ECHO_ENDED;
    ssize_t sent = send(e->fd, buffer, (size_t)n, MSG_NOSIGNAL);
    if (sent == n) return ECHO_READS;
    if (sent < 0 && errno != EAGAIN) return ECHO_ENDED;
    if (sent < 0) sent = 0;
    return echo_keep(e, buffer + sent, (size_t)(n - sent));
}

static inline echo_state echo_write(echo *e) {
    ssize_t sent = send(e->fd, e->pending + e->start, e->size - e->start, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN ? ECHO_WRITES : ECHO_ENDED;
    e->start += (size_t)sent;
    if (e->start < e->size) return ECHO_WRITES;
    free(e->pending);
    e->pending = NULL;
    return ECHO_READS;
}

static inline echo_state echo_ready(echo *e) { return e->pending ? echo_write(e) : echo_read(e); }

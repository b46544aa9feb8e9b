/* loadgen.h - load for a server, by a bare epoll loop: what the load generators share.

       loadgen PORT PID CONNECTIONS SIZE

   Opens its connections once. Then, for each line COUNT on stdin, makes COUNT exchanges of SIZE
   bytes, one at a time on each connection, compares every byte that comes back, and answers with
   {"ops", "time", "check", "cpu", "user", "system"}: the exchanges, the nanoseconds they took,
   those that were right, and the CPU time the server PID used for them.

   A generator defines what is exchanged: prepare, begin_exchange and go_on. With LOADGEN_TLS the
   bytes travel over TLS, and an argument before the others names the file with the certificate of
   the server's authority. */
#ifndef LOADGEN_H
#define LOADGEN_H

#define _GNU_SOURCE
#include "echo.h"
#include <sys/epoll.h>
#ifdef LOADGEN_TLS
#include <openssl/ssl.h>
#endif

typedef struct connection {
    int fd;
    uint64_t number; /* of the exchange under way: no two are alike */
    size_t sent, received;
    bool idle; /* its exchange is complete */
#ifdef LOADGEN_TLS
    SSL *tls;
#endif
} connection;

static size_t size;
static size_t connection_count;
static connection *connections;

static void prepare(void);
static void begin_exchange(connection *c);
static bool go_on(connection *c); /* as far as it gets now; true: the exchange is complete, and
                                     was right */

static void fail(const char *why) {
    fprintf(stderr, "loadgen: %s\n", why);
    exit(1);
}

/* -- bytes: how many the connection took or gave, 0 if it cannot now -- */

#ifdef LOADGEN_TLS
static SSL_CTX *context;

static size_t tls_result(const connection *c, int result, const char *what) {
    if (result > 0) return (size_t)result;
    int error = SSL_get_error(c->tls, result);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) fail(what);
    return 0;
}

static size_t transmit(const connection *c, const char *data, size_t length) {
    return tls_result(c, SSL_write(c->tls, data, (int)length), "SSL_write failed");
}

static size_t receive(const connection *c, char *data, size_t room) {
    return tls_result(c, SSL_read(c->tls, data, (int)room), "SSL_read failed");
}

static void make_context(const char *authority) {
    context = SSL_CTX_new(TLS_client_method());
    bench_check(context && SSL_CTX_load_verify_locations(context, authority, NULL) == 1, authority);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

/* Blocks, as connecting does. */
static void handshake(connection *c) {
    c->tls = SSL_new(context);
    bench_check(c->tls && SSL_set_fd(c->tls, c->fd) == 1, "SSL_new");
    fcntl(c->fd, F_SETFL, 0);
    if (SSL_connect(c->tls) != 1) fail("the TLS handshake failed");
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
}
#else
static size_t result_of(ssize_t n, const char *what) {
    if (n < 0 && errno == EAGAIN) return 0;
    bench_check(n > 0, what);
    return (size_t)n;
}

static size_t transmit(const connection *c, const char *data, size_t length) {
    return result_of(send(c->fd, data, length, MSG_NOSIGNAL), "send");
}

static size_t receive(const connection *c, char *data, size_t room) {
    return result_of(recv(c->fd, data, room, 0), "recv");
}
#endif

/* -- exchanges -- */

static uint64_t started, finished, wanted;

static void next_exchange(connection *c) {
    c->sent = c->received = 0;
    c->number = started++;
    c->idle = false;
    begin_exchange(c);
}

static void on_event(connection *c) {
    if (c->idle || !go_on(c)) return; /* idle: an edge of the last exchange */
    c->idle = true;
    finished++;
    if (started < wanted) next_exchange(c);
}

/* Edge-triggered, once for ever: no epoll_ctl is needed between exchanges. */
static void open_all(int epoll_fd, int port) {
    for (size_t i = 0; i < connection_count; i++) {
        connection *c = &connections[i];
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
        c->fd = echo_connect(port);
        c->idle = true;
#ifdef LOADGEN_TLS
        handshake(c);
#endif
        bench_check(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event) == 0, "epoll_ctl");
    }
}

static void exchange_all(int epoll_fd) {
    struct epoll_event events[1024];
    for (size_t i = 0; i < connection_count && started < wanted; i++)
        next_exchange(&connections[i]);
    while (finished < wanted) {
        int n = epoll_wait(epoll_fd, events, 1024, 30000);
        if (n == 0) fail("no answer for 30 seconds");
        for (int i = 0; i < n; i++) on_event(events[i].data.ptr);
    }
}

/* The CPU time that a process has used, in nanoseconds. How it divides into user and system time
   the kernel estimates, by where its ticks find the process: fields 14 and 15 of its stat
   (proc(5)). */
typedef struct cpu_time {
    int64_t total, user, system;
} cpu_time;

static cpu_time cpu_time_of(const char *pid) {
    char path[64], line[1024];
    unsigned long long user = 0, system = 0;
    clockid_t clock;
    bench_check(clock_getcpuclockid(atoi(pid), &clock) == 0, "clock_getcpuclockid");
    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    FILE *file = fopen(path, "r");
    bench_check(file != NULL && fgets(line, sizeof line, file) != NULL, path);
    fclose(file);
    sscanf(strrchr(line, ')'), ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
           &system);
    int64_t tick = 1000000000 / sysconf(_SC_CLK_TCK);
    return (cpu_time){bench_now(clock), (int64_t)user * tick, (int64_t)system * tick};
}

static void run_sample(int epoll_fd, const char *pid) {
    started = finished = 0;
    cpu_time before = cpu_time_of(pid);
    int64_t start = bench_now(CLOCK_MONOTONIC);
    exchange_all(epoll_fd);
    int64_t time = bench_now(CLOCK_MONOTONIC) - start;
    cpu_time after = cpu_time_of(pid);
    printf("{\"ops\": %llu, \"time\": %lld, \"check\": %llu, \"cpu\": %lld, \"user\": %lld, "
           "\"system\": %lld}\n",
           (unsigned long long)wanted, (long long)time, (unsigned long long)finished,
           (long long)(after.total - before.total), (long long)(after.user - before.user),
           (long long)(after.system - before.system));
    fflush(stdout);
}

int main(int argc, char **argv) {
#ifdef LOADGEN_TLS
    if (argc != 6) fail("usage: loadgen_tls AUTHORITY PORT PID CONNECTIONS SIZE");
    make_context(argv[1]);
    argv++;
#else
    if (argc != 5) fail("usage: loadgen PORT PID CONNECTIONS SIZE");
#endif
    connection_count = strtoul(argv[3], NULL, 10);
    size = strtoul(argv[4], NULL, 10);
    if (connection_count == 0 || size == 0) fail("at least 1 connection and 1 byte");
    connections = calloc(connection_count, sizeof *connections);
    bench_check(connections != NULL, "calloc");
    prepare();
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    bench_check(epoll_fd >= 0, "epoll_create1");
    bench_raise_file_limit();
    open_all(epoll_fd, atoi(argv[1]));
    unsigned long long line;
    while (scanf("%llu", &line) == 1) {
        wanted = line;
        run_sample(epoll_fd, argv[2]);
    }
    return 0;
}

#endif

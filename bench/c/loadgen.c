/* loadgen.c - load for an echo server, by a bare epoll loop.

       loadgen PORT PID CONNECTIONS SIZE

   Opens its connections once. Then, for each line COUNT on stdin, exchanges COUNT messages of SIZE bytes,
   one at a time on each connection, compares every byte that comes back, and answers with {"ops", "time",
   "check", "user", "system"}: the messages, the nanoseconds they took, the messages that were right, and
   the CPU time the server PID used for them. */
#define _GNU_SOURCE
#include "echo.h"
#include <sys/epoll.h>

typedef struct connection {
    int fd;
    uint64_t number; /* of the message under way; it is the message's first bytes */
    size_t sent, received;
} connection;

static size_t size;
static char *message, *reply;
static uint64_t started, finished, wanted;

static void fail(const char *why) {
    fprintf(stderr, "loadgen: %s\n", why);
    exit(1);
}

static void compare(const connection *c, const char *data, size_t from, size_t length) {
    memcpy(message, &c->number, sizeof c->number);
    if (memcmp(message + from, data, length) != 0) fail("the echo differs from what was sent");
}

static void send_some(connection *c) {
    memcpy(message, &c->number, sizeof c->number);
    while (c->sent < size) {
        ssize_t n = send(c->fd, message + c->sent, size - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) return;
        bench_check(n > 0, "send");
        c->sent += (size_t)n;
    }
}

/* Returns 1 when the whole message is back. */
static int receive_some(connection *c) {
    while (c->received < c->sent) {
        ssize_t n = recv(c->fd, reply, size - c->received, 0);
        if (n < 0 && errno == EAGAIN) return 0;
        bench_check(n > 0, "recv");
        compare(c, reply, c->received, (size_t)n);
        c->received += (size_t)n;
    }
    return c->received == size;
}

static void next_message(connection *c) {
    c->sent = c->received = 0;
    c->number = started++;
    send_some(c);
}

static void exchange(connection *c) {
    if (c->received == size) return; /* an edge of the last message */
    send_some(c);
    if (!receive_some(c)) return;
    finished++;
    if (started < wanted) next_message(c);
}

/* Edge-triggered, once for ever: no epoll_ctl is needed between messages. */
static void open_all(connection *connections, size_t count, int epoll_fd, int port) {
    for (size_t i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = &connections[i]};
        connections[i].fd = echo_connect(port);
        connections[i].sent = connections[i].received = size;
        bench_check(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, connections[i].fd, &event) == 0, "epoll_ctl");
    }
}

static void exchange_all(connection *connections, size_t count, int epoll_fd) {
    struct epoll_event events[1024];
    for (size_t i = 0; i < count && started < wanted; i++) next_message(&connections[i]);
    while (finished < wanted) {
        int n = epoll_wait(epoll_fd, events, 1024, 30000);
        if (n == 0) fail("no answer for 30 seconds");
        for (int i = 0; i < n; i++) exchange(events[i].data.ptr);
    }
}

/* The CPU time of a process, in nanoseconds: fields 14 and 15 of its stat (proc(5)). */
static void cpu_time(const char *pid, int64_t *user, int64_t *system) {
    char path[64], line[1024];
    unsigned long long u = 0, s = 0;
    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    FILE *file = fopen(path, "r");
    bench_check(file != NULL && fgets(line, sizeof line, file) != NULL, path);
    fclose(file);
    sscanf(strrchr(line, ')'), ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &u, &s);
    int64_t tick = 1000000000 / sysconf(_SC_CLK_TCK);
    *user = (int64_t)u * tick;
    *system = (int64_t)s * tick;
}

static void run_sample(connection *connections, size_t count, int epoll_fd, const char *pid) {
    int64_t user, system, user_before, system_before, start;
    started = finished = 0;
    cpu_time(pid, &user_before, &system_before);
    start = bench_now(CLOCK_MONOTONIC);
    exchange_all(connections, count, epoll_fd);
    int64_t time = bench_now(CLOCK_MONOTONIC) - start;
    cpu_time(pid, &user, &system);
    printf("{\"ops\": %llu, \"time\": %lld, \"check\": %llu, \"user\": %lld, \"system\": %lld}\n",
           (unsigned long long)wanted, (long long)time, (unsigned long long)finished,
           (long long)(user - user_before), (long long)(system - system_before));
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc != 5) fail("usage: loadgen PORT PID CONNECTIONS SIZE");
    size_t count = strtoul(argv[3], NULL, 10);
    size = strtoul(argv[4], NULL, 10);
    if (count == 0 || size < sizeof(uint64_t)) fail("at least 1 connection and 8 bytes");
    connection *connections = calloc(count, sizeof *connections);
    message = malloc(size);
    reply = malloc(size);
    bench_check(connections && message && reply, "malloc");
    for (size_t i = 0; i < size; i++) message[i] = (char)(i * 31 + i / 251);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    bench_check(epoll_fd >= 0, "epoll_create1");
    bench_raise_file_limit();
    open_all(connections, count, epoll_fd, atoi(argv[1]));
    unsigned long long line;
    while (scanf("%llu", &line) == 1) {
        wanted = line;
        run_sample(connections, count, epoll_fd, argv[2]);
    }
    return 0;
}

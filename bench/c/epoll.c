/* epoll.c - the floor: an event loop written by hand that does nothing but dispatch. */
#define _GNU_SOURCE
#include "bench.h"
#include "echo.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

typedef struct watch {
    void (*ready)(struct watch *watch);
    int fd;
} watch;

typedef struct connection {
    echo echo;
    watch watch;
    bool writes;
} connection;

static int epoll_fd;
static bool stopped;

static void bare_stop(void) { stopped = true; }

static void bare_run(void) {
    struct epoll_event events[1024];
    for (stopped = false; !stopped;) {
        int n = epoll_wait(epoll_fd, events, 1024, -1);
        for (int i = 0; i < n; i++) ((watch *)events[i].data.ptr)->ready(events[i].data.ptr);
    }
}

static void bare_control(watch *w, int operation, uint32_t interest) {
    struct epoll_event event = {.events = interest, .data.ptr = w};
    bench_check(epoll_ctl(epoll_fd, operation, w->fd, &event) == 0, "epoll_ctl");
}

static void bare_fired(watch *w) {
    (void)w;
    if (bench_fired()) bare_stop();
}

static void bare_watch(void *handle, int fd) {
    watch *w = handle;
    w->ready = bare_fired;
    w->fd = fd;
    bare_control(w, EPOLL_CTL_ADD, EPOLLIN);
}

static void bare_unwatch(void *handle) { bare_control(handle, EPOLL_CTL_DEL, 0); }

/* The least a wakeup can be: an eventfd, which counts the posts. */
static watch wakeup;

static void wakeup_ready(watch *w) {
    uint64_t count;
    bench_check(read(w->fd, &count, sizeof count) == sizeof count, "read");
    while (count-- > 0) bare_fired(w);
}

static void bare_post(void *item) {
    uint64_t one = 1;
    (void)item;
    bench_check(write(wakeup.fd, &one, sizeof one) == sizeof one, "write");
}

static void connection_ready(watch *w) {
    connection *c = (connection *)((char *)w - offsetof(connection, watch));
    echo_state state = echo_ready(&c->echo);
    if (state == ECHO_ENDED) {
        echo_free(&c->echo);
    } else if ((state == ECHO_WRITES) != c->writes) {
        c->writes = !c->writes;
        bare_control(w, EPOLL_CTL_MOD, c->writes ? EPOLLOUT : EPOLLIN);
    }
}

static void listener_ready(watch *w) {
    echo *e;
    while ((e = echo_accept(w->fd, sizeof(connection)))) {
        connection *c = (connection *)e;
        c->watch.ready = connection_ready;
        c->watch.fd = e->fd;
        bare_control(&c->watch, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static int bare_echo(void) {
    static watch listener = {.ready = listener_ready};
    int port;
    listener.fd = echo_listen(&port);
    bare_control(&listener, EPOLL_CTL_ADD, EPOLLIN);
    return port;
}

static void client_ready(watch *w) {
    static char reply[1024];
    static size_t received;
    ssize_t n = read(w->fd, reply, sizeof reply - received);
    bench_check(n > 0, "read");
    received += (size_t)n;
    if (received < sizeof reply) return;
    received = 0;
    if (bench_fired()) {
        close(w->fd);
        bare_stop();
    } else {
        bench_check(send(w->fd, reply, sizeof reply, 0) == sizeof reply, "send");
    }
}

static void bare_round_trips(void) {
    static watch client = {.ready = client_ready};
    static char message[1024];
    static int port;
    if (!port) port = bare_echo();
    client.fd = echo_connect(port);
    bare_control(&client, EPOLL_CTL_ADD, EPOLLIN);
    bench_check(send(client.fd, message, sizeof message, 0) == sizeof message, "send");
    bare_run();
}

static void bare_init(void) {
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    wakeup.ready = wakeup_ready;
    wakeup.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    bare_control(&wakeup, EPOLL_CTL_ADD, EPOLLIN);
}

static const library lib = {
    .init = bare_init,
    .run = bare_run,
    .stop = bare_stop,
    .post_size = 1,
    .post = bare_post,
    .watch_size = sizeof(watch),
    .watch = bare_watch,
    .unwatch = bare_unwatch,
    .round_trips = bare_round_trips,
    .echo = bare_echo,
};

#include "rows.h"

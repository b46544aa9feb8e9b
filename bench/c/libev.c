/* libev.c - libev behind the `library` table. */
#define _GNU_SOURCE
#include "bench.h"
#include "echo.h"
#include "post_queue.h"
#include <ev.h>

typedef struct connection {
    echo echo;
    ev_io io;
} connection;

static struct ev_loop *loop;
static ev_async wakeup;

static void fired(struct ev_loop *l, int last) {
    if (last) ev_break(l, EVBREAK_ONE);
}

static void timer_fired(struct ev_loop *l, ev_timer *w, int events) {
    (void)w, (void)events;
    fired(l, bench_fired());
}

static void soon_fired(struct ev_loop *l, ev_prepare *w, int events) {
    (void)w, (void)events;
    fired(l, bench_fired());
}

static void fd_fired(struct ev_loop *l, ev_io *w, int events) {
    (void)w, (void)events;
    fired(l, bench_fired());
}

static void wakeup_fired(struct ev_loop *l, ev_async *w, int events) {
    (void)l, (void)w, (void)events;
    posted_run();
}

static void init(void) {
    loop = ev_loop_new(EVBACKEND_EPOLL);
    bench_check(loop != NULL, "ev_loop_new");
    ev_async_init(&wakeup, wakeup_fired);
    ev_async_start(loop, &wakeup);
}

static void run(void) { ev_run(loop, 0); }
static void stop(void) { ev_break(loop, EVBREAK_ONE); }

static void timer_init(void *timer) { ev_init((ev_timer *)timer, timer_fired); }

static void timer_start(void *timer, int64_t delay) {
    ev_timer_set((ev_timer *)timer, (double)delay / 1e9, 0.);
    ev_timer_start(loop, timer);
}

static void timer_start_from_now(void *timer, int64_t delay) {
    ev_now_update(loop);
    timer_start(timer, delay);
}

static void timer_stop(void *timer) { ev_timer_stop(loop, timer); }
static bool timer_active(const void *timer) { return ev_is_active((const ev_timer *)timer); }

/* ev_feed_event queues any watcher's callback, started or not. */
static void soon_init(void *soon) { ev_init((ev_prepare *)soon, soon_fired); }
static void soon(void *soon) { ev_feed_event(loop, soon, EV_CUSTOM); }

static void post_fired(void *arg) { fired(arg, bench_fired()); }

static void post(void *item) {
    posted_push(item, post_fired, loop);
    ev_async_send(loop, &wakeup);
}

static void watch(void *io, int fd) {
    ev_io_init((ev_io *)io, fd_fired, fd, EV_READ);
    ev_io_start(loop, io);
}

static void unwatch(void *io) { ev_io_stop(loop, io); }

static void connection_ready(struct ev_loop *l, ev_io *io, int events) {
    connection *c = (connection *)((char *)io - offsetof(connection, io));
    echo_state state = echo_ready(&c->echo);
    int wanted = state == ECHO_WRITES ? EV_WRITE : EV_READ;
    if (state != ECHO_ENDED && (events & wanted)) return;
    ev_io_stop(l, io);
    if (state == ECHO_ENDED) {
        echo_free(&c->echo);
        return;
    }
    ev_io_set(io, c->echo.fd, wanted);
    ev_io_start(l, io);
}

static void listener_ready(struct ev_loop *l, ev_io *io, int events) {
    echo *e;
    (void)events;
    while ((e = echo_accept(io->fd, sizeof(connection)))) {
        connection *c = (connection *)e;
        ev_io_init(&c->io, connection_ready, e->fd, EV_READ);
        ev_io_start(l, &c->io);
    }
}

static int serve(void) {
    static ev_io listener;
    int port, fd = echo_listen(&port);
    ev_io_init(&listener, listener_ready, fd, EV_READ);
    ev_io_start(loop, &listener);
    return port;
}

static const library lib = {
    .init = init,
    .run = run,
    .stop = stop,
    .timer_size = sizeof(ev_timer),
    .timer_init = timer_init,
    .timer_start = timer_start,
    .timer_start_from_now = timer_start_from_now,
    .timer_stop = timer_stop,
    .timer_active = timer_active,
    .soon_size = sizeof(ev_prepare),
    .soon_init = soon_init,
    .soon = soon,
    .post_size = sizeof(posted),
    .post = post,
    .watch_size = sizeof(ev_io),
    .watch = watch,
    .unwatch = unwatch,
    .echo = serve,
};

#include "rows.h"

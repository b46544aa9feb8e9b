/* casync.c - casync behind the `library` table. */
#define CASYNC_IMPLEMENTATION
#define CASYNC_STATIC
#include "../../casync.h"
#include "bench.h"

static casync_loop loop;

static void fired(void *arg) {
    (void)arg;
    if (bench_fired()) casync_stop(&loop);
}

static void init(void) { bench_check(casync_loop_init(&loop, NULL) == 0, "casync_loop_init"); }
static void run(void) { casync_run_forever(&loop); }
static void stop(void) { casync_stop(&loop); }

static void timer_init(void *timer) { (void)timer; }

static void timer_start(void *timer, int64_t delay) {
    casync_call_at(&loop, timer, casync_now(&loop) + delay, fired, NULL);
}

static void timer_start_from_now(void *timer, int64_t delay) {
    casync_call_later(&loop, timer, delay, fired, NULL);
}

static void timer_stop(void *timer) { casync_timer_stop(timer); }
static bool timer_active(const void *timer) { return casync_timer_remaining(timer) >= 0; }

static void soon_init(void *soon) { (void)soon; }
static void soon(void *soon) { casync_call_soon(&loop, soon, fired, NULL); }
static void post(void *item) {
    (void)item;
    casync_call_soon_threadsafe(&loop, NULL, fired, NULL);
}

static void watch(void *watcher, int fd) {
    bench_check(casync_add_reader(&loop, watcher, fd, fired, NULL) == 0, "casync_add_reader");
}

static void unwatch(void *watcher) { casync_remove_reader(watcher); }

static casync_op op;

static void when_done(casync_future *future) {
    static casync_job job;
    casync_future_add_done_callback(future, &job, fired, NULL);
}

static void read_file(int fd) {
    static char bytes[4096];
    when_done(casync_file_pread_op(&loop, &op, fd, bytes, sizeof bytes, 0));
}

static void look_up(const char *host) {
    static casync_addrinfo info;
    casync_getaddrinfo_desc desc = {.host = host};
    casync_addrinfo_free(&info);
    when_done(casync_getaddrinfo_op(&loop, &info, &op, &desc));
}

static void spawn(const char *program) {
    static casync_process process;
    const char *args[] = {program, NULL};
    casync_process_desc desc = {.args = args};
    bench_check(casync_process_start(&loop, &process, &desc) == 0, "casync_process_start");
    when_done(casync_process_wait_op(&process, &op));
}

static void received(casync_stream *stream, casync_span data) {
    if (casync_write(stream, data.ptr, data.len) < 0) casync_abort(stream);
}

static int serve(void) {
    static const casync_protocol protocol = {.data_received = received};
    static casync_server server;
    casync_listen_desc desc = {.host = "127.0.0.1", .backlog = 4096, .protocol = &protocol};
    casync_address address;
    bench_check(casync_listen(&loop, &server, &desc) == 0, "casync_listen");
    bench_check(casync_server_address(&server, &address) == 0, "casync_server_address");
    return casync_address_port(&address);
}

static const library lib = {
    .init = init,
    .run = run,
    .stop = stop,
    .timer_size = sizeof(casync_timer),
    .timer_init = timer_init,
    .timer_start = timer_start,
    .timer_start_from_now = timer_start_from_now,
    .timer_stop = timer_stop,
    .timer_active = timer_active,
    .soon_size = sizeof(casync_job),
    .soon_init = soon_init,
    .soon = soon,
    .post_size = 1, /* the loop keeps the call */
    .post = post,
    .watch_size = sizeof(casync_watcher),
    .watch = watch,
    .unwatch = unwatch,
    .read_file = read_file,
    .look_up = look_up,
    .spawn = spawn,
    .echo = serve,
};

#include "rows.h"

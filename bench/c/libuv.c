/* libuv.c - libuv behind the `library` table. */
#define _GNU_SOURCE
#include "bench.h"
#include "post_queue.h"
#include <arpa/inet.h>
#include <string.h>
#include <uv.h>

static uv_loop_t loop;
static uv_async_t wakeup;

static void fired(bool last) {
    if (last) uv_stop(&loop);
}

static void timer_fired(uv_timer_t *timer) {
    (void)timer;
    fired(bench_fired());
}

static void soon_fired(uv_idle_t *idle) {
    uv_idle_stop(idle);
    fired(bench_fired());
}

static void fd_fired(uv_poll_t *poll, int status, int events) {
    (void)poll, (void)status, (void)events;
    fired(bench_fired());
}

static void wakeup_fired(uv_async_t *async) {
    (void)async;
    posted_run();
}

static void init(void) {
    bench_check(uv_loop_init(&loop) == 0, "uv_loop_init");
    uv_async_init(&loop, &wakeup, wakeup_fired);
}

static void run(void) { uv_run(&loop, UV_RUN_DEFAULT); }
static void stop(void) { uv_stop(&loop); }
static void close_handle(void *handle) { uv_close(handle, NULL); }
static void end_closing(void) { uv_run(&loop, UV_RUN_NOWAIT); }

static void timer_init(void *timer) { uv_timer_init(&loop, timer); }

static void timer_start(void *timer, int64_t delay) {
    uv_timer_start(timer, timer_fired, (uint64_t)delay / 1000000, 0);
}

static void timer_start_from_now(void *timer, int64_t delay) {
    uv_update_time(&loop);
    timer_start(timer, delay);
}

static void timer_stop(void *timer) { uv_timer_stop(timer); }
static bool timer_active(const void *timer) { return uv_is_active(timer); }

/* libuv has no call_soon. An idle handle that stops itself is the nearest: it runs in the next
   turn, and keeps the loop from waiting. */
static void soon_init(void *soon) { uv_idle_init(&loop, soon); }
static void soon(void *soon) { uv_idle_start(soon, soon_fired); }

static void post_fired(void *arg) {
    (void)arg;
    fired(bench_fired());
}

static void post(void *item) {
    posted_push(item, post_fired, NULL);
    uv_async_send(&wakeup);
}

static void watch(void *poll, int fd) {
    bench_check(uv_poll_init(&loop, poll, fd) == 0, "uv_poll_init");
    uv_poll_start(poll, UV_READABLE, fd_fired);
}

static void unwatch(void *poll) { uv_poll_stop(poll); }

static void file_read(uv_fs_t *request) {
    uv_fs_req_cleanup(request);
    fired(bench_fired());
}

static void read_file(int fd) {
    static char bytes[4096];
    static uv_fs_t request;
    uv_buf_t buffer = uv_buf_init(bytes, sizeof bytes);
    uv_fs_read(&loop, &request, fd, &buffer, 1, 0, file_read);
}

static void looked_up(uv_getaddrinfo_t *request, int status, struct addrinfo *found) {
    (void)request;
    bench_check(status == 0, "uv_getaddrinfo");
    uv_freeaddrinfo(found);
    fired(bench_fired());
}

static void look_up(const char *host) {
    static uv_getaddrinfo_t request;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    bench_check(uv_getaddrinfo(&loop, &request, looked_up, host, NULL, &hints) == 0,
                "uv_getaddrinfo");
}

static void process_closed(uv_handle_t *process) {
    (void)process;
    fired(bench_fired());
}

static void exited(uv_process_t *process, int64_t status, int signum) {
    (void)status, (void)signum;
    uv_close((uv_handle_t *)process, process_closed);
}

static void spawn(const char *program) {
    static uv_process_t process;
    char *args[] = {(char *)program, NULL};
    uv_process_options_t options = {.exit_cb = exited, .file = program, .args = args};
    bench_check(uv_spawn(&loop, &process, &options) == 0, "uv_spawn");
}

static void closed(uv_handle_t *handle) { free(handle); }

static void give_buffer(uv_handle_t *handle, size_t hint, uv_buf_t *buffer) {
    static char bytes[65536];
    (void)handle, (void)hint;
    *buffer = uv_buf_init(bytes, sizeof bytes);
}

static void written(uv_write_t *request, int status) {
    (void)status;
    free(request);
}

/* What the socket did not take at once waits in a copy behind its request. */
static void write_rest(uv_stream_t *stream, const char *data, size_t size) {
    uv_write_t *request = malloc(sizeof *request + size);
    bench_check(request != NULL, "malloc");
    uv_buf_t rest = uv_buf_init((char *)(request + 1), (unsigned)size);
    memcpy(rest.base, data, size);
    uv_write(request, stream, &rest, 1, written);
}

static void received(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer) {
    if (size == 0) return;
    if (size < 0) {
        uv_close((uv_handle_t *)stream, closed);
        return;
    }
    uv_buf_t data = uv_buf_init(buffer->base, (unsigned)size);
    int sent = uv_try_write(stream, &data, 1);
    if (sent < 0) sent = 0;
    if (sent < size) write_rest(stream, buffer->base + sent, (size_t)(size - sent));
}

static void connected(uv_stream_t *listener, int status) {
    uv_tcp_t *stream = malloc(sizeof *stream);
    bench_check(stream != NULL && status == 0, "accept");
    uv_tcp_init(&loop, stream);
    uv_accept(listener, (uv_stream_t *)stream);
    uv_tcp_nodelay(stream, 1);
    uv_read_start((uv_stream_t *)stream, give_buffer, received);
}

static int serve(void) {
    static uv_tcp_t listener;
    struct sockaddr_in address;
    int size = sizeof address;
    uv_ip4_addr("127.0.0.1", 0, &address);
    uv_tcp_init(&loop, &listener);
    uv_tcp_bind(&listener, (struct sockaddr *)&address, 0);
    bench_check(uv_listen((uv_stream_t *)&listener, 4096, connected) == 0, "uv_listen");
    uv_tcp_getsockname(&listener, (struct sockaddr *)&address, &size);
    return ntohs(address.sin_port);
}

static const library lib = {
    .init = init,
    .run = run,
    .stop = stop,
    .close = close_handle,
    .closed = end_closing,
    .timer_size = sizeof(uv_timer_t),
    .timer_init = timer_init,
    .timer_start = timer_start,
    .timer_start_from_now = timer_start_from_now,
    .timer_stop = timer_stop,
    .timer_active = timer_active,
    .soon_size = sizeof(uv_idle_t),
    .soon_init = soon_init,
    .soon = soon,
    .post_size = sizeof(posted),
    .post = post,
    .watch_size = sizeof(uv_poll_t),
    .watch = watch,
    .unwatch = unwatch,
    .read_file = read_file,
    .look_up = look_up,
    .spawn = spawn,
    .echo = serve,
};

#include "rows.h"

/* >> system calls: sweep: each call to the kernel fails once, and nothing waits for ever: it goes
   on, or who waits is told. */
#include "syscalls_fixture.h"

#include "streams_fixture.h"

static casync_server echo_server;
static casync_listen_desc listen_desc;
static casync_connect_desc connect_desc;

/* The loop is about to sleep until something comes. If that takes seconds, nothing will: all that
   is awaited comes from this loop itself. */
static void expect_something(void *arg, int64_t timeout) {
    struct pollfd backend;
    (void)arg;
    if (timeout != CASYNC_FOREVER) return;
    backend.fd = loop.backend_fd;
    backend.events = POLLIN;
    if (poll(&backend, 1, 5000) == 0)
        test__fail(__FILE__, __LINE__, "all wait after %s failed with %d", last_failed,
                   (int)fault.error);
}

/* >> what is done ----------------------------------------------------------------------------- */

/* Whoever has an error closes what is his, so that the others hear of it. */

static int64_t echo_one_client(casync_loop *where, void *arg) {
    casync_stream stream = ZERO;
    char buffer[1000];
    int64_t n;
    (void)where, (void)arg;
    n = casync_await(casync_accept_op(&echo_server, &the_op, &stream));
    if (n < 0) casync_server_close(&echo_server);
    if (n < 0) return n;
    while ((n = casync_read(&stream, buffer, sizeof buffer)) > 0) {
        n = casync_write(&stream, buffer, (size_t)n);
        if (n >= 0) n = casync_drain(&stream);
        if (n < 0) break;
    }
    if (n == 0) n = casync_finish(&stream);
    casync_close(&stream);
    return n;
}

/* Says three lines, hears them again, and then the end. */
static int64_t talk(casync_stream *stream) {
    const void *line;
    char rest[16];
    int64_t n = 0, i;
    for (i = 0; i < 3 && n >= 0; i++) {
        n = casync_write(stream, "hello\n", 6);
        if (n >= 0) n = casync_read_until(stream, "\n", 1, &line);
    }
    if (n >= 0) n = casync_write_eof(stream);
    while (n >= 0 && (n = casync_read(stream, rest, sizeof rest)) > 0) continue;
    return n;
}

static int64_t be_a_client(casync_loop *where, void *arg) {
    casync_stream stream = ZERO;
    int64_t n = casync_connect(where, &stream, &connect_desc);
    (void)arg;
    if (n >= 0) n = talk(&stream);
    if (n >= 0) n = casync_finish(&stream);
    casync_close(&stream);
    casync_server_close(&echo_server);
    return n;
}

static int64_t listen_where_desc_says(casync_loop *where) {
    casync_address address;
    int64_t n = casync_listen(where, &echo_server, &listen_desc);
    if (n < 0) return n;
    n = casync_server_address(&echo_server, &address);
    connect_desc.port = n < 0 ? 9 : casync_address_port(&address);
    return n;
}

static int64_t join_both(casync_task *first, casync_task *second) {
    int64_t n = casync_join(first), m = casync_join(second);
    return n < 0 ? n : m;
}

static int64_t serve_one_client(casync_loop *where, void *arg) {
    int64_t n = listen_where_desc_says(where);
    (void)arg;
    if (n >= 0) n = join_both(spawn(be_a_client, NULL), spawn(echo_one_client, NULL));
    casync_server_close(&echo_server);
    return n;
}

static int64_t use_tcp(casync_loop *where, void *arg) {
    listen_desc.host = connect_desc.host = "127.0.0.1";
    return serve_one_client(where, arg);
}

static int64_t use_unix(casync_loop *where, void *arg) {
    static char path[64];
    snprintf(path, sizeof path, "@casync-sweep-%d", (int)getpid());
    listen_desc.path = connect_desc.path = path;
    return serve_one_client(where, arg);
}

static char bulk[300000];

static int64_t write_all_of_it(casync_loop *where, void *arg) {
    int64_t n = casync_write(&b, bulk, sizeof bulk);
    (void)where, (void)arg;
    if (n >= 0) n = casync_drain(&b);
    if (n >= 0) n = casync_finish(&b);
    casync_close(&b);
    return n;
}

static int64_t read_all_of_it(casync_loop *where, void *arg) {
    static char buffer[50000];
    int64_t n;
    (void)where, (void)arg;
    while ((n = casync_read(&a, buffer, sizeof buffer)) > 0) continue;
    casync_close(&a);
    return n;
}

static int64_t use_pipe(casync_loop *where, void *arg) {
    int64_t n = casync_pipe(where, &a, &b, NULL, NULL);
    (void)arg;
    return n < 0 ? n : join_both(spawn(write_all_of_it, NULL), spawn(read_all_of_it, NULL));
}

static int64_t use_pair(casync_loop *where, void *arg) {
    int64_t n = casync_socketpair(where, &a, &b, NULL, NULL);
    (void)arg;
    return n < 0 ? n : join_both(spawn(write_all_of_it, NULL), spawn(read_all_of_it, NULL));
}

/* A protocol at both ends, each of which must hear of the end. */
static casync_future ends[2];

static void echo_or_abort(casync_stream *stream, casync_span data) {
    if (casync_write(stream, data.ptr, data.len) < 0) casync_abort(stream);
}
static void finish(casync_stream *stream, casync_span data) {
    (void)data;
    casync_finish_start(stream);
}
static void greet(casync_stream *stream) {
    if (casync_write(stream, "hello", 5) < 0) casync_abort(stream);
}
static void note_end(casync_stream *stream, int64_t error) {
    (void)casync_future_set_result((casync_future *)stream->user, error, NULL);
}

static int64_t use_protocols(casync_loop *where, void *arg) {
    static casync_protocol serving, asking;
    casync_stream_options options;
    casync_stream client = ZERO;
    int64_t n;
    (void)arg;
    serving = asking = no_protocol();
    serving.data_received = echo_or_abort;
    asking.connection_made = greet;
    asking.data_received = finish;
    serving.connection_lost = asking.connection_lost = note_end;
    memset(&options, 0, sizeof options);
    EQ(casync_future_init(where, &ends[0]), 0);
    EQ(casync_future_init(where, &ends[1]), 0);
    listen_desc.host = connect_desc.host = "127.0.0.1";
    listen_desc.protocol = &serving;
    listen_desc.options.user = &ends[0];
    options.user = &ends[1];
    connect_desc.protocol = &asking;
    connect_desc.options = &options;
    n = listen_where_desc_says(where);
    if (n >= 0) n = casync_connect_start(where, &client, &connect_desc);
    if (n >= 0) n = casync_await(&ends[1]);
    /* A connection that was never accepted, or could not be kept, has no end. */
    if (casync_server_abort_clients(&echo_server) > 0) (void)casync_future_result(&ends[0]);
    casync_server_close(&echo_server);
    casync_close(&client);
    casync_future_close(&ends[0]);
    casync_future_close(&ends[1]);
    return n;
}

static casync_datagram here, there;

static int64_t send_datagrams(casync_loop *where, void *arg) {
    int64_t n = 0, i;
    (void)where, (void)arg;
    for (i = 0; i < 40 && n >= 0; i++) n = casync_datagram_send(&there, bulk, 5000, NULL);
    if (n >= 0) n = casync_datagram_finish(&there);
    casync_datagram_close(&there);
    if (n < 0) casync_datagram_close(&here); /* what is lost is waited for by nobody */
    return n;
}

static int64_t receive_datagrams(casync_loop *where, void *arg) {
    static char buffer[5000];
    int64_t n = 0, i;
    (void)where, (void)arg;
    for (i = 0; i < 40 && n >= 0; i++)
        n = casync_datagram_receive(&here, buffer, sizeof buffer, NULL);
    casync_datagram_close(&here);
    casync_datagram_close(&there);
    return n;
}

static int64_t use_datagrams(casync_loop *where, void *arg) {
    casync_datagram_desc desc = ZERO;
    int fds[2];
    int64_t n;
    (void)arg;
    EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    desc.use_fd = true;
    desc.fd = fds[0];
    n = casync_datagram_open(where, &here, &desc);
    if (n < 0) close(fds[0]);
    desc.fd = fds[1];
    if (n >= 0) n = casync_datagram_open(where, &there, &desc);
    if (!casync_datagram_is_open(&there)) close(fds[1]);
    if (n >= 0) n = join_both(spawn(send_datagrams, NULL), spawn(receive_datagrams, NULL));
    casync_datagram_close(&here);
    casync_datagram_close(&there);
    return n;
}

/* Two wait for the two directions of one descriptor. */
static int64_t wait_to_read(casync_loop *where, void *fd) {
    (void)where;
    return casync_wait_readable((int)(intptr_t)fd);
}
static int64_t wait_to_write(casync_loop *where, void *fd) {
    (void)where;
    return casync_wait_writable((int)(intptr_t)fd);
}

static int64_t use_waits(casync_loop *where, void *arg) {
    int fds[2];
    casync_task *reads, *writes;
    int64_t n;
    (void)where, (void)arg;
    make_socketpair(fds);
    reads = spawn(wait_to_read, MILLISECONDS(fds[0]));
    writes = spawn(wait_to_write, MILLISECONDS(fds[0]));
    n = casync_join(writes);
    put_byte(fds[1]);
    if (casync_join(reads) < 0) n = -EIO;
    close_both(fds);
    return n;
}

/* >> with a call that fails ------------------------------------------------------------------- */

/* Does it, and says whether the call that was to fail was made. */
static bool survives(casync_coroutine use, int64_t number, int64_t error) {
    casync_loop_desc desc = ZERO;
    casync_task *task;
    memset(&listen_desc, 0, sizeof listen_desc);
    memset(&connect_desc, 0, sizeof connect_desc);
    desc.allocator = test_allocator();
    desc.exception_handler = ignore_exception;
    desc.before_wait = expect_something;
    last_failed[0] = 0;
    EQ(casync_loop_init(&loop, &desc), 0);
    task = spawn(use, NULL);
    fail_calls(NULL, number, 1, error);
    while (!casync_future_done(&task->future)) (void)casync_run_once(&loop);
    number = fault.count;
    fault.count = 0;
    (void)casync_future_result(&task->future);
    casync_task_release(task);
    turns(3);
    EQ(casync_loop_close(&loop), 0);
    EQ(memory.live, 0);
    return number == 0;
}

static void sweep(casync_coroutine use) {
    static const int errors[] = {EIO, ENOMEM, EINVAL, ENOSYS, EPERM, ENOBUFS, ENOSPC};
    size_t i;
    signal(SIGPIPE, SIG_IGN);
    install_faults();
    for (i = 0; i < (test_quick ? 2 : sizeof errors / sizeof *errors); i++) {
        int64_t number = 0;
        while (survives(use, number, -errors[i])) number++;
        EXPECT(number > 3);
    }
}

TEST(calls_fail_in_tcp) { sweep(use_tcp); }
TEST(calls_fail_in_unix_sockets) { sweep(use_unix); }
TEST(calls_fail_in_pipes) { sweep(use_pipe); }
TEST(calls_fail_in_pairs) { sweep(use_pair); }
TEST(calls_fail_in_protocols) { sweep(use_protocols); }
TEST(calls_fail_in_datagrams) { sweep(use_datagrams); }
TEST(calls_fail_in_waits) { sweep(use_waits); }

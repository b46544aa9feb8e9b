/* >> metrics & dump: reports: what is told when nobody asks: the default handler's lines, failures
   of tasks whose handles were dropped, and functions that wait called where nothing can. */
#include "streams_fixture.h"

static casync_server server;
static casync_listen_desc listen_desc;
static casync_datagram datagram;
static casync_connect_desc connect_desc;
static casync_address address;
static char words[CASYNC_ADDRESS_TEXT], expected[512];
static int ends[2];

/* A loop whose exceptions go where they do by default. */
static void open_plain_loop(void) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    casync_set_exception_handler(&loop, NULL, NULL);
}

static int64_t fails_at_once(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return -EIO;
}
static int64_t succeeds_at_once(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return 7;
}
static int64_t is_cancelled_at_once(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return -ECANCELED;
}

static casync_task *spawn_named(casync_coroutine coroutine, const char *name) {
    casync_task_desc desc = ZERO;
    casync_task *task = NULL;
    desc.coroutine = coroutine;
    desc.name = name;
    EQ(casync_spawn_with(&loop, &desc, &task), 0);
    return task;
}

/* >> the default handler's lines: each in a child ---------------------------------------------- */

static void expect_line(void (*program)(void)) {
    EQ(run_in_child(program), 0);
    EQ(times_on_stderr("\n"), 1);
    EQ(strncmp(words_on_stderr, "casync: ", 8), 0);
}
static void expect_in_line(const char *what) {
    if (strstr(words_on_stderr, what)) return;
    STR_EQ(words_on_stderr, what); /* says both */
}

static void fail_by_name(void) {
    open_plain_loop();
    casync_task_release(spawn_named(fails_at_once, "fetcher"));
    EQ(casync_run_until_idle(&loop), 0);
}
TEST(a_task_is_told_by_its_name) {
    expect_line(fail_by_name);
    expect_in_line("task fetcher");
    expect_in_line(casync_strerror(-EIO));
}

static void fail_without_name(void) {
    open_plain_loop();
    EQ(casync_spawn_detached(&loop, fails_at_once, NULL), 0);
    EQ(casync_run_until_idle(&loop), 0);
}
TEST(a_task_without_a_name_is_told_by_its_function) {
    expect_line(fail_without_name);
    snprintf(expected, sizeof expected, "task of function %p", (void *)(uintptr_t)fails_at_once);
    expect_in_line(expected);
}

static int64_t step_fails(casync_task *task) {
    CASYNC_BEGIN(task);
    CASYNC_END(task, -EIO);
}
static void fail_in_a_step(void) {
    static casync_task task;
    open_plain_loop();
    EQ(casync_task_start(&loop, &task, step_fails), 0);
    EQ(casync_run_until_idle(&loop), 0);
    casync_future_close(&task.future);
}
TEST(a_stackless_task_is_told_by_its_function) {
    expect_line(fail_in_a_step);
    snprintf(expected, sizeof expected, "task of function %p", (void *)(uintptr_t)step_fails);
    expect_in_line(expected);
}

/* Listens for tasks, and connects `a`, whose address is then in `words`; in the parent, so that the
   child's lines can be compared. */
static void listen_and_connect(const char *host) {
    listen_desc.host = host;
    open_plain_loop();
    EQ(casync_listen(&loop, &server, &listen_desc), 0);
    EQ(casync_server_address(&server, &address), 0);
    connect_desc.host = host;
    connect_desc.port = casync_address_port(&address);
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
    EQ(casync_local_address(&a, &address), 0);
    casync_address_text(&address, words);
}

static void skip_if_threads_are_watched(void) {
#if defined(CASYNC__COMPILER_TSAN)
    SKIP("after a fork the sanitizer takes the child's tasks for threads that race");
#endif
}

static void go_on_in_child(void) { EQ(casync_loop_fork(&loop), 0); }

static void run_a_while(void) {
    go_on_in_child();
    turns(10);
}

TEST(the_task_of_a_connection_is_told_with_its_peer) {
    skip_if_threads_are_watched();
    listen_desc.task = fails_at_once;
    listen_and_connect("127.0.0.1");
    expect_line(run_a_while);
    expect_in_line(casync_strerror(-EIO));
    snprintf(expected, sizeof expected, "peer %s\n", words);
    expect_in_line(expected);
}

/* The kernel has forgotten then who it was. */
static int64_t reads_and_fails(casync_loop *where, void *connection) {
    char bytes[16];
    (void)where;
    return casync_read((casync_stream *)connection, bytes, sizeof bytes);
}
TEST(the_task_of_a_connection_that_was_reset_is_told_with_its_peer) {
    ssize_t n;
    listen_desc.task = reads_and_fails;
    listen_and_connect("127.0.0.1");
    make_pipe(ends);
    EXPECT(dup2(ends[1], STDERR_FILENO) >= 0);
    turns(5);
    casync_close_reset(&a);
    turns(5);
    n = read(ends[0], words_on_stderr, sizeof words_on_stderr - 1);
    EXPECT(n > 0);
    expect_in_line(casync_strerror(-ECONNRESET));
    snprintf(expected, sizeof expected, "peer %s\n", words);
    expect_in_line(expected);
}

static void close_with_bytes_unsent(void) {
    casync_op accepting;
    go_on_in_child();
    EQ(result_of(casync_accept_op(&server, &accepting, &b)), 0);
    fill(&b);
    casync_close(&b);
}
TEST(what_a_close_loses_is_told_with_its_peer) {
    listen_and_connect("127.0.0.1");
    expect_line(close_with_bytes_unsent);
    expect_in_line(" bytes unsent");
    snprintf(expected, sizeof expected, "peer %s\n", words);
    expect_in_line(expected);
}

static int64_t fills_and_returns(casync_loop *where, void *connection) {
    (void)where;
    fill((casync_stream *)connection);
    return 0;
}
/* Until a line came, which is then passed on. */
static void run_until_a_line(void) {
    char text[1024];
    struct pollfd line;
    ssize_t n;
    int fds[2], standard_error = dup(STDERR_FILENO);
    make_pipe(fds);
    EXPECT(dup2(fds[1], STDERR_FILENO) >= 0);
    line.fd = fds[0];
    line.events = POLLIN;
    go_on_in_child();
    while (poll(&line, 1, 0) == 0) turn();
    n = read(fds[0], text, sizeof text);
    EXPECT(n > 0);
    EQ(write(standard_error, text, (size_t)n), n);
}
TEST(a_connection_that_cannot_be_finished_is_told_with_its_peer) {
    skip_if_threads_are_watched();
    listen_desc.task = fills_and_returns;
    listen_desc.finish_timeout = 1;
    listen_and_connect("127.0.0.1");
    expect_line(run_until_a_line);
    expect_in_line(casync_strerror(-ETIMEDOUT));
    expect_in_line(" bytes unsent");
    snprintf(expected, sizeof expected, "peer %s\n", words);
    expect_in_line(expected);
}

static void accept_without_descriptors(void) {
    listen_desc.task = succeeds_at_once;
    open_plain_loop();
    EQ(casync_listen(&loop, &server, &listen_desc), 0);
    EQ(casync_server_address(&server, &address), 0);
    connect_desc.host = listen_desc.host;
    connect_desc.path = listen_desc.path;
    connect_desc.port = listen_desc.path ? 0 : casync_address_port(&address);
    (void)casync_connect_op(&loop, &a, &the_op, &connect_desc);
    forbid_descriptors();
    casync_address_text(&address, words);
    run_until_done(&the_op.future);
    turns(2);
    allow_descriptors();
    fprintf(stderr, "(at %s)\n", words);
}
static void expect_server_in_line(void) {
    char *address_line;
    EQ(run_in_child(accept_without_descriptors), 0);
    EQ(times_on_stderr("\n"), 2);
    address_line = strchr(words_on_stderr, '(');
    EXPECT(address_line != NULL);
    address_line[-1] = 0;
    *strchr(address_line, ')') = 0;
    expect_in_line(casync_strerror(-EMFILE));
    expect_in_line(address_line + 1);
}
TEST(a_server_is_told_by_its_address) {
    if (under_valgrind()) SKIP("valgrind's limit of descriptors is not the kernel's");
    listen_desc.host = "127.0.0.1";
    expect_server_in_line();
}
TEST(a_server_is_told_by_its_path) {
    static char path[64];
    if (under_valgrind()) SKIP("valgrind's limit of descriptors is not the kernel's");
    snprintf(path, sizeof path, "@casync-reports-%d", (int)getpid());
    listen_desc.path = path;
    expect_server_in_line();
    expect_in_line(path);
}

/* >> what is open when a loop is closed -------------------------------------------------------- */

/* What casync_dump writes, in words_on_stderr. */
static void dump(void) {
    ssize_t n;
    make_pipe(ends);
    EQ(casync_dump(&loop, ends[1]), 0);
    n = read(ends[0], words_on_stderr, sizeof words_on_stderr - 1);
    words_on_stderr[n < 0 ? 0 : n] = 0;
    close_both(ends);
}

/* The loop is not closed, and the dump has this in its one line. */
static void expect_still_open(const char *what) {
    EQ(casync_loop_close(&loop), CASYNC_STILL_OPEN);
    dump();
    EQ(times_on_stderr("\n"), 1);
    expect_in_line(what);
}

TEST(an_open_stream_is_named) {
    open_with_peer(NULL, NULL);
    snprintf(expected, sizeof expected, "stream, descriptor %d\n", a.endpoint.watcher.fd);
    expect_still_open(expected);
    fill(&a);
    snprintf(expected, sizeof expected, "stream, descriptor %d, %zu bytes unsent\n",
             a.endpoint.watcher.fd, a.out.size);
    expect_still_open(expected);
    EQ(casync_finish_start(&a), 0);
    expect_still_open(", finishing");
    casync_close(&a);
    SAID("exception=-103");
    close_with_peer();
}

TEST(an_open_server_is_named) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_desc.host = "127.0.0.1";
    EQ(casync_listen(&loop, &server, &listen_desc), 0);
    EQ(casync_server_address(&server, &address), 0);
    snprintf(expected, sizeof expected, "server, descriptor %d, at %s\n", server.watcher.fd,
             casync_address_text(&address, words));
    expect_still_open(expected);
    casync_server_close(&server);
    close_loop();
}

TEST(an_open_datagram_socket_is_named) {
    casync_datagram_desc desc = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    desc.local_host = "127.0.0.1";
    EQ(casync_datagram_open(&loop, &datagram, &desc), 0);
    EQ(casync_datagram_local_address(&datagram, &address), 0);
    snprintf(expected, sizeof expected, "datagram socket, descriptor %d, at %s\n",
             datagram.endpoint.watcher.fd, casync_address_text(&address, words));
    expect_still_open(expected);
    casync_datagram_close(&datagram);
    close_loop();
}

TEST(a_task_that_goes_on_is_named) {
    casync_task *task;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    task = spawn_named(sleeps, "sleeper");
    expect_still_open("task sleeper");
    EQ(casync_run_until_complete(&task->future), 0);
    casync_task_release(task);
    close_loop();
}

static int64_t serves_for_ever(casync_loop *where, void *connection) {
    (void)where, (void)connection;
    return casync_sleep(CASYNC_SECONDS(1000000));
}
TEST(a_connection_and_its_peer_are_named) {
    listen_desc.task = serves_for_ever;
    listen_and_connect("127.0.0.1");
    turns(5);
    dump();
    snprintf(expected, sizeof expected, ", peer %s", words);
    expect_in_line(expected);
    expect_in_line("task connection awaits sleep");
    EQ(times_on_stderr("stream, descriptor"), 2);
    EQ(times_on_stderr("server, descriptor"), 1);
}

/* >> handles that nobody released -------------------------------------------------------------- */

/* Runs the task, whose handle is dropped. */
static casync_task *drop(casync_coroutine coroutine) {
    casync_task *task = spawn_named(coroutine, "dropped");
    turns(2);
    SAID("");
    return task;
}

TEST(the_failure_of_a_dropped_task_is_told_when_its_loop_is_closed) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    (void)drop(fails_at_once);
    dump();
    EQ(times_on_stderr("task dropped failed"), 1);
    expect_in_line(casync_strerror(-EIO));
    EQ(casync_loop_close(&loop), 0);
    SAID("exception=-5");
    close_loop();
}

static int64_t fails_with_larger_stack(casync_loop *where, void *arg) {
    return fails_at_once(where, arg);
}
TEST(every_dropped_task_is_told_once) {
    int i, heard;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    for (i = 0; i < 100; i++) {
        casync_task_desc desc = ZERO;
        casync_task *task = NULL;
        desc.coroutine = fails_with_larger_stack;
        desc.stack_size = (size_t)65536 << i % 3;
        EQ(casync_spawn_with(&loop, &desc, &task), 0);
        if (i % 10 == 0) PTR_EQ(casync_task_retain(task), task);
    }
    turns(2);
    SAID("");
    EQ(casync_loop_close(&loop), 0);
    for (heard = 0, i = 0; said[i]; i++) heard += said[i] == '=';
    EQ(heard, 100);
    said[said_size = 0] = 0;
    close_loop();
}

TEST(dropped_tasks_that_did_not_fail_are_not_told) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    (void)drop(succeeds_at_once);
    (void)drop(is_cancelled_at_once);
    dump();
    STR_EQ(words_on_stderr, "");
    close_loop();
}

TEST(a_failure_that_was_asked_for_is_not_told) {
    casync_task *task;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    task = drop(fails_at_once);
    EQ(casync_run_until_complete(&task->future), -EIO);
    dump();
    STR_EQ(words_on_stderr, "");
    close_loop();
}

TEST(the_failure_of_a_released_task_is_told_once) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    casync_task_release(drop(fails_at_once));
    SAID("exception=-5");
    close_loop();
}

TEST(detached_tasks_run_and_tell_their_failure) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_spawn_detached(&loop, succeeds_at_once, NULL), 0);
    EQ(casync_spawn_detached(&loop, is_cancelled_at_once, NULL), 0);
    EQ(casync_spawn_detached(&loop, fails_at_once, NULL), 0);
    SAID("");
    EQ(casync_run_until_idle(&loop), 0);
    SAID("exception=-5");
    close_loop();
}

TEST(a_task_that_cannot_be_detached_says_why) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_spawn_detached(&loop, NULL, NULL), -EINVAL);
    EQ(casync_spawn_detached(NULL, succeeds_at_once, NULL), -EINVAL);
    fail_allocation(1, 0);
    EQ(casync_spawn_detached(&loop, succeeds_at_once, NULL), -ENOMEM);
    fail_no_allocation();
    close_loop();
    EQ(casync_spawn_detached(&loop, succeeds_at_once, NULL), -EINVAL);
}

/* >> functions that wait, called where nothing can --------------------------------------------- */

static char message[512];
static int messages;
static void keep_message(casync_loop *where, const casync_exception *exception, void *arg) {
    (void)where, (void)arg;
    EQ(exception->error, -EPERM);
    snprintf(message, sizeof message, "%s", exception->message);
    messages++;
}
static void keep_messages(casync_loop *where) {
    casync_set_exception_handler(where, keep_message, NULL);
}

/* The one message begins with the function's name and ends in this. */
static void expect_message(const char *function, const char *where) {
    size_t length = strlen(message);
    EQ(messages, 1);
    EXPECT(length > strlen(where));
    snprintf(expected, sizeof expected, "%s waits, ", function);
    if (strncmp(message, expected, strlen(expected)) != 0) STR_EQ(message, expected);
    STR_EQ(message + length - strlen(where), where);
    messages = 0;
}

static void sleep_twice(void *arg) {
    (void)arg;
    EQ(casync_sleep(1), -EPERM);
    EQ(casync_sleep(1), -EPERM);
    EQ(casync_wait_readable(0), -EPERM);
}
TEST(a_callback_that_waits_is_told_once_a_loop) {
    int i;
    for (i = 0; i < 2; i++) {
        open_loop(CASYNC_CLOCK_MONOTONIC);
        keep_messages(&loop);
        EQ(casync_call_soon(&loop, NULL, sleep_twice, NULL), 0);
        turn();
        expect_message("casync_sleep", "in a callback");
        EQ(casync_call_soon(&loop, NULL, sleep_twice, NULL), 0);
        turn();
        EQ(messages, 0);
        close_loop();
    }
}

static int64_t step_sleeps(casync_task *task) {
    CASYNC_BEGIN(task);
    EQ(casync_task_set_name(task, "stepper"), 0);
    EQ(casync_sleep(1), -EPERM);
    CASYNC_END(task, 0);
}
TEST(a_stackless_task_that_waits_is_named) {
    casync_task task;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    keep_messages(&loop);
    EQ(casync_task_start(&loop, &task, step_sleeps), 0);
    turn();
    expect_message("casync_sleep", "in the stackless task stepper");
    casync_future_close(&task.future);
    close_loop();
}

static char byte;
TEST(who_waits_where_no_loop_runs_is_told) {
    open_with_peer(NULL, NULL);
    keep_messages(&loop);
    EQ(casync_read(&a, &byte, 1), -EPERM);
    expect_message("casync_read", "where no loop runs");
    close_with_peer();
}

static int64_t reads_of_another_loop(casync_loop *where, void *arg) {
    PTR_EQ(casync_get_running_loop(), where);
    (void)arg;
    EQ(casync_read(&a, &byte, 1), -EPERM);
    return 0;
}
TEST(a_task_of_another_loop_that_waits_is_told) {
    open_with_peer(NULL, NULL);
    keep_messages(&loop);
    EQ(casync_run(reads_of_another_loop, NULL), 0);
    expect_message("casync_read", "in another loop");
    close_with_peer();
}

/* Each function is the one that is named, not another by which it is made. */
static casync_lock lock;
static casync_queue queue;
static casync_event event;
static casync_semaphore semaphore;
static casync_future future;
static casync_task *task;
static const void *data;
static void *item;
static casync_framing framing;
#define WAITING(X)                                                                                 \
    X(casync_sleep, (0))                                                                           \
    X(casync_await, (&future))                                                                     \
    X(casync_join, (task))                                                                         \
    X(casync_wait_for, (&future, 1))                                                               \
    X(casync_shield, (&future))                                                                    \
    X(casync_wait_readable, (0))                                                                   \
    X(casync_wait_writable, (1))                                                                   \
    X(casync_lock_acquire, (&lock))                                                                \
    X(casync_lock_acquire_timeout, (&lock, 1))                                                     \
    X(casync_semaphore_acquire, (&semaphore))                                                      \
    X(casync_event_wait, (&event))                                                                 \
    X(casync_queue_get, (&queue, &item))                                                           \
    X(casync_queue_get_timeout, (&queue, &item, 1))                                                \
    X(casync_queue_put, (&queue, item))                                                            \
    X(casync_queue_join, (&queue))                                                                 \
    X(casync_connect, (&loop, &b, &connect_desc))                                                  \
    X(casync_connect_timeout, (&loop, &b, &connect_desc, 1))                                       \
    X(casync_read, (&a, &byte, 1))                                                                 \
    X(casync_read_timeout, (&a, &byte, 1, 1))                                                      \
    X(casync_read_exactly, (&a, &byte, 1))                                                         \
    X(casync_read_exactly_timeout, (&a, &byte, 1, 1))                                              \
    X(casync_read_until, (&a, "x", 1, &data))                                                      \
    X(casync_read_until_timeout, (&a, "x", 1, &data, 1))                                           \
    X(casync_read_frame, (&a, &framing, &data))                                                    \
    X(casync_read_frame_timeout, (&a, &framing, &data, 1))                                         \
    X(casync_drain, (&a))                                                                          \
    X(casync_drain_timeout, (&a, 1))                                                               \
    X(casync_write_all, (&a, "x", 1))                                                              \
    X(casync_write_all_timeout, (&a, "x", 1, 1))                                                   \
    X(casync_finish, (&a))                                                                         \
    X(casync_finish_timeout, (&a, 1))                                                              \
    X(casync_accept, (&server, &b))                                                                \
    X(casync_accept_timeout, (&server, &b, 1))                                                     \
    X(casync_server_join, (&server))                                                               \
    X(casync_server_wait_clients, (&server))                                                       \
    X(casync_server_wait_clients_timeout, (&server, 1))                                            \
    X(casync_datagram_send, (&datagram, "x", 1, NULL))                                             \
    X(casync_datagram_receive, (&datagram, &byte, 1, NULL))                                        \
    X(casync_datagram_drain, (&datagram))                                                          \
    X(casync_datagram_finish, (&datagram))                                                         \
    X(casync_shutdown_default_executor, ())

#define CALL(function, arguments)                                                                  \
    static void call_##function(void *arg) {                                                       \
        (void)arg;                                                                                 \
        EQ(function arguments, -EPERM);                                                            \
    }
WAITING(CALL)

#define CALL_AND_NAME(function, arguments) {#function, call_##function},
static const struct {
    const char *name;
    casync_callback call;
} waiting_functions[] = {WAITING(CALL_AND_NAME)};

static void open_all_that_is_waited_for(void) {
    casync_datagram_desc datagram_desc = ZERO;
    open_with_peer(NULL, NULL);
    listen_desc.host = datagram_desc.local_host = connect_desc.host = "127.0.0.1";
    EQ(casync_listen(&loop, &server, &listen_desc), 0);
    EQ(casync_datagram_open(&loop, &datagram, &datagram_desc), 0);
    EQ(casync_queue_init(&loop, &queue, NULL), 0);
    casync_future_init(&loop, &future);
    task = spawn(sleeps, MILLISECONDS(0));
    keep_messages(&loop);
}
static void close_all_that_was_waited_for(void) {
    EQ(casync_run_until_complete(&task->future), 0);
    casync_task_release(task);
    casync_future_close(&future);
    casync_queue_close(&queue);
    casync_datagram_close(&datagram);
    casync_server_close(&server);
    close_with_peer();
}

TEST(each_function_that_waits_tells_its_own_name) {
    size_t i;
    for (i = 0; i < sizeof waiting_functions / sizeof *waiting_functions; i++) {
        open_all_that_is_waited_for();
        EQ(casync_call_soon(&loop, NULL, waiting_functions[i].call, NULL), 0);
        turn();
        expect_message(waiting_functions[i].name, "in a callback");
        close_all_that_was_waited_for();
    }
}

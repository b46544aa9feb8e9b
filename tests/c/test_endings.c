/* >> how connections end: what their tasks left to be sent, what a close loses, and servers that
   are closed before their clients are gone. */
#include "stream_support.h"

static casync_server server;
static casync_listen_desc listen_desc;
static int client = -1; /* the other side of the connection: a plain descriptor */
static char client_name[CASYNC_ADDRESS_TEXT];
static casync_stream *served; /* the server's side, while it is there */
static casync_task *serving;
static char block[1 << 20]; /* what is written */

/* >> what the exception handler heard: said as "told=ERROR", the rest is here ------------------ */

static struct {
    int times;
    size_t unsent;
    casync_stream *stream;
    casync_datagram *datagram;
    char peer[CASYNC_ADDRESS_TEXT];
} told;

static void (*when_told)(casync_stream *stream);

static void hear(casync_loop *where, const casync_exception *exception, void *arg) {
    casync_address address;
    EXPECT(arg == NULL && exception->message[0]);
    PTR_EQ(where, &loop);
    say_number("told", exception->error);
    told.times++;
    told.unsent = exception->unsent;
    told.stream = exception->stream;
    told.datagram = exception->datagram;
    told.peer[0] = 0;
    if (exception->peer)
        casync_address_text(exception->peer, told.peer);
    else if (exception->stream && casync_peer_address(exception->stream, &address) == 0)
        casync_address_text(&address, told.peer);
    if (when_told) when_told(exception->stream);
}

static void open_hearing_loop(int clock) {
    casync_loop_desc desc = ZERO;
    desc.clock = clock;
    desc.exception_handler = hear;
    open_loop_with(desc);
}

/* >> connections ------------------------------------------------------------------------------ */

static int connect_client(void) {
    struct sockaddr_in local;
    casync_address address;
    socklen_t size = sizeof local;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;
    EQ(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    EQ(casync_server_address(&server, &address), 0);
    memset(&local, 0, sizeof local);
    local.sin_family = AF_INET;
    local.sin_port = htons((uint16_t)casync_address_port(&address));
    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EQ(connect(fd, (struct sockaddr *)&local, sizeof local), 0);
    EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    EQ(getsockname(fd, (struct sockaddr *)&local, &size), 0);
    snprintf(client_name, sizeof client_name, "127.0.0.1:%d", ntohs(local.sin_port));
    return fd;
}

static void listen_for_tasks(casync_coroutine task) {
    listen_desc.host = "127.0.0.1";
    listen_desc.task = task;
    EQ(casync_listen(&loop, &server, &listen_desc), 0);
}

/* A server with one connection, whose task has begun and waits, or is done. */
static void serve_one_by(int clock, casync_coroutine task) {
    open_hearing_loop(clock);
    listen_for_tasks(task);
    client = connect_client();
    while (!served) turn();
}

static int64_t begin_to_serve(void *connection) {
    served = (casync_stream *)connection;
    serving = casync_current_task();
    return 0;
}

/* Reads until the end; returns how many bytes came. Runs the loop meanwhile. */
static int64_t client_reads_all(void) {
    static char bytes[1 << 16];
    int64_t total = 0;
    for (;;) {
        ssize_t n = read(client, bytes, sizeof bytes);
        if (n == 0) return total;
        if (n > 0) total += n;
        if (n < 0 && errno != EAGAIN) return -errno;
        turn();
    }
}

static void end(void) {
    casync_server_close(&server);
    if (client >= 0) close(client);
    turns(3);
    close_loop();
}

/* More than the kernel takes while the client does not read. */
enum { MUCH = 16 << 20 };
static int64_t write_much(casync_stream *stream, int64_t size) {
    int64_t written;
    for (written = 0; written < size; written += (int64_t)sizeof block)
        EQ(casync_write_ref(stream, block, sizeof block, NULL, NULL), sizeof block);
    return size;
}

static int64_t writes_and_returns(casync_loop *where, void *connection) {
    (void)where;
    begin_to_serve(connection);
    write_much(served, MUCH);
    return 0;
}

static casync_op clients_gone;

static bool wait_for_clients(void) {
    return !casync_future_done(casync_server_wait_clients_op(&server, &clients_gone));
}

TEST(what_a_task_wrote_arrives_after_it_returned) {
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_returns);
    EXPECT(wait_for_clients());
    EQ(client_reads_all(), MUCH);
    EQ(result_of(&clients_gone.future), 0);
    end();
}

static int64_t sixty = 60 << 20;
static int64_t writes_sixty(casync_loop *where, void *connection) {
    (void)where;
    begin_to_serve(connection);
    write_much(served, sixty);
    return 7;
}
TEST(sixty_megabytes_arrive) {
    if (test_quick) sixty = 6 << 20;
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_sixty);
    EQ(client_reads_all(), sixty);
    end();
}

typedef struct {
    casync_task task;
    casync_stream stream;
    casync_timer_op op;
    int64_t result;
} step_connection;

static int64_t step_result;
static int64_t step_writes_and_returns(casync_task *task) {
    step_connection *connection = (step_connection *)task;
    CASYNC_BEGIN(task);
    served = &connection->stream;
    CASYNC_YIELD(task, connection->result);
    if (connection->result < 0) return connection->result;
    write_much(served, MUCH);
    CASYNC_END(task, step_result);
}
static void serve_one_by_steps(void) {
    open_hearing_loop(CASYNC_CLOCK_MONOTONIC);
    listen_desc.host = "127.0.0.1";
    listen_desc.step = step_writes_and_returns;
    listen_desc.conn_size = sizeof(step_connection);
    listen_desc.stream_offset = offsetof(step_connection, stream);
    EQ(casync_listen(&loop, &server, &listen_desc), 0);
    client = connect_client();
    while (!served || served->out.size == 0) turn();
}
TEST(what_a_stackless_task_wrote_arrives_after_it_returned) {
    serve_one_by_steps();
    EXPECT(wait_for_clients());
    EQ(client_reads_all(), MUCH);
    EQ(result_of(&clients_gone.future), 0);
    end();
}
TEST(the_connection_of_a_stackless_task_that_failed_is_aborted_and_told) {
    int64_t got;
    step_result = -EIO;
    serve_one_by_steps();
    while (told.times == 0) turn();
    SAID("told=-5");
    STR_EQ(told.peer, client_name);
    got = client_reads_all();
    EXPECT(got < MUCH);
    EQ(told.times, 1);
    end();
}

/* The client does not read, so the time limit is what ends it. */
TEST(what_takes_too_long_to_send_is_aborted_and_told) {
    size_t unsent;
    serve_one_by(CASYNC_CLOCK_VIRTUAL_FORCED, writes_and_returns);
    EXPECT(wait_for_clients());
    unsent = served->out.size;
    EQ(result_of(&clients_gone.future), 0);
    EQ(casync_time(&loop), CASYNC_SECONDS(30)); /* the default */
    SAID("told=-110");
    EXPECT(told.unsent > 0 && told.unsent <= unsent);
    STR_EQ(told.peer, client_name);
    EXPECT(client_reads_all() < MUCH);
    EQ(told.times, 1);
    end();
}

TEST(the_time_to_send_what_a_task_left_can_be_set) {
    listen_desc.finish_timeout = 1;
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_returns);
    while (told.times == 0) turn();
    SAID("told=-110");
    EXPECT(told.unsent > 0);
    EXPECT(client_reads_all() < MUCH);
    end();
}

TEST(the_time_to_send_what_a_task_left_may_be_unlimited) {
    casync_timer later = ZERO;
    listen_desc.finish_timeout = -1;
    serve_one_by(CASYNC_CLOCK_VIRTUAL_FORCED, writes_and_returns);
    EQ(casync_call_later(&loop, &later, CASYNC_SECONDS(1000000), say, WORD("later")), 0);
    run_until_said("later");
    EQ(client_reads_all(), MUCH);
    end();
}

/* The server is closed, so the connection is the last that is known of it. */
static void close_told(casync_stream *stream) { casync_close(stream); }
TEST(the_handler_may_close_a_connection_that_takes_too_long) {
    when_told = close_told;
    listen_desc.finish_timeout = 1;
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_returns);
    casync_server_close(&server);
    while (said_size == 0 || casync_server_abort_clients(&server) > 0) turn();
    EXPECT(told.times >= 1);
    EQ(strncmp(said, "told=-110", 9), 0);
    said_size = 0;
    said[0] = 0;
    end();
}

static int64_t writes_and_fails(casync_loop *where, void *connection) {
    writes_and_returns(where, connection);
    return -EIO;
}
TEST(the_connection_of_a_task_that_failed_is_aborted_and_told) {
    int64_t got;
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_fails);
    EXPECT(wait_for_clients());
    EQ(result_of(&clients_gone.future), 0);
    SAID("told=-5");
    STR_EQ(told.peer, client_name);
    got = client_reads_all();
    EXPECT(got < MUCH);
    EQ(told.times, 1);
    end();
}
TEST(the_handler_may_close_the_connection_of_a_task_that_failed) {
    when_told = close_told;
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_fails);
    casync_server_close(&server);
    turns(5);
    SAID("told=-5 told=-103"); /* and what is lost by that */
    EXPECT(told.unsent > 0);
    end();
}

static int64_t writes_and_sleeps(casync_loop *where, void *connection) {
    int64_t slept;
    (void)where;
    begin_to_serve(connection);
    write_much(served, MUCH);
    slept = casync_sleep(CASYNC_SECONDS(1000000));
    serving = NULL;
    return slept;
}
TEST(the_connection_of_a_task_that_was_cancelled_is_finished) {
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_sleeps);
    EQ(casync_task_cancel(serving), 1);
    EQ(client_reads_all(), MUCH);
    end();
}
TEST(a_connection_whose_task_was_cancelled_has_the_same_time) {
    listen_desc.finish_timeout = 1;
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_sleeps);
    EQ(casync_task_cancel(serving), 1);
    while (told.times == 0) turn();
    SAID("told=-110");
    end();
}

/* -- what the task itself did to its stream -- */

static void (*ending)(casync_stream *stream);
static int64_t writes_and_ends(casync_loop *where, void *connection) {
    writes_and_returns(where, connection);
    ending(served);
    return 0;
}
static void finish(casync_stream *stream) { EQ(casync_finish_start(stream), 0); }
static void abort_it(casync_stream *stream) { EQ(casync_abort(stream), 0); }
static void finish_waiting(casync_stream *stream) { EQ(casync_finish(stream), 0); }
static void shut(casync_stream *stream) { EQ(casync_write_eof(stream), 0); }

TEST(a_task_may_close_its_connection) {
    ending = casync_close;
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_ends);
    EXPECT(wait_for_clients()); /* the task has not been told of its end yet */
    EQ(result_of(&clients_gone.future), 0);
    SAID("told=-103");
    EXPECT(told.unsent > 0);
    PTR_EQ(told.stream, NULL);
    STR_EQ(told.peer, client_name);
    end();
}
TEST(a_task_may_reset_its_connection) {
    ending = casync_close_reset;
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_ends);
    EQ(client_reads_all(), -ECONNRESET);
    end();
}
TEST(a_task_may_finish_its_connection) {
    ending = finish;
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_ends);
    EQ(client_reads_all(), MUCH);
    end();
}
TEST(a_task_may_wait_until_its_connection_is_finished) {
    ending = finish_waiting;
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_ends);
    EQ(client_reads_all(), MUCH);
    end();
}
TEST(a_task_may_abort_its_connection) {
    ending = abort_it;
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_ends);
    EXPECT(client_reads_all() < MUCH);
    end();
}
TEST(a_task_may_end_what_it_writes) {
    ending = shut;
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_ends);
    EQ(client_reads_all(), MUCH);
    end();
}

static int64_t writes_and_closes_and_fails(casync_loop *where, void *connection) {
    writes_and_returns(where, connection);
    casync_abort(served);
    casync_close(served);
    return -EIO;
}
TEST(a_task_may_fail_after_it_closed_its_connection) {
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_closes_and_fails);
    turns(3);
    SAID("told=-5");
    PTR_EQ(told.stream, NULL);
    end();
}

/* The client is gone before all is sent: an error of the stream, of which its writer hears. */
TEST(a_client_that_goes_ends_its_connection) {
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_returns);
    EXPECT(wait_for_clients());
    close(client);
    client = -1;
    EQ(result_of(&clients_gone.future), 0);
    end();
}

/* >> casync_run ------------------------------------------------------------------------------- */

static void *read_all(void *fd) {
    static char bytes[1 << 16];
    static int64_t total;
    ssize_t n;
    EQ(fcntl(*(int *)fd, F_SETFL, 0), 0);
    while ((n = read(*(int *)fd, bytes, sizeof bytes)) > 0) total += n;
    if (n < 0) total = -errno;
    return &total;
}

static pthread_t reader;
static bool client_reads;

/* Begins to serve a client, and returns while the connection's task waits. */
static int64_t serves_and_returns(casync_loop *where, void *task) {
    listen_desc.host = "127.0.0.1";
    listen_desc.task = *(casync_coroutine *)task;
    EQ(casync_listen(where, &server, &listen_desc), 0);
    client = connect_client();
    while (!served) EQ(casync_sleep(0), 0);
    if (client_reads) reader = start_thread(read_all, &client);
    return 3;
}

static void hear_in_run(casync_loop *where, const casync_exception *exception, void *arg) {
    (void)where, (void)arg;
    say_number("told", exception->error);
    told.unsent = exception->unsent;
}

static int64_t run_and_end(casync_coroutine task) {
    casync_loop_desc desc = ZERO;
    desc.allocator = test_allocator();
    desc.exception_handler = hear_in_run;
    return casync_run_with(&desc, serves_and_returns, &task);
}

static void expect_all_to_arrive_after_run(casync_coroutine task) {
    void *total;
    client_reads = true;
    EQ(run_and_end(task), 3);
    EQ(pthread_join(reader, &total), 0);
    EQ(*(int64_t *)total, MUCH);
    EQ(memory.live, 0);
    SAID("");
}

TEST(run_finishes_connections_whose_tasks_wait) {
    expect_all_to_arrive_after_run(writes_and_sleeps);
}
TEST(run_finishes_connections_whose_tasks_are_done) {
    expect_all_to_arrive_after_run(writes_and_returns);
}

static int64_t writes_when_cancelled(casync_loop *where, void *connection) {
    (void)where;
    begin_to_serve(connection);
    EQ(casync_sleep(CASYNC_SECONDS(1000000)), -ECANCELED);
    write_much(served, MUCH);
    return 0;
}
TEST(run_finishes_connections_whose_tasks_say_a_last_word) {
    expect_all_to_arrive_after_run(writes_when_cancelled);
}

TEST(run_finishes_connections_within_their_time) {
    listen_desc.finish_timeout = 1;
    EQ(run_and_end(writes_and_sleeps), 3);
    SAID("told=-110");
    EXPECT(told.unsent > 0);
    EXPECT(*(int64_t *)read_all(&client) < MUCH);
    EQ(memory.live, 0);
}

/* >> servers that are closed before their clients are gone ------------------------------------- */

static void expect_server_to_be_left_alone(void) {
    const unsigned char *byte = (const unsigned char *)&server;
    size_t i;
    for (i = 0; i < sizeof server; i++) EQ(byte[i], 0xa5);
}

TEST(clients_are_waited_for_after_the_server_is_closed) {
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_returns);
    casync_server_close(&server);
    EXPECT(wait_for_clients());
    turns(5);
    EXPECT(!casync_future_done(&clients_gone.future));
    EQ(client_reads_all(), MUCH);
    EQ(result_of(&clients_gone.future), 0);
    EXPECT(!wait_for_clients());
    EQ(result_of(&clients_gone.future), 0);
    end();
}

TEST(clients_are_ended_after_the_server_is_closed) {
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_sleeps);
    casync_server_close(&server);
    EXPECT(wait_for_clients());
    EQ(casync_server_abort_clients(&server), 1);
    EQ(casync_task_cancel(serving), 1);
    EQ(result_of(&clients_gone.future), 0);
    EQ(casync_server_abort_clients(&server), 0);
    EXPECT(client_reads_all() < MUCH);
    end();
}

TEST(clients_are_finished_after_the_server_is_closed) {
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_sleeps);
    casync_server_close(&server);
    EQ(casync_server_finish_clients(&server), 1);
    EXPECT(wait_for_clients());
    EQ(client_reads_all(), MUCH);
    EQ(casync_task_cancel(serving), 1);
    EQ(result_of(&clients_gone.future), 0);
    EQ(casync_server_finish_clients(&server), 0);
    end();
}

/* asyncio's close() and wait_closed(), in a task, with a limit. */
static int64_t ends_gracefully(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    casync_server_close(&server);
    EQ(casync_server_wait_clients_timeout(&server, CASYNC_SECONDS(5)), -ETIMEDOUT);
    EQ(casync_time(&loop), CASYNC_SECONDS(5));
    EQ(casync_server_abort_clients(&server), 1);
    EQ(casync_server_wait_clients(&server), 0);
    EQ(casync_server_wait_clients_timeout(&server, CASYNC_SECONDS(5)), 0);
    return 0;
}
TEST(a_graceful_end_has_a_time_limit) {
    serve_one_by(CASYNC_CLOCK_VIRTUAL_FORCED, writes_and_returns);
    EQ(run_task(ends_gracefully, NULL), 0);
    EXPECT(client_reads_all() < MUCH);
    end();
}

TEST(the_memory_of_a_closed_server_is_not_touched) {
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_returns);
    EXPECT(wait_for_clients());
    casync_server_close(&server);
    memset(&server, 0xa5, sizeof server);
    EQ(client_reads_all(), MUCH);
    EQ(result_of(&clients_gone.future), 0);
    expect_server_to_be_left_alone();
    memset(&server, 0, sizeof server);
    end();
}

TEST(the_memory_of_a_closed_server_may_go_while_its_task_fails) {
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_sleeps);
    casync_server_close(&server);
    memset(&server, 0xa5, sizeof server);
    casync_abort(served);
    EQ(casync_task_cancel(serving), 1);
    EXPECT(client_reads_all() < MUCH);
    turns(3);
    expect_server_to_be_left_alone();
    memset(&server, 0, sizeof server);
    end();
}

/* A wait that is given up after the server's memory went. */
TEST(a_wait_for_clients_may_be_cancelled_after_the_server_is_gone) {
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_returns);
    EXPECT(wait_for_clients());
    casync_server_close(&server);
    memset(&server, 0xa5, sizeof server);
    EQ(casync_future_cancel(&clients_gone.future), 1);
    EQ(result_of(&clients_gone.future), -ECANCELED);
    EQ(client_reads_all(), MUCH);
    turns(3);
    expect_server_to_be_left_alone();
    memset(&server, 0, sizeof server);
    end();
}

TEST(a_server_that_listens_again_does_not_count_the_clients_from_before) {
    int first;
    casync_op new_clients;
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_returns);
    first = client;
    EXPECT(wait_for_clients());
    casync_server_close(&server);
    listen_for_tasks(writes_and_returns);
    EQ(result_of(casync_server_wait_clients_op(&server, &new_clients)), 0);
    EQ(casync_server_abort_clients(&server), 0);

    served = NULL;
    client = connect_client();
    while (!served) turn();
    EXPECT(!casync_future_done(casync_server_wait_clients_op(&server, &new_clients)));
    EQ(client_reads_all(), MUCH);
    EQ(result_of(&new_clients.future), 0);
    EXPECT(!casync_future_done(&clients_gone.future));
    close(client);
    client = first;
    EQ(client_reads_all(), MUCH);
    EQ(result_of(&clients_gone.future), 0);
    end();
}

static int64_t reads_until_the_end(casync_loop *where, void *connection) {
    char bytes[256];
    int64_t n;
    (void)where;
    begin_to_serve(connection);
    while ((n = casync_read(served, bytes, sizeof bytes)) > 0) continue;
    return n;
}
TEST(a_server_in_memory_of_its_own_may_be_freed_while_clients_are_waited_for) {
    casync_server *own = (casync_server *)calloc(1, sizeof *own);
    serve_one_by(CASYNC_CLOCK_MONOTONIC, reads_until_the_end);
    casync_server_close(&server);
    close(client);
    EXPECT(wait_for_clients());
    EQ(result_of(&clients_gone.future), 0);

    served = NULL;
    EQ(casync_listen(&loop, own, &listen_desc), 0);
    server = *own; /* for its address alone */
    client = connect_client();
    memset(&server, 0, sizeof server);
    while (!served) turn();
    EXPECT(!casync_future_done(casync_server_wait_clients_op(own, &clients_gone)));
    casync_server_close(own);
    memset(own, 0xa5, sizeof *own);
    free(own);
    EQ(shutdown(client, SHUT_WR), 0);
    EQ(result_of(&clients_gone.future), 0);
    EQ(client_reads_all(), 0);
    end();
}

/* >> what a close loses ------------------------------------------------------------------------ */

static void open_stream_with_much(void) {
    int fds[2];
    open_hearing_loop(CASYNC_CLOCK_MONOTONIC);
    make_socketpair(fds);
    peer = fds[1];
    EQ(casync_stream_open(&loop, &a, fds[0], NULL, NULL), 0);
    write_much(&a, MUCH);
    EXPECT(a.out.size > 0);
}
static void end_stream(void) {
    close(peer);
    turns(3);
    close_loop();
}

TEST(a_close_tells_how_many_bytes_are_lost) {
    size_t unsent;
    open_stream_with_much();
    unsent = a.out.size;
    casync_close(&a);
    SAID("told=-103");
    EQ(told.unsent, unsent);
    PTR_EQ(told.stream, NULL);
    EQ(drain_descriptor(peer) + (int64_t)told.unsent, MUCH);
    casync_close(&a);
    end_stream();
}

TEST(a_close_tells_who_does_not_get_the_bytes) {
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_sleeps);
    casync_close(served);
    SAID("told=-103");
    STR_EQ(told.peer, client_name);
    EQ(casync_task_cancel(serving), 1);
    EXPECT(client_reads_all() < MUCH);
    end();
}

TEST(a_close_of_a_pipe_tells_too) {
    int fds[2];
    open_hearing_loop(CASYNC_CLOCK_MONOTONIC);
    make_pipe(fds);
    EQ(casync_stream_open(&loop, &a, fds[1], NULL, NULL), 0);
    write_much(&a, MUCH);
    casync_close(&a);
    SAID("told=-103");
    STR_EQ(told.peer, "");
    EQ(drain_descriptor(fds[0]) + (int64_t)told.unsent, MUCH);
    close(fds[0]);
    close_loop();
}

TEST(a_close_of_what_is_all_sent_tells_nothing) {
    open_stream_with_much();
    while (a.out.size > 0) {
        drain_descriptor(peer);
        turn();
    }
    casync_close(&a);
    end_stream();
}

static int spare[2];
static void open_again(casync_stream *stream) {
    PTR_EQ(stream, NULL);
    when_told = NULL;
    EXPECT(!casync_stream_is_open(&a));
    EQ(casync_stream_open(&loop, &a, spare[0], NULL, NULL), 0);
}
TEST(a_closed_stream_may_be_opened_again_where_its_loss_is_told) {
    open_stream_with_much();
    make_socketpair(spare);
    when_told = open_again;
    casync_close(&a);
    SAID("told=-103");
    EXPECT(casync_stream_is_open(&a));
    EQ(write_text(&a, "again"), 5);
    close(peer);
    peer = spare[1];
    peer_hears("again");
    casync_close(&a);
    end_stream();
}

static casync_stream *on_heap;
static void free_it(casync_stream *stream) {
    PTR_EQ(stream, NULL);
    memset(on_heap, 0xa5, sizeof *on_heap);
    free(on_heap);
}
TEST(a_closed_stream_may_be_freed_where_its_loss_is_told) {
    int fds[2];
    on_heap = (casync_stream *)calloc(1, sizeof *on_heap);
    open_hearing_loop(CASYNC_CLOCK_MONOTONIC);
    make_socketpair(fds);
    peer = fds[1];
    EQ(casync_stream_open(&loop, on_heap, fds[0], NULL, NULL), 0);
    write_much(on_heap, MUCH);
    when_told = free_it;
    casync_close(on_heap);
    SAID("told=-103");
    end_stream();
}

TEST(releases_come_before_the_loss_is_told) {
    open_stream_with_much();
    EQ(casync_write_ref(&a, block, sizeof block, release_says, WORD("released")), sizeof block);
    casync_close(&a);
    SAID("released told=-103");
    end_stream();
}

TEST(what_waits_is_failed_before_the_loss_is_told) {
    casync_op reading;
    char byte;
    open_stream_with_much();
    (void)casync_read_op(&a, &reading, &byte, 1);
    (void)casync_drain_op(&a, &the_op);
    casync_close(&a);
    SAID("told=-103");
    EQ(result_of(&reading.future), -ECONNABORTED);
    EQ(result_of(&the_op.future), -ECONNABORTED);
    end_stream();
}

TEST(a_close_after_an_abort_tells_nothing) {
    open_stream_with_much();
    EQ(casync_abort(&a), 0);
    casync_close(&a);
    end_stream();
}
TEST(an_abort_tells_nothing) {
    open_stream_with_much();
    EQ(casync_abort(&a), 0);
    end_stream();
    EXPECT(!casync_stream_is_open(&a));
}
TEST(a_reset_tells_nothing) {
    open_stream_with_much();
    casync_close_reset(&a);
    end_stream();
}
TEST(a_close_after_an_error_tells_nothing) {
    open_stream_with_much();
    close(peer);
    EQ(result_of(casync_drain_op(&a, &the_op)) < 0, true);
    casync_close(&a);
    peer = dup(0);
    end_stream();
}

static int64_t finishes_in_time(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    EQ(casync_finish_timeout(&a, 1), -ETIMEDOUT);
    EXPECT(!casync_stream_is_open(&a));
    return 0;
}
TEST(a_finish_that_takes_too_long_tells_by_its_error_alone) {
    open_stream_with_much();
    EQ(run_task(finishes_in_time, NULL), 0);
    end_stream();
}

static int64_t finishes(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return casync_finish(&a);
}
static int64_t finishes_with_a_limit(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return casync_finish_timeout(&a, CASYNC_SECONDS(1000000));
}
static void expect_cancelled_finish_to_tell(casync_coroutine coroutine) {
    casync_task *task;
    open_stream_with_much();
    task = spawn(coroutine, NULL);
    turns(2);
    EQ(casync_task_cancel(task), 1);
    EQ(casync_run_until_complete(&task->future), -ECANCELED);
    casync_task_release(task);
    SAID("told=-103");
    EXPECT(told.unsent > 0);
    end_stream();
}
TEST(a_finish_that_is_cancelled_tells_what_is_lost) { expect_cancelled_finish_to_tell(finishes); }
TEST(a_finish_with_a_limit_that_is_cancelled_tells_what_is_lost) {
    expect_cancelled_finish_to_tell(finishes_with_a_limit);
}
TEST(a_finish_operation_that_is_cancelled_tells_what_is_lost) {
    open_stream_with_much();
    (void)casync_finish_op(&a, &the_op);
    EQ(casync_future_cancel(&the_op.future), 1);
    SAID("told=-103");
    end_stream();
}
TEST(a_close_while_finishing_tells_what_is_lost) {
    open_stream_with_much();
    EQ(casync_finish_start(&a), 0);
    casync_close(&a);
    SAID("told=-103");
    end_stream();
}

/* The stream that was limited once is opened again: that it told by an error is forgotten. */
TEST(a_stream_that_is_opened_again_tells_again) {
    open_stream_with_much();
    EQ(run_task(finishes_in_time, NULL), 0);
    EQ(casync_socketpair(&loop, &a, &b, NULL, NULL), 0);
    write_much(&a, MUCH);
    casync_close(&a);
    SAID("told=-103");
    casync_close(&b);
    end_stream();
}

/* -- datagrams -- */

static casync_datagram datagram;

/* Queues datagrams that their receiver, which does not read, has no place for. */
static void open_datagram_with_much(void) {
    casync_datagram_desc desc = ZERO;
    int fds[2], i;
    open_hearing_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    peer = fds[1];
    desc.use_fd = true;
    desc.fd = fds[0];
    EQ(casync_datagram_open(&loop, &datagram, &desc), 0);
    for (i = 0; i < 1000 && datagram.queued == 0; i++)
        EQ(casync_datagram_write(&datagram, block, 1000, NULL), 1000);
    EQ(casync_datagram_write(&datagram, block, 1000, NULL), 1000);
    EXPECT(datagram.queued > 0);
}
TEST(a_close_of_datagrams_tells_how_many_bytes_are_lost) {
    open_datagram_with_much();
    casync_datagram_close(&datagram);
    SAID("told=-103");
    EXPECT(told.unsent >= 2000);
    PTR_EQ(told.datagram, NULL);
    casync_datagram_close(&datagram);
    end_stream();
}
static void open_datagram_again(casync_stream *stream) {
    casync_datagram_desc desc = ZERO;
    PTR_EQ(stream, NULL);
    desc.use_fd = true;
    desc.fd = spare[0];
    EQ(casync_datagram_open(&loop, &datagram, &desc), 0);
}
TEST(closed_datagrams_may_be_opened_again_where_the_loss_is_told) {
    open_datagram_with_much();
    EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, spare), 0);
    when_told = open_datagram_again;
    casync_datagram_close(&datagram);
    SAID("told=-103");
    EXPECT(casync_datagram_is_open(&datagram));
    casync_datagram_close(&datagram);
    close(spare[1]);
    end_stream();
}
TEST(an_abort_of_datagrams_tells_nothing) {
    open_datagram_with_much();
    EQ(casync_datagram_abort(&datagram), 0);
    turns(3);
    casync_datagram_close(&datagram);
    end_stream();
}
static int64_t finishes_datagrams(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return casync_datagram_finish(&datagram);
}
TEST(a_finish_of_datagrams_that_is_cancelled_tells_what_is_lost) {
    casync_task *task;
    open_datagram_with_much();
    task = spawn(finishes_datagrams, NULL);
    turns(2);
    EQ(casync_task_cancel(task), 1);
    EQ(casync_run_until_complete(&task->future), -ECANCELED);
    casync_task_release(task);
    SAID("told=-103");
    casync_datagram_close(&datagram);
    end_stream();
}

TEST_MAIN

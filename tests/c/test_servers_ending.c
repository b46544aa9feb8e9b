/* >> servers: how connections end whose tasks have ended, and servers before their clients are
   gone. */
#include "endings_fixture.h"

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

/* >> connections ------------------------------------------------------------------------------ */

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

/* >> servers that are closed before their clients are gone ------------------------------------ */

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

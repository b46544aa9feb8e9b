/* >> servers: listening and accepting, over TCP and Unix sockets. */
#include "servers_fixture.h"

/* a connects, b is the server's end. */
static void join_by_operations(void) {
    casync_op accepting;
    casync_future *accepted = casync_accept_op(&server, &accepting, &b);
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
    EQ(result_of(accepted), 0);
}

static void expect_exchange(void) {
    casync_op read;
    EQ(write_text(&a, "ping"), 4);
    EQ(result_of(casync_read_exactly_op(&b, &read, text, 4)), 4);
    MEM_EQ(text, "ping", 4);
    EQ(write_text(&b, "pong"), 4);
    EQ(result_of(casync_read_exactly_op(&a, &read, text, 4)), 4);
    MEM_EQ(text, "pong", 4);
}

/* >> TCP -------------------------------------------------------------------------------------- */

TEST(ipv4) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    EQ(strncmp(casync_address_text(&address, words), "127.0.0.1:", 10), 0);
    join_by_operations();
    expect_exchange();
    EQ(casync_peer_address(&a, &address), 0);
    EQ(casync_address_port(&address), connect_desc.port);
    EQ(casync_local_address(&b, &address), 0);
    EQ(casync_address_port(&address), connect_desc.port);
    close_all();
}

TEST(ipv6) {
    if (!has_ipv6()) SKIP("no IPv6 here");
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("::1");
    EQ(strncmp(casync_address_text(&address, words), "[::1]:", 6), 0);
    join_by_operations();
    expect_exchange();
    close_all();
}

TEST(without_a_host_a_server_listens_at_all_addresses) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at(NULL);
    join_by_operations(); /* no host: loopback */
    expect_exchange();
    casync_close(&a);
    casync_close(&b);
    connect_desc.host = "127.0.0.1";
    join_by_operations();
    expect_exchange();
    if (has_ipv6()) {
        casync_close(&a);
        casync_close(&b);
        connect_desc.host = "::1";
        join_by_operations();
        expect_exchange();
    }
    close_all();
}

TEST(a_connection_may_be_bound_to_a_local_address) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    connect_desc.local_host = "127.0.0.2";
    join_by_operations();
    EQ(casync_peer_address(&b, &address), 0);
    EQ(strncmp(casync_address_text(&address, words), "127.0.0.2:", 10), 0);
    close_all();
}

TEST(a_connection_may_be_bound_to_a_local_port_alone) {
    int probe;
    struct sockaddr_in in;
    socklen_t size = sizeof in;
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    probe = socket(AF_INET, SOCK_STREAM, 0);
    EQ(bind(probe, (struct sockaddr *)&in, sizeof in), 0); /* a port that is free */
    EQ(getsockname(probe, (struct sockaddr *)&in, &size), 0);
    close(probe);
    connect_desc.local_port = ntohs(in.sin_port);
    join_by_operations();
    EQ(casync_peer_address(&b, &address), 0);
    EQ(casync_address_port(&address), connect_desc.local_port);
    close_all();
}

TEST(tcp_options) {
    casync_stream_options options;
    memset(&options, 0, sizeof options);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_desc.options.keepalive = 7;
    listen_at("127.0.0.1");
    join_by_operations();
    EXPECT(socket_option(a.endpoint.watcher.fd, IPPROTO_TCP, TCP_NODELAY)); /* as in asyncio */
    EXPECT(socket_option(b.endpoint.watcher.fd, IPPROTO_TCP, TCP_NODELAY));
    EXPECT(socket_option(b.endpoint.watcher.fd, SOL_SOCKET, SO_KEEPALIVE));
    EQ(socket_option(b.endpoint.watcher.fd, IPPROTO_TCP, TCP_KEEPIDLE), 7);
    EXPECT(!socket_option(a.endpoint.watcher.fd, SOL_SOCKET, SO_KEEPALIVE));
    EQ(casync_set_nodelay(&a, false), 0);
    EXPECT(!socket_option(a.endpoint.watcher.fd, IPPROTO_TCP, TCP_NODELAY));
    EQ(casync_set_nodelay(&a, true), 0);
    EXPECT(socket_option(a.endpoint.watcher.fd, IPPROTO_TCP, TCP_NODELAY));
    EQ(casync_set_keepalive(&a, 9), 0);
    EXPECT(socket_option(a.endpoint.watcher.fd, SOL_SOCKET, SO_KEEPALIVE));
    EQ(socket_option(a.endpoint.watcher.fd, IPPROTO_TCP, TCP_KEEPIDLE), 9);
    EQ(casync_set_keepalive(&a, 0), 0);
    EXPECT(!socket_option(a.endpoint.watcher.fd, SOL_SOCKET, SO_KEEPALIVE));
    casync_close(&a);
    casync_close(&b);
    options.nagle = true;
    connect_desc.options = &options;
    join_by_operations();
    EXPECT(!socket_option(a.endpoint.watcher.fd, IPPROTO_TCP, TCP_NODELAY));
    close_all();
}

TEST(several_servers_may_share_a_port) {
    static casync_server second;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_desc.reuse_port = true;
    listen_at("127.0.0.1");
    listen_desc.port = connect_desc.port;
    EQ(casync_listen(&loop, &second, &listen_desc), 0);
    casync_server_close(&second);
    listen_desc.reuse_port = false;
    EQ(casync_listen(&loop, &second, &listen_desc), -EADDRINUSE);
    EXPECT(!second.open);
    close_all();
}

TEST(a_port_can_be_listened_at_again_at_once) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    join_by_operations();
    expect_exchange();
    casync_close(&b); /* its end goes into TIME_WAIT */
    casync_close(&a);
    casync_server_close(&server);
    listen_desc.port = connect_desc.port;
    listen_at("127.0.0.1");
    join_by_operations();
    close_all();
}

TEST(a_reset_arrives_as_an_error_of_the_stream) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    signal(SIGPIPE, SIG_DFL);
    listen_at("127.0.0.1");
    join_by_operations();
    casync_close_reset(&b);
    EQ(result_of(casync_read_op(&a, &the_op, text, sizeof text)), -ECONNRESET);
    EXPECT(casync_write(&a, "x", 1) < 0);
    close_all();
}

TEST(a_reset_is_told_to_the_protocol) {
    protocol = saying_protocol();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    connect_desc.protocol = &protocol;
    join_by_operations();
    SAID("made");
    casync_close_reset(&b);
    run_until_said("lost=-104");
    EQ(ECONNRESET, 104);
    close_all();
}

TEST(half_closed_tcp_goes_on_the_other_way) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    join_by_operations();
    EQ(casync_write_eof(&a), 0);
    EQ(result_of(casync_read_op(&b, &the_op, text, sizeof text)), 0);
    EQ(write_text(&b, "answer"), 6);
    EQ(result_of(casync_finish_op(&b, &the_op)), 0);
    EQ(result_of(casync_read_op(&a, &the_op, text, sizeof text)), 6);
    EQ(result_of(casync_read_op(&a, &the_op, text, sizeof text)), 0);
    close_all();
}

/* >> Unix sockets ----------------------------------------------------------------------------- */

static char path[108];

static void listen_at_path(const char *name) {
    snprintf(path, sizeof path, name, (int)getpid());
    listen_desc.path = connect_desc.path = path;
    EQ(casync_listen(&loop, &server, &listen_desc), 0);
}

TEST(unix_sockets_in_the_file_system) {
    struct stat status;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at_path("/tmp/casync-test-%d.sock");
    EQ(casync_server_address(&server, &address), 0);
    STR_EQ(casync_address_text(&address, words), path);
    EQ(casync_address_port(&address), 0);
    join_by_operations();
    expect_exchange();
    EQ(casync_peer_address(&a, &address), 0);
    STR_EQ(casync_address_text(&address, words), path);
    casync_server_close(&server);
    EQ(lstat(path, &status), 0); /* left behind, and no obstacle to the next */
    EQ(casync_listen(&loop, &server, &listen_desc), 0);
    unlink(path);
    close_all();
}

TEST(a_file_that_is_no_socket_is_not_removed) {
    int fd;
    struct stat status;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    snprintf(path, sizeof path, "/tmp/casync-test-%d.file", (int)getpid());
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    close(fd);
    listen_desc.path = path;
    EQ(casync_listen(&loop, &server, &listen_desc), -EADDRINUSE);
    EQ(lstat(path, &status), 0);
    unlink(path);
    connect_desc.path = path;
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), -ENOENT);
    close_all();
}

TEST(abstract_unix_sockets) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at_path("@casync-test-%d");
    EQ(casync_server_address(&server, &address), 0);
    STR_EQ(casync_address_text(&address, words), path);
    join_by_operations();
    expect_exchange();
    close_all();
}

/* >> accepting -------------------------------------------------------------------------------- */

TEST(listen_errors_change_nothing) {
    casync_listen_desc bad = ZERO;
    casync_loop closed = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    bad.host = "127.0.0.1";
    bad.conn_size = sizeof(casync_stream) - 1;
    EQ(casync_listen(&loop, &server, &bad), -EINVAL);
    bad.conn_size = sizeof(casync_stream);
    bad.stream_offset = 8;
    EQ(casync_listen(&loop, &server, &bad), -EINVAL);
    memset(&bad, 0, sizeof bad);
    bad.use_fd = true;
    bad.fd = -1;
    EQ(casync_listen(&loop, &server, &bad), -EBADF);
    bad.use_fd = false;
    bad.host = "192.0.2.1"; /* nobody's address (RFC 5737) */
    EQ(casync_listen(&loop, &server, &bad), -EADDRNOTAVAIL);
    bad.host = "127.0.0.1";
    EQ(casync_listen(&closed, &server, &bad), -EINVAL);
    EXPECT(!server.open);
    EQ(open_descriptors(), descriptors_before + 2);
    listen_at("127.0.0.1");
    EQ(casync_listen(&loop, &server, &listen_desc), -EALREADY);
    join_by_operations();
    close_all();
}

static void echo(casync_stream *stream, casync_span data) {
    EQ(casync_write(stream, data.ptr, data.len), data.len);
}

typedef struct connection {
    int64_t number;
    casync_stream stream;
    char rest[100];
} connection;

static int64_t connections_made, connections_lost;

static connection *connection_of(casync_stream *stream) {
    return (connection *)(void *)((char *)stream - offsetof(connection, stream));
}

static void connection_made(casync_stream *stream) {
    connection *c = connection_of(stream);
    EQ(c->number, 0);
    EQ(c->rest[99], 0);
    c->number = ++connections_made;
    memset(c->rest, 1, sizeof c->rest);
    PTR_EQ(stream->user, &protocol);
}

static void connection_lost(casync_stream *stream, int64_t error) {
    connection *c = connection_of(stream);
    EXPECT(c->number > 0);
    (void)error;
    connections_lost++;
}

static void listen_with_connections(void) {
    protocol = no_protocol();
    protocol.connection_made = connection_made;
    protocol.data_received = echo;
    protocol.connection_lost = connection_lost;
    listen_desc.protocol = &protocol;
    listen_desc.conn_size = sizeof(connection);
    listen_desc.stream_offset = offsetof(connection, stream);
    listen_desc.options.user = &protocol;
    listen_at("127.0.0.1");
}

enum { CLIENTS = 50 };
static casync_stream clients[CLIENTS];

static void connect_clients(void) {
    int i;
    for (i = 0; i < CLIENTS; i++)
        EQ(result_of(casync_connect_op(&loop, &clients[i], &the_op, &connect_desc)), 0);
    while (connections_made < CLIENTS) EQ(casync_run_once(&loop), 0);
}

TEST(a_server_makes_its_connections) {
    int i;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_with_connections();
    connect_clients();
    for (i = 0; i < CLIENTS; i++) EQ(write_text(&clients[i], "hello"), 5);
    for (i = 0; i < CLIENTS; i++) {
        EQ(result_of(casync_read_exactly_op(&clients[i], &the_op, text, 5)), 5);
        MEM_EQ(text, "hello", 5);
        EQ(result_of(casync_finish_op(&clients[i], &the_op)), 0);
    }
    while (connections_lost < CLIENTS) EQ(casync_run_once(&loop), 0);
    close_all();
}

TEST(connections_go_on_without_their_server) {
    int i;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_with_connections();
    connect_clients();
    casync_server_close(&server);
    casync_server_close(&server);
    memset((void *)&server, 0xee, sizeof server);
    for (i = 0; i < CLIENTS; i++) {
        EQ(write_text(&clients[i], "hello"), 5);
        EQ(result_of(casync_read_exactly_op(&clients[i], &the_op, text, 5)), 5);
        casync_close(&clients[i]);
    }
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), -ECONNREFUSED);
    while (connections_lost < CLIENTS) EQ(casync_run_once(&loop), 0);
    memset((void *)&server, 0, sizeof server);
    close_all();
}

TEST(a_server_may_abort_or_finish_its_clients) {
    int i;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_with_connections();
    EQ(casync_server_abort_clients(&server), 0);
    connect_clients();
    EQ(casync_server_finish_clients(&server), CLIENTS);
    for (i = 0; i < CLIENTS; i++) {
        EQ(result_of(casync_read_op(&clients[i], &the_op, text, 5)), 0);
        casync_close(&clients[i]);
    }
    EQ(connections_lost, CLIENTS);
    connections_made = 0;
    connect_clients();
    EQ(casync_server_abort_clients(&server), CLIENTS);
    turns(2);
    EQ(connections_lost, 2 * CLIENTS);
    for (i = 0; i < CLIENTS; i++) casync_close(&clients[i]);
    casync_server_close(&server);
    EQ(casync_server_abort_clients(&server), 0);
    EQ(casync_server_finish_clients(&server), 0);
    close_all();
}

static void close_in_made(casync_stream *stream) {
    connections_made++;
    casync_close(stream);
}

static void abort_in_made(casync_stream *stream) {
    connections_made++;
    EQ(casync_abort(stream), 0);
}

static void close_server_in_made(casync_stream *stream) {
    connections_made++;
    casync_server_close(&server);
    casync_close(stream);
}

static void expect_end_of_client(void) {
    int64_t result;
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
    result = result_of(casync_read_op(&a, &the_op, text, 1));
    EXPECT(result == 0 || result == -ECONNRESET);
    casync_close(&a);
}

TEST(connection_made_may_close_the_stream_or_the_server) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_with_connections();
    protocol.connection_made = close_in_made;
    expect_end_of_client();
    EQ(connections_made, 1);
    protocol.connection_made = abort_in_made;
    protocol.connection_lost = said_lost;
    expect_end_of_client();
    SAID("lost=-103");
    protocol.connection_made = close_server_in_made;
    expect_end_of_client();
    EQ(connections_made, 3);
    EXPECT(!server.open);
    close_all();
}

TEST(accepted_gives_the_descriptor_away) {
    casync_stream_options options;
    memset(&options, 0, sizeof options);
    options.accepted = true;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_desc.accepted = accepted;
    listen_desc.user = text;
    listen_at("127.0.0.1");
    PTR_EQ(server.user, text);
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
    while (accepted_fd < 0) EQ(casync_run_once(&loop), 0);
    EQ(casync_stream_open(&loop, &b, accepted_fd, NULL, &options), 0);
    EXPECT(socket_option(b.endpoint.watcher.fd, IPPROTO_TCP, TCP_NODELAY));
    expect_exchange();
    close_all();
}

TEST(accept_operations_take_connections_in_order) {
    static casync_stream ends[3];
    casync_op accepts[3];
    casync_future *futures[3];
    int i;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    for (i = 0; i < 3; i++) futures[i] = casync_accept_op(&server, &accepts[i], &ends[i]);
    for (i = 0; i < 3; i++)
        EQ(result_of(casync_connect_op(&loop, &clients[i], &the_op, &connect_desc)), 0);
    for (i = 0; i < 3; i++) {
        EQ(result_of(futures[i]), 0);
        EQ(casync_write(&ends[i], &"012"[i], 1), 1);
        EQ(result_of(casync_read_op(&clients[i], &the_op, text, 1)), 1);
        EQ(text[0], "012"[i]);
    }
    for (i = 0; i < 3; i++) {
        casync_close(&ends[i]);
        casync_close(&clients[i]);
    }
    close_all();
}

TEST(connections_wait_in_the_kernel_until_they_are_asked_for) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
    turns(3);
    EQ(result_of(casync_accept_op(&server, &the_op, &b)), 0);
    expect_exchange();
    close_all();
}

TEST(accept_operations_end) {
    casync_op second;
    casync_future *future, *cancelled;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    future = casync_accept_op(&server, &the_op, &b);
    cancelled = casync_accept_op(&server, &second, &a);
    EQ(casync_future_cancel(cancelled), 1);
    EQ(result_of(cancelled), -ECANCELED);
    casync_server_close(&server);
    EQ(result_of(future), -ECONNABORTED);
    EQ(result_of(casync_accept_op(&server, &the_op, &b)), CASYNC_INVALID_STATE);
    EXPECT(!casync_stream_is_open(&b));
    close_all();
}

TEST(accepting_pauses_and_resumes) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_desc.start_paused = true;
    listen_with_connections();
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
    turns(3);
    EQ(connections_made, 0);
    EQ(casync_server_resume(&server), 0);
    while (connections_made == 0) EQ(casync_run_once(&loop), 0);
    EQ(casync_server_pause(&server), 0);
    EQ(result_of(casync_connect_op(&loop, &b, &the_op, &connect_desc)), 0);
    turns(3);
    EQ(connections_made, 1);
    casync_close(&a);
    casync_close(&b);
    while (connections_lost == 0) EQ(casync_run_once(&loop), 0);
    casync_server_close(&server);
    EQ(casync_server_pause(&server), CASYNC_INVALID_STATE);
    EQ(casync_server_resume(&server), CASYNC_INVALID_STATE);
    close_all();
}

TEST(a_server_of_a_descriptor) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in local;
    memset(&local, 0, sizeof local);
    local.sin_family = AF_INET;
    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EQ(bind(fd, (struct sockaddr *)&local, sizeof local), 0);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_desc.use_fd = listen_desc.keep_fd = true;
    listen_desc.fd = fd;
    listen_at("127.0.0.1");
    join_by_operations();
    expect_exchange();
    casync_close(&a);
    casync_close(&b);
    casync_server_close(&server);
    EXPECT(fcntl(fd, F_GETFD) >= 0); /* kept */
    listen_desc.keep_fd = false;
    EQ(casync_listen(&loop, &server, &listen_desc), 0);
    casync_server_close(&server);
    EQ(fcntl(fd, F_GETFD), -1);
    descriptors_before--;
    close_all();
}

TEST(an_unreferenced_server_keeps_nothing_running) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_with_connections();
    EXPECT(casync_loop_alive(&loop));
    casync_server_ref(&server, false);
    EXPECT(!casync_loop_alive(&loop));
    EQ(casync_run_until_idle(&loop), 0);
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
    while (connections_made == 0) turn();
    casync_close(&a);
    while (connections_lost == 0) turn();
    close_all();
}

TEST(without_descriptors_accepting_pauses_and_goes_on) {
    int64_t before;
    open_loop(CASYNC_CLOCK_VIRTUAL_FORCED);
    listen_with_connections();
    EQ(casync_server_pause(&server), 0);
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
    forbid_descriptors();
    EQ(casync_server_resume(&server), 0);
    while (said_size == 0) turn();
    SAID("exception=-24"); /* EMFILE, once, and no busy loop */
    turns(10);
    SAID("");
    EQ(connections_made, 0);
    allow_descriptors();
    before = casync_time(&loop);
    EQ(casync_run_once(&loop), 0);
    while (connections_made == 0) EQ(casync_run_once(&loop), 0);
    EQ(casync_time(&loop) - before, CASYNC_MS(100));
    casync_close(&a);
    while (connections_lost == 0) turn();
    close_all();
}

TEST(a_connection_without_memory_is_dropped_and_told) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_with_connections();
    EQ(casync_server_pause(&server), 0);
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
    fail_allocation(1, 0);
    EQ(casync_server_resume(&server), 0);
    while (said_size == 0) turn();
    SAID("exception=-12");
    fail_no_allocation();
    EQ(connections_made, 0);
    EXPECT(server.open);
    casync_close(&a);
    connect_clients();
    EQ(casync_server_abort_clients(&server), CLIENTS);
    turns(2);
    {
        int i;
        for (i = 0; i < CLIENTS; i++) casync_close(&clients[i]);
    }
    close_all();
}

TEST(a_cancelled_accept_leaves_the_connection_in_the_kernel) {
    casync_future *future;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    future = casync_accept_op(&server, &the_op, &b);
    turns(2);
    EQ(casync_future_cancel(future), 1);
    casync_future_close(future);
    EXPECT(!casync_loop_alive(&loop));
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
    turns(3);
    EXPECT(!casync_stream_is_open(&b));
    EQ(result_of(casync_accept_op(&server, &the_op, &b)), 0);
    expect_exchange();
    close_all();
}

/* A connection that holds its operation and its job, as the design shows it: when it ends, the
   callback still runs in memory that is there. */
typedef struct working_connection {
    casync_stream stream;
    casync_op op;
    casync_job job;
    char bytes[16];
} working_connection;

static int operations_done;

static void operation_done(void *arg) {
    working_connection *c = (working_connection *)arg;
    operations_done++;
    (void)casync_future_result(&c->op.future);
    memset(c->bytes, 1, sizeof c->bytes);
}

static void read_in_made(casync_stream *stream) {
    working_connection *c = (working_connection *)stream;
    casync_future *future = casync_read_op(stream, &c->op, c->bytes, sizeof c->bytes);
    EQ(casync_future_add_done_callback(future, &c->job, operation_done, c), 0);
}

static void finish_in_made(casync_stream *stream) {
    working_connection *c = (working_connection *)stream;
    casync_future *future = casync_finish_op(stream, &c->op);
    EQ(casync_future_add_done_callback(future, &c->job, operation_done, c), 0);
}

static void read_and_close_in_made(casync_stream *stream) {
    read_in_made(stream);
    casync_close(stream);
}

static void finish_and_cancel_in_made(casync_stream *stream) {
    finish_in_made(stream);
    EQ(casync_future_cancel(&((working_connection *)stream)->op.future), 1);
}

static void expect_operation_in(void (*made)(casync_stream *stream)) {
    protocol = no_protocol();
    protocol.connection_made = made;
    memset(&listen_desc, 0, sizeof listen_desc);
    listen_desc.protocol = &protocol;
    listen_desc.conn_size = sizeof(working_connection);
    operations_done = 0;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
    turns(5);
    casync_close_reset(&a);
    while (operations_done == 0) EQ(casync_run_once(&loop), 0);
    turns(3);
    EQ(operations_done, 1);
    close_all();
}

TEST(operations_inside_a_connections_memory_are_done_before_it_is_freed) {
    expect_operation_in(read_in_made);
    expect_operation_in(finish_in_made);
    expect_operation_in(read_and_close_in_made);
    expect_operation_in(finish_and_cancel_in_made);
}

static casync_stream *made[3];
static int made_count;
static casync_filter closing_filter;

static int64_t close_server_in_write_eof(casync_filter *filter) {
    (void)filter;
    casync_server_close(&server);
    return 0;
}

static void set_filter_in_made(casync_stream *stream) {
    made[made_count++] = stream;
    if (made_count > 1) return;
    closing_filter.write_eof = close_server_in_write_eof;
    EQ(casync_set_filter(stream, &closing_filter), 0);
}

TEST(the_server_may_be_closed_while_its_clients_are_finished) {
    int i;
    protocol = no_protocol();
    protocol.connection_made = set_filter_in_made;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_desc.protocol = &protocol;
    listen_at("127.0.0.1");
    for (i = 0; i < 3; i++)
        EQ(result_of(casync_connect_op(&loop, &clients[i], &the_op, &connect_desc)), 0);
    while (made_count < 3) EQ(casync_run_once(&loop), 0);
    EXPECT(casync_server_finish_clients(&server) >= 1);
    EXPECT(!server.open);
    casync_close(made[1]);
    casync_close(made[2]);
    turns(3);
    for (i = 0; i < 3; i++) casync_close(&clients[i]);
    close_all();
}

TEST(listen_refuses_options_that_no_connection_could_be_made_with) {
    casync_framing bad_framing = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    protocol = no_protocol();
    listen_desc.host = "127.0.0.1";
    listen_desc.protocol = &protocol;
    listen_desc.options.framing = &bad_framing;
    EQ(casync_listen(&loop, &server, &listen_desc), -EINVAL);
    listen_desc.options.framing = NULL;
    listen_desc.options.high_water = 1;
    listen_desc.options.low_water = 2;
    EQ(casync_listen(&loop, &server, &listen_desc), -EINVAL);
    listen_desc.options.high_water = 2;
    listen_desc.conn_size = sizeof(casync_stream) + 1;
    listen_desc.stream_offset = 1; /* misaligned */
    EQ(casync_listen(&loop, &server, &listen_desc), -EINVAL);
    EXPECT(!server.open);
    close_all();
}

/* >> a foreign client ------------------------------------------------------------------------- */

static void answer_http(casync_stream *stream, casync_span request) {
    (void)request;
    EXPECT(write_text(stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") > 0);
}

static void reap_curl(void *arg) {
    int status;
    while (waitpid(-1, &status, WNOHANG) > 0) say_number("curl", WEXITSTATUS(status));
    (void)arg;
}

TEST(curl_gets_an_answer) {
    casync_signal child = ZERO;
    char url[64];
    int output[2];
    pid_t pid;
    if (system("command -v curl >/dev/null 2>&1") != 0) SKIP("no curl here");
    open_loop(CASYNC_CLOCK_MONOTONIC);
    expect_signal_descriptors();
    protocol = no_protocol();
    protocol.data_received = answer_http;
    listen_desc.protocol = &protocol;
    listen_at("127.0.0.1");
    EQ(casync_signal_start(&loop, &child, SIGCHLD, 0, reap_curl, NULL), 0);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", connect_desc.port);
    make_pipe(output);
    pid = fork_child();
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        dup2(output[1], STDOUT_FILENO);
        execlp("curl", "curl", "-s", "--noproxy", "*", url, (char *)NULL);
        _exit(99);
    }
    run_until_said("curl=0");
    EQ(read(output[0], text, sizeof text), 5);
    MEM_EQ(text, "hello", 5);
    close_both(output);
    EQ(casync_signal_stop(&child), 1);
    turns(2);
    EXPECT(casync_server_abort_clients(&server) >= 0);
    turns(2);
    close_all();
}

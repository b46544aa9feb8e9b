/* >> servers: connecting to them, and connections that nobody reads. */
#include "servers_fixture.h"

/* >> connecting ------------------------------------------------------------------------------- */

/* A port at which nobody listens. */
static int unused_port(void) {
    int port;
    listen_at("127.0.0.1");
    port = connect_desc.port;
    casync_server_close(&server);
    return port;
}

TEST(a_refused_connection_fails_the_operation) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    connect_desc.port = unused_port();
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), -ECONNREFUSED);
    EXPECT(!casync_stream_is_open(&a));
    close_all();
}

TEST(a_refused_connection_is_told_to_the_protocol) {
    int64_t result;
    protocol = saying_protocol();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    connect_desc.port = unused_port();
    connect_desc.protocol = &protocol;
    result = casync_connect_start(&loop, &a, &connect_desc);
    if (result == 0)
        run_until_said("lost=-111");
    else
        EQ(result, -ECONNREFUSED);
    EQ(ECONNREFUSED, 111);
    EXPECT(!casync_stream_is_open(&a));
    close_all();
}

TEST(a_stream_that_connects_cannot_be_written_to_yet) {
    protocol = saying_protocol();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    connect_desc.protocol = &protocol;
    EQ(casync_connect_start(&loop, &a, &connect_desc), 0);
    EXPECT(casync_stream_is_open(&a));
    EQ(casync_write(&a, "x", 1), CASYNC_INVALID_STATE);
    EQ(casync_connect_start(&loop, &a, &connect_desc), -EALREADY);
    SAID("");
    run_until_said("made");
    EQ(casync_write(&a, "x", 1), 1);
    close_all();
}

TEST(a_stream_that_connects_may_be_closed) {
    casync_future *future;
    protocol = saying_protocol();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    connect_desc.protocol = &protocol;
    EQ(casync_connect_start(&loop, &a, &connect_desc), 0);
    casync_close(&a);
    turns(3);
    SAID("");
    connect_desc.protocol = NULL;
    future = casync_connect_op(&loop, &a, &the_op, &connect_desc);
    casync_close(&a);
    EQ(result_of(future), -ECONNABORTED);
    future = casync_connect_op(&loop, &a, &the_op, &connect_desc);
    EQ(casync_future_cancel(future), 1);
    casync_future_close(future);
    EXPECT(!casync_stream_is_open(&a));
    close_all();
}

TEST(an_abort_while_connecting_is_told) {
    protocol = saying_protocol();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    connect_desc.protocol = &protocol;
    EQ(casync_connect_start(&loop, &a, &connect_desc), 0);
    EQ(casync_abort(&a), 0);
    run_until_said("lost=-103");
    close_all();
}

TEST(bad_addresses_are_refused_at_once) {
    static const char *const hosts[] = {"::g", "fe80::1%nonesuch0", "1:2"};
    static const char *const names[] = {"localhost", "127.0.0.256", "", "1.2.3"};
    char long_path[200];
    size_t i;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    for (i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        connect_desc.host = listen_desc.host = hosts[i];
        connect_desc.port = 80;
        EXPECT(casync_connect_start(&loop, &a, &connect_desc) < 0);
        EXPECT(casync_listen(&loop, &server, &listen_desc) < 0);
    }
    for (i = 0; i < sizeof names / sizeof *names; i++) {
        listen_desc.host = names[i]; /* nothing waits here */
        EQ(casync_listen(&loop, &server, &listen_desc), CASYNC_NOT_NUMERIC);
    }
    connect_desc.host = listen_desc.host = "127.0.0.1";
    connect_desc.port = listen_desc.port = 65536;
    EQ(casync_connect_start(&loop, &a, &connect_desc), -EINVAL);
    EQ(casync_listen(&loop, &server, &listen_desc), -EINVAL);
    connect_desc.port = listen_desc.port = -1;
    EQ(casync_connect_start(&loop, &a, &connect_desc), -EINVAL);
    EQ(casync_listen(&loop, &server, &listen_desc), -EINVAL);
    memset(long_path, 'x', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = 0;
    connect_desc.path = listen_desc.path = long_path;
    EQ(casync_connect_start(&loop, &a, &connect_desc), -EINVAL);
    EQ(casync_listen(&loop, &server, &listen_desc), -EINVAL);
    EXPECT(!casync_stream_is_open(&a));
    EXPECT(!server.open);
    EXPECT(!casync_loop_alive(&loop));
    close_all();
}

TEST(connecting_without_descriptors_is_emfile) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    forbid_descriptors();
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), -EMFILE);
    {
        static casync_server second;
        EQ(casync_listen(&loop, &second, &listen_desc), -EMFILE);
    }
    allow_descriptors();
    close_all();
}

/* >> Unix sockets whose queue of connections is full ------------------------------------------ */

/* A server of the test's own, that accepts when it is told. */
static int listener, waiting_clients[64], waiting_count;
static struct sockaddr_un full_address;

static int connect_plainly(void) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    EXPECT(fd >= 0);
    if (connect(fd, (struct sockaddr *)&full_address, sizeof full_address) == 0) return fd;
    EQ(errno, EAGAIN);
    close(fd);
    return -1;
}

static void listen_until_full(void) {
    int fd;
    memset(&full_address, 0, sizeof full_address);
    full_address.sun_family = AF_UNIX;
    snprintf(full_address.sun_path, sizeof full_address.sun_path, "/tmp/casync-full-%d.sock",
             (int)getpid());
    connect_desc.path = full_address.sun_path;
    unlink(full_address.sun_path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EQ(bind(listener, (struct sockaddr *)&full_address, sizeof full_address), 0);
    EQ(listen(listener, 1), 0);
    waiting_count = 0;
    while ((fd = connect_plainly()) >= 0) waiting_clients[waiting_count++] = fd;
    EXPECT(waiting_count > 0);
}

/* Takes the connections of those who came before. */
static void accept_waiting_clients(void) {
    while (waiting_count > 0) {
        close(accept(listener, NULL, NULL));
        close(waiting_clients[--waiting_count]);
    }
}

static void close_full_server(void) {
    while (waiting_count > 0) close(waiting_clients[--waiting_count]);
    if (listener >= 0) close(listener);
    unlink(full_address.sun_path);
    casync_close(&a);
    close_loop();
}

TEST(a_connection_to_a_full_server_waits_and_tries_again) {
    casync_future *connected;
    int fd;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_until_full();
    connected = casync_connect_op(&loop, &a, &the_op, &connect_desc);
    turns(5);
    EXPECT(!casync_future_done(connected));
    EXPECT(casync_stream_is_open(&a));
    EXPECT(casync_loop_alive(&loop));
    EQ(write_text(&a, "too soon"), CASYNC_INVALID_STATE);
    accept_waiting_clients();
    EQ(result_of(connected), 0);
    EQ(write_text(&a, "hello"), 5);
    fd = accept(listener, NULL, NULL);
    EQ(read(fd, text, sizeof text), 5);
    MEM_EQ(text, "hello", 5);
    EQ(write(fd, "answer", 6), 6);
    EQ(result_of(casync_read_op(&a, &the_op, text, sizeof text)), 6);
    close(fd);
    close_full_server();
}

TEST(a_connection_to_a_full_server_is_told_to_its_protocol) {
    protocol = saying_protocol();
    connect_desc.protocol = &protocol;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_until_full();
    EQ(casync_connect_start(&loop, &a, &connect_desc), 0);
    turns(5);
    SAID("");
    accept_waiting_clients();
    run_until_said("made");
    close_full_server();
}

TEST(a_connection_to_a_full_server_may_be_given_up) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_until_full();
    (void)casync_connect_op(&loop, &a, &the_op, &connect_desc);
    turns(2);
    casync_close(&a);
    EQ(result_of(&the_op.future), -ECONNABORTED);
    (void)casync_connect_op(&loop, &a, &the_op, &connect_desc);
    turns(2);
    EQ(casync_future_cancel(&the_op.future), 1);
    EQ(result_of(&the_op.future), -ECANCELED);
    EXPECT(!casync_stream_is_open(&a));
    protocol = saying_protocol();
    connect_desc.protocol = &protocol;
    EQ(casync_connect_start(&loop, &a, &connect_desc), 0);
    EQ(casync_abort(&a), 0);
    run_until_said("lost=-103");
    EXPECT(!casync_loop_alive(&loop));
    close_full_server();
}

TEST(a_connection_to_a_full_server_that_goes_is_refused) {
    casync_future *connected;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_until_full();
    connected = casync_connect_op(&loop, &a, &the_op, &connect_desc);
    turns(2);
    close(listener);
    listener = -1;
    EQ(result_of(connected), -ECONNREFUSED);
    EXPECT(!casync_stream_is_open(&a));
    close_full_server();
}

static int64_t connect_for_a_while(casync_loop *where, void *arg) {
    (void)arg;
    EQ(casync_connect_timeout(where, &a, &connect_desc, CASYNC_MS(20)), -ETIMEDOUT);
    EXPECT(!casync_stream_is_open(&a));
    return 0;
}

TEST(a_connection_to_a_full_server_is_limited_in_time) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_until_full();
    EQ(run_task(connect_for_a_while, NULL), 0);
    close_full_server();
}

TEST(a_stream_that_waits_for_a_full_server_keeps_nothing_running_if_told_so) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_until_full();
    EQ(casync_connect_start(&loop, &a, &connect_desc), 0);
    casync_stream_ref(&a, false);
    EQ(casync_run_until_idle(&loop), 0);
    close_full_server();
}

/* >> connections whose protocol does not read ------------------------------------------------- */

static int plain_client;

static void serve_without_reading(void) {
    struct sockaddr_in local;
    protocol = no_protocol();
    protocol.connection_made = said_made;
    protocol.connection_lost = said_lost;
    listen_desc.protocol = &protocol;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    memset(&local, 0, sizeof local);
    local.sin_family = AF_INET;
    local.sin_port = htons((uint16_t)connect_desc.port);
    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    plain_client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EQ(connect(plain_client, (struct sockaddr *)&local, sizeof local), 0);
    run_until_said("made");
}

static void reset_plain_client(void) {
    struct linger reset = {1, 0};
    EQ(setsockopt(plain_client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    close(plain_client);
}

TEST(a_connection_that_is_not_read_hears_of_a_reset) {
    serve_without_reading();
    reset_plain_client();
    run_until_said("lost=-104");
    EQ(result_of(casync_server_wait_clients_op(&server, &the_op)), 0);
    close_all();
    serve_without_reading();
    EQ(write(plain_client, "unread", 6), 6);
    turns(3);
    SAID("");
    reset_plain_client();
    run_until_said("lost=-104");
    close_all();
}

TEST(a_connection_that_is_not_read_hears_of_the_end) {
    serve_without_reading();
    close(plain_client);
    EQ(result_of(casync_server_wait_clients_op(&server, &the_op)), 0);
    SAID("lost=0");
    close_all();
}

TEST(a_stream_that_connected_and_is_not_read_hears_of_the_end) {
    casync_op accepting;
    casync_future *accepted;
    protocol = no_protocol();
    protocol.connection_lost = said_lost;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_at("127.0.0.1");
    connect_desc.protocol = &protocol;
    accepted = casync_accept_op(&server, &accepting, &b);
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
    EQ(result_of(accepted), 0);
    casync_close(&b);
    run_until_said("lost=0");
    close_all();
}

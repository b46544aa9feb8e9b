/* >> names: connecting to one of several addresses (RFC 8305), and listening at all of them. */
#include "names_fixture.h"

#include <netdb.h>

static casync_stream stream;
static casync_server server;
static casync_listen_desc listen_desc;
static casync_connect_desc connect_desc;
static casync_op connecting;
static char errors[256];

/* A server at `host`, and a desc that leads by name to its port. */
static void open_server_at(const char *host) {
    casync_address address;
    open_names(CASYNC_CLOCK_VIRTUAL_FORCED);
    listen_desc.host = host;
    EQ(casync_listen(&loop, &server, &listen_desc), 0);
    EQ(casync_server_address(&server, &address), 0);
    connect_desc.host = "host.test";
    connect_desc.port = casync_address_port(&address);
    connect_desc.errors = errors;
    connect_desc.errors_size = sizeof errors;
}

static int64_t connect_by_name(void) {
    return casync_run_until_complete(casync_connect_op(&loop, &stream, &connecting, &connect_desc));
}

static void peer_is(const char *host) {
    char text[CASYNC_ADDRESS_TEXT];
    casync_address address;
    EQ(casync_peer_address(&stream, &address), 0);
    casync_address_text(&address, text);
    *strrchr(text, ':') = 0;
    STR_EQ(text, host);
}

static void close_names(void) {
    casync_close(&stream);
    casync_server_close(&server);
    close_pool_loop();
}

/* An address that takes no connection and refuses none: its listener's queue is full. */
static struct { int listener, clients[3]; } full;

static void fill_up(const char *host, int port) {
    casync_address address;
    const struct sockaddr *where = (const struct sockaddr *)(const void *)address.storage.bytes;
    int i;
    EQ(casync_address_from_host(&address, host, port), 0);
    full.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EQ(bind(full.listener, where, address.size), 0);
    EQ(listen(full.listener, 0), 0);
    for (i = 0; i < 3; i++) {
        full.clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        connect(full.clients[i], where, address.size);
    }
}

static void close_full(void) {
    int i;
    for (i = 0; i < 3; i++) close(full.clients[i]);
    close(full.listener);
}

TEST(a_name_is_connected_to) {
    open_server_at("127.0.0.2");
    resolver_knows("127.0.0.2");
    EQ(connect_by_name(), 0);
    peer_is("127.0.0.2");
    STR_EQ(errors, "");
    close_names();
}

TEST(an_address_that_refuses_is_followed_by_the_next_at_once) {
    int64_t began;
    open_server_at("127.0.0.2");
    resolver_knows("127.0.0.3");
    resolver_knows("127.0.0.4");
    resolver_knows("127.0.0.2");
    began = casync_time(&loop);
    EQ(connect_by_name(), 0);
    peer_is("127.0.0.2");
    EXPECT(casync_time(&loop) - began < CASYNC_MS(250));
    close_names();
}

TEST(an_address_that_is_silent_has_a_quarter_of_a_second_for_itself) {
    int64_t began;
    open_server_at("127.0.0.2");
    fill_up("127.0.0.3", connect_desc.port);
    resolver_knows("127.0.0.3");
    resolver_knows("127.0.0.2");
    began = casync_time(&loop);
    EQ(connect_by_name(), 0);
    peer_is("127.0.0.2");
    EXPECT(casync_time(&loop) - began >= CASYNC_MS(250));
    casync_close(&stream);

    connect_desc.attempt_delay = CASYNC_MS(10);
    began = casync_time(&loop);
    EQ(connect_by_name(), 0);
    EXPECT(casync_time(&loop) - began >= CASYNC_MS(10));
    EXPECT(casync_time(&loop) - began < CASYNC_MS(250));
    close_full();
    close_names();
}

static int64_t say_and_refuse(int fd, const struct sockaddr *where, socklen_t size) {
    casync_nameinfo info;
    (void)fd;
    EQ(casync__sys_getnameinfo(where, size, &info, NI_NUMERICHOST), 0);
    say(info.host);
    return -ENETUNREACH;
}

TEST(families_are_tried_by_turns) {
    open_server_at("127.0.0.2");
    if (!has_ipv6()) SKIP("no IPv6 here");
    casync_syscalls.connect = say_and_refuse;
    resolver_knows("::1");
    resolver_knows("::2");
    resolver_knows("::3");
    resolver_knows("127.0.0.3");
    resolver_knows("127.0.0.4");
    EQ(connect_by_name(), -ENETUNREACH);
    SAID("::1 127.0.0.3 ::2 127.0.0.4 ::3");
    EXPECT(!casync_stream_is_open(&stream));
    close_names();
}

TEST(when_all_attempts_fail_the_error_names_each) {
    char expected[256];
    open_server_at("127.0.0.2");
    resolver_knows("127.0.0.3");
    resolver_knows("127.0.0.4");
    EQ(connect_by_name(), -ECONNREFUSED);
    snprintf(expected, sizeof expected,
             "127.0.0.3:%d: Connection refused; 127.0.0.4:%d: Connection refused",
             connect_desc.port, connect_desc.port);
    STR_EQ(errors, expected);
    connect_desc.errors_size = 20; /* no more than there is room for */
    EQ(connect_by_name(), -ECONNREFUSED);
    EQ(strlen(errors), 19);
    connect_desc.errors_size = 1;
    EQ(connect_by_name(), -ECONNREFUSED);
    STR_EQ(errors, "");
    connect_desc.errors = NULL;
    EQ(connect_by_name(), -ECONNREFUSED);
    close_names();
}

TEST(a_name_that_is_not_known_is_an_error_of_connecting) {
    open_server_at("127.0.0.2");
    resolver.error = casync__name_result(EAI_NONAME);
    EQ(connect_by_name(), CASYNC_EAI_NONAME);
    EXPECT(!casync_stream_is_open(&stream));
    close_names();
}

static int64_t lost_with;
static void note_loss(casync_stream *from, int64_t error) {
    (void)from;
    lost_with = error;
}
static void note_made(casync_stream *from) { (void)from, say(WORD("made")); }

TEST(a_protocol_hears_how_connecting_by_name_went) {
    casync_protocol protocol;
    memset(&protocol, 0, sizeof protocol);
    protocol.connection_made = note_made;
    protocol.connection_lost = note_loss;
    open_server_at("127.0.0.2");
    connect_desc.protocol = &protocol;
    resolver_knows("127.0.0.2");
    EQ(casync_connect_start(&loop, &stream, &connect_desc), 0);
    EXPECT(casync_stream_is_open(&stream));
    while (!said_size) EQ(casync_run_once(&loop), 0);
    SAID("made");
    casync_close(&stream);
    resolver.error = casync__name_result(EAI_AGAIN);
    EQ(casync_connect_start(&loop, &stream, &connect_desc), 0);
    while (!lost_with) EQ(casync_run_once(&loop), 0);
    EQ(lost_with, CASYNC_EAI_AGAIN);
    SAID("");
    close_names();
}

TEST(connecting_can_be_given_up_at_every_step) {
    int step;
    open_server_at("127.0.0.2");
    fill_up("127.0.0.3", connect_desc.port);
    resolver_knows("127.0.0.3");
    for (step = 0; step < 6; step++) {
        int turns;
        casync_connect_op(&loop, &stream, &connecting, &connect_desc);
        for (turns = 0; turns < step; turns++) EQ(casync_run_nowait(&loop), 0);
        if (step % 2)
            EQ(casync_future_cancel(&connecting.future), 1);
        else
            casync_close(&stream);
        EXPECT(casync_future_done(&connecting.future));
        casync_future_result(&connecting.future);
        EXPECT(!casync_stream_is_open(&stream));
    }
    close_full();
    close_names();
}

static bool the_memory_was_short(void) {
    bool reached;
    pthread_mutex_lock(&memory_mutex);
    reached = memory.allocations >= memory.fail_from;
    fail_no_allocation();
    pthread_mutex_unlock(&memory_mutex);
    return reached;
}

TEST(want_of_memory_ends_connecting_cleanly) {
    int n = 0;
    open_server_at("127.0.0.2");
    resolver_knows("127.0.0.3");
    resolver_knows("127.0.0.2");
    EQ(connect_by_name(), 0);
    do {
        int64_t result;
        casync_close(&stream);
        pthread_mutex_lock(&memory_mutex);
        fail_allocation(++n, 1);
        pthread_mutex_unlock(&memory_mutex);
        result = connect_by_name(); /* 0 if the first attempt alone failed of it */
        EXPECT(result == 0 || result == -ENOMEM);
        EQ(casync_stream_is_open(&stream), result == 0);
    } while (the_memory_was_short());
    EXPECT(n > 5);
    close_names();
}

TEST(known_addresses_are_connected_to_without_looking_up) {
    casync_address addresses[2];
    open_server_at("127.0.0.2");
    EQ(casync_address_from_host(&addresses[0], "127.0.0.3", connect_desc.port), 0);
    EQ(casync_address_from_host(&addresses[1], "127.0.0.2", connect_desc.port), 0);
    connect_desc.addresses = addresses;
    connect_desc.address_count = 2;
    EQ(connect_by_name(), 0);
    peer_is("127.0.0.2");
    EQ(resolver.asked, 0);
    casync_close(&stream);
    connect_desc.address_count = 0;
    EQ(connect_by_name(), -EINVAL);
    close_names();
}

TEST(the_local_address_is_respected) {
    casync_address address;
    char text[CASYNC_ADDRESS_TEXT];
    open_server_at("127.0.0.2");
    resolver_knows("::1"); /* of a family that the local address has not */
    resolver_knows("127.0.0.2");
    connect_desc.local_host = "127.0.0.9";
    EQ(connect_by_name(), 0);
    EQ(casync_local_address(&stream, &address), 0);
    EXPECT(strncmp(casync_address_text(&address, text), "127.0.0.9:", 10) == 0);
    STR_EQ(errors, "");
    casync_close(&stream);
    connect_desc.local_host = "here.test";
    EQ(connect_by_name(), CASYNC_NOT_NUMERIC);
    close_names();
}

TEST(an_attempt_has_at_least_ten_milliseconds) {
    open_server_at("127.0.0.2");
    resolver_knows("127.0.0.2");
    connect_desc.attempt_delay = CASYNC_MS(10) - 1;
    EQ(connect_by_name(), -EINVAL);
    connect_desc.attempt_delay = -1;
    EQ(connect_by_name(), -EINVAL);
    connect_desc.attempt_delay = CASYNC_FOREVER;
    EQ(connect_by_name(), 0);
    close_names();
}

/* >> listening and datagrams ------------------------------------------------------------------- */

static int64_t says_hello(casync_loop *where, void *connection) {
    (void)where;
    return casync_write_all((casync_stream *)connection, "hello", 5);
}

static int64_t reads_hello_from(casync_loop *where, const char *host, int port) {
    casync_connect_desc desc = ZERO;
    char hello[8] = "";
    int64_t result;
    desc.host = host;
    desc.port = port;
    result = casync_connect(where, &stream, &desc);
    if (result < 0) return result;
    result = casync_read_exactly(&stream, hello, 5);
    if (result >= 0 && strcmp(hello, "hello") != 0) result = -EBADMSG;
    casync_close(&stream);
    return result;
}

static int64_t listens_by_name(casync_loop *where, void *arg) {
    casync_address address;
    int64_t result = casync_listen(where, &server, &listen_desc);
    int port;
    (void)arg;
    if (result < 0) return result;
    EQ(casync_server_address(&server, &address), 0);
    port = casync_address_port(&address);
    EQ(reads_hello_from(where, "127.0.0.2", port), 5);
    EQ(reads_hello_from(where, "127.0.0.3", port), 5);
    EQ(reads_hello_from(where, "127.0.0.4", port), -ECONNREFUSED);
    EQ(casync_server_pause(&server), 0);
    EQ(casync_server_resume(&server), 0);
    EQ(reads_hello_from(where, "127.0.0.3", port), 5);
    return port;
}

TEST(a_server_listens_at_all_addresses_of_a_name) {
    int64_t port;
    open_names(CASYNC_CLOCK_MONOTONIC);
    listen_desc.host = "host.test";
    listen_desc.task = says_hello;
    EQ(casync_listen(&loop, &server, &listen_desc), CASYNC_NOT_NUMERIC); /* nothing waits here */
    resolver_knows("127.0.0.2");
    resolver_knows("127.0.0.2");  /* /etc/hosts may have it in two lines */
    resolver_knows("192.0.2.99"); /* no address of this host's */
    resolver_knows("127.0.0.3");
    port = run_task(listens_by_name, NULL);
    EXPECT(port > 0);
    casync_server_ref(&server, false);
    EQ(casync_run_until_idle(&loop), 0);
    casync_server_close(&server);
    listen_desc.port = (int)port;
    EQ(run_task(listens_by_name, NULL), port);
    casync_server_close(&server);
    resolver.count = 0;
    resolver_knows("192.0.2.99");
    EQ(run_task(listens_by_name, NULL), -EADDRNOTAVAIL);
    EXPECT(!server.open);
    close_names();
}

TEST(known_addresses_are_listened_at_anywhere) {
    casync_address addresses[2], first;
    open_names(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_address_from_host(&addresses[0], "127.0.0.2", 0), 0);
    EQ(casync_address_from_host(&addresses[1], "127.0.0.3", 0), 0);
    listen_desc.addresses = addresses;
    EQ(casync_listen(&loop, &server, &listen_desc), -EINVAL);
    listen_desc.address_count = 2;
    EQ(casync_listen(&loop, &server, &listen_desc), 0);
    EQ(casync_server_address(&server, &first), 0);
    casync_server_close(&server);
    casync_server_ref(&server, false);
    EQ(casync_listen(&loop, &server, &listen_desc), 0);
    EQ(casync_run_until_idle(&loop), 0); /* it keeps nothing running */
    listen_desc.port = 0;
    close_names();
}

static casync_datagram datagram;
static casync_datagram_desc datagram_desc;

static int64_t opens_datagram(casync_loop *where, void *arg) {
    (void)arg;
    return casync_datagram_open(where, &datagram, &datagram_desc);
}

TEST(datagrams_go_to_names) {
    casync_address address;
    char text[CASYNC_ADDRESS_TEXT];
    open_names(CASYNC_CLOCK_MONOTONIC);
    resolver_knows("::1");
    resolver_knows("127.0.0.2");
    datagram_desc.remote_host = "host.test";
    datagram_desc.remote_port = 9;
    EQ(casync_datagram_open(&loop, &datagram, &datagram_desc), CASYNC_NOT_NUMERIC);
    datagram_desc.local_host = "127.0.0.9";
    EQ(run_task(opens_datagram, NULL), 0); /* by the one of the same family */
    EQ(casync_datagram_peer_address(&datagram, &address), 0);
    STR_EQ(casync_address_text(&address, text), "127.0.0.2:9");
    casync_datagram_close(&datagram);
    datagram_desc.remote_host = "2001:db8::5";
    datagram_desc.local_host = "host.test";
    resolver.hosts[0] = "127.0.0.3";
    EQ(run_task(opens_datagram, NULL), CASYNC_EAI_ADDRFAMILY);
    resolver.error = casync__name_result(EAI_AGAIN);
    EQ(run_task(opens_datagram, NULL), CASYNC_EAI_AGAIN);
    close_names();
}

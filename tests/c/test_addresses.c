/* >> addresses & sockets: words for addresses, the sockets' options. */
#include "refusals_fixture.h"

/* >> addresses -------------------------------------------------------------------------------- */

TEST(addresses_of_a_pair_have_no_name) {
    casync_address address;
    char words[CASYNC_ADDRESS_TEXT];
    open_with_peer(NULL, NULL);
    EQ(casync_local_address(&a, &address), 0);
    PTR_EQ(casync_address_text(&address, words), words);
    STR_EQ(words, "");
    EQ(casync_address_port(&address), 0);
    EQ(casync_peer_address(&a, &address), 0);
    STR_EQ(casync_address_text(&address, words), "");
    EXPECT(casync_set_nodelay(&a, true) < 0); /* no TCP */
    EXPECT(casync_set_keepalive(&a, 5) <= 0);
    close_with_peer();
    EXPECT(casync_local_address(&a, &address) < 0);
}

static void set_address(casync_address *address, const void *sockaddr, size_t size) {
    memset(address, 0, sizeof *address);
    memcpy(address->storage.bytes, sockaddr, size);
    address->size = (uint32_t)size;
}

TEST(addresses_in_words) {
    casync_address address;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
    char words[CASYNC_ADDRESS_TEXT];
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_port = htons(80);
    EQ(inet_pton(AF_INET, "127.0.0.1", &in.sin_addr), 1);
    set_address(&address, &in, sizeof in);
    STR_EQ(casync_address_text(&address, words), "127.0.0.1:80");
    EQ(casync_address_port(&address), 80);

    memset(&in6, 0, sizeof in6);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(65535);
    EQ(inet_pton(AF_INET6, "::1", &in6.sin6_addr), 1);
    set_address(&address, &in6, sizeof in6);
    STR_EQ(casync_address_text(&address, words), "[::1]:65535");
    EQ(casync_address_port(&address), 65535);

    memset(&un, 0, sizeof un);
    un.sun_family = AF_UNIX;
    strcpy(un.sun_path, "/run/x.sock");
    set_address(&address, &un, offsetof(struct sockaddr_un, sun_path) + 12);
    STR_EQ(casync_address_text(&address, words), "/run/x.sock");
    memcpy(un.sun_path, "\0abstract", 9);
    set_address(&address, &un, offsetof(struct sockaddr_un, sun_path) + 9);
    STR_EQ(casync_address_text(&address, words), "@abstract");
    memset(un.sun_path, 'x', sizeof un.sun_path); /* no room for its terminator */
    set_address(&address, &un, sizeof un);
    EQ(strlen(casync_address_text(&address, words)), sizeof un.sun_path);
    EQ(casync_address_port(&address), 0);
}

/* >> zones ------------------------------------------------------------------------------------ */

TEST(a_zone_is_a_name_or_a_number_and_nothing_else) {
    static const char *const bad[] = {"fe80::1%-1",
                                      "fe80::1%+1",
                                      "fe80::1%1x",
                                      "fe80::1% 2",
                                      "fe80::1%2 ",
                                      "fe80::1%",
                                      "fe80::1%0",
                                      "fe80::1%0x1",
                                      "fe80::1%4294967297",
                                      "fe80::1%4294967296",
                                      "fe80::1%99999999999999999999",
                                      "fe80::1%no-such-interface"};
    casync_address address;
    char words[CASYNC_ADDRESS_TEXT];
    size_t i;
    memset(&address, 0, sizeof address);
    for (i = 0; i < sizeof bad / sizeof *bad; i++)
        if (casync_address_from_host(&address, bad[i], 1) != -EINVAL) STR_EQ(bad[i], "refused");
    EQ(address.size, 0);
    EQ(casync_address_from_host(&address, "fe80::1%1", 80), 0);
    STR_EQ(casync_address_text(&address, words), "[fe80::1%1]:80");
    EQ(casync_address_from_host(&address, "fe80::1%4294967295", 80), 0);
    STR_EQ(casync_address_text(&address, words), "[fe80::1%4294967295]:80");
    EQ(casync_address_from_host(&address, "fe80::1%lo", 80), 0);
}

/* >> options ---------------------------------------------------------------------------------- */

static int keepalive_of(int fd) { return socket_option(fd, SOL_SOCKET, SO_KEEPALIVE); }

static void open_tcp_pair(void) {
    casync_op accepting;
    casync_future *accepted;
    listen_somewhere(NULL, false);
    accepted = casync_accept_op(&server, &accepting, &b);
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
    EQ(result_of(accepted), 0);
}

static void close_tcp_pair(void) {
    casync_close(&a);
    casync_close(&b);
    casync_server_close(&server);
}

TEST(a_time_that_keepalive_cannot_have_changes_nothing) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_tcp_pair();
    EQ(casync_set_keepalive(&a, 32768), -EINVAL);
    EQ(keepalive_of(a.endpoint.watcher.fd), 0);
    EQ(casync_set_keepalive(&a, INT_MAX), -EINVAL);
    EQ(keepalive_of(a.endpoint.watcher.fd), 0);
    EQ(casync_set_keepalive(&a, 32767), 0);
    EQ(keepalive_of(a.endpoint.watcher.fd), 1);
    EQ(socket_option(a.endpoint.watcher.fd, IPPROTO_TCP, TCP_KEEPIDLE), 32767);
    EQ(casync_set_keepalive(&a, 32768), -EINVAL);
    EQ(keepalive_of(a.endpoint.watcher.fd), 1);
    EQ(casync_set_keepalive(&a, 0), 0);
    EQ(keepalive_of(a.endpoint.watcher.fd), 0);
    close_tcp_pair();
    close_loop();
}

TEST(keepalive_that_the_kernel_refuses_is_not_on_by_half) {
    int n;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_tcp_pair();
    for (n = 0; n < 2; n++) {
        fail_calls("setsockopt", n, 1, -ENOBUFS);
        EQ(casync_set_keepalive(&a, 5), -ENOBUFS);
        fault.count = 0;
        EQ(keepalive_of(a.endpoint.watcher.fd), 0);
    }
    close_tcp_pair();
    open_pair(NULL); /* of no TCP */
    EXPECT(casync_set_keepalive(&a, 5) < 0);
    EQ(keepalive_of(a.endpoint.watcher.fd), 0);
    close_pair();
    close_loop();
}

TEST(options_with_a_time_that_keepalive_cannot_have_are_refused) {
    static const int times[] = {32768, INT_MAX, -1};
    size_t i;
    for (i = 0; i < 3; i++) {
        casync_stream_options options;
        casync_listen_desc desc = ZERO;
        int fds[2];
        memset(&options, 0, sizeof options);
        options.keepalive = desc.options.keepalive = times[i];
        open_loop(CASYNC_CLOCK_MONOTONIC);
        make_socketpair(fds);
        EQ(casync_stream_open(&loop, &a, fds[0], NULL, &options), -EINVAL);
        close_both(fds);
        EQ(casync_listen(&loop, &server, &desc), -EINVAL);
        connect_desc.host = "127.0.0.1";
        connect_desc.port = 9;
        connect_desc.options = &options;
        EQ(casync_connect_start(&loop, &a, &connect_desc), -EINVAL);
        close_loop();
    }
}

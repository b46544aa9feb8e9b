/* >> datagrams: UDP and Unix sockets, their descriptors and options, multicast. */
#include "datagrams_fixture.h"

static void expect_exchange(void) {
    send_here("ping");
    run_until_said("ping");
    expect_sender(&there_at);
    EQ(send_word(&here, "pong", &sender), 4);
    EQ(result_of(casync_datagram_receive_op(&there, &the_op, buffer, sizeof buffer, &sender)), 4);
    MEM_EQ(buffer, "pong", 4);
    expect_sender(&here_at);
}

/* >> UDP and Unix ----------------------------------------------------------------------------- */

TEST(ipv4) {
    open_both_at("127.0.0.1");
    expect_exchange();
    EQ(strncmp(casync_address_text(&sender, words), "127.0.0.1:", 10), 0);
    close_all();
}

TEST(ipv6) {
    if (!has_ipv6()) SKIP("no IPv6 here");
    open_both_at("::1");
    expect_exchange();
    EQ(strncmp(casync_address_text(&sender, words), "[::1]:", 6), 0);
    close_all();
}

TEST(without_addresses_a_socket_is_bound_to_all_of_both_versions) {
    casync_address target;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    open_datagram(&here, &here_at);
    EXPECT(casync_address_port(&here_at) > 0);
    open_at("127.0.0.1", &there, &there_at);
    EQ(casync_address_from_host(&target, "127.0.0.1", casync_address_port(&here_at)), 0);
    EQ(send_word(&there, "four", &target), 4);
    run_until_said("four");
    EQ(send_word(&here, "back", &sender), 4);
    EQ(result_of(casync_datagram_receive_op(&there, &the_op, buffer, sizeof buffer, NULL)), 4);
    casync_datagram_close(&there);
    if (has_ipv6()) {
        open_at("::1", &there, &there_at);
        EQ(casync_address_from_host(&target, "::1", casync_address_port(&here_at)), 0);
        EQ(send_word(&there, "six", &target), 3);
        run_until_said("six");
    }
    close_all();
}

TEST(unix_sockets_by_path) {
    char paths[2][64];
    int i;
    for (i = 0; i < 2; i++)
        snprintf(paths[i], sizeof paths[i], "/tmp/casync-datagram-%d-%d", getpid(), i);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    desc.local_path = paths[0];
    open_datagram(&here, &here_at);
    STR_EQ(casync_address_text(&here_at, words), paths[0]);
    desc.local_path = paths[1];
    open_datagram(&there, &there_at);
    expect_exchange();
    casync_datagram_close(&there);
    desc.local_path = paths[1]; /* the file is in the way no longer */
    open_datagram(&there, &there_at);
    close_all();
    for (i = 0; i < 2; i++) EQ(unlink(paths[i]), 0);
}

TEST(unix_sockets_by_abstract_name_and_without_a_name) {
    const char *name = name_of("abstract");
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    desc.local_path = name;
    open_datagram(&here, &here_at);
    STR_EQ(casync_address_text(&here_at, words), name);
    desc.remote_path = name;
    open_datagram(&there, &there_at);
    EQ(casync_datagram_peer_address(&there, &sender), 0);
    STR_EQ(casync_address_text(&sender, words), name);
    EQ(send_word(&there, "anonymous", NULL), 9);
    run_until_said("anonymous");
    EQ(sender.size, 0);
    casync_datagram_close(&here);
    EQ(send_word(&there, "gone", NULL), -ECONNREFUSED);
    close_all();
}

TEST(unix_datagrams_may_be_long) {
    static char text[200000];
    open_loop(CASYNC_CLOCK_MONOTONIC);
    protocol.datagram_received = count_datagram;
    desc.protocol = &protocol;
    open_here();
    desc.remote_path = name_of("here");
    desc.send_buffer = 400000;
    open_datagram(&there, &there_at);
    EQ(casync_datagram_write(&there, text, sizeof text, NULL), sizeof text);
    while (received == 0) EQ(casync_run_once(&loop), 0);
    EQ(received, 1);
    close_all();
}

TEST(a_connected_socket_has_one_peer) {
    casync_datagram stranger = ZERO;
    casync_address stranger_at;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_at("127.0.0.1", &there, &there_at);
    EQ(send_word(&there, "x", NULL), -EDESTADDRREQ);
    EQ(casync_datagram_peer_address(&there, &sender), -ENOTCONN);
    use_saying_protocol();
    desc.remote_port = casync_address_port(&there_at); /* no host: loopback */
    open_datagram(&here, &here_at);
    EQ(casync_datagram_peer_address(&here, &sender), 0);
    MEM_EQ(sender.storage.bytes, there_at.storage.bytes, 8);
    EQ(send_word(&here, "hello", NULL), 5);
    EQ(result_of(casync_datagram_receive_op(&there, &the_op, buffer, sizeof buffer, &sender)), 5);
    EQ(casync_address_port(&sender), casync_address_port(&here_at));
    open_at("127.0.0.1", &stranger, &stranger_at);
    EQ(send_word(&stranger, "not-heard", &here_at), 9);
    send_here("heard");
    run_until_said("heard");
    casync_datagram_close(&stranger);
    close_all();
}

TEST(a_connected_socket_may_be_bound) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    desc.local_host = "127.0.0.2";
    desc.remote_host = "127.0.0.1";
    desc.remote_port = 9;
    open_datagram(&here, &here_at);
    EQ(strncmp(casync_address_text(&here_at, words), "127.0.0.2:", 10), 0);
    close_all();
}

TEST(empty_datagrams) {
    open_both();
    EQ(casync_datagram_write(&there, NULL, 0, &here_at), 0);
    send_here("after");
    run_until_said("(empty) after");
    EQ(casync_datagram_write(&here, "", 0, &there_at), 0);
    EQ(result_of(casync_datagram_receive_op(&there, &the_op, buffer, sizeof buffer, NULL)), 0);
    close_all();
}

TEST(no_spans_are_an_empty_datagram) {
    skip_under_qemu("qemu-user sends nothing for a message without buffers");
    open_both();
    EQ(casync_datagram_writev(&there, NULL, 0, &here_at), 0);
    send_here("after");
    run_until_said("(empty) after");
    close_all();
}

TEST(spans_are_sent_as_one_datagram) {
    casync_span spans[3];
    open_both();
    spans[0].ptr = "one";
    spans[1].ptr = NULL;
    spans[2].ptr = "datagram";
    spans[0].len = 3;
    spans[1].len = 0;
    spans[2].len = 8;
    EQ(casync_datagram_writev(&there, spans, 3, &here_at), 11);
    fail_calls("sendmsg", 0, 1, -EAGAIN);
    EQ(casync_datagram_writev(&there, spans, 3, &here_at), 11); /* queued */
    EQ(there.queued, 11 + 8);
    run_until_said("onedatagram onedatagram");
    close_all();
}

TEST(addresses_are_made_from_words) {
    casync_address at;
    EQ(casync_address_from_host(&at, "127.0.0.1", 80), 0);
    STR_EQ(casync_address_text(&at, words), "127.0.0.1:80");
    EQ(casync_address_from_host(&at, "::1", 443), 0);
    STR_EQ(casync_address_text(&at, words), "[::1]:443");
    EQ(casync_address_from_path(&at, "/run/x"), 0);
    STR_EQ(casync_address_text(&at, words), "/run/x");
    EQ(casync_address_from_path(&at, "@x"), 0);
    EQ(casync_address_from_host(&at, "localhost", 80), CASYNC_NOT_NUMERIC);
    EQ(casync_address_from_host(&at, "1.2.3.4", 65536), -EINVAL);
    EQ(casync_address_from_host(&at, "fe80::1%no-such-interface", 1), -EINVAL);
    EQ(casync_address_from_path(&at, ""), -EINVAL);
    STR_EQ(casync_address_text(&at, words), "@x"); /* what failed changed nothing */
}

/* >> descriptors and options ------------------------------------------------------------------ */

TEST(a_descriptor_may_be_given) {
    casync_datagram stranger = ZERO;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in local;
    memset(&local, 0, sizeof local);
    local.sin_family = AF_INET;
    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EQ(bind(fd, (struct sockaddr *)&local, sizeof local), 0);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    desc.use_fd = desc.keep_fd = true;
    desc.fd = fd;
    open_datagram(&here, &here_at);
    EQ(fcntl(fd, F_GETFD), 0);
    open_at("127.0.0.1", &there, &there_at);
    expect_exchange(); /* though it may block */
    desc.use_fd = true;
    desc.fd = fd;
    EQ(casync_datagram_open(&loop, &stranger, &desc), -EEXIST);
    casync_datagram_close(&here);
    EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    open_datagram(&here, &here_at); /* becomes the library's */
    EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    casync_datagram_close(&here);
    EQ(fcntl(fd, F_GETFD), -1);
    descriptors_before--;
    close_all();
}

TEST(a_descriptor_of_another_kind_is_refused) {
    int fds[2];
    open_loop(CASYNC_CLOCK_MONOTONIC);
    make_socketpair(fds);
    desc.use_fd = true;
    desc.fd = fds[0];
    EQ(casync_datagram_open(&loop, &here, &desc), -EPROTOTYPE);
    close_both(fds);
    EQ(casync_datagram_open(&loop, &here, &desc), -EBADF);
    make_pipe(fds);
    EQ(casync_datagram_open(&loop, &here, &desc), -ENOTSOCK);
    close_both(fds);
    desc.fd = -1;
    EQ(casync_datagram_open(&loop, &here, &desc), -EBADF);
    EXPECT(!casync_datagram_is_open(&here));
    close_loop();
}

static void expect_refused_with(int64_t error) {
    EQ(casync_datagram_open(&loop, &here, &desc), error);
    EXPECT(!casync_datagram_is_open(&here));
    memset(&desc, 0, sizeof desc);
}

static void expect_refused(void) { expect_refused_with(-EINVAL); }

TEST(bad_descriptions_are_refused) {
    char path[200];
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = 0;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    desc.local_host = "localhost";
    expect_refused_with(CASYNC_NOT_NUMERIC);
    desc.remote_host = "no such host";
    expect_refused_with(CASYNC_NOT_NUMERIC);
    desc.local_port = 65536;
    expect_refused();
    desc.remote_port = -1;
    expect_refused();
    desc.local_path = path;
    expect_refused();
    desc.remote_path = "";
    expect_refused();
    desc.low_water = 70000;
    expect_refused();
    desc.max_size = 1048577;
    expect_refused();
    desc.multicast_interface = "no such interface";
    expect_refused();
    desc.local_host = "127.0.0.1"; /* two families */
    desc.remote_host = "::1";
    EXPECT(casync_datagram_open(&loop, &here, &desc) < 0);
    memset(&desc, 0, sizeof desc);
    desc.local_host = "192.0.2.99"; /* not ours: RFC 5737 */
    EQ(casync_datagram_open(&loop, &here, &desc), -EADDRNOTAVAIL);
    close_loop();
}

TEST(an_open_without_memory_changes_nothing) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    fail_allocation(1, 0);
    EQ(casync_datagram_open(&loop, &here, &desc), -ENOMEM);
    fail_no_allocation();
    desc.protocol = NULL;
    open_here();
    fail_allocation(1, 0);
    EQ(casync_datagram_set_protocol(&here, &protocol), -ENOMEM);
    fail_no_allocation();
    PTR_EQ(here.protocol, NULL);
    close_all();
}

TEST(options_of_the_socket) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    desc.broadcast = true;
    desc.receive_buffer = 20000;
    desc.send_buffer = 30000;
    desc.multicast_ttl = 7;
    desc.no_multicast_loop = true;
    desc.reuse_address = true;
    open_at("127.0.0.1", &here, &here_at);
    EXPECT(socket_option(here.endpoint.watcher.fd, SOL_SOCKET, SO_BROADCAST));
    EXPECT(socket_option(here.endpoint.watcher.fd, SOL_SOCKET, SO_REUSEADDR));
    EQ(socket_option(here.endpoint.watcher.fd, SOL_SOCKET, SO_RCVBUF),
       40000); /* twice: socket(7) */
    EQ(socket_option(here.endpoint.watcher.fd, SOL_SOCKET, SO_SNDBUF), 60000);
    EQ(socket_option(here.endpoint.watcher.fd, IPPROTO_IP, IP_MULTICAST_TTL), 7);
    EQ(socket_option(here.endpoint.watcher.fd, IPPROTO_IP, IP_MULTICAST_LOOP), 0);
    EQ(casync_datagram_set_broadcast(&here, false), 0);
    EQ(casync_datagram_set_multicast_ttl(&here, 9), 0);
    EQ(casync_datagram_set_multicast_loop(&here, true), 0);
    EQ(casync_datagram_set_ttl(&here, 11), 0);
    EQ(casync_datagram_set_ttl(&here, 1000), -EINVAL);
    EXPECT(!socket_option(here.endpoint.watcher.fd, SOL_SOCKET, SO_BROADCAST));
    EQ(socket_option(here.endpoint.watcher.fd, IPPROTO_IP, IP_MULTICAST_TTL), 9);
    EQ(socket_option(here.endpoint.watcher.fd, IPPROTO_IP, IP_MULTICAST_LOOP), 1);
    EQ(socket_option(here.endpoint.watcher.fd, IPPROTO_IP, IP_TTL), 11);
    if (has_ipv6()) { /* a socket for both versions */
        desc.multicast_ttl = 5;
        open_datagram(&there, &there_at);
        EQ(socket_option(there.endpoint.watcher.fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS), 5);
        EQ(socket_option(there.endpoint.watcher.fd, IPPROTO_IP, IP_MULTICAST_TTL), 5);
        EQ(casync_datagram_set_ttl(&there, 12), 0);
        EQ(socket_option(there.endpoint.watcher.fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 12);
        EQ(socket_option(there.endpoint.watcher.fd, IPPROTO_IPV6, IPV6_V6ONLY), 0);
        casync_datagram_close(&there);
        desc.ipv6_only = true;
        open_at("::1", &there, &there_at);
        EQ(socket_option(there.endpoint.watcher.fd, IPPROTO_IPV6, IPV6_V6ONLY), 1);
    }
    casync_datagram_close(&here);
    EQ(casync_datagram_set_broadcast(&here, true), -EBADF);
    EQ(casync_datagram_set_ttl(&here, 1), -EBADF);
    EQ(casync_datagram_set_multicast_ttl(&here, 1), -EBADF);
    EQ(casync_datagram_set_multicast_loop(&here, true), -EBADF);
    EQ(casync_datagram_set_multicast_interface(&here, "lo"), -EBADF);
    EQ(casync_datagram_join_group(&here, "239.1.2.3", NULL, NULL), -EBADF);
    desc.local_path = name_of("options");
    open_datagram(&here, &here_at);
    EQ(casync_datagram_set_ttl(&here, 1), -EOPNOTSUPP);
    EQ(casync_datagram_set_multicast_interface(&here, "lo"), -EOPNOTSUPP);
    close_all();
}

TEST(several_sockets_may_share_a_port) {
    int port;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    desc.reuse_port = true;
    open_at("127.0.0.1", &here, &here_at);
    port = casync_address_port(&here_at);
    desc.local_host = "127.0.0.1";
    desc.local_port = port;
    EQ(casync_datagram_open(&loop, &there, &desc), -EADDRINUSE);
    desc.reuse_port = true;
    open_datagram(&there, &there_at);
    EQ(casync_address_port(&there_at), port);
    close_all();
}

TEST(broadcast) {
    casync_address all;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    open_at("0.0.0.0", &here, &here_at);
    open_at("127.0.0.1", &there, &there_at);
    EQ(casync_address_from_host(&all, "127.255.255.255", casync_address_port(&here_at)), 0);
    EQ(send_word(&there, "x", &all), -EACCES);
    EQ(casync_datagram_set_broadcast(&there, true), 0);
    EQ(send_word(&there, "to-all", &all), 6);
    run_until_said("to-all");
    close_all();
}

TEST(an_idle_socket_is_its_struct) {
    int64_t before;
    EXPECT(sizeof(casync_datagram) <= 512);
    EQ(offsetof(casync_datagram, endpoint), 0);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    open_here();
    before = memory.allocations;
    use_saying_protocol();
    open_there();
    EQ(memory.allocations, before);
    close_all();
}

/* >> multicast -------------------------------------------------------------------------------- */

static casync_address group_at;

static void need_multicast(void) {
    skip_under_qemu("qemu-user knows neither IP_MULTICAST_IF nor MCAST_JOIN_GROUP");
}

TEST(the_interface_of_multicasts) {
    need_multicast();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_at("127.0.0.1", &here, &here_at);
    EQ(casync_datagram_set_multicast_interface(&here, "lo"), 0);
    EQ(casync_datagram_set_multicast_interface(&here, NULL), 0);
    EQ(casync_datagram_set_multicast_interface(&here, "no such interface"), -EINVAL);
    if (has_ipv6()) { /* a socket for both versions */
        desc.multicast_interface = "lo";
        open_datagram(&there, &there_at);
        EQ(socket_option(there.endpoint.watcher.fd, IPPROTO_IPV6, IPV6_MULTICAST_IF),
           if_nametoindex("lo"));
    }
    close_all();
}

static void open_for_multicast(const char *any, const char *group) {
    need_multicast();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    open_at(any, &here, &here_at);
    desc.multicast_interface = "lo";
    open_at(any, &there, &there_at);
    EQ(casync_address_from_host(&group_at, group, casync_address_port(&here_at)), 0);
}

/* What is sent to the group, and then to the socket itself, which is the proof if the first does
   not come. */
static void send_to_group(const char *word, const char *own_host) {
    casync_address own;
    EQ(send_word(&there, word, &group_at), strlen(word));
    EQ(casync_address_from_host(&own, own_host, casync_address_port(&here_at)), 0);
    EQ(send_word(&there, "direct", &own), 6);
}

TEST(multicast_over_ipv4) {
    open_for_multicast("0.0.0.0", "239.193.7.7");
    EQ(casync_datagram_join_group(&here, "239.193.7.7", "lo", NULL), 0);
    EQ(casync_datagram_join_group(&here, "239.193.7.7", "lo", NULL), -EADDRINUSE);
    send_to_group("member", "127.0.0.1");
    run_until_said("member direct");
    EQ(casync_datagram_leave_group(&here, "239.193.7.7", "lo", NULL), 0);
    EQ(casync_datagram_leave_group(&here, "239.193.7.7", "lo", NULL), -EADDRNOTAVAIL);
    send_to_group("left", "127.0.0.1");
    run_until_said("direct");
    close_all();
}

TEST(multicast_of_one_source) {
    need_multicast();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    open_at("0.0.0.0", &here, &here_at);
    desc.multicast_interface = "lo";
    open_at("127.0.0.1", &there, &there_at);
    EQ(casync_address_from_host(&group_at, "232.1.2.3", casync_address_port(&here_at)), 0);
    EQ(casync_datagram_join_group(&here, "232.1.2.3", "lo", "127.0.0.99"), 0);
    send_to_group("of-another", "127.0.0.1");
    run_until_said("direct");
    EQ(casync_datagram_join_group(&here, "232.1.2.3", "lo", "127.0.0.1"), 0);
    send_to_group("of-this", "127.0.0.1");
    run_until_said("of-this direct");
    EQ(casync_datagram_leave_group(&here, "232.1.2.3", "lo", "127.0.0.1"), 0);
    send_to_group("left", "127.0.0.1");
    run_until_said("direct");
    close_all();
}

/* Makes `there` send IPv6 multicasts by an interface that has a route for them; returns its
   name. */
static const char *find_ipv6_interface(const char *group) {
    static char name[IF_NAMESIZE];
    struct if_nameindex *interfaces = if_nameindex(), *i;
    bool found = false;
    EXPECT(interfaces);
    for (i = interfaces; i->if_index && !found; i++) {
        snprintf(name, sizeof name, "%s", i->if_name);
        EQ(casync_datagram_set_multicast_interface(&there, name), 0);
        EQ(casync_address_from_host(&group_at, group, casync_address_port(&here_at)), 0);
        found = send_word(&there, "is-there-a-route", &group_at) > 0;
    }
    if_freenameindex(interfaces);
    return found ? name : NULL;
}

TEST(multicast_over_ipv6) {
    const char *interface;
    char group[32];
    if (!has_ipv6()) SKIP("no IPv6 here");
    open_for_multicast("::", "ff02::7:7");
    interface = find_ipv6_interface("ff02::7:7");
    if (!interface) SKIP("no interface has a route for IPv6 multicasts");
    snprintf(group, sizeof group, "ff02::7:7%%%s", interface);
    EQ(casync_datagram_join_group(&here, group, NULL, NULL), 0);
    EQ(casync_datagram_join_group(&here, "ff02::7:7", interface, NULL), -EADDRINUSE);
    EQ(send_word(&there, "member", &group_at), 6);
    run_until_said("member");
    EQ(casync_datagram_set_multicast_loop(&there, false), 0);
    send_to_group("not-on-this-host", "::1");
    run_until_said("direct");
    EQ(casync_datagram_set_multicast_loop(&there, true), 0);
    EQ(casync_datagram_leave_group(&here, "ff02::7:7", interface, NULL), 0);
    send_to_group("left", "::1");
    run_until_said("direct");
    close_all();
}

TEST(a_socket_for_both_versions_may_join_groups_of_ipv4) {
    if (!has_ipv6()) SKIP("no IPv6 here");
    open_for_multicast("::", "239.193.7.8");
    EQ(casync_datagram_join_group(&here, "239.193.7.8", "lo", NULL), 0);
    send_to_group("member", "127.0.0.1");
    run_until_said("member direct");
    close_all();
}

TEST(bad_memberships_are_refused) {
    open_for_multicast("0.0.0.0", "239.193.7.9");
    EQ(casync_datagram_join_group(&here, "127.0.0.1", "lo", NULL), -EINVAL);
    EQ(casync_datagram_join_group(&here, "group", "lo", NULL), CASYNC_NOT_NUMERIC);
    EQ(casync_datagram_join_group(&here, "239.193.7.9", "no such interface", NULL), -EINVAL);
    EQ(casync_datagram_join_group(&here, "239.193.7.9", "lo", "somebody"), CASYNC_NOT_NUMERIC);
    EQ(casync_datagram_join_group(&here, "239.193.7.9", "lo", "::1"), -EINVAL);
    EQ(casync_datagram_leave_group(&here, "group", "lo", NULL), CASYNC_NOT_NUMERIC);
    close_all();
}

TEST(an_interface_is_a_name_or_a_number_and_nothing_else) {
    static const char *const bad[] = {"-1", "+1", "1x", " 1", "1 ", "", "0", "4294967297", "0x1"};
    size_t i;
    need_multicast();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_at("127.0.0.1", &here, &here_at);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        EQ(casync_datagram_set_multicast_interface(&here, bad[i]), -EINVAL);
        EQ(casync_datagram_join_group(&here, "239.255.0.7", bad[i], NULL), -EINVAL);
    }
    close_all();
}

/* >> every call and allocation in turn -------------------------------------------------------- */

static void use_datagrams(void) {
    casync_loop_desc loop_desc = ZERO;
    casync_op send_op, receive_op, drain_op, finish_op;
    char bytes[8];
    int i;
    loop_desc.allocator = test_allocator();
    loop_desc.exception_handler = say_exception;
    said[0] = 0;
    said_size = 0;
    if (casync_loop_init(&loop, &loop_desc) < 0) return;
    use_saying_protocol();
    protocol.datagram_received = pause_at_two;
    desc.local_host = "127.0.0.1";
    desc.broadcast = true;
    desc.receive_buffer = desc.send_buffer = 30000;
    desc.multicast_ttl = 2;
    if (casync_datagram_open(&loop, &here, &desc) == 0) {
        if (casync_datagram_local_address(&here, &here_at) < 0) memset(&here_at, 0, sizeof here_at);
        (void)casync_datagram_join_group(&here, "239.193.7.9", "lo", NULL);
    }
    memset(&desc, 0, sizeof desc);
    desc.local_path = name_of("use-everything");
    (void)casync_datagram_open(&loop, &there, &desc);
    casync_datagram_close(&there);
    memset(&desc, 0, sizeof desc);
    desc.local_host = "127.0.0.1";
    if (casync_datagram_open(&loop, &there, &desc) == 0 && casync_datagram_is_open(&here)) {
        for (i = 0; i < 5; i++)
            (void)casync_datagram_write(&there, i == 1 ? "2" : "x", 1, &here_at);
        casync_datagram_send_op(&there, &send_op, "x", 1, &here_at);
        casync_datagram_receive_op(&there, &receive_op, bytes, sizeof bytes, &sender);
        for (i = 0; i < 5; i++) (void)casync_run_nowait(&loop);
        (void)casync_datagram_resume_reading(&here);
        (void)casync_datagram_write(&here, "y", 1, &there_at);
        casync_datagram_drain_op(&there, &drain_op);
        casync_datagram_finish_op(&there, &finish_op);
        for (i = 0; i < 5; i++) (void)casync_run_nowait(&loop);
        casync_datagram_close(&there);
        casync_future_close(&send_op.future);
        casync_future_close(&receive_op.future);
        casync_future_close(&drain_op.future);
        casync_future_close(&finish_op.future);
    }
    casync_datagram_close(&there);
    casync_datagram_close(&here);
    memset(&desc, 0, sizeof desc);
    EQ(casync_loop_close(&loop), 0);
    EQ(memory.live, 0);
}

TEST(every_call_may_fail) {
    static const int64_t errors[] = {-EIO, -ENOMEM, -EINVAL, -EAGAIN, -ECONNREFUSED};
    int before;
    size_t kind;
    install_faults();
    use_datagrams();
    before = open_descriptors();
    for (kind = 0; kind < sizeof errors / sizeof errors[0]; kind++) {
        int64_t n;
        for (n = 0;; n++) {
            fail_calls(NULL, n, 1, errors[kind]);
            use_datagrams();
            if (fault.count > 0) break;
            EQ(open_descriptors(), before);
        }
        EXPECT(n > 20);
    }
}

TEST(every_allocation_may_fail) {
    int64_t n, total;
    install_faults();
    use_datagrams();
    total = memory.allocations;
    EXPECT(total > 3);
    for (n = 1; n <= total; n++) {
        refuse_sends(1);
        fail_allocation(n, 1);
        use_datagrams();
        refuse_sends(1);
        fail_allocation(n, 0);
        use_datagrams();
        fail_no_allocation();
    }
}

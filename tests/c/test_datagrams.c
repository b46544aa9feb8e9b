/* >> datagrams: UDP and Unix datagram sockets. */
#include "faults.h"

static casync_datagram here, there; /* most tests send from there to here */
static casync_address here_at, there_at, sender;
static casync_datagram_desc desc; /* what is opened next */
static casync_datagram_protocol protocol;
static char words[CASYNC_ADDRESS_TEXT];
static char buffer[256];
static int received;

static void said_datagram(casync_datagram *datagram, casync_span data, const casync_address *from) {
    char text[64];
    (void)datagram;
    EXPECT(data.len < sizeof text);
    memcpy(text, data.ptr, data.len);
    text[data.len] = 0;
    sender = *from;
    say(data.len ? text : WORD("(empty)"));
}

static void count_datagram(casync_datagram *datagram, casync_span data,
                           const casync_address *from) {
    (void)datagram;
    (void)data;
    (void)from;
    received++;
}

static void said_error(casync_datagram *datagram, int64_t error) {
    (void)datagram;
    say_number("error", error);
}

static void said_pausing(casync_datagram *datagram) {
    (void)datagram;
    say(WORD("pause"));
}

static void said_resuming(casync_datagram *datagram) {
    (void)datagram;
    say(WORD("resume"));
}

static void said_end(casync_datagram *datagram, int64_t error) {
    (void)datagram;
    say_number("lost", error);
}

static void use_saying_protocol(void) {
    protocol.datagram_received = said_datagram;
    protocol.error_received = said_error;
    protocol.pause_writing = said_pausing;
    protocol.resume_writing = said_resuming;
    protocol.connection_lost = said_end;
    desc.protocol = &protocol;
}

/* Opens a socket as desc says, gets its address, and forgets the desc. */
static void open_datagram(casync_datagram *datagram, casync_address *address) {
    EQ(casync_datagram_open(&loop, datagram, &desc), 0);
    EQ(casync_datagram_local_address(datagram, address), 0);
    memset(&desc, 0, sizeof desc);
}

static void open_at(const char *host, casync_datagram *datagram, casync_address *address) {
    desc.local_host = host;
    open_datagram(datagram, address);
}

/* A name of a Unix socket that no other test has. It lives until eight more are asked for. */
static const char *name_of(const char *word) {
    static char names[8][64];
    static int next;
    char *name = names[next++ % 8];
    snprintf(name, sizeof names[0], "@casync-%s-%d", word, getpid());
    return name;
}

/* Most tests use Unix sockets: what is sent has arrived when the call returns, in order. */
static void open_here(void) {
    desc.local_path = name_of("here");
    open_datagram(&here, &here_at);
}

static void open_there(void) {
    desc.local_path = name_of("there");
    open_datagram(&there, &there_at);
}

static void open_both(void) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    open_here();
    open_there();
}

static void open_both_at(const char *host) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    open_at(host, &here, &here_at);
    open_at(host, &there, &there_at);
}

static void close_all(void) {
    casync_datagram_close(&here);
    casync_datagram_close(&there);
    close_loop();
}

static int64_t send_word(casync_datagram *datagram, const char *word,
                         const casync_address *address) {
    return casync_datagram_write(datagram, word, strlen(word), address);
}

/* From there to here, which must be taken at once or queued. */
static void send_here(const char *word) { EQ(send_word(&there, word, &here_at), strlen(word)); }

static void send_numbers(int count) {
    char word[16];
    int i;
    for (i = 0; i < count; i++) {
        snprintf(word, sizeof word, "%d", i);
        send_here(word);
    }
}

/* The next so many sends find the kernel's buffer full. */
static void refuse_sends(int64_t count) { fail_calls("sendto", 0, count, -EAGAIN); }

static bool has_ipv6(void) {
    struct sockaddr_in6 local;
    int fd = socket(AF_INET6, SOCK_DGRAM, 0), result;
    if (fd < 0) return false;
    memset(&local, 0, sizeof local);
    local.sin6_family = AF_INET6;
    local.sin6_addr = in6addr_loopback;
    result = bind(fd, (struct sockaddr *)&local, sizeof local);
    close(fd);
    return result == 0;
}

/* >> UDP and Unix ----------------------------------------------------------------------------- */

static void expect_sender(const casync_address *address) {
    char text[CASYNC_ADDRESS_TEXT];
    STR_EQ(casync_address_text(&sender, text), casync_address_text(address, words));
}

static void expect_exchange(void) {
    send_here("ping");
    run_until_said("ping");
    expect_sender(&there_at);
    EQ(send_word(&here, "pong", &sender), 4);
    EQ(result_of(casync_datagram_receive_op(&there, &the_op, buffer, sizeof buffer, &sender)), 4);
    MEM_EQ(buffer, "pong", 4);
    expect_sender(&here_at);
}

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

/* >> receiving -------------------------------------------------------------------------------- */

/* A kernel that has so many datagrams for us. */
static int64_t supply;

static int64_t receive_supply(int fd, struct mmsghdr *messages, unsigned count) {
    int64_t i, n = supply < (int64_t)count ? supply : (int64_t)count;
    (void)fd;
    count_call("recvmmsg");
    supply -= n;
    for (i = 0; i < n; i++) messages[i].msg_len = messages[i].msg_hdr.msg_namelen = 0;
    return n > 0 ? n : -EAGAIN;
}

TEST(a_burst_is_received_in_batches_with_a_limit_a_turn) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    protocol.datagram_received = count_datagram;
    desc.protocol = &protocol;
    desc.max_size = 2048;
    open_here();
    open_there();
    send_here("stays, so that the socket is readable");
    casync_syscalls.recvmmsg = receive_supply;
    supply = 100;
    turn();
    EQ(received, 64);
    EQ(calls("recvmmsg"), 4);
    turn();
    EQ(received, 100);
    EQ(calls("recvmmsg"), 4 + 3);
    close_all();
}

TEST(an_answered_datagram_is_three_calls) {
    open_both();
    turn();
    install_faults();
    send_here("ping");
    forget_calls();
    run_until_said("ping");
    EQ(send_word(&here, "pong", &sender), 4);
    EQ(calls("recvmmsg"), 1);
    EQ(calls("sendto"), 1);
    EQ(calls_made, 3);
    close_all();
}

TEST(a_datagram_that_is_too_long_is_dropped_and_told) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    desc.max_size = 4;
    open_here();
    open_there();
    send_here("fits");
    send_here("too-long");
    send_here("ok");
    EQ(EMSGSIZE, 90);
    run_until_said("fits error=-90 ok");
    close_all();
}

TEST(the_longest_udp_datagram_fits) {
    static char text[65507];
    open_loop(CASYNC_CLOCK_MONOTONIC);
    protocol.datagram_received = count_datagram;
    protocol.error_received = said_error;
    desc.protocol = &protocol;
    open_at("127.0.0.1", &here, &here_at);
    open_at("127.0.0.1", &there, &there_at);
    EQ(casync_datagram_write(&there, text, sizeof text, &here_at), sizeof text);
    EQ(casync_datagram_write(&there, text, sizeof text, &here_at), sizeof text);
    while (received < 2) EQ(casync_run_once(&loop), 0);
    close_all();
}

TEST(receive_operations_wait_in_order) {
    casync_op ops[3];
    char texts[3][8];
    int i;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_here();
    open_there();
    memset(texts, 0, sizeof texts);
    for (i = 0; i < 3; i++)
        casync_datagram_receive_op(&here, &ops[i], texts[i], sizeof texts[i], i ? &sender : NULL);
    EQ(casync_future_cancel(&ops[1].future), 1);
    send_here("first");
    send_here("second");
    send_here("third");
    EQ(result_of(&ops[0].future), 5);
    EQ(result_of(&ops[2].future), 6);
    STR_EQ(texts[0], "first");
    STR_EQ(texts[2], "second");
    expect_sender(&there_at);
    turn(); /* nobody waits for the third: the kernel keeps it */
    EQ(result_of(casync_datagram_receive_op(&here, &ops[0], texts[0], sizeof texts[0], NULL)), 5);
    STR_EQ(texts[0], "third");
    casync_future_close(&ops[1].future);
    close_all();
}

TEST(a_buffer_that_is_too_short_gets_the_beginning) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_here();
    open_there();
    send_here("abcdef");
    EQ(result_of(casync_datagram_receive_op(&here, &the_op, buffer, 3, &sender)), -EMSGSIZE);
    EQ(the_op.done, 3);
    MEM_EQ(buffer, "abc", 4);
    expect_sender(&there_at);
    send_here("next");
    EQ(result_of(casync_datagram_receive_op(&here, &the_op, buffer, sizeof buffer, NULL)), 4);
    close_all();
}

TEST(receive_operations_refuse_what_cannot_be) {
    casync_op op;
    open_both();
    EQ(result_of(casync_datagram_receive_op(&here, &op, buffer, 1, NULL)), CASYNC_INVALID_STATE);
    EQ(result_of(casync_datagram_receive_op(&there, &op, NULL, 1, NULL)), -EINVAL);
    casync_datagram_receive_op(&there, &op, buffer, 1, NULL);
    EQ(casync_datagram_set_protocol(&there, &protocol), -EBUSY);
    casync_datagram_close(&there);
    EQ(result_of(&op.future), -ECONNABORTED);
    EQ(result_of(casync_datagram_receive_op(&there, &op, buffer, 1, NULL)), CASYNC_INVALID_STATE);
    close_all();
}

static void pause_at_two(casync_datagram *datagram, casync_span data, const casync_address *from) {
    said_datagram(datagram, data, from);
    if (data.len > 0 && ((const char *)data.ptr)[0] == '2')
        EQ(casync_datagram_pause_reading(datagram), 0);
}

TEST(what_a_batch_brought_before_a_pause_is_kept) {
    open_both();
    protocol.datagram_received = pause_at_two;
    send_here("1");
    send_here("2");
    send_here("3");
    EQ(casync_datagram_write(&there, NULL, 0, &here_at), 0);
    turns(3);
    SAID("1 2");
    EQ(casync_datagram_resume_reading(&here), 0);
    SAID(""); /* not inside the call */
    send_here("5");
    turns(3);
    SAID("3 (empty) 5");
    close_all();
}

TEST(a_socket_may_start_paused) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    desc.start_paused = true;
    open_here();
    open_there();
    send_here("early");
    turns(3);
    SAID("");
    EQ(casync_datagram_resume_reading(&here), 0);
    run_until_said("early");
    close_all();
}

static void go_without_protocol(casync_datagram *datagram, casync_span data,
                                const casync_address *from) {
    said_datagram(datagram, data, from);
    EQ(casync_datagram_set_protocol(datagram, NULL), 0);
}

TEST(what_a_batch_brought_before_the_protocol_went_is_for_operations) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    protocol.datagram_received = go_without_protocol;
    desc.max_size = 5;
    open_here();
    open_there();
    send_here("1");
    send_here("two");
    send_here("three");
    send_here("too-long");
    turns(3);
    SAID("1");
    EQ(result_of(casync_datagram_receive_op(&here, &the_op, buffer, sizeof buffer, &sender)), 3);
    MEM_EQ(buffer, "two", 3);
    expect_sender(&there_at);
    EQ(result_of(casync_datagram_receive_op(&here, &the_op, buffer, 2, NULL)), -EMSGSIZE);
    EQ(the_op.done, 2);
    MEM_EQ(buffer, "th", 2);
    EQ(result_of(casync_datagram_receive_op(&here, &the_op, buffer, sizeof buffer, NULL)),
       -EMSGSIZE);
    EQ(the_op.done, 5);
    protocol.datagram_received = said_datagram;
    EQ(casync_datagram_set_protocol(&here, &protocol), 0);
    send_here("again");
    run_until_said("again");
    close_all();
}

static casync_op late_op;

static void receive_by_operation(casync_datagram *datagram, casync_span data,
                                 const casync_address *from) {
    said_datagram(datagram, data, from);
    EQ(casync_datagram_set_protocol(datagram, NULL), 0);
    casync_datagram_receive_op(datagram, &late_op, buffer, sizeof buffer, NULL);
}

TEST(operations_get_what_was_kept_before_what_comes) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    protocol.datagram_received = receive_by_operation;
    desc.max_size = 400000; /* two in a batch */
    open_here();
    open_there();
    send_here("1");
    send_here("2");
    send_here("3");
    turns(2);
    SAID("1");
    EQ(result_of(&late_op.future), 1);
    EQ(buffer[0], '2');
    EQ(result_of(casync_datagram_receive_op(&here, &the_op, buffer, sizeof buffer, NULL)), 1);
    EQ(buffer[0], '3');
    close_all();
}

static void break_at_two(casync_datagram *datagram, casync_span data, const casync_address *from) {
    said_datagram(datagram, data, from);
    if (((const char *)data.ptr)[0] == '2') casync_break(&loop);
}

TEST(a_break_stops_a_batch_and_the_next_run_goes_on) {
    open_both();
    protocol.datagram_received = break_at_two;
    send_here("1");
    send_here("2");
    send_here("3");
    send_here("2");
    send_here("4");
    EQ(casync_run_forever(&loop), 0);
    SAID("1 2");
    EQ(casync_run_forever(&loop), 0);
    SAID("3 2");
    turn();
    SAID("4");
    close_all();
}

TEST(without_memory_to_keep_a_datagram_it_is_dropped_and_told) {
    open_both();
    protocol.datagram_received = pause_at_two;
    send_here("2");
    send_here("3");
    fail_allocation(1, 0);
    turn();
    fail_no_allocation();
    SAID("2 error=-12");
    EQ(ENOMEM, 12);
    close_all();
}

static void close_and_free(casync_datagram *datagram, casync_span data,
                           const casync_address *from) {
    said_datagram(datagram, data, from);
    casync_datagram_close(datagram);
    free(datagram);
}

TEST(a_socket_may_be_closed_and_freed_in_its_callback) {
    casync_datagram *mortal = (casync_datagram *)calloc(1, sizeof *mortal);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    protocol.datagram_received = close_and_free;
    desc.local_path = name_of("here");
    open_datagram(mortal, &here_at);
    open_there();
    send_here("last");
    send_here("never");
    turns(3);
    SAID("last");
    casync_datagram_close(&there);
    close_loop();
}

static void abort_it(casync_datagram *datagram, casync_span data, const casync_address *from) {
    said_datagram(datagram, data, from);
    EQ(casync_datagram_abort(datagram), 0);
}

TEST(a_socket_may_be_aborted_in_its_callback) {
    open_both();
    protocol.datagram_received = abort_it;
    send_here("1");
    send_here("2");
    turn();
    SAID("1");
    turn();
    SAID("lost=-103");
    EQ(ECONNABORTED, 103);
    EXPECT(!casync_datagram_is_open(&here));
    close_all();
}

static void pass_on(casync_datagram *datagram, casync_span data, const casync_address *from) {
    said_datagram(datagram, data, from);
    EQ(casync_write(&a, data.ptr, data.len), data.len);
}

TEST(datagrams_and_streams_share_a_loop) {
    casync_protocol stream_protocol = saying_protocol();
    open_both();
    protocol.datagram_received = pass_on;
    EQ(casync_socketpair(&loop, &a, &b, &stream_protocol, NULL), 0);
    send_here("x");
    run_until_said("x x");
    casync_close(&a);
    casync_close(&b);
    close_all();
}

/* >> sending ---------------------------------------------------------------------------------- */

TEST(what_the_kernel_does_not_take_is_queued_and_sent_in_order) {
    open_both();
    turn();
    refuse_sends(1);
    forget_calls();
    send_numbers(9);
    EQ(there.queued, 9 + 9 * 8);
    EQ(casync_datagram_try_write(&there, "x", 1, &here_at), -EAGAIN);
    EQ(calls("sendto"), 1);
    turn();
    EQ(there.queued, 0);
    EQ(calls("sendmmsg"), 1);
    run_until_said("0 1 2 3 4 5 6 7 8");
    send_here("at-once");
    EQ(calls("sendto"), 2);
    run_until_said("at-once");
    close_all();
}

static int64_t send_all(int fd, struct mmsghdr *messages, unsigned count) {
    (void)fd;
    (void)messages;
    count_call("sendmmsg");
    return count;
}

TEST(a_long_queue_is_sent_in_batches_with_a_limit_a_turn) {
    open_both();
    refuse_sends(1);
    send_numbers(100);
    casync_syscalls.sendmmsg = send_all;
    turn();
    EQ(calls("sendmmsg"), 4);
    EQ(there.queued, 36 * (2 + 8));
    turn();
    EQ(calls("sendmmsg"), 4 + 3);
    EQ(there.queued, 0);
    close_all();
}

TEST(queued_datagrams_may_go_to_different_addresses_and_be_empty) {
    casync_datagram third = ZERO;
    casync_address third_at;
    open_both();
    use_saying_protocol();
    desc.local_path = name_of("third");
    open_datagram(&third, &third_at);
    refuse_sends(1);
    send_here("1");
    EQ(send_word(&there, "2", &third_at), 1);
    EQ(casync_datagram_write(&there, NULL, 0, &here_at), 0);
    EQ(there.queued, 2 + 3 * 8);
    casync_datagram_pause_reading(&third);
    run_until_said("1 (empty)");
    casync_datagram_resume_reading(&third);
    run_until_said("2");
    casync_datagram_close(&third);
    close_all();
}

/* The kernel takes a part of a batch: the rest goes when the socket is writable again. */
static int64_t send_three(int fd, struct mmsghdr *messages, unsigned count) {
    return casync__direct_sendmmsg(fd, messages, count < 3 ? count : 3);
}

TEST(a_batch_taken_in_part_is_resumed) {
    open_both();
    refuse_sends(1);
    send_numbers(7);
    casync_syscalls.sendmmsg = send_three;
    run_until_said("0 1 2 3 4 5 6");
    close_all();
}

TEST(water_marks) {
    casync_op drain;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    desc.high_water = 30;
    desc.low_water = 12;
    open_there();
    open_here();
    EQ(result_of(casync_datagram_drain_op(&there, &drain)), 0);
    refuse_sends(1);
    send_here("12");
    send_here("34");
    send_here("56");
    EQ(there.queued, 30);
    SAID("");
    EQ(casync_datagram_set_write_limits(&there, 29, 0), 0);
    SAID("pause");
    EQ(casync_datagram_set_write_limits(&there, 40, 30), 0);
    SAID("resume");
    EQ(casync_datagram_set_write_limits(&there, 30, 12), 0);
    EQ(casync_datagram_set_write_limits(&there, 1, 2), -EINVAL);
    send_here("");
    SAID("pause");
    casync_datagram_drain_op(&there, &drain);
    EQ(result_of(&drain.future), 0);
    SAID("resume");
    EQ(there.queued, 0);
    close_all();
}

TEST(the_queue_is_bounded) {
    casync_op op;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    desc.queue_limit = 22;
    open_there();
    use_saying_protocol();
    open_here();
    refuse_sends(1);
    send_here("123");
    EQ(send_word(&there, "1234", &here_at), -ENOBUFS);
    send_here("456");
    EQ(send_word(&there, "", &here_at), -ENOBUFS);
    casync_datagram_send_op(&there, &op, "op", 2, &here_at); /* waits by itself */
    run_until_said("123 456 op");
    EQ(result_of(&op.future), 2);
    send_here("ok");
    run_until_said("ok");
    close_all();
}

TEST(send_operations_wait_in_turn) {
    static char huge[300000]; /* more than the socket's send buffer */
    casync_op ops[3];
    open_both();
    EQ(result_of(casync_datagram_send_op(&there, &ops[0], "now", 3, &here_at)), 3);
    run_until_said("now");
    refuse_sends(1);
    send_here("a");
    casync_datagram_send_op(&there, &ops[0], "op", 2, &here_at);
    casync_datagram_send_op(&there, &ops[1], "cancelled", 9, &here_at);
    send_here("b");
    casync_datagram_send_op(&there, &ops[2], huge, sizeof huge, &here_at);
    send_here("c");
    EQ(casync_future_cancel(&ops[1].future), 1);
    casync_future_close(&ops[1].future);
    run_until_said("a op b c");
    EQ(result_of(&ops[0].future), 2);
    EQ(result_of(&ops[2].future), -EMSGSIZE);
    EQ(there.queued, 0);
    close_all();
}

TEST(a_closed_socket_fails_its_send_operations) {
    casync_op op;
    open_both();
    refuse_sends(1);
    casync_datagram_send_op(&there, &op, "x", 1, &here_at);
    casync_datagram_close(&there);
    EQ(result_of(&op.future), -ECONNABORTED);
    EQ(result_of(casync_datagram_send_op(&there, &op, "x", 1, &here_at)), CASYNC_INVALID_STATE);
    EQ(result_of(casync_datagram_drain_op(&there, &op)), CASYNC_INVALID_STATE);
    close_all();
}

static void close_when_told(casync_datagram *datagram) {
    say(WORD("closed"));
    casync_datagram_close(datagram);
}

TEST(a_socket_may_be_closed_in_pause_and_resume) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    protocol.pause_writing = close_when_told;
    protocol.resume_writing = close_when_told;
    desc.high_water = 1;
    open_there();
    open_here();
    refuse_sends(1);
    send_here("x");
    SAID("closed exception=-103");
    protocol.pause_writing = NULL;
    use_saying_protocol();
    protocol.pause_writing = NULL;
    protocol.resume_writing = close_when_told;
    desc.high_water = 1;
    open_there();
    refuse_sends(1);
    send_here("y");
    turn();
    SAID("closed");
    close_all();
}

/* >> errors ----------------------------------------------------------------------------------- */

TEST(a_datagram_too_long_fails_alone) {
    static char text[65508]; /* one byte more than IPv4 can carry */
    open_both_at("127.0.0.1");
    desc.protocol = &protocol;
    EQ(casync_datagram_set_protocol(&there, &protocol), 0);
    EQ(casync_datagram_write(&there, text, sizeof text, &here_at), -EMSGSIZE);
    SAID(""); /* the caller knows */
    refuse_sends(1);
    /* the kernel is not asked */
    EQ(casync_datagram_write(&there, text, sizeof text, &here_at), sizeof text);
    send_here("b");
    casync_datagram_pause_reading(&here);
    run_until_said("error=-90");
    casync_datagram_resume_reading(&here);
    run_until_said("b");
    close_all();
}

/* A connected socket whose peer has no socket: an address on loopback where nobody is. */
static void open_without_peer(const casync_datagram_protocol *its_protocol) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_at("127.0.0.1", &there, &there_at);
    casync_datagram_close(&there);
    desc.protocol = its_protocol;
    desc.remote_host = "127.0.0.1";
    desc.remote_port = casync_address_port(&there_at);
    open_datagram(&here, &here_at);
}

TEST(a_refused_datagram_is_told_to_the_protocol) {
    use_saying_protocol();
    open_without_peer(&protocol);
    EQ(send_word(&here, "x", NULL), 1);
    run_until_said("error=-111");
    EQ(ECONNREFUSED, 111);
    EXPECT(casync_datagram_is_open(&here));
    EQ(send_word(&here, "y", NULL), 1);
    run_until_said("error=-111");
    close_all();
}

TEST(a_refused_datagram_is_told_to_the_next_send) {
    open_without_peer(NULL);
    EQ(send_word(&here, "x", NULL), 1);
    EQ(send_word(&here, "y", NULL), -ECONNREFUSED);
    EQ(send_word(&here, "z", NULL), 1);
    close_all();
}

TEST(a_refused_datagram_is_told_to_a_receive_operation) {
    open_without_peer(NULL);
    EQ(send_word(&here, "x", NULL), 1);
    EQ(result_of(casync_datagram_receive_op(&here, &the_op, buffer, 1, NULL)), -ECONNREFUSED);
    close_all();
}

TEST(an_error_nobody_reads_does_not_make_the_loop_spin) {
    open_without_peer(NULL);
    casync_datagram_receive_op(&here, &the_op, buffer, 1, NULL);
    turn();
    casync_future_cancel(&the_op.future);
    casync_future_close(&the_op.future);
    EQ(send_word(&here, "x", NULL), 1);
    turns(3);
    EQ(poll(NULL, 0, 0), 0);
    install_faults();
    forget_calls();
    turns(10);
    EQ(calls_made, 10); /* the waits alone, which find nothing */
    close_all();
}

TEST(an_error_of_a_queued_datagram_leaves_the_others) {
    open_both();
    EQ(casync_datagram_set_protocol(&there, &protocol), 0);
    refuse_sends(1);
    send_here("lost");
    send_here("a");
    send_here("b");
    fail_calls("sendmmsg", 0, 1, -ECONNREFUSED);
    casync_datagram_pause_reading(&here);
    run_until_said("error=-111");
    casync_datagram_resume_reading(&here);
    run_until_said("a b");
    close_all();
}

static void close_at_error(casync_datagram *datagram, int64_t error) {
    said_error(datagram, error);
    casync_datagram_close(datagram);
}

TEST(a_socket_may_be_closed_in_error_received) {
    open_both();
    protocol.error_received = close_at_error;
    EQ(casync_datagram_set_protocol(&there, &protocol), 0);
    refuse_sends(1);
    send_here("x");
    send_here("y");
    fail_calls("sendmmsg", 0, 1, -ENOBUFS);
    turn();
    SAID("error=-105 exception=-103");
    EQ(ENOBUFS, 105);
    fail_calls("recvmmsg", 0, 1, -EIO);
    EQ(casync_datagram_write(&here, "self", 4, &here_at), 4);
    turn();
    SAID("error=-5");
    EXPECT(!casync_datagram_is_open(&here));
    close_all();
}

TEST(sending_raises_no_sigpipe) {
    int fds[2];
    open_loop(CASYNC_CLOCK_MONOTONIC);
    signal(SIGPIPE, SIG_DFL);
    EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
    desc.use_fd = true;
    desc.fd = fds[0];
    open_datagram(&here, &here_at);
    EQ(shutdown(fds[0], SHUT_WR), 0);
    EQ(send_word(&here, "x", NULL), -EPIPE);
    close(fds[1]);
    close_all();
}

TEST(without_memory_to_queue_send_says_so) {
    casync_op op;
    open_both();
    refuse_sends(2);
    fail_allocation(1, 0);
    EQ(send_word(&there, "x", &here_at), -ENOMEM);
    EQ(result_of(casync_datagram_send_op(&there, &op, "x", 1, &here_at)), -ENOMEM);
    fail_no_allocation();
    EQ(there.queued, 0);
    send_here("y");
    run_until_said("y");
    close_all();
}

/* >> a Unix receiver that is slow ------------------------------------------------------------- */

static int slow;

/* A Unix socket of the test's that nobody reads yet, filled by `there` until something is
   queued. */
static int fill_slow_receiver(int clock, bool connected) {
    casync_address slow_at;
    int sent = 0;
    open_loop(clock);
    slow = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    EQ(casync_address_from_path(&slow_at, name_of("slow-receiver")), 0);
    EQ(bind(slow, casync__sockaddr(&slow_at), slow_at.size), 0);
    if (connected)
        desc.remote_path = name_of("slow-receiver");
    else
        desc.local_path = name_of("fast-sender");
    open_datagram(&there, &there_at);
    install_faults();
    while (there.queued == 0) {
        EQ(send_word(&there, "x", connected ? NULL : &slow_at), 1);
        sent++;
    }
    return sent;
}

static int read_slowly(void) {
    char byte;
    int count = 0;
    while (read(slow, &byte, 1) == 1) count++;
    return count;
}

TEST(a_full_receiver_without_a_connection_is_tried_now_and_then) {
    int sent = fill_slow_receiver(CASYNC_CLOCK_MANUAL, false);
    turns(2);
    forget_calls();
    turns(50);
    EQ(calls("sendmmsg"), 0);
    EQ(casync_clock_advance(&loop, CASYNC_MS(1)), 0);
    turns(2);
    EQ(calls("sendmmsg"), 1);
    EQ(read_slowly(), sent - 1);
    EQ(casync_clock_advance(&loop, CASYNC_MS(1)), 0);
    turns(2);
    EQ(read_slowly(), 1);
    EQ(there.queued, 0);
    EXPECT(!casync_job_pending(&there.retry.job));
    close(slow);
    close_all();
}

TEST(a_socket_that_tries_now_and_then_can_be_closed) {
    fill_slow_receiver(CASYNC_CLOCK_MONOTONIC, false);
    turns(2);
    close(slow);
    casync_datagram_close(&here);
    casync_datagram_close(&there);
    SAID("exception=-103");
    close_all();
}

TEST(a_full_connected_receiver_is_waited_for) {
    int sent = fill_slow_receiver(CASYNC_CLOCK_MANUAL, true);
    turns(2);
    forget_calls();
    turns(50);
    EQ(calls("sendmmsg"), 0);
    EQ(read_slowly(), sent - 1);
    while (there.queued > 0) EQ(casync_run_once(&loop), 0);
    EQ(read_slowly(), 1);
    close(slow);
    close_all();
}

/* >> the end ---------------------------------------------------------------------------------- */

TEST(finish_sends_what_is_queued) {
    open_both();
    EQ(casync_datagram_set_protocol(&there, &protocol), 0);
    refuse_sends(1);
    send_here("a");
    send_here("b");
    EQ(casync_datagram_finish_start(&there), 0);
    EQ(casync_datagram_finish_start(&there), 0);
    EXPECT(casync_datagram_is_open(&there));
    EQ(send_word(&there, "c", &here_at), -EPIPE);
    casync_datagram_pause_reading(&here);
    run_until_said("lost=0");
    EXPECT(!casync_datagram_is_open(&there));
    EQ(casync_datagram_finish_start(&there), CASYNC_INVALID_STATE);
    casync_datagram_resume_reading(&here);
    run_until_said("a b");
    close_all();
}

TEST(finish_ends_receiving) {
    open_both();
    send_here("never");
    EQ(casync_datagram_finish_start(&here), 0);
    SAID("");
    run_until_said("lost=0");
    close_all();
}

TEST(finish_as_an_operation) {
    casync_op op, sending, receiving;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_here();
    open_there();
    refuse_sends(1);
    casync_datagram_send_op(&there, &sending, "x", 1, &here_at);
    casync_datagram_receive_op(&there, &receiving, buffer, 1, NULL);
    EQ(result_of(casync_datagram_finish_op(&there, &op)), 0);
    EQ(result_of(&sending.future), 1);
    EQ(result_of(&receiving.future), -ECONNABORTED);
    EXPECT(!casync_datagram_is_open(&there));
    EQ(result_of(casync_datagram_finish_op(&there, &op)), CASYNC_INVALID_STATE);
    EQ(casync_datagram_abort(&here), 0);
    EQ(result_of(casync_datagram_finish_op(&here, &op)), -ECONNABORTED);
    close_all();
}

TEST(a_cancelled_finish_closes) {
    casync_op op;
    open_both();
    refuse_sends(1);
    send_here("dropped");
    casync_datagram_finish_op(&there, &op);
    EQ(casync_future_cancel(&op.future), 1);
    EXPECT(!casync_datagram_is_open(&there));
    SAID("exception=-103");
    casync_future_close(&op.future);
    turn();
    close_all();
}

TEST(finish_after_the_last_send_was_cancelled) {
    casync_op op, sending;
    open_both();
    refuse_sends(1);
    casync_datagram_send_op(&there, &sending, "x", 1, &here_at);
    casync_datagram_finish_op(&there, &op);
    casync_future_close(&sending.future);
    EQ(result_of(&op.future), 0);
    close_all();
}

TEST(abort_drops_what_is_queued) {
    open_both();
    EQ(casync_datagram_set_protocol(&there, &protocol), 0);
    refuse_sends(1);
    send_here("dropped");
    EQ(casync_datagram_finish_start(&there), 0);
    EQ(casync_datagram_abort(&there), 0);
    EQ(casync_datagram_abort(&there), CASYNC_INVALID_STATE);
    EQ(send_word(&there, "c", &here_at), -EPIPE);
    SAID("");
    run_until_said("lost=-103");
    close_all();
}

TEST(close_is_silent_and_may_be_repeated) {
    open_both();
    send_here("x");
    casync_datagram_close(&here);
    casync_datagram_close(&here);
    turns(3);
    EQ(casync_datagram_abort(&here), CASYNC_INVALID_STATE);
    EQ(casync_datagram_pause_reading(&here), CASYNC_INVALID_STATE);
    EQ(casync_datagram_resume_reading(&here), CASYNC_INVALID_STATE);
    EQ(casync_datagram_set_protocol(&here, NULL), CASYNC_INVALID_STATE);
    EQ(casync_datagram_set_write_limits(&here, 1, 1), CASYNC_INVALID_STATE);
    EQ(casync_datagram_local_address(&here, &here_at), -EBADF);
    EQ(casync_datagram_peer_address(&here, &here_at), -EBADF);
    EQ(send_word(&here, "x", &there_at), CASYNC_INVALID_STATE);
    close_all();
}

static void open_again(casync_datagram *datagram, int64_t error) {
    said_end(datagram, error);
    desc.protocol = &protocol;
    open_here();
    EXPECT(datagram == &here);
}

TEST(connection_lost_may_open_the_socket_again) {
    open_both();
    protocol.connection_lost = open_again;
    EQ(casync_datagram_abort(&here), 0);
    run_until_said("lost=-103");
    send_here("again");
    run_until_said("again");
    close_all();
}

static void find_datagram(int kind, void *object, void *arg) {
    (void)arg;
    EQ(kind, CASYNC_KIND_DATAGRAM);
    say(object == &here ? WORD("here") : WORD("there"));
}

TEST(a_loop_with_an_open_socket_is_busy) {
    open_both();
    EQ(casync_datagram_open(&loop, &here, &desc), -EALREADY);
    casync_walk(&loop, find_datagram, NULL);
    SAID("here there");
    EQ(casync_loop_close(&loop), CASYNC_STILL_OPEN);
    casync_datagram_close(&here);
    EQ(casync_loop_close(&loop), CASYNC_STILL_OPEN);
    close_all();
}

TEST(a_socket_that_receives_keeps_the_loop_running) {
    open_both();
    EXPECT(casync_loop_alive(&loop));
    casync_datagram_ref(&here, false);
    EXPECT(!casync_loop_alive(&loop));
    casync_datagram_ref(&here, true);
    EXPECT(casync_loop_alive(&loop));
    EQ(casync_datagram_pause_reading(&here), 0);
    EXPECT(!casync_loop_alive(&loop));
    close_all();
}

TEST(a_forked_loop_goes_on_with_its_sockets) {
    pid_t pid;
    open_both();
    turn();
    pid = fork_child();
    if (pid == 0) {
        EQ(casync_loop_fork(&loop), 0);
        refuse_sends(1);
        send_here("in-the-child");
        run_until_said("in-the-child");
        casync_datagram_close(&here);
        casync_datagram_close(&there);
        EQ(casync_loop_close(&loop), 0);
        _exit(0);
    }
    EQ(child_status(pid), 0);
    send_here("in-the-parent");
    run_until_said("in-the-parent");
    close_all();
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

/* >> addresses, memory, and every call in turn ------------------------------------------------ */

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

TEST_MAIN

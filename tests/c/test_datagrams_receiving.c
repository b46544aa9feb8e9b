/* >> datagrams: receiving, by a protocol and by operations. */
#include "syscalls_fixture.h"
#include "streams_fixture.h"
#include "datagrams_fixture.h"

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

/* >> datagrams: sending, what becomes of errors, and the end. */
#include "datagrams_fixture.h"

/* >> sending ---------------------------------------------------------------------------------- */

static void send_numbers(int count) {
    char word[16];
    int i;
    for (i = 0; i < count; i++) {
        snprintf(word, sizeof word, "%d", i);
        send_here(word);
    }
}

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
    EQ(bind(slow, casync__address_sockaddr(&slow_at), slow_at.size), 0);
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

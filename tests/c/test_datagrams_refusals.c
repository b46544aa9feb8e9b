/* >> datagrams: what the kernel refuses who sends and receives. */
#include "refusals_fixture.h"

/* >> calls that a sandbox does not know ------------------------------------------------------- */

static void datagrams_without(const char *call, int64_t error) {
    datagram_protocol.datagram_received = said_datagram;
    datagram_protocol.error_received = said_datagram_error;
    install_faults();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_datagram_pair();
    while (casync_datagram_try_write(&here, "another", 7, NULL) > 0) continue;
    EQ(casync_datagram_write(&here, "queued", 6, NULL), 6);
    drain_descriptor(peer);
    peer_says("hello");
    fail_calls(call, 0, FOR_GOOD, error);
    turns(3);
    SAID("received");
    EQ(read(peer, text, sizeof text), 6);
    MEM_EQ(text, "queued", 6);
    fault.count = 0;
    close_datagram();
    close_loop();
}

TEST(datagrams_are_received_where_recvmmsg_is_not_known) {
    datagrams_without("recvmmsg", -ENOSYS);
    datagrams_without("recvmmsg", -EPERM);
}

TEST(datagrams_are_sent_where_sendmmsg_is_not_known) {
    datagrams_without("sendmmsg", -ENOSYS);
    datagrams_without("sendmmsg", -EPERM);
}

/* >> descriptors that cannot be prepared ------------------------------------------------------ */

TEST(a_descriptor_that_cannot_be_prepared_is_no_datagram_socket) {
    casync_datagram_desc desc = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    desc.use_fd = true;
    desc.fd = socket(AF_INET, SOCK_DGRAM, 0);
    refuse_fcntl(F_SETFD);
    EQ(casync_datagram_open(&loop, &here, &desc), -EACCES);
    EXPECT(!casync_datagram_is_open(&here));
    EQ(close(desc.fd), 0);
    close_loop();
}

/* >> errors of who has nobody to tell --------------------------------------------------------- */

TEST(errors_of_a_datagram_socket_without_a_protocol_are_told) {
    casync_datagram_desc desc = ZERO;
    int fds[2];
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    desc.fd = fds[0];
    desc.use_fd = true;
    EQ(casync_datagram_open(&loop, &here, &desc), 0);
    fail_calls("sendto", 0, 1, -EAGAIN);
    EQ(casync_datagram_write(&here, "lost", 4, NULL), 4);
    fail_calls("sendmmsg", 0, 1, -ENETUNREACH);
    turns(2);
    SAID("exception=-101");
    fail_calls("sendto", 0, 1, -EAGAIN);
    await_op(casync_datagram_send_op(&here, &the_op, "told", 4, NULL));
    fail_calls("sendmmsg", 0, 1, -ENETUNREACH);
    run_until_said("done=-101"); /* and nobody else */
    casync_datagram_close(&here);
    casync_future_close(&the_op.future);
    close(fds[1]);
    close_loop();
}

/* >> lengths that no memory has --------------------------------------------------------------- */

TEST(datagrams_longer_than_memory_are_not_sent) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_datagram_pair();
    make_wrapping_spans();
    while (casync_datagram_try_write(&here, "another", 7, NULL) > 0) continue;
    EQ(casync_datagram_write(&here, "queued", 6, NULL), 6);
    EQ(casync_datagram_writev(&here, wrapping, 2, NULL), -EMSGSIZE);
    EQ(casync_datagram_write(&here, text, SIZE_MAX, NULL), -EMSGSIZE);
    await_op(casync_datagram_send_op(&here, &the_op, text, SIZE_MAX, NULL));
    run_until_said("done=-90");
    close_datagram();
    SAID("exception=-103"); /* for what was queued */
    close_loop();
}

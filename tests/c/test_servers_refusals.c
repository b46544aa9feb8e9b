/* >> servers: what the kernel refuses who listens, accepts and connects. */
#include "refusals_fixture.h"

/* >> listening -------------------------------------------------------------------------------- */

TEST(a_descriptor_that_cannot_be_prepared_is_no_server) {
    static const int commands[] = {F_GETFL, F_SETFL, F_SETFD};
    size_t i;
    for (i = 0; i < 3; i++) {
        casync_listen_desc desc = ZERO;
        open_loop(CASYNC_CLOCK_MONOTONIC);
        desc.use_fd = true;
        desc.fd = socket(AF_INET, SOCK_STREAM, 0);
        refuse_fcntl(commands[i]);
        EQ(casync_listen(&loop, &server, &desc), -EACCES);
        EQ(casync_server_pause(&server), CASYNC_INVALID_STATE);
        PTR_EQ(casync_watcher_find(&loop, desc.fd), NULL);
        EQ(close(desc.fd), 0);
        close_loop();
    }
}

TEST(a_socket_whose_family_is_not_known_is_refused) {
    casync_listen_desc listen_desc = ZERO;
    casync_datagram_desc datagram_desc = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_desc.use_fd = datagram_desc.use_fd = true;
    listen_desc.fd = socket(AF_INET, SOCK_STREAM, 0);
    datagram_desc.fd = socket(AF_INET, SOCK_DGRAM, 0);
    fail_calls("getsockopt", 0, 1, -ENOBUFS);
    EQ(casync_listen(&loop, &server, &listen_desc), -ENOBUFS);
    fail_calls("getsockopt", 0, 1, -ENOBUFS); /* its type */
    EQ(casync_datagram_open(&loop, &here, &datagram_desc), -ENOBUFS);
    fail_calls("getsockopt", 1, 1, -ENOBUFS); /* its family */
    EQ(casync_datagram_open(&loop, &here, &datagram_desc), -ENOBUFS);
    EQ(close(listen_desc.fd), 0);
    EQ(close(datagram_desc.fd), 0);
    close_loop();
}

TEST(connections_larger_than_memory_are_not_listened_for) {
    casync_listen_desc desc = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    protocol = no_protocol();
    desc.host = "127.0.0.1";
    desc.protocol = &protocol;
    desc.conn_size = SIZE_MAX;
    EQ(casync_listen(&loop, &server, &desc), -EINVAL);
    desc.conn_size = SIZE_MAX - 16;
    EQ(casync_listen(&loop, &server, &desc), -EINVAL);
    close_loop();
}

/* >> accepting -------------------------------------------------------------------------------- */

/* Any of the errors that say "this connection broke" may be one that does not end. */
TEST(accepting_that_fails_again_and_again_waits_and_is_told) {
    static const int errors[] = {EPERM,     ECONNABORTED, EPROTO,       ENETDOWN,   ENOPROTOOPT,
                                 EHOSTDOWN, ENONET,       EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH};
    size_t i;
    char sentence[32];
    for (i = 0; i < sizeof errors / sizeof *errors; i++) {
        int64_t start;
        open_loop(CASYNC_CLOCK_VIRTUAL_FORCED);
        begin_server();
        forget_calls();
        fail_calls("accept", 0, FOR_GOOD, -errors[i]);
        turn();
        start = casync_time(&loop);
        snprintf(sentence, sizeof sentence, "exception=%d", -errors[i]);
        SAID(sentence);
        turns(10);
        EXPECT(calls("accept") <= 64); /* not again before the time */
        fault.count = 0;
        run_until_said("made");
        EQ(casync_time(&loop) - start, CASYNC_MS(100));
        end_accept();
        turn();
        close_loop();
    }
}

/* >> connecting ------------------------------------------------------------------------------- */

/* connect(2) of a Unix socket says EAGAIN when the server's queue is full, which no event tells the
   end of. */
TEST(connecting_to_a_full_unix_socket_is_tried_again_now_and_then) {
    casync_listen_desc desc = ZERO;
    char path[64];
    snprintf(path, sizeof path, "@casync-full-%d", (int)getpid());
    open_loop(CASYNC_CLOCK_VIRTUAL_FORCED);
    desc.path = connect_desc.path = path;
    EQ(casync_listen(&loop, &server, &desc), 0);
    forget_calls();
    fail_calls("connect", 0, 5, -EAGAIN);
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
    EQ(calls("connect"), 6);
    EXPECT(casync_time(&loop) >= CASYNC_MS(5));   /* it does not spin, */
    EXPECT(casync_time(&loop) <= CASYNC_MS(500)); /* nor sleep */
    casync_close(&a);
    casync_server_close(&server);
    close_loop();
}

/* For others it says that they are out of ports. */
TEST(connecting_without_a_port_that_is_free_fails) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_somewhere(NULL, true);
    forget_calls();
    fail_calls("connect", 0, 1, -EAGAIN);
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), -EAGAIN);
    EQ(calls("connect"), 1);
    EXPECT(!casync_stream_is_open(&a));
    casync_server_close(&server);
    close_loop();
}

/* A connection that cannot be kept is not made. */
TEST(connecting_without_memory_makes_no_connection) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    connect_desc.host = "127.0.0.1";
    connect_desc.port = 9;
    install_faults();
    forget_calls();
    fail_allocation(1, 0);
    EQ(casync_connect_start(&loop, &a, &connect_desc), -ENOMEM);
    fail_no_allocation();
    EQ(calls("connect"), 0);
    close_loop();
}

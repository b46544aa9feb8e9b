/* >> config & compiler: what things cost: sizes of the structs a user embeds, and of a loop that
   does nothing yet. */
#include "loop_fixture.h"

TEST(an_idle_loop_stays_under_a_kibibyte) {
    casync_timer timer = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(memory.allocations, 0);
    EXPECT(sizeof loop < 1024);
    EQ(casync_timer_stop(&timer), 0);
    close_loop();
}

TEST(structs_are_small) {
    EXPECT(sizeof(casync_job) <= 48);
    EXPECT(sizeof(casync_timer) <= 64);
    EXPECT(sizeof(casync_stream) <= 288);
    EXPECT(sizeof(casync_future) <= 64);
    EXPECT(sizeof(casync_op) <= 192);
    EXPECT(sizeof(casync_watcher) <= 128);
    EXPECT(sizeof(casync_task) <= 128);
    EXPECT(sizeof(casync_timer_op) <= 128);
    EXPECT(sizeof(casync_waiter) <= 64);
    EXPECT(sizeof(casync_timeout) <= 96);
}

/* The future of what can be awaited, and a timer's or hook's job, are first members: a pointer to
   one is a pointer to the other. */
TEST(first_members) {
    EQ(offsetof(casync_op, future), 0);
    EQ(offsetof(casync_timer, job), 0);
    EQ(offsetof(casync_hook, job), 0);
    EQ(offsetof(casync_task, future), 0);
    EQ(offsetof(casync_timer_op, future), 0);
    EQ(offsetof(casync_wait_set, future), 0);
    EQ(offsetof(casync_shielded, future), 0);
}

/* A zeroed struct is a valid, unused one. */
TEST(zero_is_unused) {
    EQ(CASYNC_LOOP_CLOSED, 0);
    EQ(CASYNC_CLOCK_MONOTONIC, 0);
    EQ(CASYNC_FUTURE_PENDING, 0);
    EQ(CASYNC_FRAMING_NONE, 0);
}

TEST(the_version_is_one) {
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", CASYNC_VERSION_MAJOR, CASYNC_VERSION_MINOR,
             CASYNC_VERSION_PATCH);
    STR_EQ(CASYNC_VERSION, text);
}

TEST(an_address_holds_every_socket_address) {
    EXPECT(sizeof(struct sockaddr_storage) <= sizeof(((casync_address *)0)->storage));
}

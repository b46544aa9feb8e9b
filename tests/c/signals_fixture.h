/* signals_fixture.h - watchers of signals, and what the process does with a signal. */
#ifndef SIGNALS_FIXTURE_H
#define SIGNALS_FIXTURE_H

#include "loop_fixture.h"

HELPER casync_signal watcher, second, third;
HELPER casync_loop other;

HELPER void open_signal_loop(void) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    expect_signal_descriptors();
}

HELPER void open_guest_loop(void) {
    casync_loop_desc desc = ZERO;
    desc.guest = true;
    open_loop_with(desc);
    expect_signal_descriptors();
}

HELPER bool is_blocked(int signum) {
    sigset_t mask;
    EQ(pthread_sigmask(SIG_BLOCK, NULL, &mask), 0);
    return sigismember(&mask, signum) == 1;
}

HELPER void (*handler_of(int signum))(int) {
    struct sigaction action;
    EQ(sigaction(signum, NULL, &action), 0);
    return action.sa_handler;
}

#endif /* SIGNALS_FIXTURE_H */

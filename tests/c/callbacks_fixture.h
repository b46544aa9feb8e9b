/* callbacks_fixture.h - callbacks that count, read, and post from other threads. */
#ifndef CALLBACKS_FIXTURE_H
#define CALLBACKS_FIXTURE_H

#include "loop_fixture.h"

HELPER int count;
HELPER void count_up(void *arg) {
    (void)arg;
    count++;
}

HELPER int ends[2];
HELPER casync_watcher watcher;

HELPER void read_byte(void *arg) {
    get_byte(ends[0]);
    say(arg);
}

HELPER void read_and_remove(void *arg) {
    read_byte(arg);
    casync_remove_reader(&watcher);
}

HELPER casync_hook hook1, hook2, hook3, hook4;

HELPER void *post_from_thread(void *arg) {
    EQ(casync_call_soon_threadsafe(&loop, NULL, say, arg), 0);
    return NULL;
}

#endif /* CALLBACKS_FIXTURE_H */

/* pool_fixture.h - a pool, and a gate that its calls wait in. */
#ifndef POOL_FIXTURE_H
#define POOL_FIXTURE_H

#define CASYNC_SYSCALL_TABLE
#include "loop_fixture.h"

HELPER casync_pool pool;
HELPER casync_op ops[512];

/* Records of abandoned calls are freed by the pool's threads: the counting allocator needs a
   mutex. */
HELPER pthread_mutex_t memory_mutex = PTHREAD_MUTEX_INITIALIZER;

HELPER void *locked_allocator(void *user, void *ptr, size_t size) {
    pthread_mutex_lock(&memory_mutex);
    ptr = counting_allocator(user, ptr, size);
    pthread_mutex_unlock(&memory_mutex);
    return ptr;
}

HELPER int64_t live_memory(void) {
    int64_t live;
    pthread_mutex_lock(&memory_mutex);
    live = memory.live;
    pthread_mutex_unlock(&memory_mutex);
    return live;
}

/* How many threads of pools there are, by the name that they have unless a test gives another. */
HELPER int pool_threads(void) {
    DIR *directory = opendir("/proc/self/task");
    struct dirent *entry;
    int n = 0;
    EXPECT(directory);
    while ((entry = readdir(directory)) != NULL) {
        char path[64], name[32] = "";
        FILE *file;
        snprintf(path, sizeof path, "/proc/self/task/%.20s/comm", entry->d_name);
        file = fopen(path, "re");
        if (file && fgets(name, sizeof name, file)) n += strncmp(name, "casync-", 7) == 0;
        if (file) fclose(file);
    }
    closedir(directory);
    return n;
}

/* A thread that was joined may still be in /proc for a moment. */
HELPER void wait_for_no_threads(void) {
    while (pool_threads() > 0) sched_yield();
}

HELPER void open_pool_loop(int clock) {
    casync_loop_desc desc = ZERO;
    desc.clock = clock;
    desc.allocator.function = locked_allocator;
    desc.exception_handler = say_exception;
    descriptors_before = open_descriptors();
    EQ(casync_loop_init(&loop, &desc), 0);
}

HELPER void open_pool(int size, int queue_limit) {
    casync_pool_desc desc = ZERO;
    desc.size = size;
    desc.queue_limit = queue_limit;
    desc.allocator.function = locked_allocator;
    EQ(casync_pool_init(&pool, &desc), 0);
}

HELPER void open_both(int size) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    open_pool(size, 0);
}

/* Nothing is left, once the threads that were detached are gone. */
HELPER void close_pool_loop(void) {
    EQ(casync_loop_close(&loop), 0);
    while (live_memory() > 0) sched_yield();
    wait_for_no_threads();
    EQ(open_descriptors(), descriptors_before);
    STR_EQ(said, "");
}

HELPER void close_all(void) {
    casync_pool_close(&pool);
    close_pool_loop();
}

/* A gate: calls wait in it until it is opened. */
HELPER struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int inside;   /* how many have come to it */
    int passing;  /* how many may go on */
    int discards; /* results that were discarded in any thread */
} gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0};

HELPER int64_t pass_gate(void *arg, void **ptr) {
    (void)ptr;
    pthread_mutex_lock(&gate.mutex);
    gate.inside++;
    pthread_cond_broadcast(&gate.changed);
    while (gate.passing == 0) pthread_cond_wait(&gate.changed, &gate.mutex);
    gate.passing--;
    pthread_mutex_unlock(&gate.mutex);
    return (int64_t)(intptr_t)arg;
}

HELPER void let_pass(int n) {
    pthread_mutex_lock(&gate.mutex);
    gate.passing += n;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.mutex);
}

HELPER void wait_inside(int n) {
    pthread_mutex_lock(&gate.mutex);
    while (gate.inside < n) pthread_cond_wait(&gate.changed, &gate.mutex);
    pthread_mutex_unlock(&gate.mutex);
}

HELPER int64_t discarded[512];

/* arg is the number of the call. */
HELPER void discard(void *arg, int64_t result, void *ptr) {
    (void)ptr;
    pthread_mutex_lock(&gate.mutex);
    discarded[(intptr_t)arg] = result;
    gate.discards++;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.mutex);
}

HELPER void never_discard(void *arg, int64_t result, void *ptr) {
    (void)result;
    (void)ptr;
    never(arg);
}

HELPER int64_t never_run(void *arg, void **ptr) {
    (void)ptr;
    never(arg);
    return 0;
}

HELPER int64_t return_number(void *arg, void **ptr) {
    *ptr = arg;
    return (int64_t)(intptr_t)arg;
}

HELPER casync_future *call_with(intptr_t i, casync_pool_function function,
                                casync_pool_discard discarding) {
    return casync_run_in_executor_op(&loop, &pool, &ops[i], function, (void *)i, discarding);
}

HELPER casync_future *call(intptr_t i, casync_pool_function function) {
    return call_with(i, function, never_discard);
}

HELPER void say_result(void *arg) {
    intptr_t i = (intptr_t)arg;
    say_number("result", casync_future_result(&ops[i].future));
}

HELPER void say_when_done(intptr_t i) {
    EQ(casync_future_add_done_callback(&ops[i].future, NULL, say_result, (void *)i), 0);
}

/* Until the loop has been told of a result that it has not looked at. */
HELPER void wait_posted(void) {
    while (!casync__atomic_load_pointer(&loop.posted)) sched_yield();
}

#endif /* POOL_FIXTURE_H */

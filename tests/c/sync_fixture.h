/* sync_fixture.h - every wait for a sync primitive, in both of its forms. */
#ifndef SYNC_FIXTURE_H
#define SYNC_FIXTURE_H

#define CASYNC_SYSCALL_TABLE
#include "loop_fixture.h"

HELPER casync_lock lock;
HELPER casync_rwlock rwlock;
HELPER casync_condition condition;
HELPER casync_semaphore semaphore;
HELPER casync_barrier barrier;
HELPER casync_once once;
HELPER casync_queue queue;

HELPER int items[100]; /* things to put into queues: pointers to these */

typedef struct waiter {
    casync_task stackless; /* first: it is the task of the stackless one */
    casync_task *task;     /* whichever it is */
    const char *name;
    const struct way *how;
    casync_op op;
    void *item;     /* put, or got */
    int64_t result; /* of the wait */
    int64_t then;   /* of an await after it, which takes a turn */
} waiter;

/* A way to wait, and what the tests of all ways need to know of it. */
typedef struct way {
    const char *name;
    int64_t (*now)(waiter *w);           /* x() */
    casync_future *(*start)(waiter *w);  /* x_op() */
    void (*block)(void);                 /* from now on it has to wait */
    void (*let_go)(void);                /* lets the first who waits go on */
    int64_t granted;                     /* what it returns then */
    bool (*taken)(void);                 /* did a wait take something, which nobody else has now? */
    const casync_link *(*waiting)(void); /* those who wait */
} way;

HELPER bool nothing_taken(void) { return false; }

HELPER int64_t lock_now(waiter *w) { return (void)w, casync_lock_acquire(&lock); }
HELPER casync_future *lock_start(waiter *w) { return casync_lock_acquire_op(&lock, &w->op); }
HELPER void lock_block(void) { EQ(casync_lock_try_acquire(&lock), 0); }
HELPER void lock_let_go(void) { EQ(casync_lock_release(&lock), 0); }
HELPER bool lock_taken(void) { return casync_lock_locked(&lock); }
HELPER const casync_link *lock_waiting(void) { return &lock.waiting; }

HELPER int64_t read_now(waiter *w) { return (void)w, casync_rwlock_acquire_read(&rwlock); }
HELPER casync_future *read_start(waiter *w) {
    return casync_rwlock_acquire_read_op(&rwlock, &w->op);
}
HELPER int64_t write_now(waiter *w) { return (void)w, casync_rwlock_acquire_write(&rwlock); }
HELPER casync_future *write_start(waiter *w) {
    return casync_rwlock_acquire_write_op(&rwlock, &w->op);
}
HELPER void rwlock_block(void) { EQ(casync_rwlock_try_acquire_write(&rwlock), 0); }
HELPER void rwlock_let_go(void) { EQ(casync_rwlock_release(&rwlock), 0); }
HELPER bool rwlock_taken(void) { return rwlock.writing || rwlock.readers > 0; }
HELPER const casync_link *rwlock_waiting(void) { return &rwlock.waiting; }

HELPER int64_t condition_now(waiter *w) { return (void)w, casync_condition_wait(&condition); }
HELPER casync_future *condition_start(waiter *w) {
    return casync_condition_wait_op(&condition, &w->op);
}
HELPER void condition_block(void) {
    casync_condition_init(&condition, &lock);
    (void)casync_lock_try_acquire(&lock);
}
HELPER void condition_let_go(void) {
    EQ(casync_lock_try_acquire(&lock), 0);
    EQ(casync_condition_notify(&condition, 1), 1);
    EQ(casync_lock_release(&lock), 0);
}
HELPER const casync_link *condition_waiting(void) { return &condition.waiting; }

HELPER int64_t semaphore_now(waiter *w) { return (void)w, casync_semaphore_acquire(&semaphore); }
HELPER casync_future *semaphore_start(waiter *w) {
    return casync_semaphore_acquire_op(&semaphore, &w->op);
}
HELPER void semaphore_block(void) { EQ(casync_semaphore_init(&semaphore, 0, 0), 0); }
HELPER void semaphore_let_go(void) { EQ(casync_semaphore_release(&semaphore), 0); }
HELPER bool semaphore_taken(void) { return casync_semaphore_locked(&semaphore); }
HELPER const casync_link *semaphore_waiting(void) { return &semaphore.waiting; }

HELPER void bounded_queue(int64_t maxsize) {
    casync_queue_desc desc = ZERO;
    desc.maxsize = maxsize;
    EQ(casync_queue_init(&loop, &queue, &desc), 0);
}
HELPER int64_t put_now(waiter *w) { return casync_queue_put(&queue, w->item); }
HELPER casync_future *put_start(waiter *w) { return casync_queue_put_op(&queue, &w->op, w->item); }
HELPER void put_block(void) {
    bounded_queue(1);
    EQ(casync_queue_put_nowait(&queue, &items[99]), 0);
}
HELPER void *get_nowait(void) {
    void *item = NULL;
    EQ(casync_queue_get_nowait(&queue, &item), 0);
    return item;
}
HELPER void put_let_go(void) { PTR_EQ(get_nowait(), &items[99]); }
HELPER bool put_taken(void) { return casync_queue_full(&queue); }
HELPER const casync_link *put_waiting(void) { return &queue.putters; }

HELPER int64_t get_now(waiter *w) { return casync_queue_get(&queue, &w->item); }
HELPER casync_future *get_start(waiter *w) { return casync_queue_get_op(&queue, &w->op); }
HELPER void get_block(void) { EXPECT(casync_queue_empty(&queue)); }
HELPER void get_let_go(void) { EQ(casync_queue_put_nowait(&queue, &items[1]), 0); }
HELPER bool get_taken(void) { return casync_queue_empty(&queue) && queue.unfinished > 0; }
HELPER const casync_link *get_waiting(void) { return &queue.getters; }

HELPER int64_t join_now(waiter *w) { return (void)w, casync_queue_join(&queue); }
HELPER casync_future *join_start(waiter *w) { return casync_queue_join_op(&queue, &w->op); }
HELPER void join_block(void) { EQ(casync_queue_put_nowait(&queue, &items[2]), 0); }
HELPER void join_let_go(void) { EQ(casync_queue_task_done(&queue), 0); }
HELPER const casync_link *join_waiting(void) { return &queue.joining; }

HELPER const way on_lock = {"lock",      lock_now, lock_start, lock_block,
                            lock_let_go, 0,        lock_taken, lock_waiting};
HELPER const way on_read = {"rwlock, to read", read_now, read_start,   rwlock_block,
                            rwlock_let_go,     0,        rwlock_taken, rwlock_waiting};
HELPER const way on_write = {"rwlock, to write", write_now, write_start,  rwlock_block,
                             rwlock_let_go,      0,         rwlock_taken, rwlock_waiting};
HELPER const way on_condition = {"condition",     condition_now,    condition_start,
                                 condition_block, condition_let_go, 0,
                                 lock_taken,      condition_waiting};
HELPER const way on_semaphore = {"semaphore",     semaphore_now,    semaphore_start,
                                 semaphore_block, semaphore_let_go, 0,
                                 semaphore_taken, semaphore_waiting};
HELPER const way on_put = {"put to queue", put_now, put_start, put_block,
                           put_let_go,     0,       put_taken, put_waiting};
HELPER const way on_get = {"get from queue", get_now, get_start, get_block,
                           get_let_go,       0,       get_taken, get_waiting};
HELPER const way on_join = {"join of queue", join_now, join_start,    join_block,
                            join_let_go,     0,        nothing_taken, join_waiting};

HELPER void has_waited(waiter *w) {
    if (!w->name) return;
    if (w->result == 0)
        say(WORD(w->name));
    else
        say_number(w->name, w->result);
}

HELPER int64_t wait_stackful(casync_loop *where, void *arg) {
    waiter *w = (waiter *)arg;
    (void)where;
    w->result = w->how->now(w);
    has_waited(w);
    w->then = casync_sleep(0);
    return 0;
}

HELPER int64_t wait_stackless(casync_task *task) {
    waiter *w = (waiter *)(void *)task;
    CASYNC_BEGIN(task);
    CASYNC_AWAIT(task, w->result, w->how->start(w));
    if (w->result >= 0 && w->op.kind == CASYNC__OP_GET) w->item = w->op.future.ptr;
    has_waited(w);
    CASYNC_YIELD(task, w->then);
    CASYNC_END(task, 0);
}

HELPER void start(waiter *w, bool stackful, const way *how, const char *name) {
    w->how = how;
    w->name = name;
    if (!w->item) w->item = &items[0];
    if (stackful) {
        w->task = spawn(wait_stackful, w);
        return;
    }
    EQ(casync_task_start(&loop, &w->stackless, wait_stackless), 0);
    w->task = &w->stackless;
}

/* The task has ended, or ends within these turns. */
HELPER void finish(waiter *w) {
    turns(3);
    EXPECT(casync_future_done(&w->task->future));
    if (w->task == &w->stackless)
        casync_future_close(&w->stackless.future);
    else
        casync_task_release(w->task);
}

HELPER bool nobody_waits(const casync_link *waiting) {
    return !waiting->next || casync__list_is_empty(waiting);
}

/* All are free, whatever a test did with them before. */
HELPER void open_all(void) {
    casync_lock free_lock = ZERO;
    casync_rwlock free_rwlock = ZERO;
    casync_once fresh_once = ZERO;
    lock = free_lock;
    rwlock = free_rwlock;
    once = fresh_once;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_queue_init(&loop, &queue, NULL), 0);
    EQ(casync_semaphore_init(&semaphore, 1, 0), 0);
    EQ(casync_barrier_init(&barrier, 1), 0);
}

HELPER void close_all(void) {
    casync_queue_close(&queue);
    close_loop();
}

/* A test of both kinds of task, and one of each way to wait in both. */
#define TEST_BOTH(name)                                                                            \
    static void both_##name(bool stackful);                                                        \
    TEST(stackful_##name) { both_##name(true); }                                                   \
    TEST(stackless_##name) { both_##name(false); }                                                 \
    static void both_##name(bool stackful)

#endif /* SYNC_FIXTURE_H */

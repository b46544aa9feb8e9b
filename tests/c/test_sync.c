/* >> sync primitives: event, lock, rwlock, condition, semaphore, barrier, wait group, once,
   queue; the meaning of asyncio's test_locks and test_queues. */
#define CASYNC_SYSCALL_TABLE
#include "support.h"

/* One of each; zeroed, as each test is a process of its own. */
static casync_event event;
static casync_lock lock;
static casync_rwlock rwlock;
static casync_condition condition;
static casync_semaphore semaphore;
static casync_barrier barrier;
static casync_wait_group group;
static casync_once once;
static casync_queue queue;

static int items[100]; /* things to put into queues: pointers to these */

/* >> every wait, in both of its forms --------------------------------------------------------- */

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

static int64_t event_now(waiter *w) { return (void)w, casync_event_wait(&event); }
static casync_future *event_start(waiter *w) { return casync_event_wait_op(&event, &w->op); }
static void event_block(void) { casync_event_clear(&event); }
static void event_let_go(void) {
    casync_event_set(&event);
    casync_event_clear(&event);
}
static bool nothing_taken(void) { return false; }
static const casync_link *event_waiting(void) { return &event.waiting; }

static int64_t lock_now(waiter *w) { return (void)w, casync_lock_acquire(&lock); }
static int64_t lock_timeout_now(waiter *w) {
    return (void)w, casync_lock_acquire_timeout(&lock, CASYNC_SECONDS(1000));
}
static casync_future *lock_start(waiter *w) { return casync_lock_acquire_op(&lock, &w->op); }
static void lock_block(void) { EQ(casync_lock_try_acquire(&lock), 0); }
static void lock_let_go(void) { EQ(casync_lock_release(&lock), 0); }
static bool lock_taken(void) { return casync_lock_locked(&lock); }
static const casync_link *lock_waiting(void) { return &lock.waiting; }

static int64_t read_now(waiter *w) { return (void)w, casync_rwlock_acquire_read(&rwlock); }
static casync_future *read_start(waiter *w) {
    return casync_rwlock_acquire_read_op(&rwlock, &w->op);
}
static int64_t write_now(waiter *w) { return (void)w, casync_rwlock_acquire_write(&rwlock); }
static casync_future *write_start(waiter *w) {
    return casync_rwlock_acquire_write_op(&rwlock, &w->op);
}
static void rwlock_block(void) { EQ(casync_rwlock_try_acquire_write(&rwlock), 0); }
static void rwlock_let_go(void) { EQ(casync_rwlock_release(&rwlock), 0); }
static bool rwlock_taken(void) { return rwlock.writing || rwlock.readers > 0; }
static const casync_link *rwlock_waiting(void) { return &rwlock.waiting; }

static int64_t condition_now(waiter *w) { return (void)w, casync_condition_wait(&condition); }
static casync_future *condition_start(waiter *w) {
    return casync_condition_wait_op(&condition, &w->op);
}
static void condition_block(void) {
    casync_condition_init(&condition, &lock);
    (void)casync_lock_try_acquire(&lock);
}
static void condition_let_go(void) {
    EQ(casync_lock_try_acquire(&lock), 0);
    EQ(casync_condition_notify(&condition, 1), 1);
    EQ(casync_lock_release(&lock), 0);
}
static const casync_link *condition_waiting(void) { return &condition.waiting; }

static int64_t semaphore_now(waiter *w) { return (void)w, casync_semaphore_acquire(&semaphore); }
static casync_future *semaphore_start(waiter *w) {
    return casync_semaphore_acquire_op(&semaphore, &w->op);
}
static void semaphore_block(void) { EQ(casync_semaphore_init(&semaphore, 0, 0), 0); }
static void semaphore_let_go(void) { EQ(casync_semaphore_release(&semaphore), 0); }
static bool semaphore_taken(void) { return casync_semaphore_locked(&semaphore); }
static const casync_link *semaphore_waiting(void) { return &semaphore.waiting; }

static int64_t barrier_now(waiter *w) { return (void)w, casync_barrier_wait(&barrier); }
static casync_future *barrier_start(waiter *w) { return casync_barrier_wait_op(&barrier, &w->op); }
static void barrier_block(void) { EQ(casync_barrier_init(&barrier, 2), 0); }
static void barrier_let_go(void) {
    casync_op op;
    EQ(casync_future_result(casync_barrier_wait_op(&barrier, &op)), 1);
}
static const casync_link *barrier_waiting(void) { return &barrier.waiting; }

static int64_t group_now(waiter *w) { return (void)w, casync_wait_group_wait(&group); }
static casync_future *group_start(waiter *w) { return casync_wait_group_wait_op(&group, &w->op); }
static void group_block(void) { EQ(casync_wait_group_add(&group, 1), 0); }
static void group_let_go(void) { EQ(casync_wait_group_done(&group), 0); }
static const casync_link *group_waiting(void) { return &group.waiting; }

static int64_t once_now(waiter *w) { return (void)w, casync_once_begin(&once); }
static casync_future *once_start(waiter *w) { return casync_once_begin_op(&once, &w->op); }
static void once_block(void) {
    casync_op op;
    EQ(casync_future_result(casync_once_begin_op(&once, &op)), 1);
}
static void once_let_go(void) { EQ(casync_once_end(&once, -EIO), 0); }
static bool once_taken(void) { return once.doing; }
static const casync_link *once_waiting(void) { return &once.waiting; }

static void bounded_queue(int64_t maxsize) {
    casync_queue_desc desc = ZERO;
    desc.maxsize = maxsize;
    EQ(casync_queue_init(&loop, &queue, &desc), 0);
}
static int64_t put_now(waiter *w) { return casync_queue_put(&queue, w->item); }
static int64_t put_timeout_now(waiter *w) {
    return casync_queue_put_timeout(&queue, w->item, CASYNC_SECONDS(1000));
}
static casync_future *put_start(waiter *w) { return casync_queue_put_op(&queue, &w->op, w->item); }
static void put_block(void) {
    bounded_queue(1);
    EQ(casync_queue_put_nowait(&queue, &items[99]), 0);
}
static void *get_nowait(void) {
    void *item = NULL;
    EQ(casync_queue_get_nowait(&queue, &item), 0);
    return item;
}
static void put_let_go(void) { PTR_EQ(get_nowait(), &items[99]); }
static bool put_taken(void) { return casync_queue_full(&queue); }
static const casync_link *put_waiting(void) { return &queue.putters; }

static int64_t get_now(waiter *w) { return casync_queue_get(&queue, &w->item); }
static int64_t get_timeout_now(waiter *w) {
    return casync_queue_get_timeout(&queue, &w->item, CASYNC_SECONDS(1000));
}
static casync_future *get_start(waiter *w) { return casync_queue_get_op(&queue, &w->op); }
static void get_block(void) { EXPECT(casync_queue_empty(&queue)); }
static void get_let_go(void) { EQ(casync_queue_put_nowait(&queue, &items[1]), 0); }
static bool get_taken(void) { return casync_queue_empty(&queue) && queue.unfinished > 0; }
static const casync_link *get_waiting(void) { return &queue.getters; }

static int64_t join_now(waiter *w) { return (void)w, casync_queue_join(&queue); }
static casync_future *join_start(waiter *w) { return casync_queue_join_op(&queue, &w->op); }
static void join_block(void) { EQ(casync_queue_put_nowait(&queue, &items[2]), 0); }
static void join_let_go(void) { EQ(casync_queue_task_done(&queue), 0); }
static const casync_link *join_waiting(void) { return &queue.joining; }

static const way on_event = {"event",      event_now, event_start,   event_block,
                             event_let_go, 0,         nothing_taken, event_waiting};
static const way on_lock = {"lock",      lock_now, lock_start, lock_block,
                            lock_let_go, 0,        lock_taken, lock_waiting};
static const way on_lock_timeout = {"lock", lock_timeout_now, lock_start,  lock_block, lock_let_go,
                                    0,      lock_taken,       lock_waiting};
static const way on_read = {"rwlock, to read", read_now, read_start,   rwlock_block,
                            rwlock_let_go,     0,        rwlock_taken, rwlock_waiting};
static const way on_write = {"rwlock, to write", write_now, write_start,  rwlock_block,
                             rwlock_let_go,      0,         rwlock_taken, rwlock_waiting};
static const way on_condition = {"condition",     condition_now,    condition_start,
                                 condition_block, condition_let_go, 0,
                                 lock_taken,      condition_waiting};
static const way on_semaphore = {"semaphore",     semaphore_now,    semaphore_start,
                                 semaphore_block, semaphore_let_go, 0,
                                 semaphore_taken, semaphore_waiting};
static const way on_barrier = {"barrier",      barrier_now, barrier_start, barrier_block,
                               barrier_let_go, 0,           nothing_taken, barrier_waiting};
static const way on_group = {"wait group", group_now, group_start,   group_block,
                             group_let_go, 0,         nothing_taken, group_waiting};
static const way on_once = {"once",      once_now, once_start, once_block,
                            once_let_go, 1,        once_taken, once_waiting};
static const way on_put = {"put to queue", put_now, put_start, put_block,
                           put_let_go,     0,       put_taken, put_waiting};
static const way on_put_timeout = {
    "put to queue", put_timeout_now, put_start, put_block, put_let_go, 0, put_taken, put_waiting};
static const way on_get = {"get from queue", get_now, get_start, get_block,
                           get_let_go,       0,       get_taken, get_waiting};
static const way on_get_timeout = {
    "get from queue", get_timeout_now, get_start, get_block, get_let_go, 0, get_taken, get_waiting};
static const way on_join = {"join of queue", join_now, join_start,    join_block,
                            join_let_go,     0,        nothing_taken, join_waiting};

static const way *const waits[] = {&on_event,     &on_lock,        &on_read,       &on_write,
                                   &on_condition, &on_once,        &on_semaphore,  &on_group,
                                   &on_barrier,   &on_put,         &on_get,        &on_lock_timeout,
                                   &on_join,      &on_put_timeout, &on_get_timeout};
enum { WAITS = sizeof waits / sizeof *waits };

/* >> tasks that wait -------------------------------------------------------------------------- */

static void has_waited(waiter *w) {
    if (!w->name) return;
    if (w->result == 0)
        say(WORD(w->name));
    else
        say_number(w->name, w->result);
}

static int64_t wait_stackful(casync_loop *where, void *arg) {
    waiter *w = (waiter *)arg;
    (void)where;
    w->result = w->how->now(w);
    has_waited(w);
    w->then = casync_sleep(0);
    return 0;
}

static int64_t wait_stackless(casync_task *task) {
    waiter *w = (waiter *)(void *)task;
    CASYNC_BEGIN(task);
    CASYNC_AWAIT(task, w->result, w->how->start(w));
    if (w->result >= 0 && w->op.kind == CASYNC__OP_GET) w->item = w->op.future.ptr;
    has_waited(w);
    CASYNC_YIELD(task, w->then);
    CASYNC_END(task, 0);
}

static void start(waiter *w, bool stackful, const way *how, const char *name) {
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
static void finish(waiter *w) {
    run_turns(3);
    EXPECT(casync_future_done(&w->task->future));
    if (w->task == &w->stackless)
        casync_future_close(&w->stackless.future);
    else
        casync_task_release(w->task);
}

static bool nobody_waits(const casync_link *waiting) {
    return !waiting->next || casync__list_is_empty(waiting);
}

/* All are free, whatever a test did with them before. */
static void open_all(void) {
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

static void close_all(void) {
    casync_queue_close(&queue);
    close_loop();
}

/* A test of both kinds of task, and one of each way to wait in both. */
#define TEST_BOTH(name)                                                                            \
    static void both_##name(bool stackful);                                                        \
    TEST(stackful_##name) { both_##name(true); }                                                   \
    TEST(stackless_##name) { both_##name(false); }                                                 \
    static void both_##name(bool stackful)
#define TEST_ALL(name)                                                                             \
    static void all_##name(bool stackful, const way *how);                                         \
    TEST_BOTH(name) {                                                                              \
        int i;                                                                                     \
        for (i = 0; i < WAITS; i++) {                                                              \
            open_all();                                                                            \
            all_##name(stackful, waits[i]);                                                        \
            close_all();                                                                           \
        }                                                                                          \
    }                                                                                              \
    static void all_##name(bool stackful, const way *how)

/* >> what all have in common ------------------------------------------------------------------ */

TEST_ALL(waits_until_it_is_let_go) {
    waiter w = ZERO;
    how->block();
    start(&w, stackful, how, "w");
    run_turns(3);
    SAID("");
    EXPECT(!nobody_waits(how->waiting()));
    how->let_go();
    EXPECT(nobody_waits(how->waiting()));
    run_turns(1);
    EQ(w.result, how->granted);
    SAID(how->granted ? "w=1" : "w");
    finish(&w);
    EQ(w.then, 0);
}

/* Cancelled while it waits: it took nothing, and nobody is woken for it any more. */
TEST_ALL(cancelled_wait_takes_nothing) {
    waiter w = ZERO;
    how->block();
    start(&w, stackful, how, "w");
    run_turns(2);
    EQ(casync_task_cancel(w.task), 1);
    run_turns(1);
    EQ(w.result, -ECANCELED);
    SAID("w=-125");
    EXPECT(nobody_waits(how->waiting()));
    finish(&w);
    EQ(w.then, 0);
    if (how == &on_condition) {
        EXPECT(casync_lock_locked(&lock)); /* its own again */
    } else if (how == &on_barrier) {
        EQ(barrier.n_waiting, 0);
    } else {
        how->let_go();
        EXPECT(!how->taken());
    }
}

/* Let go, and cancelled before it runs: it has what it waited for, and its next await hears of the
   request. */
TEST_ALL(cancel_does_not_undo_what_was_given) {
    waiter w = ZERO;
    how->block();
    start(&w, stackful, how, NULL);
    run_turns(2);
    how->let_go();
    EQ(casync_task_cancel(w.task), 1);
    run_turns(2);
    EQ(w.result, how->granted);
    EQ(w.then, -ECANCELED);
    finish(&w);
    EXPECT(how->taken == nothing_taken || how->taken());
    if (how == &on_put) PTR_EQ(get_nowait(), &items[0]);
    if (how == &on_get) PTR_EQ(w.item, &items[1]);
}

/* The other order: the request comes first. */
TEST_ALL(let_go_after_a_cancel_reaches_the_next) {
    waiter first = ZERO, second = ZERO;
    if (how == &on_barrier || how == &on_condition) return; /* have tests of their own */
    how->block();
    start(&first, stackful, how, "first");
    start(&second, stackful, how, "second");
    run_turns(2);
    EQ(casync_task_cancel(first.task), 1);
    how->let_go();
    run_turns(2);
    SAID(how->granted ? "first=-125 second=1" : "first=-125 second");
    finish(&first);
    finish(&second);
}

TEST_ALL(task_that_never_ran_takes_nothing) {
    waiter w = ZERO;
    start(&w, stackful, how, "w");
    EQ(casync_task_cancel(w.task), 1);
    finish(&w);
    SAID("");
    EXPECT(nobody_waits(how->waiting()));
    EQ(casync_lock_locked(&lock), 0);
    EQ(semaphore.value, 1);
    EQ(queue.unfinished, 0);
}

static const way *wait_in_turn;

/* Cancels itself, and then waits. */
static int64_t cancelled_before_it_waits(casync_loop *where, void *arg) {
    waiter *w = (waiter *)arg;
    (void)where;
    EQ(casync_task_cancel(casync_current_task()), 1);
    w->result = wait_in_turn->now(w);
    return 0;
}

TEST(a_request_made_before_is_heard_by_a_wait_but_not_by_one_that_is_none) {
    int i;
    for (i = 0; i < WAITS; i++) {
        waiter w = ZERO;
        open_all();
        w.item = &items[0];
        wait_in_turn = waits[i];
        waits[i]->block();
        EQ(run_task(cancelled_before_it_waits, &w), 0);
        EQ(w.result, -ECANCELED);
        EXPECT(nobody_waits(waits[i]->waiting()));
        if (waits[i] == &on_lock) {
            lock_let_go();
            EQ(run_task(cancelled_before_it_waits, &w), -ECANCELED); /* nothing heard of it */
            EQ(w.result, 0);
        }
        close_all();
    }
}

TEST(waiting_is_for_stackful_tasks) {
    int i;
    waiter w = ZERO;
    open_all();
    casync_condition_init(&condition, &lock);
    w.item = &items[0];
    for (i = 0; i < WAITS; i++) EQ(waits[i]->now(&w), -EPERM);
    EQ(casync_once_call(&once, wait_stackful, &w), -EPERM);
    EXPECT(!casync_lock_locked(&lock) && !rwlock.writing && rwlock.readers == 0 && !once.doing);
    EQ(semaphore.value, 1);
    EQ(queue.unfinished, 0);
    close_all();
}

TEST(without_a_running_loop_an_operation_succeeds_at_once_or_not_at_all) {
    int i;
    for (i = 0; i < WAITS; i++) {
        waiter w = ZERO;
        if (waits[i] == &on_lock_timeout || waits[i] == &on_get_timeout ||
            waits[i] == &on_put_timeout)
            continue; /* the same operations again */
        open_all();
        w.item = &items[0];
        waits[i]->block();
        EQ(casync_future_result(waits[i]->start(&w)), -EPERM);
        EXPECT(nobody_waits(waits[i]->waiting()));
        if (waits[i] == &on_lock) {
            lock_let_go();
            EQ(casync_future_result(lock_start(&w)), 0);
            EXPECT(casync_lock_locked(&lock));
        }
        if (waits[i] == &on_condition) EXPECT(casync_lock_locked(&lock));
        if (waits[i] == &on_barrier) EQ(barrier.n_waiting, 0);
        close_all();
    }
}

/* Closing the future of an operation ends it, as cancelling it does. */
static void close_operations(void *arg) {
    int i;
    (void)arg;
    for (i = 0; i < WAITS; i++) {
        waiter w = ZERO;
        if (waits[i] == &on_lock_timeout || waits[i] == &on_get_timeout ||
            waits[i] == &on_put_timeout)
            continue;
        casync_queue_close(&queue);
        bounded_queue(0);
        if (lock.locked) EQ(casync_lock_release(&lock), 0);
        if (rwlock.writing) EQ(casync_rwlock_release(&rwlock), 0);
        w.item = &items[0];
        waits[i]->block();
        EXPECT(!casync_future_done(waits[i]->start(&w)));
        casync_future_close(&w.op.future);
        EXPECT(nobody_waits(waits[i]->waiting()));
    }
    EQ(barrier.n_waiting, 0);
}

TEST(closed_operations_wait_no_more) {
    open_all();
    EQ(casync_call_soon(&loop, NULL, close_operations, NULL), 0);
    run_turns(1);
    close_all();
}

TEST(the_errors_have_names) {
    STR_EQ(casync_strerror(CASYNC_QUEUE_SHUT_DOWN), "the queue is shut down");
    STR_EQ(casync_strerror(CASYNC_BROKEN_BARRIER), "the barrier was reset or aborted");
}

/* What the tasks wait for, in the words of casync_dump. */
TEST_ALL(dump_names_it) {
    waiter w = ZERO;
    char text[512], words[64];
    int ends[2];
    ssize_t size;
    how->block();
    start(&w, stackful, how, NULL);
    run_turns(2);
    make_pipe(ends);
    EQ(casync_dump(&loop, ends[1]), 0);
    size = read(ends[0], text, sizeof text - 1);
    EXPECT(size > 0);
    text[size] = 0;
    snprintf(words, sizeof words, "task task awaits %s 0x", how->name);
    EQ(strncmp(text, words, strlen(words)), 0);
    close_both(ends);
    how->let_go();
    finish(&w);
}

/* >> event ------------------------------------------------------------------------------------ */

TEST_BOTH(event_lets_all_go) {
    waiter w[4];
    memset((void *)w, 0, sizeof w);
    open_all();
    EXPECT(!casync_event_is_set(&event));
    start(&w[0], stackful, &on_event, "a");
    start(&w[1], stackful, &on_event, "b");
    start(&w[2], stackful, &on_event, "c");
    run_turns(2);
    SAID("");
    casync_event_set(&event);
    EXPECT(casync_event_is_set(&event));
    run_turns(1);
    SAID("a b c");
    start(&w[3], stackful, &on_event, "d");
    run_turns(1);
    SAID("d");
    casync_event_set(&event);
    casync_event_clear(&event);
    EXPECT(!casync_event_is_set(&event));
    finish(&w[0]);
    finish(&w[1]);
    finish(&w[2]);
    finish(&w[3]);
    close_all();
}

TEST_BOTH(event_that_is_cleared_again_has_let_go_who_waited) {
    waiter before = ZERO, after = ZERO;
    open_all();
    start(&before, stackful, &on_event, "before");
    run_turns(1);
    casync_event_set(&event);
    casync_event_clear(&event);
    start(&after, stackful, &on_event, "after");
    run_turns(2);
    SAID("before");
    casync_event_set(&event);
    run_turns(1);
    SAID("after");
    finish(&before);
    finish(&after);
    close_all();
}

/* >> lock ------------------------------------------------------------------------------------- */

TEST_BOTH(lock_goes_to_the_first_who_waits) {
    waiter w[3];
    memset((void *)w, 0, sizeof w);
    open_all();
    start(&w[0], stackful, &on_lock, "a");
    start(&w[1], stackful, &on_lock, "b");
    start(&w[2], stackful, &on_lock, "c");
    run_turns(2);
    SAID("a");
    EQ(casync_lock_release(&lock), 0);
    EXPECT(casync_lock_locked(&lock)); /* b's, who has not run yet */
    EQ(casync_lock_try_acquire(&lock), -EAGAIN);
    run_turns(1);
    SAID("b");
    EQ(casync_lock_release(&lock), 0);
    EQ(casync_lock_release(&lock), 0); /* in the name of c */
    EXPECT(!casync_lock_locked(&lock));
    EQ(casync_lock_release(&lock), CASYNC_INVALID_STATE);
    run_turns(1);
    SAID("c");
    finish(&w[0]);
    finish(&w[1]);
    finish(&w[2]);
    close_all();
}

/* asyncio's test_cancel_race and test_cancel_release_race. */
TEST_BOTH(lock_released_and_first_waiter_cancelled) {
    waiter b = ZERO, c = ZERO, d = ZERO;
    open_all();
    lock_block();
    start(&b, stackful, &on_lock, "b");
    start(&c, stackful, &on_lock, "c");
    start(&d, stackful, &on_lock, "d");
    run_turns(1);
    EQ(casync_task_cancel(b.task), 1);
    EQ(casync_lock_release(&lock), 0);
    run_turns(1);
    SAID("b=-125 c");
    EQ(casync_task_cancel(d.task), 1);
    run_turns(1);
    SAID("d=-125");
    EXPECT(casync_lock_locked(&lock));
    EQ(casync_lock_release(&lock), 0);
    EXPECT(!casync_lock_locked(&lock));
    finish(&b);
    finish(&c);
    finish(&d);
    close_all();
}

IN_TASK(lock_acquire_with_a_time_limit) {
    casync_op op;
    EQ(casync_lock_acquire_timeout(&lock, 0), 0);
    EQ(casync_lock_acquire_timeout(&lock, 0), -ETIMEDOUT);
    EQ(casync_lock_acquire_timeout(&lock, CASYNC_MS(10)), -ETIMEDOUT);
    EQ(casync_time(&loop), CASYNC_MS(10));
    EXPECT(nobody_waits(&lock.waiting));
    EQ(casync_wait_for(casync_lock_acquire_op(&lock, &op), CASYNC_MS(10)), -ETIMEDOUT);
    EQ(casync_lock_release(&lock), 0);
    EXPECT(!casync_lock_locked(&lock));
    EQ(casync_lock_acquire_timeout(&lock, CASYNC_FOREVER), 0);
}

static void release_lock(void *arg) {
    (void)arg;
    EQ(casync_lock_release(&lock), 0);
}

IN_TASK(lock_released_as_time_is_up_is_acquired) {
    casync_timer timer = ZERO;
    EQ(casync_lock_acquire(&lock), 0);
    EQ(casync_call_later(&loop, &timer, CASYNC_MS(10), release_lock, NULL), 0);
    EQ(casync_lock_acquire_timeout(&lock, CASYNC_MS(10)), 0); /* the release came first */
    EXPECT(casync_lock_locked(&lock));
    EQ(casync_sleep(0), 0);
}

/* No memory for the timer: nothing is acquired, nothing waits. */
IN_TASK(lock_acquire_timeout_without_memory) {
    EQ(casync_lock_acquire(&lock), 0);
    fail_allocation(1, 0);
    EQ(casync_lock_acquire_timeout(&lock, CASYNC_MS(10)), -ENOMEM);
    EXPECT(nobody_waits(&lock.waiting));
    EQ(casync_lock_release(&lock), 0);
    EQ(casync_lock_acquire_timeout(&lock, CASYNC_MS(10)), 0); /* needs none */
    fail_no_allocation();
}

IN_TASK(a_wait_costs_no_allocation) {
    waiter w = ZERO;
    int64_t before;
    lock_block();
    start(&w, true, &on_lock, NULL);
    before = memory.allocations;
    EQ(casync_sleep(0), 0);
    lock_let_go();
    EQ(casync_sleep(0), 0);
    EQ(casync_await(&w.task->future), 0);
    EQ(memory.allocations, before);
    casync_task_release(w.task);
}

static void say_locked(void *arg) {
    EQ(casync_future_result(&((casync_op *)arg)->future), 0);
    say(WORD("locked"));
}

/* From callbacks alone: by operations. */
static void acquire_by_callback(void *op) {
    EQ(casync_future_add_done_callback(casync_lock_acquire_op(&lock, (casync_op *)op), NULL,
                                       say_locked, op),
       0);
}

TEST(callbacks_can_acquire_a_lock) {
    casync_op first, second;
    open_all();
    EQ(casync_call_soon(&loop, NULL, acquire_by_callback, &first), 0);
    EQ(casync_call_soon(&loop, NULL, acquire_by_callback, &second), 0);
    run_turns(2);
    SAID("locked");
    lock_let_go();
    run_turns(1);
    SAID("locked");
    lock_let_go();
    close_all();
}

/* >> rwlock ----------------------------------------------------------------------------------- */

TEST_BOTH(rwlock_is_shared_by_readers_in_the_order_of_the_line) {
    waiter w[6];
    static const way *const how[6] = {&on_read, &on_read, &on_write, &on_read, &on_read, &on_write};
    static const char *const names[6] = {"r0", "r1", "w2", "r3", "r4", "w5"};
    int i;
    memset((void *)w, 0, sizeof w);
    open_all();
    for (i = 0; i < 6; i++) start(&w[i], stackful, how[i], names[i]);
    run_turns(2);
    SAID("r0 r1");
    EQ(rwlock.readers, 2);
    EQ(casync_rwlock_try_acquire_read(&rwlock), -EAGAIN); /* behind the writer */
    rwlock_let_go();
    run_turns(1);
    SAID("");
    rwlock_let_go();
    run_turns(1);
    SAID("w2");
    EXPECT(rwlock.writing);
    EQ(casync_rwlock_try_acquire_write(&rwlock), -EAGAIN);
    rwlock_let_go();
    run_turns(1);
    SAID("r3 r4");
    rwlock_let_go();
    rwlock_let_go();
    run_turns(1);
    SAID("w5");
    rwlock_let_go();
    EQ(casync_rwlock_release(&rwlock), CASYNC_INVALID_STATE);
    EQ(casync_rwlock_try_acquire_read(&rwlock), 0);
    EQ(casync_rwlock_try_acquire_read(&rwlock), 0);
    EQ(casync_rwlock_try_acquire_write(&rwlock), -EAGAIN);
    for (i = 0; i < 6; i++) finish(&w[i]);
    close_all();
}

TEST_BOTH(rwlock_readers_go_on_when_the_writer_before_them_gives_up) {
    waiter writer = ZERO, reader = ZERO;
    open_all();
    EQ(casync_rwlock_try_acquire_read(&rwlock), 0);
    start(&writer, stackful, &on_write, "writer");
    start(&reader, stackful, &on_read, "reader");
    run_turns(2);
    SAID("");
    EQ(casync_task_cancel(writer.task), 1);
    EQ(rwlock.readers, 2);
    run_turns(1);
    SAID("writer=-125 reader");
    rwlock_let_go();
    rwlock_let_go();
    finish(&writer);
    finish(&reader);
    close_all();
}

/* >> condition -------------------------------------------------------------------------------- */

/* Takes the lock, waits for the condition, gives the lock back. */
static void wait_with_lock(waiter *w, bool stackful, const char *name) {
    lock_block();
    start(w, stackful, &on_condition, name);
    run_turns(1);
    EXPECT(!casync_lock_locked(&lock));
}

TEST_BOTH(condition_notifies_as_many_as_it_is_told) {
    waiter w[4];
    int i;
    memset((void *)w, 0, sizeof w);
    open_all();
    casync_condition_init(&condition, &lock);
    wait_with_lock(&w[0], stackful, "a");
    wait_with_lock(&w[1], stackful, "b");
    wait_with_lock(&w[2], stackful, "c");
    wait_with_lock(&w[3], stackful, "d");
    lock_block();
    EQ(casync_condition_notify(&condition, 0), 0);
    EQ(casync_condition_notify(&condition, -1), -EINVAL);
    EQ(casync_condition_notify(&condition, 2), 2);
    run_turns(2);
    SAID(""); /* the lock is not free */
    lock_let_go();
    run_turns(2);
    SAID("a");
    lock_let_go();
    run_turns(2);
    SAID("b");
    EQ(casync_condition_notify_all(&condition), 2);
    EQ(casync_condition_notify_all(&condition), 0);
    lock_let_go();
    run_turns(1);
    SAID("c");
    lock_let_go();
    run_turns(1);
    SAID("d");
    EXPECT(casync_lock_locked(&lock));
    for (i = 0; i < 4; i++) finish(&w[i]);
    close_all();
}

TEST_BOTH(condition_needs_its_lock) {
    waiter w = ZERO;
    open_all();
    start(&w, stackful, &on_condition, "without");
    run_turns(1);
    SAID("without=-5004"); /* not even initialised */
    finish(&w);
    EQ(casync_condition_notify(&condition, 1), CASYNC_INVALID_STATE);
    casync_condition_init(&condition, &lock);
    start(&w, stackful, &on_condition, "unlocked");
    run_turns(1);
    SAID("unlocked=-5004");
    finish(&w);
    EQ(casync_condition_notify(&condition, 1), CASYNC_INVALID_STATE);
    EQ(casync_condition_notify_all(&condition), CASYNC_INVALID_STATE);
    close_all();
}

/* A cancelled wait returns when it has the lock. */
TEST_BOTH(condition_cancelled_while_the_lock_is_taken) {
    waiter w = ZERO;
    open_all();
    casync_condition_init(&condition, &lock);
    wait_with_lock(&w, stackful, "w");
    lock_block();
    EQ(casync_task_cancel(w.task), 1);
    EQ(casync_task_cancel(w.task), 1); /* once more makes no difference */
    run_turns(3);
    SAID("");
    EQ(casync_condition_notify_all(&condition), 0);
    lock_let_go();
    EXPECT(casync_lock_locked(&lock));
    run_turns(1);
    SAID("w=-125");
    finish(&w);
    EQ(w.then, 0);
    lock_let_go();
    close_all();
}

/* asyncio's test_wait_cancel_after_notify, test_cancelled_wakeup and _relock: cancelled when it was
   notified, but has no lock yet, it is cancelled, and the notification goes to another. */
TEST_BOTH(condition_cancelled_after_it_was_notified) {
    waiter a = ZERO, b = ZERO, c = ZERO;
    open_all();
    casync_condition_init(&condition, &lock);
    wait_with_lock(&a, stackful, "a");
    wait_with_lock(&b, stackful, "b");
    wait_with_lock(&c, stackful, "c");
    lock_block();
    EQ(casync_condition_notify(&condition, 1), 1);
    EQ(casync_task_cancel(a.task), 1);
    run_turns(1);
    SAID("");
    lock_let_go();
    run_turns(1);
    SAID("a=-125");
    lock_let_go();
    run_turns(1);
    SAID("b");
    EQ(casync_condition_notify(&condition, 1), 1);
    lock_let_go();
    run_turns(1);
    SAID("c");
    finish(&a);
    finish(&b);
    finish(&c);
    close_all();
}

/* asyncio's test_wait_cancel_contested: it has the lock, and did not run yet. */
TEST_BOTH(condition_cancelled_when_it_has_the_lock) {
    waiter w = ZERO;
    open_all();
    casync_condition_init(&condition, &lock);
    wait_with_lock(&w, stackful, "w");
    lock_block();
    EQ(casync_condition_notify(&condition, 1), 1);
    lock_let_go();
    EQ(casync_task_cancel(w.task), 1);
    run_turns(1);
    SAID("w");
    EXPECT(casync_lock_locked(&lock));
    finish(&w);
    EQ(w.then, -ECANCELED);
    close_all();
}

TEST_BOTH(condition_shares_its_lock_fairly) {
    waiter waits_for_condition = ZERO, waits_for_lock = ZERO;
    open_all();
    casync_condition_init(&condition, &lock);
    wait_with_lock(&waits_for_condition, stackful, "condition");
    lock_block();
    start(&waits_for_lock, stackful, &on_lock, "lock");
    run_turns(1);
    EQ(casync_condition_notify(&condition, 1), 1);
    lock_let_go();
    run_turns(1);
    SAID("lock"); /* it came first */
    lock_let_go();
    run_turns(1);
    SAID("condition");
    finish(&waits_for_condition);
    finish(&waits_for_lock);
    close_all();
}

/* The future of a wait that is closed gives up without the lock; it passes on its notification. */
static void close_notified_wait(void *arg) {
    casync_op first, second;
    (void)arg;
    EQ(casync_lock_try_acquire(&lock), 0);
    EXPECT(!casync_future_done(casync_condition_wait_op(&condition, &first)));
    EQ(casync_lock_try_acquire(&lock), 0);
    EXPECT(!casync_future_done(casync_condition_wait_op(&condition, &second)));
    EQ(casync_lock_try_acquire(&lock), 0);
    EQ(casync_condition_notify(&condition, 1), 1);
    casync_future_close(&first.future);
    lock_let_go();
    EXPECT(casync_future_done(&second.future));
    EXPECT(casync_lock_locked(&lock));
    lock_let_go();
}

TEST(condition_whose_notified_wait_is_closed) {
    open_all();
    casync_condition_init(&condition, &lock);
    EQ(casync_call_soon(&loop, NULL, close_notified_wait, NULL), 0);
    run_turns(1);
    close_all();
}

/* asyncio's test_timeout_in_block: the lock is held again when time was up. */
IN_TASK(condition_wait_with_a_time_limit) {
    casync_op op;
    casync_condition_init(&condition, &lock);
    EQ(casync_lock_acquire(&lock), 0);
    EQ(casync_wait_for(casync_condition_wait_op(&condition, &op), CASYNC_MS(500)), -ETIMEDOUT);
    EXPECT(casync_lock_locked(&lock));
    EQ(casync_lock_release(&lock), 0);
}

/* >> semaphore -------------------------------------------------------------------------------- */

TEST(semaphore_parameters) {
    EQ(casync_semaphore_init(&semaphore, -1, 0), -EINVAL);
    EQ(casync_semaphore_init(&semaphore, 0, -1), -EINVAL);
    EQ(casync_semaphore_init(&semaphore, 2, 1), -EINVAL);
    EQ(casync_semaphore_try_acquire(&semaphore), -EAGAIN); /* zeroed */
    EXPECT(casync_semaphore_locked(&semaphore));
    EQ(casync_semaphore_init(&semaphore, 2, 2), 0);
    EQ(casync_semaphore_release(&semaphore), CASYNC_INVALID_STATE);
    EQ(casync_semaphore_try_acquire(&semaphore), 0);
    EQ(casync_semaphore_release(&semaphore), 0);
    EQ(casync_semaphore_release(&semaphore), CASYNC_INVALID_STATE);
    EQ(semaphore.value, 2);
    EQ(casync_semaphore_init(&semaphore, INT64_MAX, 0), 0);
    EQ(casync_semaphore_release(&semaphore), CASYNC_INVALID_STATE);
}

TEST_BOTH(semaphore_lets_so_many_in) {
    waiter w[4];
    int i;
    memset((void *)w, 0, sizeof w);
    open_all();
    EQ(casync_semaphore_init(&semaphore, 2, 0), 0);
    start(&w[0], stackful, &on_semaphore, "a");
    start(&w[1], stackful, &on_semaphore, "b");
    start(&w[2], stackful, &on_semaphore, "c");
    start(&w[3], stackful, &on_semaphore, "d");
    run_turns(2);
    SAID("a b");
    semaphore_let_go();
    EQ(casync_semaphore_try_acquire(&semaphore), -EAGAIN); /* it is c's */
    run_turns(1);
    SAID("c");
    semaphore_let_go();
    semaphore_let_go();
    semaphore_let_go();
    EQ(semaphore.value, 2);
    run_turns(1);
    SAID("d");
    for (i = 0; i < 4; i++) finish(&w[i]);
    close_all();
}

/* asyncio's test_acquire_cancel_before_awoken. */
TEST_BOTH(semaphore_released_after_two_were_cancelled) {
    waiter w[4];
    int i;
    memset((void *)w, 0, sizeof w);
    open_all();
    semaphore_block();
    start(&w[0], stackful, &on_semaphore, "a");
    start(&w[1], stackful, &on_semaphore, "b");
    start(&w[2], stackful, &on_semaphore, "c");
    start(&w[3], stackful, &on_semaphore, "d");
    run_turns(1);
    casync_task_cancel(w[0].task);
    casync_task_cancel(w[1].task);
    semaphore_let_go();
    run_turns(2);
    SAID("a=-125 b=-125 c");
    casync_task_cancel(w[3].task);
    run_turns(1);
    SAID("d=-125");
    EQ(semaphore.value, 0);
    for (i = 0; i < 4; i++) finish(&w[i]);
    close_all();
}

/* asyncio's test_acquire_fifo_order. */
static int64_t acquires_twice(casync_loop *where, void *name) {
    int i;
    (void)where;
    for (i = 1; i <= 2; i++) {
        EQ(casync_semaphore_acquire(&semaphore), 0);
        say_number((const char *)name, i);
        EQ(casync_sleep(CASYNC_MS(10)), 0);
        EQ(casync_semaphore_release(&semaphore), 0);
    }
    return 0;
}

IN_TASK(semaphore_order_is_first_come_first_served) {
    casync_task_group tasks;
    EQ(casync_semaphore_init(&semaphore, 1, 1), 0);
    EQ(casync_task_group_begin(&tasks), 0);
    EXPECT(casync_task_group_spawn(&tasks, acquires_twice, WORD("a")));
    EXPECT(casync_task_group_spawn(&tasks, acquires_twice, WORD("b")));
    EXPECT(casync_task_group_spawn(&tasks, acquires_twice, WORD("c")));
    EQ(casync_task_group_end(&tasks, 0), 0);
    SAID("a=1 b=1 c=1 a=2 b=2 c=2");
}

/* >> barrier ---------------------------------------------------------------------------------- */

TEST(barrier_parameters) {
    casync_op op;
    EQ(casync_barrier_init(&barrier, 0), -EINVAL);
    EQ(casync_barrier_init(&barrier, -1), -EINVAL);
    /* zeroed */
    EQ(casync_future_result(casync_barrier_wait_op(&barrier, &op)), CASYNC_INVALID_STATE);
    EQ(casync_barrier_init(&barrier, 1), 0);
    EQ(casync_future_result(casync_barrier_wait_op(&barrier, &op)), 0);
    EQ(casync_future_result(casync_barrier_wait_op(&barrier, &op)), 0);
}

TEST_BOTH(barrier_opens_when_all_have_come_again_and_again) {
    waiter w[6];
    static const char *const names[6] = {"a", "b", "c", "d", "e", "f"};
    int i;
    memset((void *)w, 0, sizeof w);
    open_all();
    EQ(casync_barrier_init(&barrier, 3), 0);
    for (i = 0; i < 2; i++) start(&w[i], stackful, &on_barrier, names[i]);
    run_turns(2);
    SAID("");
    EQ(barrier.n_waiting, 2);
    for (i = 2; i < 6; i++) start(&w[i], stackful, &on_barrier, names[i]);
    run_turns(2);
    SAID("c=2 f=2 a b=1 d e=1"); /* the last of each does not wait */
    EQ(barrier.n_waiting, 0);
    for (i = 0; i < 6; i++) finish(&w[i]);
    close_all();
}

TEST_BOTH(barrier_does_not_count_who_is_cancelled) {
    waiter a = ZERO, b = ZERO, c = ZERO;
    open_all();
    EQ(casync_barrier_init(&barrier, 2), 0);
    start(&a, stackful, &on_barrier, "a");
    run_turns(1);
    EQ(casync_task_cancel(a.task), 1);
    run_turns(1);
    SAID("a=-125");
    EQ(barrier.n_waiting, 0);
    EXPECT(!barrier.broken);
    start(&b, stackful, &on_barrier, "b");
    start(&c, stackful, &on_barrier, "c");
    run_turns(2);
    SAID("c=1 b");
    finish(&a);
    finish(&b);
    finish(&c);
    close_all();
}

TEST_BOTH(barrier_reset_and_abort) {
    waiter a = ZERO, b = ZERO, c = ZERO, d = ZERO;
    open_all();
    EQ(casync_barrier_init(&barrier, 2), 0);
    start(&a, stackful, &on_barrier, "a");
    run_turns(1);
    casync_barrier_reset(&barrier);
    EXPECT(!barrier.broken);
    EQ(barrier.n_waiting, 0);
    run_turns(1);
    SAID("a=-5006");
    start(&b, stackful, &on_barrier, "b");
    run_turns(1);
    casync_barrier_abort(&barrier);
    EXPECT(barrier.broken);
    start(&c, stackful, &on_barrier, "c");
    run_turns(1);
    SAID("b=-5006 c=-5006");
    casync_barrier_reset(&barrier);
    start(&d, stackful, &on_barrier, "d");
    run_turns(1);
    SAID("");
    barrier_let_go();
    run_turns(1);
    SAID("d");
    finish(&a);
    finish(&b);
    finish(&c);
    finish(&d);
    close_all();
}

/* >> wait group, once ------------------------------------------------------------------------- */

TEST_BOTH(wait_group_waits_until_all_is_done) {
    waiter a = ZERO, b = ZERO;
    open_all();
    EQ(casync_wait_group_done(&group), CASYNC_INVALID_STATE);
    EQ(casync_wait_group_add(&group, -1), -EINVAL);
    EQ(casync_wait_group_add(&group, INT64_MAX), 0);
    EQ(casync_wait_group_add(&group, 1), -EINVAL);
    group.count = 0;
    start(&a, stackful, &on_group, "nothing to do");
    run_turns(1);
    SAID("nothing to do");
    finish(&a);
    EQ(casync_wait_group_add(&group, 2), 0);
    start(&a, stackful, &on_group, "a");
    start(&b, stackful, &on_group, "b");
    run_turns(1);
    EQ(casync_wait_group_done(&group), 0);
    run_turns(1);
    SAID("");
    EQ(casync_wait_group_done(&group), 0);
    run_turns(1);
    SAID("a b");
    finish(&a);
    finish(&b);
    close_all();
}

static int64_t prepare(casync_loop *where, void *result) {
    say(WORD("prepare"));
    EQ(casync_sleep(CASYNC_MS(10)), 0);
    (void)where;
    return (intptr_t)result;
}

static int64_t calls_once(casync_loop *where, void *result) {
    (void)where;
    say_number("call", casync_once_call(&once, prepare, result));
    return 0;
}

IN_TASK(once_is_done_by_the_first) {
    casync_task_group tasks;
    EQ(casync_task_group_begin(&tasks), 0);
    EXPECT(casync_task_group_spawn(&tasks, calls_once, MILLISECONDS(7)));
    EXPECT(casync_task_group_spawn(&tasks, calls_once, NULL));
    EXPECT(casync_task_group_spawn(&tasks, calls_once, NULL));
    EQ(casync_task_group_end(&tasks, 0), 0);
    SAID("prepare call=0 call=0 call=0");
    EXPECT(once.done && !once.doing);
    EQ(casync_once_end(&once, 0), CASYNC_INVALID_STATE);
}

IN_TASK(once_that_fails_is_done_by_the_next) {
    casync_task_group tasks;
    EQ(casync_task_group_begin(&tasks), 0);
    EXPECT(casync_task_group_spawn(&tasks, calls_once, MILLISECONDS(-EIO)));
    EXPECT(casync_task_group_spawn(&tasks, calls_once, NULL));
    EXPECT(casync_task_group_spawn(&tasks, calls_once, NULL));
    EQ(casync_task_group_end(&tasks, 0), 0);
    SAID("prepare call=-5 prepare call=0 call=0");
}

IN_TASK(once_that_fails_with_nobody_waiting_can_begin_again) {
    EQ(casync_once_begin(&once), 1);
    EQ(casync_once_end(&once, -EIO), 0);
    EXPECT(!once.doing && !once.done);
    EQ(casync_once_begin(&once), 1);
    EQ(casync_once_end(&once, 0), 0);
    EQ(casync_once_begin(&once), 0);
}

/* >> queue ------------------------------------------------------------------------------------ */

static int compare_items(const void *a, const void *b) {
    int x = *(const int *)a / 10, y = *(const int *)b / 10; /* equal within a ten */
    return (x > y) - (x < y);
}

static void number_items(void) {
    int i;
    for (i = 0; i < 100; i++) items[i] = i;
}

static void open_queue(int order, int64_t maxsize) {
    casync_queue_desc desc = ZERO;
    open_all();
    number_items();
    desc.order = order;
    desc.maxsize = maxsize;
    desc.compare = compare_items;
    EQ(casync_queue_init(&loop, &queue, &desc), 0);
}

static void put(int i) { EQ(casync_queue_put_nowait(&queue, &items[i]), 0); }
static int get(void) { return *(int *)get_nowait(); }
static void expect_empty(int64_t error) {
    void *item = &queue;
    EQ(casync_queue_get_nowait(&queue, &item), error);
    PTR_EQ(item, &queue); /* untouched */
}

TEST(queue_parameters) {
    casync_loop closed = ZERO;
    casync_queue_desc desc = ZERO;
    open_all();
    EQ(casync_queue_init(&closed, &queue, NULL), -EINVAL);
    desc.maxsize = -1;
    EQ(casync_queue_init(&loop, &queue, &desc), -EINVAL);
    desc.maxsize = INT64_MAX;
    EQ(casync_queue_init(&loop, &queue, &desc), -ENOMEM);
    desc.maxsize = 0;
    desc.order = CASYNC_QUEUE_PRIORITY;
    EQ(casync_queue_init(&loop, &queue, &desc), -EINVAL);
    desc.order = 3;
    EQ(casync_queue_init(&loop, &queue, &desc), -EINVAL);
    desc.order = -1;
    EQ(casync_queue_init(&loop, &queue, &desc), -EINVAL);
    close_all();
}

TEST(queue_first_in_first_out) {
    int i, round;
    open_queue(CASYNC_QUEUE_FIFO, 0);
    for (round = 0; round < 5; round++) { /* the ring goes round, and grows while it is wrapped */
        for (i = 0; i < 10 + round * 20; i++) put(i);
        EQ(casync_queue_qsize(&queue), 10 + round * 20);
        for (i = 0; i < 10 + round * 20; i++) EQ(get(), i);
        for (i = 0; i < 7; i++) put(i);
        for (i = 0; i < 7; i++) EQ(get(), i);
    }
    expect_empty(-EAGAIN);
    close_all();
}

TEST(queue_last_in_first_out) {
    int i;
    open_queue(CASYNC_QUEUE_LIFO, 0);
    for (i = 0; i < 100; i++) put(i);
    for (i = 99; i >= 0; i--) EQ(get(), i);
    put(1);
    put(3);
    EQ(get(), 3);
    put(2);
    EQ(get(), 2);
    EQ(get(), 1);
    expect_empty(-EAGAIN);
    close_all();
}

TEST(queue_by_priority_and_first_in_first_out_among_equals) {
    int i, last, round;
    open_queue(CASYNC_QUEUE_PRIORITY, 0);
    for (i = 9; i >= 0; i--) put(10 * i + 3);
    for (i = 9; i >= 0; i--) put(10 * i + 1);
    for (i = 0; i < 10; i++) {
        EQ(get(), 10 * i + 3);
        EQ(get(), 10 * i + 1);
    }
    for (round = 0; round < 50; round++) {
        for (i = 0; i < 30; i++) put((int)random_below(10) * 10);
        for (i = 0, last = 0; i < 30; i++) {
            int next = get();
            EXPECT(next >= last);
            last = next;
        }
    }
    expect_empty(-EAGAIN);
    close_all();
}

TEST(queue_that_is_zeroed_is_ready) {
    casync_queue zeroed = ZERO;
    EQ(casync_queue_qsize(&zeroed), 0);
    EXPECT(casync_queue_empty(&zeroed) && !casync_queue_full(&zeroed));
    EQ(casync_queue_put_nowait(&zeroed, &items[0]), -EPERM); /* no loop, no memory */
    EQ(zeroed.unfinished, 0);
    casync_queue_close(&zeroed);
    casync_queue_close(&zeroed);
    EQ(casync_queue_put_nowait(&zeroed, &items[0]), CASYNC_QUEUE_SHUT_DOWN);
}

TEST(queue_with_a_limit_allocates_once) {
    int i;
    open_queue(CASYNC_QUEUE_FIFO, 100);
    EQ(memory.allocations, 1);
    fail_allocation(1, 0);
    for (i = 0; i < 100; i++) put(i);
    EXPECT(casync_queue_full(&queue));
    EQ(casync_queue_put_nowait(&queue, &items[0]), -EAGAIN);
    EQ(queue.unfinished, 100);
    for (i = 0; i < 100; i++) EQ(get(), i);
    fail_no_allocation();
    close_all();
}

TEST(queue_without_memory) {
    casync_queue_desc desc = ZERO;
    int i;
    open_queue(CASYNC_QUEUE_FIFO, 0);
    for (i = 0; i < 16; i++) put(i);
    fail_allocation(1, 0);
    EQ(casync_queue_put_nowait(&queue, &items[16]), -ENOMEM);
    EQ(queue.unfinished, 16);
    EQ(get(), 0);
    put(17); /* there is room again */
    fail_no_allocation();
    put(18);
    for (i = 1; i < 16; i++) EQ(get(), i);
    EQ(get(), 17);
    EQ(get(), 18);
    casync_queue_close(&queue);
    desc.maxsize = 1;
    fail_allocation(1, 0);
    EQ(casync_queue_init(&loop, &queue, &desc), -ENOMEM);
    close_all();
}

TEST_BOTH(queue_put_without_memory) {
    waiter w = ZERO;
    open_queue(CASYNC_QUEUE_FIFO, 0);
    start(&w, stackful, &on_put, "put");
    fail_allocation(1, 0);
    run_turns(1);
    SAID("put=-12");
    finish(&w);
    close_all();
}

TEST_BOTH(queue_items_go_to_those_who_wait_in_their_order) {
    waiter a = ZERO, b = ZERO, c = ZERO;
    open_queue(CASYNC_QUEUE_LIFO, 1);
    start(&a, stackful, &on_get, "a");
    start(&b, stackful, &on_get, "b");
    start(&c, stackful, &on_get, "c");
    run_turns(1);
    put(1);
    put(2);
    EXPECT(casync_queue_empty(&queue));
    EQ(queue.unfinished, 2);
    run_turns(1);
    SAID("a b");
    PTR_EQ(a.item, &items[1]);
    PTR_EQ(b.item, &items[2]);
    casync_task_cancel(c.task);
    run_turns(1);
    SAID("c=-125");
    put(3);
    EQ(get(), 3);
    finish(&a);
    finish(&b);
    finish(&c);
    close_all();
}

TEST_BOTH(queue_room_goes_to_those_who_wait_in_their_order) {
    waiter a = ZERO, b = ZERO, c = ZERO;
    open_queue(CASYNC_QUEUE_FIFO, 1);
    put(0);
    a.item = &items[1];
    b.item = &items[2];
    c.item = &items[3];
    start(&a, stackful, &on_put, "a");
    start(&b, stackful, &on_put, "b");
    start(&c, stackful, &on_put, "c");
    run_turns(1);
    EQ(queue.unfinished, 1);
    EQ(get(), 0);
    EXPECT(casync_queue_full(&queue)); /* by a's item, which has not run yet */
    EQ(casync_queue_put_nowait(&queue, &items[4]), -EAGAIN);
    EQ(queue.unfinished, 2);
    run_turns(1);
    SAID("a");
    EQ(casync_task_cancel(b.task), 1);
    EQ(get(), 1);
    EQ(get(), 3);
    expect_empty(-EAGAIN);
    run_turns(1);
    SAID("b=-125 c");
    finish(&a);
    finish(&b);
    finish(&c);
    close_all();
}

/* Each put is a get of the other's: a queue of one between two tasks. */
static int64_t puts_numbers(casync_loop *where, void *count) {
    intptr_t i;
    (void)where;
    for (i = 0; i < (intptr_t)count; i++) EQ(casync_queue_put(&queue, &items[i % 100]), 0);
    return 0;
}
static int64_t gets_numbers(casync_loop *where, void *count) {
    intptr_t i;
    void *item;
    (void)where;
    for (i = 0; i < (intptr_t)count; i++) {
        EQ(casync_queue_get(&queue, &item), 0);
        PTR_EQ(item, &items[i % 100]);
        EQ(casync_queue_task_done(&queue), 0);
    }
    return 0;
}

IN_TASK(queue_between_two_tasks) {
    casync_task_group tasks;
    bounded_queue(1);
    EQ(casync_task_group_begin(&tasks), 0);
    EXPECT(casync_task_group_spawn(&tasks, puts_numbers, MILLISECONDS(500)));
    EXPECT(casync_task_group_spawn(&tasks, gets_numbers, MILLISECONDS(500)));
    EQ(casync_task_group_end(&tasks, 0), 0);
    EQ(casync_queue_join(&queue), 0);
    casync_queue_close(&queue);
}

IN_TASK(queue_with_time_limits) {
    void *item = &queue;
    bounded_queue(1);
    EQ(casync_queue_get_timeout(&queue, &item, CASYNC_MS(10)), -ETIMEDOUT);
    EQ(casync_queue_get_timeout(&queue, &item, 0), -ETIMEDOUT);
    PTR_EQ(item, &queue);
    EQ(casync_queue_put_timeout(&queue, &items[0], 0), 0);
    EQ(casync_queue_put_timeout(&queue, &items[1], CASYNC_MS(10)), -ETIMEDOUT);
    EQ(casync_queue_put_timeout(&queue, &items[1], 0), -ETIMEDOUT);
    EQ(casync_time(&loop), CASYNC_MS(20));
    EQ(casync_queue_qsize(&queue), 1);
    EQ(casync_queue_get_timeout(&queue, &item, 0), 0);
    PTR_EQ(item, &items[0]);
    EXPECT(nobody_waits(&queue.getters) && nobody_waits(&queue.putters));
    EQ(queue.unfinished, 1);
    casync_queue_close(&queue);
}

TEST_BOTH(queue_join_waits_for_task_done) {
    waiter w = ZERO, again = ZERO;
    open_queue(CASYNC_QUEUE_FIFO, 0);
    EQ(casync_queue_task_done(&queue), CASYNC_INVALID_STATE);
    put(1);
    put(2);
    start(&w, stackful, &on_join, "joined");
    run_turns(1);
    EQ(get(), 1);
    EQ(get(), 2);
    EQ(casync_queue_task_done(&queue), 0);
    run_turns(2);
    SAID("");
    EQ(casync_queue_task_done(&queue), 0);
    run_turns(1);
    SAID("joined");
    EQ(casync_queue_task_done(&queue), CASYNC_INVALID_STATE);
    start(&again, stackful, &on_join, "at once");
    run_turns(1);
    SAID("at once");
    finish(&w);
    finish(&again);
    close_all();
}

TEST_BOTH(queue_shutdown_of_an_empty_queue) {
    waiter getter = ZERO, later = ZERO, putter = ZERO, joiner = ZERO;
    open_queue(CASYNC_QUEUE_FIFO, 1);
    start(&getter, stackful, &on_get, "get");
    run_turns(1);
    casync_queue_shutdown(&queue, false);
    run_turns(1);
    SAID("get=-5005");
    start(&later, stackful, &on_get, "get");
    start(&putter, stackful, &on_put, "put");
    start(&joiner, stackful, &on_join, "join");
    run_turns(1);
    SAID("get=-5005 put=-5005 join");
    EQ(casync_queue_put_nowait(&queue, &items[1]), CASYNC_QUEUE_SHUT_DOWN);
    expect_empty(CASYNC_QUEUE_SHUT_DOWN);
    finish(&getter);
    finish(&later);
    finish(&putter);
    finish(&joiner);
    close_all();
}

TEST_BOTH(queue_shutdown_leaves_what_is_in_it) {
    waiter joiner = ZERO, putter = ZERO, getter = ZERO;
    open_queue(CASYNC_QUEUE_FIFO, 1);
    put(1);
    start(&joiner, stackful, &on_join, "join");
    start(&putter, stackful, &on_put, "put");
    run_turns(1);
    casync_queue_shutdown(&queue, false);
    EQ(casync_queue_qsize(&queue), 1);
    run_turns(1);
    SAID("put=-5005");
    start(&getter, stackful, &on_get, "get");
    run_turns(1);
    SAID("get");
    PTR_EQ(getter.item, &items[1]);
    expect_empty(CASYNC_QUEUE_SHUT_DOWN);
    EQ(casync_queue_task_done(&queue), 0);
    run_turns(1);
    SAID("join");
    EQ(casync_queue_task_done(&queue), CASYNC_INVALID_STATE);
    finish(&joiner);
    finish(&putter);
    finish(&getter);
    close_all();
}

TEST_BOTH(queue_immediate_shutdown_drops_what_is_in_it) {
    waiter joiner = ZERO;
    open_queue(CASYNC_QUEUE_FIFO, 0);
    put(1);
    put(2);
    put(3);
    EQ(get(), 1);
    start(&joiner, stackful, &on_join, "join");
    run_turns(1);
    casync_queue_shutdown(&queue, true);
    EQ(casync_queue_qsize(&queue), 0);
    EQ(queue.unfinished, 1); /* what was got is still worked on */
    expect_empty(CASYNC_QUEUE_SHUT_DOWN);
    run_turns(1);
    SAID("");
    EQ(casync_queue_task_done(&queue), 0);
    run_turns(1);
    SAID("join");
    finish(&joiner);
    close_all();
}

TEST(queue_task_done_before_get_and_immediate_shutdown) {
    open_queue(CASYNC_QUEUE_FIFO, 0);
    put(1);
    EQ(casync_queue_task_done(&queue), 0);
    casync_queue_shutdown(&queue, true);
    EQ(queue.unfinished, 0);
    EXPECT(casync_queue_empty(&queue));
    close_all();
}

/* Waits on two queues: the one that came is taken, the other keeps what it has. */
IN_TASK(select_over_queues_loses_nothing) {
    casync_queue other = ZERO;
    casync_op ops[2];
    casync_waiter waiters[2];
    void *item;
    memset((void *)waiters, 0, sizeof waiters);
    EQ(casync_queue_put_nowait(&other, &items[5]), 0);
    waiters[0].future = casync_queue_get_op(&queue, &ops[0]);
    waiters[1].future = casync_queue_get_op(&other, &ops[1]);
    EQ(casync_select(waiters, 2, CASYNC_FOREVER), 1);
    PTR_EQ(ops[1].future.ptr, &items[5]);
    EQ(casync_future_result(&ops[0].future), -ECANCELED);
    EQ(casync_queue_put_nowait(&queue, &items[6]), 0);
    EQ(casync_queue_get(&queue, &item), 0);
    PTR_EQ(item, &items[6]);
    casync_queue_close(&queue);
    casync_queue_close(&other);
}

/* >> random schedules ------------------------------------------------------------------------- */

enum { OPERATIONS = 24 };
static casync_op operations[OPERATIONS];
static bool active[OPERATIONS], is_put[OPERATIONS];
static intptr_t next_item, expected_item; /* items are numbers here, from 1 */
static intptr_t waiting_item[OPERATIONS];

/* Puts in the order in which they took effect. */
static intptr_t order_in[1 << 16];
static int order_size;

static void got(void *item) {
    EXPECT(expected_item < order_size);
    EQ((intptr_t)item, order_in[expected_item]);
    expected_item++;
}

/* Operations on a queue of three are started, cancelled and seen through at random. Every item
   whose put took effect is got once, in order; the others never. */
static void queue_step(void) {
    int i = (int)random_below(OPERATIONS);
    bool was_active = active[i];
    if (!was_active) {
        is_put[i] = random_below(2) == 0;
        active[i] = true;
        if (is_put[i]) {
            waiting_item[i] = ++next_item;
            casync_queue_put_op(&queue, &operations[i], (void *)next_item);
        } else {
            casync_queue_get_op(&queue, &operations[i]);
        }
    } else if (random_below(3) == 0) {
        bool done = casync_future_done(&operations[i].future);
        EQ(casync_future_cancel(&operations[i].future), !done);
        active[i] = false;
        if (!done) return;
        active[i] = true; /* its effect stands; it is looked at when its turn comes */
    }
}

/* The ring's invariants. */
static void check_queue(void) {
    int getters = 0, putters = 0, i;
    for (i = 0; i < OPERATIONS; i++)
        if (active[i] && !casync_future_done(&operations[i].future))
            (is_put[i] ? putters++ : getters++);
    EXPECT(getters == 0 || casync_queue_empty(&queue));
    EXPECT(putters == 0 || casync_queue_full(&queue));
}

/* FIFO holds for items, by their numbers of arrival: puts wait in order and are done in order. */
static void collect(void) {
    int i, best;
    do { /* puts that took effect, in the order of their numbers */
        best = -1;
        for (i = 0; i < OPERATIONS; i++)
            if (active[i] && is_put[i] && casync_future_done(&operations[i].future) &&
                (best < 0 || waiting_item[i] < waiting_item[best]))
                best = i;
        if (best >= 0) {
            EQ(casync_future_result(&operations[best].future), 0);
            order_in[order_size++] = waiting_item[best];
            active[best] = false;
        }
    } while (best >= 0);
    do { /* gets that took effect, by the least item */
        best = -1;
        for (i = 0; i < OPERATIONS; i++)
            if (active[i] && !is_put[i] && casync_future_done(&operations[i].future) &&
                (best < 0 ||
                 (intptr_t)operations[i].future.ptr < (intptr_t)operations[best].future.ptr))
                best = i;
        if (best >= 0) {
            got(operations[best].future.ptr);
            active[best] = false;
        }
    } while (best >= 0);
}

static void random_queue(void *arg) {
    int n, rounds = test_quick ? 2000 : 60000;
    (void)arg;
    bounded_queue(3);
    for (n = 0; n < rounds; n++) {
        queue_step();
        check_queue();
        if (random_below(4) == 0) collect();
    }
    for (n = 0; n < OPERATIONS; n++)
        if (active[n] && casync_future_cancel(&operations[n].future)) active[n] = false;
    collect();
    while (!casync_queue_empty(&queue)) got(get_nowait());
    EQ(expected_item, order_size);
    EQ(queue.unfinished, order_size);
    EXPECT(expected_item > rounds / 10);
}

TEST(random_schedule_of_a_queue) {
    open_all();
    EQ(casync_call_soon(&loop, NULL, random_queue, NULL), 0);
    run_turns(1);
    close_all();
}

enum { TASKS = 30 };
static int holders, readers_in, writers_in;

/* Tasks of both kinds acquire, hold for a while, release, and are cancelled at any time. */
static int64_t holds_for_a_while(casync_loop *where, void *arg) {
    int64_t result = 0;
    (void)where;
    (void)arg;
    while (result >= 0) {
        bool writes = random_below(3) == 0;
        result = casync_lock_acquire(&lock);
        if (result < 0) break;
        EQ(++holders, 1);
        result = casync_sleep(CASYNC_MS(random_below(3)));
        holders--;
        EQ(casync_lock_release(&lock), 0);
        if (result < 0) break;
        result =
            writes ? casync_rwlock_acquire_write(&rwlock) : casync_rwlock_acquire_read(&rwlock);
        if (result < 0) break;
        *(writes ? &writers_in : &readers_in) += 1;
        EXPECT(writers_in == 0 || (writers_in == 1 && readers_in == 0));
        result = casync_sleep(CASYNC_MS(random_below(3)));
        *(writes ? &writers_in : &readers_in) -= 1;
        EQ(casync_rwlock_release(&rwlock), 0);
        if (result < 0) break;
        result = casync_semaphore_acquire(&semaphore);
        if (result < 0) break;
        result = casync_sleep(0);
        EQ(casync_semaphore_release(&semaphore), 0);
    }
    return result;
}

IN_TASK(random_cancellation_leaves_everything_free) {
    casync_task *tasks[TASKS];
    int i, n, rounds = test_quick ? 100 : 3000;
    EQ(casync_semaphore_init(&semaphore, 3, 3), 0);
    for (i = 0; i < TASKS; i++) tasks[i] = spawn(holds_for_a_while, NULL);
    for (n = 0; n < rounds; n++) {
        i = (int)random_below(TASKS);
        EQ(casync_sleep(CASYNC_MS(random_below(2))), 0);
        casync_task_cancel(tasks[i]);
        EQ(casync_join(tasks[i]), -ECANCELED);
        tasks[i] = spawn(holds_for_a_while, NULL);
    }
    for (i = 0; i < TASKS; i++) casync_task_cancel(tasks[i]);
    for (i = 0; i < TASKS; i++) EQ(casync_join(tasks[i]), -ECANCELED);
    EXPECT(!casync_lock_locked(&lock) && !rwlock.writing && rwlock.readers == 0);
    EQ(semaphore.value, 3);
    EXPECT(nobody_waits(&lock.waiting) && nobody_waits(&rwlock.waiting) &&
           nobody_waits(&semaphore.waiting));
}

/* Consumers that are cancelled at any time: what was produced is consumed, or still there. */
static int produced, consumed;

static int64_t consumes(casync_loop *where, void *arg) {
    int64_t result = 0;
    (void)where;
    (void)arg;
    for (;;) {
        EQ(casync_lock_acquire(&lock), 0);
        while (result >= 0 && produced == consumed) result = casync_condition_wait(&condition);
        EXPECT(casync_lock_locked(&lock));
        if (result >= 0) consumed++;
        EQ(casync_lock_release(&lock), 0);
        if (result < 0) return result;
    }
}

IN_TASK(random_cancellation_loses_no_notification) {
    casync_task *tasks[5];
    int i, n, rounds = test_quick ? 100 : 3000;
    casync_condition_init(&condition, &lock);
    for (i = 0; i < 5; i++) tasks[i] = spawn(consumes, NULL);
    EQ(casync_sleep(0), 0);
    for (n = 0; n < rounds; n++) {
        i = (int)random_below(5);
        EQ(casync_lock_acquire(&lock), 0);
        produced++;
        EQ(casync_condition_notify(&condition, 1), 1);
        if (random_below(2)) EQ(casync_sleep(0), 0);
        if (random_below(2)) casync_task_cancel(tasks[i]);
        EQ(casync_lock_release(&lock), 0);
        for (i = 0; i < 12; i++) EQ(casync_sleep(0), 0);
        EQ(consumed, produced);
        for (i = 0; i < 5; i++) {
            if (!casync_future_done(&tasks[i]->future)) continue;
            EQ(casync_join(tasks[i]), -ECANCELED);
            tasks[i] = spawn(consumes, NULL);
        }
        EQ(casync_sleep(0), 0);
        EQ(casync_sleep(0), 0);
    }
    for (i = 0; i < 5; i++) casync_task_cancel(tasks[i]);
    for (i = 0; i < 5; i++) EQ(casync_join(tasks[i]), -ECANCELED);
    EXPECT(!casync_lock_locked(&lock));
}

TEST_MAIN

/* >> sync primitives: what all have in common, events, barriers, wait groups, once; random
   schedules. */
#include "sync_fixture.h"

/* One of each; zeroed, as each test is a process of its own. */
static casync_event event;
static casync_wait_group group;

static int64_t event_now(waiter *w) { return (void)w, casync_event_wait(&event); }
static casync_future *event_start(waiter *w) { return casync_event_wait_op(&event, &w->op); }
static void event_block(void) { casync_event_clear(&event); }
static void event_let_go(void) {
    casync_event_set(&event);
    casync_event_clear(&event);
}
static const casync_link *event_waiting(void) { return &event.waiting; }

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

static const way on_event = {"event",      event_now, event_start,   event_block,
                             event_let_go, 0,         nothing_taken, event_waiting};
static const way on_barrier = {"barrier",      barrier_now, barrier_start, barrier_block,
                               barrier_let_go, 0,           nothing_taken, barrier_waiting};
static const way on_group = {"wait group", group_now, group_start,   group_block,
                             group_let_go, 0,         nothing_taken, group_waiting};

/* >> what all have in common ------------------------------------------------------------------ */

static int64_t lock_timeout_now(waiter *w) {
    return (void)w, casync_lock_acquire_timeout(&lock, CASYNC_SECONDS(1000));
}

static int64_t once_now(waiter *w) { return (void)w, casync_once_begin(&once); }
static casync_future *once_start(waiter *w) { return casync_once_begin_op(&once, &w->op); }
static void once_block(void) {
    casync_op op;
    EQ(casync_future_result(casync_once_begin_op(&once, &op)), 1);
}
static void once_let_go(void) { EQ(casync_once_end(&once, -EIO), 0); }
static bool once_taken(void) { return once.doing; }
static const casync_link *once_waiting(void) { return &once.waiting; }

static int64_t put_timeout_now(waiter *w) {
    return casync_queue_put_timeout(&queue, w->item, CASYNC_SECONDS(1000));
}

static int64_t get_timeout_now(waiter *w) {
    return casync_queue_get_timeout(&queue, &w->item, CASYNC_SECONDS(1000));
}

static const way on_lock_timeout = {"lock", lock_timeout_now, lock_start,  lock_block, lock_let_go,
                                    0,      lock_taken,       lock_waiting};
static const way on_once = {"once",      once_now, once_start, once_block,
                            once_let_go, 1,        once_taken, once_waiting};
static const way on_put_timeout = {
    "put to queue", put_timeout_now, put_start, put_block, put_let_go, 0, put_taken, put_waiting};
static const way on_get_timeout = {
    "get from queue", get_timeout_now, get_start, get_block, get_let_go, 0, get_taken, get_waiting};

static const way *const waits[] = {&on_event,     &on_lock,        &on_read,       &on_write,
                                   &on_condition, &on_once,        &on_semaphore,  &on_group,
                                   &on_barrier,   &on_put,         &on_get,        &on_lock_timeout,
                                   &on_join,      &on_put_timeout, &on_get_timeout};
enum { WAITS = sizeof waits / sizeof *waits };

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

TEST_ALL(waits_until_it_is_let_go) {
    waiter w = ZERO;
    how->block();
    start(&w, stackful, how, "w");
    turns(3);
    SAID("");
    EXPECT(!nobody_waits(how->waiting()));
    how->let_go();
    EXPECT(nobody_waits(how->waiting()));
    turns(1);
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
    turns(2);
    EQ(casync_task_cancel(w.task), 1);
    turns(1);
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
    turns(2);
    how->let_go();
    EQ(casync_task_cancel(w.task), 1);
    turns(2);
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
    turns(2);
    EQ(casync_task_cancel(first.task), 1);
    how->let_go();
    turns(2);
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
    turns(1);
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
    turns(2);
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
    turns(2);
    SAID("");
    casync_event_set(&event);
    EXPECT(casync_event_is_set(&event));
    turns(1);
    SAID("a b c");
    start(&w[3], stackful, &on_event, "d");
    turns(1);
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
    turns(1);
    casync_event_set(&event);
    casync_event_clear(&event);
    start(&after, stackful, &on_event, "after");
    turns(2);
    SAID("before");
    casync_event_set(&event);
    turns(1);
    SAID("after");
    finish(&before);
    finish(&after);
    close_all();
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
    turns(2);
    SAID("");
    EQ(barrier.n_waiting, 2);
    for (i = 2; i < 6; i++) start(&w[i], stackful, &on_barrier, names[i]);
    turns(2);
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
    turns(1);
    EQ(casync_task_cancel(a.task), 1);
    turns(1);
    SAID("a=-125");
    EQ(barrier.n_waiting, 0);
    EXPECT(!barrier.broken);
    start(&b, stackful, &on_barrier, "b");
    start(&c, stackful, &on_barrier, "c");
    turns(2);
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
    turns(1);
    casync_barrier_reset(&barrier);
    EXPECT(!barrier.broken);
    EQ(barrier.n_waiting, 0);
    turns(1);
    SAID("a=-5006");
    start(&b, stackful, &on_barrier, "b");
    turns(1);
    casync_barrier_abort(&barrier);
    EXPECT(barrier.broken);
    start(&c, stackful, &on_barrier, "c");
    turns(1);
    SAID("b=-5006 c=-5006");
    casync_barrier_reset(&barrier);
    start(&d, stackful, &on_barrier, "d");
    turns(1);
    SAID("");
    barrier_let_go();
    turns(1);
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
    turns(1);
    SAID("nothing to do");
    finish(&a);
    EQ(casync_wait_group_add(&group, 2), 0);
    start(&a, stackful, &on_group, "a");
    start(&b, stackful, &on_group, "b");
    turns(1);
    EQ(casync_wait_group_done(&group), 0);
    turns(1);
    SAID("");
    EQ(casync_wait_group_done(&group), 0);
    turns(1);
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
    turns(1);
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

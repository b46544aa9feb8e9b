/* >> sync primitives: lock, rwlock, condition, semaphore; the meaning of asyncio's test_locks. */
#include "sync_fixture.h"

/* >> lock ------------------------------------------------------------------------------------- */

TEST_BOTH(lock_goes_to_the_first_who_waits) {
    waiter w[3];
    memset((void *)w, 0, sizeof w);
    open_all();
    start(&w[0], stackful, &on_lock, "a");
    start(&w[1], stackful, &on_lock, "b");
    start(&w[2], stackful, &on_lock, "c");
    turns(2);
    SAID("a");
    EQ(casync_lock_release(&lock), 0);
    EXPECT(casync_lock_locked(&lock)); /* b's, who has not run yet */
    EQ(casync_lock_try_acquire(&lock), -EAGAIN);
    turns(1);
    SAID("b");
    EQ(casync_lock_release(&lock), 0);
    EQ(casync_lock_release(&lock), 0); /* in the name of c */
    EXPECT(!casync_lock_locked(&lock));
    EQ(casync_lock_release(&lock), CASYNC_INVALID_STATE);
    turns(1);
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
    turns(1);
    EQ(casync_task_cancel(b.task), 1);
    EQ(casync_lock_release(&lock), 0);
    turns(1);
    SAID("b=-125 c");
    EQ(casync_task_cancel(d.task), 1);
    turns(1);
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
    turns(2);
    SAID("locked");
    lock_let_go();
    turns(1);
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
    turns(2);
    SAID("r0 r1");
    EQ(rwlock.readers, 2);
    EQ(casync_rwlock_try_acquire_read(&rwlock), -EAGAIN); /* behind the writer */
    rwlock_let_go();
    turns(1);
    SAID("");
    rwlock_let_go();
    turns(1);
    SAID("w2");
    EXPECT(rwlock.writing);
    EQ(casync_rwlock_try_acquire_write(&rwlock), -EAGAIN);
    rwlock_let_go();
    turns(1);
    SAID("r3 r4");
    rwlock_let_go();
    rwlock_let_go();
    turns(1);
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
    turns(2);
    SAID("");
    EQ(casync_task_cancel(writer.task), 1);
    EQ(rwlock.readers, 2);
    turns(1);
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
    turns(1);
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
    turns(2);
    SAID(""); /* the lock is not free */
    lock_let_go();
    turns(2);
    SAID("a");
    lock_let_go();
    turns(2);
    SAID("b");
    EQ(casync_condition_notify_all(&condition), 2);
    EQ(casync_condition_notify_all(&condition), 0);
    lock_let_go();
    turns(1);
    SAID("c");
    lock_let_go();
    turns(1);
    SAID("d");
    EXPECT(casync_lock_locked(&lock));
    for (i = 0; i < 4; i++) finish(&w[i]);
    close_all();
}

TEST_BOTH(condition_needs_its_lock) {
    waiter w = ZERO;
    open_all();
    start(&w, stackful, &on_condition, "without");
    turns(1);
    SAID("without=-5004"); /* not even initialised */
    finish(&w);
    EQ(casync_condition_notify(&condition, 1), CASYNC_INVALID_STATE);
    casync_condition_init(&condition, &lock);
    start(&w, stackful, &on_condition, "unlocked");
    turns(1);
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
    turns(3);
    SAID("");
    EQ(casync_condition_notify_all(&condition), 0);
    lock_let_go();
    EXPECT(casync_lock_locked(&lock));
    turns(1);
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
    turns(1);
    SAID("");
    lock_let_go();
    turns(1);
    SAID("a=-125");
    lock_let_go();
    turns(1);
    SAID("b");
    EQ(casync_condition_notify(&condition, 1), 1);
    lock_let_go();
    turns(1);
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
    turns(1);
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
    turns(1);
    EQ(casync_condition_notify(&condition, 1), 1);
    lock_let_go();
    turns(1);
    SAID("lock"); /* it came first */
    lock_let_go();
    turns(1);
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
    turns(1);
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
    turns(2);
    SAID("a b");
    semaphore_let_go();
    EQ(casync_semaphore_try_acquire(&semaphore), -EAGAIN); /* it is c's */
    turns(1);
    SAID("c");
    semaphore_let_go();
    semaphore_let_go();
    semaphore_let_go();
    EQ(semaphore.value, 2);
    turns(1);
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
    turns(1);
    casync_task_cancel(w[0].task);
    casync_task_cancel(w[1].task);
    semaphore_let_go();
    turns(2);
    SAID("a=-125 b=-125 c");
    casync_task_cancel(w[3].task);
    turns(1);
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

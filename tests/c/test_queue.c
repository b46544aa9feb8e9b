/* >> sync primitives: queue; the meaning of asyncio's test_queues. */
#include "sync_fixture.h"

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
    turns(1);
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
    turns(1);
    put(1);
    put(2);
    EXPECT(casync_queue_empty(&queue));
    EQ(queue.unfinished, 2);
    turns(1);
    SAID("a b");
    PTR_EQ(a.item, &items[1]);
    PTR_EQ(b.item, &items[2]);
    casync_task_cancel(c.task);
    turns(1);
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
    turns(1);
    EQ(queue.unfinished, 1);
    EQ(get(), 0);
    EXPECT(casync_queue_full(&queue)); /* by a's item, which has not run yet */
    EQ(casync_queue_put_nowait(&queue, &items[4]), -EAGAIN);
    EQ(queue.unfinished, 2);
    turns(1);
    SAID("a");
    EQ(casync_task_cancel(b.task), 1);
    EQ(get(), 1);
    EQ(get(), 3);
    expect_empty(-EAGAIN);
    turns(1);
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
    turns(1);
    EQ(get(), 1);
    EQ(get(), 2);
    EQ(casync_queue_task_done(&queue), 0);
    turns(2);
    SAID("");
    EQ(casync_queue_task_done(&queue), 0);
    turns(1);
    SAID("joined");
    EQ(casync_queue_task_done(&queue), CASYNC_INVALID_STATE);
    start(&again, stackful, &on_join, "at once");
    turns(1);
    SAID("at once");
    finish(&w);
    finish(&again);
    close_all();
}

TEST_BOTH(queue_shutdown_of_an_empty_queue) {
    waiter getter = ZERO, later = ZERO, putter = ZERO, joiner = ZERO;
    open_queue(CASYNC_QUEUE_FIFO, 1);
    start(&getter, stackful, &on_get, "get");
    turns(1);
    casync_queue_shutdown(&queue, false);
    turns(1);
    SAID("get=-5005");
    start(&later, stackful, &on_get, "get");
    start(&putter, stackful, &on_put, "put");
    start(&joiner, stackful, &on_join, "join");
    turns(1);
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
    turns(1);
    casync_queue_shutdown(&queue, false);
    EQ(casync_queue_qsize(&queue), 1);
    turns(1);
    SAID("put=-5005");
    start(&getter, stackful, &on_get, "get");
    turns(1);
    SAID("get");
    PTR_EQ(getter.item, &items[1]);
    expect_empty(CASYNC_QUEUE_SHUT_DOWN);
    EQ(casync_queue_task_done(&queue), 0);
    turns(1);
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
    turns(1);
    casync_queue_shutdown(&queue, true);
    EQ(casync_queue_qsize(&queue), 0);
    EQ(queue.unfinished, 1); /* what was got is still worked on */
    expect_empty(CASYNC_QUEUE_SHUT_DOWN);
    turns(1);
    SAID("");
    EQ(casync_queue_task_done(&queue), 0);
    turns(1);
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

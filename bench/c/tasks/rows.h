/* rows.h - the benchmarks of tasks, written once over the `library` table, and main. */
#include "tasks.h"

enum { STACKFUL_OPS = 20000, LEAST_ROUNDS = 20 };

static uint64_t rounds, done;

static void prepare_rounds(size_t tasks) {
    rounds = STACKFUL_OPS / tasks + LEAST_ROUNDS;
    done = 0;
}

static void add(uint64_t *sum, uint64_t n) {
    if (TASK_THREADS)
        __atomic_fetch_add(sum, n, __ATOMIC_RELAXED);
    else
        *sum += n;
}

static uint64_t finish_done(size_t n) {
    (void)n;
    return done;
}

/* switch: into a coroutine and back. An operation is one of the two. */
static uint64_t switch_run(size_t n) {
    lib.switches(n);
    return 2 * n;
}

/* await: pairs of tasks. Each in turn sets the event that the other awaits, three frames below the
   task's own function, and awaits its own. So an operation is an event made, awaited and set, and
   the task stopped and let go on. There are n tasks, half of which go on in each turn: what a turn
   costs in itself does not count. */
typedef struct pair {
    void *ping, *pong;
} pair;

static pair *pairs;
static char *events;

static __attribute__((noinline)) uint64_t await_third(void *event) {
    lib.event_wait(event);
    return 1;
}
static __attribute__((noinline)) uint64_t await_second(void *event) {
    return await_third(event) + 1;
}
static __attribute__((noinline)) uint64_t await_first(void *event) {
    return await_second(event) + 1;
}

TASK(ping) {
    pair *p = arg;
    for (uint64_t i = 0; i < rounds; i++) {
        lib.event_init(p->ping);
        lib.event_set(p->pong);
        add(&done, await_first(p->ping));
    }
    TASK_END;
}

TASK(pong) {
    pair *p = arg;
    for (uint64_t i = 0; i < rounds; i++) {
        add(&done, await_first(p->pong));
        lib.event_init(p->pong);
        lib.event_set(p->ping);
    }
    TASK_END;
}

static size_t pair_count;

TASK(start_pairs) {
    (void)arg;
    for (size_t i = 0; i < pair_count; i++) {
        lib.event_init(pairs[i].pong);
        lib.spawn(ping, &pairs[i]);
        lib.spawn(pong, &pairs[i]);
    }
    TASK_END;
}

static void await_prepare(size_t n) {
    prepare_rounds(n);
    pair_count = n / 2;
    pairs = (pair *)make_handles(pair_count, sizeof(pair));
    events = make_handles(n, lib.event_size);
    for (size_t i = 0; i < pair_count; i++) {
        pairs[i].ping = events + 2 * i * lib.event_size;
        pairs[i].pong = events + (2 * i + 1) * lib.event_size;
    }
}

static uint64_t await_run(size_t n) {
    (void)n;
    lib.run(start_pairs, NULL);
    return rounds * 2 * pair_count;
}

static uint64_t await_finish(size_t n) {
    (void)n;
    free(pairs);
    free(events);
    return done;
}

/* spawn: n tasks that end when they run, and so on: their stacks were used before. */
TASK(count_itself) {
    (void)arg;
    add(&done, 1);
    TASK_END;
}

TASK(spawn_all) {
    size_t n = *(size_t *)arg;
    for (uint64_t i = 0; i < rounds; i++) {
        for (size_t k = 0; k < n; k++) lib.spawn(count_itself, NULL);
        while (done < (i + 1) * n) lib.yield();
    }
    TASK_END;
}

static uint64_t spawn_run(size_t n) {
    lib.run(spawn_all, &n);
    return n * rounds;
}

/* gather: n tasks begun and waited for together. */
static char *gathered;

TASK(gather_one) {
    ++*(uint64_t *)arg;
    TASK_END;
}

TASK(gather_all) {
    size_t n = *(size_t *)arg;
    for (uint64_t i = 0; i < rounds; i++) lib.gather(gather_one, gathered, sizeof(uint64_t), n);
    TASK_END;
}

static void gather_prepare(size_t n) {
    prepare_rounds(n);
    gathered = make_handles(n, sizeof(uint64_t));
}

static uint64_t gather_run(size_t n) {
    lib.run(gather_all, &n);
    return n * rounds;
}

static uint64_t gather_finish(size_t n) {
    for (size_t i = 0; i < n; i++) done += ((uint64_t *)gathered)[i];
    free(gathered);
    return done;
}

/* queue: n queues of one item, a producer and a consumer each. */
static char *queues;

TASK(produce) {
    for (uint64_t i = 1; i <= rounds; i++) lib.queue_put(arg, (void *)(uintptr_t)i);
    TASK_END;
}

TASK(consume) {
    for (uint64_t i = 0; i < rounds; i++) add(&done, (uintptr_t)lib.queue_get(arg));
    TASK_END;
}

TASK(start_queues) {
    size_t n = *(size_t *)arg;
    for (size_t i = 0; i < n; i++) {
        lib.queue_init(queues + i * lib.queue_size);
        lib.spawn(consume, queues + i * lib.queue_size);
        lib.spawn(produce, queues + i * lib.queue_size);
    }
    TASK_END;
}

static void queue_prepare(size_t n) {
    prepare_rounds(n);
    queues = make_handles(n, lib.queue_size);
}

static uint64_t queue_run(size_t n) {
    lib.run(start_queues, &n);
    return n * rounds;
}

static uint64_t queue_finish(size_t n) {
    for (size_t i = 0; i < n; i++) lib.queue_close(queues + i * lib.queue_size);
    free(queues);
    return done;
}

/* lock: n locks, which two tasks each take from one another: who has one lets the others run before
   it gives it up, so each acquisition is a hand-off. */
static char *locks;

TASK(contend) {
    for (uint64_t i = 0; i < rounds; i++) {
        lib.lock_acquire(arg);
        add(&done, 1);
        lib.yield();
        lib.lock_release(arg);
    }
    TASK_END;
}

TASK(start_locks) {
    size_t n = *(size_t *)arg;
    for (size_t i = 0; i < n; i++) {
        lib.lock_init(locks + i * lib.lock_size);
        lib.spawn(contend, locks + i * lib.lock_size);
        lib.spawn(contend, locks + i * lib.lock_size);
    }
    TASK_END;
}

static void lock_prepare(size_t n) {
    prepare_rounds(n);
    locks = make_handles(n, lib.lock_size);
}

static uint64_t lock_run(size_t n) {
    lib.run(start_locks, &n);
    return 2 * n * rounds;
}

static uint64_t lock_finish(size_t n) {
    (void)n;
    free(locks);
    return done;
}

/* live: n tasks wait at the same time, each for an event of its own. */
static long long resident(void) {
    long long kilobytes, sum = 0;
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    bench_check(status != NULL, "/proc/self/status");
    while (fgets(line, sizeof line, status))
        if (sscanf(line, "VmRSS: %lld", &kilobytes) == 1 ||
            sscanf(line, "VmPTE: %lld", &kilobytes) == 1)
            sum += kilobytes;
    fclose(status);
    return sum * 1024;
}

static uint64_t living;

TASK(live) {
    add(&living, 1);
    lib.event_wait(arg);
    add(&done, 1);
    TASK_END;
}

TASK(start_live) {
    size_t n = *(size_t *)arg;
    for (size_t i = 0; i < n; i++) {
        lib.event_init(events + i * lib.event_size);
        lib.spawn(live, events + i * lib.event_size);
    }
    while (living < n) lib.yield();
    occupied += resident();
    for (size_t i = 0; i < n; i++) lib.event_set(events + i * lib.event_size);
    while (done < n) lib.yield();
    TASK_END;
}

static void live_prepare(size_t n) {
    events = make_handles(n, lib.event_size);
    done = living = 0;
    occupied = -resident();
}

static uint64_t live_run(size_t n) {
    lib.run(start_live, &n);
    return n;
}

static uint64_t live_finish(size_t n) {
    (void)n;
    free(events);
    return done;
}

/* step: n stackless tasks let each other run, again and again. */
static char *steppers;

static void step_prepare(size_t n) {
    rounds = 20 * STACKFUL_OPS / n;
    steppers = make_handles(n, lib.stepper_size);
}

static uint64_t step_run(size_t n) {
    for (size_t i = 0; i < n; i++) lib.stepper_start(steppers + i * lib.stepper_size, rounds);
    lib.steppers_run();
    return n * rounds;
}

static uint64_t step_finish(size_t n) {
    uint64_t left = 0;
    for (size_t i = 0; i < n; i++) left += lib.stepper_left(steppers + i * lib.stepper_size);
    free(steppers);
    return left;
}

/* live_stackless: n of them, ten steps each. */
static void live_stackless_prepare(size_t n) {
    occupied = -resident();
    steppers = make_handles(n, lib.stepper_size);
}

static uint64_t live_stackless_run(size_t n) {
    for (size_t i = 0; i < n; i++) lib.stepper_start(steppers + i * lib.stepper_size, 10);
    occupied += resident();
    lib.steppers_run();
    return n;
}

static const row rows[] = {
    {"switch", prepare_rounds, switch_run, finish_done, false, false},
    {"await", await_prepare, await_run, await_finish, TASK_THREADS, false},
    {"spawn", prepare_rounds, spawn_run, finish_done, TASK_THREADS, false},
    {"gather", gather_prepare, gather_run, gather_finish, TASK_THREADS, false},
    {"queue", queue_prepare, queue_run, queue_finish, TASK_THREADS, false},
    {"lock", lock_prepare, lock_run, lock_finish, TASK_THREADS, false},
    {"live", live_prepare, live_run, live_finish, TASK_THREADS, true},
    {"step", step_prepare, step_run, step_finish, false, false},
    {"live_stackless", live_stackless_prepare, live_stackless_run, step_finish, false, true},
};

int main(void) {
    answer(rows, sizeof rows / sizeof *rows);
    return 0;
}

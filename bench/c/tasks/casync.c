/* casync.c - casync's tasks behind the `library` table. */
#define CASYNC_IMPLEMENTATION
#define CASYNC_STATIC
#include "../../../casync.h"

#define TASK(name) static int64_t name(casync_loop *running_loop, void *arg)
#define TASK_END return (void)running_loop, 0
#define TASK_THREADS false
typedef casync_coroutine task_function;

#include "tasks.h"

static casync_loop loop;

static void need_loop(void) {
    static bool made;
    if (!made) bench_check(casync_loop_init(&loop, NULL) == 0, "casync_loop_init");
    made = true;
}

static void spawn(task_function function, void *arg) {
    casync_task *task = casync_spawn(&loop, function, arg);
    bench_check(task != NULL, "casync_spawn");
    casync_task_release(task);
}

static void run(task_function function, void *arg) {
    need_loop();
    spawn(function, arg);
    bench_check(casync_run_until_idle(&loop) == 0, "casync_run_until_idle");
}

static void yield(void) { casync_ignore(casync_sleep(0)); }

static void event_init(void *event) {
    casync_future_close(event); /* of the wait before */
    casync_future_init(&loop, event);
}
static void event_wait(void *event) { casync_ignore(casync_await(event)); }
static void event_set(void *event) { casync_future_set_result(event, 0, NULL); }

static void gather(task_function function, char *args, size_t size, size_t n) {
    static casync_waiter waiters[GATHERED];
    for (size_t i = 0; i < n; i++)
        waiters[i].future = &casync_spawn(&loop, function, args + i * size)->future;
    bench_check(casync_gather(waiters, n, CASYNC_FIRST_ERROR) == 0, "casync_gather");
    for (size_t i = 0; i < n; i++) casync_task_release((casync_task *)waiters[i].future);
}

static void queue_init(void *queue) {
    casync_queue_desc desc = {.maxsize = 1};
    bench_check(casync_queue_init(&loop, queue, &desc) == 0, "casync_queue_init");
}
static void queue_close(void *queue) { casync_queue_close(queue); }
static void queue_put(void *queue, void *item) { casync_ignore(casync_queue_put(queue, item)); }
static void *queue_get(void *queue) {
    void *item = NULL;
    casync_ignore(casync_queue_get(queue, &item));
    return item;
}

static void lock_init(void *lock) { (void)lock; }
static void lock_acquire(void *lock) { casync_ignore(casync_lock_acquire(lock)); }
static void lock_release(void *lock) { casync_lock_release(lock); }

/* What a task's await and its wake do with stacks, alone. */
static volatile bool bouncing;

static int64_t bounce(casync_loop *l, void *arg) {
    (void)l;
    while (bouncing) casync__fiber_suspend(*(casync__fiber **)arg);
    return 0;
}

static void switches(uint64_t n) {
    casync__fiber *fiber;
    int64_t result;
    need_loop();
    casync_task *task = casync_spawn(&loop, bounce, &fiber);
    fiber = casync__fiber_of(task);
    bouncing = true;
    for (uint64_t i = 0; i < n; i++) casync__fiber_resume(fiber, loop.exceptions, &result);
    bouncing = false;
    casync_task_release(task);
    casync_run_until_idle(&loop);
}

typedef struct stepper {
    casync_task task;
    uint64_t left;
} stepper;

static int64_t step(casync_task *task) {
    stepper *s = (stepper *)task;
    int64_t result;
    CASYNC_BEGIN(task);
    while (s->left > 0) {
        s->left--;
        CASYNC_YIELD(task, result);
        if (result < 0) return result;
    }
    CASYNC_END(task, 0);
}

static void stepper_start(void *memory, uint64_t steps) {
    need_loop();
    ((stepper *)memory)->left = steps;
    casync_task_start(&loop, memory, step);
}

static void steppers_run(void) { casync_run_until_idle(&loop); }
static uint64_t stepper_left(const void *memory) { return ((const stepper *)memory)->left; }

static const library lib = {
    .run = run,
    .spawn = spawn,
    .yield = yield,
    .event_size = sizeof(casync_future),
    .event_init = event_init,
    .event_wait = event_wait,
    .event_set = event_set,
    .gather = gather,
    .queue_size = sizeof(casync_queue),
    .queue_init = queue_init,
    .queue_close = queue_close,
    .queue_put = queue_put,
    .queue_get = queue_get,
    .lock_size = sizeof(casync_lock),
    .lock_init = lock_init,
    .lock_acquire = lock_acquire,
    .lock_release = lock_release,
    .switches = switches,
    .stepper_size = sizeof(stepper),
    .stepper_start = stepper_start,
    .steppers_run = steppers_run,
    .stepper_left = stepper_left,
};

#include "rows.h"

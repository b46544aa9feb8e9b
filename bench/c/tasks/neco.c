/* neco.c - neco's coroutines behind the `library` table. */
#include <neco.h>

/* neco gives a coroutine its arguments as main has them. */
#define TASK(name)                                                                                 \
    static void name##_body(void *arg);                                                            \
    static void name(int argc, void *argv[]) {                                                     \
        (void)argc;                                                                                \
        name##_body(argv[0]);                                                                      \
    }                                                                                              \
    static void name##_body(void *arg)
#define TASK_END return
#define TASK_THREADS false
typedef void (*task_function)(int argc, void *argv[]);

#include "tasks.h"

static void spawn(task_function function, void *arg) {
    bench_check(neco_start(function, 1, arg) == NECO_OK, "neco_start");
}

static void yield(void) { neco_yield(); }

typedef struct event {
    int64_t waiter;
    bool set;
} event;

static void event_init(void *e) { *(event *)e = (event){0}; }

static void event_wait(void *memory) {
    event *e = memory;
    if (e->set) return;
    e->waiter = neco_getid();
    neco_suspend();
}

static void event_set(void *memory) {
    event *e = memory;
    e->set = true;
    if (e->waiter) neco_resume(e->waiter);
}

static void gathered_main(int argc, void *argv[]) {
    task_function *function = argv[0];
    (*function)(argc - 2, argv + 2);
    neco_waitgroup_done(argv[1]);
}

static void gather(task_function function, char *args, size_t size, size_t n) {
    neco_waitgroup group;
    neco_waitgroup_init(&group);
    neco_waitgroup_add(&group, (int)n);
    for (size_t i = 0; i < n; i++) neco_start(gathered_main, 3, &function, &group, args + i * size);
    neco_waitgroup_wait(&group);
}

static void queue_init(void *queue) {
    bench_check(neco_chan_make(queue, sizeof(void *), 1) == NECO_OK, "neco_chan_make");
}
static void queue_put(void *queue, void *item) { neco_chan_send(*(neco_chan **)queue, &item); }
static void *queue_get(void *queue) {
    void *item = NULL;
    neco_chan_recv(*(neco_chan **)queue, &item);
    return item;
}
static void queue_close(void *queue) { neco_chan_release(*(neco_chan **)queue); }

static void lock_init(void *lock) { neco_mutex_init(lock); }
static void lock_acquire(void *lock) { neco_mutex_lock(lock); }
static void lock_release(void *lock) { neco_mutex_unlock(lock); }

static const library lib = {
    .run = spawn, /* outside of a coroutine it returns when all have ended */
    .spawn = spawn,
    .yield = yield,
    .event_size = sizeof(event),
    .event_init = event_init,
    .event_wait = event_wait,
    .event_set = event_set,
    .gather = gather,
    .queue_size = sizeof(neco_chan *),
    .queue_init = queue_init,
    .queue_close = queue_close,
    .queue_put = queue_put,
    .queue_get = queue_get,
    .lock_size = sizeof(neco_mutex),
    .lock_init = lock_init,
    .lock_acquire = lock_acquire,
    .lock_release = lock_release,
};

#include "rows.h"

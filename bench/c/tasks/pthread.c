/* pthread.c - threads in the place of tasks: what the kernel's scheduler and condition variables
   cost. */
#include <pthread.h>
#include <sched.h>

#define TASK(name) static void *name(void *arg)
#define TASK_END return NULL
#define TASK_THREADS true
typedef void *(*task_function)(void *arg);

#include "tasks.h"

static pthread_t start(task_function function, void *arg) {
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 * 1024);
    bench_check(pthread_create(&thread, &attributes, function, arg) == 0, "pthread_create");
    pthread_attr_destroy(&attributes);
    return thread;
}

/* What is spawned counts, so that run can tell when all have ended. */
typedef struct spawned {
    task_function function;
    void *arg;
} spawned;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static size_t running;

static void *spawned_main(void *memory) {
    spawned s = *(spawned *)memory;
    free(memory);
    s.function(s.arg);
    pthread_mutex_lock(&mutex);
    if (--running == 0) pthread_cond_signal(&ended);
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static void spawn(task_function function, void *arg) {
    spawned *s = malloc(sizeof *s);
    bench_check(s != NULL, "malloc");
    *s = (spawned){function, arg};
    pthread_mutex_lock(&mutex);
    running++;
    pthread_mutex_unlock(&mutex);
    pthread_detach(start(spawned_main, s));
}

static void run(task_function function, void *arg) {
    spawn(function, arg);
    pthread_mutex_lock(&mutex);
    while (running > 0) pthread_cond_wait(&ended, &mutex);
    pthread_mutex_unlock(&mutex);
}

static void yield(void) { sched_yield(); }

typedef struct event {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool set;
} event;

static void event_init(void *e) { *(event *)e = (event){0}; }

static void event_wait(void *memory) {
    event *e = memory;
    pthread_mutex_lock(&e->mutex);
    while (!e->set) pthread_cond_wait(&e->changed, &e->mutex);
    pthread_mutex_unlock(&e->mutex);
}

static void event_set(void *memory) {
    event *e = memory;
    pthread_mutex_lock(&e->mutex);
    e->set = true;
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->mutex);
}

static void gather(task_function function, char *args, size_t size, size_t n) {
    static pthread_t threads[GATHERED];
    for (size_t i = 0; i < n; i++) threads[i] = start(function, args + i * size);
    for (size_t i = 0; i < n; i++) pthread_join(threads[i], NULL);
}

/* Of one item. */
typedef struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t filled, emptied;
    void *item;
} queue;

static void queue_init(void *q) { *(queue *)q = (queue){0}; }
static void queue_close(void *q) { (void)q; }

static void queue_put(void *memory, void *item) {
    queue *q = memory;
    pthread_mutex_lock(&q->mutex);
    while (q->item) pthread_cond_wait(&q->emptied, &q->mutex);
    q->item = item;
    pthread_cond_signal(&q->filled);
    pthread_mutex_unlock(&q->mutex);
}

static void *queue_get(void *memory) {
    queue *q = memory;
    pthread_mutex_lock(&q->mutex);
    while (!q->item) pthread_cond_wait(&q->filled, &q->mutex);
    void *item = q->item;
    q->item = NULL;
    pthread_cond_signal(&q->emptied);
    pthread_mutex_unlock(&q->mutex);
    return item;
}

/* Served in the order of the tickets, which a mutex alone is not. */
typedef struct lock {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint64_t next, serving;
} lock;

static void lock_init(void *l) { *(lock *)l = (lock){0}; }

static void lock_acquire(void *memory) {
    lock *l = memory;
    pthread_mutex_lock(&l->mutex);
    uint64_t ticket = l->next++;
    while (l->serving != ticket) pthread_cond_wait(&l->changed, &l->mutex);
    pthread_mutex_unlock(&l->mutex);
}

static void lock_release(void *memory) {
    lock *l = memory;
    pthread_mutex_lock(&l->mutex);
    l->serving++;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->mutex);
}

static const library lib = {
    .run = run,
    .spawn = spawn,
    .yield = yield,
    .event_size = sizeof(event),
    .event_init = event_init,
    .event_wait = event_wait,
    .event_set = event_set,
    .gather = gather,
    .queue_size = sizeof(queue),
    .queue_init = queue_init,
    .queue_close = queue_close,
    .queue_put = queue_put,
    .queue_get = queue_get,
    .lock_size = sizeof(lock),
    .lock_init = lock_init,
    .lock_acquire = lock_acquire,
    .lock_release = lock_release,
};

#include "rows.h"

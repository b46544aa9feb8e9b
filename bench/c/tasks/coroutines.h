/* coroutines.h - the least of a scheduler over coroutines of our own, for the baselines that only
   bring the switch: a first-in-first-out queue of those that can run, and as minicoro has it, each
   switches to the scheduler and never to another. No timers, no files, no cancelling, no guard
   pages.

   The including file gives `context`, context_make and context_switch. */
#define TASK(name) static void name(void *arg)
#define TASK_END return
#define TASK_THREADS false
typedef void (*task_function)(void *arg);

#include "tasks.h"
#include <sys/mman.h>

enum { STACK = 64 * 1024 };

typedef struct coroutine {
    context context;
    struct coroutine *next;
    task_function function;
    void *arg;
    bool ended;
} coroutine;

typedef struct waiting {
    coroutine *first, *last;
} waiting;

static context scheduler;
static coroutine *current;
static waiting ready, pool;

static void push(waiting *w, coroutine *c) {
    c->next = NULL;
    if (w->first)
        w->last->next = c;
    else
        w->first = c;
    w->last = c;
}

static coroutine *pop(waiting *w) {
    coroutine *c = w->first;
    if (c) w->first = c->next;
    return c;
}

static void park(void) { context_switch(&current->context, &scheduler); }

static void coroutine_main(void) {
    for (;;) {
        current->function(current->arg);
        current->ended = true;
        park();
    }
}

/* At the top of a stack of its own; one that ended before is in its main's loop. */
static void spawn(task_function function, void *arg) {
    coroutine *c = pop(&pool);
    if (!c) {
        char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        bench_check(stack != MAP_FAILED, "mmap");
        c = (coroutine *)(stack + STACK) - 1;
        context_make(&c->context, stack, (size_t)((char *)c - stack), coroutine_main);
    }
    c->function = function;
    c->arg = arg;
    c->ended = false;
    push(&ready, c);
}

static void run(task_function function, void *arg) {
    spawn(function, arg);
    while ((current = pop(&ready))) {
        context_switch(&scheduler, &current->context);
        if (current->ended) push(&pool, current);
    }
}

static void yield(void) {
    push(&ready, current);
    park();
}

static void wait_in(waiting *w) {
    push(w, current);
    park();
}

static bool wake_one(waiting *w) {
    coroutine *c = pop(w);
    if (c) push(&ready, c);
    return c != NULL;
}

typedef struct event {
    waiting waiting;
    bool set;
} event;

static void event_init(void *e) { *(event *)e = (event){0}; }
static void event_wait(void *e) {
    if (!((event *)e)->set) wait_in(&((event *)e)->waiting);
}
static void event_set(void *e) {
    ((event *)e)->set = true;
    wake_one(&((event *)e)->waiting);
}

/* A gathered task tells its group when it ends. */
typedef struct member {
    task_function function;
    void *arg;
    struct group *group;
} member;

typedef struct group {
    size_t left;
    event done;
} group;

static void member_main(void *arg) {
    member *m = arg;
    m->function(m->arg);
    if (--m->group->left == 0) event_set(&m->group->done);
}

static void gather(task_function function, char *args, size_t size, size_t n) {
    static member members[GATHERED];
    group g = {n, {{0}, false}};
    for (size_t i = 0; i < n; i++) {
        members[i] = (member){function, args + i * size, &g};
        spawn(member_main, &members[i]);
    }
    event_wait(&g.done);
}

/* Of one item. */
typedef struct queue {
    waiting getters, putters;
    void *item;
} queue;

static void queue_init(void *q) { *(queue *)q = (queue){0}; }
static void queue_close(void *q) { (void)q; }
static void queue_put(void *memory, void *item) {
    queue *q = memory;
    while (q->item) wait_in(&q->putters);
    q->item = item;
    wake_one(&q->getters);
}
static void *queue_get(void *memory) {
    queue *q = memory;
    while (!q->item) wait_in(&q->getters);
    void *item = q->item;
    q->item = NULL;
    wake_one(&q->putters);
    return item;
}

typedef struct lock {
    waiting waiting;
    bool locked;
} lock;

static void lock_init(void *l) { *(lock *)l = (lock){0}; }
static void lock_acquire(void *l) {
    if (((lock *)l)->locked) wait_in(&((lock *)l)->waiting);
    ((lock *)l)->locked = true;
}
static void lock_release(void *l) { /* if somebody waits, it is his now */
    ((lock *)l)->locked = wake_one(&((lock *)l)->waiting);
}

static bool bouncing;

TASK(bounce) {
    (void)arg;
    while (bouncing) park();
    TASK_END;
}

static void switches(uint64_t n) {
    spawn(bounce, NULL);
    current = pop(&ready);
    bouncing = true;
    for (uint64_t i = 0; i < n; i++) context_switch(&scheduler, &current->context);
    bouncing = false;
    context_switch(&scheduler, &current->context);
    push(&pool, current);
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
    .switches = switches,
};

#include "rows.h"

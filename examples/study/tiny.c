/* asyncio, built from nothing, in C: read it from top to bottom, each part rests on those above it.

   Run it from the repository's root:   tcc -run examples/study/tiny.c
   What is here: jobs, timers, the loop's turn, futures, tasks, sleep, gather, sockets, periodic
   work, run. casync.h is this with the care that real programs need; tiny.py is the same in Python.

   C has no coroutines. A task here is a struct, which holds what must survive a wait, and a step
   function, which is called again and again and each time goes on where it stopped; it returns
   PENDING to wait. */
#define _POSIX_C_SOURCE 200809L
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* --- the loop: a ready queue, a list of timers, a table of descriptors ------------------------ */

/* A callback that waits for its turn, or for a time first. It is the caller's, and in one list at
   most. */
typedef struct job {
    struct job *next;
    void (*callback)(void *arg);
    void *arg;
    int64_t when;
} job;

enum { MAX_FDS = 64 };
static job *ready_jobs, **ready_end = &ready_jobs; /* a queue: in at the end, out at the front */
static job *timers;                                /* the earliest first */
static struct pollfd polled[MAX_FDS];              /* what poll(2) is asked: which descriptor,
                                                      which events */
static job *watchers[MAX_FDS];                     /* and whom to call */
static nfds_t watched;

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void call_soon(job *j) {
    j->next = NULL;
    *ready_end = j;
    ready_end = &j->next;
}

/* Behind those that are due no later: so equal times keep the order in which they were asked
   for. */
static void call_at(job *j, int64_t when) {
    job **place = &timers;
    while (*place && (*place)->when <= when) place = &(*place)->next;
    j->when = when;
    j->next = *place;
    *place = j;
}

/* Calls once, when the descriptor is ready for the events (POLLIN, POLLOUT). */
static void watch(int fd, short events, job *j) {
    polled[watched] = (struct pollfd){fd, events, 0};
    watchers[watched++] = j;
}

/* Whatever it waits for, a time or a descriptor: it does so no more. */
static void forget(job *j) {
    job **place = &timers;
    nfds_t i = 0;
    while (*place && *place != j) place = &(*place)->next;
    if (*place) *place = j->next;
    while (i < watched && watchers[i] != j) i++;
    if (i == watched) return;
    polled[i] = polled[--watched]; /* the last fills the hole */
    watchers[i] = watchers[watched];
}

/* Waits if there is nothing to do; then descriptors, then timers, then the queue as it stands: what
   these callbacks queue belongs to the next turn, so that descriptors and timers get theirs. */
static int turn(void) {
    int64_t wait = timers ? timers->when - now_ms() : -1; /* -1: for ever */
    nfds_t i;
    job *queue, *next;
    if (!ready_jobs && !timers && watched == 0) return -EDEADLK;
    if (ready_jobs || (timers && wait < 0)) wait = 0;
    if (poll(polled, watched, (int)wait) < 0 && errno != EINTR) return -errno;
    for (i = watched; i-- > 0;) { /* from the end, where forget makes no hole before us */
        if (!polled[i].revents) continue;
        call_soon(watchers[i]);
        forget(watchers[i]);
    }
    while ((next = timers) && next->when <= now_ms()) {
        timers = next->next;
        call_soon(next);
    }
    queue = ready_jobs;
    ready_jobs = NULL;
    ready_end = &ready_jobs;
    for (; queue; queue = next) {
        next = queue->next; /* first: the callback may queue its job again, or free it */
        queue->callback(queue->arg);
    }
    return 0;
}

/* --- futures: a result that is not there yet -------------------------------------------------- */

/* A result of 0 or more is a value, less than 0 an error: -errno. */
typedef struct future {
    bool done;
    int64_t result;
    job *callbacks;                  /* queued when it is done */
    void (*cancel)(struct future *); /* ends it soon with -ECANCELED; NULL: it waits for nothing
                                        itself */
} future;

static void future_set_result(future *f, int64_t result) {
    job *j, *next;
    if (f->done) return; /* it was cancelled in the turn in which its event came */
    f->done = true;
    f->result = result;
    for (j = f->callbacks; j; j = next) {
        next = j->next;
        call_soon(j);
    }
}

static void future_then(future *f, job *j) {
    job **end = &f->callbacks;
    if (f->done) {
        call_soon(j);
        return;
    }
    while (*end) end = &(*end)->next;
    j->next = NULL;
    *end = j;
}

/* --- tasks: a step function that is driven by the futures it waits for ------------------------ */

#define PENDING INT64_MIN /* what a step returns in order to wait */

typedef struct task {
    future future; /* first: a task is a future, of what its step returns in the end */
    int64_t (*step)(struct task *);
    int line;          /* where the step goes on: 0 at first, then the line of its last AWAIT */
    future *waits_for; /* NULL while it runs */
    bool must_cancel, allocated;
    job wake_up;       /* calls the step */
    struct task *next; /* in the list of those that have not ended */
} task;
static task *living;

/* The step's switch jumps over what was done already. Locals do not survive a wait: keep them in
   the struct that the task is the first member of. One AWAIT a line, for lines are the labels. */
#define BEGIN(t)                                                                                   \
    switch ((t)->line) {                                                                           \
    case 0:
#define AWAIT(t, into, a_future)                                                                   \
    do {                                                                                           \
        (t)->waits_for = (a_future);                                                               \
        (t)->line = __LINE__;                                                                      \
        return PENDING;                                                                            \
    case __LINE__:                                                                                 \
        (into) = awaited(t);                                                                       \
    } while (0)
#define END(t, result)                                                                             \
    }                                                                                              \
    return (result)

static int64_t awaited(task *t) {
    int64_t result = t->must_cancel ? -ECANCELED : t->waits_for->result;
    t->must_cancel = false;
    t->waits_for = NULL;
    return result;
}

/* Its present await, or else its next one, returns -ECANCELED. It may clean up, or even go on. */
static void task_cancel(future *f) {
    task *t = (task *)f;
    if (!t->waits_for || t->waits_for->done)
        t->must_cancel = true;
    else if (t->waits_for->cancel)
        t->waits_for->cancel(t->waits_for);
    else
        future_set_result(t->waits_for, -ECANCELED);
}

static void task_step(void *arg) {
    task *t = (task *)arg, **place = &living;
    int64_t result = t->line == 0 && t->must_cancel ? -ECANCELED : t->step(t);
    if (result == PENDING) {
        future_then(t->waits_for, &t->wake_up);
        if (t->must_cancel) task_cancel(&t->future); /* it has cancelled itself */
        return;
    }
    while (*place != t) place = &(*place)->next;
    *place = t->next;
    future_set_result(&t->future, result);
    if (t->allocated) free(t);
}

static void create_task(task *t, int64_t (*step)(task *)) {
    memset(t, 0, sizeof *t);
    t->future.cancel = task_cancel;
    t->step = step;
    t->wake_up = (job){NULL, task_step, t, 0};
    t->next = living;
    living = t;
    call_soon(&t->wake_up);
}

/* --- what tasks await ------------------------------------------------------------------------- */

/* A future with the timer, or the watched descriptor, that makes it done. */
typedef struct operation {
    future future;
    job job;
} operation;

static void operation_done(void *arg) { future_set_result(&((operation *)arg)->future, 0); }

static void operation_cancel(future *f) {
    operation *o = (operation *)f;
    forget(&o->job);
    future_set_result(f, -ECANCELED);
}

static void operation_init(operation *o) {
    memset(o, 0, sizeof *o);
    o->future.cancel = operation_cancel;
    o->job = (job){NULL, operation_done, o, 0};
}

static future *sleep_until(operation *o, int64_t when) {
    operation_init(o);
    call_at(&o->job, when);
    return &o->future;
}

/* Waits until the descriptor can be read (POLLIN) or written (POLLOUT) without blocking. */
static future *ready(operation *o, int fd, short events) {
    operation_init(o);
    if (fd < 0 || watched == MAX_FDS) future_set_result(&o->future, fd < 0 ? -EBADF : -ENOSPC);
    if (!o->future.done) watch(fd, events, &o->job);
    return &o->future;
}

/* Waits for several tasks. Its result is 0, or the first error, after which the others are
   cancelled. */
typedef struct gather {
    task task;
    task **tasks;
    int count, next, i;
    int64_t result, error;
} gather;

static int64_t gather_step(task *t) {
    gather *g = (gather *)t;
    BEGIN(t);
    for (g->next = 0; g->next < g->count; g->next++) {
        AWAIT(t, g->result, &g->tasks[g->next]->future);
        if (g->result >= 0 || g->error) continue;
        g->error = g->result;
        for (g->i = g->next; g->i < g->count; g->i++) task_cancel(&g->tasks[g->i]->future);
    }
    END(t, g->error);
}

/* Periodic work, until the task is cancelled, at multiples from the start: so the time that the
   work takes does not add up. (Page 12 skips periods that were missed; here they are made up
   for.) */
typedef struct periodic {
    task task;
    operation op;
    int64_t result, interval, when;
    void (*callback)(void);
} periodic;

static int64_t periodic_step(task *t) {
    periodic *p = (periodic *)t;
    BEGIN(t);
    for (p->when = now_ms() + p->interval;; p->when += p->interval) {
        AWAIT(t, p->result, sleep_until(&p->op, p->when));
        if (p->result < 0) break;
        p->callback();
    }
    END(t, p->result);
}

/* --- run: the whole life of a loop ------------------------------------------------------------ */

/* Runs a task to its end, then cancels what it left behind. Gives its result. */
static int64_t run(task *t, int64_t (*step)(task *)) {
    int64_t error = 0;
    task *leftover;
    create_task(t, step);
    while (!t->future.done && error == 0) error = turn();
    for (leftover = living; leftover; leftover = leftover->next) task_cancel(&leftover->future);
    while (living && error == 0) error = turn();
    return error ? error : t->future.result;
}

/* --- a program: a server, three clients and a background task, in one thread ------------------ */

typedef struct peer { /* the server, a connection of it, or a client */
    task task;
    operation op;
    int64_t result;
    int fd;
    char text[64];
} peer;

static struct sockaddr_in address = {.sin_family = AF_INET};
static int nonblocking(int fd) { return fd < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ? -1 : fd; }

static int64_t echo(task *t) {
    peer *p = (peer *)t;
    int64_t i;
    BEGIN(t);
    for (;;) {
        AWAIT(t, p->result, ready(&p->op, p->fd, POLLIN));
        if (p->result < 0 || (p->result = read(p->fd, p->text, sizeof p->text)) <= 0) break;
        for (i = 0; i < p->result; i++) p->text[i] = (char)toupper((unsigned char)p->text[i]);
        /* it does not read */
        if (send(p->fd, p->text, (size_t)p->result, MSG_NOSIGNAL) != p->result) break;
    }
    close(p->fd);
    END(t, p->result);
}

static int64_t serve(task *t) {
    peer *p = (peer *)t, *connection;
    BEGIN(t);
    for (;;) {
        AWAIT(t, p->result, ready(&p->op, p->fd, POLLIN));
        if (p->result < 0 || !(connection = calloc(1, sizeof *connection))) break;
        create_task(&connection->task, echo);
        connection->task.allocated = true;
        /* -1 if the client has gone already */
        connection->fd = nonblocking(accept(p->fd, NULL, NULL));
    }
    close(p->fd);
    END(t, p->result);
}

static int64_t client(task *t) {
    peer *p = (peer *)t;
    BEGIN(t);
    if ((p->fd = nonblocking(socket(AF_INET, SOCK_STREAM, 0))) < 0) return -errno;
    if (connect(p->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        p->result = -errno;
    /* if it failed, send says so */
    if (p->result == 0) AWAIT(t, p->result, ready(&p->op, p->fd, POLLOUT));
    if (p->result == 0 && send(p->fd, p->text, strlen(p->text), MSG_NOSIGNAL) < 0)
        p->result = -errno;
    if (p->result == 0) AWAIT(t, p->result, ready(&p->op, p->fd, POLLIN));
    if (p->result == 0 && (p->result = read(p->fd, p->text, sizeof p->text)) < 0)
        p->result = -errno;
    close(p->fd);
    END(t, p->result);
}

static int ticks;
static void tick(void) { ticks++; }

static int64_t demo(task *t) {
    static peer server, one = {.text = "one"}, two = {.text = "two"}, three = {.text = "three"};
    static task *clients[] = {&one.task, &two.task, &three.task};
    static gather all = {.tasks = clients, .count = 3};
    static periodic background = {.interval = 10, .callback = tick};
    static operation op;
    static int64_t result;
    struct sockaddr *any = (struct sockaddr *)&address;
    socklen_t size = sizeof address;
    int i;
    BEGIN(t);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.fd = nonblocking(socket(AF_INET, SOCK_STREAM, 0));
    if (bind(server.fd, any, size) < 0 || listen(server.fd, 8) < 0) return -errno;
    if (getsockname(server.fd, any, &size) < 0) return -errno;
    create_task(&background.task, periodic_step);
    create_task(&server.task, serve);
    for (i = 0; i < 3; i++) create_task(clients[i], client);
    create_task(&all.task, gather_step);
    AWAIT(t, result, &all.task.future);
    printf("gather: %d, %s %s %s\n", (int)result, one.text, two.text, three.text);
    while (ticks < 3) AWAIT(t, result, sleep_until(&op, now_ms() + 1));
    printf("the background task ticked, too\n");
    task_cancel(&background.task.future);
    END(t, result); /* and run cancels what still runs: the server */
}

int main(void) {
    static task main_task;
    int64_t result = run(&main_task, demo);
    puts(result == 0 ? "goodbye" : strerror((int)-result));
    return result != 0;
}

/* Prints:
     gather: 0, ONE TWO THREE
     the background task ticked, too
     goodbye
*/

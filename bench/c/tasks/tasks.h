/* tasks.h - what an implementation of tasks must offer to be measured.

   As in bench.h: one file each (casync.c, minicoro-style.c, ...) fills in `library` and then
   includes rows.h. A task is written TASK(name) { ... arg ...; TASK_END; } with the
   implementation's TASK and TASK_END. */
#ifndef TASKS_H
#define TASKS_H

#include "../worker.h"

enum { GATHERED = 1000 }; /* at most */

/* Events, queues and locks are made by the rows as zeroed memory of the size given. An
   implementation leaves out (NULL) what it does not have. */
typedef struct library {
    void (*run)(task_function function, void *arg); /* runs it as a task, returns when it has
                                                       ended */
    void (*spawn)(task_function function, void *arg);
    void (*yield)(void); /* lets all others run that can */

    size_t event_size;
    void (*event_init)(void *event); /* before each wait */
    void (*event_wait)(void *event);
    void (*event_set)(void *event); /* lets the task go on that waits, or will */

    void (*gather)(task_function function, char *args, size_t size,
                   size_t n); /* runs n tasks, waits for all */

    size_t queue_size; /* of one item */
    void (*queue_init)(void *queue);
    void (*queue_close)(void *queue);
    void (*queue_put)(void *queue, void *item);
    void *(*queue_get)(void *queue);

    size_t lock_size; /* fair */
    void (*lock_init)(void *lock);
    void (*lock_acquire)(void *lock);
    void (*lock_release)(void *lock);

    void (*switches)(uint64_t n); /* n times into a coroutine and back, and nothing else */

    size_t stepper_size;
    /* a stackless task that lets others run so often */
    void (*stepper_start)(void *stepper, uint64_t steps);
    void (*steppers_run)(void);                    /* until all have ended */
    uint64_t (*stepper_left)(const void *stepper); /* steps that it has yet to do */
} library;

#endif

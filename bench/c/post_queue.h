/* post_queue.h - libuv and libev wake a loop from another thread, but a burst of wakeups is one
   callback: who wants a call for each item keeps a queue behind a lock beside it, as uvloop
   does. */
#include "bench.h"

typedef struct posted {
    struct posted *next;
    void (*callback)(void *arg);
    void *arg;
} posted;

static pthread_mutex_t posted_lock = PTHREAD_MUTEX_INITIALIZER;
static posted *posted_first, **posted_last = &posted_first;

static inline void posted_push(posted *item, void (*callback)(void *arg), void *arg) {
    item->next = NULL;
    item->callback = callback;
    item->arg = arg;
    pthread_mutex_lock(&posted_lock);
    *posted_last = item;
    posted_last = &item->next;
    pthread_mutex_unlock(&posted_lock);
}

static inline void posted_run(void) {
    pthread_mutex_lock(&posted_lock);
    posted *item = posted_first;
    posted_first = NULL;
    posted_last = &posted_first;
    pthread_mutex_unlock(&posted_lock);
    for (; item; item = item->next) item->callback(item->arg);
}

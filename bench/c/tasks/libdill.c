/* libdill.c - libdill's coroutines behind the `library` table. Its only means of waiting for one
   another are channels without a buffer: they are the events and the queues here. */
#define DILL_DISABLE_RAW_NAMES
#include <libdill.h>

#define TASK(name) static __attribute__((noinline)) void name(void *arg)
#define TASK_END return
#define TASK_THREADS false
typedef void (*task_function)(void *arg);

#include "tasks.h"

static int all; /* coroutines */

static void spawn(task_function function, void *arg) {
    bench_check(dill_bundle_go(all, function(arg)) == 0, "bundle_go");
}

static void run(task_function function, void *arg) {
    all = dill_bundle();
    spawn(function, arg);
    dill_bundle_wait(all, -1);
    dill_hclose(all);
}

static void yield(void) { dill_yield(); }

typedef struct channel {
    struct dill_chstorage storage[2];
    int ends[2];
    bool made;
} channel;

static void channel_init(void *memory) {
    channel *c = memory;
    if (c->made) return;
    bench_check(dill_chmake_mem(c->storage, c->ends) == 0, "chmake_mem");
    c->made = true;
}

static void channel_send(void *channel_, void *item) {
    dill_chsend(((channel *)channel_)->ends[0], &item, sizeof item, -1);
}

static void *channel_receive(void *channel_) {
    void *item = NULL;
    dill_chrecv(((channel *)channel_)->ends[1], &item, sizeof item, -1);
    return item;
}

static void channel_close(void *channel_) {
    dill_hclose(((channel *)channel_)->ends[0]);
    dill_hclose(((channel *)channel_)->ends[1]);
}

static void event_wait(void *event) { channel_receive(event); }
static void event_set(void *event) { channel_send(event, NULL); }

static void gather(task_function function, char *args, size_t size, size_t n) {
    int group = dill_bundle();
    for (size_t i = 0; i < n; i++)
        bench_check(dill_bundle_go(group, function(args + i * size)) == 0, "bundle_go");
    dill_bundle_wait(group, -1);
    dill_hclose(group);
}

static const library lib = {
    .run = run,
    .spawn = spawn,
    .yield = yield,
    .event_size = sizeof(channel),
    .event_init = channel_init,
    .event_wait = event_wait,
    .event_set = event_set,
    .gather = gather,
    .queue_size = sizeof(channel),
    .queue_init = channel_init,
    .queue_close = channel_close,
    .queue_put = channel_send,
    .queue_get = channel_receive,
};

#include "rows.h"

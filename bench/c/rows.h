/* rows.h - the benchmarks of C loops, written once over the `library` table, and main. */
#include "worker.h"
#include <fcntl.h>
#include <semaphore.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MS ((int64_t)1000000)

static char *handles, *extra;

static void run_until(uint64_t fired) {
    bench_count = 0;
    bench_target = fired;
    lib.run();
}

static void free_handles(char *first, size_t n, size_t size) {
    if (lib.close) {
        for (size_t i = 0; i < n; i++) lib.close(first + i * size);
        lib.closed();
    }
    free(first);
}

/* Pseudo-random and the same for every library. */
static uint64_t random_below(uint64_t limit) {
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % limit;
}

/* 1 ms to two minutes, as many short ones as long ones: requests' and connections' timeouts
   together. */
static int64_t random_timeout(void) {
    int64_t shortest = MS << random_below(17);
    return shortest + (int64_t)random_below((uint64_t)shortest);
}

static char *make_timers(size_t n) {
    char *timers = make_handles(n, lib.timer_size);
    for (size_t i = 0; i < n; i++) lib.timer_init(timers + i * lib.timer_size);
    return timers;
}

/* timer_start_stop: start a batch of timers and stop it again, while n others are live. What is
   started is always the same memory, so that growth shows the structure's cost, not the cache's. */
enum { BATCH = 1000, BATCHES = 200 };
static int64_t delays[BATCH * BATCHES];

static void start_stop_prepare(size_t n) {
    handles = make_timers(n);
    extra = make_timers(BATCH);
    for (size_t i = 0; i < n; i++) lib.timer_start(handles + i * lib.timer_size, random_timeout());
    for (size_t i = 0; i < BATCH * BATCHES; i++) delays[i] = random_timeout();
}

static inline uint64_t start_stop(void (*start)(void *timer, int64_t delay)) {
    for (int batch = 0; batch < BATCHES; batch++) {
        for (size_t i = 0; i < BATCH; i++)
            start(extra + i * lib.timer_size, delays[batch * BATCH + i]);
        for (size_t i = 0; i < BATCH; i++) lib.timer_stop(extra + i * lib.timer_size);
    }
    return (uint64_t)BATCH * BATCHES;
}

static uint64_t start_stop_run(size_t n) {
    (void)n;
    return start_stop(lib.timer_start);
}

static uint64_t start_stop_from_now_run(size_t n) {
    (void)n;
    return start_stop(lib.timer_start_from_now);
}

static uint64_t start_stop_finish(size_t n) {
    uint64_t active = 0;
    for (size_t i = 0; i < BATCH; i++) active += lib.timer_active(extra + i * lib.timer_size);
    bench_check(active == 0, "a stopped timer is active");
    for (size_t i = 0; i < n; i++) {
        active += lib.timer_active(handles + i * lib.timer_size);
        lib.timer_stop(handles + i * lib.timer_size);
    }
    free_handles(handles, n, lib.timer_size);
    free_handles(extra, BATCH, lib.timer_size);
    return active;
}

/* timer_expire: n timers, all of them overdue when the loop gets to run. */
static void expire_prepare(size_t n) {
    handles = make_timers(n);
    for (size_t i = 0; i < n; i++)
        lib.timer_start(handles + i * lib.timer_size, MS + (int64_t)random_below(20 * MS));
    usleep(25000);
}

static uint64_t expire_run(size_t n) {
    run_until(n);
    return n;
}

static uint64_t expire_finish(size_t n) {
    free_handles(handles, n, lib.timer_size);
    return bench_count;
}

/* call_soon: n callbacks, the last of which queues n more, and so on. */
enum { SOON_ROUNDS = 200 };
static size_t soons;
static int soon_rounds;

static void queue_soons(void) {
    for (size_t i = 0; i < soons; i++) lib.soon(handles + i * lib.soon_size);
}

static bool soon_again(void) {
    if (++soon_rounds == SOON_ROUNDS) return false;
    bench_target += soons;
    queue_soons();
    return true;
}

static void soon_prepare(size_t n) {
    handles = make_handles(n, lib.soon_size);
    for (size_t i = 0; i < n; i++) lib.soon_init(handles + i * lib.soon_size);
    soons = n;
    soon_rounds = 0;
    bench_again = soon_again;
}

static uint64_t soon_run(size_t n) {
    queue_soons();
    run_until(n);
    return n * SOON_ROUNDS;
}

static uint64_t soon_finish(size_t n) {
    bench_again = NULL;
    free_handles(handles, n, lib.soon_size);
    return bench_count;
}

/* post: another thread, which made them, posts n callbacks while the loop runs them. */
static pthread_t poster;
static size_t posts;
static int post_ready, post_go;

static void *post_all(void *arg) {
    handles = make_handles(posts, lib.post_size);
    __atomic_store_n(&post_ready, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&post_go, __ATOMIC_ACQUIRE)) sched_yield();
    for (size_t i = 0; i < posts; i++) lib.post(handles + i * lib.post_size);
    return arg;
}

static void post_prepare(size_t n) {
    posts = n;
    post_ready = post_go = 0;
    bench_check(pthread_create(&poster, NULL, post_all, NULL) == 0, "pthread_create");
    while (!__atomic_load_n(&post_ready, __ATOMIC_ACQUIRE)) sched_yield();
}

static uint64_t post_run(size_t n) {
    __atomic_store_n(&post_go, 1, __ATOMIC_RELEASE);
    run_until(n);
    return n;
}

static uint64_t post_finish(size_t n) {
    (void)n;
    pthread_join(poster, NULL);
    free(handles);
    return bench_count;
}

/* post_asleep: another thread posts one, n times, each when the loop has called the one before and
   so is about to sleep, or does. */
static sem_t called;

static void *post_each(void *arg) {
    for (size_t i = 0; i < posts; i++) {
        lib.post(handles + i * lib.post_size);
        sem_wait(&called);
    }
    return arg;
}

static bool asleep_again(void) {
    sem_post(&called);
    return bench_target++ < posts;
}

static void asleep_prepare(size_t n) {
    posts = n;
    handles = make_handles(n, lib.post_size);
    sem_init(&called, 0, 0);
    bench_again = asleep_again;
}

static uint64_t asleep_run(size_t n) {
    bench_check(pthread_create(&poster, NULL, post_each, NULL) == 0, "pthread_create");
    run_until(1);
    return n;
}

static uint64_t asleep_finish(size_t n) {
    bench_again = NULL;
    return post_finish(n);
}

/* fd: n descriptors that stay readable; each turn dispatches all of them. */
enum { DISPATCHES = 200000 };
static int *fds;

static void fd_prepare(size_t n) {
    handles = make_handles(n, lib.watch_size);
    fds = calloc(n, sizeof *fds);
    bench_check(fds != NULL, "calloc");
    for (size_t i = 0; i < n; i++) {
        fds[i] = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
        bench_check(fds[i] >= 0, "eventfd");
        lib.watch(handles + i * lib.watch_size, fds[i]);
    }
}

static uint64_t fd_run(size_t n) {
    (void)n;
    run_until(DISPATCHES);
    return DISPATCHES;
}

static uint64_t fd_finish(size_t n) {
    for (size_t i = 0; i < n; i++) lib.unwatch(handles + i * lib.watch_size);
    for (size_t i = 0; i < n; i++) close(fds[i]);
    free_handles(handles, n, lib.watch_size);
    free(fds);
    return bench_count >= DISPATCHES;
}

/* echo_in_process: the floor of the Python row of that name. */
static void round_trips_prepare(size_t n) {
    bench_count = 0;
    bench_target = n;
}

static uint64_t round_trips_run(size_t n) {
    lib.round_trips();
    return n;
}

static uint64_t round_trips_finish(size_t n) {
    (void)n;
    return bench_count;
}

/* Not inlined: callgrind collects what runs inside it. */
static __attribute__((noinline)) void serving(void) {
    lib.run();
    exit(0);
}

/* Answers with the port, and does not return. */
static void serve_echo(size_t n) {
    (void)n;
    printf("{\"port\": %d}\n", lib.echo());
    fflush(stdout);
    serving();
}

/* read_file, look_up_name, look_up_numbers, spawn: each operation begins when the one before is
   done. spawn_large is the same in a process of 800 MiB, which a fork would copy page tables of. */
static void (*operation)(void);
static size_t operations;

static bool operation_again(void) {
    if (bench_target == operations) return false;
    bench_target++;
    operation();
    return true;
}

static void operations_prepare(size_t n) {
    operations = n;
    bench_again = operation_again;
}

static uint64_t operations_run(size_t n) {
    bench_count = 0;
    bench_target = 1;
    operation();
    lib.run();
    return n;
}

static uint64_t operations_finish(size_t n) {
    (void)n;
    bench_again = NULL;
    return bench_count;
}

static int read_fd;
static void read_once(void) { lib.read_file(read_fd); }
static void read_prepare(size_t n) {
    read_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    bench_check(read_fd >= 0, "open");
    operation = read_once;
    operations_prepare(n);
}
static uint64_t read_finish(size_t n) {
    close(read_fd);
    return operations_finish(n);
}

static void look_up_name(void) { lib.look_up("localhost"); }
static void name_prepare(size_t n) {
    operation = look_up_name;
    operations_prepare(n);
}

static void look_up_numbers(void) { lib.look_up("127.0.0.1"); }
static void numbers_prepare(size_t n) {
    operation = look_up_numbers;
    operations_prepare(n);
}

static void spawn_once(void) { lib.spawn("/bin/true"); }
static void spawn_prepare(size_t n) {
    operation = spawn_once;
    operations_prepare(n);
}

enum { LARGE = 800 << 20 };
static void spawn_large_prepare(size_t n) {
    extra = make_handles(LARGE / 4096, 4096);
    spawn_prepare(n);
}
static uint64_t spawn_large_finish(size_t n) {
    free(extra);
    return operations_finish(n);
}

static const row rows[] = {
    {"timer_start_stop", start_stop_prepare, start_stop_run, start_stop_finish, false, false},
    {"timer_start_stop_from_now", start_stop_prepare, start_stop_from_now_run, start_stop_finish,
     false, false},
    {"timer_expire", expire_prepare, expire_run, expire_finish, false, false},
    {"call_soon", soon_prepare, soon_run, soon_finish, false, false},
    {"post", post_prepare, post_run, post_finish, true, false},
    {"post_asleep", asleep_prepare, asleep_run, asleep_finish, true, false},
    {"echo_in_process", round_trips_prepare, round_trips_run, round_trips_finish, false, false},
    {"fd", fd_prepare, fd_run, fd_finish, false, false},
    {"read_file", read_prepare, operations_run, read_finish, true, false},
    {"look_up_name", name_prepare, operations_run, operations_finish, true, false},
    {"look_up_numbers", numbers_prepare, operations_run, operations_finish, true, false},
    {"spawn", spawn_prepare, operations_run, operations_finish, true, false},
    {"spawn_large", spawn_large_prepare, operations_run, spawn_large_finish, true, false},
    {"echo", serve_echo, NULL, NULL, false, false},
};

int main(void) {
    bench_raise_file_limit();
    lib.init();
    answer(rows, sizeof rows / sizeof *rows);
    return 0;
}

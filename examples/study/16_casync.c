/* How casync.h does each of them, section by section.

   Run it from the repository's root:   tcc -run examples/study/16_casync.c

   Each section of casync.h (`grep -n '>>' casync.h`) is there as implementation, most also as API,
   and each implementation opens with a paragraph that says its idea and what it costs. This page
   counts the system calls, for most of a loop's time goes there: casync.h makes each of them
   through one table, if it is asked to (CASYNC_SYSCALL_TABLE). To count, the page uses private
   names (casync__); your programs should not. */
#define CASYNC_IMPLEMENTATION
#define CASYNC_SYSCALL_TABLE
#include "../../casync.h"
#include <stdio.h>

static int system_calls;

#define COUNTING(name, parameters, arguments, call)                                                \
    static int64_t counting_##name parameters {                                                    \
        system_calls++;                                                                            \
        return casync__direct_##name arguments;                                                    \
    }
#define INSTALL(name, parameters, arguments, call) casync_syscalls.name = counting_##name;
CASYNC__SYS_CALLS(COUNTING)
CASYNC__SYS_CALLS_ONCE(COUNTING)

static casync_loop loop;

static void section(const char *name) { printf("%s\n", name); }

static void claim(const char *text, bool holds) {
    printf("  %s: %s\n", text, holds ? "yes" : "no");
}

/* How many system calls it took since the last time that somebody asked. */
static int calls(void) {
    int count = system_calls;
    system_calls = 0;
    return count;
}

static int called;

static void count(void *arg) {
    (void)arg;
    called++;
}

/* Pages 9 and 12. Times are nanoseconds of a clock that is never set back; for tests it may be
   virtual. */
static void clocks(void) {
    casync_loop_desc desc = {.clock = CASYNC_CLOCK_VIRTUAL};
    casync_loop virtual_loop;
    casync_timer timer = {0};
    section("clock");
    if (casync_loop_init(&virtual_loop, &desc) < 0) abort();
    called = 0;
    casync_call_later(&virtual_loop, &timer, CASYNC_SECONDS(3600), count, NULL);
    casync_run_until_idle(&virtual_loop);
    claim("an hour of a virtual clock took no waiting", called == 1);
    claim("and was an hour", casync_time(&virtual_loop) == CASYNC_SECONDS(3600));
    casync_loop_close(&virtual_loop);
}

/* Page 6. Jobs are links of a list, embedded in whatever is to be called: queueing one is four
   stores. Each turn polls, as page 6 does; only when 16 polls in a row found nothing is one left
   out, up to 64 turns or 100 us. */
static void chain(void *arg) {
    casync_job *job = (casync_job *)arg;
    if (++called < 10000) casync_call_soon(&loop, job, chain, job);
}

static void ready_queue(void) {
    static casync_job job;
    uint64_t polls = loop.polls, turns = loop.turns;
    section("jobs, loop");
    calls();
    called = 0;
    casync_call_soon(&loop, &job, chain, &job);
    casync_run_until_idle(&loop);
    claim("a callback that queues itself 10000 times takes 10000 turns",
          loop.turns - turns == 10000);
    claim("while work is ready most turns ask the kernel for nothing",
          loop.polls - polls < 2000 && calls() < 2000);
}

/* Pages 6, 9, 12. A hierarchy of slots in place of a heap: what is far away is sorted roughly at
   first. */
static void timer_wheel(void) {
    static casync_timer timers[1000];
    int i;
    section("timer wheel");
    calls();
    for (i = 0; i < 1000; i++)
        casync_call_later(&loop, &timers[i], CASYNC_SECONDS(i + 1), count, NULL);
    for (i = 0; i < 1000; i++) casync_timer_stop(&timers[i]);
    claim("1000 timers were started and stopped without a system call", calls() == 0);
    claim("a timer takes 64 bytes or less, and no allocation", sizeof(casync_timer) <= 64);
}

/* Pages 7 and 10. A future is a result and a list of jobs; done, it appends the list to the ready
   queue. */
static void futures(void) {
    static casync_future future;
    static casync_job jobs[1000];
    int i;
    section("futures");
    calls();
    called = 0;
    casync_future_init(&loop, &future);
    for (i = 0; i < 1000; i++) casync_future_add_done_callback(&future, &jobs[i], count, NULL);
    casync_future_set_result(&future, 42, NULL);
    claim("set_result called nobody, and no kernel", called == 0 && calls() == 0);
    casync_run_until_idle(&loop);
    claim("1000 callbacks were called in the next turn", called == 1000);
    claim("a future takes 64 bytes or less", sizeof(casync_future) <= 64);
    casync_future_close(&future);
}

/* Page 11. What is watched is a table by descriptor; what changed is told to epoll before the next
   wait. */
static void fd_watchers(void) {
    casync_watcher watcher = {0};
    int fds[2], i;
    section("operations, fd watchers");
    if (pipe(fds) < 0) abort();
    calls();
    casync_add_reader(&loop, &watcher, fds[0], count, NULL);
    claim("watching a descriptor is two system calls at most", calls() <= 2);
    for (i = 0; i < 10; i++) casync_add_reader(&loop, &watcher, fds[0], count, NULL);
    claim("changing the callback is none", calls() == 0);
    casync_remove_reader(&watcher);
    close(fds[0]);
    close(fds[1]);
}

/* Page 2. Threads push onto a list without a lock, and write to an eventfd only if the loop
   sleeps. */
static void threadsafe_calls(void) {
    int i;
    section("posts");
    calls();
    called = 0;
    for (i = 0; i < 1000; i++) casync_call_soon_threadsafe(&loop, NULL, count, NULL);
    claim("1000 posts to a loop that does not sleep are no system call", calls() == 0);
    casync_run_until_idle(&loop);
    claim("all of them ran", called == 1000);
}

/* A signal interrupts your program anywhere; here it is read from a descriptor, and becomes a
   callback. */
static void signals(void) {
    casync_signal watcher = {0};
    section("signals");
    called = 0;
    casync_signal_start(&loop, &watcher, SIGUSR1, CASYNC_SIGNAL_ONCE, count, NULL);
    kill(getpid(), SIGUSR1);
    claim("nobody was interrupted", called == 0);
    casync_run_until_idle(&loop);
    claim("the loop called back", called == 1);
}

/* Page 14. Small writes share a chunk, what casync_write_ref gets is not copied; all go in one
   vectored call. */
static void buffers(void) {
    casync_outbuf out;
    int fds[2], i;
    section("buffers");
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0) abort();
    casync_outbuf_init(&out, NULL);
    for (i = 0; i < 100; i++) {
        casync_span span = {"hello", 5};
        casync_outbuf_append(&out, &span, 1);
    }
    calls();
    casync_outbuf_flush(&out, fds[0], true);
    claim("100 small writes that had to wait are one system call", calls() == 1 && out.size == 0);
    close(fds[0]);
    close(fds[1]);
}

/* Pages 8 and 9. A stackful task lives in its stack, which comes from a pool; a switch is a few
   instructions. */
static int64_t sleeper(casync_loop *running, void *arg) {
    (void)running;
    (void)arg;
    return casync_sleep(0);
}

static void detach(casync_coroutine coroutine) {
    if (casync_spawn_detached(&loop, coroutine, NULL) < 0) abort();
}

static void tasks(void) {
    uint64_t turns;
    int i;
    section("tasks, casync_run");
    for (i = 0; i < 10; i++) detach(sleeper);
    casync_run_until_idle(&loop); /* the first ones make the pool: a mapping, and a guard page
                                     each */
    turns = loop.turns;
    calls();
    for (i = 0; i < 10; i++) detach(sleeper);
    claim("10 stackful tasks were made from the pool, without a system call", calls() == 0);
    casync_run_until_idle(&loop);
    claim("each took two turns, at the same time", loop.turns - turns == 2);
    claim("a stackless task takes 128 bytes or less beside your own variables",
          sizeof(casync_task) <= 128);
}

/* Pages 13 and 15. What is cancelled is the future that a task awaits; a group cancels its
   tasks. */
static int64_t fails(casync_loop *running, void *arg) {
    (void)running;
    (void)arg;
    return -EIO;
}

static int64_t block(casync_loop *running, void *arg) {
    casync_task_group group;
    (void)running;
    casync_task_group_begin(&group);
    casync_task_group_spawn(&group, sleeper, arg);
    casync_task_group_spawn(&group, fails, arg);
    return casync_task_group_end(&group, 0);
}

static void structured_concurrency(void) {
    casync_task *task;
    section("structured concurrency");
    task = casync_spawn(&loop, block, NULL);
    claim("a group ends with its first error", casync_run_until_complete(&task->future) == -EIO);
    claim("and nothing is left over", !casync_loop_alive(&loop));
    casync_task_release(task);
}

/* Page 14. write tries at once; read fills a buffer of the loop's, so an idle stream has none. */
static void data_received(casync_stream *stream, casync_span data) {
    casync_write(stream, data.ptr, data.len);
    casync_finish_start(stream);
}

static void streams(void) {
    static const casync_protocol protocol = {.data_received = data_received};
    static casync_stream stream;
    char answer[8] = "";
    int fds[2];
    section("addresses & sockets, endpoint, streams, servers");
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0 || write(fds[0], "hello", 5) != 5) abort();
    if (casync_stream_open(&loop, &stream, fds[1], &protocol, NULL) < 0) abort();
    casync_run_until_idle(&loop);
    claim("an echo came back",
          read(fds[0], answer, sizeof answer) == 5 && strcmp(answer, "hello") == 0);
    claim("a stream takes 288 bytes or less", sizeof(casync_stream) <= 288);
    close(fds[0]);
}

/* Pages 2 and 14. A state and a list of who waits. What becomes free is handed to the first of
   them. */
static casync_lock lock;

static int64_t locker(casync_loop *running, void *arg) {
    int64_t result = casync_lock_acquire(&lock);
    (void)running;
    (void)arg;
    if (result < 0) return result;
    called++;
    casync_ignore(
        casync_sleep(0)); /* here others run, and wait for the lock, which is released in any
                             case */
    return casync_lock_release(&lock);
}

static void sync_primitives(void) {
    int i;
    section("sync primitives");
    called = 0;
    for (i = 0; i < 10; i++) detach(locker);
    casync_run_until_idle(&loop);
    claim("10 tasks had the lock, one after the other", called == 10 && !casync_lock_locked(&lock));
    calls();
    for (i = 0; i < 1000; i++)
        if (casync_lock_try_acquire(&lock) < 0 || casync_lock_release(&lock) < 0) abort();
    claim("a lock takes no system call", calls() == 0);
}

/* Page 11. Datagrams that are there are received many at a time. */
static void datagram_received(casync_datagram *datagram, casync_span data,
                              const casync_address *from) {
    (void)data;
    (void)from;
    if (++called == 10) casync_datagram_close(datagram);
}

static void datagrams(void) {
    static const casync_datagram_protocol protocol = {.datagram_received = datagram_received};
    static casync_datagram datagram;
    casync_datagram_desc desc = {.protocol = &protocol};
    int fds[2], i;
    section("datagrams");
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, fds) < 0) abort();
    for (i = 0; i < 10; i++)
        if (send(fds[0], "hello", 5, 0) != 5) abort();
    desc.use_fd = true;
    desc.fd = fds[1];
    desc.max_size = 1024;
    called = 0;
    calls();
    if (casync_datagram_open(&loop, &datagram, &desc) < 0) abort();
    casync_run_until_idle(&loop);
    claim("10 datagrams came", called == 10);
    claim("and took less than 10 system calls, with open and close", calls() < 10);
    close(fds[0]);
}

/* Pages 1 to 3. A queue with a mutex, where threads wait for calls; the result is posted to the
   loop. */
static int64_t blocks(void *arg, void **ptr) {
    (void)ptr;
    *(pthread_t *)arg = pthread_self();
    return 42;
}

static void thread_pool(void) {
    pthread_t thread = pthread_self();
    casync_op op;
    casync_future *future;
    section("calls & thread pool");
    future = casync_run_in_executor_op(&loop, NULL, &op, blocks, &thread, NULL);
    claim("the result comes to the loop's thread", casync_run_until_complete(future) == 42);
    claim("from another one", !pthread_equal(thread, pthread_self()));
}

/* Page 1. The C library's resolver blocks, so a thread of the pool asks it; numbers ask nobody. */
static void names(void) {
    casync_getaddrinfo_desc question = {.host = "192.0.2.1"};
    casync_addrinfo info;
    casync_op op;
    section("names");
    calls();
    casync_getaddrinfo_op(&loop, &info, &op, &question);
    claim("an address in numbers is there at once", casync_future_result(&op.future) == 1);
    claim("without a system call", calls() == 0);
    casync_addrinfo_free(&info);
}

/* A child borrows this process's memory until it runs its program; a descriptor tells its end. */
static void processes(void) {
    casync_process_desc desc = {.shell = "exit 3"};
    casync_process process = {0};
    casync_op op;
    section("processes");
    if (casync_process_start(&loop, &process, &desc) < 0) abort();
    claim("the loop waits for a child",
          casync_run_until_complete(casync_process_wait_op(&process, &op)) == 3);
    claim("and nobody handles SIGCHLD", signal(SIGCHLD, SIG_DFL) == SIG_DFL);
    casync_process_close(&process);
}

/* Page 2. The kernel does not tell when a file is ready: a thread of the pool reads it, into memory
   of the library's. */
static void files(void) {
    casync_file_data data;
    casync_op op;
    section("files");
    if (casync_run_until_complete(
            casync_file_read_all_op(&loop, &op, "/proc/self/comm", &data, 0)) < 0)
        abort();
    claim("a thread read a file", data.len > 0);
    casync_file_data_free(&data);
}

/* A terminal outlives the program: whatever ends it, the mode is put back. */
static void terminals(void) {
    int fds[2], columns = 0, rows = 0;
    section("terminals");
    if (casync_openpty(fds, 80, 24) < 0) abort();
    if (casync_terminal_set_mode(fds[1], CASYNC_TERMINAL_CBREAK) < 0) abort();
    casync_terminal_size(fds[1], &columns, &rows);
    claim("a pseudoterminal has a size", columns == 80 && rows == 24);
    claim("and is normal again", casync_terminal_set_mode(fds[1], CASYNC_TERMINAL_NORMAL) == 0);
    close(fds[0]);
    close(fds[1]);
}

/* What happens to files comes as events of a descriptor, like everything else. */
static void changed(casync_watch *watch, const casync_change *change) {
    (void)watch;
    called += change->kind == CASYNC_CHANGE_ATTRIBUTES;
}

static void watches(void) {
    char directory[] = "/tmp/casync-study-XXXXXX", file[64];
    casync_watch_desc desc = {.path = directory, .changed = changed};
    casync_watch watch = {0};
    section("watches");
    if (!mkdtemp(directory)) abort();
    snprintf(file, sizeof file, "%s/file", directory);
    close(open(file, O_CREAT | O_RDONLY, 0600));
    called = 0;
    if (casync_watch_start(&loop, &watch, &desc) < 0) abort();
    chmod(file, 0400);
    casync_run_once(&loop);
    claim("a change was told", called == 1);
    casync_watch_stop(&watch);
    unlink(file);
    rmdir(directory);
}

/* How to see that a loop stands still (page 1): the longest turn, for instance. */
static void metrics(void) {
    casync_metrics numbers;
    section("metrics & dump");
    casync_loop_metrics(&loop, &numbers);
    claim("most turns asked the kernel for nothing", numbers.polls < numbers.turns / 2);
    claim("no task is left", numbers.tasks == 0);
}

int main(void) {
    CASYNC__SYS_CALLS(INSTALL)
    CASYNC__SYS_CALLS_ONCE(INSTALL)
    if (casync_loop_init(&loop, NULL) < 0) return 1;
    clocks();
    ready_queue();
    timer_wheel();
    futures();
    fd_watchers();
    threadsafe_calls();
    signals();
    buffers();
    tasks();
    structured_concurrency();
    sync_primitives();
    streams();
    datagrams();
    thread_pool();
    names();
    terminals();
    processes();
    files();
    watches();
    metrics();
    return casync_loop_close(&loop) < 0;
}

/* Prints:
     clock
       an hour of a virtual clock took no waiting: yes
       and was an hour: yes
     jobs, loop
       a callback that queues itself 10000 times takes 10000 turns: yes
       while work is ready most turns ask the kernel for nothing: yes
     timer wheel
       1000 timers were started and stopped without a system call: yes
       a timer takes 64 bytes or less, and no allocation: yes
     futures
       set_result called nobody, and no kernel: yes
       1000 callbacks were called in the next turn: yes
       a future takes 64 bytes or less: yes
     operations, fd watchers
       watching a descriptor is two system calls at most: yes
       changing the callback is none: yes
     posts
       1000 posts to a loop that does not sleep are no system call: yes
       all of them ran: yes
     signals
       nobody was interrupted: yes
       the loop called back: yes
     buffers
       100 small writes that had to wait are one system call: yes
     tasks, casync_run
       10 stackful tasks were made from the pool, without a system call: yes
       each took two turns, at the same time: yes
       a stackless task takes 128 bytes or less beside your own variables: yes
     structured concurrency
       a group ends with its first error: yes
       and nothing is left over: yes
     sync primitives
       10 tasks had the lock, one after the other: yes
       a lock takes no system call: yes
     addresses & sockets, endpoint, streams, servers
       an echo came back: yes
       a stream takes 288 bytes or less: yes
     datagrams
       10 datagrams came: yes
       and took less than 10 system calls, with open and close: yes
     calls & thread pool
       the result comes to the loop's thread: yes
       from another one: yes
     names
       an address in numbers is there at once: yes
       without a system call: yes
     terminals
       a pseudoterminal has a size: yes
       and is normal again: yes
     processes
       the loop waits for a child: yes
       and nobody handles SIGCHLD: yes
     files
       a thread read a file: yes
     watches
       a change was told: yes
     metrics & dump
       most turns asked the kernel for nothing: yes
       no task is left: yes
*/

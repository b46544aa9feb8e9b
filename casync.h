/* casync.h - asyncio for C, in one header.  MIT license, see the end of this file.

   >> manual

   An event loop for Linux with asyncio's nouns and semantics: a loop, callbacks, timers, fd
   watchers, threadsafe calls, signals, futures, streams and servers. No dependency but libc and
   pthreads. The same engine drives the Python package `casync`.

   QUICK START

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       static void hello(void *arg) { printf("hello, %s\n", (const char *)arg); }

       int main(void) {
           casync_loop loop;
           casync_timer timer = {0};
           if (casync_loop_init(&loop, NULL) < 0) return 1;
           casync_call_later(&loop, &timer, CASYNC_MS(100), hello, "world");
           casync_run_until_idle(&loop);
           return casync_loop_close(&loop) < 0;
       }

   Save it as hello.c beside this file and run it with `tcc -run hello.c`, or build it with
   `cc hello.c -lpthread` (musl and glibc >= 2.34 need no -lpthread).

   HOW TO USE IT

   Include the header wherever you like. In exactly one C file define CASYNC_IMPLEMENTATION before
   the include. That file must be compiled with _GNU_SOURCE defined before its first include; the
   header asks for it when nothing was included before, and says so with #error when it is too late.

   CONFIGURATION, each a macro to define before including the implementation

       CASYNC_IMPLEMENTATION     emit the implementation here
       CASYNC_STATIC             make all of it static (also where only the API is included)
       CASYNC_REALLOC(ptr, size) the default allocator, together with
       CASYNC_FREE(ptr)          its other half (define both or neither); realloc and free if absent
       CASYNC_ASSERT(condition)  checks of the caller's errors that no error code can report (use
                                 after close, wrong thread); assert() if absent, so NDEBUG ends them
       CASYNC_SYSCALL_TABLE      route every system call through the table `casync_syscalls`, whose
                                 entries a test may replace

   ASYNCIO TO CASYNC

       asyncio                          casync
       ------------------------------   ----------------------------------------------------
       new_event_loop(), loop.close()   casync_loop_init, casync_loop_close
       loop.run_forever(), stop()       casync_run_forever, casync_stop
       loop.run_until_complete(future)  casync_run_until_complete
       get_running_loop()               casync_get_running_loop
       loop.time()                      casync_time
       loop.call_soon                   casync_call_soon
       loop.call_soon_threadsafe        casync_call_soon_threadsafe
       loop.call_later, call_at         casync_call_later, casync_call_at
       Handle, TimerHandle, cancel()    casync_job, casync_timer; casync_job_cancel, _timer_stop
       loop.add_reader, remove_reader   casync_add_reader, casync_remove_reader
       loop.add_signal_handler          casync_signal_start
       loop.set_exception_handler       casync_set_exception_handler
       Future                           casync_future
       Transport and StreamWriter       casync_stream: write, writev, drain_op, write_eof, abort
       StreamReader                     casync_read_op, read_exactly_op, read_until_op
       Protocol, BufferedProtocol       casync_protocol
       Server, start_server             casync_server, casync_listen
       open_connection                  casync_connect_op

   RULES

   - Structs are yours. They are visible, embeddable and start zeroed; the library allocates only
     what must outlive a call, through the loop's allocator. A struct must not move while in use.
   - Results are int64_t: >= 0 is a value, < 0 an error: -errno, or one of casync's own codes
     (enum casync_error). casync_strerror names them all. A call that fails changes nothing.
   - Callbacks get the `arg` given with them. A callback may stop, close or free any object,
     its own included.
   - Close is immediate: after casync_*_close, _stop or _cancel of an object no callback of it
     follows, and its memory may go.
   - One thread owns a loop: the one that runs it. Only casync_call_soon_threadsafe, casync_wake and
     casync_signal_* on other loops may be used from other threads; each function's comment says so
     where it holds. Several loops in several threads share nothing but the signal registry.
   - Time is int64_t nanoseconds of CLOCK_MONOTONIC; write CASYNC_MS(5). Timers are never early,
     run in the order of their deadlines, and first come first served among equals.
   - A turn is asyncio's: wait for I/O; queue what became ready; queue the timers that are due; run
     the queue as it stands. What these callbacks queue waits for the next turn.
   - Descriptors handed to the library become its own: closed with the object they were given to.
     Those given to add_reader and add_writer stay yours: remove the watcher before you close them.
   - Children: a forked child must call casync_loop_fork before it uses an inherited loop (close is
     allowed too). exec'd programs inherit no descriptor of the library (all are close-on-exec), but
     they inherit the signal mask, in which watched signals are blocked: see casync_signal_start.

   PLATFORMS

   Linux 4.14 or newer (5.11 for waits below a millisecond without a timerfd); glibc 2.28 or musl
   1.2; gcc, clang, tcc 0.9.27 (x86-64); C99 to C17 and C++17; any CPU. Where the header says
   "source:", the rule comes from there.

   CONTENTS: `grep -n '>>' casync.h`. The API and the implementation have the same sections in the
   same order. (So that this stays true the code has no right shift: it divides by powers of two,
   which compilers turn into shifts.)

   COMPATIBILITY: until 1.0 a minor version may change the API; a patch version does not. Names that
   begin with casync__ are private, as are struct members marked so.
*/
#ifndef CASYNC_H
#define CASYNC_H

/* A library's TU may define CASYNC_IMPLEMENTATION before any include: then this comes in time. */
#if defined(CASYNC_IMPLEMENTATION) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* >> config & compiler (API) ------------------------------------------------------------------ */

#define CASYNC_VERSION_MAJOR 0
#define CASYNC_VERSION_MINOR 1
#define CASYNC_VERSION_PATCH 0
#define CASYNC_VERSION "0.1.0"

#ifdef CASYNC_STATIC
#if defined(__GNUC__)
#define CASYNC_API static __attribute__((unused))
#else
#define CASYNC_API static
#endif
#else
#define CASYNC_API extern
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* casync's own error codes, below every errno. */
enum casync_error {
    CASYNC_EOF = -5001,             /* the stream ended before the first byte of what was asked for */
    CASYNC_INCOMPLETE_READ = -5002, /* the stream ended inside what was asked for */
    CASYNC_LIMIT_OVERRUN = -5003,   /* a frame is longer than the stream's read limit */
    CASYNC_INVALID_STATE = -5004    /* the object is not in a state that allows this call */
};

/* The name of an error in words; "success" for values >= 0. Thread-safe; the string is static. */
CASYNC_API const char *casync_strerror(int64_t error);

/* Memory: function(user, NULL, n) allocates, function(user, p, n) resizes, function(user, p, 0)
   frees and returns NULL. It returns NULL, and leaves p alone, when there is no memory. It must be
   thread-safe if casync_call_soon_threadsafe is used with a NULL job. */
typedef struct casync_allocator {
    void *(*function)(void *user, void *ptr, size_t size);
    void *user;
} casync_allocator;

/* Bytes that somebody else owns. */
typedef struct casync_span {
    const void *ptr;
    size_t len;
} casync_span;

/* A place for bytes. */
typedef struct casync_buffer {
    void *ptr;
    size_t len;
} casync_buffer;

/* A link of a circular doubly linked list. next is NULL in what is on no list. Private. */
typedef struct casync_link {
    struct casync_link *next, *prev;
} casync_link;

/* The type of every plain callback. */
typedef void (*casync_callback)(void *arg);

typedef struct casync_loop casync_loop;
typedef struct casync_job casync_job;
typedef struct casync_timer casync_timer;
typedef struct casync_future casync_future;
typedef struct casync_op casync_op;
typedef struct casync_watcher casync_watcher;
typedef struct casync_signal casync_signal;
typedef struct casync_stream casync_stream;
typedef struct casync_server casync_server;

/* >> system calls (API) ----------------------------------------------------------------------- */

/* There is nothing to call here: with CASYNC_SYSCALL_TABLE the implementation exposes the table
   `casync_syscalls` of every kernel call it makes, so that a test can count them or make them fail. */

/* >> clock (API) ------------------------------------------------------------------------------ */

#define CASYNC_US(n) ((int64_t)(n)*1000)
#define CASYNC_MS(n) ((int64_t)(n)*1000000)
#define CASYNC_SECONDS(n) ((int64_t)(n)*1000000000)
#define CASYNC_FOREVER INT64_MAX /* a deadline that never comes; later than any sum of times */

/* Where a loop's time comes from. */
enum casync_clock {
    CASYNC_CLOCK_MONOTONIC,     /* the system's CLOCK_MONOTONIC */
    CASYNC_CLOCK_MANUAL,        /* starts at 0; moves by casync_clock_advance alone */
    CASYNC_CLOCK_VIRTUAL,       /* starts at 0; jumps to the next deadline when nothing is ready, a poll
                                   that does not wait finds nothing, and nothing outside is awaited (no fd
                                   or signal is watched); else waits for it in real time */
    CASYNC_CLOCK_VIRTUAL_FORCED /* as VIRTUAL, but jumps although something outside is awaited */
};

/* The loop's time now, in nanoseconds, read from its clock. */
CASYNC_API int64_t casync_time(const casync_loop *loop);

/* The loop's time as it was when this turn's timers were looked at: free, but stale. */
CASYNC_API int64_t casync_now(const casync_loop *loop);

/* Moves the clock of a loop with a manual or virtual clock forward. Timers that become due run in
   the loop's next turn. -EINVAL for a negative time, -EPERM if the clock is the system's. */
CASYNC_API int64_t casync_clock_advance(casync_loop *loop, int64_t nanoseconds);

/* >> loop & ready queue (API) ----------------------------------------------------------------- */

/* A callback in a queue: asyncio's Handle. Yours, zeroed at first; embed it or use it alone. */
struct casync_job {
    casync_link link;         /* private */
    casync_callback callback; /* read-only */
    void *arg;                /* read-only */
    casync_loop *loop;        /* read-only; set when first queued */
    uint32_t flags, posted;   /* private */
};

/* What went wrong where nobody awaits a result. */
typedef struct casync_exception {
    const char *message;   /* what happened, in English */
    int64_t error;         /* the error code */
    casync_future *future; /* the future whose error nobody retrieved, or NULL */
    casync_stream *stream; /* the stream concerned, or NULL */
    casync_server *server; /* the server concerned, or NULL */
} casync_exception;

typedef void (*casync_exception_handler)(casync_loop *loop, const casync_exception *exception, void *arg);

typedef struct casync_loop_desc {
    casync_allocator allocator; /* default: CASYNC_REALLOC and CASYNC_FREE */
    int clock;                  /* enum casync_clock */
    bool guest;                 /* this process's signals belong to somebody else: watch them by a
                                                   chaining handler, without touching masks (see signals) */
    casync_exception_handler exception_handler; /* default: a line on stderr */
    /* Called directly around the system call that waits; timeout as in casync_loop_timeout. Made for
       hosts with a lock to drop while the loop sleeps: they must not touch the loop. */
    void (*before_wait)(void *arg, int64_t timeout);
    void (*after_wait)(void *arg, int64_t timeout);
    void *arg; /* given to the three functions above */
} casync_loop_desc;

enum casync_loop_state {
    CASYNC_LOOP_CLOSED = 0, /* also before init */
    CASYNC_LOOP_INIT,       /* made, never run */
    CASYNC_LOOP_RUNNING,
    CASYNC_LOOP_STOPPED
};

/* A timer wheel: see the implementation. Private. */
typedef struct casync_wheel {
    uint64_t elapsed;       /* every timer in the wheel is due after this time */
    uint64_t next_deadline; /* lower bound of the earliest deadline in the wheel */
    uint32_t occupied;      /* bit l is set: level l holds timers */
    bool next_is_exact;     /* next_deadline is that timer's deadline itself */
    struct casync__level *levels[11];
    casync_link past; /* timers started when already due, for the next turn */
} casync_wheel;

/* The members up to `arg` may be read. */
struct casync_loop {
    int state;      /* enum casync_loop_state */
    int clock;      /* enum casync_clock */
    uint64_t turns; /* turns run since init */
    uint64_t polls; /* of these, turns that asked the kernel for events */
    casync_allocator allocator;
    casync_exception_handler exception_handler;
    void (*before_wait)(void *arg, int64_t timeout);
    void (*after_wait)(void *arg, int64_t timeout);
    void *arg;
    /* private from here on */
    bool stopping, breaking, guest, hosted;
    uint32_t skipped_polls;
    int64_t active; /* referenced timers, watchers and signals: what keeps the loop running */
    int64_t now, last_poll;
    casync_link ready;     /* jobs for the next turn */
    casync_link running;   /* jobs of this turn that have not run yet */
    casync_link free_jobs; /* the pool behind a NULL job or timer */
    struct casync__chunk *job_chunks;
    casync_link hooks[3];
    casync_wheel wheel;
    const struct casync__backend *backend;
    int backend_fd, wakeup_fd;
    struct casync__slot *fds; /* what watches which descriptor, by number */
    uint32_t fds_size, fds_active;
    casync_link changed; /* watchers whose interest the kernel does not know yet */
    casync_job *posted;  /* jobs from other threads, last first */
    uint32_t sleeping;   /* the loop waits, or may be waiting, in the kernel */
    uint32_t fork_generation;
    uint8_t *scratch; /* where streams read to; shared by all of the loop's */
    struct casync__signals *signals;
    casync_loop *outer; /* the loop this thread ran before this one */
};

/* Makes a loop in *loop, whatever was there; desc may be NULL. Costs an epoll and an eventfd, and no
   memory beside the struct. Errors: -EMFILE, -ENFILE, -ENOMEM, -EINVAL for an unknown clock. */
CASYNC_API int64_t casync_loop_init(casync_loop *loop, const casync_loop_desc *desc);

/* Ends a loop: jobs, timers, watchers and signals of it are dropped without a call, their structs may
   go. Streams and servers must have been closed before (they own descriptors and memory): -EBUSY if
   any is open, or if the loop is running. A closed loop may be closed again. */
CASYNC_API int64_t casync_loop_close(casync_loop *loop);

/* Runs turns until casync_stop. Like every run function: -EBUSY inside the same loop's callbacks or
   while another thread runs it, -EINVAL if the loop is closed, -ECHILD in a forked child that has not
   called casync_loop_fork, another error if the kernel refuses to wait; else 0. */
CASYNC_API int64_t casync_run_forever(casync_loop *loop);

/* Runs until casync_stop, or until nothing is left that could run: no job, and no referenced timer,
   watcher, signal, stream or server. */
CASYNC_API int64_t casync_run_until_idle(casync_loop *loop);

/* Runs until the future is done and returns its result (and so retrieves it). If the loop was
   stopped before that: CASYNC_INVALID_STATE, the future goes on. */
CASYNC_API int64_t casync_run_until_complete(casync_future *future);

/* One turn, which waits for something to do (not if nothing is left to wait for). */
CASYNC_API int64_t casync_run_once(casync_loop *loop);

/* One turn, which does not wait. */
CASYNC_API int64_t casync_run_nowait(casync_loop *loop);

/* Lets the running turn end and then makes the run function return; before a run, the run ends after
   one turn. asyncio's loop.stop(). */
CASYNC_API void casync_stop(casync_loop *loop);

/* As stop, but at once: when the callback that is running returns. What has not run stays queued, in
   its order, for the next run. */
CASYNC_API void casync_break(casync_loop *loop);

/* Is there a job queued, or a referenced object active? */
CASYNC_API bool casync_loop_alive(const casync_loop *loop);

/* The loop that this thread is running, or NULL. */
CASYNC_API casync_loop *casync_get_running_loop(void);

/* Calls callback(arg) in the next turn (the present one, if called from a hook before the poll).
   job: yours, zeroed at first, to cancel the call with; or NULL, then the loop's pool lends one.
   Errors: -EALREADY if the job is queued, -EINVAL if the loop is closed or callback is NULL, -ENOMEM
   (NULL job only). Cost: no system call, and no allocation once the pool has grown to the need. */
CASYNC_API int64_t casync_call_soon(casync_loop *loop, casync_job *job, casync_callback callback, void *arg);

/* Takes a job out of whatever queue it is in: after it the call does not happen. Returns 1, or 0 if
   it was in none (never queued, running, or has run). Not for jobs posted by
   casync_call_soon_threadsafe that the loop has not seen yet: -EBUSY. */
CASYNC_API int64_t casync_job_cancel(casync_job *job);

/* Is the job queued? */
CASYNC_API bool casync_job_pending(const casync_job *job);

/* Hooks run in every turn: BEFORE_POLL and AFTER_POLL around the poll, also when it is skipped; IDLE
   when a turn begins with nothing ready to run (an active idle hook keeps the loop from waiting). */
enum casync_hook_kind { CASYNC_HOOK_BEFORE_POLL, CASYNC_HOOK_AFTER_POLL, CASYNC_HOOK_IDLE };

/* A hook. Yours, zeroed at first. */
typedef struct casync_hook {
    casync_job job;
    int kind, priority;
} casync_hook;

/* Adds a hook: higher priorities run first, equals in the order they were started. Hooks do not keep
   the loop running, except idle hooks. A hook started while its kind runs is first called in the next
   turn. Errors: -EALREADY, -EINVAL. */
CASYNC_API int64_t casync_hook_start(casync_loop *loop, casync_hook *hook, int kind, int priority,
                                     casync_callback callback, void *arg);
/* Ends it; 1, or 0 if it was not started. */
CASYNC_API int64_t casync_hook_stop(casync_hook *hook);

/* What casync_walk can find. */
enum casync_kind {
    CASYNC_KIND_JOB,     /* casync_job */
    CASYNC_KIND_TIMER,   /* casync_timer */
    CASYNC_KIND_HOOK,    /* casync_hook */
    CASYNC_KIND_WATCHER, /* casync_watcher */
    CASYNC_KIND_SIGNAL,  /* casync_signal */
    CASYNC_KIND_STREAM,  /* casync_stream */
    CASYNC_KIND_SERVER   /* casync_server */
};

/* Visits every live object of the loop. The visitor must not start or stop anything: collect first,
   act afterwards. */
CASYNC_API void casync_walk(casync_loop *loop, void (*visit)(int kind, void *object, void *arg), void *arg);

/* Sets who hears of errors that nobody awaits; NULL for the default. */
CASYNC_API void casync_set_exception_handler(casync_loop *loop, casync_exception_handler handler, void *arg);

/* Hands an error to the loop's exception handler. */
CASYNC_API void casync_call_exception_handler(casync_loop *loop, const casync_exception *exception);

/* Hosting in a foreign loop: wait until casync_loop_fd is readable or casync_loop_timeout has passed,
   then call casync_run_nowait; and again. Ask for the timeout anew before each wait: it also tells
   the kernel of pending interest. It is nanoseconds: 0 if there is something to do at once,
   CASYNC_FOREVER if only an event can wake the loop; it may be early, never late. */
CASYNC_API int casync_loop_fd(const casync_loop *loop);
CASYNC_API int64_t casync_loop_timeout(casync_loop *loop);

/* In a forked child: gives the inherited loop a backend of its own and registers all that was watched
   there. The parent's is not touched. 0 too where no fork happened. Errors: as casync_loop_init; then
   the loop can only be closed. */
CASYNC_API int64_t casync_loop_fork(casync_loop *loop);

/* >> timer wheel (API) ------------------------------------------------------------------------ */

/* A timer: asyncio's TimerHandle. Yours, zeroed at first. 64 bytes. */
struct casync_timer {
    casync_job job;
    int64_t deadline; /* read-only: when it is (or was last) due, in the loop's time */
    int64_t repeat;   /* read-only: the period of a repeating timer, else 0 */
};

/* Calls callback(arg) once, `delay` nanoseconds from now (at a negative one: as soon as possible), or
   at the time `when`. timer as job in casync_call_soon: yours to stop with, or NULL for the pool's.
   Errors: -EALREADY if the timer is started, -EINVAL as casync_call_soon, -ENOMEM when a level of the
   wheel is used for the first time. Cost: O(1), no system call. */
CASYNC_API int64_t casync_call_later(casync_loop *loop, casync_timer *timer, int64_t delay,
                                     casync_callback callback, void *arg);
CASYNC_API int64_t casync_call_at(casync_loop *loop, casync_timer *timer, int64_t when,
                                  casync_callback callback, void *arg);

/* Starts a timer that is first due after `delay` and then, if repeat > 0, every `repeat` nanoseconds
   after the deadline before, without drift; periods that were missed altogether are skipped. A timer
   that is started already is moved. Errors as casync_call_later, and -EINVAL for repeat < 0. */
CASYNC_API int64_t casync_timer_start(casync_loop *loop, casync_timer *timer, int64_t delay, int64_t repeat,
                                      casync_callback callback, void *arg);

/* No call follows, also if the timer is due and queued in this turn. 1, or 0 if it was not started. */
CASYNC_API int64_t casync_timer_stop(casync_timer *timer);

/* Restarts a repeating timer: next due `repeat` from now. -EINVAL if it does not repeat. */
CASYNC_API int64_t casync_timer_again(casync_timer *timer);

/* Time until it is due: 0 if overdue, CASYNC_INVALID_STATE if it is not started. */
CASYNC_API int64_t casync_timer_remaining(const casync_timer *timer);

/* Does the timer keep casync_run_until_idle running? At first it does. */
CASYNC_API void casync_timer_ref(casync_timer *timer, bool referenced);

/* >> futures (API) ---------------------------------------------------------------------------- */

enum casync_future_state {
    CASYNC_FUTURE_PENDING,
    CASYNC_FUTURE_DONE,
    CASYNC_FUTURE_FAILED,
    CASYNC_FUTURE_CANCELLED
};

/* A result that may not be there yet. Any number may wait for it; waiting does not consume it. Yours. */
struct casync_future {
    casync_link callbacks; /* private: jobs to queue when it is done */
    casync_loop *loop;
    int64_t result;    /* read-only once done: >= 0, or the error; -ECANCELED if cancelled */
    void *ptr;         /* read-only once done: a result that is a pointer */
    uint8_t state;     /* read-only: enum casync_future_state */
    uint8_t retrieved; /* private */
    uint8_t kind;      /* private: a bare future, or what it is the first member of */
};

/* Makes a pending future in *future, whatever was there. -EINVAL if the loop is closed. */
CASYNC_API int64_t casync_future_init(casync_loop *loop, casync_future *future);

/* Ends its use: callbacks that have not run are dropped. A failure that nobody retrieved is told to
   the exception handler. Needed before the memory of a future is used again or freed. */
CASYNC_API void casync_future_close(casync_future *future);

/* Makes it done (result >= 0), or failed (result < 0). CASYNC_INVALID_STATE unless it is pending. */
CASYNC_API int64_t casync_future_set_result(casync_future *future, int64_t result, void *ptr);

/* Cancels it: 1, or 0 if it was done. The future of an operation ends the operation too. */
CASYNC_API int64_t casync_future_cancel(casync_future *future);

CASYNC_API bool casync_future_done(const casync_future *future);

/* The result, which counts as retrieved. CASYNC_INVALID_STATE while pending. */
CASYNC_API int64_t casync_future_result(casync_future *future);

/* Calls callback(arg) by the ready queue once the future is done; at the next turn if it is. job as
   in casync_call_soon; casync_job_cancel removes it. Callbacks run in the order they were added. */
CASYNC_API int64_t casync_future_add_done_callback(casync_future *future, casync_job *job,
                                                   casync_callback callback, void *arg);

/* >> operations & backend (API) --------------------------------------------------------------- */

/* How to find the frames in a stream of bytes. */
enum casync_framing_kind {
    CASYNC_FRAMING_NONE,
    CASYNC_FRAMING_FIXED,     /* `size` bytes each */
    CASYNC_FRAMING_DELIMITER, /* each ends in the `size` bytes at `delimiter`, which belong to it */
    CASYNC_FRAMING_LENGTH     /* a prefix of `size` bytes (1, 2, 4 or 8) holds the payload's length */
};
typedef struct casync_framing {
    int kind;
    bool little_endian; /* the byte order of LENGTH's prefix; default: network order, the big end first */
    size_t size;
    const void *delimiter; /* must live as long as the framing is used */
} casync_framing;

/* Something awaited: a future with what the library needs to make it come true. Every x_op(..., &op,
   ...) returns &op->future, never NULL: if the start failed it is a failed future. The op and its
   buffer are yours again when the future is done or cancelled. Zeroing is not needed. */
struct casync_op {
    casync_future future;
    casync_link link; /* private: in the list of those that wait for the same thing */
    int kind;         /* private */
    void *owner;      /* private: the stream or server it waits for */
    uint8_t *buffer;  /* private */
    size_t length;    /* private: of buffer */
    size_t done;      /* read-only: bytes in the buffer so far */
    casync_framing framing;
};

/* >> fd watchers (API) ------------------------------------------------------------------------ */

/* Watches a descriptor for reading, writing or both, level-triggered: the callback comes in every
   turn in which the descriptor is ready. Yours, zeroed at first. One watcher a descriptor. */
struct casync_watcher {
    casync_job reader, writer;
    casync_link changed;   /* private */
    int fd;                /* read-only while it watches */
    uint8_t wanted, armed; /* private: what is asked for, what the kernel knows */
    uint8_t kind, flags;   /* private */
};

/* Starts watching, or replaces the callback of that direction. An error or hangup of the descriptor
   counts as readable and as writable, as in asyncio. Errors: -EPERM for a descriptor that cannot be
   waited for (a regular file: it is always ready), -EBADF, -EEXIST if another watcher or a stream has
   the descriptor, -EBUSY if this watcher has another descriptor, -EINVAL, -ENOMEM, -ENOSPC. Cost: the
   first start is one epoll_ctl at once; later changes are batched until the next poll. */
CASYNC_API int64_t casync_add_reader(casync_loop *loop, casync_watcher *watcher, int fd,
                                     casync_callback callback, void *arg);
CASYNC_API int64_t casync_add_writer(casync_loop *loop, casync_watcher *watcher, int fd,
                                     casync_callback callback, void *arg);

/* Stops watching one direction: no call follows. 1, or 0 if it was not watched. Stop before you close
   the descriptor. When both directions are gone the kernel is told at once (one epoll_ctl). */
CASYNC_API int64_t casync_remove_reader(casync_watcher *watcher);
CASYNC_API int64_t casync_remove_writer(casync_watcher *watcher);

/* The watcher that has this descriptor (that of a stream included), or NULL. */
CASYNC_API casync_watcher *casync_watcher_find(casync_loop *loop, int fd);

/* Does the watcher keep casync_run_until_idle running? At first it does. */
CASYNC_API void casync_watcher_ref(casync_watcher *watcher, bool referenced);

/* >> wakeup & threadsafe calls (API) ---------------------------------------------------------- */

/* As casync_call_soon, from any thread, for a loop that is not closed. The calls of one thread run in
   their order. With a job of your own it may be used in signal handlers, and a job whose call is
   still to come is not queued twice: -EALREADY; so a job works as a coalescing wakeup. With a NULL
   job one is allocated: -ENOMEM. Cost: no lock; one eventfd write each time the loop sleeps. */
CASYNC_API int64_t casync_call_soon_threadsafe(casync_loop *loop, casync_job *job, casync_callback callback,
                                               void *arg);

/* Ends the loop's wait, if it waits: its turn goes on. Any thread; safe in signal handlers. */
CASYNC_API void casync_wake(casync_loop *loop);

/* >> signals (API) ---------------------------------------------------------------------------- */

/* Watches a signal. Yours, zeroed at first. Any number of watchers, in any number of loops, may watch
   the same signal; each is told of it once a delivery, but deliveries that come before its callback
   could run are merged into one, as the kernel itself does. */
struct casync_signal {
    casync_job job;
    casync_link link; /* private: in the process's registry */
    int signum;       /* read-only */
    bool once, unreferenced;
};

enum { CASYNC_SIGNAL_ONCE = 1 }; /* stop before the first callback */

/* Starts watching. How the signal is caught depends on the loop:
   - a plain loop: the signal is blocked in the calling thread and read from a signalfd (signalfd(2));
     in threads that do not block it a handler passes it on, so it neither gets lost nor kills. Threads
     and exec'd programs started afterwards inherit the blocked mask; reset it there
     (pthread_sigmask), or start them before.
   - a guest loop (desc.guest): masks are left alone; a handler passes the signal on and then calls the
     handler that was there before.
   Watching SIGCHLD leaves reaping to you: waitpid(2) with WNOHANG until it finds no more.
   When the last watcher of a signal goes, a pending one is dropped and mask and action are put back.
   Stop in the thread that started, so that its mask can be. Errors: -EINVAL for a number that cannot
   be caught, -EALREADY, -EBUSY for a guest if a signalfd somewhere in the process takes the signal,
   -EMFILE, -ENOMEM. */
CASYNC_API int64_t casync_signal_start(casync_loop *loop, casync_signal *signal, int signum, int flags,
                                       casync_callback callback, void *arg);
/* No call follows. 1, or 0 if it was not started. */
CASYNC_API int64_t casync_signal_stop(casync_signal *signal);

/* Does it keep casync_run_until_idle running? At first it does. */
CASYNC_API void casync_signal_ref(casync_signal *signal, bool referenced);

/* >> buffers (API) ---------------------------------------------------------------------------- */

/* Calls this when bytes given by reference are needed no more: exactly once. */
typedef void (*casync_release)(void *arg);

/* OutBuf: a queue of bytes on their way out. Small ones are copied and share chunks, large ones are
   referenced and released when sent. A stream has one; use your own for your own descriptors. */
typedef struct casync_outbuf {
    casync_allocator allocator;
    struct casync__out_chunk *first, *last; /* private */
    size_t size;                            /* read-only: bytes in the queue */
} casync_outbuf;

/* Below this, bytes given by reference are copied and released at once. */
#define CASYNC_REFERENCE_MIN 4096

/* Makes an empty queue; allocator.function may be NULL for the default one. */
CASYNC_API void casync_outbuf_init(casync_outbuf *out, casync_allocator allocator);

/* Drops what is in it; releases run inside. */
CASYNC_API void casync_outbuf_clear(casync_outbuf *out);

/* Appends all spans, or nothing: 0 or -ENOMEM. */
CASYNC_API int64_t casync_outbuf_append(casync_outbuf *out, const casync_span *spans, size_t count);

/* Appends by reference: release(arg) is called once the bytes are not needed. On -ENOMEM it is not. */
CASYNC_API int64_t casync_outbuf_append_ref(casync_outbuf *out, const void *data, size_t size,
                                            casync_release release, void *arg);

/* The first bytes of the queue as up to `count` spans; returns how many it wrote. */
CASYNC_API size_t casync_outbuf_peek(const casync_outbuf *out, casync_span *spans, size_t count);

/* Removes the first `size` bytes (all, if there are fewer); releases run inside. */
CASYNC_API void casync_outbuf_consume(casync_outbuf *out, size_t size);

/* Writes as much as the descriptor takes: sendmsg for sockets (MSG_NOSIGNAL), else writev without
   SIGPIPE. Returns the bytes written, -EAGAIN if it took nothing, another error of write(2). */
CASYNC_API int64_t casync_outbuf_flush(casync_outbuf *out, int fd, bool is_socket);

/* >> streams & servers (API) ------------------------------------------------------------------ */

/* An address of a socket: a struct sockaddr of any family. */
typedef struct casync_address {
    uint32_t size;
    union {
        uint64_t align;
        uint8_t bytes[128]; /* sizeof(struct sockaddr_storage) */
    } storage;
} casync_address;

#define CASYNC_ADDRESS_TEXT 128 /* enough for every address in words */

/* The address in words: "127.0.0.1:80", "[::1]:80", "/run/x.sock", "@abstract", "" for an unnamed
   socket. Returns text. */
CASYNC_API const char *casync_address_text(const casync_address *address, char text[CASYNC_ADDRESS_TEXT]);

/* The port, 0 for addresses that have none. */
CASYNC_API int casync_address_port(const casync_address *address);

/* A protocol: what a stream tells its user, as asyncio's Protocol does. Any member may be NULL. The
   table must outlive its streams. Callbacks may close, abort or finish the stream. */
typedef struct casync_protocol {
    /* The stream is connected: first callback of accepted and connected streams. */
    void (*connection_made)(casync_stream *stream);
    /* Bytes came (whole frames, with options.framing); they are the library's and go when it returns. */
    void (*data_received)(casync_stream *stream, casync_span data);
    /* BufferedProtocol: where to read to, and that it was read. Used when get_buffer is set, in place of
       data_received; size_hint as in asyncio. A buffer of length 0 aborts the stream with -ENOBUFS. */
    casync_buffer (*get_buffer)(casync_stream *stream, int64_t size_hint);
    void (*buffer_updated)(casync_stream *stream, size_t size);
    /* The other side will send no more. Return true to keep the stream open for writing; false, or no
       function: the stream is finished. */
    bool (*eof_received)(casync_stream *stream);
    /* More than the high-water mark waits to be sent; less than the low-water mark does again. */
    void (*pause_writing)(casync_stream *stream);
    void (*resume_writing)(casync_stream *stream);
    /* The stream ended: error is 0 if it was finished or ended by the other side, -ECONNABORTED if it
       was aborted, else what went wrong. Last callback; after it the descriptor is closed, the struct may
       be used again or freed, and memory that a server allocated is freed. Not after casync_close. */
    void (*connection_lost)(casync_stream *stream, int64_t error);
} casync_protocol;

/* How a stream behaves. Zero is the default everywhere. */
typedef struct casync_stream_options {
    void *user;                    /* stream->user */
    size_t high_water, low_water;  /* bytes queued; default 64 KiB and a quarter of high_water */
    size_t read_limit;             /* longest frame; default 64 KiB. See casync_read_until_op */
    const casync_framing *framing; /* data_received gets frames; must outlive the stream */
    bool start_paused;             /* do not read until casync_resume_reading */
    bool receive_fds;              /* accept passed descriptors (Unix sockets); see casync_receive_fd */
    bool nagle;    /* leave Nagle's algorithm on (TCP); casync turns it off, as asyncio does */
    int keepalive; /* seconds of idleness before TCP probes; 0: no keepalive */
} casync_stream_options;

typedef struct casync_filter casync_filter;

/* A stream of bytes over a descriptor: TCP, Unix, a pipe. Yours, zeroed at first. It reads either by a
   protocol with data_received or get_buffer, or by read operations. 512 bytes at most. */
struct casync_stream {
    casync_watcher watcher;          /* private, but for the descriptor: stream->watcher.fd */
    const casync_protocol *protocol; /* read-only */
    void *user;                      /* yours */
    casync_outbuf out;               /* read-only */
    casync_filter *filter;           /* read-only */
    /* private from here on */
    casync_server *server;
    casync_link connections; /* in the server's list */
    casync_job ending;       /* calls connection_lost */
    int64_t error;
    uint8_t *input; /* bytes read and not yet asked for: frames in the making */
    size_t input_start, input_end, input_size;
    size_t read_limit;
    const casync_framing *framing;
    size_t high_water, low_water;
    casync_op *reading;  /* the read that waits */
    casync_link waiting; /* connect, drain and finish operations that wait */
    struct casync__fd_queue *received_fds;
    uint32_t flags;
};

/* Makes a stream of a connected descriptor, which becomes the library's (it is made non-blocking and
   close-on-exec; on an error it stays yours). protocol and options may be NULL. connection_made is not
   called: the stream is open when this returns. Errors: -EALREADY if the stream is open, -EPERM for
   regular files (always ready: read(2) them), -EBADF, -EEXIST, -EINVAL, -ENOMEM. */
CASYNC_API int64_t casync_stream_open(casync_loop *loop, casync_stream *stream, int fd,
                                      const casync_protocol *protocol, const casync_stream_options *options);

/* Two streams joined: by socketpair(2), or by pipe(2) from writer to reader. Errors as stream_open,
   and -EMFILE. */
CASYNC_API int64_t casync_socketpair(casync_loop *loop, casync_stream *a, casync_stream *b,
                                     const casync_protocol *protocol, const casync_stream_options *options);
CASYNC_API int64_t casync_pipe(casync_loop *loop, casync_stream *reader, casync_stream *writer,
                               const casync_protocol *protocol, const casync_stream_options *options);

typedef struct casync_connect_desc {
    const char *host; /* "127.0.0.1", "::1", "fe80::1%eth0": numeric; NULL: loopback */
    int port;
    const char *path;                     /* a Unix socket instead; "@name" for an abstract one */
    const char *local_host;               /* bind to this address first, or NULL */
    int local_port;                       /* 0: any */
    const casync_protocol *protocol;      /* connection_made, or connection_lost with the error, follows */
    const casync_stream_options *options; /* or NULL */
} casync_connect_desc;

/* Connects. _start tells the protocol; _op's future is done with 0. The stream may be closed before it is connected.
   Errors at once, or later: -EINVAL for a host that is not numeric, a path that is too long or a bad
   port, -EALREADY if the stream is open, and those of socket(2), bind(2) and connect(2). When
   connect_op fails the stream is closed. */
CASYNC_API int64_t casync_connect_start(casync_loop *loop, casync_stream *stream,
                                        const casync_connect_desc *desc);
CASYNC_API casync_future *casync_connect_op(casync_loop *loop, casync_stream *stream, casync_op *op,
                                            const casync_connect_desc *desc);

/* Reading by operations; one at a time a stream, a second is -EBUSY. With a protocol that has
   data_received or get_buffer they are CASYNC_INVALID_STATE.
   read: 1 to size bytes, as soon as there are any; 0 at the end of the stream.
   read_exactly: size bytes. At an end before that, op->done are in the buffer.
   read_until: up to and with the delimiter (1 to 64 bytes, which must live until then); read_frame: a
   frame. Both give the bytes in future.ptr, inside the stream's buffer, until the next read, and their
   number in result (a LENGTH frame without its prefix).
   Errors: CASYNC_EOF if the stream ended before the first byte (read: 0), CASYNC_INCOMPLETE_READ if it
   ended inside, CASYNC_LIMIT_OVERRUN if there is no frame within the read limit (the bytes stay: read
   them with casync_read_op), errors of read(2), -ECONNABORTED if this side closed or aborted. */
CASYNC_API casync_future *casync_read_op(casync_stream *stream, casync_op *op, void *buffer, size_t size);
CASYNC_API casync_future *casync_read_exactly_op(casync_stream *stream, casync_op *op, void *buffer,
                                                 size_t size);
CASYNC_API casync_future *casync_read_until_op(casync_stream *stream, casync_op *op, const void *delimiter,
                                               size_t size);
CASYNC_API casync_future *casync_read_frame_op(casync_stream *stream, casync_op *op,
                                               const casync_framing *framing);

/* Stops and restarts a protocol's reading: no data_received comes while it is paused, so the other
   side is held up by the kernel's buffers. CASYNC_INVALID_STATE if the stream is not open. */
CASYNC_API int64_t casync_pause_reading(casync_stream *stream);
CASYNC_API int64_t casync_resume_reading(casync_stream *stream);

/* Writes never wait. What the socket does not take at once is queued: copied, or referenced until
   release(arg) is called, inside the call if there is nothing to wait for. Returns how many bytes were
   taken: all, unless memory is short. Errors: CASYNC_INVALID_STATE if not connected, -EPIPE after write_eof or finish, -ENOMEM,
   or what ended the stream (-EPIPE, -ECONNRESET, ...); then release is not called.
   try_write takes what the kernel takes and queues nothing: -EAGAIN if that is nothing.
   write_frame puts a LENGTH framing's prefix before the data: -EMSGSIZE if the length does not fit.
   Cost: one system call when nothing is queued, else none until the socket is writable. */
CASYNC_API int64_t casync_write(casync_stream *stream, const void *data, size_t size);
CASYNC_API int64_t casync_write_ref(casync_stream *stream, const void *data, size_t size,
                                    casync_release release, void *arg);
CASYNC_API int64_t casync_writev(casync_stream *stream, const casync_span *spans, size_t count);
CASYNC_API int64_t casync_try_write(casync_stream *stream, const void *data, size_t size);
CASYNC_API int64_t casync_write_frame(casync_stream *stream, const casync_framing *framing, const void *data,
                                      size_t size);

/* Done (0) when less than the low-water mark is queued, at once unless writing is paused. */
CASYNC_API casync_future *casync_drain_op(casync_stream *stream, casync_op *op);

/* Sets when writing pauses (more than `high` bytes queued) and resumes (`low` or less). (0, 0) pauses
   at the first queued byte. -EINVAL if low > high. */
CASYNC_API int64_t casync_set_write_limits(casync_stream *stream, size_t high, size_t low);

/* Sends the end of the stream once what is queued is sent; reading goes on. -EOPNOTSUPP for pipes: finish them. */
CASYNC_API int64_t casync_write_eof(casync_stream *stream);

/* Ends a stream in order: reading stops, what is queued is sent, then the descriptor is closed. _start
   tells the protocol by connection_lost; _op's future is done with 0 or the error, and the stream
   is closed then. Until that the struct is the stream's. asyncio's transport.close(). */
CASYNC_API int64_t casync_finish_start(casync_stream *stream);
CASYNC_API casync_future *casync_finish_op(casync_stream *stream, casync_op *op);

/* Ends a stream soon, without sending what is queued; connection_lost(-ECONNABORTED) follows by the
   ready queue. asyncio's transport.abort(). */
CASYNC_API int64_t casync_abort(casync_stream *stream);

/* Ends a stream now: no callback follows, operations that wait fail with -ECONNABORTED, the descriptor
   is closed. A closed stream may be closed again. For a connection that a server allocated, the
   memory is freed too. close_reset makes TCP send a reset (SO_LINGER) instead of its normal end. */
CASYNC_API void casync_close(casync_stream *stream);
CASYNC_API void casync_close_reset(casync_stream *stream);

/* Is it open (connected or connecting, and neither closed nor ended)? */
CASYNC_API bool casync_stream_is_open(const casync_stream *stream);

/* A new protocol for an open stream (asyncio's set_protocol). */
CASYNC_API int64_t casync_set_protocol(casync_stream *stream, const casync_protocol *protocol);

/* The two ends of a stream, or a server's address. Errors of getsockname(2) and getpeername(2). */
CASYNC_API int64_t casync_local_address(const casync_stream *stream, casync_address *address);
CASYNC_API int64_t casync_peer_address(const casync_stream *stream, casync_address *address);
CASYNC_API int64_t casync_server_address(const casync_server *server, casync_address *address);

/* TCP_NODELAY; SO_KEEPALIVE with `seconds` of idleness (0: off). Errors of setsockopt(2). */
CASYNC_API int64_t casync_set_nodelay(casync_stream *stream, bool on);
CASYNC_API int64_t casync_set_keepalive(casync_stream *stream, int seconds);

/* Passes a descriptor over a Unix socket, with at least one byte of data (unix(7)). It is duplicated:
   yours stays yours. Errors of dup(2), and of casync_write. */
CASYNC_API int64_t casync_send_fd(casync_stream *stream, int fd, const void *data, size_t size);

/* The next descriptor that came (options.receive_fds): yours, close-on-exec; -EAGAIN if there is none. */
CASYNC_API int64_t casync_receive_fd(casync_stream *stream);

/* Does the stream keep casync_run_until_idle running? At first it does. */
CASYNC_API void casync_stream_ref(casync_stream *stream, bool referenced);

/* A filter sits between the stream's user and the descriptor and turns the bytes of each into those
   of the other: TLS is one. Embed this struct first in yours. All functions return 0 or an error,
   which ends the stream; NULL functions pass things through. */
struct casync_filter {
    /* Bytes came from the descriptor: call casync_filter_receive with what the user is to see. */
    int64_t (*received)(casync_filter *filter, casync_span raw);
    /* The descriptor ended. Call casync_filter_receive first if something is left. */
    int64_t (*received_eof)(casync_filter *filter);
    /* The user writes: call casync_filter_send with what the descriptor is to get. */
    int64_t (*write)(casync_filter *filter, const casync_span *spans, size_t count);
    /* The user is done writing: send a last word, if there is one. */
    int64_t (*write_eof)(casync_filter *filter);
    /* The stream goes. Last call. */
    void (*close)(casync_filter *filter);
    casync_stream *stream; /* set by casync_set_filter */
};

/* Puts a filter into an open stream, before anything was read or written that it should see.
   CASYNC_INVALID_STATE if there is one. */
CASYNC_API int64_t casync_set_filter(casync_stream *stream, casync_filter *filter);
CASYNC_API int64_t casync_filter_receive(casync_filter *filter, const void *data, size_t size);
CASYNC_API int64_t casync_filter_send(casync_filter *filter, const void *data, size_t size);

typedef struct casync_listen_desc {
    const char *host; /* numeric; NULL: all addresses, IPv6 and IPv4 */
    int port;         /* 0: any free one; see casync_server_address */
    const char *path; /* a Unix socket instead; "@name" for an abstract one. A socket file that is in the
                         way is removed, as asyncio does; it is left behind at close */
    int fd;           /* with use_fd: a socket that listens or is bound; becomes the library's */
    bool use_fd;
    bool reuse_port;   /* SO_REUSEPORT: several servers share the port */
    bool ipv6_only;    /* IPV6_V6ONLY */
    bool start_paused; /* do not accept until casync_server_resume (or casync_accept_op) */
    int backlog;       /* default 100, as asyncio */
    /* What becomes of a connection, one of: */
    const casync_protocol *protocol; /* the library allocates it, and its protocol is told */
    void (*accepted)(casync_server *server, int fd, const casync_address *peer); /* it is yours */
    /* neither: casync_accept_op takes them */
    size_t conn_size;     /* bytes allocated and zeroed for a connection; default a bare casync_stream */
    size_t stream_offset; /* where in these its casync_stream is */
    casync_stream_options options; /* for each connection */
    void *user;                    /* server->user */
} casync_listen_desc;

/* A listening socket. Yours, zeroed at first. */
struct casync_server {
    casync_watcher watcher;  /* private, but for server->watcher.fd */
    void *user;              /* yours */
    casync_listen_desc desc; /* read-only */
    casync_link connections; /* private: streams it allocated that are open */
    casync_link waiting;     /* private: accept operations */
    casync_timer retry;      /* private: after the process ran out of descriptors */
    bool open;
};

/* Listens. Errors: -EALREADY if the server is open, -EINVAL as casync_connect_start, and those of
   socket(2), bind(2) and listen(2). On EMFILE and its like accepting stops for 100 ms, which the
   exception handler is told; connections that broke before they were accepted are skipped. */
CASYNC_API int64_t casync_listen(casync_loop *loop, casync_server *server, const casync_listen_desc *desc);

/* Takes one connection into `stream`: done with 0. */
CASYNC_API casync_future *casync_accept_op(casync_server *server, casync_op *op, casync_stream *stream);

/* Stops and restarts accepting. */
CASYNC_API int64_t casync_server_pause(casync_server *server);
CASYNC_API int64_t casync_server_resume(casync_server *server);

/* Stops listening: no connection follows, accept operations fail with -ECONNABORTED. Connections go
   on. May be called again. */
CASYNC_API void casync_server_close(casync_server *server);

/* Aborts, or finishes in order, all connections that the server allocated. */
CASYNC_API void casync_server_abort_clients(casync_server *server);
CASYNC_API void casync_server_finish_clients(casync_server *server);

/* Does the server keep casync_run_until_idle running? At first it does. */
CASYNC_API void casync_server_ref(casync_server *server, bool referenced);

#ifdef __cplusplus
}
#endif

#endif /* CASYNC_H */

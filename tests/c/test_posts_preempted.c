/* >> posts: of threads that are preempted: between any two steps of one thread others may go on. */
static void preempted(const char *point);
#define CASYNC__THREAD_PREEMPT(point) preempted(point)
#include "loop_fixture.h"

#include <semaphore.h>

/* A thread that posts, and stops once on its way, at a point that the header names. */
typedef struct poster {
    pthread_t thread;
    void (*posts)(void);
    const char *stops_at;
    sem_t stopped; /* it is at that point */
    sem_t go_on;
    sem_t settled; /* it has ended, or waits for a lock that a stopped thread may hold */
    bool reached;  /* it was at that point */
} poster;

static poster posters[2];
static int posters_count;
static pthread_mutex_t starting =
    PTHREAD_MUTEX_INITIALIZER; /* held while `thread` of a poster is not known yet */

static poster *this_poster(void) {
    int i;
    for (i = 0; i < posters_count; i++)
        if (pthread_equal(posters[i].thread, pthread_self())) return &posters[i];
    return NULL;
}

static void preempted(const char *point) {
    poster *self = this_poster();
    if (!self) return;
    if (strcmp(point, "lock") == 0) sem_post(&self->settled);
    if (self->reached || strcmp(point, self->stops_at) != 0) return;
    self->reached = true;
    sem_post(&self->stopped);
    sem_wait(&self->go_on);
}

static void *run_poster(void *arg) {
    poster *self = (poster *)arg;
    pthread_mutex_lock(&starting);
    pthread_mutex_unlock(&starting);
    self->posts();
    sem_post(&self->settled);
    sem_post(&self->stopped);
    return NULL;
}

/* Starts a thread that posts, as far as the point. */
static poster *start_and_stop(void (*posts)(void), const char *point) {
    poster *fresh = &posters[posters_count];
    fresh->posts = posts;
    fresh->stops_at = point;
    sem_init(&fresh->stopped, 0, 0);
    sem_init(&fresh->go_on, 0, 0);
    sem_init(&fresh->settled, 0, 0);
    pthread_mutex_lock(&starting);
    fresh->thread = start_thread(run_poster, fresh);
    posters_count++;
    pthread_mutex_unlock(&starting);
    sem_wait(&fresh->stopped);
    EXPECT(fresh->reached);
    return fresh;
}

static void let_go_on(void *arg) { sem_post(&((poster *)arg)->go_on); }

static void post(const char *word) {
    EQ(casync_call_soon_threadsafe(&loop, NULL, say, WORD(word)), 0);
}

static casync_job job;
static void post_job(const char *word) {
    EQ(casync_call_soon_threadsafe(&loop, &job, say, WORD(word)), 0);
}

static void post_first_then_job(void) {
    post("first");
    post_job("then");
}

static void post_other(void) { post("other"); }

static void expect_before(const char *earlier, const char *later) {
    const char *a = strstr(said, earlier), *b = strstr(said, later);
    EXPECT(a && b);
    EXPECT(a < b);
}

/* The loop waits for what a thread was about to write, and nothing of it is lost or comes too
   soon. */
TEST(a_place_that_is_reserved_is_waited_for) {
    poster *stalled;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon_threadsafe(&loop, NULL, let_go_on, &posters[0]), 0);
    stalled = start_and_stop(post_first_then_job, "publish");
    post("behind");
    EQ(casync_run_nowait(&loop), 0); /* the first call lets the thread go on */
    join_thread(stalled->thread);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("first behind then");
    close_loop();
}

/* The batch in which it was about to reserve a place has been run and is open anew, but not to be
   seen by the loop yet, when the thread goes on: its call must not come behind its next one. */
TEST(calls_keep_their_order_although_a_batch_was_recycled) {
    poster *stalled, *opener;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    post("before");
    stalled = start_and_stop(post_first_then_job, "reserve");
    EQ(casync_run_nowait(&loop), 0);
    SAID("before");
    opener = start_and_stop(post_other, "push");
    let_go_on(stalled);
    sem_wait(&stalled->settled);
    let_go_on(opener);
    join_thread(stalled->thread);
    join_thread(opener->thread);
    EQ(casync_run_until_idle(&loop), 0);
    expect_before("first", "then");
    EXPECT(strstr(said, "other"));
    SAID(said);
    close_loop();
}

/* The same, when the loop has run what the opener pushed before this thread is any further. */
TEST(calls_keep_their_order_although_a_batch_was_recycled_twice) {
    poster *stalled, *opener;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    post("before");
    stalled = start_and_stop(post_first_then_job, "reserve");
    EQ(casync_run_nowait(&loop), 0);
    opener = start_and_stop(post_other, "push");
    let_go_on(opener);
    join_thread(opener->thread);
    EQ(casync_run_nowait(&loop), 0);
    SAID("before other");
    let_go_on(stalled);
    join_thread(stalled->thread);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("first then");
    close_loop();
}

/* The loop is faster than the thread that made a batch: what it ran is not opened again. */
TEST(a_batch_may_be_run_before_its_opener_is_done) {
    poster *opener;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    opener = start_and_stop(post_other, "pushed");
    EQ(casync_run_nowait(&loop), 0);
    SAID("other");
    let_go_on(opener);
    join_thread(opener->thread);
    post("next");
    post("last");
    EQ(casync_run_until_idle(&loop), 0);
    SAID("next last");
    close_loop();
}

/* A thread is about to join the batch that the loop closes meanwhile. */
TEST(a_call_that_comes_too_late_for_its_batch_gets_another) {
    poster *stalled;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    post("before");
    stalled = start_and_stop(post_first_then_job, "reserve");
    EQ(casync_run_nowait(&loop), 0);
    SAID("before");
    let_go_on(stalled);
    join_thread(stalled->thread);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("first then");
    close_loop();
}

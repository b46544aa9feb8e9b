/* >> fd watchers: readiness of descriptors, one watcher each, also when numbers are reused. */
#include "loop_fixture.h"

static casync_watcher watcher, second;
static int ends[2], other[2];

static void open_pipe_and_loop(void) {
    make_pipe(ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
}

static void close_pipe_and_loop(void) {
    close_loop();
    close_both(ends);
}

static void read_byte(void *arg) {
    get_byte(ends[0]);
    say(arg);
}

TEST(a_reader_is_called_in_every_turn_in_which_there_is_something) {
    open_pipe_and_loop();
    EQ(casync_add_reader(&loop, &watcher, ends[0], say, WORD("readable")), 0);
    turn();
    SAID("");
    put_byte(ends[1]);
    turn();
    turn();
    SAID("readable readable");
    get_byte(ends[0]);
    turn();
    SAID("");
    close_pipe_and_loop();
}

TEST(a_writer_is_called_while_there_is_room) {
    open_pipe_and_loop();
    EQ(casync_add_writer(&loop, &watcher, ends[1], say, WORD("writable")), 0);
    turn();
    turn();
    SAID("writable writable");
    while (write(ends[1], said, sizeof said) > 0) continue;
    turn();
    SAID("");
    close_pipe_and_loop();
}

TEST(check_tells_that_a_descriptor_became_another_file) {
    open_pipe_and_loop();
    make_pipe(other);
    EQ(casync_watcher_check(&watcher), CASYNC_INVALID_STATE);
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_byte, WORD("readable")), 0);
    EQ(casync_watcher_check(&watcher), 1);
    EQ(dup2(other[0], ends[0]), ends[0]); /* closes what was watched */
    EQ(casync_watcher_check(&watcher), 0);
    EQ(casync_remove_reader(&watcher), 1);
    EQ(casync_watcher_check(&watcher), CASYNC_INVALID_STATE);
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_byte, WORD("readable")), 0);
    EQ(casync_watcher_check(&watcher), 1);
    put_byte(other[1]);
    turn();
    SAID("readable");
    EQ(casync_remove_reader(&watcher), 1);
    close_both(other);
    close_pipe_and_loop();
}

TEST(kind_tells_what_a_watcher_belongs_to) {
    casync_stream stream = ZERO;
    make_socketpair(ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_add_reader(&loop, &watcher, ends[1], never, NULL), 0);
    EQ(casync_stream_open(&loop, &stream, ends[0], NULL, NULL), 0);
    EQ(casync_watcher_kind(casync_watcher_find(&loop, ends[1])), CASYNC_KIND_WATCHER);
    EQ(casync_watcher_kind(casync_watcher_find(&loop, ends[0])), CASYNC_KIND_STREAM);
    EQ(casync_remove_reader(&watcher), 1);
    casync_close(&stream);
    descriptors_before--;
    close_loop();
    close(ends[1]);
}

TEST(one_watcher_watches_both_directions) {
    make_socketpair(ends);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_add_writer(&loop, &watcher, ends[0], say, WORD("writable")), 0);
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_byte, WORD("readable")), 0);
    EQ(watcher.fd, ends[0]);
    put_byte(ends[1]);
    turn();
    SAID("readable writable");
    turn();
    SAID("writable");
    EQ(casync_remove_writer(&watcher), 1);
    put_byte(ends[1]);
    turn();
    SAID("readable");
    close_pipe_and_loop();
}

TEST(adding_again_replaces_the_callback) {
    open_pipe_and_loop();
    put_byte(ends[1]);
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), 0);
    EQ(casync_add_reader(&loop, &watcher, ends[0], say, WORD("new")), 0);
    turn();
    SAID("new");
    close_pipe_and_loop();
}

static void replace_callback(void *arg) {
    say(arg);
    EQ(casync_add_reader(&loop, &watcher, ends[0], say, WORD("replaced")), 0);
}

TEST(a_callback_may_replace_itself) {
    open_pipe_and_loop();
    put_byte(ends[1]);
    EQ(casync_add_reader(&loop, &watcher, ends[0], replace_callback, WORD("replacing")), 0);
    turn();
    turn();
    SAID("replacing replaced");
    close_pipe_and_loop();
}

TEST(remove_says_whether_it_was_watched) {
    open_pipe_and_loop();
    EQ(casync_remove_reader(&watcher), 0);
    EQ(casync_remove_writer(&watcher), 0);
    put_byte(ends[1]);
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), 0);
    EQ(casync_remove_writer(&watcher), 0);
    EQ(casync_remove_reader(&watcher), 1);
    EQ(casync_remove_reader(&watcher), 0);
    turn();
    EXPECT(!casync_loop_alive(&loop));
    close_pipe_and_loop();
}

static void remove_both(void *arg) {
    EQ(casync_remove_reader(&watcher), 1);
    EQ(casync_remove_reader(&second), 1);
    say(arg);
}

TEST(a_callback_may_remove_a_watcher_that_is_ready_in_its_turn) {
    make_pipe(other);
    open_pipe_and_loop();
    put_byte(ends[1]);
    put_byte(other[1]);
    EQ(casync_add_reader(&loop, &watcher, ends[0], remove_both, WORD("removed")), 0);
    EQ(casync_add_reader(&loop, &second, other[0], remove_both, WORD("removed")), 0);
    turn();
    turn();
    SAID("removed");
    close_loop();
    close_both(ends);
    close_both(other);
}

static void remove_and_free(void *arg) {
    EQ(casync_remove_reader((casync_watcher *)arg), 1);
    free(arg);
    say(WORD("freed"));
}

TEST(a_watcher_may_free_itself) {
    casync_watcher *mine = (casync_watcher *)calloc(1, sizeof *mine);
    open_pipe_and_loop();
    put_byte(ends[1]);
    EQ(casync_add_reader(&loop, mine, ends[0], remove_and_free, mine), 0);
    turn();
    turn();
    SAID("freed");
    close_pipe_and_loop();
}

TEST(hangups_and_errors_count_as_readable_and_writable) {
    make_socketpair(ends);
    make_pipe(other);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_add_reader(&loop, &watcher, ends[0], say, WORD("hangup")), 0);
    EQ(casync_add_writer(&loop, &second, other[1], say, WORD("broken")), 0);
    while (write(other[1], said, sizeof said) > 0) continue;
    turn();
    SAID("");
    close(ends[1]);
    turn();
    SAID("hangup");
    EQ(casync_remove_reader(&watcher), 1);
    close(other[0]);
    turn();
    SAID("broken");
    EQ(casync_remove_writer(&second), 1);
    close(ends[0]);
    close(other[1]);
    descriptors_before -= 4;
    close_loop();
}

TEST(regular_files_are_refused_at_once) {
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_add_reader(&loop, &watcher, file, never, NULL), -EPERM);
    EQ(casync_add_writer(&loop, &watcher, file, never, NULL), -EPERM);
    EXPECT(!casync_loop_alive(&loop));
    PTR_EQ(casync_watcher_find(&loop, file), NULL);
    EQ(casync_remove_reader(&watcher), 0);
    turn();
    close_loop();
    close(file);
}

TEST(bad_descriptors_and_arguments_are_refused) {
    open_pipe_and_loop();
    close_both(ends);
    descriptors_before -= 2;
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), -EBADF);
    EQ(casync_add_reader(&loop, &watcher, 1000000, never, NULL), -EBADF);
    EQ(casync_add_reader(&loop, &watcher, INT_MAX, never, NULL), -EBADF);
    EXPECT(casync_add_reader(&loop, &watcher, -1, never, NULL) < 0);
    EXPECT(casync_add_writer(&loop, &watcher, INT_MIN, never, NULL) < 0);
    EQ(casync_add_reader(&loop, &watcher, 0, NULL, NULL), -EINVAL);
    EXPECT(!casync_loop_alive(&loop));
    close_loop();
    EQ(casync_add_reader(&loop, &watcher, 0, never, NULL), -EINVAL);
}

TEST(a_descriptor_has_one_watcher_and_a_watcher_one_descriptor) {
    open_pipe_and_loop();
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), 0);
    PTR_EQ(casync_watcher_find(&loop, ends[0]), &watcher);
    EQ(casync_add_reader(&loop, &second, ends[0], never, NULL), -EEXIST);
    EQ(casync_add_writer(&loop, &watcher, ends[1], never, NULL), -EBUSY);
    EQ(watcher.fd, ends[0]);
    PTR_EQ(casync_watcher_find(&loop, ends[1]), NULL);
    PTR_EQ(casync_watcher_find(&loop, -1), NULL);
    PTR_EQ(casync_watcher_find(&loop, INT_MAX), NULL);
    EQ(casync_remove_reader(&watcher), 1);
    PTR_EQ(casync_watcher_find(&loop, ends[0]), NULL);
    EQ(casync_add_writer(&loop, &watcher, ends[1], say, WORD("moved")), 0);
    turn();
    SAID("moved");
    close_pipe_and_loop();
}

TEST(a_streams_descriptor_is_taken) {
    casync_stream a = ZERO, b = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_socketpair(&loop, &a, &b, NULL, NULL), 0);
    PTR_EQ(casync_watcher_find(&loop, a.endpoint.watcher.fd), &a.endpoint.watcher);
    EQ(casync_add_reader(&loop, &watcher, a.endpoint.watcher.fd, never, NULL), -EEXIST);
    casync_close(&a);
    casync_close(&b);
    close_loop();
}

TEST(add_then_remove_before_the_poll_costs_nothing_later) {
    open_pipe_and_loop();
    put_byte(ends[1]);
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), 0);
    EQ(casync_remove_reader(&watcher), 1);
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_byte, WORD("io")), 0);
    turn();
    SAID("io");
    close_pipe_and_loop();
}

/* >> kept watchers ---------------------------------------------------------------------------- */

/* Reads one byte, with a watcher that rests before and after. */
static void wait_once(void *arg) {
    put_byte(ends[1]);
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_byte, arg), 0);
    casync_watcher_keep(&watcher, true);
    turn();
    EQ(casync_remove_reader(&watcher), 1);
}

static void open_and_rest(void) {
    open_pipe_and_loop();
    wait_once(WORD("first"));
    SAID("first");
}

TEST(a_kept_watcher_starts_again) {
    open_and_rest();
    turn();
    wait_once(WORD("again"));
    SAID("again");
    put_byte(ends[1]);
    turn(); /* nobody wants it, which ends the rest */
    SAID("");
    get_byte(ends[0]);
    wait_once(WORD("and again"));
    SAID("and again");
    close_pipe_and_loop();
}

TEST(a_watcher_at_rest_is_not_there) {
    open_and_rest();
    PTR_EQ(casync_watcher_find(&loop, ends[0]), NULL);
    EQ(casync_remove_reader(&watcher), 0);
    EQ(casync_run_until_idle(&loop), 0);
    close_pipe_and_loop();
}

TEST(a_watcher_at_rest_gives_way) {
    open_and_rest();
    EQ(casync_add_reader(&loop, &second, ends[0], read_byte, WORD("second")), 0);
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), -EEXIST);
    put_byte(ends[1]);
    turn();
    SAID("second");
    EQ(casync_remove_reader(&second), 1);
    wait_once(WORD("first"));
    SAID("first");
    close_pipe_and_loop();
}

TEST(a_watcher_at_rest_may_have_another_descriptor_after_all) {
    open_and_rest();
    close_both(ends);
    make_pipe(ends); /* takes the numbers */
    casync_watcher_keep(&watcher, false);
    wait_once(WORD("another"));
    SAID("another");
    casync_watcher_keep(&watcher, false);
    casync_watcher_keep(&watcher, false);
    EQ(watcher.armed, 0);
    close_pipe_and_loop();
}

TEST(keep_while_it_watches_says_what_will_be) {
    open_pipe_and_loop();
    casync_watcher_keep(&watcher, true); /* was never started: nothing */
    EQ(casync_add_reader(&loop, &watcher, ends[0], read_byte, WORD("io")), 0);
    casync_watcher_keep(&watcher, true);
    casync_watcher_keep(&watcher, false);
    put_byte(ends[1]);
    turn();
    SAID("io");
    EQ(casync_remove_reader(&watcher), 1);
    EQ(watcher.armed, 0);
    close_pipe_and_loop();
}

TEST(a_watcher_at_rest_on_a_closed_descriptor_whose_dup_lives_does_not_spin) {
    int dup_fd, i;
    uint64_t events;
    open_and_rest();
    dup_fd = dup(ends[0]);
    close(ends[0]);
    put_byte(ends[1]);
    for (i = 0; i < 3; i++) turn();
    events = loop.events;
    for (i = 0; i < 3; i++) turn();
    EQ(loop.events, events);
    SAID("");
    close(dup_fd);
    close(ends[1]);
    descriptors_before -= 2;
    close_loop();
}

/* >> stale events: the kernel watches open files, not numbers --------------------------------- */

TEST(a_dup_of_a_closed_descriptor_keeps_nothing_alive) {
    int dup_fd, i;
    open_pipe_and_loop();
    put_byte(ends[1]);
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), 0);
    dup_fd = dup(ends[0]);
    EQ(casync_remove_reader(&watcher), 1);
    close(ends[0]);
    for (i = 0; i < 3; i++) turn();
    make_pipe(other); /* takes the number */
    EQ(casync_add_reader(&loop, &second, other[0], say, WORD("wrong")), 0);
    for (i = 0; i < 3; i++) turn();
    SAID("");
    put_byte(other[1]);
    turn();
    SAID("wrong");
    close(dup_fd);
    close(ends[1]);
    close_both(other);
    descriptors_before -= 2;
    close_loop();
}

/* The user's mistake that everybody makes: closing before removing. While a dup lives, epoll goes
   on reporting an open file that no number leads to. */
TEST(closing_first_while_a_dup_lives_does_not_spin_or_misfire) {
    int dup_fd, i;
    open_pipe_and_loop();
    put_byte(ends[1]);
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), 0);
    dup_fd = dup(ends[0]);
    close(ends[0]);
    casync_remove_reader(&watcher);
    for (i = 0; i < 5; i++) turn();
    close(dup_fd);
    close(ends[1]);
    descriptors_before -= 2;
    close_loop();
}

TEST(an_event_of_the_old_file_is_not_taken_for_the_new) {
    int dup_fd, i;
    open_pipe_and_loop();
    put_byte(ends[1]);
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), 0);
    dup_fd = dup(ends[0]);
    close(ends[0]);
    casync_remove_reader(&watcher); /* too late: the kernel answers EBADF */
    make_pipe(other);
    EQ(other[0], ends[0]);
    EQ(casync_add_reader(&loop, &second, other[0], say, WORD("new")), 0);
    for (i = 0; i < 5; i++) turn();
    SAID("");
    put_byte(other[1]);
    turn();
    turn();
    EXPECT(strcmp(said, "new") == 0 || strcmp(said, "new new") == 0);
    said_size = 0;
    said[0] = 0;
    close(dup_fd);
    close(ends[1]);
    close_both(other);
    descriptors_before -= 2;
    close_loop();
}

TEST(after_the_stale_event_a_wait_really_waits) {
    int dup_fd;
    uint64_t polls;
    casync_timer timer = ZERO;
    open_pipe_and_loop();
    put_byte(ends[1]);
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), 0);
    dup_fd = dup(ends[0]);
    close(ends[0]);
    casync_remove_reader(&watcher);
    turn();
    turn();
    polls = loop.polls;
    EQ(casync_call_later(&loop, &timer, CASYNC_MS(20), say, WORD("timer")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("timer");
    EXPECT(loop.polls - polls < 100); /* a stale event that stays would end every wait at once */
    close(dup_fd);
    close(ends[1]);
    descriptors_before -= 2;
    close_loop();
}

static void close_and_reuse(void *arg) {
    say(arg);
    EQ(casync_remove_reader(&second), 1);
    close(other[0]);
    close(other[1]);
    make_pipe(other);
    EQ(casync_add_reader(&loop, &second, other[0], never, NULL), 0);
}

/* Both are ready in one batch; the first callback replaces the second's file under its number. */
TEST(a_number_reused_within_a_turn_gets_no_event_of_its_predecessor) {
    make_pipe(other);
    open_pipe_and_loop();
    put_byte(ends[1]);
    put_byte(other[1]);
    EQ(casync_add_reader(&loop, &watcher, ends[0], close_and_reuse, WORD("reuse")), 0);
    EQ(casync_add_reader(&loop, &second, other[0], close_and_reuse, WORD("unlucky")), 0);
    turn();
    EXPECT(strncmp(said, "reuse", 5) == 0 || strncmp(said, "unlucky", 7) == 0);
    said_size = 0;
    said[0] = 0;
    EQ(casync_remove_reader(&watcher), 1);
    turn();
    close_loop();
    close_both(ends);
    close_both(other);
}

TEST(a_forked_copy_of_a_closed_descriptor_does_no_harm) {
    int gate[2], i;
    pid_t pid;
    EQ(pipe(gate), 0);
    open_pipe_and_loop();
    put_byte(ends[1]);
    EQ(casync_add_reader(&loop, &watcher, ends[0], never, NULL), 0);
    pid = fork_child();
    if (pid == 0) { /* holds the files until the parent has looked */
        get_byte(gate[0]);
        _exit(0);
    }
    EQ(casync_remove_reader(&watcher), 1);
    close(ends[0]);
    for (i = 0; i < 5; i++) turn();
    make_pipe(other);
    EQ(casync_add_reader(&loop, &second, other[0], never, NULL), 0);
    for (i = 0; i < 5; i++) turn();
    put_byte(gate[1]);
    EQ(child_status(pid), 0);
    close(ends[1]);
    close_both(other);
    descriptors_before -= 2;
    close_loop();
}

/* >> many ------------------------------------------------------------------------------------- */

enum { MANY = 400 };
static casync_watcher many[MANY];
static int many_ends[MANY][2];
static int many_called[MANY];

static void called(void *arg) {
    int i = (int)((casync_watcher *)arg - many);
    get_byte(many_ends[i][0]);
    many_called[i]++;
}

TEST(many_descriptors_ready_at_once_are_each_called) {
    int i, round;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    for (i = 0; i < MANY; i++) {
        make_pipe(many_ends[i]);
        EQ(casync_add_reader(&loop, &many[i], many_ends[i][0], called, &many[i]), 0);
    }
    for (round = 1; round <= 3; round++) {
        for (i = 0; i < MANY; i++) put_byte(many_ends[i][1]);
        while (true) {
            int sum = 0;
            for (i = 0; i < MANY; i++) sum += many_called[i];
            if (sum == round * MANY) break;
            EQ(casync_run_once(&loop), 0);
        }
        for (i = 0; i < MANY; i++) EQ(many_called[i], round);
    }
    for (i = 0; i < MANY; i++) {
        EQ(casync_remove_reader(&many[i]), 1);
        close_both(many_ends[i]);
    }
    close_loop();
}

TEST(without_memory_for_the_table_nothing_is_watched) {
    int64_t n;
    for (n = 1;; n++) {
        int64_t result;
        open_pipe_and_loop();
        fail_allocation(n, 1);
        result = casync_add_reader(&loop, &watcher, ends[0], read_byte, WORD("io"));
        fail_no_allocation();
        if (result == 0) break;
        EQ(result, -ENOMEM);
        EXPECT(!casync_loop_alive(&loop));
        PTR_EQ(casync_watcher_find(&loop, ends[0]), NULL);
        EQ(casync_add_reader(&loop, &watcher, ends[0], read_byte, WORD("io")), 0);
        put_byte(ends[1]);
        turn();
        SAID("io");
        EQ(casync_remove_reader(&watcher), 1);
        close_pipe_and_loop();
    }
    EXPECT(n > 1);
    close_pipe_and_loop();
}

/* >> all sections: what every public function answers to NULL, and to a zeroed struct of its kind:
   an error, or nothing, false, 0 or NULL where it has no result. The cases name every function that
   the header declares. */
#include "arguments_cases_core.h"
#include "arguments_cases_files.h"
#include "arguments_cases_io.h"

/* >> each section ----------------------------------------------------------------------------- */

TEST(clock_and_loop_of_nothing) {
    share_progress();
    run_cases(clock_and_loop, false);
}

TEST(timers_and_futures_of_nothing) {
    share_progress();
    run_cases(timers_and_futures, false);
}

TEST(watchers_posts_and_signals_of_nothing) {
    share_progress();
    run_cases(watchers_posts_and_signals, false);
}

TEST(buffers_of_nothing) {
    share_progress();
    run_cases(buffers, false);
}

TEST(tasks_of_nothing) {
    share_progress();
    run_cases(tasks, false);
}

TEST(groups_of_futures_and_tasks_of_nothing) {
    share_progress();
    run_cases(groups_of_futures_and_tasks, false);
}

TEST(sync_primitives_of_nothing) {
    share_progress();
    run_cases(sync_primitives, false);
}

TEST(addresses_of_nothing) {
    share_progress();
    run_cases(addresses, false);
    run_cases(names, false);
}

TEST(processes_of_nothing) {
    share_progress();
    run_cases(processes, false);
}

TEST(files_of_nothing) {
    share_progress();
    run_cases(files, false);
    run_cases(watches, false);
    run_cases(terminals, false);
}

TEST(streams_of_nothing) {
    share_progress();
    run_cases(streams, false);
}

TEST(servers_of_nothing) {
    share_progress();
    run_cases(servers, false);
}

TEST(datagrams_of_nothing) {
    share_progress();
    run_cases(datagrams, false);
}

TEST(pools_and_metrics_of_nothing) {
    share_progress();
    run_cases(pools_and_metrics, false);
}

TEST(waits_of_nothing) {
    share_progress();
    run_cases(waits, true);
}

/* >> that they are all ------------------------------------------------------------------------- */

/* The header beside which the tests run, or from whose directory they were compiled. */
static FILE *open_header(void) {
    FILE *header = fopen("casync.h", "re");
    char path[4096];
    const char *directory = strrchr(__FILE__, '/');
    if (header || !directory) return header;
    snprintf(path, sizeof path, "%.*s/../../casync.h", (int)(directory - __FILE__), __FILE__);
    return fopen(path, "re");
}

/* The name that stands before the parenthesis. */
static void note_declaration(char *line) {
    char *end = strchr(line, '('), *begin = end;
    EXPECT(end);
    while (begin > line && (begin[-1] == '_' || (begin[-1] >= 'a' && begin[-1] <= 'z'))) begin--;
    EXPECT(declared_count < FUNCTIONS_MAX);
    snprintf(declared[declared_count++].name, sizeof declared[0].name, "%.*s", (int)(end - begin),
             begin);
}

static void read_declarations(void) {
    FILE *header = open_header();
    char line[256];
    bool is_there = true;
    if (!header) SKIP("the header is not where the tests run");
    while (fgets(line, sizeof line, header) && strncmp(line, "#endif /* CASYNC_H */", 21) != 0) {
        if (strncmp(line, "#ifdef CASYNC_OPENSSL", 21) == 0) is_there = false; /* see tls/ */
        if (strncmp(line, "#endif", 6) == 0) is_there = true;
        if (is_there &&
            (strncmp(line, "CASYNC_API ", 11) == 0 || strncmp(line, "CASYNC_WAITS ", 13) == 0))
            note_declaration(line);
    }
    fclose(header);
}

TEST(every_function_has_its_cases) {
    int i, missing = 0;
    share_progress();
    read_declarations();
    EXPECT(declared_count > 200);
    only_naming = true;
    clock_and_loop();
    timers_and_futures();
    watchers_posts_and_signals();
    buffers();
    tasks();
    groups_of_futures_and_tasks();
    sync_primitives();
    addresses();
    names();
    processes();
    files();
    watches();
    terminals();
    streams();
    servers();
    datagrams();
    pools_and_metrics();
    for (i = 0; i < declared_count; i++) {
        if (declared[i].has_case) continue;
        printf("# no case for %s\n", declared[i].name);
        missing++;
    }
    EQ(missing, 0);
}

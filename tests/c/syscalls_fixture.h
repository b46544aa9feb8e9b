/* syscalls_fixture.h - the seam to the kernel in the tests' hands: every call is counted, and fails
   when it is told. It comes before the other fixtures, as it asks for the table of calls. */
#ifndef SYSCALLS_FIXTURE_H
#define SYSCALLS_FIXTURE_H

#define CASYNC_SYSCALL_TABLE
#include "loop_fixture.h"

/* Every entry of the table is replaced by one that counts, and fails when it is told. */
static struct {
    const char *name; /* which call fails; NULL: any */
    int64_t skip;     /* so many are let through first */
    int64_t count;    /* so many fail */
    int64_t error;
} fault;

static int64_t calls_made;
static char last_failed[32];

static struct {
    const char *name;
    int64_t calls;
} counters[256];

static void count_call(const char *name) {
    int i = 0;
    while (counters[i].name && strcmp(counters[i].name, name) != 0) i++;
    counters[i].name = name;
    counters[i].calls++;
    calls_made++;
}

HELPER int64_t calls(const char *name) {
    int i;
    for (i = 0; counters[i].name; i++)
        if (strcmp(counters[i].name, name) == 0) return counters[i].calls;
    return 0;
}

HELPER void forget_calls(void) {
    memset(counters, 0, sizeof counters);
    calls_made = 0;
}

static bool fails(const char *name) {
    count_call(name);
    if (fault.count == 0 || (fault.name && strcmp(fault.name, name) != 0)) return false;
    if (fault.skip-- > 0) return false;
    fault.count--;
    snprintf(last_failed, sizeof last_failed, "%s", name);
    return true;
}

/* close(2) frees the descriptor also when it reports an error. */
static bool takes_effect(const char *name) { return strcmp(name, "close") == 0; }

#define FAULTY(name, parameters, arguments, call)                                                  \
    static int64_t faulty_##name parameters {                                                      \
        if (!fails(#name)) return casync__direct_##name arguments;                                 \
        if (takes_effect(#name)) (void)casync__direct_##name arguments;                            \
        return fault.error;                                                                        \
    }
#define INSTALL(name, parameters, arguments, call) casync_syscalls.name = faulty_##name;

CASYNC__SYS_CALLS(FAULTY)
CASYNC__SYS_CALLS_ONCE(FAULTY)

static void install_faults(void){CASYNC__SYS_CALLS(INSTALL) CASYNC__SYS_CALLS_ONCE(INSTALL)}

HELPER void fail_calls(const char *name, int64_t skip, int64_t count, int64_t error) {
    install_faults();
    fault.name = name;
    fault.skip = skip;
    fault.count = count;
    fault.error = error;
}

HELPER void ignore_exception(casync_loop *where, const casync_exception *exception, void *arg) {
    (void)where, (void)exception, (void)arg;
}

#endif /* SYSCALLS_FIXTURE_H */

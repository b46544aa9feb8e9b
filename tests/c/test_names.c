/* >> names: addresses are looked up in threads, and nobody who gave up is written to. */
#include "names_fixture.h"

#include <net/if.h>
#include <netdb.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

static int64_t return_seven(void *arg, void **ptr) {
    (void)arg, (void)ptr;
    return 7;
}

/* >> without a thread -------------------------------------------------------------------------- */

TEST(addresses_in_numbers_are_answered_at_once) {
    open_names(CASYNC_CLOCK_MONOTONIC);
    question.host = "192.0.2.7";
    EQ(casync_future_result(ask(1)), 1);
    found_is(1, "192.0.2.7:80");
    question.host = "2001:db8::1";
    question.port = 0;
    EQ(casync_future_result(ask(1)), 1);
    found_is(1, "[2001:db8::1]:0");
    question.family = AF_INET;
    EQ(casync_future_result(ask(1)), CASYNC_EAI_ADDRFAMILY);
    EQ(resolver.asked, 0);
    EQ(pool_threads(), 0);
    close_pool_loop();
}

TEST(no_host_is_this_one) {
    open_names(CASYNC_CLOCK_MONOTONIC);
    question.host = NULL;
    EQ(casync_future_result(ask(1)), 2);
    found_is(1, "[::1]:80 127.0.0.1:80");
    question.flags = AI_PASSIVE;
    EQ(casync_future_result(ask(1)), 2);
    found_is(1, "[::]:80 0.0.0.0:80");
    question.family = AF_INET;
    EQ(casync_future_result(ask(1)), 1);
    found_is(1, "0.0.0.0:80");
    EQ(pool_threads(), 0);
    close_pool_loop();
}

TEST(bad_questions_are_refused_at_once) {
    static char long_name[10001];
    open_names(CASYNC_CLOCK_MONOTONIC);
    memset(long_name, 'x', sizeof long_name - 1);
    question.host = long_name;
    EQ(casync_future_result(ask(1)), CASYNC_EAI_NONAME);
    question.host = "host.test";
    question.service = long_name;
    EQ(casync_future_result(ask(1)), CASYNC_EAI_SERVICE);
    question.service = NULL;
    question.port = 65536;
    EQ(casync_future_result(ask(1)), -EINVAL);
    question.port = -1;
    EQ(casync_future_result(ask(1)), -EINVAL);
    question.port = 80;
    question.family = AF_UNIX;
    EQ(casync_future_result(ask(1)), CASYNC_EAI_FAMILY);
    question.family = 0;
    question.host = "fe80::1%nonesuch0";
    EQ(casync_future_result(ask(1)), CASYNC_EAI_NONAME);
    EQ(resolver.asked, 0);
    EQ(pool_threads(), 0);
    close_pool_loop();
}

/* >> by a thread ------------------------------------------------------------------------------- */

TEST(a_name_is_looked_up) {
    open_names(CASYNC_CLOCK_MONOTONIC);
    resolver_knows("2001:db8::5");
    resolver_knows("192.0.2.5");
    EQ(casync_run_until_complete(ask(1)), 2);
    found_is(1, "[2001:db8::5]:80 192.0.2.5:80");
    EQ(resolver.freed, 1);
    close_pool_loop();
}

TEST(a_name_without_an_address_is_an_error) {
    open_names(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_run_until_complete(ask(1)), CASYNC_EAI_NODATA);
    PTR_EQ(found[1].addresses, NULL);
    close_pool_loop();
}

TEST(a_name_may_have_a_thousand_addresses) {
    open_names(CASYNC_CLOCK_MONOTONIC);
    while (resolver.count < 1000) resolver_knows("192.0.2.5");
    EQ(casync_run_until_complete(ask(1)), 1000);
    EQ(casync_address_port(&found[1].addresses[999]), 80);
    casync_addrinfo_free(&found[1]);
    close_pool_loop();
}

TEST(the_errors_of_the_resolver_have_codes_and_words) {
    static const struct {
        int error;
        int64_t code;
    } errors[] = {{EAI_BADFLAGS, CASYNC_EAI_BADFLAGS}, {EAI_NONAME, CASYNC_EAI_NONAME},
                  {EAI_AGAIN, CASYNC_EAI_AGAIN},       {EAI_FAIL, CASYNC_EAI_FAIL},
                  {EAI_FAMILY, CASYNC_EAI_FAMILY},     {EAI_SOCKTYPE, CASYNC_EAI_SOCKTYPE},
                  {EAI_SERVICE, CASYNC_EAI_SERVICE},   {EAI_OVERFLOW, CASYNC_EAI_OVERFLOW}};
    size_t i;
    open_names(CASYNC_CLOCK_MONOTONIC);
    for (i = 0; i < sizeof errors / sizeof *errors; i++) {
        resolver.error = casync__name_result(errors[i].error);
        EQ(casync_run_until_complete(ask(1)), errors[i].code);
        EXPECT(strcmp(casync_strerror(errors[i].code), casync_strerror(-5099)) != 0);
    }
    errno = 0;
    EQ(casync__name_result(EAI_MEMORY), -1);
    EQ(errno, ENOMEM);
    errno = ENFILE;
    EQ(casync__name_result(EAI_SYSTEM), -1);
    EQ(errno, ENFILE);
    resolver.error = -ENFILE;
    EQ(casync_run_until_complete(ask(1)), -ENFILE);
    close_pool_loop();
}

TEST(want_of_memory_is_an_error_of_who_wanted_it) {
    int n, failures = 0;
    open_names(CASYNC_CLOCK_MONOTONIC);
    resolver_knows("192.0.2.5");
    for (n = 1; failures < n; n++) {
        int64_t result;
        casync__pool_close(&loop.executor); /* so that it is made anew */
        pthread_mutex_lock(&memory_mutex);
        fail_allocation(n, 1);
        pthread_mutex_unlock(&memory_mutex);
        result = casync_run_until_complete(ask(1));
        pthread_mutex_lock(&memory_mutex);
        fail_no_allocation();
        pthread_mutex_unlock(&memory_mutex);
        if (result > 0) break;
        EQ(result, -ENOMEM);
        failures++;
    }
    EQ(failures, 4); /* the pool, the question, the call, the addresses */
    found_is(1, "192.0.2.5:80");
    close_pool_loop();
}

/* >> the same question ------------------------------------------------------------------------- */

TEST(what_is_being_looked_up_is_not_asked_again) {
    open_names(CASYNC_CLOCK_MONOTONIC);
    resolver_knows("192.0.2.5");
    resolver.waits_at_gate = true;
    ask(1);
    ask(2);
    question.port = 81;
    ask(3);
    wait_inside(2);
    let_pass(2);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(resolver.asked, 2);
    found_is(1, "192.0.2.5:80");
    found_is(2, "192.0.2.5:80");
    found_is(3, "192.0.2.5:81");
    question.port = 80;
    ask(1);
    let_pass(1);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(resolver.asked, 3); /* an answer is not kept */
    found_is(1, "192.0.2.5:80");
    close_pool_loop();
}

TEST(who_gives_up_leaves_the_others_their_answer) {
    open_names(CASYNC_CLOCK_MONOTONIC);
    resolver_knows("192.0.2.5");
    resolver.waits_at_gate = true;
    ask(1);
    ask(2);
    wait_inside(1);
    EQ(casync_future_cancel(&ops[1].future), 1);
    EQ(ops[1].future.result, -ECANCELED);
    let_pass(1);
    EQ(casync_run_until_complete(&ops[2].future), 1);
    PTR_EQ(found[1].addresses, NULL);
    found_is(2, "192.0.2.5:80");
    EQ(resolver.freed, 1);
    close_pool_loop();
}

TEST(when_all_gave_up_the_answer_is_freed) {
    open_names(CASYNC_CLOCK_MONOTONIC);
    resolver_knows("192.0.2.5");
    resolver.waits_at_gate = true;
    ask(1);
    ask(2);
    wait_inside(1);
    EQ(casync_future_cancel(&ops[1].future), 1);
    casync_future_close(&ops[2].future);
    EXPECT(!casync_loop_alive(&loop));
    memset(ops, 0xff, sizeof ops); /* they are the caller's again */
    let_pass(1);
    wait_freed(1);
    close_pool_loop();
}

TEST(a_loop_may_close_while_a_name_is_looked_up) {
    open_names(CASYNC_CLOCK_MONOTONIC);
    resolver_knows("192.0.2.5");
    resolver.waits_at_gate = true;
    ask(1);
    wait_inside(1);
    EQ(casync_loop_close(&loop), 0);
    let_pass(1);
    wait_freed(1);
    close_pool_loop();
    PTR_EQ(found[1].addresses, NULL);
}

static int64_t asks_for_a_while(casync_loop *where, void *arg) {
    (void)arg;
    return casync_getaddrinfo_timeout(where, &found[1], &question, CASYNC_MS(50));
}

TEST(a_slow_name_server_can_be_given_up) {
    casync_task *task;
    open_names(CASYNC_CLOCK_VIRTUAL_FORCED);
    resolver_knows("192.0.2.5");
    resolver.waits_at_gate = true;
    task = casync_spawn(&loop, asks_for_a_while, NULL);
    EQ(casync_run_until_complete(&task->future), -ETIMEDOUT);
    casync_task_release(task);
    let_pass(1);
    close_pool_loop();
    PTR_EQ(found[1].addresses, NULL);
}

/* >> threads ----------------------------------------------------------------------------------- */

TEST(slow_names_leave_threads_to_other_calls) {
    static char names[64][16];
    int n, limit;
    open_names(CASYNC_CLOCK_MONOTONIC);
    resolver_knows("192.0.2.5");
    resolver.waits_at_gate = true;
    for (n = 0; n < 64; n++) {
        snprintf(names[n], sizeof names[n], "host%d.test", n);
        question.host = names[n];
        casync_getaddrinfo_op(&loop, &found[0], &ops[n], &question);
    }
    limit = (int)(loop.executor->size + 1) / 2;
    EXPECT(limit < (int)loop.executor->size);
    wait_inside(limit);
    casync_run_in_executor_op(&loop, NULL, &ops[100], return_seven, NULL, NULL);
    EQ(casync_run_until_complete(&ops[100].future), 7);
    EQ(resolver.asked, limit);
    for (n = 1; n < 64; n++) casync_future_cancel(&ops[n].future); /* those held, and those asked */
    let_pass(64);
    EQ(casync_run_until_complete(&ops[0].future), 1);
    casync_addrinfo_free(&found[0]);
    close_pool_loop();
    EXPECT(resolver.asked <= limit);
}

TEST(names_that_were_held_are_looked_up_in_their_order) {
    static char names[16][16];
    int n;
    open_names(CASYNC_CLOCK_MONOTONIC);
    resolver_knows("192.0.2.5");
    for (n = 0; n < 16; n++) {
        snprintf(names[n], sizeof names[n], "host%d.test", n);
        question.host = names[n];
        ask(n);
    }
    EQ(casync_run_until_idle(&loop), 0);
    EQ(resolver.asked, 16);
    for (n = 0; n < 16; n++) found_is(n, "192.0.2.5:80");
    close_pool_loop();
}

TEST(a_forked_child_hears_that_nobody_looks_up) {
    int status;
    pid_t child;
    skip_under_qemu("qemu-user does not zero pages in a child");
    open_names(CASYNC_CLOCK_MONOTONIC);
    resolver_knows("192.0.2.5");
    resolver.waits_at_gate = true;
    ask(1);
    ask(2);
    wait_inside(1);
    child = fork();
    if (child == 0) {
        EQ(casync_loop_fork(&loop), 0);
        EQ(casync_run_until_complete(&ops[1].future), -ECHILD);
        EQ(casync_run_until_complete(&ops[2].future), -ECHILD);
#ifndef __SANITIZE_THREAD__ /* which starts no threads in a forked child */
        resolver.waits_at_gate = false;
        EQ(casync_run_until_complete(ask(1)), 1);
        found_is(1, "192.0.2.5:80");
#endif
        _exit(0);
    }
    EXPECT(child > 0);
    EQ(waitpid(child, &status, 0), child);
    EQ(status, 0);
    let_pass(1);
    EQ(casync_run_until_idle(&loop), 0);
    found_is(1, "192.0.2.5:80");
    found_is(2, "192.0.2.5:80");
    close_pool_loop();
}

/* >> the names of addresses -------------------------------------------------------------------- */

static int64_t answer_name(const struct sockaddr *address, socklen_t size, casync_nameinfo *info,
                           int flags) {
    (void)address, (void)size;
    if (flags & NI_NAMEREQD) return casync__name_result(EAI_NONAME);
    snprintf(info->host, sizeof info->host, "host.test");
    snprintf(info->service, sizeof info->service, "http");
    return 0;
}

TEST(an_address_has_a_name) {
    casync_nameinfo info = ZERO;
    casync_address address;
    open_names(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_address_from_host(&address, "192.0.2.5", 80), 0);
    casync_getnameinfo_op(&loop, &info, &ops[1], &address, NI_NUMERICHOST | NI_NUMERICSERV);
    EQ(casync_future_result(&ops[1].future), 0);
    STR_EQ(info.host, "192.0.2.5");
    STR_EQ(info.service, "80");
    EQ(pool_threads(), 0);
    casync_syscalls.getnameinfo = answer_name;
    casync_getnameinfo_op(&loop, &info, &ops[1], &address, 0);
    EQ(casync_run_until_complete(&ops[1].future), 0);
    STR_EQ(info.host, "host.test");
    STR_EQ(info.service, "http");
    casync_getnameinfo_op(&loop, &info, &ops[1], &address, NI_NAMEREQD);
    EQ(casync_run_until_complete(&ops[1].future), CASYNC_EAI_NONAME);
    casync_getnameinfo_op(&loop, &info, &ops[1], &address, 0);
    EQ(casync_future_cancel(&ops[1].future), 1);
    close_pool_loop();
}

/* >> the C library's own resolver, with a name server of the test's ---------------------------- */

/* Answers one question by UDP: names that begin with "both", "empty" and "broken". Others get no
   answer. */
static size_t answer_query(uint8_t *message, size_t size) {
    static const uint8_t address4[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 5};
    static const uint8_t address6[] = {0xc0, 12,   0, 28, 0, 1, 0, 0, 0, 9, 0, 16, 0x20, 1,
                                       0xd,  0xb8, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,  0,    5};
    const char *name = (const char *)message + 13;
    uint8_t *end = message + 12;
    bool ipv6;
    while (*end) end += *end + 1;
    end += 5;
    ipv6 = end[-3] == 28;
    size = (size_t)(end - message); /* without what the question adds (EDNS) */
    message[2] |= 0x80;
    message[3] = (uint8_t)(0x80 | (strncmp(name, "broken", 6) == 0 ? 2 : 0));
    memset(message + 6, 0, 6);
    if (strncmp(name, "both", 4) != 0)
        return strncmp(name, "empty", 5) == 0 || message[3] != 0x80 ? size : 0;
    message[7] = 1;
    memcpy(end, ipv6 ? address6 : address4, ipv6 ? sizeof address6 : sizeof address4);
    return size + (ipv6 ? sizeof address6 : sizeof address4);
}

static void *serve_names(void *arg) {
    int fd = (int)(intptr_t)arg;
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    uint8_t message[1024];
    ssize_t size;
    while ((size = recvfrom(fd, message, 512, 0, (struct sockaddr *)&from, &length)) > 0) {
        size_t answer = answer_query(message, (size_t)size);
        if (answer > 0) sendto(fd, message, answer, 0, (struct sockaddr *)&from, length);
    }
    return NULL;
}

static bool put_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    bool put = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0) close(fd);
    return put;
}

/* In a network and a tree of files of this process's own: port 53 of 127.0.0.1 is free there. */
static int open_name_server(pthread_t *thread) {
    char directory[] = "/tmp/casync-names-XXXXXX", path[64];
    struct sockaddr_in address;
    struct ifreq request;
    int fd;
    if (unshare(CLONE_NEWNS | CLONE_NEWNET) < 0) SKIP("no namespaces for this user");
    EQ(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    EXPECT(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/resolv.conf", directory);
    EXPECT(put_file(path, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"));
    EQ(mount(path, "/etc/resolv.conf", NULL, MS_BIND, NULL), 0);
    EQ(unlink(path), 0);
    EQ(rmdir(directory), 0);
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    EXPECT(fd >= 0);
    memset(&request, 0, sizeof request);
    snprintf(request.ifr_name, sizeof request.ifr_name, "lo");
    request.ifr_flags = IFF_UP;
    EQ(ioctl(fd, SIOCSIFFLAGS, &request), 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons(53);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EQ(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    EQ(pthread_create(thread, NULL, serve_names, (void *)(intptr_t)fd), 0);
    return fd;
}

TEST(the_c_librarys_resolver_is_asked) {
    pthread_t thread;
    int fd;
    if (under_valgrind()) SKIP("valgrind knows no namespaces");
    skip_under_qemu("qemu-user knows no namespaces");
    fd = open_name_server(&thread);
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    question.host = "both.test";
    question.port = 80;
    EQ(casync_run_until_complete(ask(1)), 2);
    casync_addrinfo_free(&found[1]);
    question.family = AF_INET;
    EQ(casync_run_until_complete(ask(1)), 1);
    found_is(1, "192.0.2.5:80");
    question.family = AF_INET6;
    EQ(casync_run_until_complete(ask(1)), 1);
    found_is(1, "[2001:db8::5]:80");
    question.family = 0;
    question.host = "empty.test"; /* glibc tells that the name is there, musl does not */
    EXPECT(casync_run_until_complete(ask(1)) == CASYNC_EAI_NODATA ||
           casync_future_result(&ops[1].future) == CASYNC_EAI_NONAME);
    question.host = "broken.test";
    EQ(casync_run_until_complete(ask(1)), CASYNC_EAI_AGAIN);
    question.host = "silent.test";
    EQ(casync_run_until_complete(ask(1)), CASYNC_EAI_AGAIN);
    EQ(casync_loop_close(&loop), 0);
    shutdown(fd, SHUT_RDWR);
    EQ(pthread_join(thread, NULL), 0);
    close(fd);
}

/* names_fixture.h - a resolver in the tests' hands: getaddrinfo is replaced in the table of system
   calls by one that answers from a list, waits at the gate, or fails. */
#ifndef NAMES_FIXTURE_H
#define NAMES_FIXTURE_H

#include "pool_fixture.h"

HELPER casync_getaddrinfo_desc question;
HELPER casync_addrinfo found[16];

/* What the resolver knows: of every name. With waits_at_gate it answers when it is let. */
HELPER struct {
    const char *hosts[1024]; /* in numbers */
    int count;
    int64_t error; /* instead of an answer: what casync__sys_getaddrinfo returns */
    bool waits_at_gate;
    int asked, freed; /* with the gate's mutex */
} resolver;

/* One block, as glibc's: the entry and its address. */
HELPER struct addrinfo *resolver_entry(const char *host, const struct addrinfo *hints) {
    struct addrinfo *entry = (struct addrinfo *)calloc(1, sizeof *entry + sizeof(casync_address));
    casync_address address;
    EXPECT(entry);
    EQ(casync_address_from_host(&address, host, 0), 0);
    entry->ai_addr = (struct sockaddr *)(void *)(entry + 1);
    entry->ai_addrlen = address.size;
    entry->ai_socktype = hints->ai_socktype;
    memcpy(entry->ai_addr, address.storage.bytes, address.size);
    entry->ai_family = entry->ai_addr->sa_family;
    return entry;
}

HELPER int64_t resolver_answer(const char *host, const char *service, const struct addrinfo *hints,
                               struct addrinfo **answer) {
    struct addrinfo **last = answer;
    void *nothing;
    int i;
    (void)host, (void)service;
    pthread_mutex_lock(&gate.mutex);
    resolver.asked++;
    pthread_mutex_unlock(&gate.mutex);
    if (resolver.waits_at_gate) pass_gate(NULL, &nothing);
    if (resolver.error) return resolver.error;
    for (i = 0; i < resolver.count; i++) {
        *last = resolver_entry(resolver.hosts[i], hints);
        if (hints->ai_family && (*last)->ai_family != hints->ai_family)
            free(*last);
        else
            last = &(*last)->ai_next;
    }
    *last = NULL;
    return 0;
}

HELPER int64_t resolver_free(struct addrinfo *answer) {
    while (answer) {
        struct addrinfo *next = answer->ai_next;
        free(answer);
        answer = next;
    }
    pthread_mutex_lock(&gate.mutex);
    resolver.freed++;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.mutex);
    return 0;
}

HELPER void resolver_knows(const char *host) { resolver.hosts[resolver.count++] = host; }

/* Opens the loop with the resolver in place of the C library's. */
HELPER void open_names(int clock) {
    open_pool_loop(clock);
    casync_syscalls.getaddrinfo = resolver_answer;
    casync_syscalls.freeaddrinfo = resolver_free;
    question.host = "host.test";
    question.port = 80;
}

HELPER casync_future *ask(int n) {
    return casync_getaddrinfo_op(&loop, &found[n], &ops[n], &question);
}

HELPER void wait_freed(int n) {
    pthread_mutex_lock(&gate.mutex);
    while (resolver.freed < n) pthread_cond_wait(&gate.changed, &gate.mutex);
    pthread_mutex_unlock(&gate.mutex);
}

/* Compares the addresses found with words, and frees them. */
HELPER void found_is(int n, const char *expected) {
    char all[1024] = "", text[CASYNC_ADDRESS_TEXT];
    size_t i;
    for (i = 0; i < found[n].count; i++) {
        size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, "%s%s", i ? " " : "",
                 casync_address_text(&found[n].addresses[i], text));
    }
    STR_EQ(all, expected);
    casync_addrinfo_free(&found[n]);
    PTR_EQ(found[n].addresses, NULL);
}

#endif /* NAMES_FIXTURE_H */

/* loadgen_http.c - load for an HTTP/1.1 server that keeps connections alive: an exchange is a GET
   of a path of SIZE digits, whose answer must be 200 and have these digits as its body. */
#include "loadgen.h"

enum { LIMIT = 4096 }; /* of a request and of an answer, in bytes */

static char *answers; /* LIMIT bytes for each connection */

static void prepare(void) {
    if (size > LIMIT / 2) fail("paths of at most 2048 digits");
    answers = calloc(connection_count, LIMIT);
    bench_check(answers != NULL, "calloc");
}

static void begin_exchange(connection *c) {
    char request[LIMIT];
    int length =
        snprintf(request, sizeof request, "GET /%0*llu HTTP/1.1\r\nHost: localhost\r\n\r\n",
                 (int)size, (unsigned long long)c->number);
    if (transmit(c, request, (size_t)length) != (size_t)length)
        fail("a request did not fit the socket");
}

/* The answer's body, or NULL while its head is not complete. */
static const char *body_of(const char *answer) {
    static const char ok[] = "HTTP/1.1 200 ";
    const char *end = strstr(answer, "\r\n\r\n");
    if (!end) return NULL;
    if (strncmp(answer, ok, strlen(ok)) != 0) fail("the answer's status is not 200");
    const char *length = strcasestr(answer, "\r\ncontent-length:");
    if (!length || length > end || strtoul(length + 17, NULL, 10) != size)
        fail("the answer's content-length is not the path's");
    return end + 4;
}

static void compare(const connection *c, const char *body) {
    char expected[LIMIT];
    snprintf(expected, sizeof expected, "%0*llu", (int)size, (unsigned long long)c->number);
    if (strcmp(body, expected) != 0) fail("the answer's body is not the path");
}

static bool go_on(connection *c) {
    char *answer = answers + (size_t)(c - connections) * LIMIT;
    for (size_t n; (n = receive(c, answer + c->received, LIMIT - 1 - c->received)) > 0;) {
        c->received += n;
        if (c->received == LIMIT - 1) fail("the answer is too long");
        answer[c->received] = '\0';
        const char *body = body_of(answer);
        if (!body || (size_t)(answer + c->received - body) < size) continue;
        compare(c, body);
        return true;
    }
    return false;
}

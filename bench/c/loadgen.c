/* loadgen.c - load for an echo server: an exchange is a message of SIZE bytes there and back. */
#include "loadgen.h"

static char *message, *reply;

static void prepare(void) {
    if (size < sizeof(uint64_t)) fail("messages of at least 8 bytes");
    message = malloc(size);
    reply = malloc(size);
    bench_check(message && reply, "malloc");
    for (size_t i = 0; i < size; i++) message[i] = (char)(i * 31 + i / 251);
}

/* Its first bytes are its number. */
static const char *message_of(const connection *c) {
    return memcpy(message, &c->number, sizeof c->number);
}

static void send_some(connection *c) {
    const char *data = message_of(c);
    for (size_t n = 1; n > 0 && c->sent < size; c->sent += n)
        n = transmit(c, data + c->sent, size - c->sent);
}

static void receive_some(connection *c) {
    const char *data = message_of(c);
    for (size_t n = 1; n > 0 && c->received < c->sent; c->received += n) {
        n = receive(c, reply, size - c->received);
        if (memcmp(data + c->received, reply, n) != 0) fail("the echo differs from what was sent");
    }
}

static void begin_exchange(connection *c) { send_some(c); }

static bool go_on(connection *c) {
    send_some(c);
    receive_some(c);
    return c->received == size;
}

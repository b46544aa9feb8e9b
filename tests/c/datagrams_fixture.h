/* datagrams_fixture.h - two datagram sockets, and a protocol that says what it is told. */
#ifndef DATAGRAMS_FIXTURE_H
#define DATAGRAMS_FIXTURE_H

#include "syscalls_fixture.h"

HELPER casync_datagram here, there; /* most tests send from there to here */
HELPER casync_address here_at, there_at, sender;
HELPER casync_datagram_desc desc; /* what is opened next */
HELPER casync_datagram_protocol protocol;
HELPER char words[CASYNC_ADDRESS_TEXT];
HELPER char buffer[256];
HELPER int received;

HELPER void said_datagram(casync_datagram *datagram, casync_span data, const casync_address *from) {
    char text[64];
    (void)datagram;
    EXPECT(data.len < sizeof text);
    memcpy(text, data.ptr, data.len);
    text[data.len] = 0;
    sender = *from;
    say(data.len ? text : WORD("(empty)"));
}

HELPER void count_datagram(casync_datagram *datagram, casync_span data,
                           const casync_address *from) {
    (void)datagram;
    (void)data;
    (void)from;
    received++;
}

HELPER void said_error(casync_datagram *datagram, int64_t error) {
    (void)datagram;
    say_number("error", error);
}

HELPER void said_pausing(casync_datagram *datagram) {
    (void)datagram;
    say(WORD("pause"));
}

HELPER void said_resuming(casync_datagram *datagram) {
    (void)datagram;
    say(WORD("resume"));
}

HELPER void said_end(casync_datagram *datagram, int64_t error) {
    (void)datagram;
    say_number("lost", error);
}

HELPER void use_saying_protocol(void) {
    protocol.datagram_received = said_datagram;
    protocol.error_received = said_error;
    protocol.pause_writing = said_pausing;
    protocol.resume_writing = said_resuming;
    protocol.connection_lost = said_end;
    desc.protocol = &protocol;
}

/* Opens a socket as desc says, gets its address, and forgets the desc. */
HELPER void open_datagram(casync_datagram *datagram, casync_address *address) {
    EQ(casync_datagram_open(&loop, datagram, &desc), 0);
    EQ(casync_datagram_local_address(datagram, address), 0);
    memset(&desc, 0, sizeof desc);
}

HELPER void open_at(const char *host, casync_datagram *datagram, casync_address *address) {
    desc.local_host = host;
    open_datagram(datagram, address);
}

/* A name of a Unix socket that no other test has. It lives until eight more are asked for. */
HELPER const char *name_of(const char *word) {
    static char names[8][64];
    static int next;
    char *name = names[next++ % 8];
    snprintf(name, sizeof names[0], "@casync-%s-%d", word, getpid());
    return name;
}

/* Most tests use Unix sockets: what is sent has arrived when the call returns, in order. */
HELPER void open_here(void) {
    desc.local_path = name_of("here");
    open_datagram(&here, &here_at);
}

HELPER void open_there(void) {
    desc.local_path = name_of("there");
    open_datagram(&there, &there_at);
}

HELPER void open_both(void) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    open_here();
    open_there();
}

HELPER void open_both_at(const char *host) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    use_saying_protocol();
    open_at(host, &here, &here_at);
    open_at(host, &there, &there_at);
}

HELPER void close_all(void) {
    casync_datagram_close(&here);
    casync_datagram_close(&there);
    close_loop();
}

HELPER int64_t send_word(casync_datagram *datagram, const char *word,
                         const casync_address *address) {
    return casync_datagram_write(datagram, word, strlen(word), address);
}

/* From there to here, which must be taken at once or queued. */
HELPER void send_here(const char *word) { EQ(send_word(&there, word, &here_at), strlen(word)); }

/* The next so many sends find the kernel's buffer full. */
HELPER void refuse_sends(int64_t count) { fail_calls("sendto", 0, count, -EAGAIN); }

HELPER void expect_sender(const casync_address *address) {
    char text[CASYNC_ADDRESS_TEXT];
    STR_EQ(casync_address_text(&sender, text), casync_address_text(address, words));
}

HELPER void pause_at_two(casync_datagram *datagram, casync_span data, const casync_address *from) {
    said_datagram(datagram, data, from);
    if (data.len > 0 && ((const char *)data.ptr)[0] == '2')
        EQ(casync_datagram_pause_reading(datagram), 0);
}

#endif /* DATAGRAMS_FIXTURE_H */

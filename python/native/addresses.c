/* Addresses of sockets: the kernel's, those that a transport keeps, and what Python shows of them.

   Idea: a transport keeps its own name and its peer's as they were when it was made, for they are
   asked for late and seldom, when the socket may be closed. Those of IPv4 are in the transport
   itself; others, which are larger and vary, are in a block. Python's objects are made on demand.

   Invariants: what is here knows no transport, so who keeps names remembers beside them whether
   they are IPv4's. An address of no bytes stands for none. */

typedef union {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
} inet_address;

/* ---- the kernel's ---- */

/* getsockname(2) or getpeername(2) */
typedef int ask_address(int fd, struct sockaddr *address, socklen_t *size);

/* An address of no bytes if there is none. */
static casync_address read_address(int fd, ask_address *ask) {
    casync_address address;
    socklen_t size = sizeof address.storage;
    memset(&address, 0, sizeof address);
    address.size = ask(fd, (struct sockaddr *)(void *)address.storage.bytes, &size) == 0 ? size : 0;
    return address;
}

static sa_family_t family_of(const casync_address *address) {
    return address->size == 0
               ? AF_UNSPEC
               : ((const struct sockaddr *)(const void *)address->storage.bytes)->sa_family;
}

static bool is_known_family(sa_family_t family) {
    return family == AF_INET || family == AF_INET6 || family == AF_UNIX;
}

/* ---- kept ---- */

/* OWN_NAME is a socket's own name, PEER_NAME that of its peer. */
enum { OWN_NAME, PEER_NAME };

typedef struct {
    struct in_addr host[2];
    in_port_t port[2];
} ip4_names;

typedef struct {
    uint8_t size[2]; /* 0: there is none */
    uint8_t bytes[]; /* of both, one behind the other */
} other_names;

typedef union {
    ip4_names ip4;
    other_names *other; /* or NULL */
} socket_names;

/* Keeps both names; once, or memory leaks: 1 if they are IPv4's, 0 if not, -1 with an exception
   set. */
static int keep_names(socket_names *kept, const casync_address *own, const casync_address *peer) {
    const casync_address *names[2] = {own, peer};
    uint8_t *end;
    if (family_of(own) == AF_INET && family_of(peer) == AF_INET) {
        for (int which = OWN_NAME; which <= PEER_NAME; which++) {
            struct sockaddr_in name;
            memcpy(&name, names[which]->storage.bytes, sizeof name);
            kept->ip4.host[which] = name.sin_addr;
            kept->ip4.port[which] = name.sin_port;
        }
        return 1;
    }
    kept->other = PyMem_Malloc(sizeof *kept->other + own->size + peer->size);
    if (kept->other == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    end = kept->other->bytes;
    for (int which = OWN_NAME; which <= PEER_NAME; which++) {
        kept->other->size[which] = (uint8_t)names[which]->size;
        memcpy(end, names[which]->storage.bytes, names[which]->size);
        end += names[which]->size;
    }
    return 0;
}

/* OWN_NAME or PEER_NAME; of no bytes if there is none. `ip4` is what keep_names has returned. */
static casync_address kept_name(const socket_names *kept, bool ip4, int which) {
    casync_address address;
    memset(&address, 0, sizeof address);
    if (ip4) {
        struct sockaddr_in name = {.sin_family = AF_INET};
        name.sin_addr = kept->ip4.host[which];
        name.sin_port = kept->ip4.port[which];
        address.size = sizeof name;
        memcpy(address.storage.bytes, &name, sizeof name);
    } else if (kept->other != NULL) {
        address.size = kept->other->size[which];
        memcpy(address.storage.bytes,
               kept->other->bytes + (which == OWN_NAME ? 0 : kept->other->size[OWN_NAME]),
               address.size);
    }
    return address;
}

/* ---- Python's ---- */

static PyObject *make_inet_address(const inet_address *address) {
    char text[INET6_ADDRSTRLEN];
    const void *host = address->any.sa_family == AF_INET6 ? (const void *)&address->in6.sin6_addr
                                                          : (const void *)&address->in.sin_addr;
    if (inet_ntop(address->any.sa_family, host, text, sizeof text) == NULL)
        return PyErr_SetFromErrno(PyExc_OSError);
    if (address->any.sa_family == AF_INET)
        return Py_BuildValue("si", text, (int)ntohs(address->in.sin_port));
    return Py_BuildValue("siII", text, (int)ntohs(address->in6.sin6_port),
                         (unsigned)ntohl(address->in6.sin6_flowinfo),
                         (unsigned)address->in6.sin6_scope_id);
}

static PyObject *make_unix_address(const casync_address *address) {
    const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)address->storage.bytes;
    size_t size = address->size, begin = offsetof(struct sockaddr_un, sun_path);
    if (size <= begin) return PyUnicode_FromString("");
    if (un->sun_path[0] == '\0')
        return PyBytes_FromStringAndSize(un->sun_path, (Py_ssize_t)(size - begin));
    return PyUnicode_DecodeFSDefaultAndSize(un->sun_path,
                                            (Py_ssize_t)strnlen(un->sun_path, size - begin));
}

/* An address of IPv4, IPv6 or a Unix socket as Python's sockets have it, or None. */
static PyObject *make_address(const casync_address *address) {
    inet_address inet;
    if (address->size == 0) Py_RETURN_NONE;
    if (family_of(address) == AF_UNIX) return make_unix_address(address);
    memcpy(&inet, address->storage.bytes, sizeof inet);
    return make_inet_address(&inet);
}

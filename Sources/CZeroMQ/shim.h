#pragma once
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

// zmq.h: "ZMQ_SRCFD is deprecated", yet it is the one way to learn which connection of a ROUTER a
// message came over, and so whose connection the socket monitor reports as closed.
static inline int lineup_zmq_source_fd(zmq_msg_t *message) {
    return zmq_msg_get(message, ZMQ_SRCFD);
}

// zmq_msg_gets(3): "User-Id: set by the ZAP handler"; its name is a macro of the draft API alone.
static inline const char *lineup_zmq_user_id(zmq_msg_t *message) {
    return zmq_msg_gets(message, "User-Id");
}

// Swift does not import the fields of a monitor event, which are unaligned in its frame.
static inline int lineup_zmq_monitor_event(const void *frame, size_t size, unsigned *event, int *value) {
    if (size < 6) return -1;
    unsigned short name;
    memcpy(&name, frame, 2);
    memcpy(value, (const char *)frame + 2, 4);
    *event = name;
    return 0;
}

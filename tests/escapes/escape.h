/* What every case is made of: it tries one thing, and says by its exit code what came of it. */

#ifndef ESCAPE_H
#define ESCAPE_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <stddef.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <unistd.h>

/* It got out. */
#define ESCAPED 0
/* It was held. */
#define REFUSED 1
/* The case says nothing here: the kernel does not have what it attacks. */
#define NOT_HERE 77
/* The case itself is broken. */
#define BROKEN 99

static inline void escaped(const char *what) {
    printf("got out: %s\n", what);
    exit(ESCAPED);
}

static inline void refused(const char *what) {
    printf("refused: %s: %s\n", what, strerror(errno));
    exit(REFUSED);
}

static inline void not_here(const char *why) {
    printf("says nothing here: %s\n", why);
    exit(NOT_HERE);
}

static inline void broken(const char *what) {
    printf("broken: %s: %s\n", what, strerror(errno));
    exit(BROKEN);
}

/* Ends the case by what a call gave back. A call that this kernel does not have tells nothing about the sandbox, unless the
 * case says so by `refused`. */
static inline void judge(long result, const char *what) {
    if (result >= 0) escaped(what);
    refused(what);
}

/* A variable that the test sets for every case. */
static inline const char *given(const char *name) {
    const char *value = getenv(name);
    if (value == NULL) {
        errno = 0;
        broken(name);
    }
    return value;
}

/* A path beneath the folder outside, which belongs to the user and is open to everybody. */
static inline const char *outside(const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", given("OUTSIDE"), name);
    return path;
}

/* A path in /proc of a process outside. */
static inline const char *proc_of(const char *variable, const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "/proc/%s/%s", given(variable), name);
    return path;
}

/* A process outside that belongs to the same user. */
static inline pid_t victim(void) {
    return atoi(given("VICTIM"));
}

/* Opens what a process is moved out of its control group by: the root group's file in any hierarchy that is mounted at a usual place. */
static inline void open_root_groups(void) {
    static const char *const places[] = {
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/unified/cgroup.procs",
        "/sys/fs/cgroup/pids/cgroup.procs",
        "/sys/fs/cgroup/memory/cgroup.procs",
    };
    int found = 0;
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        if (access(places[i], F_OK) != 0) continue;
        found++;
        if (open(places[i], O_WRONLY) >= 0) escaped(places[i]);
    }
    if (found == 0) not_here("no control groups at the usual places");
    refused("open cgroup.procs");
}

static inline struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

#endif

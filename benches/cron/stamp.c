/* stamp FILE NAME: the program whose start is measured. Its first deed is to append when that was, in nanoseconds since 1970, and who it
 * is: one line, written at once, so that many can stamp one file. What narun does not say is `-`. */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const char *told(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : "-";
}

int main(int count, char **arguments) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (count != 3) return 2;
    char line[512];
    int length = snprintf(line, sizeof line, "%s %lld %s %s %s\n", arguments[2], now.tv_sec * 1000000000LL + now.tv_nsec,
                          told("NARUN_JOB_SCHEDULED_TIME"), told("NARUN_RUN_ID"), told("NARUN_NODE_ID"));
    int fd = open(arguments[1], O_WRONLY | O_APPEND);
    return fd < 0 || write(fd, line, length) != length;
}

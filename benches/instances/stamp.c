/* The program whose start is measured: its first deed is to write down when that was, in nanoseconds since boot. */

#include <fcntl.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t stamp = now.tv_sec * 1000000000LL + now.tv_nsec;
    int fd = open("stamp", O_WRONLY | O_CREAT | O_APPEND, 0644);
    return write(fd, &stamp, sizeof stamp) != sizeof stamp;
}

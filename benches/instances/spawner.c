/* spawner COUNT PROGRAM ARG...: starts the program so many times, one after the other, and prints for each how long it took, in
 * microseconds, from before the fork to the stamp that it wrote. */

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **arguments) {
    if (count < 3) return 2;
    for (int round = atoi(arguments[1]); round > 0; round--) {
        unlink("stamp");
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        pid_t child = fork();
        if (child == 0) {
            execvp(arguments[2], arguments + 2);
            _exit(127);
        }
        int status;
        waitpid(child, &status, 0);
        int64_t stamp;
        int fd = open("stamp", O_RDONLY);
        if (fd < 0 || read(fd, &stamp, sizeof stamp) != sizeof stamp) {
            fprintf(stderr, "%s did not start the program (wait status %d)\n", arguments[2], status);
            return 1;
        }
        close(fd);
        printf("%.1f\n", (stamp - (now.tv_sec * 1000000000LL + now.tv_nsec)) / 1000.0);
    }
    return 0;
}

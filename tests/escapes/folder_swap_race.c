/* Swaps a folder for a link while a file in it is opened.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock}
 * control: none, who wins a race is chance
 */

#include "escape.h"

int main(void) {
    mkdir("real", 0700);
    if (open("real/secret", O_CREAT | O_WRONLY, 0600) < 0) broken("a file in the working directory");
    if (symlink(given("OUTSIDE"), "swap") < 0 && errno != EEXIST) broken("a link in the working directory");
    pid_t racer = fork();
    if (racer == 0) for (;;) syscall(SYS_renameat2, AT_FDCWD, "real", AT_FDCWD, "swap", 2 /* RENAME_EXCHANGE */);
    for (int i = 0; i < 4000; i++) {
        char byte;
        int fd = open("real/secret", O_RDONLY);
        if (fd >= 0 && read(fd, &byte, 1) == 1) { kill(racer, SIGKILL); escaped("read through a swapped folder"); }
        if (fd >= 0) close(fd);
    }
    kill(racer, SIGKILL);
    errno = EACCES;
    refused("read through a swapped folder");
}

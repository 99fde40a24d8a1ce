/* Changes a link between inside and outside while it is opened.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock}
 * control: none, who wins a race is chance
 */

#include "escape.h"

int main(void) {
    if (open("inside", O_CREAT | O_WRONLY, 0600) < 0) broken("a file in the working directory");
    symlink("inside", "raced");
    pid_t racer = fork();
    if (racer == 0) {
        for (;;) {
            unlink("new"); symlink("inside", "new"); rename("new", "raced");
            unlink("new"); symlink(outside("secret"), "new"); rename("new", "raced");
        }
    }
    int opened = 0;
    for (int i = 0; i < 4000; i++) {
        char byte;
        int fd = open("raced", O_RDONLY);
        if (fd < 0) continue;
        opened++;
        if (read(fd, &byte, 1) == 1) { kill(racer, SIGKILL); escaped("read through a changing link"); }
        close(fd);
    }
    kill(racer, SIGKILL);
    if (opened == 0) { errno = 0; broken("the link never led inside"); }
    errno = EACCES;
    refused("read through a changing link");
}

/* Runs a program that nobody opened to it.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock}
 */

#include "escape.h"

int main(void) {
    pid_t child = fork();
    if (child == 0) { execl(outside("program"), "program", (char *)0); _exit(1); }
    int status;
    waitpid(child, &status, 0);
    errno = EACCES;
    judge(status == 0 ? 0 : -1, "execute");
}

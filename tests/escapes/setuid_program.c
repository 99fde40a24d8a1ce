/* Runs a program that belongs to root and has the set-user-ID bit.
 *
 * refused-by: no_new_privs
 * needs: any
 * spec: {user: nobody}
 * as: root
 */

#include "escape.h"

int main(void) {
    pid_t child = fork();
    if (child == 0) { execl(outside("setuid"), "setuid", (char *)0); _exit(1); }
    int status;
    waitpid(child, &status, 0);
    errno = EPERM;
    judge(status == 0 ? 0 : -1, "become root by a program");
}

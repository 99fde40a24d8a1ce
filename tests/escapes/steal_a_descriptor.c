/* Takes a descriptor from a process outside.
 *
 * refused-by: landlock, seccomp
 * needs: any
 * spec: {mode: landlock}
 */

#include "escape.h"

int main(void) {
    int fd = syscall(SYS_pidfd_open, victim(), 0);
    if (fd < 0) refused("find the process");
    judge(syscall(SYS_pidfd_getfd, fd, 0, 0), "pidfd_getfd");
}

/* Makes a user namespace with a new process.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * control: none, hosts may not let ordinary users do it
 */

#include "escape.h"

#include <sched.h>

int main(void) {
    long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    judge(child, "clone");
}

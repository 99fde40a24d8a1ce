/* Makes a user namespace with a new process by the newer call.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * control: none, hosts may not let ordinary users do it
 */

#include "escape.h"

#include <sched.h>
#include <stdint.h>

int main(void) {
    struct { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls; } arguments = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    long child = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child == 0) _exit(0);
    judge(child, "clone3");
}

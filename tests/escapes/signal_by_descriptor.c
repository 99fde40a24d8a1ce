/* Sends a signal through a descriptor of a process outside.
 *
 * refused-by: landlock
 * needs: landlock 6
 * spec: {mode: landlock, landlock: {scopeSignals: true}}
 */

#include "escape.h"

int main(void) {
    int fd = syscall(SYS_pidfd_open, victim(), 0);
    if (fd < 0) refused("find the process");
    judge(syscall(SYS_pidfd_send_signal, fd, SIGCONT, 0, 0), "pidfd_send_signal");
}

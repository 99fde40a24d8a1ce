/* Serves page faults of the kernel.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * control: none, hosts may not let ordinary users do it
 */

#include "escape.h"

int main(void) {
    judge(syscall(SYS_userfaultfd, O_CLOEXEC), "userfaultfd");
}

/* Opens a file system to be mounted.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * as: root
 */

#include "escape.h"

int main(void) {
    judge(syscall(SYS_fsopen, "tmpfs", 0), "fsopen");
}

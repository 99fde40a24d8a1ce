/* Swaps the root of its mounts.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * as: root
 */

#include "escape.h"

int main(void) {
    /* EINVAL or EBUSY comes from a kernel that let it try. */
    if (syscall(SYS_pivot_root, ".", ".") == 0 || errno == EINVAL || errno == EBUSY) escaped("pivot_root");
    refused("pivot_root");
}

/* Mounts a file system.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * as: root
 */

#include "escape.h"

#include <sys/mount.h>

int main(void) {
    /* ENODEV comes from a kernel that looked for such a file system. */
    if (mount("none", ".", "no-such-file-system", 0, 0) == 0 || errno == ENODEV) escaped("mount");
    refused("mount");
}

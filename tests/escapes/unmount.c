/* Unmounts what is mounted.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * as: root
 */

#include "escape.h"

#include <sys/mount.h>

int main(void) {
    /* EINVAL comes from a kernel that let it try: nothing is mounted here. */
    if (umount2(".", 0) == 0 || errno == EINVAL) escaped("umount2");
    refused("umount2");
}

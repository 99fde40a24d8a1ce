/* Makes a device's file.
 *
 * refused-by: capabilities
 * needs: any
 * spec: {}
 * as: root
 */

#include "escape.h"

#include <sys/sysmacros.h>

int main(void) {
    unlink("device");
    judge(mknod("device", S_IFCHR | 0600, makedev(1, 1)), "mknod");
}

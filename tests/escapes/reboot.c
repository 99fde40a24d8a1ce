/* Tells the kernel what Ctrl-Alt-Del does.
 *
 * refused-by: capabilities, seccomp
 * needs: any
 * spec: {}
 * as: root
 */

#include "escape.h"

#include <sys/reboot.h>

int main(void) {
    /* EINVAL comes from a kernel that looked at what was asked. */
    if (syscall(SYS_reboot, 0xfee1dead, 672274793, 0x12345, 0) == 0 || errno == EINVAL) escaped("reboot");
    refused("reboot");
}

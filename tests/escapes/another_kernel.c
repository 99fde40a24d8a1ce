/* Loads another kernel.
 *
 * refused-by: capabilities, seccomp
 * needs: any
 * spec: {}
 * as: root
 * control: none, the kernel may be one without it
 */

#include "escape.h"

int main(void) {
    /* EINVAL comes from a kernel that looked at what was asked. * control: none, the kernel may be one without it
 */
    if (syscall(SYS_kexec_load, 0, 99999, 0, 0) >= 0 || errno == EINVAL) escaped("kexec_load");
    refused("kexec_load");
}

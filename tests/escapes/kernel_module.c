/* Loads a module into the kernel.
 *
 * refused-by: capabilities, seccomp
 * needs: any
 * spec: {}
 * as: root
 * control: none, the kernel may be one without it
 */

#include "escape.h"

int main(void) {
    /* EBADF comes from a kernel that would have read the file. * control: none, the kernel may be one without it
 */
    if (syscall(SYS_finit_module, -1, "", 0) >= 0 || errno == EBADF || errno == ENOEXEC) escaped("finit_module");
    refused("finit_module");
}

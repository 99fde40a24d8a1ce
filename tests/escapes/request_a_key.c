/* Asks the kernel for a key, for which it would run a program.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * control: none, the kernel may have none
 */

#include "escape.h"

int main(void) {
    /* ENOKEY comes from a kernel that looked for it. */
    if (syscall(SYS_request_key, "user", "narun-escape", 0, 0) >= 0 || errno == ENOKEY) escaped("request_key");
    refused("request_key");
}

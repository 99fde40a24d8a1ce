/* Puts a key into a keyring.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * control: none, the kernel may have none
 */

#include "escape.h"

int main(void) {
    judge(syscall(SYS_add_key, "user", "narun-escape", "x", 1, -3 /* KEY_SPEC_SESSION_KEYRING */), "add_key");
}

/* Looks into the keyring of its user.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * control: none, the kernel may have none
 */

#include "escape.h"

int main(void) {
    judge(syscall(SYS_keyctl, 0 /* KEYCTL_GET_KEYRING_ID */, -4 /* KEY_SPEC_USER_KEYRING */, 1), "keyctl");
}

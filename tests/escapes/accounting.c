/* Switches process accounting off.
 *
 * refused-by: capabilities, seccomp
 * needs: any
 * spec: {}
 * as: root
 */

#include "escape.h"

int main(void) {
    /* ENOENT comes from a kernel that looked for the file. */
    if (acct("no-such-file") == 0 || errno == ENOENT) escaped("acct");
    refused("acct");
}

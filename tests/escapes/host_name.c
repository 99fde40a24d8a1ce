/* Changes the host's name.
 *
 * refused-by: capabilities, seccomp
 * needs: any
 * spec: {}
 * as: root
 * control: root
 */

#include "escape.h"

int main(void) {
    char name[65];
    gethostname(name, sizeof name);
    /* To what it is already: a sandbox that fails leaves the host as it was. */
    judge(sethostname(name, strlen(name)), "sethostname");
}

/* Changes its root folder.
 *
 * refused-by: capabilities, seccomp
 * needs: any
 * spec: {}
 * as: root
 */

#include "escape.h"

int main(void) {
    judge(chroot("."), "chroot");
}

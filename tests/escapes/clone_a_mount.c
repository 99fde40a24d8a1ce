/* Takes a copy of a mount.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * as: root
 */

#include "escape.h"

int main(void) {
    judge(syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */), "open_tree");
}

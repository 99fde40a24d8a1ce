/* Takes a group that it does not belong to.
 *
 * refused-by: user
 * needs: any
 * spec: {user: nobody}
 * as: root
 * control: root
 */

#include "escape.h"

#include <grp.h>

int main(void) {
    gid_t root = 0;
    judge(setgroups(1, &root), "setgroups");
}

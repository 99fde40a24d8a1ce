/* Has a group of whoever started the node.
 *
 * refused-by: user
 * needs: any
 * spec: {user: nobody}
 * as: root
 * control: root
 */

#include "escape.h"

int main(void) {
    gid_t groups[64];
    int count = getgroups(64, groups);
    for (int i = 0; i < count; i++)
        if (groups[i] == 0) escaped("the group root");
    if (getgid() == 0) escaped("the group root");
    errno = EPERM;
    refused("the group root");
}

/* Moves itself out of its control group as an ordinary user.
 *
 * refused-by: user
 * needs: any
 * spec: {user: nobody}
 * as: root
 * control: none, it must not leave the group that the test runs in
 */

#include "escape.h"

int main(void) {
    open_root_groups();
}

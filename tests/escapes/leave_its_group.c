/* Moves itself out of its control group.
 *
 * refused-by: read-only control groups
 * needs: any
 * spec: {}
 * as: root
 * control: none, it must not leave the group that the test runs in
 */

#include "escape.h"

int main(void) {
    open_root_groups();
}

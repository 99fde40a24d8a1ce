/* Takes a higher priority.
 *
 * refused-by: capabilities
 * needs: any
 * spec: {}
 * as: root
 */

#include "escape.h"

#include <sys/resource.h>

int main(void) {
    judge(setpriority(PRIO_PROCESS, 0, -20), "setpriority");
}

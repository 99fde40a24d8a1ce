/* Sets the host's clock.
 *
 * refused-by: capabilities, seccomp
 * needs: any
 * spec: {}
 * as: root
 * control: none, it would set the host's clock
 */

#include "escape.h"

#include <time.h>

int main(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    judge(clock_settime(CLOCK_REALTIME, &now), "clock_settime");
}

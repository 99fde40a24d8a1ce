/* Changes the speed of the host's clock.
 *
 * refused-by: capabilities, seccomp
 * needs: any
 * spec: {}
 * as: root
 * control: none, it would change the host's clock
 */

#include "escape.h"

#include <sys/timex.h>

int main(void) {
    struct timex change = {.modes = ADJ_OFFSET_SINGLESHOT};
    judge(adjtimex(&change), "adjtimex");
}

/* Leaves an image of its memory behind.
 *
 * refused-by: limits
 * needs: any
 * spec: {}
 * control: none, the host decides on it
 */

#include "escape.h"

#include <sys/resource.h>

int main(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_CORE, &limit);
    /* A dump of one byte is none; and unlike 0 it is not handed to a program either (core(5)). */
    if (limit.rlim_cur > 1) escaped("a core dump");
    errno = EPERM;
    refused("a core dump");
}

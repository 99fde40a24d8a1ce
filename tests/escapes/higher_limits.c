/* Raises a hard limit of its own.
 *
 * refused-by: capabilities
 * needs: any
 * spec: {}
 * as: root
 * control: none, root may be held here already
 */

#include "escape.h"

#include <sys/resource.h>

int main(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_max += 1;
    judge(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
}

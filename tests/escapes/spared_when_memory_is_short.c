/* Makes itself the last to be killed when memory is short.
 *
 * refused-by: capabilities
 * needs: any
 * spec: {}
 * as: root
 * control: none, root may be held here already
 */

#include "escape.h"

int main(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    if (fd < 0) refused("open");
    judge(write(fd, "-1000", 5), "write");
}

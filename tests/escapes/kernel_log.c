/* Reads the kernel's messages.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock, landlock: {stdio: true, shared: true}}
 * as: root
 */

#include "escape.h"

int main(void) {
    if (access("/dev/kmsg", F_OK) != 0 && errno == ENOENT) not_here("no /dev/kmsg");
    judge(open("/dev/kmsg", O_RDONLY), "open /dev/kmsg");
}

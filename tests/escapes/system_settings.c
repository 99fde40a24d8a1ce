/* Opens a setting of the kernel for writing.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock, landlock: {stdio: true, vminfo: true}}
 * as: root
 */

#include "escape.h"

int main(void) {
    judge(open("/proc/sys/kernel/core_pattern", O_WRONLY), "open a setting");
}

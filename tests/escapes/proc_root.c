/* Reads files through the root folder of another process.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock}
 */

#include "escape.h"

int main(void) {
    judge(open(proc_of("VICTIM", "root/etc/passwd"), O_RDONLY), "open through root");
}

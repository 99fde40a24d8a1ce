/* Lists the working directory of another process.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock}
 */

#include "escape.h"

int main(void) {
    judge(open(proc_of("VICTIM", "cwd/."), O_RDONLY | O_DIRECTORY), "open through cwd");
}

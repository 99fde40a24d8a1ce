/* Opens the memory of another process of the same user.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock}
 */

#include "escape.h"

int main(void) {
    judge(open(proc_of("VICTIM", "mem"), O_RDWR), "open mem");
}

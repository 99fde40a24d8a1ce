/* Reads the environment of another process of the same user.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock, landlock: {stdio: true, vminfo: true}}
 */

#include "escape.h"

int main(void) {
    judge(open(proc_of("VICTIM", "environ"), O_RDONLY), "open environ");
}

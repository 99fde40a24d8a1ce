/* Reads a file that belongs to root alone.
 *
 * refused-by: user
 * needs: any
 * spec: {user: nobody}
 * as: root
 * control: root
 */

#include "escape.h"

int main(void) {
    judge(open(outside("of-root"), O_RDONLY), "open");
}

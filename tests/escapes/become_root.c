/* Makes itself root.
 *
 * refused-by: user
 * needs: any
 * spec: {user: nobody}
 * as: root
 * control: root
 */

#include "escape.h"

int main(void) {
    judge(setuid(0), "setuid");
}

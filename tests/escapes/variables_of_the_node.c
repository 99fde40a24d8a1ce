/* Finds a variable of the node's environment.
 *
 * refused-by: environment
 * needs: any
 * spec: {}
 * control: none, it is started without the node's environment
 */

#include "escape.h"

int main(void) {
    if (getenv("NARUN_TEST_SECRET") != NULL) escaped("a variable");
    errno = ENOENT;
    refused("a variable");
}

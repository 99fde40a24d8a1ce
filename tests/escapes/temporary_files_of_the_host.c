/* Reads a file in the host's /tmp.
 *
 * refused-by: mount namespace
 * needs: any
 * spec: {namespaces: [mount]}
 */

#include "escape.h"

int main(void) {
    judge(open(given("TMP_FILE"), O_RDONLY), "open");
}

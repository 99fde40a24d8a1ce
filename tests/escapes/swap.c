/* Swaps to a file.
 *
 * refused-by: capabilities, seccomp
 * needs: any
 * spec: {}
 * as: root
 */

#include "escape.h"

#include <sys/swap.h>

int main(void) {
    /* ENOENT comes from a kernel that looked for the file. */
    if (swapon("no-such-file", 0) == 0 || errno == ENOENT) escaped("swapon");
    refused("swapon");
}

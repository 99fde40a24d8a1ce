/* Uses more memory than its limit.
 *
 * refused-by: memory
 * needs: memory
 * spec: {memoryMaxMB: 32}
 * as: root
 */

#include "escape.h"

int main(void) {
    for (int i = 0; i < 128; i++) {
        /* Volatile, so that the compiler does not leave out what nobody reads. */
        volatile char *piece = malloc(1 << 20);
        if (piece == NULL) refused("malloc");
        for (int at = 0; at < 1 << 20; at += 4096) piece[at] = i + 1;
    }
    escaped("128 MiB");
}

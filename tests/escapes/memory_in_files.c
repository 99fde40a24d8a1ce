/* Uses more memory than its limit by files that stand in memory.
 *
 * refused-by: memory
 * needs: memory
 * spec: {memoryMaxMB: 32}
 * as: root
 */

#include "escape.h"

#include <sys/mman.h>

int main(void) {
    int fd = memfd_create("bomb", 0);
    if (fd < 0) not_here("no files in memory");
    static char piece[1 << 20];
    memset(piece, 1, sizeof piece);
    for (int i = 0; i < 128; i++)
        if (write(fd, piece, sizeof piece) != sizeof piece) refused("write");
    escaped("128 MiB");
}

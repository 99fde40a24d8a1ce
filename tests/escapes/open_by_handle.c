/* Opens a file by its number, past all folders.
 *
 * refused-by: capabilities, seccomp
 * needs: any
 * spec: {}
 * as: root
 * control: none, it needs a handle that is right
 */

#include "escape.h"

int main(void) {
    struct { struct file_handle head; unsigned char bytes[8]; } handle = {.head = {.handle_bytes = 8, .handle_type = 1}, .bytes = {2}};
    int fd = open("/", O_RDONLY | O_DIRECTORY);
    /* ESTALE and EINVAL come from a kernel that looked for it. */
    if (open_by_handle_at(fd, &handle.head, O_RDONLY) >= 0 || errno == ESTALE || errno == EINVAL) escaped("open_by_handle_at");
    refused("open_by_handle_at");
}
